"""What single rows of a folded network are off by: the roundings before each, pulled back to it.

Norms multiply from stage to stage, and so do their bounds, by more than the errors themselves do. The row that a line
takes from the values of an earlier stage is a vector; its absolute values times what that stage has rounded is a bound
of what that contributes, and these add up. Finding the vectors takes as long as folding did.
docs/exactness.md, 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UNIT, UP
from pylinregion.lowering.stages import INPUT, Stage

_NUMBERS_AT_ONCE = 1 << 19  # of a stage's vectors: they are read several times
_ROWS_AT_ONCE = 64  # at least: fewer would not fill the lanes of convolutions


@dataclass(frozen=True)
class SettledStage:
    """What a fold has made of a stage on ``B`` slices.

    Attributes:
        slopes: ``[B, units]``: of the pieces that units are settled on; those of a line that is not settled go by its
            lower piece, for what it adds is a column, which passes no error on.
        rounded: ``[B, rows]``: bounds of what its own arithmetic has rounded.
        rounded_units: The same of its units; None: nothing.
    """

    slopes: Tensor
    rounded: Tensor
    rounded_units: Tensor | None


def row_errors(
    stages: Sequence[Stage], settled: Sequence[SettledStage], owner: Int64s, stage: Int64s, row: Int64s
) -> Array:
    """Bounds of what some rows are off by, anywhere on their slices.

    Args:
        stages: The network's.
        settled: What was made of each.
        owner, stage, row: ``[n]``: the slice of each of the rows, its stage, and its number there.

    Returns:
        ``[n]``.
    """
    result = np.zeros(len(owner))
    order = np.argsort(-stage, kind="stable")
    widest = max(each.rows for each in stages)
    step = max(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // widest)
    for begin in range(0, len(order), step):
        some = order[begin : begin + step]
        result[some] = _pulled_back(stages, settled, owner[some], stage[some], row[some])
    return result


def _pulled_back(
    stages: Sequence[Stage], settled: Sequence[SettledStage], owner: Int64s, stage: Int64s, row: Int64s
) -> Array:
    """The same of rows with descending stages, together."""
    slices, count = torch.from_numpy(owner), len(owner)
    bound = torch.zeros(count, dtype=torch.float64, device="cpu")
    pending: dict[int, tuple[Tensor, Tensor]] = {}  # by stage: the vectors on its units, and what these are off by
    for number in range(int(stage[0]), -1, -1):
        here = settled[number]
        active = int(np.searchsorted(-stage, -number, side="right"))
        own = np.flatnonzero(stage[:active] == number)
        given = pending.pop(number, None)
        if given is None and not len(own):
            continue
        vectors = torch.zeros(active, stages[number].rows, dtype=torch.float64, device="cpu")
        error = torch.zeros(active, dtype=torch.float64, device="cpu")
        if given is not None:
            before = len(given[0])
            if here.rounded_units is not None:
                bound[:before] += _taken(given, here.rounded_units, slices[:before])
            slopes = here.slopes if len(here.slopes) == 1 else here.slopes[slices[:before]]
            torch.mul(given[0], slopes, out=vectors[:before])
            error[:before] = (given[1] + 2 * UNIT * _norms(given[0])) * float(here.slopes.abs().max()) * UP
        vectors[torch.from_numpy(own), torch.from_numpy(row[own])] = 1
        bound[:active] += _taken((vectors, error), here.rounded, slices[:active])
        size = _norms(vectors)
        for source, block in stages[number].blocks.items():
            if source == INPUT:
                continue
            gamma = (block.terms + 8) * UNIT * UP
            back, off = block.back(vectors), (block.norm * error + gamma * block.frobenius * size) * NORM_UP
            if source in pending:
                known, known_off = pending[source]
                before = len(known)
                total = back.clone() if block.is_identity else back
                total[:before] += known
                off = off + 2 * UNIT * _norms(total)
                off[:before] += known_off
                back, off = total, off * NORM_UP
            pending[source] = back, off
    return np.asarray((bound * NORM_UP).numpy())


def _taken(vectors: tuple[Tensor, Tensor], rounded: Tensor, slices: Tensor) -> Tensor:
    """``[n]``: what vectors, which are off by so much in the 2-norm, take of what was rounded."""
    those, error = vectors
    norms = torch.linalg.vector_norm(rounded, dim=1) * NORM_UP + NORM_UNDERFLOW
    if len(rounded) == 1:
        taken: Tensor = those.abs() @ rounded[0] + error * norms[0]
    else:
        taken = (those.abs() * rounded[slices]).sum(dim=1) + error * norms[slices]
    return taken


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1) * NORM_UP + NORM_UNDERFLOW
    return norms
