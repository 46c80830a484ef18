"""What a network makes of its comparisons: which values jump, and which are continuous again.

A comparison is 1 on one side of a hyperplane and 0 on the other, and so is what is made of it, until ``where``, a
product or a sum makes it continuous: ``where(z > 0, z, 0.1 * z)``, ``z * (z > 0)``, ``sign(z) * relu(|z| - t)``. This
is decided entry by entry, in fractions (:mod:`pylinregion.lowering.steps`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.kinks import bound_arguments
from pylinregion.graph.network import Network, Node, Ref
from pylinregion.graph.operators import Kind, moves
from pylinregion.lowering.point import Point
from pylinregion.lowering.steps import ONE, ZERO, Form, Hinge, Number, Terms, atom
from pylinregion.lowering.units import units_of

Numbers = NDArray[Any]  # of Number or None: not known

_NOT_FOLLOWED = " is not followed entry by entry"
_MOST_COEFFICIENTS = 16  # of a number; what has more is an atom of its own, as what a linear layer gives

_COMPARISONS = {  # the sign of a difference, whether 0 is in, whether it is the opposite
    **dict.fromkeys(("gt", "greater"), (1, False)),
    **dict.fromkeys(("ge", "greater_equal"), (1, True)),
    **dict.fromkeys(("lt", "less"), (-1, False)),
    **dict.fromkeys(("le", "less_equal"), (-1, True)),
}
_SAME = ("to", "_to_copy", "type_as", "clone", "detach", "alias", "contiguous", "positive", "lift_fresh")


@dataclass
class Line:
    """A row of a comparison's stage: ``factor (w - c)``.

    Attributes:
        node: The comparison.
        place: Its row.
        factor: Not 0.
    """

    node: int
    place: int
    factor: Fraction


class Jumps:
    """Follows steps through a network.

    Args:
        network: The network.
        point: Its constants.
    """

    def __init__(self, network: Network, point: Point) -> None:
        self.network = network
        self.point = point
        self.lines: dict[tuple[Terms, Fraction], Line] = {}
        self._why: dict[int, str] = {}  # the values that jump
        self._continuous: dict[int, Numbers] = {}  # the values that are continuous again
        self._known: dict[tuple[int, bool], Numbers | None] = {}
        self._origin: dict[tuple[Terms, Fraction], int] = {}
        self._first = _first_of_equals(network)

    def reason(self, index: int) -> str | None:
        """Why a value is not continuous; None if it is."""
        return self._why.get(index)

    def refuse(self, index: int, reason: str) -> None:
        """Take notice of a value that jumps in a way that is not followed."""
        self._why[index] = reason
        self._known[index, False] = self._known[index, True] = None

    def meets(self, index: int) -> bool:
        """Whether a value is made of values that jump."""
        return any(each in self._why for each in self.point.operands(index))

    def compare(self, index: int) -> None:
        """Take notice of a comparison, or of a sign."""
        node = self.network.nodes[index]
        self._why[index] = f"{node.where} jumps"
        for expand in (False, True):
            difference = self.difference(index, partial(self._argument, expand=expand))
            if difference is None:
                continue
            for place, number in enumerate(difference.reshape(-1)):
                if number is None:
                    continue
                if not number.parts and number.base.terms:
                    direction, factor = number.base.direction, number.base.terms[0][1]
                    key = direction, -number.base.constant / factor
                    self.lines.setdefault(key, Line(index, place, factor))
                sides = number.above(False)
                for side in sides.parts if sides is not None else ():
                    self._origin.setdefault((side.direction, side.threshold), index)

    def rows(self, index: int) -> list[Form]:
        """What a comparison, or a sign, compares with 0, as its operands are."""
        rows = self.difference(index, lambda argument: self._argument(argument, None))
        assert rows is not None
        return [number.base for number in rows.reshape(-1)]

    def difference(self, index: int, of: Callable[[Any], Numbers | None]) -> Numbers | None:
        """What a comparison, or a sign, compares with 0, from its operands; where it is above 0 its line is on."""
        node = self.network.nodes[index]
        first = of(node.args[0])
        if node.op_name not in _COMPARISONS:
            return first
        second = of(node.args[1])
        sign, closed = _COMPARISONS[node.op_name]
        if sign * (-1 if closed else 1) < 0:  # a < b and a >= b: b - a
            first, second = second, first
        return _each(lambda a, b: a.plus(b, -ONE), first, second)

    def follow(self, index: int) -> list[tuple[Form, list[Hinge]]] | None:
        """What a value that is made of values that jump is, entry by entry, if it is continuous.

        Returns:
            A form, and what is added to it; None if it jumps: then :meth:`reason` says where.
        """
        found: Numbers | None = None
        for expand in (False, True):
            numbers = self._numbers(index, expand)
            if numbers is None or any(number is None for number in numbers.reshape(-1)):
                continue
            if all(number.jump() is None for number in numbers.reshape(-1)):
                self._continuous[index] = self._known[index, True] = numbers
                self._known[index, False] = self._atoms(index)
                return [(number.base, number.hinges()) for number in numbers.reshape(-1)]
            found = numbers
        self._why[index] = self._reason(index, found)
        return None

    def _reason(self, index: int, numbers: Numbers | None) -> str:
        node = self.network.nodes[index]
        before = next((each for each in self.point.operands(index) if each in self._why), None)
        if numbers is None:
            assert before is not None
            why = self._why[before]
            return why if why.endswith(_NOT_FOLLOWED) else f"{why}, and {node.where}{_NOT_FOLLOWED}"
        entry, (side, form) = next(
            (place, jump) for place, number in enumerate(numbers.reshape(-1)) if (jump := number.jump()) is not None
        )
        origin = self._origin.get((side.direction, side.threshold))
        where = f" where {self.network.nodes[origin].where} changes" if origin is not None else ""
        along = form.along(side.direction)
        if along is None:
            what = "by what is no multiple of what is compared"
        else:
            what = f"by {float(along[0] * side.threshold + along[1]):g}"
        return f"{node.where} jumps{where}: its entry {entry} {what}"

    def _numbers(self, index: int, expand: bool) -> Numbers | None:
        """``[1, ...]`` numbers of a value; None if it jumps in a way that is not known."""
        key = index, expand
        if key not in self._known:
            numbers = self._made(index, expand)
            steady = index not in self._why and (index in self._continuous or not self.meets(index))
            if steady and (numbers is None or any(n is None or n.size > _MOST_COEFFICIENTS for n in numbers.flat)):
                numbers = self._atoms(index)
            self._known[key] = numbers
        return self._known[key]

    def _atoms(self, index: int) -> Numbers:
        shape = self.point.shape_at_point(index)
        return _array([atom(self._first[index], place) for place in range(int(np.prod(shape)))], shape)

    def _argument(self, argument: Any, expand: bool | None) -> Numbers | None:
        """The numbers of an operand; with None as atoms."""
        if self.point.depends(argument):
            return self._atoms(argument.index) if expand is None else self._numbers(argument.index, expand)
        return _constants(self.point.constant(argument))

    def _made(self, index: int, expand: bool) -> Numbers | None:
        """A value's numbers from those of its operands; None: it is an atom, or not known."""
        node = self.network.nodes[index]
        if index in self._continuous:
            return self._continuous[index] if expand else None
        if node.role == "input" or self.point.carries(index):
            return None
        if node.op is not None and node.op.kind is Kind.KINK:
            return self._kink(index, node, expand)
        carrier = self.network.nodes[node.args[0].index] if node.target is operator.getitem else node
        if carrier.op is None or carrier.op.kind is not Kind.AFFINE:
            return None
        if carrier.op_name in _SAME:
            return self._argument(node.args[0], expand)
        if moves(carrier.op_name):
            return self._moved(index, carrier, expand)
        return self._arithmetic(index, node, expand)

    def _kink(self, index: int, node: Node, expand: bool) -> Numbers | None:
        assert node.op is not None
        if node.op.kink == "sign":
            value = self.difference(index, partial(self._argument, expand=expand))
            return _each(lambda z: _combined(z.above(False), z.above(True), ONE, -ONE), value)
        if node.op.kink == "comparison":
            _, closed = _COMPARISONS[node.op_name]
            on = _each(lambda z: z.above(False), self.difference(index, partial(self._argument, expand=expand)))
            return _each(_not, on) if closed else on
        if not expand:
            return None
        if node.op.kink == "pair":
            first, second = (self._argument(each, expand) for each in node.args[:2])
            if node.op_name in ("minimum", "fmin", "min"):
                return _each(lambda a, b: _combined(a, _rectified(a.plus(b, -ONE)), -ONE), first, second)
            return _each(lambda a, b: _combined(b, _rectified(a.plus(b, -ONE)), ONE), first, second)
        try:
            units = units_of(index, node, self.point)
        except UnsupportedModelError:
            return None
        operand = self._argument(node.args[0], expand)
        if operand is None or units.groups is not None:
            return None
        operand = np.broadcast_to(operand, self.point.shape_at_point(index))
        bent = []
        for row, number in enumerate(operand.reshape(-1)):
            begin, end = units.line_begin[row], units.line_begin[row + 1]
            kinks = [Fraction(kink) for kink in units.kinks[begin:end].tolist()]
            pairs = zip(
                units.slopes[begin + row : end + row + 1].tolist(),
                units.intercepts[begin + row : end + row + 1].tolist(),
                strict=True,
            )
            by = Fraction(units.denominator)
            pieces = [(Fraction(slope) / by, Fraction(intercept) / by) for slope, intercept in pairs]

            def at(z: Fraction, kinks: list[Fraction] = kinks, pieces: Any = pieces) -> Fraction:
                slope, intercept = pieces[sum(kink < z for kink in kinks)]
                return Fraction(slope * z + intercept)

            bent.append(None if number is None else number.bent(kinks, pieces, at))
        return _array(bent, operand.shape)

    def _moved(self, index: int, carrier: Node, expand: bool) -> Numbers | None:
        """Of an operator that only moves numbers: which is where, told by numbers to tell them by."""
        content = _content(carrier)
        if content is None:
            return None
        arrays = [self._argument(argument, expand) for argument in content]
        if any(array is None for array in arrays):
            return None
        given: dict[int, torch.Tensor] = {}
        known: list[Any] = [Number()]
        for argument, array in zip(content, arrays, strict=True):
            assert array is not None
            if not isinstance(argument, Ref):
                return None
            if argument.index not in given:
                names = torch.arange(len(known), len(known) + array.size, dtype=torch.float64, device="cpu")
                given[argument.index] = names.reshape(array.shape)
                known += list(array.reshape(-1))
        names_there = self.point.value(index, given)
        return _array([known[int(name)] for name in names_there.reshape(-1).tolist()], tuple(names_there.shape))

    def _arithmetic(self, index: int, node: Node, expand: bool) -> Numbers | None:
        name = node.op_name
        arguments = bound_arguments(node)

        def of(key: str) -> Numbers | None:
            return self._argument(arguments[key], expand)

        boolean = node.dtype is torch.bool
        if name in ("add", "sub", "rsub") and not boolean:
            if self.point.depends(arguments["alpha"]):
                return None
            factor = Fraction(float(self.point.constant(arguments["alpha"]))) * (1 if name == "add" else -1)
            first, second = ("other", "self") if name == "rsub" else ("self", "other")
            return _each(lambda a, b: a.plus(b, factor), of(first), of(second))
        if name in ("mul", "multiply"):
            return _each(lambda a, b: a.times(b), of("self"), of("other"))
        if name in ("div", "divide", "true_divide") and not self.point.depends(arguments["other"]):
            with np.errstate(all="ignore"):
                inverse = 1 / self.point.constant(arguments["other"])
            return _each(lambda a, b: a.times(b), of("self"), _constants(inverse))
        if name == "neg":
            return _each(lambda a: Number().plus(a, -ONE), of("self"))
        if name == "where":
            return _each(_chosen, of("condition"), of("self"), of("other"))
        if name == "masked_fill":
            return _each(_chosen, of("mask"), of("value"), of("self"))
        if name == "copy":
            return _each(lambda a, b: b, of("self"), of("src"))
        if name == "index_put" and not arguments["accumulate"]:
            (mask, *others), whole = arguments["indices"], self.network.nodes[index].shape
            if others or not isinstance(mask, Ref) or self.network.nodes[mask.index].shape != whole:
                return None
            filled = of("values")
            if filled is None or filled.size != 1:
                return None
            return _each(_chosen, self._argument(mask, expand), filled.reshape(()), of("self"))
        if node.op is not None and node.op.combine == "logic" and all(map(self._is_boolean, node.args)):
            one = self._argument(node.args[0], expand)
            if name.endswith("_not"):
                return _each(_not, one)
            two = self._argument(node.args[1], expand)
            both = _each(lambda a, b: a.times(b), one, two)
            if "and" in name:
                return both
            twice = Fraction(-2 if "xor" in name else -1)
            return _each(lambda a, b, c: a.plus(b).plus(c, twice), one, two, both)
        return None

    def _is_boolean(self, argument: Any) -> bool:
        return isinstance(argument, Ref) and self.network.nodes[argument.index].dtype is torch.bool


