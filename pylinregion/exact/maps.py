"""The affine map of a network on each region, from the region's pattern, layer by layer; in any ring of numbers.

Regions that agree in the first layers share what these compute. Regions come in the order of the engine, which goes
depth first, so those that agree are neighbours in the list: what is shared is found by comparing each with the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UNDERFLOW, UNIT, UP
from pylinregion.exact.fixed_point import Digits, FixedPoint
from pylinregion.exact.pattern_table import Patterns
from pylinregion.geometry.slice import Slice
from pylinregion.lowering.linear_maps import LinearMap
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import Units

_NO_ERROR = torch.zeros(0, device="cpu")
_EVALUATED = 1 << 20  # numbers of a stage that are evaluated at a time
_CHUNK_NUMBERS = 1 << 19  # of float64 in the widest stage of a chunk of regions; measured


class Ring(Protocol):
    """Numbers that a map can be computed in, held in float64."""

    def numbers(self, values: Array) -> Tensor:
        """The elements of the ring that these numbers are."""

    def quotients(self, values: Array, denominator: float) -> Tensor:
        """The same, divided by a small integer."""

    def reduced(self, values: Tensor) -> Tensor:
        """The same elements as small as they can be held; may be written in place."""


class Reals:
    """Float64 as an approximation of the real numbers."""

    def numbers(self, values: Array) -> Tensor:
        """The same numbers."""
        return torch.from_numpy(np.ascontiguousarray(values))

    def quotients(self, values: Array, denominator: float) -> Tensor:
        """Rounded quotients."""
        return self.numbers(values / denominator)

    def reduced(self, values: Tensor) -> Tensor:
        """The same numbers."""
        return values


@dataclass
class _Part:
    """A stage in a ring."""

    blocks: dict[int, LinearMap]
    bias: Tensor
    slopes: Tensor
    intercepts: Tensor
    stage: Stage
    first_line: int
    relu: bool  # all its units


@dataclass
class _Values:
    """What a stage computes on the runs of a chunk: regions next to each other that agree so far.

    Attributes:
        forms: ``[units, runs, columns]``: of three columns, a, b and c of ``a s + b t + c``.
        run: ``[regions]``: the run of each region.
        error: ``[runs, columns]``: more than the 2-norm over units of what rounding did to the forms.
    """

    forms: Tensor
    run: Tensor
    error: Tensor

    @cached_property
    def sizes(self) -> Tensor:
        """``[runs, columns]``: the 2-norms over units."""
        norms: Tensor = self.forms.norm(dim=0) * NORM_UP + NORM_UNDERFLOW
        return norms


class Maps:
    """The maps of a network on a slice, in a ring.

    Args:
        stages: The network.
        inputs: ``[inputs, columns]`` of the ring: u, v and the origin for the maps; one input for the values there.
            Constants are added to the last column.
        ring: The numbers to compute with.
    """

    def __init__(self, stages: Stages, inputs: Tensor, ring: Ring) -> None:
        self.ring = ring
        self.lines = stages.lines
        self.input = inputs[:, None, :]
        self.outputs = stages.stages[-1].rows
        self.parts = [
            _Part(
                {source: _in_ring(block, ring) for source, block in stage.blocks.items()},
                ring.numbers(stage.bias),
                ring.quotients(stage.units.slopes, stage.units.denominator),
                ring.quotients(stage.units.intercepts, stage.units.denominator),
                stage,
                first,
                stage.units.gated,
            )
            for stage, first in zip(stages.stages, stages.first_lines, strict=True)
        ]
        self.stages = stages
        widest = max(stage.rows for stage in stages.stages)
        self.chunk = max(16, _CHUNK_NUMBERS // (3 * widest))

    @property
    def norms(self) -> list[dict[int, tuple[float, float]]]:
        """Of the blocks of each stage: see :attr:`Stages.norms`."""
        return self.stages.norms

    def chunks(self, patterns: Patterns) -> Iterator[tuple[slice, Tensor]]:
        """The maps ``[regions, outputs, columns]`` of a chunk of regions after the other.

        Args:
            patterns: ``[regions, bytes]``: bit ``r % 8`` of byte ``r // 8`` is 1 where line r is on.
        """
        for rows, bits in self._bits(patterns):
            yield rows, self._maps(self._values(bits, bounded=False))

    def bounded_chunks(self, patterns: Patterns) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The same with ``[regions, outputs, columns]`` bounds of their errors, in float64 (docs/exactness.md, 6.2)."""
        for rows, bits in self._bits(patterns):
            values = self._values(bits, bounded=True)
            found = values[len(self.parts) - 1]
            yield rows, self._maps(values), found.error[:, found.run].movedim(0, 1)

    def sized_chunks(self, patterns: Patterns) -> Iterator[tuple[slice, Tensor, dict[int, Tensor]]]:
        """The same as :meth:`chunks`, with the largest sizes of all numbers on the way, in float64.

        These are ``[columns, units]`` of each stage, and of the input.
        """
        for rows, bits in self._bits(patterns):
            values = self._values(bits, bounded=False)
            yield rows, self._maps(values), {number: each.forms.abs().amax(dim=1).T for number, each in values.items()}

    def _bits(self, patterns: Patterns) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """``[regions, lines]`` of a chunk after the other."""
        for begin in range(0, len(patterns), self.chunk):
            rows = slice(begin, min(begin + self.chunk, len(patterns)))
            yield rows, np.unpackbits(patterns[rows], axis=1, count=self.lines, bitorder="little")

    def _maps(self, values: dict[int, _Values]) -> Tensor:
        found = values[len(self.parts) - 1]
        return found.forms[:, found.run].movedim(0, 1)

    def _values(self, bits: NDArray[np.uint8], bounded: bool) -> dict[int, _Values]:
        """Of the input and each stage, on regions with these lines."""
        regions = len(bits)
        starts = np.zeros(regions, dtype=bool)  # of runs
        starts[0] = True
        new = bits[1:] != bits[:-1]
        run = torch.zeros(regions, dtype=torch.int64, device="cpu")
        values = {INPUT: _Values(self.input, run, torch.zeros(self.input.shape[1:], dtype=torch.float64, device="cpu"))}
        last = len(self.parts) - 1
        for number, part in enumerate(self.parts):
            firsts = np.flatnonzero(starts)  # a region of each run
            z = self._rows(part, values, firsts, run)
            units = part.stage.units
            error = self._error(number, values, firsts, rows=number == last) if bounded else _NO_ERROR
            if units.lines:
                ends = slice(part.first_line, part.first_line + units.lines)
                starts[1:] |= new[:, ends].any(axis=1)
                after = np.flatnonzero(starts)
                now = torch.from_numpy(np.cumsum(starts) - 1)
                if len(after) != len(firsts):
                    z, error = z[:, run[after]], error[run[after]] if bounded else error
                if bounded:
                    error = _error_through(part.stage.units, z, error, bits[after, ends])
                z = self._through(part, z, bits[after, ends])
                run = now
            elif not part.stage.units.are_rows:
                if bounded:
                    error = _error_through(part.stage.units, z, error, bits[firsts, :0])
                z = self._through(part, z, bits[firsts, :0])
            values[number] = _Values(z, run, error)
        return values

    def _rows(self, part: _Part, values: dict[int, _Values], firsts: NDArray[np.intp], run: Tensor) -> Tensor:
        """``[rows, runs, columns]``."""
        total: Tensor | None = None
        for source, block in part.blocks.items():
            forms = values[source].forms
            if forms.shape[1] not in (1, len(firsts)):
                forms = forms[:, values[source].run[firsts]]
            product = block.on_columns(forms.flatten(1)).reshape(block.rows, *forms.shape[1:])
            total = product if total is None else total + product
        assert total is not None
        if total.shape[1] == 1 and len(firsts) > 1:
            total = total.repeat(1, len(firsts), 1)
        total[:, :, -1] += part.bias[:, None]
        return self.ring.reduced(total)

    def _error(self, number: int, values: dict[int, _Values], firsts: NDArray[np.intp], rows: bool) -> Tensor:
        """What rounding did to the rows of a stage: ``[runs, columns]`` in the 2-norm, or ``[rows, runs, columns]``."""
        stage = self.parts[number].stage
        gamma = UNIT * (sum(block.terms + 2 for block in stage.blocks.values()) + 4)
        size = np.abs(stage.bias)[:, None] if rows else np.array([np.linalg.norm(stage.bias)])
        shape = (len(stage.bias) if rows else 1, len(firsts), self.input.shape[2])
        total = torch.zeros(shape, dtype=torch.float64, device="cpu")
        total[:, :, -1] += torch.from_numpy(gamma * size)
        for source, block in stage.blocks.items():
            given = values[source]
            error, own = given.error, given.sizes
            if len(error) not in (1, len(firsts)):
                error, own = (each[given.run[firsts]] for each in (error, own))
            if rows:
                norms = torch.from_numpy(block.row_norms)[:, None, None]
                total += norms * (error + gamma * own)
            else:
                spectral, frobenius = self.norms[number][source]
                total += spectral * error + gamma * frobenius * own
        return (total if rows else total[0]) * NORM_UP + NORM_UNDERFLOW

    def _through(self, part: _Part, z: Tensor, bits: NDArray[np.uint8]) -> Tensor:
        """The units of rows ``[rows, runs, columns]`` under patterns ``[runs, lines of the stage]``."""
        if part.relu:
            return z * torch.from_numpy(bits.T.astype(np.float64, order="C"))[:, :, None]
        index = torch.from_numpy(np.ascontiguousarray(pieces(part.stage.units, bits).T))
        result = self.ring.reduced(z * part.slopes[index][:, :, None])
        if part.stage.units.intercepts.any():
            result[:, :, -1] += part.intercepts[index]
            result = self.ring.reduced(result)
        return result


