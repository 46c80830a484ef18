"""A captured network as stages: affine rows, and a piecewise linear unit on each; what the exact methods work on.

The network is the real-arithmetic function of the numbers found here. Weights, biases, kinks and slopes are those of
the model, exactly; an operator that is no product with stored weights (batch norm in eval mode, average pooling) is the
float64 matrix that torch computes for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion import maxima, ties
from pylinregion.errors import UnsupportedModelError
from pylinregion.kinks import bound_arguments, scalar_kink
from pylinregion.linear_part import differentiable
from pylinregion.network import Network, Node, Ref, refs
from pylinregion.ops import Degree, Kind
from pylinregion.program import Program
from pylinregion.torch_state import full_precision

Array = NDArray[np.float64]

INPUT = -1
_LARGEST_MATRIX = 1 << 27


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
    def _line_begin(self) -> NDArray[np.int64]:
        return self.line_begin if self.groups is None else self.groups


@dataclass
class Stage:
    """``z = bias + sum of blocks[j] @ (units of stage j)``, and a unit on each row.

    Attributes:
        blocks: Weights ``[rows, width of the source]`` float64 by source: an earlier stage, or ``INPUT``.
        bias: ``[rows]`` float64.
        units: What the rows go through.
        layer: The number of the network's layer whose kinks these are; -1: none.
    """

    blocks: dict[int, Array]
    bias: Array
    units: Units
    layer: int = -1

    @property
    def rows(self) -> int:
        """Its rows."""
        return len(self.bias)


@dataclass
class Stages:
    """A network's stages in the order of computation; the last one is the output, without kinks."""

    stages: list[Stage]
    layers: tuple[str, ...] = field(default_factory=tuple)

    @property
    def inputs(self) -> int:
        """Input dimensions."""
        first = next(stage.blocks[INPUT] for stage in self.stages if INPUT in stage.blocks)
        return int(first.shape[1])

    @property
    def first_lines(self) -> list[int]:
        """The number of each stage's first line."""
        return [0, *np.cumsum([stage.units.lines for stage in self.stages]).tolist()][:-1]

    @cached_property
    def line_begins(self) -> list[NDArray[np.int64]]:
        """``[rows + 1]`` of each stage: the numbers of its units' first lines, counted through the network."""
        return [stage.units.line_begin + first for stage, first in zip(self.stages, self.first_lines, strict=True)]

    def addresses(self) -> list[tuple[Any, ...]]:
        """What the integers read of each stage (``ExactStage``): addresses of arrays, which live as long as this."""
        return [
            (
                stage.rows,
                [(source, weight.ctypes.data) for source, weight in stage.blocks.items()],
                stage.bias.ctypes.data,
                begin.ctypes.data,
                stage.units.kinks.ctypes.data,
                stage.units.slopes.ctypes.data,
                stage.units.intercepts.ctypes.data,
                stage.units.denominator,
            )
            for stage, begin in zip(self.stages, self.line_begins, strict=True)
        ]

    @cached_property
    def same_lines(self) -> NDArray[np.int64]:
        """``[lines]``: see :func:`pylinregion.ties.same_lines`."""
        return ties.same_lines(self)

    @property
    def lines(self) -> int:
        """Kinks of all units of all stages."""
        return sum(stage.units.lines for stage in self.stages)


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


def sums(units: Units) -> Array:
    """``[maxima, candidates]``: what makes maxima of the units of their candidates."""
    assert units.groups is not None
    total = np.zeros((len(units.groups) - 1, len(units.line_begin) - 1))
    total[units.neuron_of_line, np.arange(total.shape[1])] = 1
    return total


def _breakpoints(node: Node) -> tuple[float, ...]:
    """Those of an elementwise kink with scalar breakpoints."""
    kink = scalar_kink(node)
    assert kink is not None
    return kink.breakpoints


def stages_of(network: Network) -> Stages:
    """Find the stages of a network.

    Raises:
        UnsupportedModelError: It has a value that is not piecewise affine, a kink that the exact methods do not take,
            or an affine map that is too large as a matrix; the message names the operator and its place.
    """
    if (reason := network.exact_refusal()) is not None:
        raise UnsupportedModelError(f"exact methods do not cover this model: {reason}")
    if len(network.outputs) != 1:
        raise UnsupportedModelError(
            f"exact methods need a model with one output tensor, this one has {len(network.outputs)}"
        )
    with torch.no_grad(), full_precision():
        return _Walk(network).stages()


