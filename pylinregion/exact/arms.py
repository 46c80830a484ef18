"""The arms around points, folded together: the lines that may cross any arm of a point, once for all of them.

All arms of a point share its values, and all points the directions; what is left is a small system for each point,
along which each arm is looked at by itself. docs/exactness.md, 5.6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.errors import BudgetExceededError, UnsupportedModelError
from pylinregion.exact.dense_fold import DenseFolder, Star, is_chain
from pylinregion.exact.fold_room import Room, TooManyColumnsError
from pylinregion.exact.line_system import check_scale
from pylinregion.lowering.stages import Stages
from pylinregion.native import exact_engines
from pylinregion.native.exact_engines import Report

_AT_ONCE = 256  # points that are folded together, at most
_MOST_LINES = 96  # of a point that are left, on average: with more of them it takes less time to trace each arm


class ArmCounts(NamedTuple):
    """What was found on the arms of some points.

    Attributes:
        changes: ``[B, bytes]`` uint8: bit k % 8 of byte k // 8 is 1 where line k is on in a region and off in another.
        regions: ``[B]`` int64: how many patterns there are on all arms of a point.
    """

    changes: NDArray[np.uint8]
    regions: Int64s


class ArmsAround:
    """A chain of dense layers, ready for the arms around points.

    Args:
        stages: One that :func:`pylinregion.exact.dense_fold.is_chain` takes.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._folder = DenseFolder(stages)
        self._problem: Any = exact_engines.Arms(stages.arrays(), stages.inputs, stages.same_lines)
        self._rows = [max(stage.rows for stage in stages.stages)] * len(stages.stages)
        self._pays = True

    @property
    def at_once(self) -> int:
        """How many points to count together."""
        return _AT_ONCE

    @classmethod
    def of(cls, stages: Stages) -> ArmsAround | None:
        """None if the network is no such chain."""
        return cls(stages) if is_chain(stages) else None

    def count(self, star: Star, *, force_exact: bool = False, report: Report | None = None) -> ArmCounts | None:
        """Count on the arms of some points.

        Args:
            star: The points, their directions and radii.
            force_exact: Take every decision in integers (a test).
            report: Called about twenty times a second.

        Returns:
            The counts; or None: tracing each arm takes less time, or has to tell what is wrong with the numbers. What
            did not pay once is not tried again.

        Raises:
            UnsupportedModelError: Exponents so far apart that an exact decision would not fit.
        """
        if not self._pays or self._out_of_scale(star):
            return None
        try:
            systems = self._folder.fold(star, Room(2, self._rows, _MOST_LINES * len(star.points), None), cells=False)
        except (TooManyColumnsError, BudgetExceededError):
            systems = None
        if systems is None:
            self._pays = False
            return None
        try:
            found = self._problem.count(
                systems, star.directions, star.points, star.radii, force_exact=force_exact, report=report
            )
        except OverflowError as error:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}") from None
        return ArmCounts(found["changes"], found["patterns"])

    def _out_of_scale(self, star: Star) -> bool:
        numbers = [float(np.abs(each).max(initial=0.0)) for each in (star.points, star.directions)]
        radius = np.array([[float(star.radii.max(initial=0.0))]]) if star.radii is not None else np.zeros((1, 1))
        return check_scale(self._stages, np.array([[max(numbers)]]), radius) is not None


def star_of(points: Array, directions: Array, radii: Array) -> Star:
    """The arms ``x - r v_p`` to ``x + r v_p``.

    Args:
        points: ``[B, inputs]``.
        directions: ``[P, inputs]``, or ``[B, P, inputs]``: the directions of each point.
        radii: ``[B]``.
    """
    return Star(points, np.ascontiguousarray(directions if directions.ndim == 3 else directions[None]), radii)
