"""Exact partitions of slices and segments by rational arithmetic: slow and plain, to judge faster code by.

Every number is a :class:`fractions.Fraction` and nothing is rounded, so every decision is that of the real function
with the given parameters. A region is kept if it has interior: area on a slice, length on a segment.

>>> relu = chain([[[1], [-1]], [[1, 1]]], [[0, 0], [-1]], Pieces.relu())  # |x| - 1
>>> trace(relu, start=[-2], end=[2]).breakpoints
[Fraction(1, 2)]
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations, pairwise
from numbers import Rational
from typing import Any, Protocol

Point = tuple[Fraction, ...]  # (s, t) on a slice, (t,) on a segment
Row = tuple[Fraction, ...]  # an affine function: (a, b, c) is a s + b t + c, and (a, c) is a t + c
Segment = tuple[Point, Point]
Pattern = tuple[tuple[int, ...], ...]  # for each stage, for each unit: its piece, or the place of its winner

ZERO = Fraction(0)

rational: Callable[[Any], Any] = Fraction
"""What numbers are made with. ``gmpy2.mpq`` gives the same ones, several times faster, for long runs.

With ``float`` the same text computes in float64, for larger networks: right where nothing is nearly tied."""


@dataclass(frozen=True)
class Pieces:
    """A continuous piecewise-linear activation: on piece ``i`` it is ``slopes[i] * z + intercepts[i]``.

    Piece ``i`` is where ``i`` of the breaks are strictly below ``z``: at a break a neuron is on the lower piece.

    Attributes:
        breaks: Strictly increasing.
        slopes, intercepts: One more than breaks.
    """

    breaks: tuple[Fraction, ...]
    slopes: tuple[Fraction, ...]
    intercepts: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        for name in ("breaks", "slopes", "intercepts"):
            object.__setattr__(self, name, tuple(_vector(getattr(self, name))))
        if not len(self.slopes) == len(self.intercepts) == len(self.breaks) + 1:
            raise ValueError("slopes and intercepts must be one more than breaks")
        if any(low >= high for low, high in pairwise(self.breaks)):
            raise ValueError("breaks must be strictly increasing")
        for i, z in enumerate(self.breaks):
            if self.value(i, z) != self.value(i + 1, z):
                raise ValueError(f"the activation must be continuous, it jumps at {z}")

    def piece(self, z: Fraction) -> int:
        """The piece of a number: how many breaks are strictly below it."""
        return sum(value < z for value in self.breaks)

    def value(self, piece: int, z: Fraction) -> Fraction:
        """The affine function of a piece."""
        return self.slopes[piece] * z + self.intercepts[piece]

    @classmethod
    def _of(cls, breaks: Sequence[Any], slopes: Sequence[Any], intercepts: Sequence[Any]) -> Pieces:
        return cls(tuple(_vector(breaks)), tuple(_vector(slopes)), tuple(_vector(intercepts)))

    @classmethod
    def identity(cls) -> Pieces:
        """No break."""
        return cls._of([], [1], [0])

    @classmethod
    def relu(cls) -> Pieces:
        """``max(z, 0)``."""
        return cls._of([0], [0, 1], [0, 0])

    @classmethod
    def leaky_relu(cls, a: Any) -> Pieces:
        """``z`` above 0, ``a z`` below."""
        return cls._of([0], [a, 1], [0, 0])

    @classmethod
    def abs(cls) -> Pieces:
        """``|z|``."""
        return cls._of([0], [-1, 1], [0, 0])

    @classmethod
    def clamp(cls, low: Any, high: Any) -> Pieces:
        """``min(max(z, low), high)``: ReLU6, hardtanh."""
        return cls._of([low, high], [0, 1, 0], [low, 0, high])

    @classmethod
    def hardsigmoid(cls) -> Pieces:
        """``relu6(z + 3) / 6``, with a true sixth."""
        return cls._of([-3, 3], [0, Fraction(1, 6), 0], [0, Fraction(1, 2), 1])


@dataclass(frozen=True)
class Max:
    """The largest of some rows. The winner is the first of the largest, told by its place among ``rows``."""

    rows: tuple[int, ...]


class Step(Protocol):
    """What a network does next: rows, affine in the values before, and perhaps units that take them through a kink."""

    @property
    def units(self) -> Sequence[tuple[int, Pieces] | Max]:
        """For each output a row and its activation, or the largest of some rows. None of them: rows are outputs."""

    def rows(self, values: list[list[Row]]) -> list[Row]:
        """The rows. ``values[k + 1]`` are the outputs of step k as affine functions, ``values[0]`` the input's."""

    def width(self, widths: list[int]) -> int:
        """How many outputs it has; ``widths[k + 1]`` are those of step k. Raises ValueError where they do not fit."""


