"""The slice engine for Python: a network's stages and a polygon in, cells out."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.errors import BudgetExceededError, UnsupportedModelError
from pylinregion.exact.candidates import first_equals, groups_of, rectified_by
from pylinregion.exact.line_system import STAGES_FOR_NORMS, check_scale, line_system
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.pattern_table import Patterns, PatternTable
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.slice_walks import core_arrays
from pylinregion.exact.walk_device import WalkDevice, called
from pylinregion.geometry.mesh import Mesh, narrow
from pylinregion.lowering.stages import MOST_LINES_AT_ONCE, Stages
from pylinregion.native.exact_engines import MeshOfParts, Report, SliceProblem


@dataclass(frozen=True, eq=False)
class EngineCells(Mesh):
    """The cells of a slice: a mesh, and which rows cut it.

    Attributes:
        edge_rows: ``[E]`` int32: a row that is 0 along each edge: the number of a line, or behind all lines that of a
            pair of candidates; negative on the border.
        patterns: ``[R, bytes]`` uint8: bit k % 8 of byte k // 8 is 1 where line k is above 0.
    """

    edge_rows: NDArray[np.int32]
    patterns: Patterns


@dataclass(frozen=True, eq=False)
class PartCells:
    """The cells of a part of a walk, each with corners of its own; :func:`mesh_of_parts` joins them.

    On a segment a cell is a piece with two corners.

    Attributes:
        offsets: ``[R + 1]`` int64: the corners of each cell.
        xy: ``[corners, 2]`` float64.
        keys: ``[corners, 2]`` uint64: names of vertices.
        rows: ``[corners]`` int32: the row along the edge behind each corner.
        patterns: As of :class:`EngineCells`.
    """

    offsets: NDArray[np.int64]
    xy: Array
    keys: NDArray[np.uint64]
    rows: NDArray[np.int32]
    patterns: NDArray[np.uint8]


Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Enumeration(Generic[Kept]):
    """What the engine found.

    Attributes:
        regions: How many regions there are after each stage with lines; of a part, those that begin in it.
        stopped: Whether it came to a limit, and the rest is not there.
        filter: Decisions that float64 took.
        exact: Decisions that integers took.
        zeros: Of these, exact zeros.
        cells: None if they were not kept.
        folds: How often a system was folded.
    """

    regions: list[int]
    stopped: bool
    filter: int
    exact: int
    zeros: int
    cells: Kept | None
    folds: int = 0

    @property
    def n_regions(self) -> int:
        """The regions of the last stage; where it stopped, those found so far."""
        return max(self.regions, default=1)


class SliceWalk(abc.ABC):
    """A network on one slice or segment, ready to be enumerated; see :func:`engine_of`.

    Attributes:
        stages: The network.
        refused: Why no part of the walk can be had, but only the whole slice, tile by tile; None: parts can.
    """

    stages: Stages
    refused: BudgetExceededError | None = None
    _lines: Int64s | None = None  # those that a pattern of the core is of; None: all
    _everywhere: NDArray[np.uint8] | None = None  # which of the others are on

    @abc.abstractmethod
    def _walk_core(self, *arguments: Any) -> dict[str, Any]:
        """Call the core's walk."""

    def enumerate(
        self,
        *,
        cells: bool,
        threads: int = 1,
        force_exact: bool = False,
        fold_ahead: int | None = None,
        max_regions: int | None = None,
        max_bytes: int | None = None,
        report: Report | None = None,
    ) -> Enumeration[EngineCells]:
        """Enumerate the slice.

        Args:
            cells: Keep the cells, or only count.
            threads: CPU threads; the result is the same for any number.
            force_exact: Take every decision in integers (a test).
            fold_ahead: Stages to fold ahead at every chance; 0: never fold again below the root (the arithmetic then
                has another order: tests). None: as many as pay, where it pays.
            max_regions, max_bytes: Stop when there are more regions, or their cells take more.
            report: Called with the regions found so far, about twenty times a second.

        Raises:
            UnsupportedModelError: Exponents of weights so far apart that an exact decision would not fit.
        """
        found = self._walk((0, 0), cells, threads, force_exact, fold_ahead, max_regions, max_bytes, report)
        return _enumeration(found, _mesh(found, self._patterns(found)) if "indices" in found else None)

    def enumerate_part(
        self,
        part: int,
        parts: int,
        *,
        cells: bool,
        threads: int = 1,
        force_exact: bool = False,
        fold_ahead: int | None = None,
        max_bytes: int | None = None,
    ) -> Enumeration[PartCells]:
        """Enumerate a part of how many; put together in order they are the whole. Of a segment, its pieces.

        Args:
            part, parts: Which of how many.
            cells, threads, force_exact, fold_ahead, max_bytes: As for :meth:`enumerate`.

        Raises:
            UnsupportedModelError: Likewise.
        """
        found = self._walk((part, parts), cells, threads, force_exact, fold_ahead, None, max_bytes, None)
        return _enumeration(found, _cells(found, self._patterns(found)) if cells else None)

    def _walk(
        self,
        part: tuple[int, int],
        cells: bool,
        threads: int,
        force_exact: bool,
        fold_ahead: int | None,
        max_regions: int | None,
        max_bytes: int | None,
        report: Report | None,
    ) -> dict[str, Any]:
        limits = [-1 if limit is None else limit for limit in (fold_ahead, max_regions, max_bytes)]
        try:
            found = self._walk_core(cells, threads, *part, force_exact, *limits, report)
        except OverflowError as error:  # exponents too far apart for the integers of the exact stage
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {error}") from None
        return found

    def _patterns(self, found: dict[str, Any]) -> Patterns:
        if isinstance(found["patterns"], PatternTable):
            return found["patterns"]
        if self._lines is None or self._everywhere is None:
            return np.asarray(found["patterns"])
        return PatternTable(self._everywhere, self._lines, found["patterns"])