def refusal(network: Network) -> str | None:
    """Why :func:`stages_of` would refuse a network; None if it would not. Makes no matrices."""
    if (reason := network.exact_refusal()) is not None:
        return reason
    if len(network.outputs) != 1:
        return f"the model has {len(network.outputs)} output tensors"
    try:
        with torch.no_grad(), full_precision():
            _Walk(network).check()
    except UnsupportedModelError as error:
        return str(error)
    return None


class _Walk:
    """Goes through the network's values; each is the units of a stage."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.layer_of = {layer.node: number for number, layer in enumerate(network.layers)}
        self.found: list[Stage] = []
        self.source: dict[int, int] = {}
        self.input = next(index for index, node in enumerate(network.nodes) if node.role == "input")
        self.retype = {network.dtype: torch.float64}
        self.fixed: dict[int, Any] = {}

    def stages(self) -> Stages:
        network, nodes = self.network, self.network.nodes
        output = network.outputs[0]
        needed = self._needed([output])
        users: dict[int, int] = {}
        for index in needed:
            for ref in set(refs((nodes[index].args, nodes[index].kwargs))):
                users[ref.index] = users.get(ref.index, 0) + 1
        users[output] = users.get(output, 0) + 1
        for index in needed:
            node = nodes[index]
            if node.role == "input":
                self.source[index] = INPUT
            elif node.role == "value":
                self._value(index, node, users)
        if self.source[output] == INPUT or self.found[self.source[output]].units.lines:
            width = nodes[output].units
            self._add({self.source[output]: np.eye(width)}, np.zeros(width))
        elif self.source[output] != len(self.found) - 1:
            raise UnsupportedModelError("exact methods need the output to be the last value that is computed")
        return Stages(self.found, network.layer_names)

    def check(self) -> None:
        """Refuse what ``stages`` would refuse."""
        nodes = self.network.nodes
        inputs = {index for index, node in enumerate(nodes) if node.role in ("input", "value")}
        for index in self._needed([self.network.outputs[0]]):
            node = nodes[index]
            if node.role != "value":
                continue
            if maxima.is_maximum(node):
                contests = self._contests(node)
                for argument, _ in contests.places:
                    if argument.index in inputs:
                        self._check_matrix(node, self.network.nodes[argument.index].units, int(contests.groups[-1]))
                self._check_matrix(node, int(contests.groups[-1]), len(contests.groups) - 1)
            elif node.op is not None and node.op.kind is Kind.KINK:
                self._units(node)
            elif not self._is_values(node):
                self._check_affine(node)
                for operand in {ref.index for ref in refs((node.args, node.kwargs))} & inputs:
                    self._check_size(index, operand)

    def _check_affine(self, node: Node) -> None:
        known = node.op is not None and node.op.kind is Kind.AFFINE and node.degree is Degree.AFFINE
        if not known or node.shape is None:  # several values
            raise UnsupportedModelError(f"exact methods do not take {node.where} yet")

    def _check_size(self, index: int, operand: int) -> None:
        nodes = self.network.nodes
        self._check_matrix(nodes[index], nodes[operand].units, nodes[index].units)
        self._shape(operand, 1)

    def _check_matrix(self, node: Node, width: int, rows: int) -> None:
        if width == 0:
            raise UnsupportedModelError(f"exact methods need numbers to work on, and {node.where} takes none")
        if width * rows > _LARGEST_MATRIX:
            raise UnsupportedModelError(
                f"exact methods take the affine maps between kinks as matrices, and {node.where} would be one of "
                f"{rows} x {width}"
            )

    def _needed(self, roots: list[int]) -> list[int]:
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            index = stack.pop()
            if index not in seen:
                seen.add(index)
                node = self.network.nodes[index]
                stack.extend(ref.index for ref in refs((node.args, node.kwargs)))
        return sorted(seen)

    def _value(self, index: int, node: Node, users: dict[int, int]) -> None:
        if maxima.is_maximum(node):
            self._maximum(index, node, users)
        elif node.op is not None and node.op.kind is Kind.KINK:
            self._kink(index, node, users)
        elif self._is_values(node):
            both = node.args[0].index
            self.source[index] = self.source.pop(both) if users[both] == 1 else self.source[both]
        else:
            self._check_affine(node)
            self._affine(index, node)

    def _is_values(self, node: Node) -> bool:
        """Whether a node is the values of a maximum that also tells who wins."""
        return maxima.is_first_of_two(node) and maxima.is_maximum(self.network.nodes[node.args[0].index])

    def _contests(self, node: Node) -> maxima.Contests:
        """The candidates of a maximum."""
        nodes = self.network.nodes
        arguments = node.args[:2] if node.op is not None and node.op.kink == "pair" else node.args[:1]
        shapes = []
        for argument in arguments:
            if nodes[argument.index].role in ("input", "value"):
                shapes.append(self._shape(argument.index, 1))
            else:
                shapes.append(self._constant(argument).shape)
        return maxima.contests_of(node, shapes)

    def _maximum(self, index: int, node: Node, users: dict[int, int]) -> None:
        contests = self._contests(node)
        rows = int(contests.groups[-1])
        self._check_matrix(node, rows, len(contests.groups) - 1)
        blocks: dict[int, Array] = {}
        bias = np.zeros(rows)
        for argument, places in contests.places:
            chosen = np.flatnonzero(places >= 0)
            if argument.index not in self.source:
                bias[chosen] = contests.sign * self._constant(argument).reshape(-1)[places[chosen]]
                continue
            before = self.source[argument.index]
            stage = self.found[before] if before != INPUT else None
            whole = len(contests.places) == 1 and users[argument.index] == 1
            if whole and stage is not None and self._is_private(before) and stage.layer < 0:  # its rows, as they are
                blocks = {source: contests.sign * block[places] for source, block in stage.blocks.items()}
                stage.blocks, stage.bias = blocks, contests.sign * stage.bias[places]
                break
            width = self.network.nodes[argument.index].units
            self._check_matrix(node, width, rows)
            block = blocks.setdefault(before, np.zeros((rows, width)))
            block[chosen, places[chosen]] += contests.sign
        else:
            self._add(blocks, bias)
            before = len(self.found) - 1
        stage = self.found[before]
        stage.units, stage.layer = candidates(contests.groups, contests.sign), self.layer_of.get(index, -1)
        self._add({before: sums(stage.units)}, np.zeros(stage.units.neurons))
        self.source[index] = len(self.found) - 1

    def _is_private(self, stage: int) -> bool:
        """Whether one value alone is that stage, and it has no lines."""
        return self.found[stage].units.lines == 0 and sum(each == stage for each in self.source.values()) == 1

    def _kink(self, index: int, node: Node, users: dict[int, int]) -> None:
        units = self._units(node)
        operand = node.args[0]
        assert isinstance(operand, Ref)
        before = self.source[operand.index]
        private = before != INPUT and users[operand.index] == 1 and self._is_private(before)
        if not private or self.found[before].layer >= 0:
            self._add({before: np.eye(units.line_begin.size - 1)}, np.zeros(units.line_begin.size - 1))
            before = len(self.found) - 1
        stage = self.found[before]
        stage.units, stage.layer = units, self.layer_of.get(index, -1)
        self.source[index] = before

    def _units(self, node: Node) -> Units:
        rows = node.units
        op, arguments = node.op, bound_arguments(node)
        assert op is not None
        if op.kink == "relu":
            return same(rows, [0.0], [0, 1], [0, 0])
        if op.kink == "abs":
            return same(rows, [0.0], [-1, 1], [0, 0])
        if op.kink == "leaky_relu":
            return same(rows, [0.0], [float(arguments["negative_slope"]), 1], [0, 0])
        if op.kink == "rrelu":
            lower, upper = float(arguments["lower"]), float(arguments["upper"])
            return same(rows, [0.0], [(lower + upper) / 2, 1], [0, 0])
        if op.kink == "prelu":
            slope = self._given(node.args[1]).reshape(-1)
            if slope.size not in (1, rows) and node.shape is not None:
                slope = np.repeat(slope, rows // slope.size)  # a slope for each channel, channels first
            return same(rows, [0.0], [slope, 1], [0, 0])
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
            if kink is not None:
                if math.isfinite(kink.low) and math.isfinite(kink.high):
                    return same(rows, [kink.low, kink.high], [0, 1, 0], [kink.low, 0, kink.high])
                if math.isfinite(kink.low):
                    return same(rows, [kink.low], [0, 1], [kink.low, 0])
                return same(rows, [kink.high], [1, 0], [0, kink.high])
        raise UnsupportedModelError(f"exact methods do not take {node.where} yet")

    def _affine(self, index: int, node: Node) -> None:
        operands = sorted({ref.index for ref in refs((node.args, node.kwargs)) if ref.index in self.source})
        blocks: dict[int, Array] = {}
        bias: Array | None = None
        for operand in operands:
            matrix, bias = self._matrix(index, operand, operands)
            source = self.source[operand]
            blocks[source] = blocks[source] + matrix if source in blocks else matrix
        assert bias is not None
        if len(blocks) == 1:
            ((source, matrix),) = blocks.items()
            if matrix.shape[0] == matrix.shape[1] and not bias.any() and np.array_equal(matrix, np.eye(len(matrix))):
                self.source[index] = source  # a reshape
                return
        self._add(blocks, bias)
        self.source[index] = len(self.found) - 1

    def _add(self, blocks: dict[int, Array], bias: Array) -> None:
        self.found.append(Stage(blocks, bias, identity(len(bias))))

    def _matrix(self, index: int, operand: int, operands: list[int]) -> tuple[Array, Array]:
        """The value's derivative by one operand, ``[units, units of the operand]``, and what it is where all are 0.

        By its linear part at the unit vectors: products with 1 and sums with 0, which are exact. A linear layer has its
        matrix at hand.
        """
        nodes = self.network.nodes
        width, rows = nodes[operand].units, nodes[index].units
        self._check_size(index, operand)
        program = self._program(index, operands)
        if (layer := self._linear_layer(nodes[index])) is not None:
            return layer
        size = max(1, min(width, _LARGEST_MATRIX // max(1, 8 * max(rows, width))))
        columns = []
        bias: Tensor | None = None
        for begin in range(0, width, size):
            unit = torch.eye(width, dtype=torch.float64, device="cpu")[begin : begin + size]
            shapes = {each: self._shape(each, len(unit)) for each in {*operands, self.input}}
            given = {each: torch.zeros(shape, dtype=torch.float64, device="cpu") for each, shape in shapes.items()}
            if bias is None:
                bias = program.run({**self.fixed, **given}, len(unit))[0][0]
            direction = {operand: unit.reshape(given.pop(operand).shape)}
            image = program.linear_part({**self.fixed, **given}, direction, len(unit))[0]
            columns.append(image.reshape(len(unit), -1))
        assert bias is not None
        matrix = np.ascontiguousarray(torch.cat(columns).T.numpy())
        if not (np.isfinite(matrix).all() and bool(bias.isfinite().all())):
            raise UnsupportedModelError(f"exact methods need finite numbers, and {nodes[index].where} makes others")
        return matrix, np.ascontiguousarray(bias.reshape(-1).numpy())

    def _linear_layer(self, node: Node) -> tuple[Array, Array] | None:
        """Copies of a linear layer's weight and bias, if it takes rows and nothing computes them; else None."""
        if node.op_name != "linear" or node.kwargs or node.shape is None or len(node.shape) != 2:
            return None
        weight, bias = (*node.args[1:], None)[:2]
        if any(isinstance(each, Ref) and each.index not in self.fixed for each in (weight, bias)):
            return None
        matrix = self._given(weight).copy()  # not the live model's memory
        return matrix, np.zeros(len(matrix)) if bias is None else self._given(bias).copy()

    def _program(self, index: int, operands: list[int]) -> Program:
        nodes = self.network.nodes
        if not self.fixed:
            fixed = [i for i, node in enumerate(nodes) if node.role in ("state", "constant")]
            states = [i for i in fixed if nodes[i].role == "state"]
            given = {i: self._state(nodes[i]) for i in states}
            values = Program(self.network, fixed, states, retype=self.retype).run(given, 0)
            self.fixed = dict(zip(fixed, values, strict=True))
        # With the input, for what depends on its batch size alone.
        return Program(self.network, [index], {*self.fixed, *operands, self.input}, retype=self.retype)

    def _state(self, node: Node) -> Tensor:
        tensor = differentiable(self.network.state[node.state]).cpu()
        return tensor.double() if tensor.is_floating_point() else tensor

    def _given(self, argument: Any) -> Array:
        assert isinstance(argument, Ref)
        self._program(argument.index, [])
        return np.asarray(self.fixed[argument.index].numpy(), dtype=np.float64)

    def _constant(self, argument: Ref) -> Array:
        """A value that depends on the size of the batch at most, for one point."""
        program = self._program(argument.index, [])
        given = {**self.fixed, self.input: torch.zeros(self._shape(self.input, 1), dtype=torch.float64, device="cpu")}
        value: Tensor = given[argument.index] if argument.index in given else program.run(given, 1)[0]
        return np.asarray(value.numpy(), dtype=np.float64)

    def _shape(self, index: int, rows: int) -> tuple[int, ...]:
        node = self.network.nodes[index]
        assert node.shape is not None
        if node.batch_dim != 0 or node.batch_factor != 1:
            raise UnsupportedModelError(f"exact methods do not take {node.where} yet: its batch is not in front")
        return (rows, *node.shape[1:])