@dataclass(frozen=True)
class Stage:
    """A step of matrices, with units on all rows. Numbers may be of any exact type.

    Attributes:
        blocks: For each source the matrix ``[rows, width of the source]``. -1: the input, k: the units of stage k.
        bias: ``[rows]``.
        units: One for each output: a row and its activation, or the largest of some rows.
    """

    blocks: dict[int, list[list[Fraction]]]
    bias: list[Fraction]
    units: list[tuple[int, Pieces] | Max]

    def __post_init__(self) -> None:
        blocks = {source: [_vector(row) for row in matrix] for source, matrix in self.blocks.items()}
        object.__setattr__(self, "blocks", blocks)
        object.__setattr__(self, "bias", _vector(self.bias))

    def rows(self, values: list[list[Row]]) -> list[Row]:
        """The affine functions of the rows."""
        rows = []
        for r, bias in enumerate(self.bias):
            total = [ZERO] * (len(values[0][0]) - 1) + [bias]
            for source, matrix in self.blocks.items():
                for weight, value in zip(matrix[r], values[source + 1], strict=True):
                    if weight:
                        total = [a + weight * b for a, b in zip(total, value, strict=True)]
            rows.append(tuple(total))
        return rows

    def width(self, widths: list[int]) -> int:
        """How many units it has."""
        for source, matrix in self.blocks.items():
            if not -1 <= source < len(widths) - 1:
                raise ValueError(f"stage {len(widths) - 1} takes stage {source}, which does not come before it")
            if len(matrix) != len(self.bias) or any(len(row) != widths[source + 1] for row in matrix):
                shape = f"[{len(self.bias)}, {widths[source + 1]}]"
                raise ValueError(f"stage {len(widths) - 1}: block {source} must be {shape}")
        groups = [unit.rows if isinstance(unit, Max) else (unit[0],) for unit in self.units]
        if any(not group or min(group) < 0 or max(group) >= len(self.bias) for group in groups):
            raise ValueError(f"stage {len(widths) - 1}: units must name rows below {len(self.bias)}")
        return len(self.units)


def chain(weights: Sequence[Any], biases: Sequence[Any], activation: Pieces) -> list[Stage]:
    """The stages of a multilayer perceptron: the activation after every layer but the last.

    Args:
        weights: ``[outputs, inputs]`` of each layer.
        biases: ``[outputs]`` of each layer.
        activation: The hidden layers'.
    """
    stages = []
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        act = activation if k + 1 < len(weights) else Pieces.identity()
        stages.append(Stage({k - 1: weight}, bias, [(row, act) for row in range(len(bias))]))
    return stages


def forward(stages: Sequence[Stage], x: Any) -> tuple[Pattern, list[Fraction]]:
    """The pattern and the outputs of the last stage at one input ``[D]``, by plain evaluation."""
    values = {-1: _vector(x)}
    pattern = []
    for index, stage in enumerate(stages):
        z = list(stage.bias)
        for source, matrix in stage.blocks.items():
            for r, weights in enumerate(matrix):
                z[r] += sum((w * y for w, y in zip(weights, values[source], strict=True)), ZERO)
        choices, values[index] = [], []
        for unit in stage.units:
            if isinstance(unit, Max):
                group = [z[row] for row in unit.rows]
                choices.append(group.index(max(group)))
                values[index].append(max(group))
            else:
                row, act = unit
                choices.append(act.piece(z[row]))
                values[index].append(act.value(choices[-1], z[row]))
        pattern.append(tuple(choices))
    return tuple(pattern), values[len(stages) - 1]


