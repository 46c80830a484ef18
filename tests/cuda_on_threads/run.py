"""Compile the CUDA kernels for host threads and compare them with the CPU kernels. Needs g++ 11 or later.

Usage: python tests/cuda_on_threads/run.py FOLDER_FOR_THE_PROGRAM
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
KERNELS = ("sign_changes", "label_changes", "distinct_patterns")
LAUNCH = re.compile(r"(\w+(?:<T>)?)<<<(.*?), (\w+), 0, (\w+)>>>\(\s*(.*?)\);", re.DOTALL)


def on_threads(source: str) -> str:
    """CUDA source with its launches as calls of launch_on_threads."""
    text, launches = LAUNCH.subn(r"launch_on_threads(\2, \3, [&] { \1(\5); });", source)
    assert launches and "<<<" not in text, "a launch was not recognised"
    return text.replace("#pragma unroll", "")


def main(folder: Path) -> int:
    """Build and run; the program's exit status."""
    objects = []
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-Wno-psabi", f"-I{HERE}", f"-I{CSRC}", "-c"]
    sources = [HERE / "compare.cpp", CSRC / "simd.cpp", CSRC / "sign_changes_portable.cpp"]
    for name in KERNELS:
        sources += [folder / f"{name}_on_threads.cpp", CSRC / f"{name}.cpp"]
        sources[-2].write_text(on_threads((CSRC / f"{name}.cu").read_text(encoding="utf-8")), encoding="utf-8")
    vectors = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f"]}
    sources += [CSRC / f"sign_changes_{name}.cpp" for name in vectors]
    for source in sources:
        extra = next((vectors[name] for name in vectors if source.stem.endswith(name)), [])
        objects.append(folder / f"{source.stem}.o")
        subprocess.run(["g++", *flags, *extra, source, "-o", objects[-1]], check=True)
    subprocess.run(["g++", *objects, "-o", folder / "compare", "-pthread"], check=True)
    return subprocess.run([folder / "compare"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
