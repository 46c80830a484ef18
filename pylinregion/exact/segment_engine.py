"""The tracers of segments for Python: a network's stages and the ends of segments in, breakpoints out."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.errors import UnsupportedModelError
from pylinregion._util.rounding import frobenius_norm, spectral_norm
from pylinregion.exact.breakpoints import Breakpoints
from pylinregion.exact.line_system import MOST_LINES, check_scale
from pylinregion.exact.proven_maps import affine_maps
from pylinregion.exact.tournament import Tournament
from pylinregion.lowering.stages import MOST_LINES_AT_ONCE, Stages
from pylinregion.native.exact_engines import Report, TraceProblem

_WORTH = 1e-9  # of itself, what a map may be off by: what the core's estimate of its noise is compared with
_SQUARINGS = 6  # of spectral norms: within about 5 %


@dataclass(frozen=True, eq=False)
class Ends:
    """Segments: from ``first[p]`` to ``second[q]``, or with radii from ``first[p] - r second[q]`` to ``+ r second[q]``.

    Attributes:
        first, second: ``[N, inputs]`` and ``[M, inputs]`` float64.
        pairs: ``[B, 2]`` int64: p and q of each.
        radii: ``[B]`` float64: r of each; or None.
    """

    first: Array
    second: Array
    pairs: Int64s
    radii: Array | None

    def __len__(self) -> int:
        return len(self.pairs)


class SegmentTracer(abc.ABC):
    """A network, ready for segments; see :func:`pylinregion.exact.segment_fold.tracer_of`.

    Args:
        stages: The network. Its arrays are read when a sign needs integers, so they must stay as they are.
        inputs: All numbers that segments will be made of.

    Raises:
        UnsupportedModelError: Weights that are not finite, or so large that the outputs could overflow.
    """

    _most_lines = MOST_LINES

    def __init__(self, stages: Stages, inputs: Sequence[Array] = ()) -> None:
        for number, stage in enumerate(stages.stages):
            numbers = (block.numbers for block in stage.blocks.values())
            if not all(np.isfinite(array).all() for array in (*numbers, stage.bias)):
                raise UnsupportedModelError(f"the weights of affine map {number} are NaN or infinite")
        self._stages = stages
        largest = max((float(np.abs(numbers).max(initial=0.0)) for numbers in inputs), default=0.0)
        if (
            reason := check_scale(self._followed, np.full((1, 1), largest), np.ones((1, 2)), self._most_lines)
        ) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")

    @property
    def _followed(self) -> Stages:
        """The stages that rounding goes through."""
        return self._stages

    @abc.abstractmethod
    def _traced(
        self, ends: Ends, *, maps: bool, starts: bool, threads: int, force_exact: bool, report: Report | None
    ) -> Breakpoints:
        """The breakpoints; maps that rounding is expected to leave too little of are NaN. ``starts`` if maps are asked
        for."""

    def trace(
        self,
        first: Array,
        second: Array,
        *,
        pairs: Int64s | None = None,
        radii: Array | None = None,
        maps: bool = True,
        starts: bool = False,
        threads: int = 1,
        force_exact: bool = False,
        report: Report | None = None,
    ) -> Breakpoints:
        """Trace segments.

        Args:
            first, second: ``[N, inputs]`` and ``[M, inputs]`` float64: segments start in the one and end in the other.
            pairs: ``[B, 2]`` int64: the ends of each segment, numbers of rows. None: the first two rows, the second two
                and so on.
            radii: ``[B]`` float64: segments from ``p - radius * q`` to ``p + radius * q`` instead, p and q being rows
                of ``first`` and ``second``. (Such ends may be no float64 numbers.)
            maps: Also what the outputs are on each region.
            starts: Also the pattern of each segment's first region.
            threads: CPU threads; the result is the same for any number.
            force_exact: Take every decision in integers (a test).
            report: Called with the number of segments done, about twenty times a second.

        Returns:
            The breakpoints of all segments. Maps are found from a region's pattern where the sums along the segment
            would keep too much rounding.
        """
        first, second = (np.ascontiguousarray(each, dtype=np.float64) for each in (first, second))
        if pairs is None:
            pairs = np.repeat(np.arange(len(first), dtype=np.int64), 2)
        pairs = np.ascontiguousarray(pairs, dtype=np.int64).reshape(-1, 2)
        if radii is not None:
            radii = np.ascontiguousarray(radii, dtype=np.float64)
        ends = Ends(first, second, pairs, radii)
        traced = self._traced(
            ends, maps=maps, starts=starts or maps, threads=threads, force_exact=force_exact, report=report
        )
        return replace(traced, maps=self._completed(traced, ends), starts=traced.starts if starts else None)

    def _completed(self, traced: Breakpoints, ends: Ends) -> Array | None:
        """The maps, with those that are NaN found from their region's pattern alone."""
        maps, starts = traced.maps, traced.starts
        if maps is None or starts is None or not maps.shape[1]:
            return maps
        offsets, bounds, changes = traced.offsets, traced.change_offsets, traced.changes
        wanted = np.flatnonzero(np.isnan(maps[:, 0, 0]))
        if not len(wanted):
            return maps
        maps = maps.copy()
        regions = offsets + np.arange(len(offsets))
        owner = np.searchsorted(regions, wanted, side="right") - 1
        for b in np.unique(owner).tolist():
            here = wanted[owner == b]
            on = np.unpackbits(starts[b], count=self._stages.lines, bitorder="little")
            patterns, event = [], int(offsets[b])
            for until in (here - b).tolist():  # events of earlier segments, and of this one before the region
                np.bitwise_xor.at(on, changes[bounds[event] : bounds[until]], 1)
                patterns.append(np.packbits(on, bitorder="little"))
                event = until
            start, end = ends.first[ends.pairs[b, 0]], ends.second[ends.pairs[b, 1]]
            along = end - start
            if ends.radii is not None:
                start, along = start - ends.radii[b] * end, 2 * ends.radii[b] * end
            inputs = np.stack([along, start], axis=1)
            maps[here] = affine_maps(self._stages, inputs, np.ones(1), np.stack(patterns), _WORTH)
        return maps


