"""Which lines of a stage are settled on the polygons of slices, and what those contribute that are not.

Over a polygon what a row takes from open lines is relaxed to affine functions; docs/exactness.md, 5.2, has the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Bools, Int64s
from pylinregion._util.rounding import NORM_UP, UNDERFLOW, UNIT, UP
from pylinregion._util.tensors import CPU, as_array, as_tensor
from pylinregion.exact.backward_bounds import Bounds
from pylinregion.exact.equal_values import Named, later_equals
from pylinregion.exact.open_lines import OpenLines, RelaxedLines
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.units import Units

_OPERATIONS = 40  # more than a relaxed form, its bounds and what they enter round, besides the sums of columns: 5.2


@dataclass
class LineBounds:
    """The lines of a stage over the polygons: a row is within ``slack`` of ``relaxed``.

    Attributes:
        relaxed: ``[B, axes + 1, lines]``.
        slack: ``[B, lines]``.
        low, high: ``[B, lines]``: bounds of the row.
    """

    relaxed: Tensor
    slack: Tensor
    low: Tensor
    high: Tensor

    def sharpen(self, at: Tensor, bounds: Bounds) -> None:
        """Take what is sharper of other bounds of some lines of a single slice."""
        low, high, sharper = self.low[0, at], self.high[0, at], bounds.slack < self.slack[0, at]
        self.low[0, at] = torch.where(bounds.low > low, bounds.low, low)
        self.high[0, at] = torch.where(bounds.high < high, bounds.high, high)
        self.slack[0, at[sharper]] = bounds.slack[sharper]
        self.relaxed[0][:, at[sharper]] = bounds.form[sharper].T


class OverPolygons:
    """Looks at stages, one behind the other, in the course of a fold.

    Args:
        slices: The polygons.
        open_lines: Of the stages so far.
        device: Where tensors are.
    """

    def __init__(self, slices: Slices, open_lines: OpenLines, device: torch.device = CPU) -> None:
        self._open = open_lines
        self._device = device
        self._count, self._axes = len(slices), slices.axes
        self._corners = as_tensor(slices.corners[:, :, : slices.axes].copy(), device)
        self._extent = as_tensor(slices.extent, device)

    def bounds(self, affine: Tensor, columns: Tensor, each: Tensor, size: Tensor) -> tuple[LineBounds, Tensor]:
        """The lines over the polygons, and what their values are at most, with all terms taken without signs."""
        extent = self._extent
        rounding = self._rounding()
        own = affine[:, -1].abs()
        for k in range(self._axes):
            own += affine[:, k].abs() * extent[:, k : k + 1]
        slack = each + rounding * own
        relaxed = affine
        if len(columns):
            given = self._open.relaxed
            reach = (given.form.abs() * extent[self._open.owner]).sum(dim=1) + given.radius
            of_sizes = torch.stack([given.radius + rounding * reach, given.high], dim=1)
            factors = torch.cat([given.form, of_sizes], dim=1)[: len(columns)]
            sums = self._open.sums(columns, factors, signed=self._axes + 1)
            relaxed = affine + sums[:, :-2]
            slack += sums[:, -2]
            own += sums[:, -1]
        slack = slack * NORM_UP + UNDERFLOW
        return LineBounds(relaxed, slack, *self._over_corners(relaxed, slack)), torch.minimum(size, own * NORM_UP)

    def _rounding(self) -> float:
        """Of sums over the columns of a slice, in units of their terms' sizes."""
        return (self._open.most + _OPERATIONS) * UNIT * UP

    def _over_corners(self, form: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
        """The range of affine functions ``[B, axes + 1, n]`` on the polygons, wider by ``slack`` on both sides."""
        corners = self._corners
        values = torch.baddbmm(form[:, -1:].expand(-1, corners.shape[1], -1), corners, form[:, :-1]).unbind(1)
        low, high = reduce(torch.minimum, values), reduce(torch.maximum, values)
        return low - slack, high + slack

    def decided(
        self, units: Units, columns: Tensor, lines: LineBounds, zero: Tensor | None, names: Named | None
    ) -> tuple[Tensor, Tensor]:
        """Which lines are on, and off, all over their slice: ``[B, lines]`` bool.

        Args:
            units: Their stage's.
            columns, lines: What is known of them.
            zero: ``[B, lines]``: whether their rows are 0; None: none is. A neuron at its breakpoint is below it.
            names: ``[B, lines]``: of the rows of candidates; of equal ones the first wins.
        """
        if units.groups is None:
            on, off = self._settled(units, lines)
            if zero is not None:
                off |= ~on & zero & as_tensor(units.kinks == 0, self._device)
            return on, off
        assert names is not None
        lost = self._lost(units, columns, lines)
        lost |= later_equals(units, names.of, lost)
        return as_tensor(_alone(units, lost), self._device), as_tensor(lost, self._device)

    def _settled(self, units: Units, lines: LineBounds) -> tuple[Tensor, Tensor]:
        """Which lines are on, and off, all over their slice."""
        on, off = lines.low > 0, lines.high < 0
        several = np.diff(units.line_begin)
        if several.max() > 1:  # kinks ascend: what is above one is above those before it
            place = np.arange(units.lines) - np.repeat(units.line_begin[:-1], several)
            for k in range(1, int(several.max())):
                at = as_tensor(np.flatnonzero(place == k), self._device)
                off[:, at] |= off[:, at - 1]
            for k in range(int(several.max()) - 1, 0, -1):
                at = as_tensor(np.flatnonzero(place == k), self._device)
                on[:, at - 1] |= on[:, at]
        return on, off

    def _lost(self, units: Units, columns: Tensor, lines: LineBounds) -> Bools:
        """Which candidates lose all over their slice; each against the one with the largest lower bound."""
        assert units.groups is not None
        begin, group = units.groups[:-1], units.neuron_of_line
        size = int(np.diff(units.groups).max())
        padded = np.full((self._count, len(begin), size), -np.inf)
        padded[:, group, np.arange(units.lines) - begin[group]] = as_array(lines.low)
        best = (begin + padded.argmax(axis=2))[:, group]  # [B, lines]
        leader = as_tensor(best, self._device)
        difference = lines.relaxed - lines.relaxed.take_along_dim(leader[:, None], dim=2)
        rest, radius = lines.slack.clone(), torch.zeros_like(lines.slack)  # what rounding and errors are off; columns
        if len(columns):
            radii = self._open.relaxed.radius[: len(columns), None]
            rest += self._open.sums(columns, -radii)[:, 0]
            leaders = leader if self._count == 1 else leader[self._open.owner[: len(columns)]]
            apart = columns - columns.take_along_dim(leaders, dim=1)
            radius += self._open.sums(apart, radii)[:, 0]
            rest += self._rounding() * lines.slack  # of the sum that was taken away
        slack = (radius + rest + rest.take_along_dim(leader, dim=1)) * NORM_UP
        most = as_array(self._over_corners(difference, slack)[1])
        self._lead, self._most = best, most
        return np.asarray(most < 0)

    def relaxed(self, units: Units, lines: LineBounds, owner: Tensor, line: Tensor) -> RelaxedLines:
        """What new columns contribute is within a radius of an affine function: of ``max(z, 0)``, or a maximum."""
        at = owner, line
        low, high = lines.low[at].clamp(max=0), lines.high[at].clamp(min=0)
        if units.groups is None:
            first = len(self._open) + torch.arange(len(owner), device=self._device)
            width = high - low
            slope = torch.where(width > 0, high / width, 0)
            middle = -slope * low / 2
            relaxed = lines.relaxed[owner, :, line] * slope[:, None]
            relaxed[:, -1] += middle
            radius = middle + slope * lines.slack[at]
        else:
            relaxed, radius, first = self._relaxed_maxima(units, lines, as_array(owner), as_array(line))
            high = torch.maximum(high, -low)
        size = (relaxed.abs() * self._extent[owner]).sum(dim=1)
        radius = (radius + _OPERATIONS * UNIT * (size + radius)) * NORM_UP
        return RelaxedLines(relaxed, radius, high * NORM_UP, first)

    def _relaxed_maxima(
        self, units: Units, lines: LineBounds, owner: Int64s, line: Int64s
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first of a maximum stands for it: the best, and up to so much more. Forms, radii and these firsts."""
        group = units.neuron_of_line[line]
        leads = np.ones(len(owner), dtype=bool)
        leads[1:] = (owner[1:] != owner[:-1]) | (group[1:] != group[:-1])
        firsts = np.flatnonzero(leads)
        most = self._most[owner, line]
        more = np.maximum(np.maximum.reduceat(most, firsts), 0) if len(firsts) else np.zeros(0)
        leaders = self._lead[owner[firsts], line[firsts]]
        lead = as_tensor(owner[firsts], self._device), as_tensor(leaders, self._device)
        relaxed, radius = np.zeros((len(owner), self._axes + 1)), np.zeros(len(owner))
        relaxed[firsts] = as_array(lines.relaxed[lead[0], :, lead[1]])
        relaxed[firsts, -1] += more / 2
        radius[firsts] = as_array(lines.slack[lead]) + more / 2
        first = len(self._open) + firsts[np.cumsum(leads) - 1]
        form, width, which = (as_tensor(each, self._device) for each in (relaxed, radius, first))
        return form, width, which


def _alone(units: Units, off: Bools) -> Bools:
    """Which candidates are left alone in their groups."""
    assert units.groups is not None
    left = np.add.reduceat(~off, units.groups[:-1], axis=1, dtype=np.int64)
    return np.asarray(~off & (left[:, units.neuron_of_line] == 1))
