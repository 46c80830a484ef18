"""What single rows of a network are off by: the roundings before each, pulled back to it.

Norms multiply from stage to stage, and so do their bounds, by more than the errors themselves do. What a row takes
from the rows of an earlier stage is a vector; its absolute values times what that stage has rounded is a bound of what
that contributes, and these add up. Finding the vectors takes as long as pushing as many columns through the network.
docs/exactness.md, 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    """What is known of a stage, in ``B`` cases: of slices, or of the columns of maps.

    Attributes:
        slopes: ``[B or 1, units]``: of the pieces that units are settled on, as far as they are: what a unit takes
            beside its slope times its row is looked at elsewhere.
        rounded: ``[B, rows]``: bounds of what its own arithmetic has rounded.
        rounded_units: The same of its units; None: nothing.
        known: ``[B, rows]``: bounds of all that its rows are off by, where these are known: no stage before it is then
            looked at on the way through it.
    """

    slopes: Tensor
    rounded: Tensor
    rounded_units: Tensor | None
    known: Tensor | None = None


class PulledBack(NamedTuple):
    """Of ``n`` rows.

    Attributes:
        errors: ``[n, B]``, or ``[n, 1]`` of rows that belong to one case each: bounds of what they are off by, as far
            as it passes through settled units.
        taken: ``[n, watched units]``: at least the absolute values of what they take from each, likewise.
    """

    errors: Array
    taken: Array


def pulled_back(
    stages: Sequence[Stage],
    settled: Sequence[SettledStage],
    stage: Int64s,
    row: Int64s,
    *,
    owner: Int64s | None = None,
    watched: Mapping[int, Int64s] | None = None,
) -> PulledBack:
    """Pull the roundings of a network back to some rows.

    Args:
        stages: The network's.
        settled: What is known of each.
        stage, row: ``[n]``: the stage of each of the rows, and its number there.
        owner: ``[n]``: the case of each; None: all cases of each, which have the same slopes.
        watched: Units by stage, in the order of the stages: what rows take from these is told, too.
    """
    watched = watched or {}
    cases = 1 if owner is not None else len(settled[0].rounded)
    result = PulledBack(np.zeros((len(stage), cases)), np.zeros((len(stage), sum(map(len, watched.values())))))
    order = np.argsort(-stage, kind="stable")
    widest = max(each.rows for each in stages)
    step = max(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // widest)
    for begin in range(0, len(order), step):
        some = order[begin : begin + step]
        pull = _Pull(stages, settled, None if owner is None else torch.from_numpy(owner[some]), watched)
        result.errors[some], result.taken[some] = pull.back(stage[some], row[some])
    return result


class _Pull:
    """Rows that are pulled back together."""

    def __init__(
        self,
        stages: Sequence[Stage],
        settled: Sequence[SettledStage],
        owner: Tensor | None,
        watched: Mapping[int, Int64s],
    ) -> None:
        self._stages, self._settled, self._owner, self._watched = stages, settled, owner, watched

    def back(self, stage: Int64s, row: Int64s) -> PulledBack:
        """Of rows with descending stages."""
        count = len(stage)
        cases = 1 if self._owner is not None else len(self._settled[0].rounded)
        bound = torch.zeros(count, cases, dtype=torch.float64, device="cpu")
        taken = np.zeros((count, sum(map(len, self._watched.values()))))
        ends = dict(zip(self._watched, np.cumsum([len(each) for each in self._watched.values()]).tolist(), strict=True))
        pending: dict[int, tuple[Tensor, Tensor]] = {}  # by stage: the vectors on its units, and what these are off by
        for number in range(int(stage[0]), -1, -1):
            here = self._settled[number]
            active = int(np.searchsorted(-stage, -number, side="right"))
            own = np.flatnonzero(stage[:active] == number)
            given = pending.pop(number, None)
            if given is None and not len(own):
                continue
            vectors = torch.zeros(active, self._stages[number].rows, dtype=torch.float64, device="cpu")
            error = torch.zeros(active, dtype=torch.float64, device="cpu")
            if given is not None:
                before = len(given[0])
                if here.rounded_units is not None:
                    bound[:before] += self._taken(given, here.rounded_units)
                if number in self._watched:
                    units = self._watched[number]
                    from_each = given[0][:, torch.from_numpy(units)].abs() + given[1][:, None]
                    taken[:before, ends[number] - len(units) : ends[number]] = from_each * UP
                slopes = here.slopes
                if self._owner is not None and len(slopes) > 1:
                    slopes = slopes[self._owner[:before]]
                torch.mul(given[0], slopes, out=vectors[:before])
                error[:before] = (given[1] + 2 * UNIT * _norms(given[0])) * float(here.slopes.abs().max()) * UP
            vectors[torch.from_numpy(own), torch.from_numpy(row[own])] = 1
            if here.known is not None:
                bound[:active] += self._taken((vectors, error), here.known)
                continue
            bound[:active] += self._taken((vectors, error), here.rounded)
            size = _norms(vectors)
            for source, block in self._stages[number].blocks.items():
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
        return PulledBack(np.asarray((bound * NORM_UP).numpy()), taken)

    def _taken(self, vectors: tuple[Tensor, Tensor], rounded: Tensor) -> Tensor:
        """``[n, cases]``: what vectors, which are off by so much in the 2-norm, take of what was rounded."""
        those, error = vectors
        norms = torch.linalg.vector_norm(rounded, dim=1) * NORM_UP + NORM_UNDERFLOW
        if self._owner is None or len(rounded) == 1:
            taken: Tensor = those.abs() @ rounded.T + error[:, None] * norms
        else:
            owner = self._owner[: len(those)]
            taken = ((those.abs() * rounded[owner]).sum(dim=1) + error * norms[owner])[:, None]
        return taken


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1) * NORM_UP + NORM_UNDERFLOW
    return norms
