"""Maxima as tournaments of ReLUs, for the tracer: ``max(a, b) = a + relu(b - a)``, with weights of 1 and -1 only.

So nothing is rounded. ReLUs among which a maximum is taken, as pools do, would tie at 0 nearly everywhere, which only
integers can tell: there ``max(relu(a), relu(b)) = relu(max(a, b))``, and the last match is one against 0.

A tournament has more kinks than its maximum: two candidates may change places below a third. :class:`Tournament` plays
it out, and says what changes in the maxima.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion.exact.breakpoints import Breakpoints
from pylinregion.exact.candidates import rectified_by
from pylinregion.lowering.linear_maps import Dense, LinearMap
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import Units, identity, same


class Tournament:
    """A network without maxima that computes the same as one with them.

    Lines of ``stages`` that come from other units are theirs; the rest are matches, each won by the right side where
    the line is on. A side is a match (its line), or a candidate (-1 - its line in the network with maxima).

    Args:
        stages: A network.

    Attributes:
        stages: The same without maxima.
    """

    def __init__(self, stages: Stages) -> None:
        self._given = stages
        self._lines: list[Int64s] = []  # for each line the given one, or -1: a match
        self._group: list[Int64s] = []  # of each match's line, or -1
        self._sides: list[Int64s] = []  # [lines, 2]
        self._roots: list[int] = []  # a side for each maximum
        self._count = 0  # of lines so far
        rectified = _rectified(stages)  # the stage of the ReLUs among which each stage takes maxima
        place: dict[int, int] = {INPUT: INPUT}
        before: dict[int, int] = {}  # the ReLU: units that are the rows
        found: list[Stage] = []
        for number, (stage, first) in enumerate(zip(stages.stages, stages.first_lines, strict=True)):
            at = {rectified[number]: before[rectified[number]]} if number in rectified else place
            blocks = {
                at[source]: self._of_maxima(source, stage.blocks[source]) for source in stage.blocks if source in at
            }
            if stage.units.groups is None:
                found.append(replace(stage, blocks=blocks))
                self._note(np.arange(first, first + stage.units.lines))
            else:
                found.append(Stage(blocks, stage.bias, identity(stage.rows)))
                found += self._matches(stage.units, first, len(found) - 1, number in rectified)
            place[number] = len(found) - 1
            if number in rectified.values():
                if any(number in other.blocks for after, other in enumerate(stages.stages) if after not in rectified):
                    found.append(replace(found[-1], units=identity(stage.rows)))
                else:
                    found[-1].units = replace(stage.units, slopes=np.ones_like(stage.units.slopes))
                before[number] = len(found) - 1
        self.stages = Stages(found, stages.layers)
        self._line = np.concatenate([np.zeros(0, np.int64), *self._lines])
        self._group_of = np.concatenate([np.zeros(0, np.int64), *self._group])
        self._side = np.concatenate([np.zeros((0, 2), np.int64), *self._sides])
        self._root = np.array(self._roots, np.int64)

    @property
    def maxima(self) -> int:
        """How many there are."""
        return len(self._root)

    def _of_maxima(self, source: int, block: LinearMap) -> LinearMap:
        """Weights of candidates as those of maxima: all candidates of one have the same."""
        if source < 0 or (groups := self._given.stages[source].units.groups) is None:
            return block
        return Dense(np.ascontiguousarray(block.dense()[:, groups[:-1]]))

    def _note(self, lines: Int64s, groups: Any = -1, sides: Any = -1) -> None:
        self._lines.append(lines)
        self._group.append(np.broadcast_to(np.asarray(groups, np.int64), len(lines)))
        self._sides.append(np.broadcast_to(np.asarray(sides, np.int64), (len(lines), 2)))
        self._count += len(lines)

    def _matches(self, units: Units, first: int, rows: int, rectified: bool) -> list[Stage]:
        """Round by round, neighbours against each other; then the maxima.

        Args:
            units: The candidates.
            first: The line of the first.
            rows: The stage whose units are their values.
            rectified: Whether the candidates are ReLUs of these.
        """
        assert units.groups is not None
        width = int(units.groups[-1])
        # A contender of a group: the units that its value is the sum of, by stage, and its side.
        contenders = [
            [({rows: [c]}, -1 - (first + c)) for c in range(low, high)] for low, high in pairwise(units.groups.tolist())
        ]
        widths = {rows: width}
        stages: list[Stage] = []
        number = len(self._roots)
        while any(len(group) > 1 for group in contenders):
            here = rows + 1 + len(stages)
            left: list[dict[int, list[int]]] = []
            right: list[dict[int, list[int]]] = []
            groups, sides = [], []
            for g, group in enumerate(contenders):
                winners = []
                for a, b in zip(group[::2], group[1::2], strict=False):
                    winners.append(({**a[0], here: [len(left)]}, self._count + len(left)))
                    left.append(a[0])
                    right.append(b[0])
                    groups.append(number + g)
                    sides.append((a[1], b[1]))
                contenders[g] = winners + group[2 * len(winners) :]
            relu = same(len(left), [0.0], [0.0, 1.0], [0.0, 0.0])
            blocks: dict[int, LinearMap] = {
                source: Dense(_coefficients(right, source, size) - _coefficients(left, source, size))
                for source, size in widths.items()
            }
            stages.append(Stage(blocks, np.zeros(len(left)), relu))
            widths[here] = len(left)
            self._note(np.full(len(left), -1), groups, sides)
        values, roots = [group[0][0] for group in contenders], [group[0][1] for group in contenders]
        sign = float(units.slopes[1])  # of all candidates
        last = same(len(values), [], [sign], [0.0])
        if rectified:  # of zeros the first candidate wins
            last = same(len(values), [0.0], [0.0, sign], [0.0, 0.0])
            sides = [(-1 - (first + begin), root) for begin, root in zip(units.groups.tolist(), roots, strict=False)]
            roots = [self._count + g for g in range(len(values))]
            self._note(np.full(len(values), -1), number + np.arange(len(values)), sides)
        blocks = {source: Dense(_coefficients(values, source, size)) for source, size in widths.items()}
        stages.append(Stage(blocks, np.zeros(len(values)), last))
        self._roots += roots
        return stages

    def outcome(self, found: Breakpoints, *, starts: bool) -> Breakpoints:
        """What a trace of :attr:`stages` says of the network with maxima.

        Args:
            found: With ``starts``.
            starts: Whether to keep ``starts``.

        Returns:
            The same for the given network. Of a maximum the lines of the winners before and after change.
        """
        if not self.maxima:
            return found
        assert found.starts is not None
        events = len(found.t)
        segment = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))  # of each event
        event = np.repeat(np.arange(events), np.diff(found.change_offsets))
        line = found.changes.astype(np.int64)
        states = _States(found.starts, segment[event], line, event)

        match = self._group_of[line] >= 0
        touched = np.unique(np.stack([event[match], self._group_of[line[match]]]), axis=1)
        before, after = (self._winners(states, touched[1], segment[touched[0]], touched[0] - late) for late in (1, 0))
        new = before != after
        at = np.concatenate([event[~match], touched[0][new], touched[0][new]])
        lines = np.concatenate([self._line[line[~match]], before[new], after[new]])
        order = np.lexsort((lines, at))
        per_event = np.bincount(at, minlength=events)
        kept = per_event > 0
        offsets = np.concatenate([[0], np.cumsum(kept)])[found.offsets]
        maps = found.maps
        if maps is not None:
            regions = np.ones(events + len(offsets) - 1, dtype=bool)  # one begins at each event, and with each segment
            regions[np.arange(events) + segment + 1] = kept
            maps = maps[regions]
        return replace(
            found,
            offsets=offsets,
            t=found.t[kept],
            change_offsets=np.concatenate([[0], np.cumsum(per_event[kept])]),
            changes=lines[order].astype(np.int32),
            maps=maps,
            starts=self._starts(states, found.starts) if starts else None,
        )

    def _winners(self, states: _States, groups: Int64s, segments: Int64s, events: Int64s) -> Int64s:
        """The lines, in the given network, of the winners of maxima after events."""
        side = self._root[groups]
        while (playing := np.flatnonzero(side >= 0)).size:
            line = side[playing]
            side[playing] = self._side[line, states.on(segments[playing], line, events[playing])]
        return np.asarray(-1 - side, np.int64)

    def _starts(self, states: _States, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        n, maxima = len(packed), self.maxima
        on = np.zeros((n, self._given.lines), dtype=np.uint8)
        own = self._line >= 0
        on[:, self._line[own]] = np.unpackbits(packed, axis=1, count=len(own), bitorder="little")[:, own]
        segments, groups = np.repeat(np.arange(n), maxima), np.tile(np.arange(maxima), n)
        on[segments, self._winners(states, groups, segments, np.full(n * maxima, -1))] = 1
        return np.packbits(on, axis=1, bitorder="little")


def _rectified(stages: Stages) -> dict[int, int]:
    """The stages that take maxima of ReLUs of one stage, times positive numbers, and that stage."""
    found = {}
    by = rectified_by(stages)
    for number, (stage, first) in enumerate(zip(stages.stages, stages.first_lines, strict=True)):
        sources = [source for source, block in stage.blocks.items() if block.numbers.any()]
        if stage.units.groups is None or len(sources) != 1 or (by[first : first + stage.rows] < 0).any():
            continue
        if stages.stages[sources[0]].units.gated:
            found[number] = sources[0]
    return found


def _coefficients(values: list[dict[int, list[int]]], source: int, width: int) -> Array:
    """``[values, width]``: 1 where a value takes a unit of the source."""
    out = np.zeros((len(values), width))
    for row, value in enumerate(values):
        out[row, value.get(source, [])] = 1.0
    return out


class _States:
    """Which lines are on where.

    Args:
        starts: ``[segments, bytes]``: bits of the first regions.
        segment, line, event: ``[changes]``: what changes where; events ascend.
    """

    def __init__(self, starts: NDArray[np.uint8], segment: Int64s, line: Int64s, event: Int64s) -> None:
        self._starts, self._lines = starts, 8 * starts.shape[1]
        self._keys, of_change = np.unique(segment * self._lines + line, return_inverse=True)
        self._last = int(event[-1]) if len(event) else 0
        self._span = self._last + 3
        self._changes = np.sort(of_change * self._span + event + 1)

    def on(self, segments: Int64s, lines: Int64s, events: Int64s) -> Int64s:
        """0 or 1: whether lines are on after events; -1, and any event of an earlier segment: in the first region."""
        bits: NDArray[np.uint8] = self._starts[segments, lines >> 3] >> (lines & 7).astype(np.uint8) & 1
        if not len(self._keys):
            now: Int64s = bits.astype(np.int64)
            return now
        keys = segments * self._lines + lines
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        begin = place * self._span
        first, end = (np.searchsorted(self._changes, begin + past) for past in (0, np.minimum(events, self._last) + 2))
        return bits ^ (np.where(self._keys[place] == keys, end - first, 0) & 1)
