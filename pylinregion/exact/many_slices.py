"""The slice engine on many slices of one network: what does not depend on the slice is made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util import memory
from pylinregion._util.arrays import Int64s
from pylinregion._util.errors import BudgetExceededError, UnsupportedModelError
from pylinregion.exact.candidates import first_equals, groups_of, rectified_by
from pylinregion.exact.line_system import check_scale
from pylinregion.exact.slice_fold import SliceFolder, TooManyColumnsError, bytes_of_fold
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.tile_walks import on_tiles, tiled, tiles_a_side
from pylinregion.exact.tiled_counts import TileCounts, changes_together, is_generic, regions_together
from pylinregion.exact.walks_on_threads import SharedReport, in_order
from pylinregion.geometry.tiles import Tile
from pylinregion.lowering.stages import Stages
from pylinregion.native import exact_engines
from pylinregion.native.exact_engines import Report


class SliceCounts(NamedTuple):
    """What was found on some slices.

    Attributes:
        regions: ``[B, stages with lines]`` int64: the regions after each stage.
        changes: ``[B, bytes]`` uint8: bit k % 8 of byte k // 8 is 1 where line k is not on one side all over the slice.
        decisions: ``[B, 4]`` int64: those that float64 took and that integers took, of these exact zeros, and how often
            a system was folded again.
        rows: ``[B]`` int64: lines that the first fold left.
        stopped_at: The slice that has more regions than were allowed, whose count is a lower bound, and those behind it
            were not looked at; -1: none.
    """

    regions: Int64s
    changes: NDArray[np.uint8]
    decisions: Int64s
    rows: Int64s
    stopped_at: int

    @classmethod
    def joined(cls, parts: Sequence[SliceCounts]) -> SliceCounts:
        """Of slices one part behind the other; only the last part may have stopped."""
        behind = sum(len(part.regions) for part in parts[:-1])
        return cls(
            regions=np.concatenate([part.regions for part in parts]),
            changes=np.concatenate([part.changes for part in parts]),
            decisions=np.concatenate([part.decisions for part in parts]),
            rows=np.concatenate([part.rows for part in parts]),
            stopped_at=behind + parts[-1].stopped_at if parts[-1].stopped_at >= 0 else -1,
        )


class _How(NamedTuple):
    """How slices are counted."""

    threads: int
    force_exact: bool
    max_regions: int  # -1: any
    max_bytes: int
    report: SharedReport


class _TooManyRegionsError(Exception):
    """A tile alone has more regions than its slice may; ``regions`` are those after each stage."""

    def __init__(self, regions: Int64s) -> None:
        super().__init__()
        self.regions = regions


class ManySlices:
    """A network, ready to be enumerated on slices.

    Args:
        stages: The network.
        central: All lines pass through s = t = 0, whatever the pattern.
    """

    def __init__(self, stages: Stages, central: bool = False) -> None:
        self.stages = stages
        self._folder = SliceFolder(stages)
        self._problem: Any = exact_engines.ManySlices(
            exact_stages=stages.arrays(),
            dimensions=stages.inputs,
            groups=groups_of(stages),
            zero=rectified_by(stages),
            same=first_equals(stages),
            multiples=stages.same_lines,
            central=central,
        )

    def count(
        self,
        slices: Slices,
        *,
        threads: int = 1,
        force_exact: bool = False,
        max_regions: int | None = None,
        max_bytes: int | None = None,
        report: Report | None = None,
        whole: bool = True,
    ) -> SliceCounts:
        """Count the regions of slices, folded together; one that does not fit is cut into tiles. No cell is kept.

        Args:
            slices: Where.
            threads: The result is the same for any number.
            force_exact: Take every decision in integers (a test).
            max_regions: Stop when a slice has more.
            max_bytes: What folds may take; None: the memory budget.
            report: Called with the regions found so far, about twenty times a second.
            whole: Fold slices as a whole where they fit; False: one is known not to.

        Raises:
            UnsupportedModelError: Numbers so large that the bounds could overflow, or exponents so far apart that an
                exact decision would not fit.
            BudgetExceededError: The fold of a small part of one slice takes more than ``max_bytes``.
        """
        self._check_scale(slices)
        workers = max(1, min(threads, len(slices)))
        limit = -1 if max_regions is None else max_regions
        alone = threads if workers == 1 else 1
        how = _How(alone, force_exact, limit, memory.budget(max_bytes) // workers, SharedReport(report))
        if not whole:
            return self._in_tiles(slices, how)
        size = -(-len(slices) // workers) if len(slices) else 1
        parts = [slices.part(slice(begin, begin + size)) for begin in range(0, max(1, len(slices)), size)]
        found: list[SliceCounts] = []
        for counts in in_order(parts, lambda part: list(self._counted(part, how)), workers, how.report):
            found += counts
            if found[-1].stopped_at >= 0:
                break
        return SliceCounts.joined(found)

    def _counted(self, slices: Slices, how: _How) -> Iterator[SliceCounts]:
        """Slices, as many at a time as are held; none behind one that has too many regions."""
        for part, systems in self._folded(slices, how.max_bytes):
            if systems is None:
                counts = self._in_tiles(part, how)
            else:
                found = self._walked(core_arrays(systems, part), how)
                counts = SliceCounts(**found, rows=np.diff(systems.begin))
            yield counts
            if counts.stopped_at >= 0:
                return

    def _walked(self, arrays: dict[str, Any], how: _How, **asked: bool) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._problem.count(
                arrays,
                threads=how.threads,
                force_exact=how.force_exact,
                max_regions=how.max_regions,
                report=how.report.of_one(),
                **asked,
            )
        except OverflowError as error:  # exponents too far apart for the integers of the exact stage
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}") from None
        return found

    def _in_tiles(self, slice_: Slices, how: _How) -> SliceCounts:
        """One slice, whose tiles go to threads."""
        each = how._replace(threads=1, max_bytes=how.max_bytes // how.threads)

        def fold(tile: Tile) -> SliceSystems:
            return self._folder.fold(tiled(slice_, tile), each.max_bytes)

        def look(tile: Tile) -> TileCounts:
            systems = fold(tile)
            found = self._walked(core_arrays(systems, tiled(slice_, tile)), each, pieces=True)
            if found.pop("stopped_at") >= 0:
                raise _TooManyRegionsError(found["regions"])
            return TileCounts(**{name: array[0] for name, array in found.items()}, rows=int(systems.begin[-1]))

        count = tiles_a_side(slice_, self._folder.widest, each.max_bytes, lambda tile: int(fold(tile).begin[-1]))
        try:
            for tiles in on_tiles(slice_, count, look, how.threads, how.report):
                if all(is_generic(*tile) for tile in tiles):
                    return _joined(tiles, how.max_regions)
        except _TooManyRegionsError as error:
            return _stopped(error.regions, self.stages)
        raise AssertionError  # on_tiles gives tilings, or raises

    def bytes_of(self, rows: int) -> int:
        """What the fold of one slice takes that leaves so many rows."""
        return bytes_of_fold(rows, self._folder.widest)

    def folded_alone(self, slice_: Slices, max_bytes: int | None = None) -> SliceSystems:
        """One slice, folded.

        Raises:
            UnsupportedModelError, BudgetExceededError: As of :meth:`count`.
        """
        self._check_scale(slice_)
        return self._folder.fold(slice_, max_bytes)

    def enumerate(self, arrays: dict[str, Any], *arguments: Any) -> dict[str, Any]:
        """The core's walk along one slice, from :func:`core_arrays` of it."""
        found: dict[str, Any] = self._problem.enumerate(arrays, *arguments)
        return found

    def _folded(self, slices: Slices, max_bytes: int) -> Iterator[tuple[Slices, SliceSystems | None]]:
        """As many slices at a time as are held; None: one does not fit."""
        try:
            systems = self._folder.fold(slices, max_bytes)
        except TooManyColumnsError:
            half = len(slices) // 2
            yield from self._folded(slices.part(slice(0, half)), max_bytes)
            yield from self._folded(slices.part(slice(half, len(slices))), max_bytes)
        except BudgetExceededError:
            yield slices, None
        else:
            yield slices, systems

    def _check_scale(self, slices: Slices) -> None:
        if not len(slices):
            return
        u, v, origins = (np.abs(x).max(axis=1, initial=0.0) for x in (slices.u, slices.v, slices.origins))
        plane = np.maximum(origins, np.maximum(u, v))
        corners = np.abs(slices.corners).max(axis=(1, 2))
        worst = int(np.argmax(np.maximum(plane, 1) * np.maximum(corners, 1)))
        if (reason := check_scale(self.stages, plane[worst : worst + 1], corners[worst : worst + 1])) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")


