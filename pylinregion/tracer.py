"""The segment tracer for Python: a network's stages and the ends of segments in, breakpoints out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion import kernels
from pylinregion.errors import UnsupportedModelError
from pylinregion.line_system import check_scale
from pylinregion.stages import Stages

Array = NDArray[np.float64]
Report = Callable[[int, int], object]

_UNIT = 2.0**-53
_SQUARINGS = 6


class Tracer:
    """A network, ready for segments.

    Args:
        stages: The network. Its arrays are read when a sign needs integers, so they must stay as they are.
        inputs: All numbers that segments will be made of.

    Raises:
        UnsupportedModelError: Weights that are not finite, or so large that the outputs could overflow.
    """

    def __init__(self, stages: Stages, inputs: Sequence[Array] = ()) -> None:
        for number, stage in enumerate(stages.stages):
            if not all(np.isfinite(array).all() for array in (*stage.blocks.values(), stage.bias)):
                raise UnsupportedModelError(f"the weights of affine map {number} are NaN or infinite")
        largest = max((float(np.abs(numbers).max(initial=0.0)) for numbers in inputs), default=0.0)
        if (reason := check_scale(stages, np.full((1, 1), largest), np.ones((1, 2)))) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")
        self.stages = stages
        self._line_begins = [
            stage.units.line_begin + first for stage, first in zip(stages.stages, stages.first_lines, strict=True)
        ]
        self._problem = kernels.TraceProblem(
            stages=[
                (
                    stage.rows,
                    [(source, weight.ctypes.data) for source, weight in stage.blocks.items()],
                    stage.bias.ctypes.data,
                    begin.ctypes.data,
                    stage.units.kinks.ctypes.data,
                    stage.units.slopes.ctypes.data,
                    stage.units.intercepts.ctypes.data,
                    stage.units.denominator,
                )
                for stage, begin in zip(stages.stages, self._line_begins, strict=True)
            ],
            norms=_norms(stages),
            dimensions=stages.inputs,
        )

    def trace(
        self,
        starts: Array,
        ends: Array,
        *,
        maps: bool = True,
        threads: int = 1,
        force_exact: bool = False,
        one_window: bool = False,
        report: Report | None = None,
    ) -> dict[str, Any]:
        """Trace the segments from starts to ends.

        Args:
            starts, ends: ``[B, inputs]`` float64.
            maps: Also what the outputs are on each region.
            threads: CPU threads; the result is the same for any number.
            force_exact: Take every decision in integers (a test).
            one_window: Do not cut long segments (a test).
            report: Called with the segments done and the regions found so far, about twenty times a second.

        Returns:
            ``offsets [B + 1]`` into the breakpoints of all segments, ``t``, ``change_offsets`` into ``change_lines``
            (the lines that change at each), with ``maps`` ``[regions, outputs, 2]``: slope and value at t = 0; and how
            many decisions each stage of the proof took: ``filter``, ``exact``, of these ``zeros``.
        """
        starts, ends = _rows(starts), _rows(ends)
        return self._problem.trace(
            starts.ctypes.data, ends.ctypes.data, len(starts), maps, force_exact, one_window, threads, report
        )

    def arms(
        self,
        centres: Array,
        radii: Array,
        directions: Array,
        *,
        threads: int = 1,
        force_exact: bool = False,
        report: Report | None = None,
    ) -> dict[str, Any]:
        """Count on the arms from each centre to ``centre ± radius * direction``.

        Args:
            centres: ``[B, inputs]`` float64.
            radii: ``[B]`` float64, above 0.
            directions: ``[P, inputs]`` float64, or ``[B, P, inputs]``, those of each centre.
            threads, force_exact, report: As for :meth:`trace`; segments are centres.

        Returns:
            ``changes [B, stages]`` and ``regions [B]``, and the decisions as for :meth:`trace`.
        """
        centres, radii, directions = _rows(centres), _rows(radii), _rows(directions)
        return self._problem.arms(
            centres.ctypes.data,
            radii.ctypes.data,
            len(centres),
            directions.ctypes.data,
            directions.shape[-2],
            directions.ndim == 3,
            force_exact,
            threads,
            report,
        )


def _rows(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float64)


def _norms(stages: Stages) -> list[list[float]]:
    """Bounds of the blocks' spectral norms: near for those whose errors reach a kink, Frobenius norms for the rest."""
    reaches: set[int] = set()  # stages whose units reach kinks of later stages
    for stage in reversed(list(enumerate(stages.stages))):
        number, each = stage
        if each.units.lines or number in reaches:
            reaches.update(each.blocks)
    return [
        [
            0.0 if source < 0 else spectral_norm(weight) if number in reaches else _frobenius(weight)
            for source, weight in stage.blocks.items()
        ]
        for number, stage in enumerate(stages.stages)
    ]


def spectral_norm(weight: Array) -> float:
    """An upper bound of the spectral norm, proven, and within about 5 % of it.

    For every matrix ``|B|² = |B'B|`` in spectral norms, and ``|fl(B'B) - B'B| <= gamma |B|_F²``. So, from ``B = W``
    on, each next ``B := fl(B'B)`` gives ``|B before|² <= |B| + gamma |B before|_F²``, and the last one's Frobenius norm
    ends it; by then it is a power so high that the rank of the matrix matters little.
    """
    largest = float(np.abs(weight).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    matrix = weight if weight.shape[0] >= weight.shape[1] else weight.T
    gamma = (max(matrix.shape) + 2) * _UNIT * (1 + 1e-9)
    steps = []
    for _ in range(_SQUARINGS):
        factor = 2.0 ** -math.frexp(float(np.abs(matrix).max()))[1]  # exact but for what is too small to matter
        matrix = matrix * factor
        steps.append((factor, gamma * _frobenius(matrix) ** 2))
        matrix = matrix.T @ matrix
    bound = _frobenius(matrix)
    for factor, error in reversed(steps):
        bound = math.sqrt((bound + error) * (1 + 1e-9)) / factor
    return bound * (1 + 1e-9)


def _frobenius(matrix: Array) -> float:
    return float(np.sqrt((matrix * matrix).sum())) * (1 + 1e-9) + 1e-150