class Tracer(SegmentTracer):
    """A network whose stages are matrices, ready for segments: stage by stage along each, all jumps in one product."""

    _most_lines = MOST_LINES_AT_ONCE

    def __init__(self, stages: Stages, inputs: Sequence[Array] = ()) -> None:
        self._tournament = Tournament(stages.as_matrices)
        super().__init__(stages, inputs)
        played = self._tournament.stages
        self._problem: Any = TraceProblem(stages=played.arrays(), norms=_norms(played), dimensions=played.inputs)

    @property
    def _followed(self) -> Stages:
        return self._tournament.stages

    def _traced(
        self, ends: Ends, *, maps: bool, starts: bool, threads: int, force_exact: bool, report: Report | None
    ) -> Breakpoints:
        found = self._problem.trace(
            pairs=ends.pairs,
            first=ends.first,
            second=ends.second,
            radii=ends.radii,
            maps=maps,
            starts=starts or self._tournament.maxima > 0,
            force_exact=force_exact,
            threads=threads,
            report=report,
        )
        return self._tournament.outcome(Breakpoints.of(found), starts=starts)


def _norms(stages: Stages) -> list[list[float]]:
    """Bounds of the blocks' spectral norms: near for those whose errors reach a kink, Frobenius norms for the rest."""
    reaches: set[int] = set()  # stages whose units reach kinks of later stages
    for stage in reversed(list(enumerate(stages.stages))):
        number, each = stage
        if each.units.lines or number in reaches:
            reaches.update(each.blocks)
    return [
        [0.0 if source < 0 else _norm(block.dense(), number in reaches) for source, block in stage.blocks.items()]
        for number, stage in enumerate(stages.stages)
    ]


def _norm(weight: Array, near: bool) -> float:
    return spectral_norm(weight, _SQUARINGS) if near else frobenius_norm(weight)
