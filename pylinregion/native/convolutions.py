"""Convolutions of many vectors in float64, most of which are 0 outside of a few places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pylinregion.native.extension import _C


def convolved(told: Any, x: Tensor, forwards: bool) -> Tensor:
    """A convolution, or its transpose, of vectors.

    Args:
        told: The map, as ``LinearMap.for_core`` gives it.
        x: ``[n, width]`` float64 on the CPU, or backwards ``[n, rows]``.
        forwards: Whether it is the map, not its transpose.

    Returns:
        ``[n, rows]``, or backwards ``[n, width]``.
    """
    return torch.from_numpy(_C.convolved(told, x.contiguous().numpy(), forwards, torch.get_num_threads()))
