"""Builds the extension ``pylinregion.native._C`` with CMake and Ninja; everything else is in pyproject.toml.

Environment:
    PYLINREGION_CUDA: "auto" (default: build the CUDA kernels if nvcc is found), "1" (nvcc is required), "0" (CPU only).
    CUDAARCHS: CUDA architectures, as CMake takes them ("80;90"). Default: that of the visible GPU, else 80, 90 and PTX.
    PYLINREGION_CMAKE_ARGS: more arguments for CMake, e.g. "-DPYLINREGION_WERROR=ON".
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def find_nvcc() -> str | None:
    """The CUDA compiler: $CUDACXX, then that of $CUDA_HOME (else of the usual place), then PATH."""
    places = [os.environ.get("CUDACXX"), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/nvcc", "nvcc"]
    return next((found for place in places if place and (found := shutil.which(place))), None)


def cuda_architectures() -> str:
    """$CUDAARCHS, else those of the visible GPUs, else 80 and 90 with PTX for later ones."""
    if wanted := os.environ.get("CUDAARCHS"):
        return wanted
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        answer = ""
    visible = sorted({line.strip().replace(".", "") for line in answer.splitlines() if line.strip()})
    if visible and all(number.isdigit() for number in visible):
        return ";".join([*(f"{number}-real" for number in visible[:-1]), visible[-1]])
    return "80-real;90"


def cuda_arguments() -> list[str]:
    """CMake's arguments for CUDA, or a line that says why there is none."""
    wanted = os.environ.get("PYLINREGION_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"PYLINREGION_CUDA must be auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        say("CPU only, as PYLINREGION_CUDA=0 asks.")
        return ["-DPYLINREGION_CUDA=OFF"]
    nvcc = find_nvcc()
    if nvcc is None and wanted == "1":
        sys.exit(
            "PYLINREGION_CUDA=1 asks for the CUDA kernels, but nvcc was not found: "
            "install the CUDA toolkit, or put nvcc on PATH, or set CUDA_HOME."
        )
    if nvcc is None:
        say("CUDA was left out: nvcc was not found. To add it, put nvcc on PATH or set CUDA_HOME, and install again.")
        return ["-DPYLINREGION_CUDA=OFF"]
    architectures = cuda_architectures()
    say(f"building the CUDA kernels for {architectures} with {nvcc}")
    return ["-DPYLINREGION_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"]


def say(text: str) -> None:
    print(f"pylinregion: {text}", file=sys.stderr, flush=True)


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve()
        shutil.rmtree(build, ignore_errors=True)  # an earlier install's cache names tools of a folder that is gone
        arguments = [
            "-G",
            "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_INSTALL_PREFIX={target}",
            *cuda_arguments(),
            *shlex.split(os.environ.get("PYLINREGION_CMAKE_ARGS", "")),
        ]
        subprocess.run(["cmake", "-S", ROOT, "-B", build, *arguments], check=True)
        subprocess.run(["cmake", "--build", build, "--target", "install"], check=True)


setup(ext_modules=[Extension("pylinregion.native._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
