"""The sign of every line at points of a slice, exactly: in float64 with a proven bound, else in integers.

A point is a pair of floats and the slice is made of floats, so the input there is a dyadic rational, and so is what
each stage makes of it (over a power of 6 after hardsigmoid).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion.exact.candidates import rectified_by
from pylinregion.exact.maps import evaluate
from pylinregion.geometry.slice import Slice
from pylinregion.lowering.stages import Stage, Stages
from pylinregion.native.exact_engines import SlicePoints

Signs = NDArray[np.int8]

_SIGNS = 1 << 24  # that are found at a time
_DOUBTS = 1 << 10  # that integers decide between two chances for an interrupt


def signs(stages: Stages, where: Slice, st: Array) -> Signs:
    """On which side of each line points are.

    Args:
        stages: A network.
        where: The slice.
        st: ``[points, 2]`` in the slice's polygon.

    Returns:
        ``[points, lines]``: 1 above, -1 below, 0 on it. Of the candidates of a maximum: 1 for the one that is above all
        others, 0 for those that are the largest together, -1 for the rest.
    """
    result = np.empty((len(st), stages.lines), dtype=np.int8)
    step = max(1, _SIGNS // max(1, stages.lines))
    for begin in range(0, len(st), step):
        rows = slice(begin, begin + step)
        found = evaluate(stages, where, st[rows])
        result[rows] = np.where(found.on, 1, -1)
        doubtful = np.flatnonzero(~found.sure.all(axis=1))
        if len(doubtful):
            exact = _Exact(stages, where, st[rows][doubtful], found.on[doubtful], found.sure[doubtful])
            result[begin + doubtful] = exact.signs
    return result


class _Exact:
    """Stage by stage, what float64 leaves open is decided in integers.

    Attributes:
        signs: See :func:`signs`.
    """

    def __init__(self, stages: Stages, where: Slice, st: Array, on: NDArray[np.bool_], sure: NDArray[np.bool_]) -> None:
        self._st, self._sure = st, sure
        self._on = on.astype(np.uint8)  # of the lines of the stages so far exact
        self.signs = np.where(on, 1, -1).astype(np.int8)
        u, v, origin = (np.ascontiguousarray(column) for column in where.plane.T)
        self._problem = SlicePoints(stages=stages.arrays(), u=u, v=v, origin=origin)
        self._rectified = rectified_by(stages)
        for stage, first in zip(stages.stages, stages.first_lines, strict=True):
            lines = slice(first, first + stage.units.lines)
            if stage.units.groups is not None:
                self._maxima(stage, first)
            else:
                point, line = np.nonzero(~sure[:, lines])
                line = line + first
                self.signs[point, line] = self._sides(point, line, np.full(len(line), -1))
            self._on[:, lines] = self._pieces(stage, lines)

    def _pieces(self, stage: Stage, lines: slice) -> NDArray[np.bool_]:
        """Which lines of a stage are on; of candidates the first of the largest."""
        signs = self.signs[:, lines]
        if stage.units.groups is None:
            return signs > 0
        begin, group = stage.units.groups[:-1], stage.units.neuron_of_line
        largest = signs >= 0
        count = np.cumsum(largest, axis=1)
        before: NDArray[np.int64] = count[:, begin] - largest[:, begin]
        return np.asarray(largest & (count - before[:, group] == 1), dtype=np.bool_)

    def _sides(self, point: NDArray[np.int64], line: NDArray[np.int64], less: NDArray[np.int64]) -> Signs:
        """``[n]``: the sign of lines, or of the differences of candidates, each at a point."""
        found = np.empty(len(line), dtype=np.int8)
        for begin in range(0, len(line), _DOUBTS):
            rows = slice(begin, begin + _DOUBTS)
            st, on = self._st[point[rows]], self._on[point[rows]]
            lines, others = (np.ascontiguousarray(each[rows], dtype=np.int64) for each in (line, less))
            found[rows] = self._problem.sides(st=st, lines=lines, less=others, on=on)
        return found

    def _maxima(self, stage: Stage, first: int) -> None:
        """Candidates that may be the largest, one after the other against the largest so far."""
        groups = stage.units.groups
        assert groups is not None
        for low, high in pairwise((groups + first).tolist()):
            open_ = ~self._sure[:, low:high]
            for point in np.flatnonzero(open_.any(axis=1)).tolist():
                line = (low + np.flatnonzero(open_[point])).tolist()
                largest = line[:1]
                for other in line[1:]:
                    order = self._order(point, other, largest[0])
                    largest = [other] if order > 0 else [*largest, other] if order == 0 else largest
                self.signs[point, low:high] = -1
                self.signs[point, largest] = int(len(largest) == 1)

    def _order(self, point: int, line: int, other: int) -> int:
        """The sign of a candidate less another; that of rectified ones needs no arithmetic where one of them is 0."""
        zero = [by >= 0 and not self._on[point, by] for by in self._rectified[[line, other]].tolist()]
        if all(zero):
            return 0
        positive = [by >= 0 and bool(self._on[point, by]) for by in self._rectified[[line, other]].tolist()]
        if (positive[0] and zero[1]) or (zero[0] and positive[1]):
            return 1 if zero[1] else -1
        return int(self._sides(np.array([point]), np.array([line]), np.array([other]))[0])
