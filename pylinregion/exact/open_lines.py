"""The lines of a fold that are not settled on their slices: each has a column, what later rows take from it.

They are kept in the order in which stages find them, those of all slices together; what comes out is a system for each
slice (:mod:`pylinregion.exact.slice_systems`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.tensors import CPU, as_array, as_tensor
from pylinregion.exact.slice_systems import SliceSystems

_IN_CACHE = 2**17  # numbers that are read again at once
_MANY_COLUMNS = 16  # of a slice
_ON_A_DEVICE = 2**26  # numbers that are gathered at a time


class RowsOfLines(NamedTuple):
    """What lines are zeros of.

    Attributes:
        form: ``[n, axes + 1]``: the rows, as affine functions.
        error: ``[n]``: bounds of what they are off by.
        at_kink: ``[n]``: what of that taking the kink rounds, and digits that float64 does not hold.
        noise: ``[n]``: what rounding is expected to be, where outputs are asked for.
    """

    form: Array
    error: Array
    at_kink: Array
    noise: Array

    @classmethod
    def none(cls, axes: int) -> RowsOfLines:
        """Of no lines."""
        return cls(np.zeros((0, axes + 1)), np.zeros(0), np.zeros(0), np.zeros(0))

    def followed_by(self, more: RowsOfLines) -> RowsOfLines:
        """These, then those."""
        return RowsOfLines(*(np.concatenate(each) for each in zip(self, more, strict=True)))


class RelaxedLines(NamedTuple):
    """What lines contribute: of a ReLU ``max(z, 0)``, of candidates the first of their maximum stands for it.

    Attributes:
        form: ``[n, axes + 1]``: affine functions that these are near to.
        radius: ``[n]``: within so much.
        high: ``[n]``: they are not larger.
        first_of_group: ``[n]``: the first column of the same maximum on the same slice.
    """

    form: Array
    radius: Array
    high: Array
    first_of_group: Int64s

    @classmethod
    def none(cls, axes: int) -> RelaxedLines:
        """Of no lines."""
        return cls(np.zeros((0, axes + 1)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))

    def followed_by(self, more: RelaxedLines) -> RelaxedLines:
        """These, then those."""
        return RelaxedLines(
            form=np.concatenate([self.form, more.form]),
            radius=np.concatenate([self.radius, more.radius]),
            high=np.concatenate([self.high, more.high]),
            first_of_group=np.concatenate([self.first_of_group, more.first_of_group]),
        )


class OpenLines:
    """Lines that are not settled on their slices.

    Args:
        count: Slices.
        axes: Of each: two, or one of segments.

    Attributes:
        births: How many there are after each stage with lines, from 0 before the first.
        owner: The slice of each.
        line: Its number in the network.
        unit: Its row in its stage.
        rows: What they are zeros of.
        relaxed: What they contribute.
        order, segments: Sorted by slice: those of slice b are ``order[segments[b]:segments[b + 1]]``.
    """

    def __init__(self, count: int, axes: int) -> None:
        self._count, self._axes = count, axes
        self.births = [0]
        self.owner = np.zeros(0, np.int64)
        self.line = np.zeros(0, np.int64)
        self.unit = np.zeros(0, np.int64)
        self.rows = RowsOfLines.none(axes)
        self.relaxed = RelaxedLines.none(axes)
        self._taken: list[tuple[Int64s, Int64s, Array]] = []  # from which column, to which, how much
        self._whole: list[tuple[int, Int64s, Array]] = []  # of one slice: from so many first columns, to which
        self._sort()

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, owner: Int64s, line: Int64s, columns: Tensor) -> None:
        """Keep what lines that are added next take from those before them.

        Args:
            owner: ``[n]``: their slices.
            line: ``[n]``: their numbers in their stage.
            columns: ``[columns, lines of the stage]``: of the first so many.
        """
        numbers = len(self) + np.arange(len(owner))
        if self._count == 1:
            much = as_array(columns[:, as_tensor(line, columns.device)])
            self._whole.append((len(columns), numbers, much))
            return
        counts = np.diff(self.segments)[owner]
        begin = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) - np.repeat(begin, counts) + np.repeat(self.segments[owner], counts)
        source = self.order[place]
        targets, lines = np.repeat(numbers, counts), np.repeat(line, counts)
        known = source < len(columns)  # of later ones no row takes anything
        if not known.all():
            source, targets, lines = source[known], targets[known], lines[known]
        much = as_array(columns[as_tensor(source, columns.device), as_tensor(lines, columns.device)])
        self._taken.append((source, targets, much))

    def add(self, owner: Int64s, line: Int64s, unit: Int64s, rows: RowsOfLines, relaxed: RelaxedLines) -> None:
        """Those of a stage, behind what is said to be taken by them."""
        self.owner = np.concatenate([self.owner, owner])
        self.line = np.concatenate([self.line, line])
        self.unit = np.concatenate([self.unit, unit])
        self.rows = self.rows.followed_by(rows)
        self.relaxed = self.relaxed.followed_by(relaxed)
        self.births.append(len(self))
        self._sort()

    def _sort(self) -> None:
        self.order = np.argsort(self.owner, kind="stable")
        self.segments = np.searchsorted(self.owner[self.order], np.arange(self._count + 1))

    def of_slices(self) -> Int64s:
        """``[slices]``: how many each has."""
        return np.diff(self.segments)

    def sums(self, columns: Tensor, factors: Array, signed: int = 0) -> Tensor:
        """``[B, f, n]``: the sums of a slice's first columns ``[k, n]``, times factors ``[k, f]``.

        Args:
            columns: The first so many.
            factors: Of each.
            signed: So many of the factors are of the columns, the others of their absolute values.
        """
        if columns.device != CPU:
            return self._sums_on_device(columns, factors, signed)
        count, n = columns.shape
        given = torch.from_numpy(np.ascontiguousarray(factors))
        out = torch.zeros(self._count, factors.shape[1], n, dtype=torch.float64, device="cpu")
        step = max(1, _IN_CACHE // n)
        sizes = torch.empty(min(step, count), n, dtype=torch.float64, device="cpu")
        if self._count > 1 and signed:
            self._add_sums(out[:, :signed], columns, given[:, :signed], slice(0, count))
        for begin in range(0, count, step):
            some = slice(begin, min(begin + step, count))
            part = columns[some]
            if self._count == 1 and signed:
                self._add_sums(out[:, :signed], part, given[some, :signed], some)
            part = torch.abs(part, out=sizes[: len(part)])
            self._add_sums(out[:, signed:], part, given[some, signed:], some)
        return out

    def _add_sums(self, out: Tensor, part: Tensor, factors: Tensor, some: slice) -> None:
        """Add those of some columns to ``[B, f, n]``."""
        if self._count == 1:
            out[0].addmm_(factors.T, part)
            return
        owner = torch.from_numpy(self.owner[some])
        if len(part) >= _MANY_COLUMNS * self._count:
            self._add_by_slice(out, part, factors, owner)
        else:
            for k in range(factors.shape[1]):
                out[:, k].index_add_(0, owner, part * factors[:, k : k + 1])

    def _add_by_slice(self, out: Tensor, columns: Tensor, factors: Tensor, owner: Tensor) -> None:
        order = torch.argsort(owner, stable=True)
        ends = torch.bincount(owner, minlength=self._count).cumsum(0).tolist()
        for number, (begin, end) in enumerate(pairwise([0, *ends])):
            if end > begin:
                own = order[begin:end]
                out[number] += factors[own].T @ columns[own]

    def _sums_on_device(self, columns: Tensor, factors: Array, signed: int) -> Tensor:
        """As many slices at once as fit, each with as many columns as the one that has most."""
        count, n = columns.shape
        out = columns.new_zeros(self._count, factors.shape[1], n)
        owner = self.owner[:count]
        order = np.argsort(owner, kind="stable")
        sizes = np.bincount(owner, minlength=self._count)
        first = np.cumsum(sizes) - sizes
        begin = 0
        while begin < self._count:
            widest = np.maximum.accumulate(sizes[begin:])
            taken = widest * np.arange(1, len(widest) + 1) * n
            end = begin + max(1, int(np.searchsorted(taken, _ON_A_DEVICE, side="right")))
            wide = int(widest[end - begin - 1])
            place = np.arange(wide)
            known = place < sizes[begin:end, None]
            which = np.zeros((end - begin, wide), np.int64)  # beside the known ones any, times 0
            which[known] = order[(first[begin:end, None] + place)[known]]
            much = as_tensor(factors[which] * known[:, :, None], columns.device).transpose(1, 2)
            own = columns[as_tensor(which, columns.device)]
            out[begin:end, :signed] = much[:, :signed] @ own
            out[begin:end, signed:] = much[:, signed:] @ own.abs_()
            begin = end
        return out

    def systems(self, on: NDArray[np.bool_]) -> SliceSystems:
        """A system for each slice.

        Args:
            on: ``[B, lines of the network]``: which of the settled ones are on.
        """
        place = np.empty(len(self), np.int64)
        place[self.order] = np.arange(len(self))
        place -= self.segments[self.owner]  # within its slice
        sizes = self.of_slices()
        begin = np.cumsum(sizes * (sizes + 8)) - sizes * (sizes + 8)
        columns = np.zeros(int((sizes * (sizes + 8)).sum()))
        for count, numbers, matrix in self._whole:
            columns.reshape(-1, len(self) + 8)[:count, numbers] = matrix
        for source, target, much in self._taken:
            owner = self.owner[source]
            columns[begin[owner] + place[source] * (sizes[owner] + 8) + place[target]] = much
        born = [np.bincount(self.owner[a:b], minlength=self._count) for a, b in pairwise(self.births)]
        form = self.rows.form[self.order]
        affine = np.zeros((3, len(self)))
        affine[: self._axes], affine[2] = form[:, :-1].T, form[:, -1]
        return SliceSystems(
            begin=self.segments,
            stage_begin=np.cumsum([np.zeros(self._count, np.int64), *born], axis=0).T.copy(),
            line=np.concatenate([self.line[self.order], np.zeros(8, np.int64)]).astype(np.int32),
            on=np.packbits(on, axis=1, bitorder="little"),
            affine=affine,
            error=self.rows.error[self.order],
            columns=columns,
        )