def _in_ring(block: LinearMap, ring: Ring) -> LinearMap:
    return block.with_numbers(lambda values: np.asarray(ring.numbers(values).numpy()))


def _error_through(units: Units, z: Tensor, error: Tensor, bits: NDArray[np.uint8]) -> Tensor:
    """``[runs, columns]``: the error behind units of rows ``z`` ``[rows, runs, columns]`` that are off by ``error``."""
    index = pieces(units, bits)
    slopes = np.abs(units.slopes[index]) / units.denominator
    steepest = torch.from_numpy(slopes.max(axis=1, initial=0.0))[:, None]
    if units.gated:
        return steepest * error
    rounded = steepest * (z.norm(dim=0) * NORM_UP + NORM_UNDERFLOW)
    rounded[:, -1] += torch.from_numpy(np.linalg.norm(units.intercepts[index], axis=1) / units.denominator)
    bound: Tensor = (steepest * error + 8 * UNIT * rounded) * NORM_UP
    return bound


def pieces(units: Units, on: NDArray[Any]) -> NDArray[np.int64]:
    """``[regions, units]``: places in ``slopes`` and ``intercepts``, from which lines ``[regions, lines]`` are on."""
    rows = len(units.line_begin) - 1
    first: NDArray[np.int64] = units.line_begin[:-1] + np.arange(rows)
    if units.lines == rows and bool((np.diff(units.line_begin) == 1).all()):
        return np.asarray(first + on, dtype=np.int64)
    below = np.zeros((len(on), units.lines + 1), np.int64)
    np.cumsum(on, axis=1, out=below[:, 1:])
    pieces: NDArray[np.int64] = first + below[:, units.line_begin[1:]] - below[:, units.line_begin[:-1]]
    return pieces


