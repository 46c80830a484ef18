"""The maps of regions in integers of many digits, where float64 proves too little of them (docs/exactness.md, 5.5)."""

from __future__ import annotations

import math

import numpy as np
import torch

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import NORM_UP, UNIT
from pylinregion.exact.fixed_point import Digits, FixedPoint
from pylinregion.exact.maps import pieces
from pylinregion.exact.pattern_table import Patterns
from pylinregion.lowering.stages import INPUT, Stages


def maps_in_digits(stages: Stages, inputs: Array, patterns: Patterns, digits: Digits) -> tuple[Array, Array]:
    """The maps of regions, and what they may be off by.

    Args:
        stages: The network.
        inputs: ``[inputs, columns]``: of s, t ... and the constant.
        patterns: ``[regions, bytes]``.
        digits: Those of all stages.

    Returns:
        Both ``[regions, outputs, columns]``.
    """
    bits = np.unpackbits(patterns, axis=1, count=stages.lines, bitorder="little")
    count, columns = len(bits), inputs.shape[1]
    owner = torch.arange(count).repeat_interleave(columns)
    constants = torch.arange(count) * columns + columns - 1
    x = digits.of(torch.from_numpy(np.ascontiguousarray(inputs.T)).repeat(count, 1))
    values: dict[int, tuple[FixedPoint, float]] = {INPUT: (x, x.off * math.sqrt(len(inputs)))}  # and its error, 2-norm
    last_reader = {source: number for number, stage in enumerate(stages.stages) for source in stage.blocks}
    for number, first in enumerate(stages.first_lines):
        stage, units = stages.stages[number], stages.stages[number].units
        given = [(block, *values[source]) for source, block in stage.blocks.items()]
        x = digits.rows([(block, z) for block, z, _ in given], len(owner), torch.from_numpy(stage.bias), constants)
        error = sum(block.norm * each for block, _, each in given) + x.off * math.sqrt(stage.rows)
        piece = pieces(units, bits[:, first : first + units.lines])
        x.multiply(torch.from_numpy(units.slopes[piece]), owner)
        if units.intercepts.any():
            x = digits.plus(x, torch.from_numpy(units.intercepts[piece]), constants)
            error += x.off * math.sqrt(stage.rows)
        for source in stage.blocks:
            if last_reader[source] == number:
                del values[source]
        values[number] = x, error * NORM_UP
    x, error = values[len(stages.stages) - 1]
    found = digits.floats(x).reshape(count, columns, -1).movedim(1, 2).numpy()
    return found, (error + 4 * UNIT * np.abs(found)) * NORM_UP
