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
from pylinregion.exact.over_polygons import Bits, LineBounds, OverPolygons
from pylinregion.exact.row_errors import SettledStage, pulled_back
from pylinregion.exact.slice_systems import SliceOutputs, Slices, SliceSystems
from pylinregion.lowering.linear_maps import LinearMap, vectors_at_once
from pylinregion.lowering.stages import INPUT
from pylinregion.lowering.units import Units

_AT_ONCE = 2**20  # numbers of images of units at a time
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

    What has a number for each row of a stage is on the network's device, names but for that; what has one for each open
    line, or slice, is on the host.

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
        self.on: Bits = np.zeros((self.count, network.stages.lines), dtype=bool)
        self.open = OpenLines(self.count, self.axes)
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
            Born.none(),
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
                columns = columns[self.there(self.open.relaxed.first_of_group[: len(columns)])]
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
            firsts = torch.from_numpy(first + self.open.relaxed.first_of_group[: vectors - first])
            found = found.take(torch.cat([torch.arange(first), firsts]))
        return found

    def _as_floats(self, digits: Digits, x: FixedPoint) -> tuple[Tensor, Tensor]:
        """The affine functions ``[B, axes + 1, n]`` and the columns, rounded."""
        floats = digits.floats(x)
        first = (self.axes + 1) * self.count
        return floats[:first].reshape(self.count, self.axes + 1, floats.shape[1]), floats[first:]

    def _cut(self, x: FixedPoint, n: int) -> Array:
        """``[B]``: a bound of the 2-norm, anywhere on the slice, of what was cut off from the digits of n numbers."""
        sizes = self.extent.sum(axis=1) + np.bincount(self.open.owner, self.open.relaxed.high, minlength=self.count)
        return np.asarray(sizes * (x.off * math.sqrt(n)) * NORM_UP)

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
        end = int(born.numbers[-1]) + 1 if len(born.numbers) else before
        if columns is None and end == before and block.in_place:
            kept = value.columns if may_write else value.columns.clone()
            return kept if block.is_identity else kept.mul_(block.factors(kept))
        if columns is None:
            columns = self._zeros(end, block.rows)
        elif len(columns) < end:
            columns = torch.cat([columns, self._zeros(end - len(columns), block.rows)])
        block.add_times(columns[:before], value.columns)
        for some in vectors_at_once(len(born.numbers), block.rows, _AT_ONCE):
            numbers = born.numbers[some]
            block.add_images(columns[int(numbers[0]) : int(numbers[-1]) + 1], born.units[some], born.entries[some])
        return columns

    def _zeros(self, count: int, n: int) -> Tensor:
        if self.network.device == CPU:
            return torch.from_numpy(np.zeros((count, n)))  # pages that nobody writes are not there
        return torch.zeros(count, n, dtype=torch.float64, device=self.network.device)

    def through_units(self, units: Units, first_line: int, rows: Rows) -> Values:
        """The units of a stage from its rows; lines that are not settled get columns."""
        n = len(units.line_begin) - 1
        if units.lines == 0:
            return self._pieces(units, rows, rows.size, np.zeros((self.count, n), np.int64), Born.none())
        lines = self._lines(units, rows)
        bounds, on, off = self._settle(units, lines)
        self.on[:, first_line : first_line + units.lines] = on
        owner, line = np.nonzero(~(on | off))
        self._open(units, first_line, lines, bounds, rows.noise / math.sqrt(n), owner, line)
        if lines.one_each:
            piece = on.astype(np.int64)
        else:
            below = np.concatenate([np.zeros((self.count, 1), np.int64), np.cumsum(on, axis=1)], axis=1)
            piece = below[:, units.line_begin[1:]] - below[:, units.line_begin[:-1]]
        lower = line + lines.row[line]  # the piece below each line
        jump = (units.slopes[lower + 1] - units.slopes[lower]) / units.denominator
        size = lines.size
        if not lines.one_each or lines.at_kink is not None:  # of rows: lines are less by their kinks
            reached = (size + self.there(np.abs(units.kinks))) * UP
            row_of = self.there(lines.row).expand(self.count, -1)
            size = rows.size.scatter_reduce(1, row_of, reached, "amin")
        numbers = len(self.open) - len(line) + np.arange(len(line))
        return self._pieces(units, rows, size, piece, Born(numbers, lines.row[line], jump))

    def _lines(self, units: Units, rows: Rows) -> LinesOfRows:
        """Rows less kinks."""
        several = np.diff(units.line_begin)
        row_of = np.repeat(np.arange(len(several)), several)
        one_each = bool((several == 1).all())
        affine, columns, each, size = rows.affine, rows.columns, rows.each, rows.size
        taken = self.there(row_of)
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
        return LinesOfRows(row_of, affine, columns, each, size, at_kink, zero, rows.names, one_each)

    def _settle(self, units: Units, lines: LinesOfRows) -> tuple[LineBounds, Bits, Bits]:
        """The lines of a stage over the slices, and which of them are on, and off; sizes become less, and errors."""
        bounds, lines.size = self.over.bounds(lines.affine, lines.columns, lines.each, lines.size)
        on, off = self.over.decided(units, lines.columns, bounds, lines.zero, lines.names)
        owner, line = np.nonzero(~(on | off))
        at = self.there(owner), self.there(line)
        loose = as_array(lines.each[at] > _MATTERS * (bounds.high[at] - bounds.low[at]))
        if loose.any():
            self._look_for_digits(int(loose.sum()))
            at = self.there(owner[loose]), self.there(line[loose])
            rows = np.full(len(at[0]), len(self.steps)), lines.row[line[loose]]
            sharp = self.there(self._pulled_back(owner[loose], *rows))
            if lines.at_kink is not None:
                sharp += lines.at_kink[at]
            lines.each = lines.each.clone()
            lines.each[at] = torch.minimum(lines.each[at], sharp * UP)
            bounds, lines.size = self.over.bounds(lines.affine, lines.columns, lines.each, lines.size)
            on, off = self.over.decided(units, lines.columns, bounds, lines.zero, lines.names)
            owner, line = np.nonzero(~(on | off))
        if self.backward is not None and len(self.backward) and units.groups is None and len(line):
            left = self.there(line)
            rows_left = lines.affine[0][:, left].T, lines.columns[:, left].T, lines.each[0, left]
            bounds.sharpen(left, self.backward.of(*rows_left))
            on, off = self.over.decided(units, lines.columns, bounds, lines.zero, lines.names)
        return bounds, on, off

    def _open(
        self,
        units: Units,
        first_line: int,
        lines: LinesOfRows,
        bounds: LineBounds,
        noise: Array,
        owner: Int64s,
        line: Int64s,
    ) -> None:
        """Give columns to the lines that are left."""
        squares = int(np.square(self.open.of_slices() + np.bincount(owner, minlength=self.count)).sum())
        self.room.check(len(self.open) + len(owner), len(self.steps), squares)
        self.open.take(owner, line, lines.columns)
        at = self.there(owner), self.there(line)
        at_kink = np.zeros(len(line)) if lines.at_kink is None else as_array(lines.at_kink[at])
        error = as_array(lines.each[at])
        if self.digits is not None:
            held = 5 * UNIT * as_array(lines.size[at])
            at_kink, error = at_kink + held, error + held
        form = as_array(lines.affine[at[0], :, at[1]])
        rows = RowsOfLines(form=form, error=error * UP + UNDERFLOW, at_kink=at_kink, noise=noise[owner])
        relaxed = self.over.relaxed(units, bounds, owner, line)
        if self.backward is not None and len(line):
            if units.groups is None:
                low = np.minimum(as_array(bounds.low[at]), 0)
                self.backward.add_lines(lines.columns[:, at[1]], form, rows.error, low, relaxed.high)
            else:
                self.backward.add_maxima(relaxed.form, relaxed.radius, relaxed.high)
        self.open.add(owner, first_line + line, lines.row[line], rows, relaxed)

    def _pieces(self, units: Units, rows: Rows, size: Tensor, piece: Int64s, born: Born) -> Values:
        """Units on the pieces that they are settled on: ``[B, rows]``, those below all lines that are not settled."""
        if units.gated:
            slope, constant = piece.astype(np.float64), np.zeros((1, 1))
        else:
            at = units.line_begin[:-1] + np.arange(piece.shape[1]) + piece
            slope = units.slopes[at] / units.denominator
            constant = units.intercepts[at] / units.denominator
        steep = self.there(slope)
        if rows.digits is not None:
            return self._pieces_in_digits(rows, size, slope, np.broadcast_to(constant, slope.shape), born)
        affine = rows.affine.mul_(steep[:, None])
        affine[:, -1] += self.there(constant)
        columns = rows.columns
        if len(columns):
            columns = columns.mul_(steep if self.count == 1 else steep[self.there(self.open.owner[: len(columns)])])
        size = self._sizes_behind(size, steep, self.there(np.abs(constant)), born)
        steepest = float(np.abs(units.slopes).max(initial=0.0)) / units.denominator
        error = rows.error * steepest * NORM_UP
        plain = units.denominator == 1 and np.isin(units.slopes, (-1, 0, 1)).all() and not units.intercepts.any()
        rounded: Tensor | None = None
        if not (plain and (np.abs(born.entries) <= 1).all()):
            rounded = 8 * UNIT * UP * size
            error += _norms(rounded)
        self.steps.append((steep, rounded))
        some = self._some_behind(rows.some, steep, self.there(constant), born)
        own_each = None
        if self.count == 1:
            own_each = rows.each * steep.abs() * UP + (0 if rounded is None else rounded)
        named = self._named(rows, slope, constant, some, born)
        return Values(affine, columns, born, size, error, own_each, some, named, steepest * rows.noise)

    def _sizes_behind(self, size: Tensor, steep: Tensor, constant: Tensor, born: Born) -> Tensor:
        """``[B, n]``: bounds of units, from those of their rows, with all terms taken without signs."""
        size = size * steep.abs() + constant
        if len(born.numbers):
            own = self.there(self.open.owner[born.numbers]), self.there(born.units)
            highs = self.there(np.abs(born.entries) * self.open.relaxed.high[born.numbers])
            size.index_put_(own, highs, accumulate=True)
        return size

    def _some_behind(self, some: Tensor, steep: Tensor, constant: Tensor, born: Born) -> Tensor:
        """``[B, n]``: 0 where units are 0 all over the slice, from where their rows are."""
        found = (some * (steep != 0) + (constant != 0) != 0).double()
        if len(born.numbers):
            found[self.there(self.open.owner[born.numbers]), self.there(born.units)] = 1
        return found

    def _named(self, rows: Rows, slope: Array, constant: Array, some: Tensor, born: Born) -> Named | None:
        """The names of units on the pieces that they are settled on."""
        if rows.names is None:
            return None
        unsettled = torch.from_numpy(self.open.owner[born.numbers]), torch.from_numpy(born.units)
        return self.names.of_units(
            rows.names, torch.from_numpy(slope), torch.from_numpy(constant), some.cpu(), unsettled
        )

    def _pieces_in_digits(self, rows: Rows, size: Tensor, slope: Array, constant: Array, born: Born) -> Values:
        """The same in digits: slopes are -1, 0 and 1, so that nothing is rounded."""
        assert self.digits is not None and rows.digits is not None
        first = (self.axes + 1) * self.count
        owner = np.concatenate([np.repeat(np.arange(self.count), self.axes + 1), self.open.owner])[
            : rows.digits.vectors
        ]
        constant = constant.copy()
        steep, added = self.there(slope), self.there(constant)
        found = rows.digits
        found.multiply(steep, self.there(owner))
        error = rows.error
        if constant.any():
            found = self.digits.plus(found, added, self._constants)
            error = error + self._cut(found, slope.shape[1])
        if len(born.numbers):
            at, units = torch.from_numpy(first + born.numbers), torch.from_numpy(born.units)
            vectors = first + int(born.numbers[-1]) + 1
            found = self.digits.with_units(found, vectors, at, units, torch.from_numpy(born.entries))
            error = error + self._cut(found, slope.shape[1])
        size = self._sizes_behind(size, steep, added.abs(), born)
        some = self._some_behind(rows.some, steep, added, born)
        cut = self.there((error - rows.error) * NORM_UP)[:, None].expand(-1, slope.shape[1])
        self.steps.append((steep, cut if constant.any() or len(born.numbers) else None))
        nothing = steep.new_zeros(0, slope.shape[1])
        named = self._named(rows, slope, constant, some, born)
        return Values(rows.affine, nothing, born, size, error * NORM_UP, None, some, named, rows.noise, found)

    def tighten(self, cells: bool) -> None:
        """Bound what rows are off by one by one, if the norms of all together are worth little."""
        off, decisions = self._off()
        loose = np.flatnonzero((off * decisions > _WORTH) | (cells & (off > _SHARP)))
        if not len(loose):
            return
        rows, stages = self.open.rows, self.network.stages.stages
        stage = np.repeat([number for number, each in enumerate(stages) if each.units.lines], np.diff(self.open.births))
        self.known = [None] * len(self.known)  # few rows are left: they are pulled back all the way
        found = self._pulled_back(self.open.owner[loose], stage[loose], self.open.unit[loose])
        rows.error[loose] = np.minimum(rows.error[loose], (found + rows.at_kink[loose]) * UP + UNDERFLOW)

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
        change = (np.abs(rows.form[:, :-1]) * spans[owner]).sum(axis=1)
        off: Array = np.full_like(change, np.inf)
        np.divide(rows.error, change, out=off, where=change > 0)
        return off, self.open.of_slices()[owner]  # against each of its slice, about

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
            as_array(last.affine), columns[self.open.order], shares, last.noise, self.open.rows.noise[self.open.order]
        )


def _norms(each: Tensor) -> Array:
    return np.asarray(as_array(torch.linalg.vector_norm(each, dim=1)) * NORM_UP + NORM_UNDERFLOW)
