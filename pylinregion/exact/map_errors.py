"""What the maps of many regions are off by: one bound for all of them, row by row.

Regions of a slice differ in few lines. Through all other units the roundings are pulled back to the outputs, and to the
rows that regions differ in, once for all; of these rows the errors go on through their units, stage by stage.
docs/exactness.md, 6.2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import UNDERFLOW, UNIT, UP
from pylinregion.exact.maps import Maps, pieces
from pylinregion.exact.pattern_table import Patterns, changing_lines
from pylinregion.exact.row_errors import SettledStage, pulled_back
from pylinregion.lowering.stages import Stage
from pylinregion.lowering.units import Units


def maps_and_errors(maps: Maps, patterns: Patterns) -> tuple[Array, Array]:
    """The maps of regions as float64 computes them, and one bound of what they are off by, for all of these regions.

    Args:
        maps: In float64.
        patterns: ``[regions, bytes]``.

    Returns:
        ``[regions, outputs, columns]``, and bounds ``[outputs, columns]``.
    """
    found = np.empty((len(patterns), maps.outputs, maps.input.shape[2]))
    sizes: dict[int, Tensor] = {}
    for rows, chunk, largest in maps.sized_chunks(patterns):
        found[rows] = chunk.numpy()
        for source, size in largest.items():
            sizes[source] = torch.maximum(sizes[source], size) if source in sizes else size.contiguous()
    return found, _errors(maps, patterns, sizes)


def _errors(maps: Maps, patterns: Patterns, sizes: dict[int, Tensor]) -> Array:
    """``[outputs, columns]``, from the largest numbers of the input and of each stage ``[columns, units]``."""
    stages = maps.stages.stages
    bits = np.unpackbits(patterns[0], count=maps.lines, bitorder="little")
    changing = changing_lines(patterns, maps.lines)
    bits[changing] = 0
    settled: list[SettledStage] = []
    watched: dict[int, Int64s] = {}
    bends = [np.zeros(0)]
    for number, (stage, first) in enumerate(zip(stages, maps.stages.first_lines, strict=True)):
        units = stage.units
        piece = pieces(units, bits[None, first : first + units.lines])[0]
        settled.append(_settled(stage, sizes, piece))
        begin, end = np.searchsorted(changing, [first, first + units.lines])
        if end > begin:
            rows = np.repeat(np.arange(stage.rows), np.diff(units.line_begin))
            watched[number] = np.unique(rows[changing[begin:end] - first])
            bends.append(_bends(units, piece)[watched[number]])
    outputs = stages[-1].rows
    stage_of = np.repeat([*watched, len(stages) - 1], [*map(len, watched.values()), outputs])
    row = np.concatenate([*watched.values(), np.arange(outputs)])
    errors, taken = pulled_back(stages, settled, stage_of, row, watched=watched)
    taken *= np.concatenate(bends)
    errors += UNDERFLOW
    for number in dict.fromkeys(stage_of.tolist()):
        here = stage_of == number
        before = int(np.searchsorted(stage_of, number))
        errors[here] = (errors[here] + taken[here, :before] @ errors[:before] * UP) * UP
    return errors[-outputs:]


def _settled(stage: Stage, sizes: dict[int, Tensor], piece: NDArray[np.int64]) -> SettledStage:
    """What the arithmetic of a stage rounds of maps whose numbers are at most so large; on these pieces."""
    units = stage.units
    bias = torch.from_numpy(np.abs(stage.bias))
    size = sum((block.sizes(sizes[source]) for source, block in stage.blocks.items()), torch.zeros(()))
    size[-1] += bias
    rounding = UNIT * UP * (1 + sum(block.roundings() + 8 for block in stage.blocks.values()))
    slopes = torch.from_numpy(units.slopes[piece] / units.denominator)[None]
    if units.gated or units.are_rows:
        return SettledStage(slopes, size * rounding, None)
    by_unit = units.line_begin[:-1] + np.arange(stage.rows)
    steepest, constant = (
        torch.from_numpy(np.maximum.reduceat(np.abs(each), by_unit) / units.denominator)
        for each in (units.slopes, units.intercepts)
    )
    of_units = size * steepest
    of_units[-1] += constant
    return SettledStage(slopes, size * rounding, 8 * UNIT * UP * of_units)


def _bends(units: Units, piece: NDArray[np.int64]) -> Array:
    """``[units]``: by how much the slope of another piece can differ."""
    rows = len(units.line_begin) - 1
    by_unit = units.line_begin[:-1] + np.arange(rows)
    unit = np.repeat(np.arange(rows), np.diff(units.line_begin) + 1)
    bends = np.abs(units.slopes - units.slopes[piece][unit]) / units.denominator
    return np.asarray(np.maximum.reduceat(bends, by_unit)) * UP
