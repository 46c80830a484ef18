"""What is known of the candidates of maxima before any slice is looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion.lowering.linear_maps import Terms
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import Units


def groups_of(stages: Stages) -> list[tuple[int, int]]:
    """The first line and the number of lines of each group, for all stages."""
    found: list[tuple[int, int]] = []
    for stage, first in zip(stages.stages, stages.first_lines, strict=True):
        groups = stage.units.groups
        if groups is not None:
            found += zip((groups[:-1] + first).tolist(), np.diff(groups).tolist(), strict=True)
    return found


def rectified_by(stages: Stages) -> Int64s:
    """``[lines]``: for a candidate that is a rectified unit (times a positive number) the line where it is 0, else -1.

    Where that line is off it is 0, and where it is on it is positive: pools after ReLUs have many ties of zeros, and
    these then need no arithmetic.
    """
    first_lines = stages.first_lines
    found = np.full(stages.lines, -1, dtype=np.int64)
    for stage, first in zip(stages.stages, first_lines, strict=True):
        if stage.units.groups is None:
            continue
        entries = {source: block.entries() for source, block in stage.blocks.items()}
        terms = np.sum([np.bincount(each[0], minlength=stage.rows) for each in entries.values()], axis=0)
        lone = (np.broadcast_to(terms, stage.rows) == 1) & (stage.bias == 0)
        for source, (row, unit, factor) in entries.items():
            if source == INPUT:
                continue
            units = stages.stages[source].units
            taken = lone[row] & (factor > 0) & _rectified(units)[unit]
            found[first + row[taken]] = first_lines[source] + units.line_begin[unit[taken]]
    return found


def _rectified(units: Units) -> NDArray[np.bool_]:
    """Which units are 0 on their first piece, grow on the second, and fall nowhere."""
    rows = len(units.line_begin) - 1
    if units.groups is not None or not units.lines:
        return np.zeros(rows, dtype=bool)
    first = units.line_begin[:-1] + np.arange(rows)
    several = np.diff(units.line_begin) > 0
    second = np.where(several, first + 1, first)
    grows = np.minimum.reduceat(units.slopes, first) >= 0
    rising = (units.slopes[first] == 0) & (units.intercepts[first] == 0) & (units.slopes[second] > 0)
    return np.asarray(several & grows & rising, dtype=np.bool_)


def first_equals(stages: Stages) -> Int64s:
    """``[lines]``: the first line of the same stage with the same weights: windows that overlap share candidates."""
    found = np.arange(stages.lines, dtype=np.int64)
    for stage, first in zip(stages.stages, stages.first_lines, strict=True):
        if stage.units.groups is None:
            continue
        seen: dict[bytes, int] = {}
        numbers = _numbers_of_rows(stage)
        for row in range(stage.rows):
            found[first + row] = first + seen.setdefault(numbers[row].tobytes(), row)
    return found


def _numbers_of_rows(stage: Stage) -> Array:
    """``[rows, n]``: what tells rows apart; rows with equal numbers are equal."""
    columns = [stage.bias[:, None]]
    for block in stage.blocks.values():
        columns += [block.place.astype(np.float64), block.factor] if isinstance(block, Terms) else [block.dense()]
    return np.ascontiguousarray(np.concatenate(columns, axis=1)) + 0.0