def _winners(z: Array, units: Units) -> NDArray[np.bool_]:
    """``[points, candidates]``: whether each is the first of the largest of its group."""
    assert units.groups is not None
    begin, group = units.groups[:-1], units.neuron_of_line
    largest = z == np.maximum.reduceat(z, begin, axis=1)[:, group]
    count = np.cumsum(largest, axis=1)
    before = count[:, begin] - largest[:, begin]
    return np.asarray(largest & (count - before[:, group] == 1), dtype=np.bool_)


def jacobians(stages: Stages, patterns: Patterns) -> tuple[Tensor, Tensor]:
    """The derivative of the outputs by the inputs on some regions, backwards through the stages.

    Args:
        stages: The network.
        patterns: ``[regions, bytes]``.

    Returns:
        ``[regions, outputs, inputs]`` float64, and ``[regions, outputs]``: more than the 2-norm over inputs of what
        rounding did to it (docs/exactness.md, 6.2).
    """
    bits = np.unpackbits(patterns, axis=1, count=stages.lines, bitorder="little")
    outputs = stages.stages[-1].rows
    slopes: dict[int, Tensor] = {len(stages.stages) - 1: torch.eye(outputs, dtype=torch.float64, device="cpu")[None]}
    errors: dict[int, Tensor] = {len(stages.stages) - 1: torch.zeros(1, outputs, dtype=torch.float64, device="cpu")}
    for number, first in reversed(list(enumerate(stages.first_lines))):
        stage = stages.stages[number]
        if number not in slopes:
            continue
        units = stage.units
        factors = units.slopes[pieces(units, bits[:, first : first + units.lines])] / units.denominator
        by_row = slopes.pop(number) * torch.from_numpy(factors)[:, None, :]
        size = by_row.norm(dim=2) * NORM_UP + NORM_UNDERFLOW
        steepest = torch.from_numpy(np.abs(factors).max(axis=1, initial=0.0))[:, None]
        error = steepest * errors.pop(number) + (0 if units.gated else 4 * UNIT) * size
        for source, block in stage.blocks.items():
            gamma = UNIT * (block.terms + 4 + len(stages.stages))
            product = block.back(by_row)
            spectral, frobenius = stages.norms[number][source]
            off = (spectral * error + gamma * frobenius * size) * NORM_UP
            slopes[source] = slopes[source] + product if source in slopes else product
            errors[source] = errors[source] + off if source in errors else off
    return slopes[INPUT].expand(len(bits), -1, -1), errors[INPUT].expand(len(bits), -1)


