"""A network as a list of steps that run fast: arguments resolved, values dropped after their last use."""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pylinregion.graph.network import Network, Node, Ref
from pylinregion.graph.operators import BIASED, Kind
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.runtime.batch_norm import fusable, fused_into, has_constants
from pylinregion.runtime.linear_part import linear_part
from pylinregion.runtime.liveness import Liveness, needed
from pylinregion.runtime.program_step import (
    Context,
    CounterOf,
    Run,
    Step,
    counted_kink,
    multiple_of_rows,
    operator,
    packed_layer,
)
from pylinregion.runtime.step_arguments import resolved, retyped
from pylinregion.runtime.vertices import Split
from pylinregion.runtime.workspace import Workspace

_SPLIT_KINKS = ("relu", "leaky_relu", "relu6", "hardtanh", "clamp")  # forms that the kernel for splits activates


class Program:
    """Some values of a network as a function of others.

    Args:
        network: The network.
        wanted: Nodes to return.
        given: Nodes whose values the caller has. A given node that is pristine may come as a :class:`Split`.
        counted: Layers that report to a counter; the others are evaluated silently.
        retype: Dtypes to replace among the operators' arguments.

    Attributes:
        steps: What is done, in order.
        slots: By node: which values that we write ourselves share memory.
        in_place, unused: Layers whose kink may overwrite its operand, and those whose result nobody takes.
        constants: The values of those given nodes that the program is bound to.
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
        self.network, self.wanted, self.given = network, tuple(wanted), frozenset(given)
        layers = {network.layers[number].node: number for number in counted}
        order = needed(network, [*self.wanted, *layers], self.given)
        alive = Liveness(network, order, self.given, self.wanted)
        overwriting = frozenset(index for index in layers if alive.may_overwrite(index))
        self.in_place = frozenset(layers[index] for index in overwriting)
        self.unused = frozenset(number for index, number in layers.items() if alive.is_unused(index))
        self._fused = fusable(network, alive.users, self.given, self.wanted)
        splits = frozenset(
            index for index in self.given if self._is_split_of_a_kink(index, alive.users.get(index, []), layers, retype)
        )
        self._pristine = frozenset(index for index in self.given if network.nodes[index].pristine)
        freed = alive.freed()
        self.steps = [
            replace(self._step(index, layers.get(index, -1), retype, splits), free=freed.get(index, ()))
            for index in order
        ]
        written = [step.node for step in self.steps if self._writes(step, splits)]
        self.slots = alive.slots(written, overwriting | frozenset(self._fused))
        self.constants: dict[int, Any] = {}

    @property
    def read(self) -> set[int]:
        """The values that its steps read."""
        return {operand for step in self.steps for operand in step.operands}

    def _step(self, index: int, number: int, retype: dict[torch.dtype, torch.dtype], splits: frozenset[int]) -> Step:
        node = self.network.nodes[index]
        if node.op_name == "sym_size" and node.role == "size":
            return Step(index, multiple_of_rows(node.batch_factor))
        target = node.target
        assert target is not None
        args, kwargs = (node.args, node.kwargs) if node.role == "size" else retyped(node, retype)
        run = operator(target, args, kwargs) if number < 0 else counted_kink(node, number, args, kwargs)
        step = Step(index, run, target, args, kwargs, number)
        taken = self._pristine.intersection(step.operands)
        return replace(step, form=tuple(taken if number < 0 else taken - splits))

    def _is_split_of_a_kink(
        self, index: int, users: list[int], layers: dict[int, int], retype: dict[torch.dtype, torch.dtype]
    ) -> bool:
        """Whether a given value is only the operand of one counted kink that the kernel for splits takes."""
        if len(users) != 1 or users[0] not in layers or index in self.wanted:
            return False
        node, source = self.network.nodes[users[0]], self.network.nodes[index]
        assert node.op is not None
        if source.dtype is None or retype.get(source.dtype, source.dtype) not in (torch.float32, torch.float64):
            return False
        evaluates_splits = node.op.kind is Kind.KINK and node.op.kink in _SPLIT_KINKS
        scalars = not any(isinstance(argument, Ref) for argument in (*node.args[1:], *node.kwargs.values()))
        return evaluates_splits and scalars and source.pristine

    def _writes(self, step: Step, splits: frozenset[int]) -> bool:
        """Whether we write a value ourselves: linear layers, and the first activations of a split."""
        node = self.network.nodes[step.node]
        if step.layer >= 0:
            return isinstance(node.args[0], Ref) and node.args[0].index in splits
        linear = node.op_name == "linear" and node.role == "value"
        return linear and has_constants(self.network, node, self.given, 3)

    def bind(self, constants: dict[int, Any], pack: bool = False) -> Program:
        """The program for the weights of one count: batch norms fused into the layers before, linear layers packed.

        Args:
            constants: The values of the given constants.
            pack: Whether the packed kernel takes this dtype and device.

        Returns:
            A program whose constants need not be given any more.
        """
        bound = copy.copy(self)
        bound.constants, bound.slots = dict(constants), dict(self.slots)
        steps = {step.node: step for step in self.steps}
        for norm, layer in self._fused.items():
            steps[layer] = bound._fuse(steps[layer], steps.pop(norm))
        bound.steps = [bound._bind(step, pack) for step in steps.values()]
        return bound

    def _fuse(self, layer: Step, norm: Step) -> Step:
        """The layer with the batch norm that takes it, in the place of both."""
        assert layer.target is not None
        weight, bias = self._weights(layer)
        of_weight, of_bias = -2 * norm.node - 1, -2 * norm.node - 2  # that no node has
        self.constants[of_weight], self.constants[of_bias] = fused_into(weight, bias, norm.args, self.constants)
        if layer.node in self.slots:
            self.slots[norm.node] = self.slots.pop(layer.node)
        args = (layer.args[0], Ref(of_weight), Ref(of_bias), *layer.args[3:])
        free = tuple({*layer.free, *norm.free} - {layer.node})
        return replace(layer, node=norm.node, run=operator(layer.target, args, layer.kwargs), args=args, free=free)

    def _bind(self, step: Step, pack: bool) -> Step:
        """The step, which may be a linear layer."""
        if step.layer >= 0 or step.node not in self.slots:
            return step
        if not pack:
            return replace(step, dense=True)
        layer = PackedLinear(*self._weights(step))
        return replace(step, dense=True, run=packed_layer(layer, step.args[0], self.slots[step.node]))

    def _weights(self, layer: Step) -> tuple[Tensor, Tensor | None]:
        weight, bias = (*layer.args[1:3], None)[:2]
        return resolved(weight, self.constants), resolved(bias, self.constants)

    def ending_in(self, step: Step, stands_for: Collection[int]) -> Program:
        """The program with one step at its end for those of some nodes; it returns nothing."""
        replaced = copy.copy(self)
        replaced.steps = [*(other for other in self.steps if other.node not in stands_for), step]
        replaced.wanted = ()
        return replaced

    def only_linear_layer(self) -> tuple[Tensor, Tensor | None] | None:
        """The weight and bias of the linear layer that a bound program is, but for changes of shape; else None."""
        if not self.steps:
            return None
        *before, last = self.steps
        shapes = all(step.layer < 0 and _changes_shape_alone(self.network.nodes[step.node]) for step in before)
        if not last.dense or not shapes or self.wanted != (last.node,):
            return None
        return self._weights(last)

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
        context = Context(values, rows, counter_of, workspace, threads)
        for step in self.steps:
            for index in step.form:
                if type(value := values[index]) is Split:
                    values[index] = value.materialise()
            values[step.node] = step.run(context)
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
            moved = {operand: images[operand] for operand in step.operands if operand in images}
            if not moved or self.network.nodes[step.node].role == "rows":  # which takes no more than their shapes
                values[step.node] = step.run(Context({**values, **moved}, rows))
            else:
                at = functools.partial(_run_at, self._without_bias(step, moved), values, rows)
                images[step.node] = linear_part(at, moved)
            for index in step.free:
                values.pop(index, None), images.pop(index, None)
        return [images.get(index) for index in self.wanted]

    def _without_bias(self, step: Step, moved: Collection[int]) -> Run:
        """The step less a constant that it adds, which has no linear part."""
        args = step.args
        biased = self.network.nodes[step.node].op_name in BIASED and len(args) > 2
        if not biased or not isinstance(args[2], Ref) or args[2].index in moved:
            return step.run
        assert step.target is not None
        return operator(step.target, (*args[:2], None, *args[3:]), step.kwargs)

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


def _changes_shape_alone(node: Node) -> bool:
    return node.op_name == "dropout" or (node.op is not None and node.op.alias)


def _run_at(run: Run, values: dict[int, Any], rows: int, some: dict[int, Any]) -> Any:
    """A step at the values that there are, and some of its own."""
    return run(Context({**values, **some}, rows))
