"""Which cell holds a point: by a tree of boxes, all points going down together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import UNIT
from pylinregion.geometry.mesh import Mesh

_POINTS = 1 << 14  # at a time
_BLUR = 2e-6  # of the extents: vertices are nearer than that to where they belong (docs/exactness.md, 6)


class Locator:
    """The boxes around the cells of a mesh, and around two of these, and so on.

    The cells are taken in the order of a curve that fills the plane, so that boxes next to each other are near. Each
    coordinate is measured in parts of the mesh's extent along it (but for a factor of 2).

    Args:
        mesh: The cells.

    Attributes:
        blur: In these parts, more than any point of a cell's true boundary is away from the one that its vertices make.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._low = mesh.vertices.min(axis=0)
        extents = mesh.vertices.max(axis=0) - self._low
        self._exponents = -np.frexp(extents)[1]
        self.blur = float(max(_BLUR, 256 * UNIT * (np.abs(mesh.vertices).max(axis=0).sum() / extents.min())))
        self._vertices = self._parts(mesh.vertices)
        starts = np.asarray(mesh.offsets[:-1])
        corners = self._vertices[mesh.indices]
        low, high = np.minimum.reduceat(corners, starts, axis=0), np.maximum.reduceat(corners, starts, axis=0)
        self.order = np.argsort(along_a_curve(low + high), kind="stable")
        low, high = low[self.order] - self.blur, high[self.order] + self.blur
        self.levels = [np.concatenate([low, -high], axis=1)]
        while len(self.levels[-1]) > 1:
            last = self.levels[-1]
            self.levels.append(np.minimum.reduceat(last, np.arange(0, len(last), 2), axis=0))

    def inside(self, points: Array) -> NDArray[np.int64]:
        """The cell that holds each point, as far as coordinates prove it.

        Args:
            points: ``[n, 2]``.

        Returns:
            ``[n]``: -1: no cell, or so near to a side that coordinates prove nothing.
        """
        result = np.full(len(points), -1, dtype=np.int64)
        for point, cell, depth in self.depths(points):
            result[point[depth > self.blur]] = cell[depth > self.blur]
        return result

    def near(self, points: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Points ``[n, 2]`` and cells that may hold them, all that do among these: places ``[pairs]`` of both."""
        pairs = [(point[depth >= -self.blur], cell[depth >= -self.blur]) for point, cell, depth in self.depths(points)]
        nothing = np.zeros(0, np.int64)
        return np.concatenate([nothing, *(p for p, _ in pairs)]), np.concatenate([nothing, *(c for _, c in pairs)])

    def depths(self, points: Array) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Array]]:
        """Points and cells that may hold them, and how deep: some points at a time.

        The depth is the distance to the cell's boundary in parts of the extents, negative outside. As the boundary is
        taken as it is, and not as the lines that its sides lie on, it is as good as the vertices: where two of these
        nearly coincide, the direction of the side between them is noise.

        Args:
            points: ``[n, 2]``.
        """
        mesh = self.mesh
        for begin in range(0, len(points), _POINTS):
            some = self._parts(points[begin : begin + _POINTS])
            point, cell = self._candidates(some)
            if not len(cell):
                continue
            sides = mesh.offsets[cell + 1] - mesh.offsets[cell]
            pair = np.repeat(np.arange(len(cell)), sides)
            starts = np.cumsum(sides) - sides
            corner = np.arange(len(pair)) - starts[pair]
            offset, size = mesh.offsets[cell][pair], sides[pair]
            p = self._vertices[mesh.indices[offset + corner]] - some[point][pair]
            q = self._vertices[mesh.indices[offset + (corner + 1) % size]] - some[point][pair]
            yield point + begin, cell, _depth(p, q, starts)

    def _parts(self, points: Array) -> Array:
        return np.asarray(np.ldexp(points - self._low, self._exponents))

    def _candidates(self, points: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Points and cells whose boxes hold them."""
        at = np.concatenate([points, -points], axis=1)
        point, box = np.arange(len(points)), np.zeros(len(points), dtype=np.int64)
        for level, least in enumerate(reversed(self.levels)):
            if level:
                point, box = np.repeat(point, 2), np.repeat(2 * box, 2)
                box[1::2] += 1
                exists = box < len(least)
                point, box = point[exists], box[exists]
            holds = (least[box] <= at[point]).all(axis=1)
            point, box = point[holds], box[holds]
        return point, self.order[box]


def _depth(p: Array, q: Array, starts: NDArray[np.integer[Any]]) -> Array:
    """How deep the origin is in polygons.

    Args:
        p, q: ``[sides, 2]``: the ends of the sides of all polygons.
        starts: ``[polygons]``: the first side of each.
    """
    side = q - p
    squared = (side**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        along = np.nan_to_num(-(p * side).sum(axis=1) / squared).clip(0, 1)
    distance = np.minimum.reduceat(np.linalg.norm(p + along[:, None] * side, axis=1), starts)
    # How often the boundary goes round: sides that cross the line to the right count, upwards 1, downwards -1.
    turn = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
    up, down = (p[:, 1] <= 0) & (q[:, 1] > 0) & (turn > 0), (p[:, 1] > 0) & (q[:, 1] <= 0) & (turn < 0)
    rounds = np.add.reduceat(up.astype(np.int64) - down, starts)
    return np.where(rounds > 0, distance, -distance)


def along_a_curve(points: Array) -> NDArray[np.uint64]:
    """Places on Morton's curve: the bits of both coordinates in turn."""
    low, high = points.min(axis=0), points.max(axis=0)
    with np.errstate(invalid="ignore"):
        whole = np.nan_to_num((points - low) / (high - low)) * (2.0**31 - 1)
    spread = whole.astype(np.uint64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
    result: NDArray[np.uint64] = spread[:, 0] | (spread[:, 1] << np.uint64(1))
    return result
