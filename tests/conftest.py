import pytest
import torch

from pylinregion import kernels


@pytest.fixture
def doubles():
    """Models and points of float64 from a fixed seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def why_no_cuda() -> str | None:
    if not kernels.cuda_built:
        return "pylinregion was built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``cuda`` are skipped, with the reason, where they cannot run."""
    if reason := why_no_cuda():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=reason))
