"""Segments of any network: folded together, as slices with two corners are, and long ones a part at a time.

What is folded is a *window*: a stretch of a segment. As many windows as are held are folded at a time, and a window
that has too many units on both sides is cut in the middle. Nothing depends on where: what changes at a cut is what
differs between the patterns on both sides of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.tensors import CPU
from pylinregion.exact.breakpoints import Breakpoints, offsets_of
from pylinregion.exact.fold_room import TooManyColumnsError
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.segment_engine import Ends, SegmentTracer, Tracer
from pylinregion.exact.segment_maps import maps_along
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.walk_device import WalkDevice, folds_on
from pylinregion.exact.walks_on_threads import SharedReport, in_order
from pylinregion.lowering.stages import Stages
from pylinregion.native.exact_engines import Report

_AT_ONCE = 256  # windows that are folded together, at most
_ON_A_DEVICE = 4096  # of these elsewhere than on the CPU
_FULL = 0.7  # of what is held, which is planned for
_CHUNKS = 16  # that are planned at a time
_GROWTH = 16  # of windows, from one time to the next, at most
_SHORTEST = 2.0**-24  # of a segment: a window that is not cut
_TRIES = 3  # to cut a window in two: if the last has as many columns, the first was as good
_FEWER = 0.9  # columns, that many halvings later
_AGAIN = 1.2  # times as many columns as were held although they are too many, next time


class FoldedTracer(SegmentTracer):
    """A network of any maps, ready for segments."""

    def __init__(self, stages: Stages, inputs: Sequence[Array] = (), device: WalkDevice | None = None) -> None:
        super().__init__(stages, inputs)
        self._many = ManySlices(stages, device=device)
        self._folders = {outputs: SliceFolder(stages, outputs, folds_on(device)) for outputs in (False, True)}

    def _traced(
        self, ends: Ends, *, maps: bool, starts: bool, threads: int, force_exact: bool, report: Report | None
    ) -> Breakpoints:
        run = _Run(self._many, self._folders[maps], ends, force_exact, report)
        return _joined(run.windows(threads), len(ends), self._stages, maps)


def tracer_of(stages: Stages, inputs: Sequence[Array] = (), device: WalkDevice | None = None) -> SegmentTracer:
    """A network, ready for segments.

    Args:
        stages, inputs: As of :class:`SegmentTracer`.
        device: Where segments are folded, and these walked; None: on the CPU.

    Raises:
        UnsupportedModelError: As of :class:`SegmentTracer`.
    """
    return Tracer(stages, inputs) if stages.are_one_system else FoldedTracer(stages, inputs, device)


@dataclass(frozen=True)
class _Windows:
    """Stretches of segments.

    Attributes:
        segment: ``[n]``: which.
        low, high: ``[n]``: from where to where, of 0 to 1.
    """

    segment: Int64s
    low: Array
    high: Array

    def __len__(self) -> int:
        return len(self.segment)

    def part(self, which: slice) -> _Windows:
        """Some of them."""
        return _Windows(self.segment[which], self.low[which], self.high[which])

    def halves(self) -> tuple[_Windows, _Windows]:
        """Half of them each, or of the only one."""
        if len(self) == 1:
            middle = (self.low + self.high) / 2
            return _Windows(self.segment, self.low, middle), _Windows(self.segment, middle, self.high)
        return self.part(slice(0, len(self) // 2)), self.part(slice(len(self) // 2, None))


@dataclass(frozen=True)
class _Found:
    """What was found on windows that were folded together; ``rows`` lines were left to the core."""

    windows: _Windows
    breakpoints: Breakpoints
    rows: int


_Tried = tuple[tuple[int, int], ...]  # windows around this one, that were not held: stages and columns


def _tried(before: _Tried, windows: _Windows, error: TooManyColumnsError) -> _Tried:
    return (*before, (error.stage, error.columns)) if len(windows) == 1 else ()


def _in_vain(tried: _Tried) -> bool:
    """Whether halving windows has not helped of late: they have as many columns, as early on."""
    if len(tried) <= _TRIES:
        return False
    (stage, columns), (last_stage, last_columns) = tried[-1 - _TRIES], tried[-1]
    return last_stage <= stage and last_columns > _FEWER * columns


class _Plan:
    """What to fold next, from what came before: nothing depends on it but time.

    Args:
        count: Of segments.
        at_once: Windows that are folded together, at most.
    """

    def __init__(self, count: int, at_once: int) -> None:
        self._count, self._at_once = count, at_once
        self._room = 0.0  # columns that are planned for at a time
        self._segment, self._at = 0, 0.0
        self._density, self._longest = 0.0, 1.0  # lines for the length of a segment; the next windows

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left."""
        return self._segment == self._count

    def first(self, count: int) -> _Windows:
        """Of so many segments, whole: a trial."""
        return _Windows(np.arange(count), np.zeros(count), np.ones(count))

    def follow(self, found: Sequence[_Found], room: float) -> None:
        """Go on behind what was found last, and expect the same."""
        self._room = room
        windows = [each.windows for each in found]
        lengths = np.concatenate([each.high - each.low for each in windows])
        density, longest = sum(each.rows for each in found) / float(lengths.sum()), float(lengths.max())
        self._density = density
        self._longest = min(max(self._room / max(density, 1.0), longest), _GROWTH * longest)
        self._segment, self._at = int(windows[-1].segment[-1]), float(windows[-1].high[-1])
        if self._at == 1:
            self._segment, self._at = self._segment + 1, 0.0

    def chunks(self) -> list[_Windows]:
        """The next few windows to be folded together, a few times over."""
        return [chunk for _ in range(_CHUNKS) if len(chunk := self._chunk())]

    def _chunk(self) -> _Windows:
        segments: list[int] = []
        low: list[float] = []
        high: list[float] = []
        room = self._room
        while self._segment < self._count and len(segments) < self._at_once:
            rest = 1 - self._at
            length = rest / max(1, math.ceil(rest / self._longest))
            room -= 2 + self._density * length
            if room < 0 and segments:
                break
            end = 1.0 if length == rest else self._at + length
            segments.append(self._segment)
            low.append(self._at)
            high.append(end)
            self._segment, self._at = (self._segment, end) if end < 1 else (self._segment + 1, 0.0)
        return _Windows(np.array(segments, np.int64), np.array(low), np.array(high))


