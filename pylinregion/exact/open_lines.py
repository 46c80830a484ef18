"""The lines of a fold that are not settled on their slices: each has a column, what later rows take from it.

They are kept in the order in which stages find them, those of all slices together; what comes out is a system for each
slice (:mod:`pylinregion.exact.slice_systems`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.tensors import CPU, as_array
from pylinregion.exact.slice_systems import SliceSystems

_IN_CACHE = 2**17  # numbers that are read again at once
_MANY_COLUMNS = 16  # of a slice
_ON_A_DEVICE = 2**26  # numbers that are gathered at a time


class RowsOfLines(NamedTuple):
    """What lines are zeros of; float64.

    Attributes:
        form: ``[n, axes + 1]``: the rows, as affine functions.
        error: ``[n]``: bounds of what they are off by.
        at_kink: ``[n]``: what of that taking the kink rounds, and digits that float64 does not hold.
        noise: ``[n]``: what rounding is expected to be, where outputs are asked for.
    """

    form: Tensor
    error: Tensor
    at_kink: Tensor
    noise: Tensor

    def followed_by(self, more: RowsOfLines) -> RowsOfLines:
        """These, then those."""
        return RowsOfLines(*(torch.cat(each) for each in zip(self, more, strict=True)))


class RelaxedLines(NamedTuple):
    """What lines contribute: of a ReLU ``max(z, 0)``, of candidates the first of their maximum stands for it.

    Attributes:
        form: ``[n, axes + 1]``: affine functions that these are near to.
        radius: ``[n]``: within so much.
        high: ``[n]``: they are not larger.
        first_of_group: ``[n]`` int64: the first column of the same maximum on the same slice.
    """

    form: Tensor
    radius: Tensor
    high: Tensor
    first_of_group: Tensor

    def followed_by(self, more: RelaxedLines) -> RelaxedLines:
        """These, then those."""
        return RelaxedLines(*(torch.cat(each) for each in zip(self, more, strict=True)))


class OpenLines:
    """Lines that are not settled on their slices.

    Args:
        count: Slices.
        axes: Of each: two, or one of segments.
        device: Where all tensors are.

    Attributes:
        births: How many there are after each stage with lines, from 0 before the first.
        owner: The slice of each, int64.
        line: Its number in the network.
        unit: Its row in its stage.
        rows: What they are zeros of.
        relaxed: What they contribute.
        order, segments: Sorted by slice: those of slice b are ``order[segments[b]:segments[b + 1]]``.
        most: How many a slice has at most.
    """

    def __init__(self, count: int, axes: int, device: torch.device = CPU) -> None:
        self._count, self._axes, self._device = count, axes, device
        self.births = [0]
        numbers = torch.zeros(0, dtype=torch.float64, device=device)
        forms, whole = numbers.new_zeros(0, axes + 1), numbers.long()
        self.owner = self.line = self.unit = whole
        self.rows = RowsOfLines(forms, numbers, numbers, numbers)
        self.relaxed = RelaxedLines(forms, numbers, numbers, whole)
        self._taken: list[tuple[Tensor, Tensor, Tensor]] = []  # from which column, to which, how much
        self._whole: list[tuple[int, int, Tensor]] = []  # of one slice: from so many first columns, to which on
        self._sort()

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, owner: Tensor, line: Tensor, columns: Tensor) -> None:
        """Keep what lines that are added next take from those before them.

        Args:
            owner: ``[n]``: their slices.
            line: ``[n]``: their numbers in their stage.
            columns: ``[columns, lines of the stage]``: of the first so many.
        """
        if self._count == 1:
            self._whole.append((len(columns), len(self), columns[:, line]))
            return
        counts = self.of_slices()[owner]
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        lines_of = torch.arange(len(owner), device=self._device)
        which = torch.repeat_interleave(lines_of, counts, output_size=total)
        place = torch.arange(total, device=self._device) - (ends - counts)[which] + self.segments[owner[which]]
        source, lines = self.order[place], line[which]
        targets = which + len(self)
        if len(columns) < len(self):
            known = source < len(columns)  # of later ones no row takes anything
            source, targets, lines = source[known], targets[known], lines[known]
        self._taken.append((source, targets, columns[source, lines]))

    def add(self, owner: Tensor, line: Tensor, unit: Tensor, rows: RowsOfLines, relaxed: RelaxedLines) -> None:
        """Those of a stage, behind what is said to be taken by them."""
        self.owner = torch.cat([self.owner, owner])
        self.line = torch.cat([self.line, line])
        self.unit = torch.cat([self.unit, unit])
        self.rows = self.rows.followed_by(rows)
        self.relaxed = self.relaxed.followed_by(relaxed)
        self.births.append(len(self))
        self._sort()

    def add_none(self) -> None:
        """The same of a stage that leaves none."""
        self.births.append(len(self))

    def _sort(self) -> None:
        if self._count == 1:
            self.order = torch.arange(len(self), device=self._device)
            self.segments = torch.arange(2, device=self._device) * len(self)
            self.most = len(self)
            return
        self.order = torch.argsort(self.owner, stable=True)
        begins = torch.arange(self._count + 1, device=self._device)
        self.segments = torch.searchsorted(self.owner[self.order], begins)
        self.most = int(self.of_slices().max()) if self._count else 0

    def of_slices(self) -> Tensor:
        """``[slices]``: how many each has."""
        return self.segments.diff()

    def sums(self, columns: Tensor, factors: Tensor, signed: int = 0) -> Tensor:
        """``[B, f, n]``: the sums of a slice's first columns ``[k, n]``, times factors ``[k, f]``.

        Args:
            columns: The first so many.
            factors: Of each.
            signed: So many of the factors are of the columns, the others of their absolute values.
        """
        if columns.device != CPU:
            return self._sums_on_device(columns, factors, signed)
        count, n = columns.shape
        out = columns.new_zeros(self._count, factors.shape[1], n)
        step = max(1, _IN_CACHE // n)
        sizes = columns.new_empty(min(step, count), n)
        if self._count > 1 and signed:
            self._add_sums(out[:, :signed], columns, factors[:, :signed], slice(0, count))
        for begin in range(0, count, step):
            some = slice(begin, min(begin + step, count))
            part = columns[some]
            if self._count == 1 and signed:
                self._add_sums(out[:, :signed], part, factors[some, :signed], some)
            part = torch.abs(part, out=sizes[: len(part)])
            self._add_sums(out[:, signed:], part, factors[some, signed:], some)
        return out

    def _add_sums(self, out: Tensor, part: Tensor, factors: Tensor, some: slice) -> None:
        """Add those of some columns to ``[B, f, n]``."""
        if self._count == 1:
            out[0].addmm_(factors.T, part)
            return
        owner = self.owner[some]
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

    def _sums_on_device(self, columns: Tensor, factors: Tensor, signed: int) -> Tensor:
        """As many slices at once as fit, each with as many columns as the one that has most."""
        count, n = columns.shape
        out = columns.new_zeros(self._count, factors.shape[1], n)
        if self._count == 1:
            out[0, :signed] = factors[:, :signed].T @ columns
            out[0, signed:] = factors[:, signed:].T @ columns.abs()
            return out
        owner = self.owner[:count]
        order = torch.argsort(owner, stable=True)
        sizes = torch.bincount(owner, minlength=self._count)
        first = sizes.cumsum(0) - sizes
        for begin, end, wide in self._parts(as_array(sizes), n):
            place = torch.arange(wide, device=self._device)
            known = place < sizes[begin:end, None]
            which = order[torch.where(known, first[begin:end, None] + place, 0)]  # beside the known ones any, times 0
            much = (factors[which] * known[:, :, None]).transpose(1, 2)
            own = columns[which]
            out[begin:end, :signed] = much[:, :signed] @ own
            out[begin:end, signed:] = much[:, signed:] @ own.abs_()
        return out

    def _parts(self, sizes: Array, n: int) -> Iterator[tuple[int, int, int]]:
        """Slices from one on, up to another, and how many columns one of them has at most."""
        begin = 0
        while begin < self._count:
            widest = np.maximum.accumulate(sizes[begin:])
            numbers = widest * np.arange(1, len(widest) + 1) * n
            end = begin + max(1, int(np.searchsorted(numbers, _ON_A_DEVICE, side="right")))
            yield begin, end, int(widest[end - begin - 1])
            begin = end

    def systems(self, on: Tensor) -> SliceSystems:
        """A system for each slice, on the host.

        Args:
            on: ``[B, lines of the network]``: which of the settled ones are on.
        """
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self), device=self._device)
        place -= self.segments[self.owner]  # within its slice
        sizes = self.of_slices()
        numbers = sizes * (sizes + 8)
        ends = numbers.cumsum(0)
        columns = torch.zeros(int(ends[-1]) if len(ends) else 0, dtype=torch.float64, device=self._device)
        for count, first, matrix in self._whole:
            columns.view(-1, len(self) + 8)[:count, first : first + matrix.shape[1]] = matrix
        for source, target, much in self._taken:
            owner = self.owner[source]
            columns[(ends - numbers)[owner] + place[source] * (sizes[owner] + 8) + place[target]] = much
        born = [torch.bincount(self.owner[a:b], minlength=self._count) for a, b in pairwise(self.births)]
        stage_begin = torch.stack([torch.zeros_like(sizes), *born]).cumsum(0).T
        form = self.rows.form[self.order]
        affine = form.new_zeros(3, len(self))
        affine[: self._axes], affine[2] = form[:, :-1].T, form[:, -1]
        line = torch.cat([self.line[self.order], self.line.new_zeros(8)]).int()
        return SliceSystems(
            begin=as_array(self.segments),
            stage_begin=as_array(stage_begin.contiguous()),
            line=as_array(line),
            on=np.packbits(as_array(on), axis=1, bitorder="little"),
            affine=as_array(affine),
            error=as_array(self.rows.error[self.order]),
            columns=as_array(columns),
        )
