"""What single rows of a network are off by: the roundings before each, pulled back to it.

Norms multiply from stage to stage, and so do their bounds, by more than the errors themselves do. What a row takes
from the rows of an earlier stage is a vector; its absolute values times what that stage has rounded is a bound of what
that contributes, and these add up. Finding the vectors takes as long as pushing as many columns through the network.
docs/exactness.md, 5.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UNIT, UP
from pylinregion._util.tensors import CPU, as_array, as_tensor
from pylinregion.exact.walks_on_threads import in_order
from pylinregion.lowering.stages import INPUT, Stage

_NUMBERS_AT_ONCE = 1 << 19  # of a stage's vectors: they are read several times
_ROWS_AT_ONCE = 32  # at least: fewer would not fill the lanes of convolutions
_NUMBERS_ON_THREADS = 1 << 26  # of such vectors on all threads: on one they may be more
_IN_CACHE = 1 << 17  # numbers that are read twice
_ON_A_DEVICE = 1 << 25  # of either, elsewhere than on the CPU


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
    device = settled[0].rounded.device
    step = max(_ROWS_AT_ONCE, (_NUMBERS_AT_ONCE if device == CPU else _ON_A_DEVICE) // widest)
    parts = [order[begin : begin + step] for begin in range(0, len(order), step)]

    def pull(own: Sequence[Int64s]) -> None:
        room = _Room(min(step, len(order)) * widest, device)
        for some in own:
            cases_of = None if owner is None else as_tensor(owner[some], device)
            pulled = _Pull(stages, settled, cases_of, watched, room).back(stage[some], row[some])
            result.errors[some], result.taken[some] = pulled

    threads = min(torch.get_num_threads(), len(parts), max(1, _NUMBERS_ON_THREADS // (step * widest)))
    threads = threads if device == CPU else 1
    in_order([parts[first::threads] for first in range(threads)], pull, threads)
    return result


class _Room:
    """Memory for vectors, which is used again and again: new memory costs as much as what is done in it.

    Args:
        numbers: In the largest array.
        device: Where.
    """

    def __init__(self, numbers: int, device: torch.device) -> None:
        self._numbers, self._device = numbers, device
        self._free: list[Tensor] = []
        self._sizes = self._new(min(numbers, _IN_CACHE if device == CPU else _ON_A_DEVICE))

    def _new(self, numbers: int) -> Tensor:
        return torch.empty(numbers, dtype=torch.float64, device=self._device)

    def take(self) -> Tensor:
        """Memory that nobody has: ``[numbers]``."""
        return self._free.pop() if self._free else self._new(self._numbers)

    def give(self, memory: Tensor) -> None:
        """Of this, too, from now on."""
        self._free.append(memory)

    def sizes(self, vectors: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The absolute values of vectors, some at a time: which, and their values until the next."""
        n = vectors.shape[1]
        memory = self._sizes if n <= len(self._sizes) else self._new(n)
        step = max(1, len(memory) // max(1, n))
        for begin in range(0, len(vectors), step):
            some = slice(begin, min(begin + step, len(vectors)))
            count = some.stop - begin
            yield some, torch.abs(vectors[some], out=memory[: count * n].view(count, n))


class _Vectors:
    """Vectors ``[count, n]`` that grow in number.

    Attributes:
        error: ``[count]``: bounds of what they are off by, in the 2-norm.
    """

    def __init__(self, memory: Tensor, n: int) -> None:
        self.memory, self.n = memory, n
        self.error = memory.new_zeros(0)

    @property
    def numbers(self) -> Tensor:
        """``[count, n]``."""
        count = len(self.error)
        return self.memory[: count * self.n].view(count, self.n)

    def grow(self, count: int) -> Tensor:
        """Be so many, the new ones 0."""
        before = len(self.error)
        self.error = torch.cat([self.error, self.error.new_zeros(count - before)])
        self.memory[before * self.n : count * self.n] = 0
        return self.numbers


class _Pull:
    """Rows that are pulled back together."""

    def __init__(
        self,
        stages: Sequence[Stage],
        settled: Sequence[SettledStage],
        owner: Tensor | None,
        watched: Mapping[int, Int64s],
        room: _Room,
    ) -> None:
        self._stages, self._settled, self._owner, self._watched = stages, settled, owner, watched
        self._room = room

    def back(self, stage: Int64s, row: Int64s) -> PulledBack:
        """Of rows with descending stages."""
        count = len(stage)
        cases = 1 if self._owner is not None else len(self._settled[0].rounded)
        bound = self._settled[0].rounded.new_zeros(count, cases)
        taken = np.zeros((count, sum(map(len, self._watched.values()))))
        ends = dict(zip(self._watched, np.cumsum([len(each) for each in self._watched.values()]).tolist(), strict=True))
        pending: dict[int, _Vectors] = {}  # by stage: those on its units
        for number in range(int(stage[0]), -1, -1):
            here = self._settled[number]
            active = int(np.searchsorted(-stage, -number, side="right"))
            own = np.flatnonzero(stage[:active] == number)
            vectors = pending.pop(number, None)
            if vectors is None:
                if not len(own):
                    continue
                vectors = _Vectors(self._room.take(), self._stages[number].rows)
            else:
                before = len(vectors.error)
                if here.rounded_units is not None:
                    bound[:before] += self._taken(vectors, here.rounded_units)[0]
                if number in self._watched:
                    units = self._watched[number]
                    of_units = vectors.numbers[:, as_tensor(units, bound.device)]
                    from_each = (of_units.abs() + vectors.error[:, None]) * UP
                    taken[:before, ends[number] - len(units) : ends[number]] = as_array(from_each)
                self._through_units(vectors, here.slopes)
            numbers = vectors.grow(active)
            numbers[as_tensor(own, bound.device), as_tensor(row[own], bound.device)] = 1
            of_rows, size = self._taken(vectors, here.rounded if here.known is None else here.known)
            bound[:active] += of_rows
            if here.known is None:
                self._through_rows(self._stages[number], vectors, size, pending)
            self._room.give(vectors.memory)
        return PulledBack(as_array(bound * NORM_UP), taken)

    def _through_units(self, vectors: _Vectors, slopes: Tensor) -> None:
        """From units to their rows."""
        numbers = vectors.numbers
        own = slopes[self._owner[: len(numbers)]] if self._owner is not None and len(slopes) > 1 else slopes
        rounding = 2 * UNIT * _norms(numbers)
        vectors.error = (vectors.error + rounding) * float(slopes.abs().max()) * UP
        numbers *= own

    def _through_rows(self, stage: Stage, vectors: _Vectors, size: Tensor, pending: dict[int, _Vectors]) -> None:
        """From rows, whose 2-norms are ``size``, to the units that they take from."""
        numbers = vectors.numbers
        for source, block in stage.blocks.items():
            if source == INPUT:
                continue
            more = source in pending
            to = pending[source] if more else pending.setdefault(source, _Vectors(self._room.take(), block.width))
            total = to.grow(len(numbers))
            block.add_back(total, numbers)
            gamma = (block.roundings(numbers.device) + 8) * UNIT * UP
            off = (block.norm * vectors.error + gamma * block.frobenius * size) * NORM_UP
            to.error = (to.error + off + 2 * UNIT * _norms(total)) * NORM_UP if more else off

    def _taken(self, vectors: _Vectors, rounded: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, cases]``: what vectors take of what was rounded; and ``[n]``, their 2-norms."""
        numbers, error = vectors.numbers, vectors.error
        cases = 1 if self._owner is not None else len(rounded)
        taken, size = numbers.new_empty(len(numbers), cases), numbers.new_empty(len(numbers))
        alone = self._owner is None or len(rounded) == 1
        norms = torch.linalg.vector_norm(rounded, dim=1) * NORM_UP + NORM_UNDERFLOW
        for some, absolute in self._room.sizes(numbers):
            size[some] = _norms(absolute)
            if alone:
                torch.matmul(absolute, rounded.T, out=taken[some])
            else:
                assert self._owner is not None
                taken[some] = absolute.mul_(rounded[self._owner[some]]).sum(dim=1, keepdim=True)
        if not alone:
            assert self._owner is not None
            norms = norms[self._owner[: len(numbers)], None]
        return taken + error[:, None] * norms, size


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1) * NORM_UP + NORM_UNDERFLOW
    return norms
