"""Convolutions of many vectors in float64, most of which are 0 outside of a few places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion.native.extension import _C

RUN: int = _C.convolution_run  # at most so many products are summed one behind the other, then these sums


def convolved(told: Any, x: Tensor, forwards: bool) -> Tensor:
    """A convolution, or its transpose, of vectors.

    Args:
        told: The map, as ``LinearMap.for_core`` gives it.
        x: ``[n, width]`` float64 on the CPU, or backwards ``[n, rows]``.
        forwards: Whether it is the map, not its transpose.

    Returns:
        ``[n, rows]``, or backwards ``[n, width]``.
    """
    _, _, source, target, *_, transposed = told
    size = math.prod(source if transposed == forwards else target)
    out = torch.from_numpy(np.zeros((len(x), max(0, size))))  # sizes that are none are refused
    add_convolved(told, x, forwards, out)
    return out


def add_convolved(told: Any, x: Tensor, forwards: bool, out: Tensor) -> None:
    """The same, added to ``out``, which lies in one piece of memory."""
    _C.add_convolved(told, x.contiguous().numpy(), forwards, torch.get_num_threads(), out.numpy())


def add_images(told: Any, units: Int64s, factors: Array, out: Tensor) -> None:
    """Images of units, each times a factor, added to ``out``.

    Args:
        told: The map.
        units: ``[n]`` int64: of its width.
        factors: ``[n]`` float64.
        out: ``[n, rows]`` float64 on the CPU, which lies in one piece of memory.

    Raises:
        ValueError: A shape does not fit, or the map does not read a unit.
    """
    _C.add_images(told, units, factors, torch.get_num_threads(), out.numpy())
