#!/usr/bin/env bash
# All that a GPU must show, most important first, in under ten minutes: bash bench/gpu_session.sh OUT [--rehearse]
# Every step ends after its seconds, and what it said is kept at once: OUT/session.md, OUT/session.json and
# OUT/NAME.log. It needs no network: torch, numpy, pybind11, cmake, ninja, setuptools, pytest, pytest-benchmark, hypothesis,
# scipy, scikit-learn, threadpoolctl and tqdm are there.
# --rehearse: each step on a machine without a GPU, as far as it goes, with coroutines of the CPU for warps.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n 2,6p "$0"; exit 2; }
mkdir -p "$1"
out="$(cd "$1" && pwd)"
rehearse=
[ "${2:-}" = --rehearse ] && rehearse=1
failed=0
steps=()
{
  echo "# What a GPU showed${rehearse:+ (a rehearsal without one)}"
  echo
  echo "Commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(date -u +%Y-%m-%dT%H:%M:%SZ)."
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
} >"$out/session.md"

step() { # step NAME SECONDS COMMAND...: runs it, and keeps how it ended
  local name="$1" limit="$2" begin status took
  shift 2
  begin=$(date +%s.%N)
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  took=$(echo "$(date +%s.%N) $begin" | awk '{printf "%.1f", $1 - $2}')
  [ "$status" = 0 ] || failed=1
  {
    printf '\n## %s: %s, %s s\n\n`%s`\n\n' "$name" \
      "$([ "$status" = 0 ] && echo done || { [ "$status" = 124 ] && echo "cut off after $limit s" || echo "FAILED ($status)"; })" \
      "$took" "$*"
    if grep -q '^|' "$out/$name.log"; then
      awk '!/^\|/ { inside = 0; next } !inside { table = "" } { inside = 1; table = table $0 "\n" }
           END { printf "%s", table }' "$out/$name.log" # the last one
    else
      printf '```\n%s\n```\n' "$(tail -n 12 "$out/$name.log" | cut -c1-300)"
    fi
  } >>"$out/session.md"
  steps+=("$(printf '{"step": "%s", "status": %s, "seconds": %s, "limit": %s, "log": "%s.log"}' \
    "$name" "$status" "$took" "$limit" "$name")")
  printf '[\n%s\n]\n' "$(printf '%s,\n' "${steps[@]}" | sed '$ s/,$//')" >"$out/session.json"
  echo "$name: $status, $took s"
}

python="${PYTHON:-python3}"
root="$PWD"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
quiet=(-q -p no:cacheprovider)
walks=tests/cuda_on_threads/walks.py
sanitizer="$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")"

# The package beside the sources, and the tests and benchmarks away from these: no installation is touched.
# PYLINREGION_SITE: a folder that has it built already.
site="${PYLINREGION_SITE:-$scratch/site}"
export PYLINREGION_CUDA=1
if [ -n "$rehearse" ]; then
  export PYLINREGION_CUDA=0
  export PYLINREGION_CMAKE_ARGS="${PYLINREGION_CMAKE_ARGS:-} -DPYLINREGION_ON_THREADS=ON -DCMAKE_CXX_FLAGS=-O1"
fi
[ -n "${PYLINREGION_SITE:-}" ] ||
  step build 300 "$python" -m pip install --quiet --no-build-isolation --no-deps --target "$site" "$root"
mkdir "$scratch/beside" && cp -r tests bench pyproject.toml README.md docs "$scratch/beside" && cd "$scratch/beside" || exit 1
export PYTHONPATH="$site:$scratch/beside/tests/cuda_on_threads"

step doctor 60 "$python" -m pylinregion doctor
if [ -n "$rehearse" ]; then
  step walks 300 "$python" -m pytest "${quiet[@]}" -p on_warps "$walks" -k "device or float16"
  step marked 120 "$python" -m pytest "${quiet[@]}" tests/exact/test_walk_device.py
  step bench-walks 120 "$python" bench/walks.py --device threads --smoke --out "$out"
  step bench-folds 60 "$python" bench/folds.py --device cpu --smoke --out "$out"
  step memcheck 60 "$python" -m pytest "${quiet[@]}" -p on_warps "$walks" -k agrees
  step bench-around 120 "$python" bench/main.py --smoke --out "$out"
  step bench-kernels 120 "$python" -m pytest "${quiet[@]}" --benchmark-disable bench/bench_kernels.py -k cpu
else
  # Walks of warps beside the CPU's, to the bit; not those whose memory is set for threads.
  step walks 100 "$python" -m pytest "${quiet[@]}" -p on_warps "$walks" tests/exact/test_many_slices.py \
    -k "not memory and not fit and not interrupt"
  step marked 100 "$python" -m pytest "${quiet[@]}" -m cuda tests --ignore tests/reference --ignore tests/exact/test_exact_rows.py
  step bench-walks 110 "$python" bench/walks.py --seconds 60 --out "$out"
  step bench-folds 60 "$python" bench/folds.py --repeats 1 --out "$out"
  checked=("$python" -m pytest "${quiet[@]}" -p on_warps "$walks" -k "agrees or (duplicated and not segments)")
  step memcheck 50 "$sanitizer" --tool memcheck --error-exitcode 9 "${checked[@]}"
  step bench-around 70 "$python" bench/main.py --device cuda --repeats 3 --out "$out"
  step racecheck 50 "$sanitizer" --tool racecheck --error-exitcode 9 "${checked[@]}"
  step initcheck 50 "$sanitizer" --tool initcheck --error-exitcode 9 "${checked[@]}"
  step bench-kernels 40 "$python" -m pytest "${quiet[@]}" bench/bench_kernels.py -k cuda
fi
echo "see $out/session.md"
exit "$failed"
