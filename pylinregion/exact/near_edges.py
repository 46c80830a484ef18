"""Which regions hold a point of a slice, and which class it has: in float64 with a proven bound, else in integers.

A point is a pair of floats and the slice is made of floats, so the input there is a dyadic rational, and so is what
each stage makes of it (over a power of 6 after hardsigmoid). Of the regions that may hold it one does, and a line on
whose one side all of these are has the point on that side, or on it: only the others are looked at.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion.exact.candidates import rectified_by
from pylinregion.exact.decision import with_winner
from pylinregion.exact.maps import evaluate
from pylinregion.exact.pattern_table import Patterns, bits_at, changing_lines, part_of
from pylinregion.geometry.slice import Slice
from pylinregion.lowering.stages import Stages
from pylinregion.native.exact_engines import SlicePoints

Bits = NDArray[np.bool_]
Signs = NDArray[np.int8]

_SIGNS = 1 << 24  # of lines at points, at a time
_DOUBTS = 1 << 10  # that integers decide between two chances for an interrupt


def hold(stages: Stages, where: Slice, st: Array, point: Int64s, patterns: Patterns) -> Bits:
    """Which regions hold points that they are near to.

    Args:
        stages: A network.
        where: The slice.
        st: ``[points, 2]`` in the slice's polygon.
        point: ``[pairs]``: points, ascending.
        patterns: ``[pairs, bytes]``: of regions that may hold them; at least one of those of a point does.

    Returns:
        ``[pairs]``: whether the region has the point on its side, or on the line, of every line.
    """
    result = np.ones(len(point), dtype=bool)
    step = max(1, _SIGNS // max(1, stages.lines))
    starts = np.flatnonzero(np.diff(point, prepend=-1))
    for some in (starts[begin : begin + step] for begin in range(0, len(starts), step)):
        end = next(iter(starts[starts > some[-1]]), len(point))
        pairs = np.arange(some[0], end)
        result[pairs] = _Near(stages, where, st[point[some]], some - some[0], part_of(patterns, pairs)).holds()
    return result


def winners(stages: Stages, where: Slice, st: Array, patterns: Patterns, low: Array, high: Array) -> Int64s:
    """The class of points: the first of the largest outputs; of one output, whether it is above 0.

    Args:
        stages: A network.
        where: The slice.
        st: ``[points, 2]`` in the slice's polygon.
        patterns: ``[points, bytes]``: of a region that holds each.
        low, high: ``[points, outputs]``: between what the outputs are.
    """
    if low.shape[1] == 1:
        result = (low[:, 0] > 0).astype(np.int64)
        open_ = np.flatnonzero((low[:, 0] <= 0) & (high[:, 0] > 0))
    else:
        possible = high >= low.max(axis=1, keepdims=True)
        result = possible.argmax(axis=1)
        open_ = np.flatnonzero(possible.sum(axis=1) > 1)
    longer = with_winner(stages)
    step = max(1, _SIGNS // longer.lines)
    for some in (open_[begin : begin + step] for begin in range(0, len(open_), step)):
        on = np.zeros((len(some), longer.lines), np.uint8)
        on[:, : stages.lines] = _unpacked(part_of(patterns, some), stages.lines)
        lines = _Lines(longer, where, st[some], on)
        if low.shape[1] == 1:
            result[some] = lines.sides(np.arange(len(some)), np.full(len(some), stages.lines)) > 0
            continue
        for place, point in enumerate(some.tolist()):
            result[point] = lines.largest(place, stages.lines + np.flatnonzero(possible[point]))[0] - stages.lines
    return result


class _Lines:
    """Lines at points, of whose earlier lines it is known on which side they have it.

    Args:
        stages: The network.
        where: The slice.
        st: ``[points, 2]``.
        on: ``[points, lines]`` uint8: 1 where a point is above a line, 0 below, either on it; of candidates, for one of
            the largest.
    """

    def __init__(self, stages: Stages, where: Slice, st: Array, on: NDArray[np.uint8]) -> None:
        self._stages, self._plane, self._st, self.on = stages, where.plane, st, on

    @cached_property
    def _points(self) -> SlicePoints:
        u, v, origin = (np.ascontiguousarray(column) for column in self._plane.T)
        return SlicePoints(stages=self._stages.arrays(), u=u, v=v, origin=origin)

    @cached_property
    def _rectified(self) -> Int64s:
        return rectified_by(self._stages)

    def sides(self, point: Int64s, line: Int64s) -> Signs:
        """``[n]``: the signs of lines, each at a point."""
        found = np.empty(len(line), dtype=np.int8)
        for begin in range(0, len(line), _DOUBTS):
            some = slice(begin, begin + _DOUBTS)
            found[some] = self._sides(point[some], line[some], np.full(len(line[some]), -1))
        return found

    def largest(self, point: int, lines: Int64s) -> list[int]:
        """The largest of candidates at a point, in their order."""
        first, *others = lines.tolist()
        found = [first]
        for other in others:
            order = self._order(point, other, found[0])
            found = [other] if order > 0 else [*found, other] if order == 0 else found
        return found

    def _order(self, point: int, line: int, other: int) -> int:
        """The sign of a candidate less another; of rectified ones where both are 0 that takes no arithmetic."""
        if all(by >= 0 and not self.on[point, by] for by in self._rectified[[line, other]].tolist()):
            return 0
        return int(self._sides(np.array([point]), np.array([line]), np.array([other]))[0])

    def _sides(self, point: Int64s, line: Int64s, less: Int64s) -> Signs:
        lines, others = (np.ascontiguousarray(each, dtype=np.int64) for each in (line, less))
        return self._points.sides(st=self._st[point], lines=lines, less=others, on=self.on[point])


class _Near:
    """Points, and the regions that may hold each.

    Args:
        stages: The network.
        where: The slice.
        st: ``[points, 2]``.
        starts: ``[points]``: the first region of each.
        patterns: Those of the regions.
    """

    def __init__(self, stages: Stages, where: Slice, st: Array, starts: Int64s, patterns: Patterns) -> None:
        self._stages = stages
        self._lines = changing_lines(patterns, stages.lines)
        self._bits = bits_at(patterns, self._lines)
        self._of_point = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(patterns)))
        either, both = (each.reduceat(self._bits, starts, axis=0) for each in (np.bitwise_or, np.bitwise_and))
        self._matters = either != both
        self._signs = self._matters.astype(np.int8)  # 0 for the others
        open_ = np.flatnonzero(self._matters.any(axis=1))
        if len(open_):
            found = evaluate(stages, where, st[open_])
            on = _unpacked(part_of(patterns, starts[open_]), stages.lines)
            self._decide(open_, _Lines(stages, where, st[open_], on), found.on, found.sure)

    def holds(self) -> Bits:
        """``[regions]``: whether each has its point on its side of all lines, or on the line."""
        own = self._signs[self._of_point]
        return np.asarray(~(((own > 0) & (self._bits == 0)) | ((own < 0) & (self._bits == 1))).any(axis=1))

    def _decide(self, open_: Int64s, lines: _Lines, on: Bits, sure: Bits) -> None:
        """The signs that matter, stage by stage.

        Args:
            open_: The points.
            lines: Theirs.
            on, sure: ``[points, lines]``: which are on, and whether float64 proves that.
        """
        for stage, first in zip(self._stages.stages, self._stages.first_lines, strict=True):
            groups = stage.units.groups
            begin, end = np.searchsorted(self._lines, (first, first + stage.units.lines)).tolist()
            if groups is None:
                point, place = np.nonzero(self._matters[open_, begin:end])
                line = self._lines[begin + place]
                signs = np.where(on[point, line], 1, -1).astype(np.int8)
                doubtful = ~sure[point, line]
                signs[doubtful] = lines.sides(point[doubtful], line[doubtful])
                self._signs[open_[point], begin + place] = signs
                lines.on[point, line] = signs > 0
                continue
            ends = np.unique(np.searchsorted(self._lines, groups + first))  # groups without such lines are left out
            for low, high in pairwise(ends.tolist()):
                matters = self._matters[open_, low:high]
                for number in np.flatnonzero(matters.any(axis=1)).tolist():
                    places = low + np.flatnonzero(matters[number])
                    own = self._lines[places]
                    told = own[on[number, own] & sure[number, own]].tolist()
                    largest = told or lines.largest(number, own[~sure[number, own]])
                    self._signs[open_[number], places] = np.where(np.isin(own, largest), int(len(largest) == 1), -1)
                    lines.on[number, own] = 0
                    lines.on[number, largest[0]] = 1


def _unpacked(patterns: Patterns, lines: int) -> NDArray[np.uint8]:
    """``[patterns, lines]``: 0 or 1."""
    return np.unpackbits(patterns[:], axis=1, count=lines, bitorder="little")
