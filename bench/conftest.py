"""Lets ``pytest bench/`` find ``bench_*`` functions in ``bench_*.py``; CUDA is skipped, with the reason, without it."""

import pytest
import torch

from pylinregion import kernels


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")


def why_no_cuda() -> str | None:
    if not kernels.cuda_built:
        return "pylinregion was built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := why_no_cuda():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=reason))