class _Run:
    """One call of the tracer."""

    def __init__(
        self, many: ManySlices, folder: SliceFolder, ends: Ends, force_exact: bool, report: Report | None
    ) -> None:
        self._many, self._folder, self._ends, self._force_exact = many, folder, ends, force_exact
        self._report = SharedReport(report)
        self._most = folder.most_columns  # that are held at a time
        self._at_once = _AT_ONCE if folder.network.device == CPU else _ON_A_DEVICE

    def windows(self, threads: int) -> list[_Found]:
        """All of all segments, in their order."""
        plan = _Plan(len(self._ends), self._at_once)
        found: list[_Found] = []
        last = [] if plan.is_done else [self._first(plan, threads)]
        while last:
            found += last
            self._most = max(self._most, int(_AGAIN * max(each.rows for each in last)))
            plan.follow(last, _FULL * self._most)
            if plan.is_done:
                break
            last = self._together(plan.chunks(), threads)
        return found

    def _first(self, plan: _Plan, threads: int) -> _Found:
        """So many segments, or so much of one, as are held: what tells how to go on."""
        windows = plan.first(min(self._at_once, len(self._ends)))
        tried: _Tried = ()
        while True:
            try:
                return self._folded(windows, threads, tried)
            except TooManyColumnsError as error:
                tried = _tried(tried, windows, error)
                windows, _ = windows.halves()

    def _together(self, chunks: list[_Windows], threads: int) -> list[_Found]:
        alone = threads if len(chunks) == 1 else 1
        parts = in_order(chunks, lambda chunk: self._of(chunk, alone), threads, self._report)
        return [each for part in parts for each in part]

    def _of(self, windows: _Windows, threads: int, tried: _Tried = ()) -> list[_Found]:
        """Of some windows, folded together if they are held, else of fewer or of shorter ones."""
        try:
            return [self._folded(windows, threads, tried)]
        except TooManyColumnsError as error:
            tried = _tried(tried, windows, error)
        return [each for half in windows.halves() for each in self._of(half, threads, tried)]

    def _folded(self, windows: _Windows, threads: int, tried: _Tried) -> _Found:
        report = self._report.of_one()
        segments = _slices(self._ends, windows)
        self._many.check_scale(segments)
        whole = float(windows.high[0] - windows.low[0]) <= _SHORTEST or _in_vain(tried)
        systems, outputs = self._folder.fold_segments(
            segments, most=None if whole else self._most, between=lambda: report(0)
        )
        found = self._many.trace(
            systems, segments, threads=threads, force_exact=self._force_exact, report=lambda regions: report(0)
        )
        if outputs is not None:
            extents = np.ones(len(windows)) if self._ends.radii is None else self._ends.radii[windows.segment]
            found = replace(found, maps=maps_along(systems, outputs, found, extents))
        report(int(np.count_nonzero(windows.high == 1)))
        return _Found(windows, _from_zero_to_one(self._ends, windows, found), int(systems.begin[-1]))


def _slices(ends: Ends, windows: _Windows) -> Slices:
    """Windows as slices with two corners."""
    p, q = ends.first[ends.pairs[windows.segment, 0]], ends.second[ends.pairs[windows.segment, 1]]
    corners = np.zeros((len(windows), 2, 2))
    if ends.radii is None:
        corners[:, 0, 0], corners[:, 1, 0] = windows.low, windows.high
        return replace(Slices.between(p, q), corners=corners)
    radii = ends.radii[windows.segment]
    corners[:, 0, 0], corners[:, 1, 0] = radii * (2 * windows.low - 1), radii * (2 * windows.high - 1)
    return Slices(q, np.zeros_like(q), p, corners)


