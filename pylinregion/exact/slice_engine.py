"""The slice engine for Python: a network's stages and a polygon in, cells out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.exact.candidates import first_equals, groups_of, rectified_by
from pylinregion.exact.line_system import check_scale, line_system
from pylinregion.lowering.stages import Stages
from pylinregion.native.exact_engines import MeshOfParts, SliceProblem

Array = NDArray[np.float64]

_STAGES_FOR_NORMS = 4  # in networks with fewer layers the bounds of single rows are as good, and cheaper


class Engine:
    """A network on one slice or segment, ready to be enumerated.

    Args:
        stages: The network.
        plane: ``[inputs, 3]`` float64: u, v and the origin; for a segment v is 0.
        corners: ``[n, 2]`` float64, counter-clockwise and strictly convex; ``[2, 2]`` on the first axis: a segment.

    Raises:
        UnsupportedModelError: Weights so large that the bounds could overflow.
    """

    def __init__(self, stages: Stages, plane: Array, corners: Array) -> None:
        self.stages = stages
        self.plane = np.ascontiguousarray(plane, dtype=np.float64)
        self.corners = np.ascontiguousarray(corners, dtype=np.float64)
        if (reason := check_scale(stages, self.plane, self.corners)) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")
        self.system = line_system(stages, self.plane, self.corners)
        self._u, self._v, self._origin = (np.ascontiguousarray(self.plane[:, k]) for k in range(3))
        self._zero, self._same, self._multiples = rectified_by(stages), first_equals(stages), stages.same_lines
        system = self.system
        self._norms = system.norms() if len(system.columns) >= _STAGES_FOR_NORMS else None
        self._problem: Any = SliceProblem(
            stages=[
                (begin, end, extent, columns.ctypes.data, columns.shape[1])
                for begin, end, extent, columns in zip(
                    system.begins[:-1], system.begins[1:], system.extents, system.columns, strict=True
                )
            ],
            lines=system.begins[-1],
            **{name: values.ctypes.data for name, values in zip(("a", "b", "c", "error"), system.affine, strict=True)},
            norms=0 if self._norms is None else self._norms.ctypes.data,
            corners=self.corners.ctypes.data,
            n_corners=len(self.corners),
            exact_stages=stages.addresses(),
            dimensions=len(self.plane),
            u=self._u.ctypes.data,
            v=self._v.ctypes.data,
            origin=self._origin.ctypes.data,
            groups=groups_of(stages),
            zero=self._zero.ctypes.data,
            same=self._same.ctypes.data,
            multiples=self._multiples.ctypes.data,
            central=not self.plane[:, 2].any() and stages.pass_through_zero,
        )

    def enumerate(
        self,
        *,
        cells: bool,
        threads: int = 1,
        part: tuple[int, int] = (0, 0),
        force_exact: bool = False,
        fold_ahead: int | None = None,
        max_regions: int | None = None,
        max_bytes: int | None = None,
        report: Callable[[int], object] | None = None,
    ) -> dict[str, Any]:
        """Enumerate.

        Args:
            cells: Keep the cells, or only count.
            threads: CPU threads; the result is the same for any number.
            part: Which part of how many to do; put together in order they are the whole. Of 0: the whole itself.
            force_exact: Take every decision in integers (a test).
            fold_ahead: Stages to fold ahead at every chance; 0: never fold again below the root (the arithmetic then
                has another order: tests). None: as many as pay, where it pays.
            max_regions, max_bytes: Stop when there are more regions, or their cells take more.
            report: Called with the regions found so far, about twenty times a second.

        Returns:
            ``regions`` per stage with lines, ``stopped``, and how many decisions each stage of the proof took
            (``filter``, ``exact``, of these ``zeros``); with ``cells`` the mesh, or of a part its cells one by one, of
            which :func:`mesh_of_parts` makes the mesh.

        Raises:
            UnsupportedModelError: Exponents of weights so far apart that an exact decision would not fit.
        """
        limits = [-1 if limit is None else limit for limit in (fold_ahead, max_regions, max_bytes)]
        try:
            result: dict[str, Any] = self._problem.enumerate(cells, threads, *part, force_exact, *limits, report)
        except OverflowError as error:  # exponents too far apart for the integers of the exact stage
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}") from None
        return result


def mesh_of_parts(parts: Iterable[dict[str, Any]], lines: int) -> dict[str, Any]:
    """The mesh that :meth:`Engine.enumerate` would have given, from all its parts in order.

    Args:
        parts: What it gave with ``cells`` for each.
        lines: Of the network.

    Raises:
        RuntimeError: They are not the parts of one walk.
    """
    mesh: Any = MeshOfParts((lines + 7) // 8)
    for cells in parts:
        names = ("offsets", "xy", "keys", "rows", "patterns")
        mesh.add(len(cells["offsets"]) - 1, *(cells[name].ctypes.data for name in names))
    result: dict[str, Any] = mesh.take()
    return result
