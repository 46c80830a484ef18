"""From a network to its stages: one walk that plans, refuses what is not covered, then makes the matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
import torch

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.torch_settings import full_precision
from pylinregion.graph.network import Network, Node, Ref
from pylinregion.graph.operators import Kind
from pylinregion.lowering import maxima
from pylinregion.lowering.jumps import Jumps
from pylinregion.lowering.kept_stages import kept_stages
from pylinregion.lowering.linear_maps import Dense, LinearMap, Terms, identity_map
from pylinregion.lowering.point import Point
from pylinregion.lowering.stages import INPUT, LARGEST_MATRIX, Stage, Stages
from pylinregion.lowering.steps import Form, Hinge
from pylinregion.lowering.units import Units, candidates, identity, same, sums, units_of


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
        return kept_stages(network, lambda same: _Walk(same).stages())


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
    """Goes through the network's values; each is the units of a stage.

    First it plans: for each value what will make it so. What is refused is refused then, and no matrix is made. So a
    network that can be planned is covered.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.point = Point(network)
        self.jumps = Jumps(network, self.point)
        self.layer_of = {layer.node: number for number, layer in enumerate(network.layers)}
        self.found: list[Stage] = []
        self.source: dict[int, int] = {}
        output = network.outputs[0]
        needed = self._needed([output, *self.layer_of])
        self.users = {output: 1}
        for index in needed:
            for operand in set(network.nodes[index].operands):
                self.users[operand] = self.users.get(operand, 0) + 1
        self.plan = [self._planned(index) for index in needed]
        self._refuse_jumps(output)

    def stages(self) -> Stages:
        for make in self.plan:
            make()
        output = self.network.outputs[0]
        last = self.source[output]
        if last == INPUT or self.found[last].units.lines or last != len(self.found) - 1:
            width = self.network.nodes[output].units
            self._add({last: identity_map(width)}, np.zeros(width))
        return Stages(self.found, self.network.layer_names)

    def check(self) -> None:
        """See to it that what is planned can be made."""
        for make in self.plan:
            if not isinstance(make, partial) or make.func != self._affine:
                continue
            index, makes = make.args
            for operand, make_map in makes.items():
                if make_map is None:
                    self.point.check(index, operand)

    def _needed(self, roots: list[int]) -> list[int]:
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            index = stack.pop()
            if index not in seen:
                seen.add(index)
                stack.extend(self.network.nodes[index].operands)
        return sorted(seen)

    def _planned(self, index: int) -> Callable[[], None]:
        """What will make a value; checks all that it may be refused for."""
        node = self.network.nodes[index]
        if node.role == "input":
            return partial(self.source.__setitem__, index, INPUT)
        if node.role != "value":
            return _nothing
        if node.op is not None and node.op.kind is Kind.KINK:
            for operand in self.point.operands(index):
                self._refuse_jumps(operand)
        if maxima.is_maximum(node, self.point.depends):
            contests = self._contests(node)
            self._check_width(node, int(contests.groups[-1]))
            return partial(self._maximum, index, contests)
        if self._is_values(node):
            return partial(self._values_of, index, node.args[0].index)
        if node.op is not None and node.op.kind is Kind.KINK and node.op.kink in ("comparison", "sign"):
            self._check_matrix(node, node.units, node.units)
            self.jumps.compare(index)
            return partial(self._comparison, index, self._used(self.jumps.rows(index)))
        if node.op is not None and node.op.kind is Kind.KINK:
            return partial(self._kink, index, units_of(index, node, self.point))
        op = node.op or self.network.nodes[node.args[0].index].op
        if op is not None and op.kind is Kind.KINK:
            self.jumps.refuse(index, f"{node.where} gives the places of the largest, which jump")
            return _nothing
        if self.point.carries(index):
            return _nothing
        if self.jumps.meets(index):
            self._check_matrix(node, node.units, node.units)
            found = self.jumps.follow(index)
            return _nothing if found is None else partial(self._hinges, index, *self._hinged(index, found))
        makes = {operand: self.point.affine_map(index, operand) for operand in self.point.operands(index)}
        for operand, make in makes.items():
            self._check_width(node, self.network.nodes[operand].units)
            places = self._places(node) if make is not None and node.op_name == "linear" else 1
            if make is None or node.op_name == "linear":
                self._check_matrix(node, self.network.nodes[operand].units // places, node.units // places)
        return partial(self._affine, index, makes)

    def _refuse_jumps(self, index: int) -> None:
        if (reason := self.jumps.reason(index)) is not None:
            raise UnsupportedModelError(f"exact methods need continuous functions: {reason}")

    def _used(self, forms: list[Form]) -> list[Form]:
        """Forms whose atoms are needed as they are."""
        for node in {node for form in forms for (node, _), _ in form.terms}:
            self.users[node] = self.users.get(node, 0) + 1
        return forms

    def _hinged(self, index: int, found: list[tuple[Form, list[Hinge]]]) -> tuple[list[Form], list[Form], int]:
        """Entries as forms, also of units of comparisons and of lines of their own; these; and the layer behind them.

        ``m max(w - c, 0)`` is a number times the unit of a comparison of ``w`` with ``c``. If there is none, as of
        ``sign(z) * relu(|z| - t)`` at ``z = t``, it takes a line of its own, which cuts nothing: on a cell of the
        layers before, the value is affine.
        """
        node = self.network.nodes[index]
        own: dict[Form, int] = {}
        entries = []
        for form, hinges in found:
            for direction, threshold, slope in hinges:
                distance = Form(direction, -threshold)
                line = self.jumps.lines.get((direction, threshold))
                if line is not None and _is_float(share := slope / abs(line.factor)):
                    form = form if line.factor > 0 else form.plus(distance, slope)
                    unit, share = (line.node, line.place), share
                else:
                    row = distance.times(abs(slope))
                    unit, share = (_own(index), own.setdefault(row, len(own))), Fraction(1 if slope > 0 else -1)
                form = form.plus(Form(((unit, Fraction(1)),)), share)
            entries.append(form)
        for form in (*entries, *own):
            if not all(map(_is_float, (form.constant, *(coefficient for _, coefficient in form.terms)))):
                raise UnsupportedModelError(
                    f"exact methods do not take {node.where}: its pieces have coefficients that are no sums of floats"
                )
        layers = [self.layer_of[each] for each in self._needed([index]) if each in self.layer_of]
        return self._used(entries), self._used(list(own)), max(layers)

    def _places(self, node: Node) -> int:
        """At how many places of a point a linear layer does the same."""
        assert node.shape is not None
        return max(1, math.prod(node.shape[1:-1]))

    def _check_width(self, node: Node, width: int) -> None:
        if width == 0:
            raise UnsupportedModelError(f"exact methods need numbers to work on, and {node.where} takes none")

    def _check_matrix(self, node: Node, width: int, rows: int) -> None:
        self._check_width(node, width)
        if width * rows > LARGEST_MATRIX:
            raise UnsupportedModelError(
                f"exact methods take an affine map that is no convolution, and has no few terms for each number, as a "
                f"matrix, and {node.where} would be one of {rows} x {width}"
            )

    def _is_values(self, node: Node) -> bool:
        """Whether a node is the values of a maximum that also tells who wins."""
        return maxima.is_first_of_two(node) and maxima.is_maximum(
            self.network.nodes[node.args[0].index], self.point.depends
        )

    def _values_of(self, index: int, both: int) -> None:
        self.source[index] = self.source.pop(both) if self.users[both] == 1 else self.source[both]

    def _contests(self, node: Node) -> maxima.Contests:
        """The candidates of a maximum."""
        shapes = [
            self.point.shape_at_point(each.index) if self.point.depends(each) else self.point.constant(each).shape
            for each in maxima.operands(node)
        ]
        return maxima.contests_of(node, shapes, self.point.constant)

    def _maximum(self, index: int, contests: maxima.Contests) -> None:
        rows = int(contests.groups[-1])
        blocks: dict[int, LinearMap] = {}
        bias = np.zeros(rows)
        for argument, places in contests.places:
            chosen = np.flatnonzero(places >= 0)
            if not self.point.depends(argument):
                bias[chosen] = contests.sign * self.point.constant(argument).reshape(-1)[places[chosen]]
                continue
            before = self.source[argument.index]
            stage = self.found[before] if before != INPUT else None
            whole = len(contests.places) == 1 and self.users[argument.index] == 1
            if whole and stage is not None and self._is_private(before) and stage.layer < 0 and _has_rows(stage):
                # Its rows, as they are.
                stage.blocks = {source: _rows(block, places, contests.sign) for source, block in stage.blocks.items()}
                stage.bias = contests.sign * stage.bias[places]
                break
            factor = np.where(places >= 0, contests.sign, 0.0)
            taken = Terms(np.maximum(places, 0)[:, None], factor[:, None], self.network.nodes[argument.index].units)
            blocks[before] = blocks[before].plus(taken) if before in blocks else taken
        else:
            self._add(blocks, bias)
            before = len(self.found) - 1
        stage = self.found[before]
        stage.units, stage.layer = candidates(contests.groups, contests.sign), self.layer_of.get(index, -1)
        self._add({before: sums(stage.units)}, np.zeros(stage.units.neurons))
        self.source[index] = len(self.found) - 1

    def _comparison(self, index: int, rows: list[Form]) -> None:
        before = self._add_forms(rows)
        stage = self.found[before]
        stage.units, stage.layer = same(stage.rows, [0.0], [0, 1], [0, 0]), self.layer_of[index]
        self.source[index] = before

    def _hinges(self, index: int, entries: list[Form], own: list[Form], after: int) -> None:
        if own:
            lines = self.source[_own(index)] = self._add_forms(own)
            self.found[lines].units, self.found[lines].after = same(len(own), [0.0], [0, 1], [0, 0]), after
        self.source[index] = self._add_forms(entries)

    def _add_forms(self, forms: Sequence[Form]) -> int:
        """A stage for each part of the coefficients that floats can hold, mostly one; the number of the last."""
        left: dict[tuple[int, int, int], Fraction] = {}
        for row, form in enumerate(forms):
            for (node, place), coefficient in form.terms:
                key = row, self.source[node], place
                left[key] = left.get(key, Fraction(0)) + coefficient
        constants = [form.constant for form in forms]
        before: int | None = None
        while before is None or left or any(constants):
            matrices: dict[int, Array] = {}
            for (row, source, place), coefficient in left.items():
                width = self.point.inputs if source == INPUT else self.found[source].rows
                matrix = matrices.setdefault(source, np.zeros((len(forms), width)))
                matrix[row, place] = float(coefficient)
                left[row, source, place] = coefficient - Fraction(matrix[row, place])
            blocks: dict[int, LinearMap] = {source: Dense(matrix) for source, matrix in matrices.items()}
            if before is not None:
                blocks[before] = identity_map(len(forms))
            bias = np.array([float(constant) for constant in constants])
            constants = [c - Fraction(b) for c, b in zip(constants, bias.tolist(), strict=True)]
            left = {key: coefficient for key, coefficient in left.items() if coefficient}
            self._add(blocks, bias)
            before = len(self.found) - 1
        return before

    def _is_private(self, stage: int) -> bool:
        """Whether one value alone is that stage, and it has no lines."""
        return self.found[stage].units.lines == 0 and sum(each == stage for each in self.source.values()) == 1

    def _kink(self, index: int, units: Units) -> None:
        operand = self.network.nodes[index].args[0]
        assert isinstance(operand, Ref)
        before = self.source[operand.index]
        private = before != INPUT and self.users[operand.index] == 1 and self._is_private(before)
        if not private or self.found[before].layer >= 0:
            rows = units.line_begin.size - 1
            self._add({before: identity_map(rows)}, np.zeros(rows))
            before = len(self.found) - 1
        stage = self.found[before]
        stage.units, stage.layer = units, self.layer_of.get(index, -1)
        self.source[index] = before

    def _affine(self, index: int, makes: dict[int, Callable[[], tuple[LinearMap, Array]] | None]) -> None:
        blocks: dict[int, LinearMap] = {}
        bias: Array | None = None
        for operand, make in makes.items():
            found, bias = self.point.matrix(index, operand) if make is None else make()
            source = self.source[operand]
            blocks[source] = blocks[source].plus(found) if source in blocks else found
        assert bias is not None
        if len(blocks) == 1:
            ((source, found),) = blocks.items()
            if not bias.any() and found.is_identity:
                self.source[index] = source  # a reshape
                return
        self._add(blocks, bias)
        self.source[index] = len(self.found) - 1

    def _add(self, blocks: dict[int, LinearMap], bias: Array) -> None:
        self.found.append(Stage(blocks, bias, identity(len(bias))))


def _nothing() -> None:
    """Makes no stage."""


def _has_rows(stage: Stage) -> bool:
    """Whether all that a stage takes is given row by row."""
    return all(
        isinstance(block, Terms) or (isinstance(block, Dense) and block.places == 1) for block in stage.blocks.values()
    )


def _rows(block: LinearMap, rows: Int64s, sign: float) -> LinearMap:
    """Some rows of a map, times a sign."""
    if isinstance(block, Terms):
        return Terms(block.place[rows], sign * block.factor[rows], block.width)
    return Dense(sign * block.dense()[rows])


def _own(index: int) -> int:
    """What stands for a node's own lines among the numbers of nodes."""
    return -2 - index


def _is_float(number: Fraction) -> bool:
    """Whether a few floats add up to a number."""
    power = number.denominator
    return power & (power - 1) == 0 and power < 1 << 1000 and abs(number) < 1 << 1000
