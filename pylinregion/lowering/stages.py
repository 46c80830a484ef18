"""A network as stages: affine rows, and a piecewise linear unit on each; what the exact methods work on.

The network is the real-arithmetic function of the numbers found here. Weights, biases, kinks and slopes are those of
the model, exactly; an operator that is no product with stored weights (batch norm in eval mode, average pooling) is the
float64 factors that torch computes for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion.lowering.linear_maps import Dense, LinearMap, Terms
from pylinregion.lowering.multiples import NamesOfRows
from pylinregion.lowering.units import Units

INPUT = -1
_LARGEST = 2.0**512
MOST_LINES_AT_ONCE = 1 << 21  # of a system: the constants of rounding hold for so many (docs/exactness.md, 4.1)
SMALL_MATRIX = 1 << 22
LARGEST_MATRIX = 1 << 27  # numbers of a map that is taken as a matrix


@dataclass
class Stage:
    """``z = bias + sum of blocks[j] @ (units of stage j)``, and a unit on each row.

    Attributes:
        blocks: Maps ``[rows, width of the source]`` by source: an earlier stage, or ``INPUT``.
        bias: ``[rows]`` float64.
        units: What the rows go through.
        layer: The number of the network's layer whose kinks these are; -1: none.
        after: The layer behind which it comes. Where it has kinks, and is of no layer, its lines are on those of the
            layers up to this one, on each cell: they cut nothing.
    """

    blocks: dict[int, LinearMap]
    bias: Array
    units: Units
    layer: int = -1
    after: int = -1

    @property
    def matrices(self) -> dict[int, Array]:
        """The maps as matrices."""
        return {source: block.dense() for source, block in self.blocks.items()}

    @property
    def rows(self) -> int:
        """Its rows."""
        return len(self.bias)


@dataclass
class Stages:
    """A network's stages in the order of computation; the last one is the output, without kinks.

    Attributes:
        stages, layers: These, and the names of its layers.
        cuts: What :func:`pylinregion.exact.neurons.up_to` made of them, by the number of layers.
    """

    stages: list[Stage]
    layers: tuple[str, ...] = field(default_factory=tuple)
    cuts: dict[int, Stages] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def inputs(self) -> int:
        """Input dimensions."""
        return next(stage.blocks[INPUT].width for stage in self.stages if INPUT in stage.blocks)

    @property
    def first_lines(self) -> list[int]:
        """The number of each stage's first line."""
        return [0, *np.cumsum([stage.units.lines for stage in self.stages]).tolist()][:-1]

    @cached_property
    def line_begins(self) -> list[NDArray[np.int64]]:
        """``[rows + 1]`` of each stage: the numbers of its units' first lines, counted through the network."""
        return [stage.units.line_begin + first for stage, first in zip(self.stages, self.first_lines, strict=True)]

    def arrays(self) -> list[tuple[Any, ...]]:
        """What the core reads of each stage (``StageArrays`` in ``csrc/partition/``), row-major."""
        return [
            (
                [(source, block.for_core()) for source, block in stage.blocks.items()],
                np.ascontiguousarray(stage.bias),
                begin,
                stage.units.kinks,
                stage.units.slopes,
                stage.units.intercepts,
                float(stage.units.denominator),
            )
            for stage, begin in zip(self.stages, self.line_begins, strict=True)
        ]

    @property
    def are_one_system(self) -> bool:
        """Whether all lines are taken as one system: few enough, and nothing but small matrices between the units."""
        return self.lines <= MOST_LINES_AT_ONCE and all(
            isinstance(block, (Dense, Terms)) and block.rows * block.width <= SMALL_MATRIX
            for stage in self.stages
            for block in stage.blocks.values()
        )

    @property
    def as_matrices(self) -> Stages:
        """The same stages with matrices for maps."""
        made = [
            replace(stage, blocks={source: Dense(block.dense()) for source, block in stage.blocks.items()})
            for stage in self.stages
        ]
        return Stages(made, self.layers)

    @cached_property
    def norms(self) -> list[dict[int, tuple[float, float]]]:
        """Upper bounds of the spectral and the Frobenius norm of each stage's blocks."""
        return [
            {source: (block.norm, block.frobenius) for source, block in stage.blocks.items()} for stage in self.stages
        ]

    @cached_property
    def amplification(self) -> list[float]:
        """Of each stage, as powers of two: what it makes at most of inputs of 1, and of 1 in any number before it.

        That is the largest number of a vector that goes through the network with all terms taken without signs, and
        to which every stage adds 1. It ends where numbers become so
        large that no bound holds for them.
        """
        found: list[float] = []
        values = {INPUT: torch.ones(self.inputs, dtype=torch.float64, device="cpu")}
        last_reader = {source: number for number, stage in enumerate(self.stages) for source in stage.blocks}
        for number, stage in enumerate(self.stages):
            size = torch.from_numpy(np.abs(stage.bias) + 1)
            for source, block in stage.blocks.items():
                size += block.absolute_times(values[source])
                if last_reader[source] == number:
                    del values[source]
            units = stage.units
            size *= float(np.abs(units.slopes).max(initial=1.0))
            size += float(np.abs(units.kinks).max(initial=0.0)) + float(np.abs(units.intercepts).max(initial=0.0))
            largest = float(size.numpy().max(initial=1.0))
            found.append(math.log2(largest) if largest < math.inf else math.inf)
            if not largest < _LARGEST:
                break
            values[number] = size
        return found

    @cached_property
    def same_lines(self) -> NDArray[np.int64]:
        """``[lines]``: the first line that has a multiple of each line's row; its own number if none has.

        Multiples by any number that is not 0: duplicated, negated and scaled neurons. Their lines are 0 in the same
        places on every cell, whatever the pattern, so no arithmetic is needed there.
        """
        found = np.arange(self.lines)
        names, of_row = NamesOfRows({INPUT: self.inputs}), found.copy()
        for number, (stage, first) in enumerate(zip(self.stages, self.first_lines, strict=True)):
            units = stage.units
            rows = names.of_stage(number, stage.blocks, stage.bias, units.are_rows)
            one_line_a_row = not units.kinks.any() and bool((np.diff(units.line_begin) == 1).all())
            if units.lines and units.groups is None and one_line_a_row:
                of_row[first : first + stage.rows] = rows
            else:
                of_row[first : first + units.lines] = -1
        named = np.flatnonzero(of_row >= 0)
        _, firsts, which = np.unique(of_row[named], return_index=True, return_inverse=True)
        found[named] = named[firsts[which.reshape(-1)]]
        return found

    @property
    def pass_through_zero(self) -> bool:
        """Whether all lines pass through the input 0, on every cell: no biases, and kinks at 0."""
        with_lines = [number for number, stage in enumerate(self.stages) if stage.units.lines]
        before = self.stages[: with_lines[-1] + 1] if with_lines else []
        return not any(stage.bias.any() or stage.units.kinks.any() or stage.units.intercepts.any() for stage in before)

    @property
    def lines(self) -> int:
        """Kinks of all units of all stages."""
        return sum(stage.units.lines for stage in self.stages)
