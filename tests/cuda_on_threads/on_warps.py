"""Pytest plugin: slices that are counted are counted by warps, too, and both ways give the same, to the bit.

For an extension that was built with -DPYLINREGION_ON_THREADS=ON, on a processor with fused multiply-adds.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pylinregion.exact.slice_walks import How, SliceWalks

COUNTED: Counter[str] = Counter()
_REGIONS = 3000  # of slices together: a warp on threads takes a millisecond for each

on_the_cpu = SliceWalks.count
_one_device = threading.Lock()


def count(self: SliceWalks, systems: Any, slices: Any, how: How, **asked: bool) -> dict[str, Any]:
    """As SliceWalks.count."""
    found = on_the_cpu(self, systems, slices, how, **asked)
    if found["regions"].size and found["regions"].sum() <= _REGIONS:
        with _one_device:
            again = on_the_cpu(self, systems, slices, how, on_device=True, **asked)
        left = again.pop("on_the_cpu")
        assert found.keys() == again.keys()
        for name, numbers in found.items():
            assert np.array_equal(numbers, again[name]), f"{name} of warps differ: {numbers}, {again[name]}"
        COUNTED.update(slices=len(slices), left=left, calls=1)
    return found


@pytest.hookimpl
def pytest_configure() -> None:
    SliceWalks.count = count  # type: ignore[method-assign]


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(
        f"warps: {COUNTED['slices']} slices in {COUNTED['calls']} calls, {COUNTED['left']} of these left to the CPU"
    )
