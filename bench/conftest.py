"""Lets ``pytest bench/`` find ``bench_*`` functions in ``bench_*.py``."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")
