"""Points in batches, and noise for them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pylinregion.measures import _arguments


def batches_of(x: Tensor, size: int) -> Iterator[Tensor]:
    """Rows of a tensor, some at a time, in order."""
    for begin in range(0, len(x), size):
        yield x[begin : begin + size]


def gaussian(x: Tensor, sigma: float, seed: int) -> Tensor:
    """Gaussian noise for points, float64 on their device; drawn at once, so that batches do not matter."""
    generator = _arguments.generator(seed)
    return (sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu")).to(x.device)
