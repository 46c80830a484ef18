"""Many slices of one network, folded together: of each, the lines that may cross it, as a small system.

One pass through the stages, in which each slice has three rows (what s, t and 1 give) and one for each unit that is not
settled on it (what later units take from that unit). Bounds over the polygon settle most units on the way; these go on
as affine functions, or as nothing. What is left is what :class:`pylinregion.exact.many_slices.ManySlices` enumerates.
docs/exactness.md, 5.2, has the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UNDERFLOW, UNIT, UP, frobenius_norm, norm_of_any
from pylinregion.lowering.stages import INPUT, Stages
from pylinregion.lowering.units import Units

Bits = NDArray[np.bool_]
_MOST_NUMBERS = 2**22  # of the forms, or the columns, of a stage on all slices
_OPERATIONS = 32  # more than a relaxed form, its bounds and what they enter round, besides the sums of columns: 5.2


@dataclass(frozen=True)
class Slices:
    """Polygons on planes of the input space.

    Attributes:
        u, v: ``[B, inputs]`` float64, or ``[1, inputs]``: the same for all.
        origins: ``[B, inputs]`` float64.
        corners: ``[B, n, 2]`` float64: each counter-clockwise and strictly convex.
    """

    u: Array
    v: Array
    origins: Array
    corners: Array

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, which: slice) -> Slices:
        """Some of them."""
        u, v = (side[which] if len(side) == len(self) else side for side in (self.u, self.v))
        return Slices(u, v, self.origins[which], self.corners[which])


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


class _Born(NamedTuple):
    """Columns that begin in a stage: their numbers, the unit that each is of, and what it is times the line's unit."""

    numbers: Int64s
    units: Int64s
    entries: Array


@dataclass
class _Values:
    """The units of a stage on all slices.

    Attributes:
        affine: ``[B, 3, n]``.
        columns: ``[columns before, n]``: what they take from units that were unsettled before.
        born: What they are of their own lines that are not settled.
        error: ``[B]``: a bound of the 2-norm of what they are off by, anywhere on the slice.
    """

    affine: Array
    columns: Array
    born: _Born
    error: Array


@dataclass
class _Rows:
    """The rows of a stage on all slices.

    Attributes:
        affine: ``[B, 3, n]``.
        columns: ``[columns so far, n]``.
        error: ``[B]``: a bound of the 2-norm of what they are off by.
        each: ``[B, n]``: of what each is off by.
    """

    affine: Array
    columns: Array
    error: Array
    each: Array


@dataclass
class _Lines:
    """The lines of a stage over the polygons: a row is within ``slack`` of ``relaxed``.

    Attributes:
        relaxed: ``[B, 3, lines]``.
        slack: ``[B, lines]``.
        low, high: ``[B, lines]``: bounds of the row.
    """

    relaxed: Array
    slack: Array
    low: Array
    high: Array


class TooManyColumnsError(Exception):
    """So many slices take more numbers than are held at a time; fewer will do. Of one slice any are held."""