def jacobians_in_digits(stages: Stages, patterns: Patterns, digits: Digits) -> tuple[Tensor, Tensor]:
    """The same in integers of many digits, those of all stages (docs/exactness.md, 5.5)."""
    bits = np.unpackbits(patterns, axis=1, count=stages.lines, bitorder="little")
    outputs, last = stages.stages[-1].rows, len(stages.stages) - 1
    vectors = len(bits) * outputs
    owner = torch.arange(len(bits)).repeat_interleave(outputs)
    start = digits.of(torch.eye(outputs, dtype=torch.float64, device="cpu").repeat(len(bits), 1))
    parts: dict[int, list[tuple[LinearMap, FixedPoint, float]]] = {}

    def taken(number: int) -> tuple[FixedPoint, float]:
        """What the outputs take from a stage's units, and a bound of what each vector is off by."""
        given = parts.pop(number)
        found = digits.back([(block, x) for block, x, _ in given], vectors)
        own = math.sqrt(found.digits.shape[2]) * found.off
        return found, (sum(block.norm * error for block, _, error in given) + own) * NORM_UP

    for number, first in reversed(list(enumerate(stages.first_lines))):
        if number != last and number not in parts:
            continue
        stage = stages.stages[number]
        x, error = (start, 0.0) if number == last else taken(number)
        on = bits[:, first : first + stage.units.lines]
        x.multiply(torch.from_numpy(stage.units.slopes[pieces(stage.units, on)]), owner)
        for source, block in stage.blocks.items():
            parts.setdefault(source, []).append((block, x, error))
    found, error = taken(INPUT)
    floats = digits.floats(found)
    bounds = (error + 4 * UNIT * floats.norm(dim=1)) * NORM_UP + NORM_UNDERFLOW
    return floats.reshape(len(bits), outputs, -1), bounds.reshape(len(bits), outputs)


@dataclass(frozen=True)
class Evaluation:
    """A plain forward pass in float64.

    Attributes:
        outputs: ``[points, outputs]``.
        rounding: ``[points, outputs]``: more than the rounding errors of the outputs, and of the same sums in another
            order.
        of_sums: ``[points, outputs]``: likewise, with all terms taken without signs on the whole way: so it also covers
            what the map of a region rounds, whose columns may cancel at the point.
        on: ``[points, lines]``: which lines are on.
        sure: ``[points, lines]``: whether that is proven (docs/exactness.md, 6.1).
    """

    outputs: Array
    rounding: Array
    of_sums: Array
    on: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def evaluate(stages: Stages, where: Slice, st: Array) -> Evaluation:
    """Evaluate a network at points (s, t) ``[points, 2]`` of a slice."""
    step = max(1, _EVALUATED // max(stage.rows for stage in stages.stages))
    parts = [_evaluated(stages, where, st[begin : begin + step]) for begin in range(0, max(1, len(st)), step)]
    return Evaluation(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Evaluation)))


