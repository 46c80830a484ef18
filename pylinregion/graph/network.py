"""A captured network: its operators in order, what each is to the input, and its kinks.

A :class:`Network` holds no copy of the weights: it reads the tensors of the live model, so it follows optimiser steps.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.isolation import alone
from pylinregion.caller.twin import copied
from pylinregion.graph.operators import SHAPE_OF_SECOND, Degree, Kind, Op, combined_degree

_ATTEMPTS = 5  # to read all weights between two steps of an optimiser
OUTPUT = "output"  # what the outputs are called where they are one more layer; no layer has this name


@dataclass(frozen=True)
class Ref:
    """A value of the network as an argument: that of node ``index``."""

    index: int


@dataclass
class Node:
    """One value of the network.

    Attributes:
        name: A short unique name, as the capture gave it.
        target: The callable that computes it; None for the input and for tensors of the model.
        args, kwargs: Its arguments; values of other nodes as :class:`Ref`, also inside lists and tuples.
        role: ``"input"``, ``"state"`` (a tensor of the model), ``"size"`` (an integer made from the batch size),
            ``"constant"`` (depends on neither), ``"rows"`` (depends on the batch size only), ``"value"``.
        op: Its row of the table; None for nodes that are not of role ``"value"``, and for ``getitem``.
        op_name: Its operator without namespace, e.g. ``"relu"``.
        degree: What it is to the input.
        pristine: It depends on the input through affine operators alone.
        shape: Its shape, -1 at ``batch_dim``; None for tuples and integers.
        batch_dim, batch_factor: Where the batch is, and how many entries a row of it takes there.
        dtype: Its dtype, None where it has no shape.
        path: The module path, "" for the model itself.
        line: ``file:line: code`` of the model's source, "" if not known.
        state: For role ``"state"``, its name in :attr:`Network.state`.
    """

    name: str
    target: Callable[..., Any] | None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    role: str = "value"
    op: Op | None = None
    op_name: str = ""
    degree: Degree = Degree.CONSTANT
    pristine: bool = False
    shape: tuple[int, ...] | None = None
    batch_dim: int = 0
    batch_factor: int = 1
    dtype: torch.dtype | None = None
    path: str = ""
    line: str = ""
    state: str = ""

    @property
    def where(self) -> str:
        """Operator, module path and source line, for messages."""
        return self.op_name + place(self.path, self.line)

    @property
    def operands(self) -> list[int]:
        """The nodes that its arguments refer to, in order."""
        return [ref.index for ref in refs((self.args, self.kwargs))]

    @property
    def units(self) -> int:
        """How many numbers it has per row of the batch."""
        assert self.shape is not None
        count = self.batch_factor
        for axis, size in enumerate(self.shape):
            count *= 1 if axis == self.batch_dim else size
        return count


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors, which stay tied."""
    tensors = {id(tensor): tensor for tensor in state.values()}
    for _ in range(_ATTEMPTS):
        before = [_version(tensor) for tensor in tensors.values()]
        with torch.no_grad():
            copies = {key: copied(tensor) for key, tensor in tensors.items()}
        if before == [_version(tensor) for tensor in tensors.values()]:
            break
    return {name: copies[id(tensor)] for name, tensor in state.items()}


def _version(tensor: Tensor) -> int:
    """How often operators have written to a tensor."""
    return 0 if tensor.is_inference() else tensor._version


def place(path: str, line: str) -> str:
    """Module path and source line as a piece of a sentence."""
    return (f" in module '{path}'" if path else "") + (f" at {line}" if line else "")


def refs(arguments: Any) -> Iterator[Ref]:
    """Every :class:`Ref` in nested arguments."""
    if isinstance(arguments, Ref):
        yield arguments
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from refs(argument)
    elif isinstance(arguments, dict):
        yield from refs(list(arguments.values()))
    elif isinstance(arguments, slice):
        yield from refs((arguments.start, arguments.stop, arguments.step))


def first_tensor(nodes: list[Node], index: int) -> Node:
    """The node itself, or the first item of the tuple that it is."""
    if nodes[index].shape is not None:
        return nodes[index]
    items = (node for node in nodes if node.target is operator.getitem and node.args[0] == Ref(index))
    return min(items, key=lambda node: node.args[1])  # a max-pool's values, or its indices if only they are used


