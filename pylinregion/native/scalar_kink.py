"""Elementwise kinks with scalar breakpoints, as the kernels take them (``csrc/kink.h``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

_ACTIVATIONS = {"none": 0, "relu": 1, "leaky_relu": 2, "clamp": 3}


@dataclass(frozen=True)
class ScalarKink:
    """An elementwise kink with one or two scalar breakpoints.

    A neuron is on piece ``k`` if ``k`` breakpoints lie strictly below its pre-activation, so at a breakpoint it is on
    the lower piece: a ReLU at exactly 0 is off.

    Attributes:
        breakpoints: One or two numbers, ascending, exact in the dtype of the data.
        activation: What to write besides counting: ``"none"`` (nothing), ``"relu"``, ``"leaky_relu"`` with ``slope``,
            ``"clamp"`` to ``[low, high]``. For 16-bit floats only ``"none"`` and ``"relu"``.
        slope, low, high: Parameters of the activation.
    """

    breakpoints: tuple[float, ...] = (0.0,)
    activation: Literal["none", "relu", "leaky_relu", "clamp"] = "none"
    slope: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if len(self.breakpoints) not in (1, 2) or list(self.breakpoints) != sorted(self.breakpoints):
            raise ValueError(f"breakpoints must be one or two ascending numbers, got {self.breakpoints}")

    def to_kernel(self) -> tuple[int, int, float, float, float, float, float]:
        """The arguments of the kernels from ``activation`` to ``high``."""
        first, last = self.breakpoints[0], self.breakpoints[-1]
        return _ACTIVATIONS[self.activation], len(self.breakpoints), first, last, self.slope, self.low, self.high
