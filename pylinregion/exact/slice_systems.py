"""Slices as arrays, and what a fold leaves of a network on each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import NORM_UP


@dataclass(frozen=True)
class Slices:
    """Polygons on planes of the input space, ``x(s, t) = origin + s u + t v``; or segments, ``origin + s (u + v)``.

    Attributes:
        u, v: ``[B, inputs]`` float64, or ``[1, inputs]``: the same for all. Of segments v is what u has lost by
            rounding: no more than ``2**-53 |u|``, number by number.
        origins: ``[B, inputs]`` float64.
        corners: ``[B, n, 2]`` float64: each counter-clockwise and strictly convex; of segments ``[B, 2, 2]``, the two
            ends on the first axis, the lower one first.
        borders: ``[B, n, 2, 2]`` float64: two points that the border behind each corner lies on, in its direction; the
            corners are where borders cross, rounded to the nearest numbers. None: borders go from corner to corner.
    """

    u: Array
    v: Array
    origins: Array
    corners: Array
    borders: Array | None = None

    @classmethod
    def between(cls, starts: Array, ends: Array) -> Slices:
        """The segments from ``starts`` ``[B, inputs]`` to ``ends``, for s from 0 to 1, exactly."""
        u = ends - starts
        back = u - ends
        lost = (ends - (u - back)) - (starts + back)  # of a sum of two floats it is one, too
        return cls(u, lost, starts, np.tile([[0.0, 0.0], [1.0, 0.0]], (len(starts), 1, 1)))

    @property
    def axes(self) -> int:
        """Of the plane; 1: these are segments."""
        return 1 if self.corners.shape[1] == 2 else 2

    @property
    def extent(self) -> Array:
        """``[B, axes + 1]``: bounds of ``|s|``, of ``|t|``, and 1."""
        far = np.abs(self.corners[:, :, : self.axes]).max(axis=1) * NORM_UP
        return np.concatenate([far, np.ones((len(self), 1))], axis=1)

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def numbers(self) -> Array:
        """``[B, 3, inputs]``: what each input is a function by."""
        return np.stack(np.broadcast_arrays(self.u, self.v, self.origins), axis=1)

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
        line: ``[rows + 8]`` int32: their lines, ascending in each slice; then any of the network's.
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

    def each(self) -> Iterator[SliceSystems]:
        """That of every slice, as views."""
        column = 0
        for number, (begin, end) in enumerate(pairwise(self.begin.tolist())):
            own, rows = slice(number, number + 1), end - begin
            numbers = rows * (rows + 8)
            yield SliceSystems(
                begin=np.array([0, rows]),
                stage_begin=self.stage_begin[own],
                line=self.line[begin : end + 8],
                on=self.on[own],
                affine=self.affine[:, begin:end],
                error=self.error[begin:end],
                columns=self.columns[column : column + numbers],
            )
            column += numbers


@dataclass(frozen=True)
class SliceOutputs:
    """What a network gives on each slice: affine functions, and what these take from ``max(z, 0)`` of a system's rows.

    Attributes:
        affine: ``[B, axes + 1, outputs]`` float64: what s (and t) and 1 give.
        columns: ``[rows, outputs]`` float64.
        shares: ``[outputs]``: the norm of an output's weights over that of all.
        noise: ``[B]``: the 2-norm of what rounding is expected to do to the outputs.
        row_noise: ``[rows]``: what it is expected to do to a row of the system.
    """

    affine: Array
    columns: Array
    shares: Array
    noise: Array
    row_noise: Array
