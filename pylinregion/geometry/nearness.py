"""How much of each cell is near some segments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion.geometry.mesh import Mesh
from pylinregion.geometry.point_location import along_a_curve

_FINEST = 1 / 16  # of the distance: smaller triangles are not cut further
_POINTS = 1 << 14  # at a time


def shares_within(mesh: Mesh, segments: Array, distance: float) -> Array:
    """The part of each cell's area that is within a distance of segments.

    Cells are cut into triangles, and these again and again, until one is all within the distance, all beyond it, or
    small beside it: of the small ones that the edge between near and far runs through, a part is taken, as if it were
    straight. (So of a cell that this edge crosses the share is off by about a thousandth of the distance times the
    length of the edge in it, over the cell's area.)

    Args:
        mesh: The cells.
        segments: ``[S, 2, 2]``.
        distance: Above 0.

    Returns:
        ``[cells]``, from 0 to 1.
    """
    triangles, cell = _triangles(mesh)
    spans = triangles[:, 1:] - triangles[:, :1]
    area = np.abs(spans[:, 0, 0] * spans[:, 1, 1] - spans[:, 0, 1] * spans[:, 1, 0]) / 2
    whole = np.bincount(cell, weights=area, minlength=mesh.cells)
    area[whole[cell] <= 0] = 1.0  # rounding left no area
    whole = np.bincount(cell, weights=area, minlength=mesh.cells)
    inside = np.zeros(mesh.cells)
    nearest = Nearest(segments)
    while len(triangles):
        middle = triangles.mean(axis=1)
        radius = np.linalg.norm(triangles - middle[:, None], axis=2).max(axis=1)
        d = nearest.distances(middle, distance + radius)
        part = ((distance - d) / np.maximum(radius, np.finfo(np.float64).tiny) / 2 + 0.5).clip(0, 1)
        settled = (part == 0) | (part == 1) | (radius < _FINEST * distance)
        inside += np.bincount(cell[settled], weights=(part * area)[settled], minlength=mesh.cells)
        triangles, cell, area = (
            _halves(triangles[~settled]),
            np.repeat(cell[~settled], 2),
            np.repeat(area[~settled], 2) / 2,
        )
    return (inside / whole).clip(0, 1)


def _triangles(mesh: Mesh) -> tuple[Array, NDArray[np.int64]]:
    """``[T, 3, 2]`` and the cell of each ``[T]``."""
    found: list[Array] = [np.zeros((0, 3, 2))]
    of_cell: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for cells, corners in mesh.by_size():
        for k in range(1, corners.shape[1] - 1):
            found.append(corners[:, [0, k, k + 1]])
            of_cell.append(np.asarray(cells, dtype=np.int64))
    return np.concatenate(found), np.concatenate(of_cell)


def _halves(triangles: Array) -> Array:
    """Each cut in two at the middle of its longest side."""
    sides = np.linalg.norm(np.roll(triangles, -1, axis=1) - triangles, axis=2)
    longest = sides.argmax(axis=1)
    rows = np.arange(len(triangles))
    a, b, c = (triangles[rows, (longest + k) % 3] for k in range(3))
    middle = (a + b) / 2
    return np.stack([a, middle, c, middle, b, c], axis=1).reshape(-1, 3, 2)


class Nearest:
    """The distance of points to the nearest of some segments: by a tree of boxes, all points going down together.

    Args:
        segments: ``[S, 2, 2]``.
    """

    def __init__(self, segments: Array) -> None:
        self._segments = (
            segments[np.argsort(along_a_curve(segments.sum(axis=1)), kind="stable")] if len(segments) else segments
        )
        low, high = self._segments.min(axis=1), self._segments.max(axis=1)
        self._levels = [(low, high)]
        while len(low) > 1:
            pairs = np.arange(0, len(low), 2)
            low, high = np.minimum.reduceat(low, pairs), np.maximum.reduceat(high, pairs)
            self._levels.append((low, high))

    def distances(self, points: Array, limits: Array) -> Array:
        """``[n]``: the distance of points ``[n, 2]``; where it is above their limits ``[n]``, any that is, too."""
        result = np.full(len(points), np.inf)
        for begin in range(0, len(points) if len(self._segments) else 0, _POINTS):
            rows = slice(begin, begin + _POINTS)
            result[rows] = self._distances(points[rows], limits[rows].copy())
        return result

    def _distances(self, points: Array, limits: Array) -> Array:
        point, box = np.arange(len(points)), np.zeros(len(points), dtype=np.int64)
        for level, (low, high) in enumerate(reversed(self._levels)):
            if level:
                point, box = np.repeat(point, 2), np.repeat(2 * box, 2)
                box[1::2] += 1
                exists = box < len(low)
                point, box = point[exists], box[exists]
            at = points[point]
            before, after = low[box] - at, at - high[box]
            farthest = np.linalg.norm(np.maximum(-before, -after), axis=1)  # no segment in it is further away
            np.minimum.at(limits, point, farthest * (1 + 1e-12))
            near = np.linalg.norm(np.maximum(np.maximum(before, after), 0), axis=1) <= limits[point]
            point, box = point[near], box[near]
        p, q = (self._segments[box, end] - points[point] for end in (0, 1))
        side = q - p
        squared = (side**2).sum(axis=1)
        along = np.divide(-(p * side).sum(axis=1), squared, out=np.zeros(len(p)), where=squared > 0).clip(0, 1)
        result = np.full(len(points), np.inf)
        np.minimum.at(result, point, np.linalg.norm(p + along[:, None] * side, axis=1))
        return result
