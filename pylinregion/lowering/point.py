"""A network at one point of the input, in float64: its constants there, and the affine maps between its values.

The numbers of a value are those of a batch of one point, in row-major order, wherever its batch is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.network import Network, Node, Ref, refs
from pylinregion.graph.operators import SHAPE_OF_SECOND
from pylinregion.runtime.linear_part import differentiable
from pylinregion.runtime.program import Program

_AT_ONCE = 1 << 24  # numbers of a matrix that are computed in one run

_DOUBLE = {
    **dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float64),
    **dict.fromkeys((torch.complex32, torch.complex64), torch.complex128),
}


class Point:
    """A network at one point; see above.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._input = next(index for index, node in enumerate(network.nodes) if node.role == "input")
        self._known: dict[int, Any] = {}

    @property
    def inputs(self) -> int:
        """Numbers of a point."""
        return self.network.nodes[self._input].units

    def shape_at_point(self, index: int) -> tuple[int, ...]:
        """The shape of a value at one point."""
        return self._shape(index, 1)

    def depends(self, argument: Any) -> bool:
        """Whether an argument depends on the input's values."""
        return isinstance(argument, Ref) and self.network.nodes[argument.index].role in ("input", "value")

    def constant(self, argument: Any) -> Array:
        """A number, or a value that depends on the size of the batch at most, at one point."""
        if not isinstance(argument, Ref):
            return np.asarray(argument, dtype=np.float64)
        assert not self.depends(argument)
        value: Any = self.value(argument.index, {})
        return np.asarray(value.double().numpy() if isinstance(value, Tensor) else value, dtype=np.float64)

    def carries(self, index: int) -> bool:
        """Whether a value has no numbers of its own here, but carries those of others: a tuple, or complex numbers."""
        dtype = self.network.nodes[index].dtype
        return self.network.nodes[index].shape is None or (dtype is not None and dtype.is_complex)

    def operands(self, index: int) -> list[int]:
        """The values that one is made of, through those that carry them."""
        return [each for each in self._before(index, shapes=False) if not self.carries(each)]

    def _before(self, index: int, shapes: bool = True) -> list[int]:
        """The operands, what carries them, and, if asked for, what only gives its shape."""
        found: set[int] = set()
        stack = [index]
        while stack:
            node = self.network.nodes[stack.pop()]
            arguments = node.args[:1] if node.op_name in SHAPE_OF_SECOND and not shapes else (node.args, node.kwargs)
            new = {ref.index for ref in refs(arguments) if self.depends(ref)} - found
            found |= new
            stack += [each for each in new if self.carries(each)]
        return sorted(found)

    def matrix(self, index: int, operand: int) -> tuple[Array, Array]:
        """The value's derivative by one operand, ``[units, units of the operand]``, and what it is where all are 0.

        By its linear part at the unit vectors: products with 1 and sums with 0, which are exact. A linear layer has its
        matrix at hand.

        Raises:
            UnsupportedModelError: It makes numbers that are not finite, or torch does not find its linear part.
        """
        nodes = self.network.nodes
        self._constants()
        if (layer := self._linear_layer(nodes[index])) is not None:
            return layer
        width, rows = nodes[operand].units, nodes[index].units
        # Where the batch is not in front, points may be in any order.
        together = all(_in_front(nodes[each]) for each in (index, *self._before(index)))
        size = max(1, min(width, _AT_ONCE // max(rows, width))) if together else 1
        offset: Array | None = None
        columns = []
        for begin in range(0, width, size):
            image, at_zero = self._image(index, operand, _units(width, begin, size), offset is None)
            offset = at_zero if offset is None else offset
            columns.append(image)
        assert offset is not None
        return np.ascontiguousarray(np.concatenate(columns).T), offset

    def check(self, index: int, operand: int) -> None:
        """See to it that :meth:`matrix` finds a map of numbers, without forming it: all columns at once, as their sum.

        Raises:
            UnsupportedModelError: It would not.
        """
        if self._linear_layer(self.network.nodes[index]) is None:
            self._constants()
            self._image(
                index, operand, torch.ones(1, self.network.nodes[operand].units, dtype=torch.float64, device="cpu")
            )

    def _image(self, index: int, operand: int, moves: Tensor, zero: bool = True) -> tuple[Array, Array | None]:
        """What a value's linear part makes of an operand's moves, ``[moves, units]``, and its value where all are 0."""
        node = self.network.nodes[index]
        given_too = {each for each in self._before(index) if not self.carries(each)} | {self._input}
        # With the input, for what depends on its batch size alone.
        program = self._program([index], {*self._known, *given_too})
        shapes = {each: self._shape(each, len(moves)) for each in given_too}
        given = {each: torch.zeros(shape, dtype=torch.float64, device="cpu") for each, shape in shapes.items()}
        found: list[Array] = []
        if zero:
            value = program.run({**self._known, **given}, len(moves))[0].reshape(len(moves), -1)[0]
            found.append(np.ascontiguousarray(value.resolve_neg().numpy()))
        direction = {operand: moves.reshape(given.pop(operand).shape)}
        try:
            image = program.linear_part({**self._known, **given}, direction, len(moves))[0]
        except (RuntimeError, NotImplementedError) as error:
            first = str(error).strip().split("\n")[0]
            raise UnsupportedModelError(
                f"exact methods do not take {node.where} yet: its linear part is not found ({first})"
            ) from error
        found.append(image.reshape(len(moves), -1).resolve_neg().numpy())
        if not all(np.isfinite(each).all() for each in found):
            raise UnsupportedModelError(f"exact methods need finite numbers, and {node.where} makes others")
        return found[-1], found[0] if zero else None

    def _linear_layer(self, node: Node) -> tuple[Array, Array] | None:
        """Copies of a linear layer's weight and bias, if it takes rows and nothing computes them; else None."""
        if node.op_name != "linear" or node.kwargs or not _in_front(node) or len(node.shape or ()) != 2:
            return None
        weight, bias = (*node.args[1:], None)[:2]
        if any(isinstance(each, Ref) and each.index not in self._known for each in (weight, bias)):
            return None
        matrix = self.constant(weight).copy()  # not the live model's memory
        return matrix, np.zeros(len(matrix)) if bias is None else self.constant(bias).copy()

    def value(self, index: int, given: dict[int, Tensor]) -> Tensor:
        """A value at one point, as a function of others there."""
        known = {**self._constants(), **given}
        if index in known:
            value: Tensor = known[index]
            return value
        known.setdefault(self._input, torch.zeros(self._shape(self._input, 1), dtype=torch.float64, device="cpu"))
        return self._program([index], set(known)).run(known, 1)[0]  # type: ignore[no-any-return]

    def _constants(self) -> dict[int, Any]:
        """What depends on neither the input nor the size of the batch."""
        nodes = self.network.nodes
        if not self._known:
            fixed = [i for i, node in enumerate(nodes) if node.role in ("state", "constant")]
            given = {i: self._state(nodes[i]) for i in fixed if nodes[i].role == "state"}
            self._known = dict(zip(fixed, self._program(fixed, set(given)).run(given, 0), strict=True))
        return self._known

    def _program(self, wanted: list[int], given: set[int]) -> Program:
        return Program(self.network, wanted, given, retype=_DOUBLE)

    def _state(self, node: Node) -> Tensor:
        tensor = differentiable(self.network.state[node.state]).cpu()
        return tensor.to(_DOUBLE.get(tensor.dtype, tensor.dtype))

    def _shape(self, index: int, rows: int) -> tuple[int, ...]:
        node = self.network.nodes[index]
        assert node.shape is not None
        return tuple(rows * node.batch_factor if axis == node.batch_dim else n for axis, n in enumerate(node.shape))


def _units(width: int, begin: int, count: int) -> Tensor:
    """Some of the unit vectors, as rows."""
    return torch.eye(width, dtype=torch.float64, device="cpu")[begin : begin + count]


def _in_front(node: Node) -> bool:
    return node.batch_dim == 0 and node.batch_factor == 1
