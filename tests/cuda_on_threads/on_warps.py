"""Pytest plugin: what the core walks along, warps walk along, too, and both ways give the same, to the bit.

For an extension that was built with -DPYLINREGION_ON_THREADS=ON, on a processor with fused multiply-adds.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pylinregion.exact import slice_engine
from pylinregion.native import exact_engines
from pylinregion.native.simd import simd

COUNTED: Counter[str] = Counter()
_REGIONS = 3000  # of slices together: a warp on threads takes a millisecond for each

_one_device = threading.Lock()


def is_asked(force_exact: bool, regions: int) -> bool:
    """Whether warps do what the CPU did: not the portable engine, which has no fused multiply-adds."""
    return not force_exact and regions <= _REGIONS and simd() != "portable"


def compared(name: str, found: dict[str, Any], again: dict[str, Any], slices: int) -> None:
    """Raise where warps found something else."""
    left = int(again.pop("on_the_cpu"))
    again.pop("halvings")
    assert found.keys() == again.keys()
    for what, numbers in found.items():
        assert np.array_equal(numbers, again[what]), f"{what} of warps differ: {numbers}, {again[what]}"
    COUNTED.update({f"{name}, slices": slices, f"{name}, left": left, f"{name}, calls": 1})


class _Both:
    """An engine of the core; what it is asked, warps are asked, too."""

    def __init__(self, **arguments: Any) -> None:
        self._engine = self.kind(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def enumerate(self, *arguments: Any, **asked: Any) -> dict[str, Any]:
        """As the core's."""
        found: dict[str, Any] = self._engine.enumerate(*arguments, **asked)
        if asked.get("on_device"):
            return found
        parts, force_exact = arguments[-6:-4]
        if is_asked(force_exact, sum(found["regions"][-1:])) and parts <= 1 and not found["stopped"]:
            with _one_device:
                again = self._engine.enumerate(*arguments[:-1], None, **asked, on_device=True)
            compared("cells" if "offsets" in found else "one slice", found, again, 1)
        return found


class SliceProblem(_Both):
    """As the core's."""

    kind = exact_engines.SliceProblem


class ManySlices(_Both):
    """As the core's."""

    kind = exact_engines.ManySlices

    def count(self, arrays: dict[str, Any], **asked: Any) -> dict[str, Any]:
        """As the core's."""
        found: dict[str, Any] = self._engine.count(arrays, **asked)
        regions = found["regions"]
        if regions.size and "on_device" not in asked and is_asked(asked["force_exact"], regions.sum()):
            with _one_device:
                again = self._engine.count(arrays, **asked | {"report": None}, on_device=True)
            compared("counts", found, again, len(found["regions"]))
        return found

    def trace(self, arrays: dict[str, Any], **asked: Any) -> dict[str, Any]:
        """As the core's."""
        found: dict[str, Any] = self._engine.trace(arrays, **asked)
        if "on_device" not in asked and is_asked(asked["force_exact"], len(found["t"])):
            with _one_device:
                again = self._engine.trace(arrays, **asked | {"report": None}, on_device=True)
            compared("segments", found, again, len(found["starts"]))
        return found


@pytest.hookimpl
def pytest_configure() -> None:
    exact_engines.ManySlices = ManySlices
    slice_engine.SliceProblem = SliceProblem


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name in ("counts", "one slice", "cells", "segments"):
        slices, calls, left = (COUNTED[f"{name}, {what}"] for what in ("slices", "calls", "left"))
        terminalreporter.write_line(f"warps, {name}: {slices} in {calls} calls, {left} of these left to the CPU")
