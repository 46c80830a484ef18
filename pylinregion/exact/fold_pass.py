"""The pass of a fold: a stage's rows from the units before, and its units from the rows, on all slices.

docs/exactness.md, 5.2, has the bounds; 5.3 those of single rows, 5.5 those in digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import AnyArray, Array, Int64s
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UNDERFLOW, UNIT, UP
from pylinregion._util.tensors import CPU, as_array, as_tensor
from pylinregion.exact.backward_bounds import BackwardBounds
from pylinregion.exact.equal_values import Named, Names
from pylinregion.exact.fixed_point import Digits, FixedPoint
from pylinregion.exact.fold_room import Room, bytes_of_digits
from pylinregion.exact.fold_values import Born, LinesOfRows, Rows, Values
from pylinregion.exact.folded_network import FoldedNetwork
from pylinregion.exact.open_lines import OpenLines, RowsOfLines
from pylinregion.exact.over_polygons import LineBounds, OverPolygons
from pylinregion.exact.row_errors import SettledStage, pulled_back
from pylinregion.exact.slice_systems import SliceOutputs, Slices, SliceSystems
from pylinregion.lowering.linear_maps import LinearMap, vectors_at_once
from pylinregion.lowering.stages import INPUT
from pylinregion.lowering.units import Units

_AT_ONCE = 2**20  # numbers of images of units at a time
_ON_A_DEVICE = 2**26  # such numbers there
_LOOSE = 1e-3  # of what a narrow stage's values change by: if norms leave it off by more, rows are bounded one by one
_NARROW = 1024  # rows
_MATTERS = 0.01  # of the range of a line: a smaller part of it that is error settles next to nothing
_WORTH = 1e-5  # decisions of a row that are expected to be left to integers: to find sharper bounds takes longer
_SHARP = 1e-10  # of what a row changes by: coordinates of corners that are known less well are found in integers
_BLURRED = 1e5  # times as many corners as decisions are found in integers: they are known to 1e-6 of a slice
_PRODUCTS_OF_DIGITS = 4  # passes of a vector that one in digits, 0 nearly everywhere, takes: what to choose it by
_PRODUCTS_OF_INTEGERS = 10  # passes that a row in integers takes, at least: its digits grow from stage to stage
_TAKEN_APART = 1000  # products in whose time a number of a map is taken apart into digits


class LooseBoundsError(Exception):
    """To find sharper bounds row by row takes longer than to fold in digits."""


class FoldPass:
    """A pass through the stages, on its way.

    Tensors are on the network's device, but for names, which are on the host. Arrays are what slices have a number of.

    Args:
        network: What is folded, and where.
        slices: Where.
        room: What it may take.
        digits: Those that it is done in; None: in float64.
        may_end: Whether it ends with a :class:`LooseBoundsError` where digits would take less time.
    """

    def __init__(
        self, network: FoldedNetwork, slices: Slices, room: Room, digits: Digits | None, may_end: bool
    ) -> None:
        self.network = network
        self.room = room
        self.digits = digits
        self.may_end = may_end
        self.pulled = 0  # products that bounding rows one by one took
        self.count = len(slices)
        self.axes = slices.axes
        self.corners = slices.corners
        self.extent = slices.extent
        self.on = torch.zeros(self.count, network.stages.lines, dtype=torch.bool, device=network.device)
        self.open = OpenLines(self.count, self.axes, network.device)
        self.names = Names(self.count)
        self.over = OverPolygons(slices, self.open, network.device)
        alone = self.count == 1  # of many slices at once each has few lines
        self.backward = (
            BackwardBounds(slices.corners[0, :, : self.axes], slices.extent[0], network.device) if alone else None
        )
        self.known: list[Tensor | None] = []  # by stage [B, rows]: what they are off by, if that was bounded one by one
        self.rounded: list[Tensor] = []  # by stage [B, rows]: what its own arithmetic rounds
        self.steps: list[tuple[Tensor, Tensor | None]] = []  # by stage [B, units]: the settled slope, what that rounds

    def there(self, array: AnyArray) -> Tensor:
        """Numbers of the host on the network's device."""
        return as_tensor(array, self.network.device)

    def _none_born(self) -> Born:
        """Of a stage without any."""
        nothing = torch.zeros(0, dtype=torch.float64, device=self.network.device)
        return Born(len(self.open), nothing.long(), nothing)

    def plane(self, slices: Slices) -> Values:
        """The input."""
        inputs = slices.origins.shape[1]
        affine = torch.empty(self.count, self.axes + 1, inputs, dtype=torch.float64, device=self.network.device)
        affine[:, 0], affine[:, -1] = self.there(slices.u), self.there(slices.origins)
        if self.axes == 2:
            affine[:, 1] = self.there(slices.v)
        columns = affine.new_zeros(0, inputs)
        size = torch.bmm(self.there(self.extent)[:, None], affine.abs())[:, 0] * UP
        nothing = np.zeros(self.count)
        values = Values(
            affine,
            columns,
            self._none_born(),
            size,
            nothing,
            torch.zeros_like(size),
            torch.ones_like(size),
            self.names.of_inputs(slices.numbers) if self.network.maxima else None,
            nothing,
        )
        if self.digits is not None:
            values.digits = self.digits.of(values.affine.flatten(0, 1))
            values.error, values.each = self._cut(values.digits, inputs), None
        return values

    def rows(self, number: int, values: dict[int, Values]) -> Rows:
        """The rows of a stage: what :func:`~pylinregion.exact.line_system.line_system` does, for all slices.

        Values that no later stage reads are dropped, and their memory is written into.
        """
        stage = self.network.stages.stages[number]
        bias = self.there(stage.bias)
        lost = self.axes == 1 and INPUT in stage.blocks  # by the direction of a segment
        rounding = UNIT * UP * (1 + lost + sum(each.roundings(bias.device) + 8 for each in stage.blocks.values()))
        size = bias.abs().expand(self.count, -1).clone()
        each, some = torch.zeros_like(size), (size != 0).double()
        may_vanish = not stage.bias.all()  # a row with a bias is not 0
        error, noise = np.zeros(self.count), np.zeros(self.count)
        affine: Tensor | None = None
        columns: Tensor | None = None
        in_digits: list[tuple[LinearMap, FixedPoint]] = []
        names: dict[int, Named] = {}
        for source, block in sorted(stage.blocks.items(), reverse=True):  # those with most columns first
            value = values[source]
            if self.network.last_reader[source] == number:
                del values[source]
            if value.names is not None:
                names[source] = value.names
            size += block.sizes(value.size)
            if may_vanish:
                all_are = not bool((value.some == 0).any())
                some += self.there(block.row_sums) if all_are else block.absolute_times(value.some)
            if value.error.any():
                by_norms = self.there(value.error)[:, None] * self.network.row_norms[number][source]
                each += (
                    by_norms if value.each is None else torch.minimum(by_norms, block.absolute_times(value.each) * UP)
                )
                error += block.norm * value.error
            if self.network.outputs:
                sizes = sum(torch.linalg.vector_norm(x, dim=1) for x in (value.size, *value.affine[:, :-1].unbind(1)))
                noise += block.frobenius / math.sqrt(block.width) * (value.noise + UNIT * as_array(sizes))
            if value.digits is not None:
                in_digits.append((block, value.digits))
                continue
            may_write = source not in values
            part = self._times(value, block)
            affine = part if affine is None else affine + part
            columns = self._add_columns(columns, value, block, may_write)
        digits = None
        if self.digits is not None:
            digits = self._rows_in_digits(self.digits, in_digits, bias)
            affine, columns = self._as_floats(self.digits, digits)
            rounded = self.there(self._cut(digits, 1))[:, None].expand(-1, len(bias))
        else:
            assert affine is not None and columns is not None
            affine = affine.clone() if len(stage.blocks) == 1 else affine
            affine[:, -1] += bias
            if self.network.maxima and len(columns):
                columns = columns[self.open.relaxed.first_of_group[: len(columns)]]
            rounded = size * rounding
        self.rounded.append(rounded)
        each += rounded
        error += _norms(rounded)
        some = (some != 0).double()
        named = self.names.of_rows(stage.blocks, stage.bias, some.cpu(), names) if self.network.maxima else None
        rows = Rows(affine, columns, size, error * NORM_UP, each * UP, some, named, noise, digits)
        if self.count == 1:
            rows.error = np.minimum(rows.error, _norms(rows.each))
        narrow = digits is None and affine.shape[2] <= _NARROW  # digits are so many that norms say enough
        self.known.append(self._sharpen_all(number, rows) if narrow else None)
        return rows

    @property
    def _constants(self) -> Tensor:
        """The vectors of digits that constants are added to."""
        return torch.arange(self.count) * (self.axes + 1) + self.axes

    def _rows_in_digits(self, digits: Digits, maps: Sequence[tuple[LinearMap, FixedPoint]], bias: Tensor) -> FixedPoint:
        """What the rows of a stage take from values in digits."""
        vectors = max(x.vectors for _, x in maps)
        self.room.check_bytes(len(self.open), bytes_of_digits(vectors, len(bias), digits.kept))
        found = digits.rows(maps, vectors, bias, self._constants)
        first = (self.axes + 1) * self.count
        if self.network.maxima and vectors > first:
            firsts = first + self.open.relaxed.first_of_group[: vectors - first]
            found = found.take(torch.cat([torch.arange(first, device=firsts.device), firsts]))
        return found

    def _as_floats(self, digits: Digits, x: FixedPoint) -> tuple[Tensor, Tensor]:
        """The affine functions ``[B, axes + 1, n]`` and the columns, rounded."""
        floats = digits.floats(x)
        first = (self.axes + 1) * self.count
        return floats[:first].reshape(self.count, self.axes + 1, floats.shape[1]), floats[first:]

    def _cut(self, x: FixedPoint, n: int) -> Array:
        """``[B]``: a bound of the 2-norm, anywhere on the slice, of what was cut off from the digits of n numbers."""
        sizes = self.extent.sum(axis=1) + self._highs_of_slices()
        return np.asarray(sizes * (x.off * math.sqrt(n)) * NORM_UP)

    def _highs_of_slices(self) -> Array:
        owner, high = as_array(self.open.owner), as_array(self.open.relaxed.high)
        return np.asarray(np.bincount(owner, high, minlength=self.count), dtype=np.float64)

    def _look_for_digits(self, rows: int) -> None:
        """End this fold if bounding so many more rows one by one would take longer than to fold it in digits."""
        if not self.may_end or self.axes == 1:
            return
        self.pulled += rows * sum(self.network.products[: len(self.rounded)])
        if self._takes_more_than_digits(self.pulled):
            raise LooseBoundsError

    def _takes_more_than_digits(self, products: float) -> bool:
        columns = (self.axes + 1) * self.count + len(self.open)
        in_digits = _PRODUCTS_OF_DIGITS * columns * sum(self.network.products) + _TAKEN_APART * self.network.numbers
        return products > in_digits and self.network.digits is not None

    def _sharpen_all(self, number: int, rows: Rows) -> Tensor | None:
        """Bound a narrow stage row by row if norms say too little of it: ``[B, rows]`` of what each is off by."""
        extent = self.there(self.extent[:, :-1, None])
        change = as_array(torch.linalg.vector_norm((rows.affine[:, :-1].abs() * extent).sum(dim=1), dim=1))
        loose = np.flatnonzero(rows.error > _LOOSE * change)
        if not len(loose):
            return None
        n = rows.affine.shape[2]
        self._look_for_digits(n * len(loose))
        owner, row = np.repeat(loose, n), np.tile(np.arange(n), len(loose))
        found = self.there(self._pulled_back(owner, np.full(len(row), number), row)).reshape(len(loose), n)
        rows.each[loose] = torch.minimum(rows.each[loose], found)
        rows.error = np.minimum(rows.error, _norms(rows.each))
        return rows.each

    def _pulled_back(self, owner: Int64s, stage: Int64s, row: Int64s) -> Array:
        """What rows of stages so far are off by, bounded one by one."""
        count = len(self.rounded)
        later = self.rounded[-1].new_ones(1, self.rounded[-1].shape[1])  # of units not yet settled
        steps, known = [*self.steps, (later, None)][:count], [*self.known, None][:count]
        settled = [
            SettledStage(slopes, rounded, rounded_units, own)
            for (slopes, rounded_units), rounded, own in zip(steps, self.rounded, known, strict=True)
        ]
        return pulled_back(self.network.stages.stages, settled, stage, row, owner=owner).errors[:, 0] * UP + UNDERFLOW

    def _times(self, value: Values, block: LinearMap) -> Tensor:
        shared = value.affine[:1, :-1]
        if self.count > 1 and bool((value.affine[:, :-1] == shared).all()):  # directions that slices share
            out = shared.new_empty(self.count, self.axes + 1, block.rows)
            out[:, :-1], out[:, -1] = block.times(shared[0]), block.times(value.affine[:, -1])
            return out
        return block.times(value.affine.flatten(0, 1)).reshape(self.count, self.axes + 1, block.rows)

    def _add_columns(self, columns: Tensor | None, value: Values, block: LinearMap, may_write: bool) -> Tensor:
        """What rows take from the columns of a value, added to what they take from others."""
        born, before = value.born, len(value.columns)
        end = born.end if len(born.units) else before
        if columns is None and end == before and block.in_place:
            kept = value.columns if may_write else value.columns.clone()
            return kept if block.is_identity else kept.mul_(block.factors(kept))
        if columns is None:
            columns = self._zeros(end, block.rows)
        elif len(columns) < end:
            columns = torch.cat([columns, self._zeros(end - len(columns), block.rows)])
        block.add_times(columns[:before], value.columns)
        for some in vectors_at_once(len(born.units), block.rows, _AT_ONCE if columns.device == CPU else _ON_A_DEVICE):
            units = born.units[some]
            first = born.first + some.start
            block.add_images(columns[first : first + len(units)], units, born.entries[some])
        return columns

    def _zeros(self, count: int, n: int) -> Tensor:
        if self.network.device == CPU:
            return torch.from_numpy(np.zeros((count, n)))  # pages that nobody writes are not there
        return torch.zeros(count, n, dtype=torch.float64, device=self.network.device)

    def through_units(self, units: Units, first_line: int, rows: Rows) -> Values:
        """The units of a stage from its rows; lines that are not settled get columns."""
        n = len(units.line_begin) - 1
        if units.lines == 0:
            pieces = torch.zeros(self.count, n, dtype=torch.int64, device=rows.affine.device)
            return self._pieces(units, rows, rows.size, pieces, self._none_born())
        lines = self._lines(units, rows)
        bounds, on, off = self._settle(units, lines)
        self.on[:, first_line : first_line + units.lines] = on
        owner, line = (~(on | off)).nonzero(as_tuple=True)
        first = len(self.open)
        self._open(units, first_line, lines, bounds, rows.noise / math.sqrt(n), owner, line)
        if lines.one_each:
            piece = on
        else:
            below = torch.cat([on.new_zeros(self.count, 1).long(), on.cumsum(dim=1)], dim=1)
            begin = self.there(units.line_begin)
            piece = below[:, begin[1:]] - below[:, begin[:-1]]
        row = lines.row[line]
        lower, slopes = line + row, self.there(units.slopes)  # the piece below each line
        jump = (slopes[lower + 1] - slopes[lower]) / units.denominator
        size = lines.size
        if not lines.one_each or lines.at_kink is not None:  # of rows: lines are less by their kinks
            reached = (size + self.there(np.abs(units.kinks))) * UP
            size = rows.size.scatter_reduce(1, lines.row.expand(self.count, -1), reached, "amin")
        return self._pieces(units, rows, size, piece, Born(first, row, jump))

    def _lines(self, units: Units, rows: Rows) -> LinesOfRows:
        """Rows less kinks."""
        several = np.diff(units.line_begin)
        taken = self.there(np.repeat(np.arange(len(several)), several))
        one_each = bool((several == 1).all())
        affine, columns, each, size = rows.affine, rows.columns, rows.each, rows.size
        if not one_each:
            affine, columns, each, size = affine[:, :, taken], columns[:, taken], each[:, taken], size[:, taken]
        at_kink = None
        if units.kinks.any():
            kinks = self.there(units.kinks)
            at_kink = 2 * UNIT * (affine[:, -1].abs() + kinks.abs())
            each = each + at_kink
            affine = affine.clone()
            affine[:, -1] -= kinks
        zero = None if bool((rows.some != 0).all()) else (rows.some if one_each else rows.some[:, taken]) == 0
        return LinesOfRows(taken, affine, columns, each, size, at_kink, zero, rows.names, one_each)

    def _settle(self, units: Units, lines: LinesOfRows) -> tuple[LineBounds, Tensor, Tensor]:
        """The lines of a stage over the slices, and which of them are on, and off; sizes become less, and errors."""
        bounds, lines.size = self.over.bounds(lines.affine, lines.columns, lines.each, lines.size)
        on, off = self.over.decided(units, lines.columns, bounds, lines.zero, lines.names)
        owner, line = (~(on | off)).nonzero(as_tuple=True)
        at = owner, line
        loose = lines.each[at] > _MATTERS * (bounds.high[at] - bounds.low[at])
        if bool(loose.any()):
            at = owner[loose], line[loose]
            self._look_for_digits(len(at[0]))
            stage, row = np.full(len(at[0]), len(self.steps)), as_array(lines.row[at[1]])
            sharp = self.there(self._pulled_back(as_array(at[0]), stage, row))
            if lines.at_kink is not None:
                sharp += lines.at_kink[at]
            lines.each = lines.each.clone()
            lines.each[at] = torch.minimum(lines.each[at], sharp * UP)
            bounds, lines.size = self.over.bounds(lines.affine, lines.columns, lines.each, lines.size)
            on, off = self.over.decided(units, lines.columns, bounds, lines.zero, lines.names)
            owner, line = (~(on | off)).nonzero(as_tuple=True)
        if self.backward is not None and len(self.backward) and units.groups is None and len(line):
            rows_left = lines.affine[0][:, line].T, lines.columns[:, line].T, lines.each[0, line]
            bounds.sharpen(line, self.backward.of(*rows_left))
            on, off = self.over.decided(units, lines.columns, bounds, lines.zero, lines.names)
        return bounds, on, off

    def _open(
        self,
        units: Units,
        first_line: int,
        lines: LinesOfRows,
        bounds: LineBounds,
        noise: Array,
        owner: Tensor,
        line: Tensor,
    ) -> None:
        """Give columns to the lines that are left."""
        if not len(owner):
            self.open.add_none()
            return
        squares = None
        if self.count > 1:
            squares = int((self.open.of_slices() + torch.bincount(owner, minlength=self.count)).square().sum())
        self.room.check(len(self.open) + len(owner), len(self.steps), squares)
        self.open.take(owner, line, lines.columns)
        at = owner, line
        error = lines.each[at]
        at_kink = torch.zeros_like(error) if lines.at_kink is None else lines.at_kink[at]
        if self.digits is not None:
            held = 5 * UNIT * lines.size[at]
            at_kink, error = at_kink + held, error + held
        form = lines.affine[owner, :, line]
        rows = RowsOfLines(form=form, error=error * UP + UNDERFLOW, at_kink=at_kink, noise=self.there(noise)[owner])
        relaxed = self.over.relaxed(units, bounds, owner, line)
        if self.backward is not None:
            if units.groups is None:
                low = bounds.low[at].clamp(max=0)
                self.backward.add_lines(lines.columns[:, line], form, rows.error, low, relaxed.high)
            else:
                self.backward.add_maxima(relaxed.form, relaxed.radius, relaxed.high)
        self.open.add(owner, first_line + line, lines.row[line], rows, relaxed)

    def _pieces(self, units: Units, rows: Rows, size: Tensor, piece: Tensor, born: Born) -> Values:
        """Units on the pieces that they are settled on: ``[B, rows]``, those below all lines that are not settled."""
        if units.gated:
            steep, constant = piece.double(), rows.affine.new_zeros(1, 1)
        else:
            at = self.there(units.line_begin[:-1] + np.arange(piece.shape[1])) + piece
            steep = self.there(units.slopes)[at] / units.denominator
            constant = self.there(units.intercepts)[at] / units.denominator
        if rows.digits is not None:
            return self._pieces_in_digits(rows, size, steep, constant, born)
        affine = rows.affine.mul_(steep[:, None])
        affine[:, -1] += constant
        columns = rows.columns
        if len(columns):
            columns = columns.mul_(steep if self.count == 1 else steep[self.open.owner[: len(columns)]])
        size = self._sizes_behind(size, steep, constant.abs(), born)
        steepest = float(np.abs(units.slopes).max(initial=0.0)) / units.denominator
        error = rows.error * steepest * NORM_UP
        plain = units.denominator == 1 and np.isin(units.slopes, (-1, 0, 1)).all() and not units.intercepts.any()
        rounded: Tensor | None = None
        if not (plain and (units.gated or bool((born.entries.abs() <= 1).all()))):
            rounded = 8 * UNIT * UP * size
            error += _norms(rounded)
        self.steps.append((steep, rounded))
        some = self._some_behind(rows.some, steep, constant, born)
        own_each = None
        if self.count == 1:
            own_each = rows.each * steep.abs() * UP + (0 if rounded is None else rounded)
        named = self._named(rows, steep, constant, some, born)
        return Values(affine, columns, born, size, error, own_each, some, named, steepest * rows.noise)

    def _sizes_behind(self, size: Tensor, steep: Tensor, constant: Tensor, born: Born) -> Tensor:
        """``[B, n]``: bounds of units, from those of their rows, with all terms taken without signs."""
        size = size * steep.abs() + constant
        if len(born.units):
            own = self.open.owner[born.all], born.units
            size.index_put_(own, born.entries.abs() * self.open.relaxed.high[born.all], accumulate=True)
        return size

    def _some_behind(self, some: Tensor, steep: Tensor, constant: Tensor, born: Born) -> Tensor:
        """``[B, n]``: 0 where units are 0 all over the slice, from where their rows are."""
        found = (some * (steep != 0) + (constant != 0) != 0).double()
        if len(born.units):
            found[self.open.owner[born.all], born.units] = 1
        return found

    def _named(self, rows: Rows, steep: Tensor, constant: Tensor, some: Tensor, born: Born) -> Named | None:
        """The names of units on the pieces that they are settled on."""
        if rows.names is None:
            return None
        unsettled = self.open.owner[born.all].cpu(), born.units.cpu()
        return self.names.of_units(rows.names, steep.cpu(), constant.cpu(), some.cpu(), unsettled)

    def _pieces_in_digits(self, rows: Rows, size: Tensor, steep: Tensor, constant: Tensor, born: Born) -> Values:
        """The same in digits: slopes are -1, 0 and 1, so that nothing is rounded."""
        assert self.digits is not None and rows.digits is not None
        first = (self.axes + 1) * self.count
        slices = torch.arange(self.count, device=steep.device).repeat_interleave(self.axes + 1)
        found, added = rows.digits, constant.expand_as(steep)
        found.multiply(steep, torch.cat([slices, self.open.owner])[: found.vectors])
        error = rows.error
        moved = bool(constant.any())
        if moved:
            found = self.digits.plus(found, added, self._constants)
            error = error + self._cut(found, steep.shape[1])
        if len(born.units):
            at = first + torch.arange(born.first, born.end, device=steep.device)
            found = self.digits.with_units(found, first + born.end, at, born.units, born.entries)
            error = error + self._cut(found, steep.shape[1])
        size = self._sizes_behind(size, steep, added.abs(), born)
        some = self._some_behind(rows.some, steep, added, born)
        cut = self.there((error - rows.error) * NORM_UP)[:, None].expand(-1, steep.shape[1])
        self.steps.append((steep, cut if moved or len(born.units) else None))
        nothing = steep.new_zeros(0, steep.shape[1])
        named = self._named(rows, steep, added, some, born)
        return Values(rows.affine, nothing, born, size, error * NORM_UP, None, some, named, rows.noise, found)

    def tighten(self, cells: bool) -> None:
        """Bound what rows are off by one by one, if the norms of all together are worth little."""
        off, decisions = self._off()
        loose = np.flatnonzero((off * decisions > _WORTH) | (cells & (off > _SHARP)))
        if not len(loose):
            return
        stages = self.network.stages.stages
        stage = np.repeat([number for number, each in enumerate(stages) if each.units.lines], np.diff(self.open.births))
        self.known = [None] * len(self.known)  # few rows are left: they are pulled back all the way
        which = self.there(loose)
        owner, unit = as_array(self.open.owner[which]), as_array(self.open.unit[which])
        found = self.there(self._pulled_back(owner, stage[loose], unit))
        rows = self.open.rows
        rows.error[which] = torch.minimum(rows.error[which], (found + rows.at_kink[which]) * UP + UNDERFLOW)

    def would_pay_in_digits(self, cells: bool) -> bool:
        """Whether a fold in digits takes less than what this one leaves to integers."""
        if self.digits is not None or self.axes == 1:
            return False
        off, decisions = self._off()
        found = np.minimum(off * (_BLURRED if cells else 1), 1) * decisions
        in_integers = float(found[np.isfinite(off)].sum())
        return self._takes_more_than_digits(in_integers * _PRODUCTS_OF_INTEGERS * sum(self.network.products))

    def _off(self) -> tuple[Array, Int64s]:
        """What open rows are off by, in units of what each changes by on its slice, and in how many decisions it is."""
        spans = self.extent[:, :-1] if self.axes == 2 else np.ptp(self.corners[:, :, :1], axis=1)
        owner, rows = self.open.owner, self.open.rows
        change = (rows.form[:, :-1].abs() * self.there(spans)[owner]).sum(dim=1)
        off = torch.where(change > 0, rows.error / change, math.inf)
        return as_array(off), as_array(self.open.of_slices()[owner])  # against each of its slice, about

    def systems(self) -> SliceSystems:
        """What is left."""
        return self.open.systems(self.on)

    def output_forms(self, last: Values) -> SliceOutputs:
        """The units of the last stage."""
        columns = np.zeros((len(self.open), last.affine.shape[2]))
        columns[: len(last.columns)] = as_array(last.columns)
        blocks = self.network.stages.stages[-1].blocks.values()
        own = sum((block.row_norms for block in blocks), np.zeros(columns.shape[1]))
        shares = own / sum(block.frobenius for block in blocks)
        return SliceOutputs(
            as_array(last.affine),
            columns[as_array(self.open.order)],
            shares,
            last.noise,
            as_array(self.open.rows.noise[self.open.order]),
        )


def _norms(each: Tensor) -> Array:
    return np.asarray(as_array(torch.linalg.vector_norm(each, dim=1)) * NORM_UP + NORM_UNDERFLOW)
