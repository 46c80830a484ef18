"""What is known of the candidates of maxima before any slice is looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Int64s
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
        terms = np.sum([np.count_nonzero(block, axis=1) for block in stage.blocks.values()], axis=0)
        lone = (np.broadcast_to(terms, stage.rows) == 1) & (stage.bias == 0)
        for source, block in stage.blocks.items():
            if source == INPUT:
                continue
            units = stages.stages[source].units
            rectified = _rectified(units)
            for row in np.flatnonzero(lone & (block > 0).any(axis=1)):
                unit = int(np.argmax(block[row] > 0))
                if rectified[unit]:
                    found[first + row] = first_lines[source] + units.line_begin[unit]
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
        for row in range(stage.rows):
            weights = b"".join(_bytes_of(stage, row))
            found[first + row] = first + seen.setdefault(weights, row)
    return found


def _bytes_of(stage: Stage, row: int) -> list[bytes]:
    return [block[row].tobytes() for block in stage.blocks.values()] + [stage.bias[row].tobytes()]
