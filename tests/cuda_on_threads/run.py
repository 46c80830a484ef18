"""Compile the CUDA kernels for the host and compare them with the CPU kernels. Needs g++ 11 or later.

Usage: python tests/cuda_on_threads/run.py FOLDER_FOR_THE_PROGRAM, or --translate KERNEL.cu FILE.cpp
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
KERNELS = ("sign_changes", "label_changes", "distinct_patterns", "displacement/chain")
ROWS = ("sign_changes", "displacement/chain")  # of which there is a file for each instruction set
LAUNCH = re.compile(r"(\w+(?:<T>)?)<<<(.*?), (\w+), (\w+), (\w+)>>>\(\s*(.*?)\);", re.DOTALL)
DYNAMIC_SHARED = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")


def on_threads(source: str) -> str:
    """CUDA source with its launches as calls of launch_on_threads."""
    text, launches = LAUNCH.subn(r"launch_on_threads(\2, \3, \4, [&] { \1(\6); });", source)
    assert launches and "<<<" not in text, "a launch was not recognised"
    text = DYNAMIC_SHARED.sub(r"\1* const \2 = static_cast<\1*>(dynamic_shared());", text)
    return re.sub(r"#pragma unroll.*", "", text)


def main(folder: Path) -> int:
    """Build and run; the program's exit status."""
    objects = []
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-Wno-psabi"]
    flags += [f"-I{HERE}", f"-I{CSRC}", f"-I{CSRC}/displacement", "-c"]
    sources = [*HERE.glob("*.cpp"), CSRC / "simd.cpp"]
    for name in KERNELS:
        kernel = CSRC / f"{name}.cu"
        sources += [folder / f"{kernel.stem}_on_threads.cpp", CSRC / f"{name}.cpp"]
        sources[-2].write_text(on_threads(kernel.read_text(encoding="utf-8")), encoding="utf-8")
    vectors = {"portable": [], "avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f"], "fused": ["-mfma"]}
    sources += [CSRC / f"{name}_{vector}.cpp" for name in ROWS for vector in ("portable", "avx2", "avx512")]
    for source in sources:
        extra = next((vectors[name] for name in vectors if source.stem.endswith(name)), [])
        objects.append(folder / f"{source.stem}.o")
        subprocess.run(["g++", *flags, *extra, source, "-o", objects[-1]], check=True)
    subprocess.run(["g++", *objects, "-o", folder / "compare", "-pthread"], check=True)
    return subprocess.run([folder / "compare"], check=False).returncode


if __name__ == "__main__":
    if sys.argv[1] == "--translate":
        Path(sys.argv[3]).write_text(on_threads(Path(sys.argv[2]).read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.exit(main(Path(sys.argv[1])))