@dataclass(frozen=True)
class Cell:
    """One region of a slice.

    Attributes:
        polygon: Its corners (s, t), counter-clockwise, none of them on the line through its neighbours.
        pattern: The pattern in its interior.
        outputs: For each output of the last stage (a, b, c): it is ``a s + b t + c`` here.
    """

    polygon: list[Point]
    pattern: Pattern
    outputs: list[Row]


@dataclass(frozen=True)
class ExactPartition:
    """The regions of a slice: maximal sets with interior on which no unit changes, one for each pattern.

    With the pattern of the earlier stages fixed, the rows of a stage are affine and its pattern is a set of linear
    inequalities. So the inputs with one pattern are convex, and a cell is all of them.

    Attributes:
        cells: In no particular order.
        counts_per_stage: How many cells there are if the later stages are left out.
    """

    cells: list[Cell]
    counts_per_stage: list[int]

    def areas(self) -> list[Fraction]:
        """The area of each cell."""
        return [sum((p[0] * q[1] - q[0] * p[1] for p, q in _sides(c.polygon)), ZERO) / 2 for c in self.cells]

    def area(self) -> Fraction:
        """The area of all cells together."""
        return sum(self.areas(), ZERO)

    @cached_property
    def edges(self) -> dict[Segment, set[int]]:
        """The edges of the planar subdivision, cut at each vertex that lies on them, and the cells at each."""
        vertices = sorted({point for cell in self.cells for point in cell.polygon})
        found: dict[Segment, set[int]] = {}
        for index, cell in enumerate(self.cells):
            for p, q in _sides(cell.polygon):
                low, high = min(p, q), max(p, q)
                # Points of a segment lie between its ends in lexicographic order too.
                between = vertices[bisect_right(vertices, low) : bisect_left(vertices, high)]
                stops = [low, *(point for point in between if _turn(low, high, point) == 0), high]
                for edge in pairwise(stops):
                    found.setdefault(edge, set()).add(index)
        return found

    def euler(self) -> int:
        """Vertices less edges plus cells: 1 if the cells tile a disc."""
        return len({point for edge in self.edges for point in edge}) - len(self.edges) + len(self.cells)

    def adjacency(self) -> set[frozenset[int]]:
        """Pairs of cells whose boundaries share a segment of positive length."""
        return {frozenset(pair) for cells in self.edges.values() for pair in combinations(cells, 2)}

    def linear_regions(self) -> int:
        """How many regions are left when adjacent cells with equal output maps are merged, again and again."""
        label = list(range(len(self.cells)))
        for i, j in map(tuple, self.adjacency()):
            if self.cells[i].outputs == self.cells[j].outputs and label[i] != label[j]:
                label = [label[i] if value == label[j] else value for value in label]
        return len(set(label))

    def decision_segments(self) -> list[set[Segment]]:
        """For each cell, where in it (boundary included) the two largest outputs tie; of one output, where it is 0.

        Segments of positive length, the lexicographically smaller end first. Outputs that are equal on a whole cell
        count as one there, and so does one output with 0. A segment on an edge may be told by both its cells.
        """
        return [_ties(cell) for cell in self.cells]

    def locate(self, s: Any, t: Any) -> list[int]:
        """The cells that hold a point, boundaries included."""
        point = (_fraction(s), _fraction(t))
        return [i for i, c in enumerate(self.cells) if all(_turn(p, q, point) >= 0 for p, q in _sides(c.polygon))]


@dataclass(frozen=True)
class ExactTrace:
    """The regions of a segment: maximal intervals with interior in which no unit changes.

    Attributes:
        breakpoints: The ``n`` places strictly between 0 and 1 at which a unit changes, ascending.
        changes: For each breakpoint the (stage, unit) that change there.
        patterns: For each of the ``n + 1`` intervals the pattern in its interior.
        outputs: For each interval, for each output of the last stage (a, c): it is ``a t + c`` there.
    """

    breakpoints: list[Fraction]
    changes: list[set[tuple[int, int]]]
    patterns: list[Pattern]
    outputs: list[list[Row]]

    @property
    def n_regions(self) -> int:
        """How many intervals there are."""
        return len(self.patterns)


