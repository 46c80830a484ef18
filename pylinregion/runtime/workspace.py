"""Memory that batches reuse."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Workspace:
    """Memory that one thread's batches reuse: fresh pages cost more than what is computed into them."""

    def __init__(self) -> None:
        self._buffers: dict[Any, Tensor] = {}

    def take(self, slot: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised contiguous memory; what a slot gave before is overwritten."""
        count = math.prod(shape)
        buffer = self._buffers.get(slot)
        if buffer is None or len(buffer) < count * dtype.itemsize:
            buffer = self._buffers[slot] = torch.empty(count * dtype.itemsize, dtype=torch.uint8, device=device)
        return buffer[: count * dtype.itemsize].view(dtype).view(shape)

    def take_rows(self, slot: Any, rows: int, like: Tensor) -> Tensor:
        """The same, laid out like the rows of ``like``."""
        width = math.prod(like.shape[1:])
        flat = self.take(slot, (rows * width,), like.dtype, like.device)
        return flat.as_strided((rows, *like.shape[1:]), (width, *like.stride()[1:]))
