import contextlib
import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import pylinregion
from cases import parts
from cases.cuda_marks import pytest_collection_modifyitems  # noqa: F401
from pylinregion.reference import rational

with contextlib.suppress(ImportError):
    # The same numbers, several times faster; test_exact_reference_random.py compares them.
    from gmpy2 import mpq

    rational.rational = mpq

# Tests run beside each other: threads of all would wait for each other. Tests of threads ask for them.
torch.set_num_threads(1)
# So do processes that tests start; and they find the package that is tested, and what tests share.
os.environ["OMP_NUM_THREADS"] = "1"
places = [str(Path(__file__).parent), str(Path(pylinregion.__file__).parents[1]), os.environ.get("PYTHONPATH")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))


# A shell's background jobs ignore interrupts, and so would Python in them; tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.pluginmanager.register(parts)


def pytest_collection_finish():
    gc.freeze()  # what was imported lives as long as the tests: nobody need look through it again and again
    gc.set_threshold(20_000, 20, 20)


def _seed():
    np.random.seed(0)
    torch.manual_seed(0)


# What is drawn without a seed, in a test or where a module is read, is the same in each run, alone or with others. Not
# so what Hypothesis draws, from Python's own numbers.
def pytest_collectstart():
    _seed()


def pytest_runtest_setup():
    _seed()


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
