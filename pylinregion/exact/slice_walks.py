"""A network that is walked on slices: folded over them, and what is left enumerated by the core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.exact.breakpoints import Breakpoints
from pylinregion.exact.candidates import first_equals, groups_of, rectified_by
from pylinregion.exact.line_system import STAGES_FOR_NORMS, LineSystem
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.walk_device import WalkDevice, called, folds_on
from pylinregion.exact.walks_on_threads import SharedReport
from pylinregion.lowering.stages import Stages
from pylinregion.native import exact_engines
from pylinregion.native.exact_engines import Report

DECISIONS = ("filter", "exact", "zeros", "folds")


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

    def of_one(self) -> dict[str, Any]:
        """Of one slice, as the core's walk tells it."""
        decisions = dict(zip(DECISIONS, self.decisions[0].tolist(), strict=True))
        return {"regions": self.regions[0].tolist(), "stopped": self.stopped_at >= 0, **decisions}


class How(NamedTuple):
    """How slices are walked.

    Attributes:
        threads: Of one walk.
        force_exact: Take every decision in integers (a test).
        max_regions: Stop when a slice has more; -1: any.
        max_bytes: What folds may take; None: the memory budget.
        report: Told the regions of all walks.
    """

    threads: int
    force_exact: bool
    max_regions: int
    max_bytes: int | None
    report: SharedReport


class SliceWalks:
    """A network, ready to be walked on slices.

    Args:
        stages: The network.
        central: All lines pass through s = t = 0, whatever the pattern.
        device: Where it is folded and walked; None: on the CPU.
    """

    def __init__(self, stages: Stages, central: bool = False, device: WalkDevice | None = None) -> None:
        self.stages, self._device = stages, device
        self.folder = SliceFolder(stages, device=folds_on(device))
        self._problem: Any = exact_engines.ManySlices(
            exact_stages=stages.arrays(),
            dimensions=stages.inputs,
            groups=groups_of(stages),
            zero=rectified_by(stages),
            same=first_equals(stages),
            multiples=stages.same_lines,
            central=central,
        )

    def count(self, systems: SliceSystems, slices: Slices, how: How, **asked: bool) -> dict[str, Any]:
        """What the core counts on folded slices; of one alone with ``pieces=True`` along its borders, too."""
        try:
            found = called(
                self._device,
                self._problem.count,
                core_arrays(systems, slices, norms=asked.get("pieces", False)),
                threads=how.threads,
                force_exact=how.force_exact,
                max_regions=how.max_regions,
                report=how.report.of_one(),
                **asked,
            )
        except OverflowError as error:
            raise _too_far_apart(error) from None
        return found

    def cells(self, systems: SliceSystems, slice_: Slices, how: How, max_bytes: int | None) -> dict[str, Any]:
        """The cells of one folded slice, one by one, and what is along its borders."""
        limits = -1, how.max_regions, -1 if max_bytes is None else max_bytes
        report, arrays = how.report.of_one(), core_arrays(systems, slice_, norms=True)
        try:
            found = called(
                self._device,
                self._problem.enumerate,
                arrays,
                True,
                how.threads,
                0,
                1,
                how.force_exact,
                *limits,
                report,
                pieces=True,
            )
        except OverflowError as error:
            raise _too_far_apart(error) from None
        return found

    def trace(
        self, systems: SliceSystems, segments: Slices, threads: int, force_exact: bool, report: Report | None
    ) -> Breakpoints:
        """The breakpoints of folded segments."""
        arrays = core_arrays(systems, segments, norms=len(segments) == 1)
        try:
            found = called(
                self._device, self._problem.trace, arrays, threads=threads, force_exact=force_exact, report=report
            )
        except OverflowError as error:
            raise _too_far_apart(error) from None
        return Breakpoints.of(found)

    def enumerate(self, arrays: dict[str, Any], *arguments: Any) -> dict[str, Any]:
        """The core's walk along one slice, from :func:`core_arrays` of it."""
        return called(self._device, self._problem.enumerate, arrays, *arguments)


def core_arrays(systems: SliceSystems, slices: Slices, norms: bool = False) -> dict[str, Any]:
    """What the core reads of them.

    Args:
        systems: Their fold.
        slices: The same.
        norms: Of one slice alone, also bounds by norms, where there are enough stages.
    """
    arrays = {each.name: getattr(systems, each.name) for each in fields(systems) if each.name != "affine"}
    arrays |= dict(zip("abc", systems.affine, strict=True))
    if slices.borders is not None:
        arrays["borders"] = slices.borders
    plane = {"u": slices.u, "v": slices.v, "origin": slices.origins, "corners": slices.corners}
    given: dict[str, Any] = {name: np.ascontiguousarray(array) for name, array in (arrays | plane).items()}
    if norms and systems.stage_begin.shape[1] > STAGES_FOR_NORMS:
        given["norms"] = _norms(systems)
    return given


def _norms(systems: SliceSystems) -> Array | None:
    """Norms of what the rows of a folded slice take from each other (docs/exactness.md, 5.1)."""
    begins = systems.stage_begin[0].tolist()
    rows = begins[-1]
    matrix = systems.columns.reshape(rows, rows + 8)
    columns = [matrix[begin:end, end:] for begin, end in pairwise(begins)]
    nothing = np.zeros(0)
    return LineSystem(begins, [], (nothing,) * 4, columns, [rows] * len(columns)).norms()


def _too_far_apart(error: OverflowError) -> UnsupportedModelError:
    """Of exponents, for the integers of the exact stage."""
    return UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}")
