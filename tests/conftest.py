import pytest
import torch

from cases import parts
from cases.cuda_marks import pytest_collection_modifyitems  # noqa: F401


def pytest_configure(config):
    config.pluginmanager.register(parts)


@pytest.fixture
def doubles():
    """Models and points of float64 from a fixed seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def threads():
    """Sets torch's number of threads; it is what it was after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
