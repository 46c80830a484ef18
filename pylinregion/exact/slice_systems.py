"""Slices as arrays, and what a fold leaves of a network on each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s


@dataclass(frozen=True)
class Slices:
    """Polygons on planes of the input space.

    Attributes:
        u, v: ``[B, inputs]`` float64, or ``[1, inputs]``: the same for all.
        origins: ``[B, inputs]`` float64.
        corners: ``[B, n, 2]`` float64: each counter-clockwise and strictly convex.
        borders: ``[B, n, 2, 2]`` float64: two points that the border behind each corner lies on, in its direction; the
            corners are where borders cross, rounded to the nearest numbers. None: borders go from corner to corner.
    """

    u: Array
    v: Array
    origins: Array
    corners: Array
    borders: Array | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, which: slice) -> Slices:
        """Some of them."""
        u, v = (side[which] if len(side) == len(self) else side for side in (self.u, self.v))
        borders = None if self.borders is None else self.borders[which]
        return Slices(u, v, self.origins[which], self.corners[which], borders)


@dataclass(frozen=True)
class SliceSystems:
    """What is not settled on each slice, as the core reads it (``csrc/partition/many_slices.h``).

    Attributes:
        begin: ``[B + 1]`` int64: the first row of each slice.
        stage_begin: ``[B, stages with lines + 1]`` int64: within a slice's rows, the first of each stage.
        line: ``[rows + 8]`` int32: their lines, ascending in each slice; then zeros.
        on: ``[B, bytes]`` uint8: a bit for each line of the network: settled, and on.
        affine: ``[3, rows]`` float64.
        error: ``[rows]`` float64: what a row is off by, anywhere on its slice.
        columns: float64: for a slice with n rows ``[n, n + 8]``: what each gives to those after it.
    """

    begin: Int64s
    stage_begin: Int64s
    line: NDArray[np.int32]
    on: NDArray[np.uint8]
    affine: Array
    error: Array
    columns: Array
