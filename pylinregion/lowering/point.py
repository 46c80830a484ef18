"""A network at one point of the input, in float64: its constants there, and the affine maps between its values.

The numbers of a value are those of a batch of one point, in row-major order, wherever its batch is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.network import Network, Node, Ref, refs
from pylinregion.graph.operators import SHAPE_OF_SECOND
from pylinregion.lowering.linear_maps import Dense, LinearMap, Terms, identity_map
from pylinregion.lowering.probing import from_entries, joined, on_channels, sources, terms_of
from pylinregion.lowering.stored_maps import stored_map
from pylinregion.runtime.linear_part import differentiable
from pylinregion.runtime.program import Program

_AT_ONCE = 1 << 24  # numbers of a matrix that are computed in one run
_MOST_TERMS = 64  # of a row of a matrix that is kept as terms

# Operators that change no number and no order, where the batch is in front before and after.
_SAME_NUMBERS = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze alias detach contiguous to _to_copy type_as view_as reshape_as "  # noqa: SIM905
    "_unsafe_view positive lift_fresh dropout feature_dropout alpha_dropout feature_alpha_dropout clone".split()
)
# Operators that take numbers one by one, where the shape is the operand's.
_BY_NUMBER = frozenset(
    "batch_norm _native_batch_norm_legit_no_training native_batch_norm cudnn_batch_norm add sub rsub mul multiply neg "  # noqa: SIM905
    "div divide true_divide lerp".split()
)
# Operators that do the same to each channel.
_WINDOWS = frozenset(
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "  # noqa: SIM905
    "_adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d".split()
)
_SUMS = frozenset(["sum", "mean"])

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

    def affine_map(self, index: int, operand: int) -> Callable[[], tuple[LinearMap, Array]] | None:
        """What will make the map from one operand to a value, and what the value is where all operands are 0.

        A convolution or linear layer is a map of its own. Other operators whose numbers have one term each are found by
        asking (:mod:`pylinregion.lowering.probing`), and so are windows of pools, on one channel, and sums. None: it
        takes a matrix.
        """
        self._constants()
        node = self.network.nodes[index]
        if not all(_in_front(self.network.nodes[each]) for each in (index, *self._before(index))):
            return None
        own = self._shape(index, 1)
        if (made := stored_map(node, self.depends, self.shape_at_point, own)) is not None:
            return partial(made, self.constant)
        width, rows = self.network.nodes[operand].units, node.units
        if not width or not rows:
            return None
        found = self._terms(index, operand, width, rows)
        return None if found is None else lambda: (found, self._offset(index))

    def _terms(self, index: int, operand: int, width: int, rows: int) -> Terms | None:
        node = self.network.nodes[index]
        op = node.op
        if op is not None and op.combine in ("product", "add product") and node.op_name not in _BY_NUMBER:
            return None  # a product with a matrix
        images: Callable[[Tensor], Array] = lambda moves: self._image(index, operand, moves, False)[0]  # noqa: E731
        if node.op_name in _SAME_NUMBERS and width == rows:
            return identity_map(width)
        same_shape = self._shape(index, 1) == self._shape(operand, 1)
        if node.op_name in _BY_NUMBER and same_shape:
            factor = images(torch.ones(1, width, dtype=torch.float64, device="cpu"))[0]
            return Terms(np.arange(width)[:, None], np.ascontiguousarray(factor[:, None]), width)
        if node.op_name in _WINDOWS:
            return self._windows(index, operand)
        if node.op_name in _SUMS:
            return self._sums(index, operand, width, rows)
        return sources(images, width)

    def _windows(self, index: int, operand: int) -> Terms | None:
        """The terms of an operator that does the same to each channel, from what it does to one."""
        node = self.network.nodes[index]
        dims = next((int(digit) for digit in node.op_name if digit.isdigit()), 0)
        before, after = self._shape(operand, 1), self._shape(index, 1)
        if len(before) != dims + 2 or any(isinstance(each, Ref) for each in refs((node.args[1:], node.kwargs))):
            return None
        space, channels = before[2:], before[1]
        size, rows = math.prod(space), math.prod(after[2:])
        step = max(1, _AT_ONCE // max(size, rows))
        place, window, factor = [], [], []
        assert node.target is not None
        for begin in range(0, size, step):
            count = min(step, size - begin)
            images = torch.zeros(count, size, dtype=torch.float64, device="cpu")
            images[torch.arange(count), begin + torch.arange(count)] = 1
            found = node.target(images.reshape(count, 1, *space), *node.args[1:], **node.kwargs).reshape(count, -1)
            some = found.nonzero()
            place.append(some[:, 0].numpy() + begin)
            window.append(some[:, 1].numpy())
            factor.append(found[some[:, 0], some[:, 1]].numpy())
        one = from_entries(np.concatenate(window), np.concatenate(place), np.concatenate(factor), (rows, size))
        return on_channels(one, channels)

    def _sums(self, index: int, operand: int, width: int, rows: int) -> Terms | None:
        """An operator each of whose operand's numbers goes to one place: where, from its derivative."""
        shape = self.network.nodes[operand].units

        def images(moves: Tensor) -> Array:
            program = self._program([index], {*self._known, operand, self._input})
            with torch.enable_grad():
                x = torch.zeros(self._shape(operand, len(moves)), dtype=torch.float64, device="cpu", requires_grad=True)
                out = program.run({**self._known, self._input: torch.zeros(0, device="cpu"), operand: x}, len(moves))[0]
                (gradient,) = torch.autograd.grad(out, x, moves.reshape(out.shape))
            return np.asarray(gradient.reshape(len(moves), shape).numpy())

        transposed = sources(images, rows)
        return None if transposed is None else joined(transposed.place[:, 0], transposed.factor[:, 0], rows)

    def _offset(self, index: int) -> Array:
        """A value where all its operands are 0."""
        given_too = {each for each in self._before(index) if not self.carries(each)} | {self._input}
        program = self._program([index], {*self._known, *given_too})
        zeros = {each: torch.zeros(self._shape(each, 1), dtype=torch.float64, device="cpu") for each in given_too}
        value = program.run({**self._known, **zeros}, 1)[0].reshape(-1)
        if not bool(torch.isfinite(value).all()):
            where = self.network.nodes[index].where
            raise UnsupportedModelError(f"exact methods need finite numbers, and {where} makes others")
        return np.ascontiguousarray(value.resolve_neg().numpy())

    def matrix(self, index: int, operand: int) -> tuple[LinearMap, Array]:
        """The value's derivative by one operand, ``[units, units of the operand]``, and what it is where all are 0.

        By its linear part at the unit vectors: products with 1 and sums with 0, which are exact.

        Raises:
            UnsupportedModelError: It makes numbers that are not finite, or torch does not find its linear part.
        """
        nodes = self.network.nodes
        self._constants()
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
        matrix = np.ascontiguousarray(np.concatenate(columns).T)
        few = int(np.count_nonzero(matrix, axis=1).max(initial=0)) <= min(_MOST_TERMS, matrix.shape[1] // 4)
        return terms_of(matrix) if few else Dense(matrix), offset

    def check(self, index: int, operand: int) -> None:
        """See to it that :meth:`matrix` finds a map of numbers, without forming it: all columns at once, as their sum.

        Raises:
            UnsupportedModelError: It would not.
        """
        self._constants()
        self._image(index, operand, torch.ones(1, self.network.nodes[operand].units, dtype=torch.float64, device="cpu"))

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
