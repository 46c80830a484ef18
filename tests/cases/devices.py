"""The devices that tests run on; CUDA is skipped, with the reason, where there is none (conftest.py)."""

import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
