"""Continuous piecewise linear functions of rows, and those that the kinks of a network are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.kinks import bound_arguments, scalar_kink
from pylinregion.graph.network import Node
from pylinregion.lowering.linear_maps import Terms
from pylinregion.lowering.probing import joined


@dataclass
class Units:
    """Continuous piecewise linear functions, one for each row, divided by ``denominator``.

    Unit ``u`` is ``slopes[p] * z + intercepts[p]`` on its piece ``p``: as many of its kinks lie below ``z``.

    Attributes:
        line_begin: ``[rows + 1]`` int64: the kinks of unit ``u`` are ``kinks[line_begin[u]:line_begin[u + 1]]``.
        kinks: ``[lines]`` float64, ascending for each unit.
        slopes, intercepts: ``[lines + rows]`` float64: the pieces of unit 0, of unit 1 ...
        denominator: A small integer; 6 for hardsigmoid, whose slope 1/6 is no float.
        groups: None, or ``[maxima + 1]`` int64: rows ``groups[m]`` to ``groups[m + 1]`` are the candidates of maximum
            m. Row r then has one line, which is on where it is the largest of its group (of equal ones the first), and
            its unit is on piece 1 there, else on piece 0, which is 0. What later stages take from the candidates of a
            group has the same weight for all.
    """

    line_begin: NDArray[np.int64]
    kinks: Array
    slopes: Array
    intercepts: Array
    denominator: float = 1.0
    groups: NDArray[np.int64] | None = None

    @property
    def lines(self) -> int:
        """Kinks of all units."""
        return len(self.kinks)

    @property
    def neurons(self) -> int:
        """Units, or maxima."""
        return len(self._line_begin) - 1

    @property
    def neuron_of_line(self) -> NDArray[np.int64]:
        """``[lines]``: the unit, or the maximum, of each."""
        return np.repeat(np.arange(self.neurons), np.diff(self._line_begin))

    @property
    def step_of_line(self) -> NDArray[np.int64]:
        """``[lines]``: what each adds to the number of its neuron's piece: of a maximum that is the winner's place."""
        if self.groups is None:
            return np.ones(self.lines, dtype=np.int64)
        return np.arange(self.lines) - self.groups[self.neuron_of_line]

    @property
    def gated(self) -> bool:
        """Whether each has one line, and is its row where that is on, else 0: a ReLU, or a candidate of a maximum."""
        rows = len(self.line_begin) - 1
        return bool(
            self.lines == rows
            and self.denominator == 1
            and (np.diff(self.line_begin) == 1).all()
            and (self.slopes.reshape(-1, 2) == (0, 1)).all()
            and not self.intercepts.any()
        )

    @property
    def are_rows(self) -> bool:
        """Whether all units are their rows."""
        return (
            not self.lines
            and self.denominator == 1
            and bool((self.slopes == 1).all())
            and not bool(self.intercepts.any())
        )

    @property
    def _line_begin(self) -> NDArray[np.int64]:
        return self.line_begin if self.groups is None else self.groups


def identity(rows: int) -> Units:
    """Units that change nothing."""
    return Units(np.zeros(rows + 1, np.int64), np.zeros(0), np.ones(rows), np.zeros(rows))


def same(rows: int, kinks: list[float], slopes: list[Any], intercepts: list[Any], denominator: float = 1.0) -> Units:
    """One function for all rows; ``slopes`` and ``intercepts`` may hold ``[rows]`` arrays."""

    def interleaved(values: list[Any]) -> Array:
        columns = [np.broadcast_to(np.asarray(value, dtype=np.float64), rows) for value in values]
        return np.ascontiguousarray(np.stack(columns, axis=1).reshape(-1))

    begin = np.arange(rows + 1, dtype=np.int64) * len(kinks)
    return Units(
        begin, interleaved(kinks) if kinks else np.zeros(0), interleaved(slopes), interleaved(intercepts), denominator
    )


def candidates(groups: NDArray[np.int64], sign: float = 1.0) -> Units:
    """The units of candidates: ``sign`` times the row where it is the largest of its group, else 0."""
    rows = int(groups[-1])
    slopes = np.tile([0.0, sign], rows)
    return Units(np.arange(rows + 1), np.zeros(rows), slopes, np.zeros(2 * rows), groups=groups)


def sums(units: Units) -> Terms:
    """``[maxima, candidates]``: what makes maxima of the units of their candidates."""
    assert units.groups is not None
    rows = len(units.line_begin) - 1
    return joined(units.neuron_of_line, np.ones(rows), units.neurons)


def between(low: Array, high: Array) -> Units:
    """A clamp of each row to bounds of its own; infinite ones bound nothing."""
    begin, kinks, slopes, intercepts = [0], [], [], []
    for least, most in zip(low.tolist(), high.tolist(), strict=True):
        if least < most:
            bounds = [bound for bound in (least, most) if math.isfinite(bound)]
            inner = [(0.0, least)] * math.isfinite(least) + [(1.0, 0.0)] + [(0.0, most)] * math.isfinite(most)
        else:  # it is the upper bound, whatever the row; and yet the row may pass both
            bounds, inner = sorted({least, most}), [(0.0, most)] * (1 + len({least, most}))
        begin.append(begin[-1] + len(bounds))
        kinks += bounds
        slopes += [slope for slope, _ in inner]
        intercepts += [intercept for _, intercept in inner]
    return Units(np.array(begin, np.int64), np.array(kinks), np.array(slopes), np.array(intercepts))


class Constants(Protocol):
    """Where the constants of a network are read."""

    def depends(self, argument: Any) -> bool:
        """Whether an argument depends on the input's values."""

    def constant(self, argument: Any) -> Array:
        """A value that does not depend on the input, at one point, in float64."""

    def shape_at_point(self, index: int) -> tuple[int, ...]:
        """The shape of a value at one point."""


