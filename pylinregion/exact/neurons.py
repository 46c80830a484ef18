"""The stages of a network in the order of its layers, cut after one of them; and the numbers of its neurons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util import checks
from pylinregion.lowering.linear_maps import identity_map
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import identity, sums


class Neuron(NamedTuple):
    """A neuron by name.

    Attributes:
        layer: The layer's name, as :func:`pylinregion.explain` has it.
        unit: Its place in the layer: for a convolution that of its channel and position, flattened.
    """

    layer: str
    unit: int


def up_to(stages: Stages, count: int) -> Stages:
    """The first ``count`` layers of a network: what they compute, then nothing.

    Stages are put in the order of the layers, so that the lines of a layer come after those of the layers before it.
    The layers come in the order of computation, so those before a layer are all that it depends on.

    Args:
        stages: The network.
        count: How many layers, at least 1 unless there are none; all: the whole network, with its output.
    """
    if count not in stages.cuts:
        stages.cuts[count] = _cut(stages, count)
    return stages.cuts[count]


def _cut(stages: Stages, count: int) -> Stages:
    rank = [-1] * len(stages.stages)
    for number, stage in enumerate(stages.stages):
        rank[number] = max([stage.layer, stage.after, *(rank[source] for source in stage.blocks if source != INPUT)])
    rank[-1] = max(rank)  # the output, whether or not it depends on all layers
    order = sorted(range(len(rank)), key=lambda number: (rank[number], number))
    whole = count == len(stages.layers)
    kept = [number for number in order if whole or rank[number] < count]
    place = {INPUT: INPUT} | {number: position for position, number in enumerate(kept)}
    moved = [
        replace(
            stages.stages[number],
            blocks={place[source]: block for source, block in stages.stages[number].blocks.items()},
        )
        for number in kept
    ]
    if not whole:
        last = next(position for position, stage in enumerate(moved) if stage.layer == count - 1)
        units = moved[last].units
        output = identity_map(moved[last].rows) if units.groups is None else sums(units)
        moved = [*moved[: last + 1], Stage({last: output}, np.zeros(output.rows), identity(output.rows))]
    return Stages(moved, stages.layers[:count])


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons of a network, layer after layer, and which lines are theirs.

    Attributes:
        layers: The names of the layers.
        stages: The stage of each.
        first: ``[layers + 1]``: the number of each layer's first neuron.
        of_line: ``[lines]``: the neuron of each line; -1: it is on lines of neurons before it, and of none.
        step_of_line: ``[lines]``: what each line that is on adds to the number of its neuron's piece.
        of_pair: ``[pairs]``: the neuron of each pair of candidates of a maximum; the engine numbers these after the
            lines.
    """

    layers: tuple[str, ...]
    stages: tuple[int, ...]
    first: NDArray[np.int64]
    of_line: NDArray[np.int32]
    step_of_line: NDArray[np.int64]
    of_pair: NDArray[np.int32]

    @classmethod
    def of(cls, stages: Stages) -> Neurons:
        """Number the neurons of stages in the order of their layers."""
        at = {stage.layer: number for number, stage in enumerate(stages.stages) if stage.layer >= 0}
        numbers = tuple(at[layer] for layer in range(len(stages.layers)))
        units = [stages.stages[number].units for number in numbers]
        first = np.cumsum([0, *(each.neurons for each in units)])
        nothing = np.zeros(0, np.int64)
        starts = list(zip(units, first, strict=False))
        of_line = np.concatenate(
            [
                nothing,
                *(
                    first[stage.layer] + stage.units.neuron_of_line
                    if stage.layer >= 0
                    else np.full(stage.units.lines, -1)
                    for stage in stages.stages
                ),
            ]
        ).astype(np.int32)
        steps = np.concatenate([nothing, *(stage.units.step_of_line for stage in stages.stages)])
        pairs = [
            np.repeat(start + np.arange(each.neurons), size * (size - 1) // 2)
            for each, start in starts
            if each.groups is not None
            for size in [np.diff(each.groups)]
        ]
        return cls(stages.layers, numbers, first, of_line, steps, np.concatenate([nothing, *pairs]).astype(np.int32))

    @property
    def rows(self) -> int:
        """How many numbers the engine has for lines and pairs of candidates."""
        return len(self.of_line) + len(self.of_pair)

    def of_row(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """The neurons of the engine's rows: lines, pairs of candidates, and negative numbers, which are none: -1."""
        known = np.concatenate([self.of_line, self.of_pair, np.array([-1], np.int32)])
        return np.asarray(known[np.maximum(rows, -1)], dtype=np.int32)

    def named(self, neuron: int) -> Neuron:
        """The neuron of a number."""
        neuron = checks.integer("neuron", neuron)
        if not 0 <= neuron < self.first[-1]:
            raise ValueError(f"neuron must be from 0 to {self.first[-1] - 1}, got {neuron}")
        layer = int(np.searchsorted(self.first, neuron, side="right")) - 1
        return Neuron(self.layers[layer], int(neuron - self.first[layer]))

    @cached_property
    def layer(self) -> NDArray[np.int16]:
        """``[neurons]``: the layer of each."""
        return np.repeat(np.arange(len(self.layers), dtype=np.int16), np.diff(self.first))
