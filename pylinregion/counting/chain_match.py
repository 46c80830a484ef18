"""Chains of dense layers in a program: linear layers and kinks at 0 that it ends in, each read by the next alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from pylinregion.graph.kinks import scalar_kink
from pylinregion.graph.network import Node, Ref
from pylinregion.runtime.program import Program
from pylinregion.runtime.program_step import Step

OUTPUT_NUMBER = -1  # the number of the output where it is counted as a layer


@dataclass(frozen=True)
class Link:
    """One layer of a chain.

    Attributes:
        number: Of the layer that is counted; -1: the output.
        weight: ``[neurons, inputs]``, None in the first layer of a split.
        bias: ``[neurons]`` or None.
        slope: What a neuron is times its pre-activation below 0: a number, or ``[neurons]``. Above 0 it is that itself.
    """

    number: int
    weight: Tensor | None
    bias: Tensor | None
    slope: float | Tensor


class Found(NamedTuple):
    """Where a chain is in a program.

    Attributes:
        start: The node that it takes: pre-activations if it is split, else the value in front of its first layer.
        split: Whether it starts at a split.
        last: The node that it ends in, which is the program's last.
        steps: The nodes of the steps that it stands for.
        links: Its layers.
    """

    start: int
    split: bool
    last: int
    steps: frozenset[int]
    links: tuple[Link, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the layers that it counts."""
        return tuple(link.number for link in self.links)


def find_chain(program: Program) -> Found | None:
    """The chain that a bound program ends in, or None."""
    if not program.steps:
        return None
    last = program.steps[-1].node
    if program.wanted not in ((), (last,)):
        return None
    walk = _Walk(program)
    if program.wanted and not walk.take_output(last):
        return None
    while walk.take_layer():
        pass
    links = tuple(reversed(walk.links))
    numbers = [link.number for link in links if link.number != OUTPUT_NUMBER]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    return Found(walk.at, walk.split, last, frozenset(walk.taken), links)


class _Walk:
    """From the end of a program to where its chain starts.

    Attributes:
        at: The value that is behind the next layer to be taken.
        links, taken: The layers so far and the nodes of their steps, the last first.
        split: Whether the chain starts at a split, which ends it.
    """

    def __init__(self, program: Program) -> None:
        self._program, self._constants = program, program.constants
        self._steps = {step.node: step for step in program.steps}
        self._operands = {step.node: self._values_of(step) for step in program.steps}
        self._uses: dict[int, int] = {}
        for index in [index for values in self._operands.values() for index in set(values)]:
            self._uses[index] = self._uses.get(index, 0) + 1
        self.at = program.steps[-1].node
        self.links: list[Link] = []
        self.taken: list[int] = []
        self.split = False

    def take_output(self, index: int) -> bool:
        """Take the linear layer that gives the output; False if there is none."""
        if not self._is_dense(index):
            return False
        self.links.append(Link(OUTPUT_NUMBER, *self._weights(index), 0.0))
        self.taken.append(index)
        (self.at,) = self._operands[index]
        return True

    def take_layer(self) -> bool:
        """Take a kink and the linear layer that it is on, or what does nothing; False where the chain starts."""
        at = self.at
        read_by_the_next = self._uses.get(at, 0) == bool(self.taken)
        if self.split or at not in self._steps or len(self._operands[at]) != 1 or not read_by_the_next:
            return False
        (before,) = self._operands[at]
        step = self._steps[at]
        if self._node(at).op_name == "dropout":  # not while a network is in eval mode
            self.taken.append(at)
            self.at = before
            return True
        slope = self._slope_below(step)
        if step.layer < 0 or slope is None or self._uses[before] != 1:
            return False
        if before in self._program.given:
            self.links.append(Link(step.layer, None, None, slope))
            self.taken.append(at)
            self.at, self.split = before, True
            return True
        if not self._is_dense(before):
            return False
        self.links.append(Link(step.layer, *self._weights(before), slope))
        self.taken += [at, before]
        self.at = self._operands[before][0]
        return True

    def _node(self, index: int) -> Node:
        return self._program.network.nodes[index]

    def _values_of(self, step: Step) -> list[int]:
        """The values among its arguments, if the first is one and the others are no others; else all, twice."""
        found = [each.index for each in step.args if isinstance(each, Ref) and each.index not in self._constants]
        return found if found and step.args[0] == Ref(found[0]) else found * 2

    def _is_dense(self, index: int) -> bool:
        node = self._node(index)
        flat = node.shape is not None and len(node.shape) == 2 and node.batch_dim == 0 and node.batch_factor == 1
        return index in self._steps and self._steps[index].dense and flat

    def _weights(self, index: int) -> tuple[Tensor, Tensor | None]:
        weight, bias = (*self._steps[index].args[1:3], None)[:2]
        return self._constants[weight.index], None if bias is None else self._constants[bias.index]

    def _slope_below(self, step: Step) -> float | Tensor | None:
        """What a kink at 0 multiplies by below 0, if it is the identity above; else None."""
        node = self._node(step.node)
        form = node.op.kink if node.op is not None else None
        if form == "relu":
            return 0.0
        if form == "abs":
            return -1.0
        if form == "leaky_relu":
            kink = scalar_kink(node)
            assert kink is not None
            return kink.slope
        if form == "prelu" and node.shape is not None and len(node.shape) == 2:
            slope: Any = self._constants[step.args[1].index]
            assert isinstance(slope, Tensor)
            return slope
        return None
