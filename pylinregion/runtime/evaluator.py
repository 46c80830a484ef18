"""A network bound to its current weights, in three programs: constants, what is affine in the input, and the rest.

The affine prefix runs on the points and on the frame, the rest on the vertices, for
``A(x ± r v) + c = (A x + c) ± r A v``: ``B + P`` rows stand for ``2 P B``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pylinregion.graph.network import Network, Node
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.runtime.linear_part import differentiable
from pylinregion.runtime.program import Program
from pylinregion.runtime.program_step import CounterOf
from pylinregion.runtime.workspace import Workspace


class _Plan:
    """The programs of a network, before its weights are bound: found once, and kept with the network."""

    def __init__(
        self, network: Network, dtype: torch.dtype, counted: tuple[int, ...], wanted: tuple[int, ...], split: bool
    ) -> None:
        retype = {network.dtype: dtype}
        nodes = network.nodes
        self.input = next(index for index, node in enumerate(nodes) if node.role == "input")
        states = [index for index, node in enumerate(nodes) if node.role == "state"]
        needed = _constants_in_use(network, [n for n, node in enumerate(nodes) if node.role in ("state", "constant")])
        frontier = _frontier(network, wanted) if split else [self.input]
        self.constants = Program(network, needed, states, retype=retype)
        self.body = Program(network, wanted, [*needed, *frontier], counted, retype)
        used = self.body.read | set(self.body.wanted)
        self.frontier = [index for index in frontier if index in used]
        self.prefix = Program(network, self.frontier, [*needed, self.input], retype=retype)


class Evaluator:
    """A network bound to its current weights, ready to run on batches.

    Args:
        network: The network.
        dtype: The dtype to compute in.
        counted: Layers to count.
        outputs: Whether the outputs are computed.
        split: Whether the vertices come from a shared frame (:meth:`prefix`) or ready-made.
        channels_last: Whether images are laid out channels_last.
        pack: Whether the body is to run fast: one that never runs need not be packed.
        also: Other nodes whose values are computed and returned, after the outputs.
    """

    def __init__(
        self,
        network: Network,
        dtype: torch.dtype,
        counted: Iterable[int],
        *,
        outputs: bool,
        split: bool,
        channels_last: bool = False,
        pack: bool = True,
        also: Iterable[int] = (),
    ) -> None:
        self.network = network
        self.dtype = dtype
        self.counted = tuple(counted)
        self.channels_last = channels_last
        wanted = (*(network.outputs if outputs else ()), *also)
        key = (dtype, self.counted, wanted, split)
        plan = network.plans.get(key)
        if plan is None:
            weightless = replace(network, state={}, module=None, plans={})  # for it is kept, and those of now are not
            plan = network.plans[key] = _Plan(weightless, dtype, self.counted, wanted, split)
        given = {index: self._state(network.nodes[index]) for index in plan.constants.given}
        values = plan.constants.run(given, 0)
        constants = dict(zip(plan.constants.wanted, values, strict=True))
        packs = PackedLinear.takes(dtype, network.device)
        self.frontier = plan.frontier
        self._input = plan.input
        self._prefix = plan.prefix.bind(constants, packs)
        self._linear = plan.prefix.bind(constants)
        self.body = plan.body.bind(constants, packs and pack)

    @property
    def linear_prefix(self) -> tuple[Tensor, Tensor | None] | None:
        """The weight and bias of the linear layer that the prefix is, but for changes of shape; else None."""
        return self._prefix.only_linear_layer()

    def prefix(self, x: Tensor) -> list[Tensor]:
        """The frontier values at points: ``[b, *input_shape]`` to a ``[b, ...]`` for each, row dense."""
        values = self._prefix.run({self._input: self._laid_out(x)}, len(x))
        return [self._laid_out(value) for value in values]

    def prefix_directions(self, frame: Tensor) -> list[Tensor]:
        """The linear part of the frontier values at directions: ``[P, *input_shape]`` to a ``[P, ...]`` for each."""
        if not self.frontier:
            return []
        v = self._laid_out(frame)
        return [self._laid_out(image) for image in self._linear.linear_part({}, {self._input: v}, len(v))]

    def run(
        self,
        values: list[Any],
        rows: int,
        counter_of: CounterOf | None,
        workspace: Workspace | None = None,
        threads: int = 1,
    ) -> list[Any]:
        """Run the rest of the network on ``rows`` vertices, given the frontier values.

        With a workspace, results are valid until the next run with it.
        """
        given = dict(zip(self.frontier, values, strict=True))
        return self.body.run(given, rows, counter_of, workspace, threads)

    def _laid_out(self, value: Tensor) -> Tensor:
        """A value in the memory layout that the network runs in."""
        if self.channels_last and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value.contiguous()

    def _state(self, node: Node) -> Tensor:
        tensor = differentiable(self.network.state[node.state])
        if tensor.dtype == self.network.dtype and tensor.dtype != self.dtype:
            tensor = tensor.to(self.dtype)
        return self._laid_out(tensor) if tensor.dim() == 4 else tensor


def _constants_in_use(network: Network, fixed: list[int]) -> list[int]:
    """Constants that an operator on data takes."""
    own = set(fixed)
    used = {
        operand
        for index, node in enumerate(network.nodes)
        if index not in own
        for operand in node.operands
        if operand in own
    }
    return sorted(used)


def _frontier(network: Network, wanted: Iterable[int]) -> list[int]:
    """Pristine values that are wanted or that an operator outside the prefix takes, and the input's own uses."""
    nodes = network.nodes
    pristine = {index for index, node in enumerate(nodes) if node.pristine}
    beyond = {
        operand
        for index, node in enumerate(nodes)
        if index not in pristine and node.role in ("value", "rows")
        for operand in node.operands
    }
    return sorted(pristine & (beyond | {*network.outputs, *wanted}))
