"""The slice engine on many slices of one network: what does not depend on the slice is made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Int64s
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.exact.candidates import first_equals, groups_of, rectified_by
from pylinregion.exact.line_system import check_scale
from pylinregion.exact.slice_fold import SliceFolder, TooManyColumnsError
from pylinregion.exact.slice_systems import Slices, SliceSystems
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
        report: Report | None = None,
    ) -> SliceCounts:
        """Count the regions of slices, folded together. No cell is kept.

        Args:
            slices: Where.
            threads: For each slice, one after another; the result is the same for any number.
            force_exact: Take every decision in integers (a test).
            max_regions: Stop when a slice has more.
            report: Called with the regions found so far, about twenty times a second.

        Raises:
            UnsupportedModelError: Numbers so large that the bounds could overflow, or exponents so far apart that an
                exact decision would not fit.
            BudgetExceededError: The fold of one slice takes more than the memory budget.
        """
        self._check_scale(slices)
        limit = -1 if max_regions is None else max_regions
        found: list[SliceCounts] = []
        for part, systems in self._folded(slices):
            try:
                counts: dict[str, Any] = self._problem.count(
                    core_arrays(systems, part),
                    threads=threads,
                    force_exact=force_exact,
                    max_regions=limit,
                    report=report,
                )
            except OverflowError as error:  # exponents too far apart for the integers of the exact stage
                raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}") from None
            found.append(SliceCounts(**counts, rows=np.diff(systems.begin)))
            if found[-1].stopped_at >= 0:
                break
        return SliceCounts.joined(found)

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

    def _folded(self, slices: Slices) -> Iterator[tuple[Slices, SliceSystems]]:
        """As many slices at a time as are held."""
        try:
            systems = self._folder.fold(slices)
        except TooManyColumnsError:
            half = len(slices) // 2
            yield from self._folded(slices.part(slice(0, half)))
            yield from self._folded(slices.part(slice(half, len(slices))))
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
    plane = {"u": slices.u, "v": slices.v, "origin": slices.origins, "corners": slices.corners}
    return {name: np.ascontiguousarray(array) for name, array in (arrays | plane).items()}