def partition(stages: Sequence[Step], origin: Any, u: Any, v: Any, polygon: Any) -> ExactPartition:
    """The exact regions of a slice.

    Args:
        stages: The network.
        origin, u, v: ``[D]``: the slice is ``origin + s u + t v``.
        polygon: Corners (s, t) of a convex polygon, counter-clockwise. Corners on straight lines are dropped.

    Raises:
        ValueError: The polygon is not that, a number is not finite, or shapes do not fit.
    """
    inputs = list(zip(_vector(u), _vector(v), _vector(origin), strict=True))
    parts, counts = _regions(stages, inputs, _convex(polygon))
    return ExactPartition([Cell(*part) for part in parts], counts)


def trace(stages: Sequence[Step], start: Any, end: Any) -> ExactTrace:
    """The exact regions of the segment ``start + t (end - start)``, t from 0 to 1.

    Args:
        stages: The network.
        start, end: ``[D]``.

    Raises:
        ValueError: A number is not finite, or shapes do not fit.
    """
    inputs = [(b - a, a) for a, b in zip(_vector(start), _vector(end), strict=True)]
    parts, _ = _regions(stages, inputs, [(ZERO,), (Fraction(1),)])
    parts.sort(key=lambda part: part[0])
    patterns = [pattern for _, pattern, _ in parts]
    changes = [
        {(k, i) for k, units in enumerate(p) for i, choice in enumerate(units) if choice != q[k][i]}
        for p, q in pairwise(patterns)
    ]
    return ExactTrace([low for ((low,), _), _, _ in parts[1:]], changes, patterns, [rows for _, _, rows in parts])


def _regions(
    stages: Sequence[Step], inputs: Sequence[Row], shape: list[Point]
) -> tuple[list[tuple[list[Point], Pattern, list[Row]]], list[int]]:
    """Stage by stage, cut each region by each unit. Gives shape, pattern and outputs of each, and the counts."""
    _check(stages, len(inputs))
    regions: list[tuple[list[Point], Pattern, list[list[Row]]]] = [(shape, (), [list(inputs)])]
    counts = []
    for stage in stages:
        cut = []
        for whole, pattern, values in regions:
            rows = stage.rows(values)
            parts: list[tuple[list[Point], tuple[int, ...], list[Row]]] = [(whole, (), [] if stage.units else rows)]
            for unit in stage.units:
                everywhere = list(_split(unit, rows, whole))  # one choice on the whole is that of all parts
                parts = [
                    (smaller, (*choices, choice), [*outputs, output])
                    for part, choices, outputs in parts
                    for smaller, choice, output in (
                        _split(unit, rows, part) if len(everywhere) > 1 else [(part, *everywhere[0][1:])]
                    )
                ]
            cut += [(part, (*pattern, choices), [*values, outputs]) for part, choices, outputs in parts]
        regions = cut
        counts.append(len(regions))
    return [(part, pattern, values[-1]) for part, pattern, values in regions], counts


def _split(
    unit: tuple[int, Pieces] | Max, rows: list[Row], shape: list[Point]
) -> Iterator[tuple[list[Point], int, Row]]:
    """The parts of a convex shape on which a unit makes one choice, with the choice and the unit's value."""
    if isinstance(unit, Max):
        group = [rows[r] for r in unit.rows]
        for i, row in enumerate(group):
            part = [] if row in group[:i] else shape  # equal to an earlier one everywhere: that one wins
            for other in group:
                part = _clip(part, _minus(row, other))
            if part:
                yield part, i, row
        return
    row, act = rows[unit[0]], unit[1]
    values = [_at(row, point) for point in shape]
    least, most = min(values), max(values)
    bounds: list[Any] = [-math.inf, *act.breaks, math.inf]
    pieces = [i for i, (low, high) in enumerate(pairwise(bounds)) if low < most and least < high]
    for i in pieces or [act.piece(least)]:  # none: it is at a break all over
        part = shape
        if i > 0 and least < act.breaks[i - 1]:
            part = _clip(part, (*row[:-1], row[-1] - act.breaks[i - 1]))
        if i < len(act.breaks) and act.breaks[i] < most:
            part = _clip(part, (*(-a for a in row[:-1]), act.breaks[i] - row[-1]))
        if part:
            yield part, i, (*(act.slopes[i] * a for a in row[:-1]), act.value(i, row[-1]))


