"""The slice engine on many slices of one network: what does not depend on the slice is made once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pylinregion._util import memory
from pylinregion._util.errors import BudgetExceededError, UnsupportedModelError
from pylinregion.caller.torch_settings import on_threads
from pylinregion.exact.breakpoints import Breakpoints
from pylinregion.exact.fold_room import TooManyColumnsError, bytes_of_fold
from pylinregion.exact.line_system import check_scale
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.slice_walks import How, SliceCounts, SliceWalks
from pylinregion.exact.tiled_slice import cells_in_tiles, count_in_tiles
from pylinregion.exact.walk_device import WalkDevice
from pylinregion.exact.walks_on_threads import SharedReport, in_order
from pylinregion.lowering.stages import Stages
from pylinregion.native.exact_engines import Report

_ROWS_OF_ITS_OWN = 3  # of a slice
_FULL = 0.7  # of the columns that are held, which are planned for
_GROWTH = 16  # of slices, from one time to the next, at most


class ManySlices:
    """A network, ready to be enumerated on slices.

    Args:
        stages: The network.
        central: All lines pass through s = t = 0, whatever the pattern.
        device: Where they are folded and walked; None: on the CPU.
    """

    def __init__(self, stages: Stages, central: bool = False, device: WalkDevice | None = None) -> None:
        self.stages = stages
        self._on_the_cpu = device is None
        self._walks = SliceWalks(stages, central, device)

    def count(
        self,
        slices: Slices,
        *,
        threads: int = 1,
        force_exact: bool = False,
        max_regions: int | None = None,
        max_bytes: int | None = None,
        report: Report | None = None,
    ) -> SliceCounts:
        """Count the regions of slices, folded together; one that does not fit is cut into tiles. No cell is kept.

        Args:
            slices: Where.
            threads: The result is the same for any number.
            force_exact: Take every decision in integers (a test).
            max_regions: Stop when a slice has more.
            max_bytes: What folds may take; None: the memory budget.
            report: Called with the regions found so far, about twenty times a second.

        Raises:
            UnsupportedModelError: Numbers so large that the bounds could overflow, or exponents so far apart that an
                exact decision would not fit.
            BudgetExceededError: The fold of a small part of one slice takes more than ``max_bytes``.
        """
        self.check_scale(slices)
        workers = max(1, min(threads, len(slices))) if self._on_the_cpu else 1
        if workers > 1:
            max_bytes = memory.budget(max_bytes) // workers
        limit = -1 if max_regions is None else max_regions
        how = How(threads if workers == 1 else 1, force_exact, limit, max_bytes, SharedReport(report))
        size = max(1, -(-len(slices) // workers))
        parts = [slices.part(slice(begin, begin + size)) for begin in range(0, max(1, len(slices)), size)]
        found: list[SliceCounts] = []
        with on_threads(threads) if how.threads > 1 else contextlib.nullcontext():  # a fold is torch's operators
            for counts in in_order(parts, lambda part: list(self._counted(part, how)), workers, how.report):
                found += counts
                if found[-1].stopped_at >= 0:
                    break
        return SliceCounts.joined(found)

    def _counted(self, slices: Slices, how: How) -> Iterator[SliceCounts]:
        """Slices, as many at a time as are held; none behind one that has too many regions."""
        for part, systems in self.folded(slices, how.max_bytes):
            if isinstance(systems, BudgetExceededError):
                counts = count_in_tiles(self._walks, part, how)
            else:
                found = self._walks.count(systems, part, how)
                counts = SliceCounts(**found, rows=np.diff(systems.begin))
            yield counts
            if counts.stopped_at >= 0:
                return

    def in_tiles(
        self,
        slice_: Slices,
        *,
        cells: bool,
        threads: int,
        force_exact: bool,
        max_regions: int,
        max_bytes: int | None,
        max_bytes_of_cells: int | None,
        report: Report | None,
    ) -> dict[str, Any]:
        """Enumerate one slice in tiles: what :meth:`enumerate` gives.

        Args:
            slice_: Where.
            cells: Whether its mesh is wanted.
            threads, force_exact, max_bytes, report: As of :meth:`count`.
            max_regions: Stop when there are more; -1: any.
            max_bytes_of_cells: Stop when they take more.

        Raises:
            UnsupportedModelError, BudgetExceededError: As of :meth:`count`.
        """
        how = How(threads, force_exact, max_regions, max_bytes, SharedReport(report))
        if cells:
            return cells_in_tiles(self._walks, slice_, how, max_bytes_of_cells)
        return count_in_tiles(self._walks, slice_, how).of_one()

    def bytes_of(self, rows: int, slice_: Slices) -> int:
        """What the fold of a slice takes that leaves so many rows, in the stages in which a smaller one leaves its."""
        folder = self._walks.folder
        births = folder.fold(slice_).stage_begin[0]
        share = rows / max(1, births[-1])
        return bytes_of_fold(math.ceil(share * folder.network.columns_all_along(births)), folder.widest)

    def trace(
        self, systems: SliceSystems, segments: Slices, *, threads: int, force_exact: bool, report: Report | None
    ) -> Breakpoints:
        """The breakpoints of segments that have been folded, by s from the lower end to the upper, without maps.

        Args:
            systems: Their fold.
            segments: The same.
            threads, force_exact, report: As for :meth:`count`.

        Raises:
            UnsupportedModelError: As of :meth:`count`.
        """
        return self._walks.trace(systems, segments, threads, force_exact, report)

    def folded(
        self, slices: Slices, max_bytes: int | None, cells: bool = False
    ) -> Iterator[tuple[Slices, SliceSystems | BudgetExceededError]]:
        """Slices of a scale that :meth:`check_scale` lets through, folded: as many at a time as are held.

        Args:
            slices: Where.
            max_bytes: What the fold of one may take; None: the memory budget.
            cells: Whether corners of cells will be asked for.

        Yields:
            Some slices, one part behind the other, and their fold; or that the fold of the one takes too much.
        """
        begin, count = 0, len(slices)
        while True:
            part = slices.part(slice(begin, begin + count))
            systems: SliceSystems | BudgetExceededError
            try:
                systems = self._walks.folder.fold(part, max_bytes, cells)
            except (TooManyColumnsError, BudgetExceededError) as error:
                if len(part) > 1:
                    count = len(part) // 2
                    continue
                systems = BudgetExceededError(str(error), 1)  # without all that its traceback holds
            yield part, systems
            begin += len(part)
            if begin >= len(slices):
                return
            if isinstance(systems, SliceSystems):
                columns = _ROWS_OF_ITS_OWN + float(systems.begin[-1]) / len(part)
                count = max(1, int(min(_FULL * self._walks.folder.most_columns / columns, _GROWTH * len(part))))

    def enumerate(self, arrays: dict[str, Any], *arguments: Any) -> dict[str, Any]:
        """The core's walk along one slice, from :func:`~pylinregion.exact.slice_walks.core_arrays` of it."""
        return self._walks.enumerate(arrays, *arguments)

    def check_scale(self, slices: Slices) -> None:
        """Raise an ``UnsupportedModelError`` for slices on which the bounds could overflow."""
        if not len(slices):
            return
        u, v, origins = (np.abs(x).max(axis=1, initial=0.0) for x in (slices.u, slices.v, slices.origins))
        plane = np.maximum(origins, np.maximum(u, v))
        corners = np.abs(slices.corners).max(axis=(1, 2))
        worst = int(np.argmax(np.maximum(plane, 1) * np.maximum(corners, 1)))
        if (reason := check_scale(self.stages, plane[worst : worst + 1], corners[worst : worst + 1])) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")