def units_of(index: int, node: Node, constants: Constants) -> Units:
    """The units of an elementwise kink of one operand.

    Raises:
        UnsupportedModelError: It is not continuous, or none of these.
    """
    rows = node.units
    op, arguments = node.op, bound_arguments(node)
    assert op is not None
    if any(constants.depends(argument) for name, argument in arguments.items() if name != "self"):
        raise UnsupportedModelError(f"exact methods do not take {node.where} yet: where it bends depends on the input")
    if op.kink in ("relu", "sign"):
        return same(rows, [0.0], [0, 1], [0, 0])
    if op.kink == "abs":
        return same(rows, [0.0], [-1, 1], [0, 0])
    if op.kink == "leaky_relu":
        return same(rows, [0.0], [float(arguments["negative_slope"]), 1], [0, 0])
    if op.kink == "rrelu":
        lower, upper = float(arguments["lower"]), float(arguments["upper"])
        return same(rows, [0.0], [(lower + upper) / 2, 1], [0, 0])
    if op.kink == "prelu":
        shape = constants.shape_at_point(index)
        slope = constants.constant(node.args[1])
        if slope.ndim == 1 and len(shape) > 1:
            slope = slope.reshape(-1, *[1] * (len(shape) - 2))  # a slope for each channel, which come second
        return same(rows, [0.0], [np.broadcast_to(slope, shape).reshape(-1), 1], [0, 0])
    if op.kink == "hardsigmoid":
        return same(rows, [-3.0, 3.0], [0, 1, 0], [0, 3, 6], 6.0)
    if node.op_name == "softshrink":
        low, high = _breakpoints(node)
        return same(rows, [low, high], [1, 0, 1], [high, 0, low])
    if op.kink == "threshold" and arguments["threshold"] == arguments["value"]:
        (low,) = _breakpoints(node)
        return same(rows, [low], [0, 1], [low, 0])
    if op.kink in ("threshold", "shrink"):
        raise UnsupportedModelError(f"exact methods need continuous activations, and {node.where} jumps")
    if op.kink in ("relu6", "hardtanh", "clamp"):
        kink = scalar_kink(node)
        if kink is None:
            return between(*(_bound(index, arguments.get(name), limit, node, constants) for name, limit in _BOUNDS))
        if math.isfinite(kink.low) and math.isfinite(kink.high):
            return same(rows, [kink.low, kink.high], [0, 1, 0], [kink.low, 0, kink.high])
        if math.isfinite(kink.low):
            return same(rows, [kink.low], [0, 1], [kink.low, 0])
        return same(rows, [kink.high], [1, 0], [0, kink.high])
    raise UnsupportedModelError(f"exact methods do not take {node.where} yet")


_BOUNDS = (("min", -math.inf), ("max", math.inf))


def _bound(index: int, argument: Any, limit: float, node: Node, constants: Constants) -> Array:
    """``[rows]``: a bound of a clamp."""
    given = limit if argument is None else constants.constant(argument)
    bound = np.broadcast_to(np.asarray(given, dtype=np.float64), constants.shape_at_point(index)).reshape(-1)
    if np.isnan(bound).any() or (bound == -limit).any():
        raise UnsupportedModelError(f"{node.where}: its bounds must be numbers, got {-limit} or NaN among them")
    return bound


def _breakpoints(node: Node) -> tuple[float, ...]:
    """Those of an elementwise kink with scalar breakpoints."""
    kink = scalar_kink(node)
    assert kink is not None
    return kink.breakpoints