class Engine(SliceWalk):
    """A network on one slice or segment, as a dense system of all its lines.

    Args:
        stages: The network.
        plane: ``[inputs, 3]`` float64: u, v and the origin; for a segment v is 0.
        corners: ``[n, 2]`` float64, counter-clockwise and strictly convex; ``[2, 2]`` on the first axis: a segment.
        device: Where walks are; None: on the CPU.

    Attributes:
        core: The core's.

    Raises:
        UnsupportedModelError: Weights so large that the bounds could overflow.
    """

    def __init__(self, stages: Stages, plane: Array, corners: Array, device: WalkDevice | None = None) -> None:
        self.stages, self._device = stages, device
        self.plane = np.ascontiguousarray(plane, dtype=np.float64)
        self.corners = np.ascontiguousarray(corners, dtype=np.float64)
        if (reason := check_scale(stages, self.plane, self.corners, MOST_LINES_AT_ONCE)) is not None:
            raise UnsupportedModelError(f"exact methods do not cover weights of this scale: {reason}")
        self.system = line_system(stages, self.plane, self.corners)
        system = self.system
        u, v, origin = (np.ascontiguousarray(column) for column in self.plane.T)
        self.core: Any = SliceProblem(
            stages=list(zip(system.begins[:-1], system.begins[1:], system.extents, system.columns, strict=True)),
            **dict(zip(("a", "b", "c", "error"), system.affine, strict=True)),
            norms=system.norms() if len(system.columns) >= STAGES_FOR_NORMS else None,
            corners=self.corners,
            exact_stages=stages.arrays(),
            u=u,
            v=v,
            origin=origin,
            groups=groups_of(stages),
            zero=rectified_by(stages),
            same=first_equals(stages),
            multiples=stages.same_lines,
            central=not self.plane[:, 2].any() and stages.pass_through_zero,
        )

    def _walk_core(self, *arguments: Any) -> dict[str, Any]:
        return called(self._device, self.core.enumerate, *arguments)


class FoldedEngine(SliceWalk):
    """A network on one slice or segment, folded: as a system of the lines that may cross it.

    A slice whose fold does not fit is enumerated in tiles.

    Args:
        many: The network, ready for slices.
        slice_: Where: one.
        systems: Its fold; or why there is none.
        max_bytes: What folds may take; None: the memory budget.

    Raises:
        BudgetExceededError: When it is enumerated and there is no fold: a part of the walk is asked for, or even a
            small tile takes more than ``max_bytes``.
    """

    def __init__(
        self, many: ManySlices, slice_: Slices, systems: SliceSystems | BudgetExceededError, max_bytes: int | None
    ) -> None:
        self.stages = many.stages
        self._many, self._slice, self._max_bytes = many, slice_, max_bytes
        self.refused = systems if isinstance(systems, BudgetExceededError) else None
        if isinstance(systems, BudgetExceededError):
            return
        self._systems = systems
        self._arrays = core_arrays(systems, slice_, norms=True)
        self._lines = systems.line[: int(systems.begin[-1])].astype(np.int64)
        self._everywhere = systems.on[0]

    def _walk_core(self, *arguments: Any) -> dict[str, Any]:
        if self.refused is None:
            return self._many.enumerate(self._arrays, *arguments)
        cells, threads, _, parts, force_exact, _, max_regions, max_bytes, report = arguments
        if parts or self._slice.corners.shape[1] == 2:
            raise self.refused
        return self._many.in_tiles(
            self._slice,
            cells=cells,
            threads=threads,
            force_exact=force_exact,
            max_regions=max_regions,
            max_bytes=self._max_bytes,
            max_bytes_of_cells=max_bytes if max_bytes >= 0 else None,
            report=report,
        )