def _evaluated(stages: Stages, where: Slice, st: Array) -> Evaluation:
    """The same of some points at a time."""
    sizes = np.abs(np.concatenate([st, np.ones((len(st), 1))], axis=1)) @ np.abs(where.plane).T
    values, bounds = {INPUT: where.points(st).numpy().reshape(len(st), len(where.plane))}, {INPUT: sizes}
    errors = {INPUT: 4 * UNIT * _norms(sizes)}
    on, sure = [], []
    terms = 8
    last_reader = {source: number for number, stage in enumerate(stages.stages) for source in stage.blocks}
    for number, stage in enumerate(stages.stages):
        nothing = np.zeros(())
        z = stage.bias + sum((_applied(block, values[source]) for source, block in stage.blocks.items()), nothing)
        size = np.abs(stage.bias) + sum(
            (
                block.absolute_times(torch.from_numpy(np.ascontiguousarray(bounds[source]))).numpy()
                for source, block in stage.blocks.items()
            ),
            nothing,
        )
        rounded = _rounded(stage, values)
        each, error = rounded, _norms(rounded)
        for source, block in stage.blocks.items():
            each = each + block.row_norms * errors[source]
            error = error + block.norm * errors[source]
            if last_reader[source] == number:
                del values[source], bounds[source], errors[source]
        terms += sum(block.terms + 8 for block in stage.blocks.values())
        units = stage.units
        owner = np.repeat(np.arange(stage.rows), np.diff(units.line_begin))
        gap = z[:, owner] - units.kinks if units.groups is None else _leads(z, units)
        on.append(gap > 0 if units.groups is None else _winners(z, units))
        off = np.minimum(16 * UNIT * terms * _sizes(size, units), 2 * NORM_UP * _sizes(each, units))
        sure.append(np.abs(gap) > off[:, owner] + UNDERFLOW)
        errors[number] = error * NORM_UP
        if units.gated:  # most stages
            values[number] = z * on[-1]
            bounds[number] = size
            continue
        index = pieces(units, on[-1])
        values[number] = (units.slopes[index] * z + units.intercepts[index]) / units.denominator
        largest = np.maximum.reduceat(np.abs(units.slopes), units.line_begin[:-1] + np.arange(stage.rows))
        bounds[number] = (largest * size + np.abs(units.intercepts[index])) / units.denominator
        rounded = 8 * UNIT * (largest * np.abs(z) + np.abs(units.intercepts[index])) / units.denominator
        steepest = float(largest.max(initial=0.0)) / units.denominator
        errors[number] = (steepest * errors[number] + _norms(rounded)) * NORM_UP
    last = len(stages.stages) - 1
    of_sums = 8 * UNIT * terms * bounds[last]
    rounding = np.minimum(of_sums, 4 * NORM_UP * each)
    return Evaluation(values[last], rounding, of_sums, np.concatenate(on, axis=1), np.concatenate(sure, axis=1))


def _rounded(stage: Stage, values: dict[int, Array]) -> Array:
    """``[points, rows]``: at least what the arithmetic of a stage's rows rounds."""
    rounding = UNIT * UP * (1 + sum(block.roundings() + 8 for block in stage.blocks.values()))
    sizes = (
        np.asarray(block.sizes(torch.from_numpy(np.abs(values[source]))).numpy())
        for source, block in stage.blocks.items()
    )
    return rounding * (np.abs(stage.bias) + sum(sizes, np.zeros(())))


def _norms(vectors: Array) -> Array:
    """``[points, 1]``: at least the 2-norms of vectors ``[points, n]``."""
    return np.asarray(np.linalg.norm(vectors, axis=1, keepdims=True) * NORM_UP + NORM_UNDERFLOW)


def _applied(block: LinearMap, x: Array) -> Array:
    return np.asarray(block.times(torch.from_numpy(np.ascontiguousarray(x))).numpy())


def _leads(z: Array, units: Units) -> Array:
    """``[points, candidates]``: by how much each is larger than all others of its group."""
    assert units.groups is not None
    result = np.empty_like(z)
    for begin, end in pairwise(units.groups):
        group = z[:, begin:end]
        first = group.argmax(axis=1)[:, None]
        others = group.copy()
        np.put_along_axis(others, first, -np.inf, axis=1)
        largest = np.repeat(group.max(axis=1)[:, None], end - begin, axis=1)
        np.put_along_axis(largest, first, others.max(axis=1)[:, None], axis=1)
        result[:, begin:end] = group - largest
    return result


def _sizes(size: Array, units: Units) -> Array:
    """``[points, rows]``: what the rounding of a line's sign is measured by; of candidates the largest of the group."""
    if units.groups is None:
        return size
    return np.asarray(np.maximum.reduceat(size, units.groups[:-1], axis=1)[:, units.neuron_of_line])
