"""What the continuous check alone builds and runs elsewhere compiles here too: the core's signatures are theirs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "tests/on_aarch64").glob("*.cpp"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_comparisons_on_aarch64_fit_the_core(source):
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "the package was built with a C++ compiler: set CXX"
    flags = ("-std=c++17", "-fsyntax-only", f"-I{ROOT / 'csrc'}")
    end = subprocess.run([*compiler.split(), *flags, source], capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