def _first_of_equals(network: Network) -> list[int]:
    """For each value the first that is the same operator of the same arguments."""
    first: list[int] = []
    seen: dict[str, int] = {}

    def named(argument: Any) -> Any:
        if isinstance(argument, Ref):
            return Ref(first[argument.index])
        if isinstance(argument, (list, tuple)):
            return [named(each) for each in argument]
        return argument

    for index, node in enumerate(network.nodes):
        name = repr((node.target, named(node.args), sorted((key, named(each)) for key, each in node.kwargs.items())))
        first.append(seen.setdefault(name, index) if node.role == "value" else index)
    return first


def _content(node: Node) -> list[Any] | None:
    """The arguments whose numbers an operator moves; None if it makes others."""
    name = node.op_name
    if name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"):
        return list(node.args[0])
    if name in ("select_scatter", "slice_scatter"):
        return list(node.args[:2])
    if name in ("constant_pad_nd", "pad"):
        arguments = bound_arguments(node)
        return None if arguments.get("value") or arguments.get("mode", "constant") != "constant" else [node.args[0]]
    return [node.args[0]]


def _array(numbers: list[Any], shape: tuple[int, ...]) -> Numbers:
    array = np.empty(len(numbers), dtype=object)
    array[:] = numbers
    return array.reshape(shape)