class SliceFolder:
    """Folds a network over slices.

    Args:
        stages: The network.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        with_lines = [number for number, stage in enumerate(stages.stages) if stage.units.lines]
        self.end = with_lines[-1] + 1 if with_lines else 0  # the stages behind cut nothing
        self.row_norms = [
            {source: np.sqrt((weight * weight).sum(axis=1)) * NORM_UP + NORM_UNDERFLOW
             for source, weight in stage.blocks.items()}
            for stage in stages.stages[: self.end]
        ]  # fmt: skip
        self._spectral: dict[tuple[int, int], float] = {}
        self.widest = max((stage.rows for stage in stages.stages[: self.end]), default=0)
        self.last_reader = {
            source: number for number, stage in enumerate(stages.stages[: self.end]) for source in stage.blocks
        }

    def spectral(self, number: int, source: int) -> float:
        """A bound of the spectral norm of the weights of a stage for a source."""
        if (number, source) not in self._spectral:
            self._spectral[number, source] = norm_of_any(self.stages.stages[number].blocks[source])
        return self._spectral[number, source]

    def fold(self, slices: Slices) -> SliceSystems:
        """Fold it over slices of a scale that :func:`pylinregion.exact.line_system.check_scale` lets through.

        Raises:
            TooManyColumnsError: Of two slices or more.
        """
        if 3 * len(slices) * max(self.widest, slices.origins.shape[1]) > _MOST_NUMBERS and len(slices) > 1:
            raise TooManyColumnsError
        fold = _Fold(self, slices)
        values = {INPUT: fold.plane(slices)}
        for number, stage in enumerate(self.stages.stages[: self.end]):
            rows = fold.rows(number, values)
            values[number] = fold.through_units(stage.units, self.stages.first_lines[number], rows)
            for source in stage.blocks:
                if self.last_reader[source] == number:
                    del values[source]
        return fold.systems()


class _Fold:
    """A fold on its way, and all columns so far, in the order of their birth."""

    def __init__(self, network: SliceFolder, slices: Slices) -> None:
        self.network = network
        self.count = len(slices)
        self.corners = slices.corners
        extent = np.abs(slices.corners).max(axis=1) * NORM_UP
        self.extent = np.concatenate([extent, np.ones((self.count, 1))], axis=1)
        self.on: Bits = np.zeros((self.count, network.stages.lines), dtype=bool)
        self.births = [0]  # columns after each stage with lines
        self.owner = np.zeros(0, np.int64)  # the slice of each
        self.line = np.zeros(0, np.int64)
        self.first_of_group = np.zeros(0, np.int64)  # the first column of the same maximum on the same slice
        self.form, self.error = np.zeros((0, 3)), np.zeros(0)  # the row of each
        self.relaxed, self.radius = np.zeros((0, 3)), np.zeros(0)  # what it contributes is within so much of that
        self.high = np.zeros(0)  # and is not larger
        self.taken: list[tuple[Int64s, Int64s, Array]] = []  # from which column, to which, how much
        self._sort()

    def plane(self, slices: Slices) -> _Values:
        """The input."""
        affine = np.empty((self.count, 3, slices.origins.shape[1]))
        affine[:, 0], affine[:, 1], affine[:, 2] = slices.u, slices.v, slices.origins
        return _Values(affine, np.zeros((0, affine.shape[2])), _none_born(), np.zeros(self.count))

    def rows(self, number: int, values: dict[int, _Values]) -> _Rows:
        """The rows of a stage: what :func:`~pylinregion.exact.line_system.line_system` does, for all slices."""
        stage = self.network.stages.stages[number]
        affine = np.zeros((self.count, 3, stage.rows))
        affine[:, 2] = stage.bias
        columns = np.zeros((len(self.owner), stage.rows))
        rounding = UNIT * UP * (1 + sum(weight.shape[1] + 8 for weight in stage.blocks.values()))
        each = np.tile(rounding * np.abs(stage.bias), (self.count, 1))
        error = np.full(self.count, frobenius_norm(rounding * stage.bias))
        for source, weight in stage.blocks.items():
            value = values[source]
            affine += self._times(value, weight)
            columns[: len(value.columns)] += _product(value.columns, weight)
            born = value.born
            columns[born.numbers] += weight.T[born.units] * born.entries[:, None]
            rounded = rounding * self._size(value)
            norms = self.network.row_norms[number][source]
            each += (value.error + rounded)[:, None] * norms
            error += frobenius_norm(norms) * rounded
            if value.error.any():
                error += self.network.spectral(number, source) * value.error
        return _Rows(affine, columns[self.first_of_group], error * NORM_UP, each * UP)

    def _times(self, value: _Values, weight: Array) -> Array:
        shared = value.affine[:1, :2]
        if self.count > 1 and (value.affine[:, :2] == shared).all():  # directions that slices share
            out = np.empty((self.count, 3, len(weight)))
            out[:, :2], out[:, 2] = _product(shared[0], weight), _product(value.affine[:, 2], weight)
            return out
        return _product(value.affine.reshape(-1, weight.shape[1]), weight).reshape(self.count, 3, len(weight))

    def _size(self, value: _Values) -> Array:
        """``[B]``: a bound of the 2-norm of values, with all their terms taken without signs."""
        size = np.einsum("bk,bk->b", np.sqrt(np.einsum("bkn,bkn->bk", value.affine, value.affine)), self.extent)
        before = len(value.columns)
        norms = np.sqrt(np.einsum("cn,cn->c", value.columns, value.columns)) * self.high[:before]
        size += np.bincount(self.owner[:before], norms, self.count)
        born = value.born
        size += np.bincount(self.owner[born.numbers], np.abs(born.entries) * self.high[born.numbers], self.count)
        return np.asarray(size * NORM_UP + NORM_UNDERFLOW)

    def through_units(self, units: Units, first_line: int, rows: _Rows) -> _Values:
        """The units of a stage from its rows; lines that are not settled get columns."""
        n = len(units.line_begin) - 1
        if units.lines == 0:
            return self._pieces(units, rows, np.zeros((self.count, n), np.int64), _none_born())
        row_of = np.repeat(np.arange(n), np.diff(units.line_begin))
        affine, columns, each = rows.affine, rows.columns, rows.each
        one_each = np.array_equal(row_of, np.arange(n))
        if not one_each:
            affine, columns, each = affine[:, :, row_of], columns[:, row_of], each[:, row_of]
        if units.kinks.any():
            each = each + 2 * UNIT * (np.abs(affine[:, 2]) + np.abs(units.kinks))
            affine = affine.copy()
            affine[:, 2] -= units.kinks
        lines = self._bounds(affine, columns, each)
        on, off = (self._settled if units.groups is None else self._settled_maxima)(units, columns, lines)
        self.on[:, first_line : first_line + units.lines] = on
        owner, line = np.nonzero(~(on | off))
        if (len(self.owner) + len(owner)) * self.network.widest > _MOST_NUMBERS and self.count > 1:
            raise TooManyColumnsError
        numbers = len(self.owner) + np.arange(len(owner))
        self._take(owner, line, columns, numbers)
        self._relax(units, lines, owner, line)
        self.owner = np.concatenate([self.owner, owner])
        self.line = np.concatenate([self.line, first_line + line])
        self.form = np.concatenate([self.form, affine[owner, :, line]])
        self.error = np.concatenate([self.error, each[owner, line] * UP + UNDERFLOW])
        self.births.append(len(self.owner))
        self._sort()
        if one_each:
            piece = on.astype(np.int64)
        else:
            below = np.concatenate([np.zeros((self.count, 1), np.int64), np.cumsum(on, axis=1)], axis=1)
            piece = below[:, units.line_begin[1:]] - below[:, units.line_begin[:-1]]
        lower = line + row_of[line]  # the piece below each line
        jump = (units.slopes[lower + 1] - units.slopes[lower]) / units.denominator
        return self._pieces(units, rows, piece, _Born(numbers, row_of[line], jump))

    def _bounds(self, affine: Array, columns: Array, each: Array) -> _Lines:
        relaxed = affine
        rounding = self._rounding()
        size = np.abs(affine[:, 2])
        for k in range(2):
            size += np.abs(affine[:, k]) * self.extent[:, k : k + 1]
        slack = each + rounding * size
        if len(self.owner):
            relaxed = affine.copy()
            for k in range(3):
                self._add(relaxed[:, k], columns, self.relaxed[:, k])
            reach = np.einsum("ck,ck->c", np.abs(self.relaxed), self.extent[self.owner]) + self.radius
            self._add(slack, np.abs(columns), self.radius + rounding * reach)
        slack = slack * NORM_UP + UNDERFLOW
        return _Lines(relaxed, slack, *self._over_corners(relaxed, slack))

    def _rounding(self) -> float:
        """Of sums over the columns of a slice, in units of their terms' sizes."""
        return (int(np.bincount(self.owner, minlength=1).max()) + _OPERATIONS) * UNIT * UP

    def _over_corners(self, form: Array, slack: Array) -> tuple[Array, Array]:
        """The least and the largest values of affine functions ``[B, 3, n]`` on the polygons, less and more slack."""
        low, high = np.full_like(slack, np.inf), np.full_like(slack, -np.inf)
        z, part = np.empty_like(slack), np.empty_like(slack)
        for corner in range(self.corners.shape[1]):
            np.multiply(form[:, 0], self.corners[:, corner, :1], out=z)
            np.multiply(form[:, 1], self.corners[:, corner, 1:], out=part)
            z += part
            z += form[:, 2]
            np.minimum(low, z, out=low)
            np.maximum(high, z, out=high)
        low -= slack
        high += slack
        return low, high

    def _settled(self, units: Units, columns: Array, lines: _Lines) -> tuple[Bits, Bits]:
        """Which lines are on, and off, all over their slice."""
        on, off = lines.low > 0, lines.high < 0
        several = np.diff(units.line_begin)
        if several.max() > 1:  # kinks ascend: what is above one is above those before it
            place = np.arange(units.lines) - np.repeat(units.line_begin[:-1], several)
            for k in range(1, int(several.max())):
                at = np.flatnonzero(place == k)
                off[:, at] |= off[:, at - 1]
            for k in range(int(several.max()) - 1, 0, -1):
                at = np.flatnonzero(place == k)
                on[:, at - 1] |= on[:, at]
        return on, off

    def _settled_maxima(self, units: Units, columns: Array, lines: _Lines) -> tuple[Bits, Bits]:
        """Which candidates win, and lose, all over their slice; each against the one with the largest lower bound."""
        assert units.groups is not None
        begin, group = units.groups[:-1], units.neuron_of_line
        size = int(np.diff(units.groups).max())
        padded = np.full((self.count, len(begin), size), -np.inf)
        padded[:, group, np.arange(units.lines) - begin[group]] = lines.low
        best = (begin + padded.argmax(axis=2))[:, group]  # [B, lines]
        difference = lines.relaxed - np.take_along_axis(lines.relaxed, best[:, None], axis=2)
        rest, radius = lines.slack.copy(), np.zeros_like(lines.slack)  # what rounding and errors are off; and columns
        if len(self.owner):
            self._add(rest, np.abs(columns), -self.radius)
            apart = columns - np.take_along_axis(columns, best[self.owner], axis=1)
            self._add(radius, np.abs(apart), self.radius)
            rest += self._rounding() * lines.slack  # of the sum that was taken away
        slack = (radius + rest + np.take_along_axis(rest, best, axis=1)) * NORM_UP
        most = self._over_corners(difference, slack)[1]
        off = most < 0
        alone = np.add.reduceat(~off, begin, axis=1, dtype=np.int64)[:, group] == 1
        self.lead, self.most = best, most
        return ~off & alone, off

    def _take(self, owner: Int64s, line: Int64s, columns: Array, numbers: Int64s) -> None:
        """Keep what new columns take from those of their slices."""
        counts = np.diff(self.segments)[owner]
        begin = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) - np.repeat(begin, counts) + np.repeat(self.segments[owner], counts)
        source = self.order[place]
        self.taken.append((source, np.repeat(numbers, counts), columns[source, np.repeat(line, counts)]))

    def _relax(self, units: Units, lines: _Lines, owner: Int64s, line: Int64s) -> None:
        """What new columns contribute is within a radius of an affine function: of ``max(z, 0)``, or a maximum."""
        low = np.minimum(lines.low[owner, line], 0)
        high = np.maximum(lines.high[owner, line], 0)
        relaxed = lines.relaxed[owner, :, line]
        off = lines.slack[owner, line]
        first = len(self.owner) + np.arange(len(owner))
        if units.groups is None:
            width = high - low
            slope = np.divide(high, width, out=np.zeros_like(width), where=width > 0)
            middle = -slope * low / 2
            relaxed = relaxed * slope[:, None]
            relaxed[:, 2] += middle
            radius = middle + slope * off
        else:  # the first of a maximum stands for it: the best, and up to so much more
            group = units.neuron_of_line[line]
            leads = np.ones(len(owner), dtype=bool)
            leads[1:] = (owner[1:] != owner[:-1]) | (group[1:] != group[:-1])
            first = first[leads][np.cumsum(leads) - 1]
            at = np.flatnonzero(leads)
            more = np.maximum(np.maximum.reduceat(self.most[owner, line], at), 0) if len(at) else np.zeros(0)
            lead = self.lead[owner[at], line[at]]
            relaxed, radius = np.zeros((len(owner), 3)), np.zeros(len(owner))
            relaxed[at] = lines.relaxed[owner[at], :, lead]
            relaxed[at, 2] += more / 2
            radius[at] = lines.slack[owner[at], lead] + more / 2
            high = np.maximum(high, -low)
        size = np.einsum("ck,ck->c", np.abs(relaxed), self.extent[owner])
        radius = (radius + _OPERATIONS * UNIT * (size + radius)) * NORM_UP
        self.first_of_group = np.concatenate([self.first_of_group, first])
        self.relaxed = np.concatenate([self.relaxed, relaxed])
        self.radius = np.concatenate([self.radius, radius])
        self.high = np.concatenate([self.high, high * NORM_UP])

    def _pieces(self, units: Units, rows: _Rows, piece: Int64s, born: _Born) -> _Values:
        """Units on the pieces that they are settled on: ``[B, rows]``, those below all lines that are not settled."""
        if units.gated:
            slope, constant = piece.astype(np.float64), np.zeros((1, 1))
        else:
            at = units.line_begin[:-1] + np.arange(piece.shape[1]) + piece
            slope = units.slopes[at] / units.denominator
            constant = units.intercepts[at] / units.denominator
        affine = rows.affine * slope[:, None]
        affine[:, 2] += constant
        columns = rows.columns * slope[self.owner[: len(rows.columns)]]
        steepest = float(np.abs(units.slopes).max(initial=0.0)) / units.denominator
        out = _Values(affine, columns, born, rows.error * steepest * NORM_UP)
        plain = units.denominator == 1 and np.isin(units.slopes, (-1, 0, 1)).all() and not units.intercepts.any()
        if not (plain and (np.abs(born.entries) <= 1).all()):
            out.error += 8 * UNIT * NORM_UP * (self._size(out) + np.sqrt((constant * constant).sum(axis=1)))
        return out

    def _sort(self) -> None:
        """The columns by slice: in ``order``, those of slice b from ``segments[b]`` on."""
        self.order = np.argsort(self.owner, kind="stable")
        self.segments = np.searchsorted(self.owner[self.order], np.arange(self.count + 1))

    def _add(self, to: Array, columns: Array, factors: Array) -> None:
        """Add ``[columns, n]``, each times a number, to the slices ``[B, n]`` that they are of."""
        rows = torch.from_numpy(columns) * torch.from_numpy(factors)[:, None]
        torch.from_numpy(to).index_add_(0, torch.from_numpy(self.owner), rows)

    def systems(self) -> SliceSystems:
        """What is left."""
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        place -= self.segments[self.owner]  # within its slice
        sizes = np.diff(self.segments)
        begin = np.cumsum(sizes * (sizes + 8)) - sizes * (sizes + 8)
        columns = np.zeros(int((sizes * (sizes + 8)).sum()))
        for source, target, much in self.taken:
            owner = self.owner[source]
            columns[begin[owner] + place[source] * (sizes[owner] + 8) + place[target]] = much
        born = [np.bincount(self.owner[a:b], minlength=self.count) for a, b in pairwise(self.births)]
        return SliceSystems(
            begin=self.segments,
            stage_begin=np.cumsum([np.zeros(self.count, np.int64), *born], axis=0).T.copy(),
            line=np.concatenate([self.line[self.order], np.zeros(8, np.int64)]).astype(np.int32),
            on=np.packbits(self.on, axis=1, bitorder="little"),
            affine=np.ascontiguousarray(self.form[self.order].T),
            error=self.error[self.order],
            columns=columns,
        )


def _product(x: Array, weight: Array) -> Array:
    """``x`` times the transposed weight. By torch: NumPy's threads would go on spinning."""
    return np.asarray((torch.from_numpy(np.ascontiguousarray(x)) @ torch.from_numpy(weight).T).numpy())


def _none_born() -> _Born:
    none = np.zeros(0, np.int64)
    return _Born(none, none, np.zeros(0))
