"""A network as a list of steps that run fast: arguments resolved, values dropped after their last use."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pylinregion.graph.kinks import Counter, evaluator
from pylinregion.graph.network import Network, Node, Ref, refs
from pylinregion.graph.operators import ALWAYS_NEW, BIASED, Kind
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.runtime.chain import Chain, Found
from pylinregion.runtime.linear_part import linear_part

CounterOf = Callable[[int], Counter]  # layer number -> where its kink reports to


@dataclass(frozen=True)
class Split:
    """A value that is affine in the input, at the vertices ``x ± r v_p`` of a shared frame, not formed yet.

    Attributes:
        centre: ``[b, ...]``, the value at the points.
        directions: ``[P, ...]``, its linear part at the frame's directions, in the same memory layout.
        radius: ``[b]`` float64.
        norm: ``[b]`` float64, the 2-norm of the points; for chains alone.
    """

    centre: Tensor
    directions: Tensor
    radius: Tensor
    norm: Tensor | None = None

    def materialise(self) -> Tensor:
        """The value at the vertices, ``[b * 2P, ...]`` in the layout of ``centre``: all plus, then all minus."""
        points, n_directions = len(self.centre), len(self.directions)
        out = empty_rows(self.centre, points * 2 * n_directions)
        vertices = out.view(points, 2, n_directions, *out.shape[1:])
        scale = self.radius.to(self.centre.dtype).view(-1, *[1] * self.directions.dim())
        offset = vertices[:, 0]
        torch.mul(self.directions, scale, out=offset)
        torch.sub(self.centre.unsqueeze(1), offset, out=vertices[:, 1])
        offset += self.centre.unsqueeze(1)
        return out


def empty_rows(like: Tensor, rows: int) -> Tensor:
    """An uninitialised tensor of ``rows`` entries shaped and laid out in memory like those of ``like``."""
    shape = (rows, *like.shape[1:])
    if not like.is_contiguous():
        for layout in (torch.channels_last, torch.channels_last_3d):
            if like.dim() == (4 if layout is torch.channels_last else 5) and like.is_contiguous(memory_format=layout):
                return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
    return torch.empty(shape, dtype=like.dtype, device=like.device)


class Workspace:
    """Memory that one thread's batches reuse: fresh pages cost more than what is computed into them."""

    def __init__(self) -> None:
        self._buffers: dict[Any, Tensor] = {}

    def take(self, slot: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised contiguous memory; what a slot gave before is overwritten."""
        count = math.prod(shape)
        buffer = self._buffers.get(slot)
        if buffer is None or len(buffer) < count * dtype.itemsize:
            buffer = self._buffers[slot] = torch.empty(count * dtype.itemsize, dtype=torch.uint8, device=device)
        return buffer[: count * dtype.itemsize].view(dtype).view(shape)

    def take_rows(self, slot: Any, rows: int, like: Tensor) -> Tensor:
        """The same, laid out like the rows of ``like``."""
        width = math.prod(like.shape[1:])
        flat = self.take(slot, (rows * width,), like.dtype, like.device)
        return flat.as_strided((rows, *like.shape[1:]), (width, *like.stride()[1:]))


@dataclass
class _Step:
    node: int
    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: int = -1  # the number of the layer if it is one that is counted
    free: tuple[int, ...] = ()
    form: tuple[int, ...] = ()  # values that it needs at the vertices: a Split among them is formed
    dense: bool = False  # a linear layer with constant weights
    packed: PackedLinear | None = None
    chain: Chain | None = None


class Program:
    """Some values of a network as a function of others.

    Args:
        network: The network.
        wanted: Nodes to return.
        given: Nodes whose values the caller has. A given node that is pristine may come as a :class:`Split`.
        counted: Layers that report to a counter; the others are evaluated silently.
        retype: Dtypes to replace among the operators' arguments.
    """

    def __init__(
        self,
        network: Network,
        wanted: Iterable[int],
        given: Iterable[int],
        counted: Iterable[int] = (),
        retype: dict[torch.dtype, torch.dtype] | None = None,
    ) -> None:
        retype = retype or {}
        self.network = network
        self.wanted = tuple(wanted)
        self.given = frozenset(given)
        layers = {network.layers[number].node: number for number in counted}
        order = self._order([*self.wanted, *layers])
        users = self._users(order)
        last = {index: steps[-1] for index, steps in users.items()}
        kept = set(self.wanted)
        free: dict[int, list[int]] = {}
        for index, step in last.items():
            if index not in kept:
                free.setdefault(step, []).append(index)
        self.takes_split = frozenset(
            index for index in self.given if self._one_scalar_kink(index, users.get(index, []), layers, retype)
        )
        self.in_place = frozenset(
            number for index, number in layers.items() if self._may_overwrite(index, users) and index not in kept
        )
        self.unused = frozenset(
            number for index, number in layers.items() if not users.get(index) and index not in kept
        )
        self.folded = self._foldable(users)
        self.steps = []
        for index in order:
            node = network.nodes[index]
            number = layers.get(index, -1)
            if node.role == "size":
                self.steps.append(_Step(index, *_size_step(node), free=tuple(free.get(index, ()))))
                continue
            assert node.target is not None
            run: Callable[..., Any] = node.target if number < 0 else evaluator(node)
            args, kwargs = _retyped((node.args, node.kwargs), retype)
            if node.dtype in retype and _makes_tensors_of_a_default_dtype(node):
                kwargs = {**kwargs, "dtype": retype[node.dtype]}
            own = {index for index in self.takes_split if number >= 0}
            form = {ref.index for ref in refs((args, kwargs))} & self.given - own
            self.steps.append(_Step(index, run, args, kwargs, number, tuple(free.get(index, ())), tuple(form)))
        self.slots = self._slots(users, layers)
        self.constants: dict[int, Any] = {}

    def bind(self, constants: dict[int, Any], pack: bool = False) -> Program:
        """The program for the weights of one count: batch norms folded into the layers before, linear layers packed.

        Args:
            constants: The values of the given constants.
            pack: Whether the packed kernel takes this dtype and device.

        Returns:
            A program whose constants need not be given any more.
        """
        bound = copy.copy(self)
        bound.constants, bound.slots = dict(constants), dict(self.slots)
        steps = {step.node: copy.copy(step) for step in self.steps}
        for norm_index, index in self.folded.items():
            step, norm = steps[index], steps.pop(norm_index)
            weight, bias = (*step.args[1:], None)[:2]
            scale, shift = _scale_and_shift(norm.args, constants)
            keys = -2 * norm_index - 1, -2 * norm_index - 2  # that no node has
            bound.constants[keys[0]], bound.constants[keys[1]] = _fold(
                _resolve(weight, constants), _resolve(bias, constants), scale, shift
            )
            step.args = (step.args[0], Ref(keys[0]), Ref(keys[1]), *step.args[3:])
            step.node, step.free = norm.node, tuple({*step.free, *norm.free} - {index})
            if index in bound.slots:
                bound.slots[norm_index] = bound.slots.pop(index)
        bound.steps = list(steps.values())
        for step in bound.steps:
            step.dense = step.node in bound.slots and step.layer < 0
            if pack and step.dense:
                weight, bias = (*step.args[1:], None)[:2]
                step.packed = PackedLinear(_resolve(weight, bound.constants), _resolve(bias, bound.constants))
        return bound

    def chained(self, chain: Chain, found: Found) -> Program:
        """The program with a chain in place of the steps that it stands for."""
        replaced = copy.copy(self)
        steps = [step for step in self.steps if step.node not in found.steps]
        form = () if found.split else tuple({found.start} & self.given)
        replaced.steps = [
            *steps,
            _Step(self.steps[-1].node, _rows_times, (Ref(found.start),), {}, form=form, chain=chain),
        ]
        replaced.wanted = ()
        return replaced

    def only_linear_layer(self) -> tuple[Tensor, Tensor | None] | None:
        """The weight and bias of the linear layer that a bound program is, but for changes of shape; else None."""
        if not self.steps:
            return None
        *before, last = self.steps
        shapes = all(step.layer < 0 and self._only_shapes(self.network.nodes[step.node]) for step in before)
        if not last.dense or not shapes or self.wanted != (last.node,):
            return None
        weight, bias = (*last.args[1:3], None)[:2]
        return _resolve(weight, self.constants), _resolve(bias, self.constants)

    @staticmethod
    def _only_shapes(node: Node) -> bool:
        return node.op_name == "dropout" or (node.op is not None and node.op.alias)

    def run(
        self,
        given: dict[int, Any],
        rows: int,
        counter_of: CounterOf | None = None,
        workspace: Workspace | None = None,
        threads: int = 1,
    ) -> list[Any]:
        """Compute the wanted values.

        Args:
            given: The values of the given nodes that :meth:`bind` was not given. A :class:`Split` is formed before its
                first use by a step that needs the vertices themselves.
            rows: The size of the batch that runs through the program.
            counter_of: Where the layers report to.
            workspace: Memory for packed layers; None allocates.
            threads: Of the packed layers.

        Returns:
            The wanted values in order.
        """
        values = {**self.constants, **given}
        for step in self.steps:
            for index in step.form:
                if type(value := values[index]) is Split:
                    values[index] = value.materialise()
            args, kwargs = _resolve(step.args, values), _resolve(step.kwargs, values)
            if step.chain is not None:
                assert counter_of is not None
                counter: Any = counter_of(step.chain.numbers[0])
                counter.chain(step.chain, args[0])
            elif step.layer >= 0:
                assert counter_of is not None
                values[step.node] = step.run(counter_of(step.layer), args, kwargs)
            elif step.packed is not None:
                out = None
                if workspace is not None:
                    shape = (args[0].numel() // step.packed.in_features, step.packed.out_features)
                    out = workspace.take(self.slots[step.node], shape, args[0].dtype, args[0].device)
                values[step.node] = step.packed(args[0], out, threads)
            elif step.run is _rows_times:
                values[step.node] = rows * args[0]
            else:
                values[step.node] = step.run(*args, **kwargs)
            for index in step.free:
                values.pop(index, None)
        results = [values[index] for index in self.wanted]
        return [value.materialise() if isinstance(value, Split) else value for value in results]

    def linear_part(self, given: dict[int, Any], directions: dict[int, Tensor], rows: int) -> list[Any]:
        """The linear part of the wanted values, which are affine in some given ones, at directions of these.

        Args:
            given: The values of the other given nodes.
            directions: Of those that the values are affine in.
            rows: The size of the batch.

        Returns:
            What they make of the directions; None where a value does not depend on them.
        """
        values, images = {**self.constants, **given}, dict(directions)
        for step in self.steps:
            args = step.args
            moved = {ref.index: images[ref.index] for ref in refs((args, step.kwargs)) if ref.index in images}
            if step.run is _rows_times:
                values[step.node] = rows * args[0]
            elif not moved or self.network.nodes[step.node].role == "rows":  # which takes no more than their shapes
                shapes = {**values, **moved}
                values[step.node] = step.run(*_resolve(args, shapes), **_resolve(step.kwargs, shapes))
            else:
                biased = self.network.nodes[step.node].op_name in BIASED
                if biased and len(args) > 2 and isinstance(args[2], Ref) and args[2].index not in moved:
                    args = (*args[:2], None, *args[3:])

                def at(some: dict[int, Any], step: _Step = step, args: Any = args) -> Any:
                    every = {**values, **some}
                    return step.run(*_resolve(args, every), **_resolve(step.kwargs, every))

                images[step.node] = linear_part(at, moved)
            for index in step.free:
                values.pop(index, None), images.pop(index, None)
        return [images.get(index) for index in self.wanted]

    def bytes_per_row(self, dtype: torch.dtype) -> tuple[int, int]:
        """Memory of the values alive at one time, at most, and of the largest one, for one row of the batch."""
        sizes = {}
        for index in (*self.given, *(step.node for step in self.steps)):
            node = self.network.nodes[index]
            if node.shape is not None and node.role in ("value", "input"):
                width = dtype.itemsize if node.dtype is not None and node.dtype.is_floating_point else 8
                sizes[index] = node.units * width
        alive = {index: size for index, size in sizes.items() if index in self.given}
        peak = total = sum(alive.values())
        for step in self.steps:
            total += sizes.get(step.node, 0)
            peak = max(peak, total)
            total -= sum(sizes.get(index, 0) for index in step.free)
        return peak, max(sizes.values(), default=0)

    def _order(self, roots: Iterable[int]) -> list[int]:
        """What the roots need and is not given, in the network's order."""
        needed: set[int] = set()
        stack = [index for index in roots if index not in self.given]
        while stack:
            index = stack.pop()
            if index in needed:
                continue
            node = self.network.nodes[index]
            if node.role in ("input", "state"):
                raise AssertionError(f"node {node.name} must be given")
            needed.add(index)
            if node.role != "size" or node.op_name != "sym_size":
                stack.extend(ref.index for ref in refs((node.args, node.kwargs)) if ref.index not in self.given)
        return sorted(needed)

    def _users(self, order: list[int]) -> dict[int, list[int]]:
        users: dict[int, list[int]] = {}
        for index in order:
            node = self.network.nodes[index]
            if node.op_name == "sym_size":
                continue
            for ref in set(refs((node.args, node.kwargs))):
                users.setdefault(ref.index, []).append(index)
        return users

    def _one_scalar_kink(
        self, index: int, users: list[int], layers: dict[int, int], retype: dict[torch.dtype, torch.dtype]
    ) -> bool:
        """Whether a given value is only the operand of one counted kink that the split kernel takes."""
        if len(users) != 1 or users[0] not in layers or index in self.wanted:
            return False
        node, source = self.network.nodes[users[0]], self.network.nodes[index]
        assert node.op is not None
        if source.dtype is None or retype.get(source.dtype, source.dtype) not in (torch.float32, torch.float64):
            return False
        fused = node.op.kind is Kind.KINK and node.op.kink in ("relu", "leaky_relu", "relu6", "hardtanh", "clamp")
        scalars = not any(isinstance(argument, Ref) for argument in (*node.args[1:], *node.kwargs.values()))
        return fused and scalars and source.pristine

    def _slots(self, users: dict[int, list[int]], layers: dict[int, int]) -> dict[int, int]:
        """Memory slots for values that we write ourselves: linear layers and the first activations of a split.

        Two values share a slot if the first, and every value that is a view of it or overwrites it in place, has had
        its last use before the second is written.
        """
        nodes = self.network.nodes

        def end_of(index: int) -> float:
            if index in self.wanted:
                return math.inf
            last = float(index)
            for user in users.get(index, ()):
                node = nodes[user]
                # An affine operator that is not known to write new memory may give a view of its operand.
                views = node.op is None or (node.op.kind is Kind.AFFINE and node.op_name not in ALWAYS_NEW)
                same = views or layers.get(user) in self.in_place or user in self.folded
                last = max(last, end_of(user) if same else user)
            return last

        slots: dict[int, int] = {}
        ends: list[float] = []
        for step in self.steps:
            node = nodes[step.node]
            split = step.layer >= 0 and isinstance(node.args[0], Ref) and node.args[0].index in self.takes_split
            if not split and not (step.layer < 0 and self._is_plain_linear(node)):
                continue
            free = next((slot for slot, end in enumerate(ends) if end < step.node), None)
            slot = len(ends) if free is None else free
            ends[slot : slot + 1] = [end_of(step.node)]
            slots[step.node] = slot
        return slots

    def _is_plain_linear(self, node: Node) -> bool:
        return node.op_name == "linear" and node.role == "value" and self._given_constants(node, 3)

    def _given_constants(self, node: Node, count: int) -> bool:
        """Whether the second of a node's first ``count`` arguments and on are given constants."""
        tensors = [argument for argument in node.args[1:count] if argument is not None]
        return not node.kwargs and all(
            isinstance(argument, Ref)
            and argument.index in self.given
            and self.network.nodes[argument.index].role in ("state", "constant")
            for argument in tensors
        )

    def _foldable(self, users: dict[int, list[int]]) -> dict[int, int]:
        """Batch norms whose operand is a convolution or linear layer that nobody else reads: norm to layer."""
        nodes = self.network.nodes
        folded = {}
        for index in users:
            node = nodes[index]
            if node.op_name not in ("linear", "conv1d", "conv2d", "conv3d") or node.role != "value":
                continue
            if index in self.given or index in self.wanted or len(users[index]) != 1:
                continue
            norm = nodes[users[index][0]]
            channels = node.shape is not None and (node.op_name != "linear" or len(node.shape) == 2)
            plain = norm.op_name == "batch_norm" and norm.args[0] == Ref(index) and self._given_constants(norm, 5)
            if plain and channels and self._given_constants(node, 3):
                folded[users[index][0]] = index
        return folded

    def _may_overwrite(self, index: int, users: dict[int, list[int]]) -> bool:
        """Whether the operand of a kink is memory of its own that nobody reads afterwards."""
        operand = self.network.nodes[index].args[0]
        while isinstance(operand, Ref) and len(users.get(operand.index, ())) == 1 and operand.index not in self.wanted:
            node = self.network.nodes[operand.index]
            if operand.index in self.given or node.role != "value":
                return False
            if node.op_name in ALWAYS_NEW:
                return True
            if node.op is None or not node.op.alias:
                return False
            operand = node.args[0]
        return False


def _scale_and_shift(arguments: tuple[Any, ...], constants: dict[int, Any]) -> tuple[Tensor, Tensor]:
    """What an ``aten.batch_norm`` in eval mode does to a channel, in float64."""
    weight, bias, mean, variance = (_resolve(argument, constants) for argument in arguments[1:5])
    scale: Tensor = torch.rsqrt(variance.double() + arguments[7])
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def _fold(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias with a scale and shift of its outputs folded in."""
    folded = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    offset = shift if bias is None else shift + bias.double() * scale
    return folded.to(weight.dtype), offset.to(weight.dtype)


def _rows_times() -> None:
    """Marks a size that is a multiple of the batch size; :meth:`Program.run` computes it."""


def _size_step(node: Node) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    if node.op_name == "sym_size":
        return _rows_times, (node.batch_factor,), {}
    assert node.target is not None
    return node.target, node.args, node.kwargs


def _resolve(arguments: Any, values: dict[int, Any]) -> Any:
    kind = type(arguments)
    if kind is Ref:
        return values[arguments.index]
    if kind is tuple:
        return tuple([_resolve(argument, values) for argument in arguments])
    if kind is dict:
        return {key: _resolve(argument, values) for key, argument in arguments.items()}
    return arguments


def _retyped(arguments: Any, retype: dict[torch.dtype, torch.dtype]) -> Any:
    if isinstance(arguments, torch.dtype):
        return retype.get(arguments, arguments)
    if isinstance(arguments, tuple):
        return tuple(_retyped(argument, retype) for argument in arguments)
    if isinstance(arguments, dict):
        return {key: _retyped(argument, retype) for key, argument in arguments.items()}
    return arguments


def _makes_tensors_of_a_default_dtype(node: Node) -> bool:
    """``torch.full((2,), 0.5)`` and the like."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.kwargs.get("dtype") is not None:
        return False
    kinds = {argument.name: str(argument.type) for argument in schema.arguments}
    return "dtype" in kinds and not any("Tensor" in kind for kind in kinds.values())