def engine_of(
    stages: Stages, plane: Array, corners: Array, max_bytes: int | None = None, device: WalkDevice | None = None
) -> SliceWalk:
    """A network on one slice or segment, ready to be enumerated.

    Args:
        stages: The network.
        plane: ``[inputs, 3]`` float64: u, v and the origin; for a segment v is 0.
        corners: ``[n, 2]`` float64, counter-clockwise and strictly convex; ``[2, 2]`` on the first axis: a segment.
        max_bytes: What folds may take; None: the memory budget.
        device: Where walks are; None: on the CPU.

    Raises:
        UnsupportedModelError: Weights so large that the bounds could overflow.
    """
    if stages.are_one_system:
        return Engine(stages, plane, corners, device)
    return folded_engine(stages, plane, corners, max_bytes, device)


def folded_engine(
    stages: Stages, plane: Array, corners: Array, max_bytes: int | None = None, device: WalkDevice | None = None
) -> FoldedEngine:
    """A network on one slice or segment, folded.

    Args:
        stages, plane, corners, max_bytes, device: As of :func:`engine_of`.

    Raises:
        UnsupportedModelError: Likewise.
    """
    u, v, origin = (np.ascontiguousarray(column, dtype=np.float64)[None] for column in plane.T)
    slices = Slices(u, v, origin, np.ascontiguousarray(corners, dtype=np.float64)[None])
    many = ManySlices(stages, central_on(stages, slices), device)
    many.check_scale(slices)
    (engine,) = engines_of(many, slices, max_bytes)
    return engine


def engines_of(many: ManySlices, slices: Slices, max_bytes: int | None = None) -> Iterator[FoldedEngine]:
    """A network on each of some slices, which are folded together.

    Args:
        many: The network.
        slices: Where, of a scale that :meth:`ManySlices.check_scale` lets through.
        max_bytes: What folds may take; None: the memory budget.
    """
    for part, systems in many.folded(slices, max_bytes, cells=True):
        alone: Iterable[SliceSystems | BudgetExceededError]
        alone = [systems] if isinstance(systems, BudgetExceededError) else systems.each()
        for number, own in enumerate(alone):
            yield FoldedEngine(many, part.part(slice(number, number + 1)), own, max_bytes)


def central_on(stages: Stages, slices: Slices) -> bool:
    """Whether all lines pass through s = t = 0 on slices, whatever the pattern."""
    return stages.pass_through_zero and not slices.origins.any()


def mesh_of_parts(parts: Iterable[PartCells], lines: int) -> EngineCells:
    """The cells that :meth:`Engine.enumerate` would have given, from all parts in order.

    Args:
        parts: The cells of each.
        lines: Of the network.

    Raises:
        RuntimeError: They are not the parts of one walk.
    """
    mesh: Any = MeshOfParts((lines + 7) // 8)
    for part in parts:
        mesh.add(*(getattr(part, each.name) for each in fields(PartCells)))
    taken = mesh.take()
    return _mesh(taken, taken["patterns"])


def _enumeration(found: dict[str, Any], cells: Kept | None) -> Enumeration[Kept]:
    names = [each.name for each in fields(Enumeration) if each.name != "cells"]
    return Enumeration(**{name: found[name] for name in names}, cells=cells)


def _cells(found: dict[str, Any], patterns: Patterns) -> PartCells:
    return PartCells(**{each.name: found[each.name] for each in fields(PartCells)} | {"patterns": np.asarray(patterns)})


def _mesh(found: dict[str, Any], patterns: Patterns) -> EngineCells:
    """The mesh in as few bytes as it fits."""
    vertices, indices = found["vertices"], found["indices"]
    return EngineCells(
        vertices=vertices,
        offsets=narrow(found["offsets"], len(indices)),
        indices=narrow(indices, len(vertices)),
        edges=narrow(found["edges"], len(vertices)),
        edge_cells=narrow(found["edge_cells"], len(patterns)),
        edge_rows=found["edge_rows"],
        patterns=patterns,
    )