def _from_zero_to_one(ends: Ends, windows: _Windows, found: Breakpoints) -> Breakpoints:
    """What is told by s, from -radius to radius, told by t."""
    if ends.radii is None:
        return found
    radii, count = ends.radii[windows.segment], np.diff(found.offsets)
    t = (found.t / np.repeat(radii, count) + 1) / 2
    maps = found.maps
    if maps is not None:
        reach = np.repeat(radii, count + 1)[:, None] * maps[:, :, 0]
        maps = np.stack([2 * reach, maps[:, :, 1] - reach], axis=2)
    return replace(found, t=t, maps=maps)


class _Stretch(NamedTuple):
    """What was found on one window.

    Attributes:
        segment: Which it is of.
        end: Where it ends.
        start: ``[bytes]``: the pattern of its first region.
        t: ``[n]``: breakpoints.
        counts: ``[n]``: how many lines change at each.
        changes: These.
        maps: ``[n + 1, outputs, 2]``, or None.
    """

    segment: int
    end: float
    start: NDArray[np.uint8]
    t: Array
    counts: Int64s
    changes: NDArray[np.int32]
    maps: Array | None

    @property
    def last(self) -> NDArray[np.uint8]:
        """``[bytes]``: the pattern of its last region."""
        on = self.start.copy()
        np.bitwise_xor.at(on, self.changes >> 3, (1 << (self.changes & 7)).astype(np.uint8))
        return on


def _stretches(found: Sequence[_Found]) -> Iterator[_Stretch]:
    """Of all windows, in their order."""
    for each in found:
        here = each.breakpoints
        assert here.starts is not None
        counts = np.diff(here.change_offsets)
        ends = zip(each.windows.segment.tolist(), each.windows.high.tolist(), strict=True)
        for w, ((segment, end), (low, high)) in enumerate(zip(ends, pairwise(here.offsets.tolist()), strict=True)):
            changes = here.changes[here.change_offsets[low] : here.change_offsets[high]]
            maps = None if here.maps is None else here.maps[low + w : high + w + 1]
            yield _Stretch(segment, end, here.starts[w], here.t[low:high], counts[low:high], changes, maps)


def _joined(found: Sequence[_Found], count: int, stages: Stages, maps: bool) -> Breakpoints:
    """The breakpoints of so many segments, from those of all their windows."""
    breakpoints = np.zeros(count, np.int64)
    starts = np.zeros((count, (stages.lines + 7) // 8), np.uint8)
    t, counts = [np.zeros(0)], [np.zeros(0, np.int64)]
    changes, known = [np.zeros(0, np.int32)], [np.zeros((0, stages.stages[-1].rows, 2))]
    before: _Stretch | None = None
    for here in _stretches(found):
        own = here.maps
        if before is None or before.segment != here.segment:
            starts[here.segment] = here.start
        else:
            at_cut = np.flatnonzero(np.unpackbits(here.start ^ before.last, bitorder="little")).astype(np.int32)
            if len(at_cut):
                breakpoints[here.segment] += 1
                t.append(np.array([before.end]))
                counts.append(np.array([len(at_cut)]))
                changes.append(at_cut)
            elif own is not None:  # one region on both sides
                if np.isnan(known[-1][-1]).any():
                    known[-1][-1] = own[0]
                own = own[1:]
        breakpoints[here.segment] += len(here.t)
        t.append(here.t)
        counts.append(here.counts)
        changes.append(here.changes)
        if own is not None and len(own):
            known.append(own)
        before = here
    offsets = offsets_of(breakpoints)
    return Breakpoints(
        offsets=offsets,
        t=_in_order(np.concatenate(t), offsets),
        change_offsets=offsets_of(np.concatenate(counts)),
        changes=np.concatenate(changes),
        maps=np.concatenate(known) if maps else None,
        starts=starts,
        filter=sum(each.breakpoints.filter for each in found),
        exact=sum(each.breakpoints.exact for each in found),
        zeros=sum(each.breakpoints.zeros for each in found),
    )


def _in_order(t: Array, offsets: Int64s) -> Array:
    """Places between 0 and 1 that ascend on each segment: what rounding did to their order is undone."""
    t = np.clip(t, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0))
    falls = np.flatnonzero(np.diff(t) < 0) + 1
    for segment in np.unique(np.searchsorted(offsets, falls[~np.isin(falls, offsets)], side="right") - 1):
        own = slice(offsets[segment], offsets[segment + 1])
        t[own] = np.maximum.accumulate(t[own])
    return t
