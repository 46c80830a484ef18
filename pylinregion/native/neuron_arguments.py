"""What the kernels that count a layer's neurons take in common: sizes, counts and patterns.

Shapes: ``B`` points, ``V`` vertices a point, ``N`` neurons of a kink, ``W`` 64-bit words of a pattern. What is counted
comes as ``[B * V, ...]`` with the vertices of a point next to each other, dense, in any layout in which a vertex is one
block of memory (contiguous or channels_last).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pylinregion.native.addresses import address, is_row_dense


@dataclass(frozen=True)
class Patterns:
    """Where a kernel writes its neurons' part of the patterns.

    Attributes:
        words: ``[B, V, W]`` int64, contiguous: the bits of all layers of a vertex side by side.
        offset: The first word of this layer.
    """

    words: Tensor
    offset: int = 0


def points_and_neurons(name: str, z: Tensor, vertices: int) -> tuple[int, int]:
    """``B`` and ``N`` of what is counted.

    Raises:
        ValueError: It is not ``[B * V, ...]``, or not dense.
    """
    if z.dim() < 1 or vertices < 1 or z.shape[0] % vertices:
        raise ValueError(f"{name} must be [B * {vertices}, ...], got {list(z.shape)}")
    if not is_row_dense(z):
        raise ValueError(f"{name} must be contiguous or channels_last, got strides {z.stride()}")
    return z.shape[0] // vertices, math.prod(z.shape[1:])


def changes_address(changes: Tensor, points: int, device: torch.device) -> tuple[int, int]:
    """Where counts go, ``[B]`` int64, and their stride.

    Raises:
        ValueError: They are not that, or not there.
    """
    if changes.shape != (points,):
        raise ValueError(f"changes must be [{points}] int64, got {list(changes.shape)} {changes.dtype}")
    return address("changes", changes, device, torch.int64), changes.stride(0)


def pattern_address(
    patterns: Patterns | None, points: int, vertices: int, needed: int, device: torch.device
) -> tuple[int, int]:
    """Where a layer's ``needed`` words of the first pattern go, and the words of a pattern; 0 and 0 for none.

    Raises:
        ValueError: They have no room there.
    """
    if patterns is None:
        return 0, 0
    words = patterns.words
    if words.dtype != torch.int64 or not words.is_contiguous() or words.dim() != 3:
        raise ValueError(f"patterns.words must be contiguous [B, V, W] int64, got {list(words.shape)} {words.dtype}")
    if tuple(words.shape[:2]) != (points, vertices) or not 0 <= patterns.offset <= words.shape[2] - needed:
        raise ValueError(
            f"patterns must be [{points}, {vertices}, W] with {needed} words at offset {patterns.offset}, "
            f"got {list(words.shape)}"
        )
    return address("patterns.words", words, device, torch.int64) + 8 * patterns.offset, words.shape[2]