@dataclass(frozen=True)
class Layer:
    """A kink or smooth activation that depends on the input.

    Attributes:
        name: The module path, with ``#1``, ``#2`` ... where a path has several, or is ``output``; at the top level the
            operator's name.
        node: Index into :attr:`Network.nodes`.
        kind: ``Kind.KINK`` or ``Kind.SMOOTH``.
        op_name: The operator, e.g. ``"relu"``.
        units: Neurons: one a channel and position, one a window for max-pools.
        breakpoints: Where it bends, in words, e.g. ``"0"``, ``"0, 6"``, ``"winner"``.
        line: ``file:line: code``.
    """

    name: str
    node: int
    kind: Kind
    op_name: str
    units: int
    breakpoints: str
    line: str


@dataclass(frozen=True)
class Guard:
    """A value that does not depend on the input, by which the model's control flow chose its way.

    Attributes:
        node: Index into :attr:`Network.nodes`.
        seen: What it was.
        place: Where in the model, for messages.
    """

    node: int
    seen: Tensor
    place: str


@dataclass(eq=False)
class Network:
    """What :func:`pylinregion.capture` makes of a model.

    Attributes:
        nodes: Its values in the order of computation.
        layers: Its kinks and smooth activations in the same order.
        outputs: The nodes of the output tensors that depend on the input; integers only if there is nothing else.
        places: Which of all the tensors that the model returns these are.
        state: The model's parameters, buffers and constants by name; storage shared with the live model.
        input_shape: The shape of one point.
        dtype, device: Of the points it was captured with.
        parameters: The names in ``state`` that are parameters.
        method: How it was captured.
        guards: What must be as it was for the network to be that of the model.
        finite: The nodes that the model checks for NaN or infinity, with where it does; it was captured on its way with
            neither.
        module: The live model, while it lives.
        plans: What evaluating it needs and its weights do not change; kept by :mod:`pylinregion.runtime.evaluator`.
        lowered: What was made of the weights last, and these; kept by :mod:`pylinregion.lowering.kept_stages`.
    """

    nodes: list[Node]
    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]
    places: tuple[int, ...]
    state: dict[str, Tensor]
    parameters: frozenset[str]
    input_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    method: str
    guards: tuple[Guard, ...] = ()
    finite: dict[int, str] = field(default_factory=dict)
    module: weakref.ref[nn.Module] | None = None
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)
    lowered: list[Any] = field(default_factory=list, repr=False)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of :attr:`layers`."""
        return tuple(layer.name for layer in self.layers)

    def bends_uncounted(self, index: int) -> bool:
        """Whether a node is not affine on any region, and is neither a kink nor a smooth activation that is counted."""
        node = self.nodes[index]
        if node.role != "value" or node.op is None or node.degree is not Degree.NONLINEAR:
            return False
        if node.op.kind is not Kind.AFFINE or node.op_name in SHAPE_OF_SECOND:
            return node.op.kind is Kind.OTHER
        first, *others = [min(self.nodes[operand].degree, Degree.AFFINE) for operand in node.operands]
        return combined_degree(node.op, first, others) is Degree.NONLINEAR  # a product of two values, say

    @functools.cached_property
    def uncounted(self) -> tuple[str, ...]:
        """The non-linear operators that are not counted, each with its module."""
        nodes = [node for index, node in enumerate(self.nodes) if self.bends_uncounted(index)]
        return tuple(dict.fromkeys(node.op_name + place(node.path, "") for node in nodes))

    def __copy__(self) -> Network:
        return self  # it looks at a model, and so would a copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Network looks at the tensors of a live model: pickle the model, and capture it again")

    def shaped(self, index: int) -> Node:
        """The node that has the shape of a layer's output: its own, or the first item of its tuple."""
        return first_tensor(self.nodes, index)

    def rebind(self) -> None:
        """Follow parameters and buffers that were assigned anew in the live model.

        Raises:
            UnsupportedModelError: A tensor of the model is gone, or has another shape or dtype than when captured.
        """
        module = self.module() if self.module is not None else None
        if module is None:
            return
        live: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
        live.update(module.named_buffers(remove_duplicate=False))
        for node in self.nodes:
            if (tensor := live.get(node.state)) is None:
                continue
            was = (list(node.shape or ()), node.dtype, self.state[node.state].device)
            now = (list(tensor.shape), tensor.dtype, tensor.device)
            if was != now:
                raise UnsupportedModelError(
                    f"the model's {node.state} was {was[0]} {was[1]} on {was[2]} when it was captured and is now "
                    f"{now[0]} {now[1]} on {now[2]}: capture the model again"
                )
            self.state[node.state] = tensor

    def check_takes(self, name: str, x: Tensor, rows: str, *, any_dtype: bool = False, hint: str = "") -> None:
        """Points of the network's shape, device and dtype.

        Args:
            name: Of the argument, in messages.
            x: ``[rows, ...]``.
            rows: What messages call the number of points.
            any_dtype: Their dtype may be another, for they will be converted.
            hint: What to do about a wrong dtype, behind the message.

        Raises:
            ValueError: They are of another shape or on another device.
            TypeError: They are of another dtype.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            shape = ", ".join(map(str, self.input_shape))
            raise ValueError(f"{name} must be [{rows}, {shape}], as the network was captured, got {list(x.shape)}")
        if x.device != self.device:
            raise ValueError(f"{name} must be on {self.device}, as the network was captured, got {x.device}")
        if not any_dtype and x.dtype != self.dtype:
            raise TypeError(f"{name} must be {self.dtype}, as the network was captured, got {x.dtype}{hint}")

    def check_parameters(self) -> None:
        """No NaN and no infinity in what the network computes with.

        Raises:
            UnsupportedModelError: There is one.
        """
        for name, tensor in self.state.items():
            # Infinite constants are at home in attention masks; what they do to pre-activations is seen there.
            infinite = not checks.all_finite(tensor)
            if infinite and (name in self.parameters or bool(torch.isnan(tensor).any())):
                raise UnsupportedModelError(f"the model's {name} has NaN or infinite entries")

    def at_one_time(self) -> Network:
        """The network of the weights of now, whatever another thread does to the model's meanwhile.

        Returns:
            One with copies of the tensors; of one step of an optimiser, unless each of some attempts met another. Where
            there is no other thread, the network itself.

        Raises:
            UnsupportedModelError: A tensor has NaN or infinite entries.
        """
        found = self
        if not alone():
            found = self.copied()
        found.check_parameters()
        return found

    def copied(self) -> Network:
        """The network with copies of its tensors."""
        return replace(self, state=_copies(self.state), module=None)

    def exact_refusal(self) -> str | None:
        """Why methods that need a piecewise affine network do not cover this one; None if they do."""
        for node in self.nodes:
            if node.role == "value" and node.degree is Degree.NONLINEAR and node.op is not None:
                if node.op.kind is Kind.AFFINE:
                    reason = {
                        "product": "it multiplies two values that depend on the input",
                        "add product": "it multiplies two values that depend on the input",
                        "quotient": "it divides by a value that depends on the input",
                        "place": "where it writes depends on the input",
                    }.get(node.op.combine, "more than its first argument depends on the input")
                else:
                    smooth = node.op.kind is Kind.SMOOTH
                    reason = "a smooth activation has no linear regions" if smooth else "it is not piecewise affine"
                behind = self.covered_from()
                offer = f" (the part behind is covered: plr.at(model, {behind!r}))" if behind else ""
                return f"{node.where}: {reason}{offer}"
        return None

    def covered_from(self) -> str | None:
        """The first module from whose input on the network is piecewise affine, and bends; None if there is none.

        All that the outputs need of the network's input goes through that module's input.
        """
        inside: dict[str, set[int]] = {}
        for index, node in enumerate(self.nodes):
            names = node.path.split(".") if node.path and node.role == "value" else []
            for count in range(1, len(names) + 1):
                inside.setdefault(".".join(names[:count]), set()).add(index)
        for path, own in inside.items():
            taken = {each for index in own for each in self._operands(index)} - own
            if len(taken) == 1 and self._covered_behind(taken.pop()):
                return path
        return None

    def _covered_behind(self, start: int) -> bool:
        """Whether the outputs depend on one value alone, by kinks and affine operators."""
        needed = {start}
        stack = list(self.outputs)
        while stack:
            if (index := stack.pop()) in needed:
                continue
            op = self.nodes[index].op
            smooth = op is not None and op.kind is Kind.SMOOTH
            if self.nodes[index].role == "input" or smooth or self.bends_uncounted(index):
                return False
            needed.add(index)
            stack += self._operands(index)
        return any(layer.node in needed - {start} for layer in self.layers)

    def _operands(self, index: int) -> list[int]:
        """The values that one is made of and that depend on the input."""
        return [each for each in self.nodes[index].operands if self.nodes[each].role in ("input", "value")]
