"""A hook for ``tests/`` and ``bench/``: what needs CUDA is skipped, with the reason, where there is none."""

import pytest
import torch

from pylinregion.native.extension import cuda_built


def why_no_cuda() -> str | None:
    """What is missing, or None."""
    if not cuda_built:
        return "pylinregion was built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what cannot run."""
    if reason := why_no_cuda():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=reason))
