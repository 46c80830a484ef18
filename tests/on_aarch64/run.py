"""Compile the kernels for aarch64 and compare NEON with the portable kernels and with references.

Needs ``aarch64-linux-gnu-g++`` and ``qemu-aarch64`` (Debian: g++-aarch64-linux-gnu, qemu-user), or an aarch64 machine.

Usage: python tests/on_aarch64/run.py FOLDER_FOR_THE_PROGRAM
"""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
# As CMakeLists.txt compiles them: all but what CUDA, Python and x86 have of their own.
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Wno-psabi", "-Werror")


def sources() -> list[Path]:
    kernels = [path for path in sorted(CSRC.rglob("*.cpp")) if "bindings" not in path.stem and "_avx" not in path.stem]
    return [*sorted(HERE.glob("*.cpp")), *kernels]


def main(folder: Path) -> int:
    """Build and run; the program's exit status."""
    native = platform.machine() in ("aarch64", "arm64")
    compiler = "g++" if native else "aarch64-linux-gnu-g++"

    def compiled(source: Path) -> Path:
        to = folder / f"{source.parent.name}_{source.stem}.o"
        subprocess.run([compiler, *FLAGS, f"-I{CSRC}", "-c", source, "-o", to], check=True)
        return to

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources()))
    program = folder / "compare"
    subprocess.run([compiler, *objects, "-o", program, "-pthread", "-static"], check=True)
    return subprocess.run([program] if native else ["qemu-aarch64", program], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
