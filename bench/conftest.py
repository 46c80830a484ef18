"""Lets ``pytest bench/`` find ``bench_*`` functions in ``bench_*.py``; CUDA is skipped, with the reason, without it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from cases.cuda_marks import pytest_collection_modifyitems  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")