def _clip(shape: list[Point], row: Row) -> list[Point]:
    """The part of a convex polygon, or of a segment (two points), where an affine function is not negative.

    Empty if that has no interior. Corners of a strictly convex polygon stay strictly convex.
    """
    values = [_at(row, point) for point in shape]
    if all(value >= 0 for value in values):
        return shape
    if all(value <= 0 for value in values):
        return []
    kept = []
    for i, (p, x) in enumerate(zip(shape, values, strict=True)):
        if x >= 0:
            kept.append(p)
        following = (i + 1) % len(shape)
        if x * values[following] < 0 and (following or len(shape) > 2):  # a segment does not close
            kept.append(_crossing(p, shape[following], x, values[following]))
    return kept


def _ties(cell: Cell) -> set[Segment]:
    """See :meth:`ExactPartition.decision_segments`."""
    outputs = cell.outputs if len(cell.outputs) > 1 else [*cell.outputs, (ZERO, ZERO, ZERO)]
    segments = set()
    for f, g in combinations(outputs, 2):
        tie = _minus(f, g)
        values = [_at(tie, point) for point in cell.polygon]
        ends = {point for point, value in zip(cell.polygon, values, strict=True) if value == 0}
        for (p, q), (x, y) in zip(_sides(cell.polygon), _sides(values), strict=True):
            if x * y < 0:
                ends.add(_crossing(p, q, x, y))
        chord = sorted(ends) if len(ends) == 2 else []
        if len(cell.outputs) > 1:
            for other in outputs:
                chord = _clip(chord, _minus(f, other))
        if chord:
            segments.add((min(chord), max(chord)))
    return segments


def _at(row: Row, point: Point) -> Fraction:
    """The value of an affine function at a point."""
    value = row[-1]
    for a, x in zip(row[:-1], point, strict=True):
        value += a * x
    return value


def _minus(f: Row, g: Row) -> Row:
    return tuple(a - b for a, b in zip(f, g, strict=True))


def _crossing(p: Point, q: Point, x: Fraction, y: Fraction) -> Point:
    """Where an affine function is 0 that is x at p and y at q, of opposite signs."""
    return tuple(a + (b - a) * x / (x - y) for a, b in zip(p, q, strict=True))


def _turn(p: Point, q: Point, r: Point) -> Fraction:
    """Positive if r is to the left of the line from p to q, 0 on it."""
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])


def _sides(cycle: list[Any]) -> list[tuple[Any, Any]]:
    """Each entry with the one after it, around."""
    return list(zip(cycle, cycle[1:] + cycle[:1], strict=True))


def _convex(polygon: Any) -> list[Point]:
    """The corners, exactly, without repeated ones and those on straight lines."""
    points: list[Point] = [tuple(_vector(point)) for point in polygon]
    if any(len(point) != 2 for point in points):
        raise ValueError("polygon must be pairs (s, t)")
    points = [p for p, q in _sides(points) if p != q]
    corners = [
        q for (p, q), (_, r) in zip(_sides(points[-1:] + points[:-1]), _sides(points), strict=True) if _turn(p, q, r)
    ]
    supported = all(_turn(p, q, r) >= 0 for p, q in _sides(points) for r in points)
    if len(corners) < 3 or not supported or len(set(corners)) < len(corners):  # repeated: it goes around twice
        raise ValueError("polygon must be convex, its corners counter-clockwise")
    return corners


def _check(steps: Sequence[Step], inputs: int) -> None:
    """Whether shapes fit."""
    if not steps or not inputs:
        raise ValueError("there must be a stage and an input")
    widths = [inputs]
    for step in steps:
        widths.append(step.width(widths))


def _vector(values: Any) -> list[Fraction]:
    return [_fraction(value) for value in values]


def _fraction(value: Any) -> Fraction:
    """Any int, float, Fraction or scalar of an array, exactly."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"numbers must be finite, got {value}")
    if not isinstance(value, int | float | Rational):
        raise TypeError(f"numbers must be int, float or Fraction, got {type(value).__name__}")
    number: Fraction = rational(value)
    return number