def core_arrays(systems: SliceSystems, slices: Slices) -> dict[str, Any]:
    """What the core reads of them."""
    arrays = {each.name: getattr(systems, each.name) for each in fields(systems) if each.name != "affine"}
    arrays |= dict(zip("abc", systems.affine, strict=True))
    if slices.borders is not None:
        arrays["borders"] = slices.borders
    plane = {"u": slices.u, "v": slices.v, "origin": slices.origins, "corners": slices.corners}
    return {name: np.ascontiguousarray(array) for name, array in (arrays | plane).items()}


def _joined(tiles: Sequence[tuple[Tile, TileCounts]], max_regions: int) -> SliceCounts:
    """The counts of a slice from those of its tiles, which are generic."""
    found = [counts for _, counts in tiles]
    regions = regions_together(tiles)
    return SliceCounts(
        regions=regions[None],
        changes=changes_together(found)[None],
        decisions=np.sum([counts.decisions for counts in found], axis=0)[None],
        rows=np.array([sum(counts.rows for counts in found)]),
        stopped_at=0 if 0 <= max_regions < regions[-1:].sum() else -1,
    )


def _stopped(regions: Int64s, stages: Stages) -> SliceCounts:
    """Of a slice that has at least so many regions, which are too many."""
    nothing = np.zeros((1, (stages.lines + 7) // 8), np.uint8)
    return SliceCounts(regions, nothing, np.zeros((1, 4), np.int64), np.zeros(1, np.int64), 0)
