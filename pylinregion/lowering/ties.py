"""Which lines are the same line, whatever the pattern: what the weights alone can tell, exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pylinregion.lowering.stages import Stage, Stages

_MOST_FRACTIONS = 1 << 20  # numbers that are compared as such


def same_lines(stages: Stages) -> NDArray[np.int64]:
    """``[lines]``: the first line of its stage that has a multiple of each line's row; its own number if none has.

    Multiples by any number that is not 0: duplicated, negated and scaled neurons. Their lines are 0 in the same places
    on every cell, so no arithmetic is needed there. What is not found costs time alone.
    """
    found = np.arange(stages.lines)
    for stage, first in zip(stages.stages, stages.first_lines, strict=True):
        units = stage.units
        if not units.lines or units.groups is not None or units.kinks.any() or (np.diff(units.line_begin) != 1).any():
            continue
        found[first : first + stage.rows] = first + _first_multiples(_rows(stage))
    return found


def passes_through_zero(stages: Stages) -> bool:
    """Whether all lines of a network pass through the input 0, on every cell: no biases, and kinks at 0."""
    with_lines = [number for number, stage in enumerate(stages.stages) if stage.units.lines]
    before = stages.stages[: with_lines[-1] + 1] if with_lines else []
    return not any(stage.bias.any() or stage.units.kinks.any() or stage.units.intercepts.any() for stage in before)


def _rows(stage: Stage) -> NDArray[np.float64]:
    return np.concatenate([*(stage.blocks[source] for source in sorted(stage.blocks)), stage.bias[:, None]], axis=1)


def _first_multiples(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """``[rows]``: the first row that each is a multiple of."""
    found = np.arange(len(rows))
    pivots = np.abs(rows).argmax(axis=1)
    scales = rows[found, pivots]
    nonzero = scales != 0
    with np.errstate(all="ignore"):
        directions = (rows / np.where(nonzero, scales, 1)[:, None]).astype(np.float32) + np.float32(0)  # no -0
        # Products of two numbers of 24 bits, with exponents of float32, are exact in float64.
        exact_products = bool((rows == rows.astype(np.float32)).all())
    names = [row.tobytes() if some else None for row, some in zip(directions, nonzero, strict=True)]
    alike: dict[bytes, list[int]] = {}  # the first rows of each direction, as far as float32 can tell directions apart
    budget = _MOST_FRACTIONS
    for number, name in enumerate(names):
        if name is None:
            continue
        firsts = alike.setdefault(name, [])
        for first in firsts:
            budget -= 0 if exact_products else rows.shape[1]
            if budget > 0 and _is_multiple(rows[first], rows[number], int(pivots[first]), exact_products):
                found[number] = first
                break
        else:
            firsts.append(number)
    return found


def _is_multiple(row: NDArray[np.float64], other: NDArray[np.float64], pivot: int, exact_products: bool) -> bool:
    if exact_products:
        return bool((row * other[pivot] == other * row[pivot]).all())
    own, its = Fraction(float(row[pivot])), Fraction(float(other[pivot]))
    return all(Fraction(p) * its == Fraction(q) * own for p, q in zip(row.tolist(), other.tolist(), strict=True))