def _constants(value: NDArray[np.float64]) -> Numbers | None:
    finite = np.isfinite(value).all()
    return _array([Number.of(each) for each in value.reshape(-1).tolist()], value.shape) if finite else None


def _each(function: Callable[..., Number | None], *operands: Numbers | None) -> Numbers | None:
    """A function of the entries of arrays that are broadcast; None of what is not known."""
    arrays = [operand for operand in operands if operand is not None]
    if len(arrays) < len(operands):
        return None
    spread = np.broadcast_arrays(*arrays)
    rows = zip(*(array.reshape(-1) for array in spread), strict=True)
    return _array([None if any(n is None for n in row) else function(*row) for row in rows], spread[0].shape)


def _combined(
    first: Number | None, second: Number | None, factor: Fraction, constant: Fraction = ZERO
) -> Number | None:
    if first is None or second is None:
        return None
    return first.plus(second, factor).plus(Number(Form((), constant)))


def _not(number: Number) -> Number:
    return Number(Form((), ONE)).plus(number, -ONE)


def _chosen(mask: Number, first: Number, second: Number) -> Number | None:
    return _combined(second, mask.times(first.plus(second, -ONE)), ONE)


def _rectified(number: Number) -> Number | None:
    return number.bent([ZERO], [(ZERO, ZERO), (ONE, ZERO)], lambda z: max(z, ZERO))
