"""The slice engine on many slices of one network: what does not depend on the slice is made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Int64s
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.exact.candidates import first_equals, groups_of, rectified_by
from pylinregion.exact.line_system import check_scale
from pylinregion.exact.slice_fold import SliceFolder, Slices, TooManyColumnsError
from pylinregion.lowering.stages import Stages
from pylinregion.native import exact_engines
from pylinregion.native.exact_engines import Report


class SliceCounts(NamedTuple):
    """What was found on some slices.

    Attributes:
        regions: ``[B]`` int64.
        changes: ``[B, bytes]`` uint8: bit k % 8 of byte k // 8 is 1 where line k is not on one side all over the slice.
        filter, exact, zeros: Decisions that float64 took, that integers took, and of these exact zeros.
        folds: How often a system was folded again.
        rows: ``[B]`` int64: lines that the first fold left.
    """

    regions: Int64s
    changes: NDArray[np.uint8]
    filter: int
    exact: int
    zeros: int
    folds: int
    rows: Int64s

    @classmethod
    def joined(cls, parts: Sequence[SliceCounts]) -> SliceCounts:
        """Of some slices, and then others."""

        def together(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        def total(name: str) -> int:
            return sum(getattr(part, name) for part in parts)

        return cls(
            together("regions"),
            together("changes"),
            *(total("filter"), total("exact"), total("zeros"), total("folds")),
            together("rows"),
        )


class ManySlices:
    """A network, ready to be enumerated on slices.

    Args:
        stages: The network.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self._folder = SliceFolder(stages)
        self._problem: Any = exact_engines.ManySlices(
            exact_stages=stages.arrays(),
            dimensions=stages.inputs,
            groups=groups_of(stages),
            zero=rectified_by(stages),
            same=first_equals(stages),
            multiples=stages.same_lines,
        )

    def count(
        self, slices: Slices, *, threads: int = 1, force_exact: bool = False, report: Report | None = None
    ) -> SliceCounts:
        """Count the regions of slices, folded together. No cell is kept.

        Args:
            slices: Where.
            threads: For each slice, one after another; the result is the same for any number.
            force_exact: Take every decision in integers (a test).
            report: Called with the regions found so far, about twenty times a second.

        Raises:
            UnsupportedModelError: Numbers so large that the bounds could overflow, or exponents so far apart that an
                exact decision would not fit.
        """
        self._check_scale(slices)
        try:
            systems = self._folder.fold(slices)
        except TooManyColumnsError:
            half = len(slices) // 2
            how: dict[str, Any] = {"threads": threads, "force_exact": force_exact, "report": report}
            parts = (slices.part(slice(0, half)), slices.part(slice(half, len(slices))))
            return SliceCounts.joined([self.count(part, **how) for part in parts])
        a, b, c = systems.affine
        try:
            found: dict[str, Any] = self._problem.count(
                begin=systems.begin,
                stage_begin=systems.stage_begin,
                line=systems.line,
                on=systems.on,
                a=a,
                b=b,
                c=c,
                error=systems.error,
                columns=systems.columns,
                u=slices.u,
                v=slices.v,
                origin=slices.origins,
                corners=slices.corners,
                threads=threads,
                force_exact=force_exact,
                report=report,
            )
        except OverflowError as error:  # exponents too far apart for the integers of the exact stage
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}") from None
        return SliceCounts(**found, rows=np.diff(systems.begin))

    def _check_scale(self, slices: Slices) -> None:
        if not len(slices):
            return
        u, v, origins = (np.abs(x).max(axis=1, initial=0.0) for x in (slices.u, slices.v, slices.origins))
        plane = np.maximum(origins, np.maximum(u, v))
        corners = np.abs(slices.corners).max(axis=(1, 2))
        worst = int(np.argmax(np.maximum(plane, 1) * np.maximum(corners, 1)))
        if (reason := check_scale(self.stages, plane[worst : worst + 1], corners[worst : worst + 1])) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")
