"""Sizes and shapes of cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion.geometry.mesh import Mesh


def areas(mesh: Mesh) -> Array:
    """``[R]``: the area of each cell."""
    return signed_areas(mesh).clip(min=0)


def signed_areas(mesh: Mesh) -> Array:
    """``[R]``: the area that the corners of each cell enclose: below 0 if clockwise, or by rounding if nearly 0."""
    result = np.empty(mesh.cells)
    for cells, corners in mesh.by_size():
        result[cells] = _twice_area(corners)[0] / 2
    return result


def perimeters(mesh: Mesh) -> Array:
    """``[R]``: the length of each cell's boundary."""
    result = np.empty(mesh.cells)
    for cells, corners in mesh.by_size():
        result[cells] = np.linalg.norm(_sides(corners), axis=2).sum(axis=1)
    return result


def centroids(mesh: Mesh) -> Array:
    """``[R, 2]``: the centre of mass of each cell."""
    result = np.empty((mesh.cells, 2))
    for cells, corners in mesh.by_size():
        result[cells] = _centroids(corners)
    return result


def inradii(mesh: Mesh) -> Array:
    """``[R]``: the radius of the largest circle in each cell."""
    result = np.empty(mesh.cells)
    for cells, corners in mesh.by_size():
        good = _are_convex(corners)
        result[cells[good]] = _inradii(corners[good])
        for cell, its in zip(cells[~good], corners[~good], strict=True):
            hull = _hull(its)
            result[cell] = _inradii(hull[None])[0] if len(hull) > 2 else 0.0
    return result


def eccentricities(mesh: Mesh) -> Array:
    """``[R]``: the largest distance between two corners of a cell over the smallest, as SplineCam has it."""
    result = np.empty(mesh.cells)
    for cells, corners in mesh.by_size():
        n = corners.shape[1]
        step = max(1, (1 << 22) // (n * n))
        for begin in range(0, len(cells), step):
            part = corners[begin : begin + step]
            distance = np.linalg.norm(part[:, :, None] - part[:, None, :], axis=3)
            largest = distance.max(axis=(1, 2))
            distance[:, np.arange(n), np.arange(n)] = np.inf
            smallest = distance.min(axis=(1, 2))
            ratio = np.full(len(part), np.inf)  # two corners may have the same floats
            np.divide(largest, smallest, out=ratio, where=smallest > 0)
            result[cells[begin : begin + step]] = ratio
    return result


def corner_distances(mesh: Mesh) -> tuple[Array, Array]:
    """``[R]`` twice: mean and standard deviation of the distances of a cell's corners to its centroid.

    SplineCam calls this centrality.
    """
    mean, deviation = np.empty(mesh.cells), np.empty(mesh.cells)
    for cells, corners in mesh.by_size():
        distance = np.linalg.norm(corners - _centroids(corners)[:, None], axis=2)
        mean[cells], deviation[cells] = distance.mean(axis=1), distance.std(axis=1)
    return mean, deviation


def degrees(mesh: Mesh) -> Int64s:
    """``[R]`` int64: how many cells share an edge with each."""
    return np.bincount(mesh.edge_cells[mesh.inner()].reshape(-1), minlength=mesh.cells)


def _sides(corners: Array) -> Array:
    """``[cells, n, 2]``: from each corner to the next."""
    return np.roll(corners, -1, axis=1) - corners


def _twice_area(corners: Array) -> tuple[Array, Array, Array]:
    """``[cells]``: twice the area; then of the triangles from the first corner ``[cells, n - 2]`` and their spans.

    From the first corner, not from the origin: cells are small, and the differences of their corners are exact or
    nearly so.
    """
    spans = corners[:, 1:] - corners[:, :1]
    triangles = spans[:, :-1, 0] * spans[:, 1:, 1] - spans[:, :-1, 1] * spans[:, 1:, 0]
    return triangles.sum(axis=1), triangles, spans


def _centroids(corners: Array) -> Array:
    total, triangles, spans = _twice_area(corners)
    thirds = (spans[:, :-1] + spans[:, 1:]) / 3
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        offset = (triangles[:, :, None] / total[:, None, None] * thirds).sum(axis=1)
    mean = spans.sum(axis=1) / corners.shape[1]  # where rounding left no area
    low, high = spans.min(axis=1).clip(max=0), spans.max(axis=1).clip(min=0)
    good = np.isfinite(offset).all(axis=1) & (total > 0)
    offset = np.where(good[:, None], offset, mean)
    result: Array = corners[:, 0] + np.clip(offset, low, high)
    return result


def _are_convex(corners: Array) -> NDArray[np.bool_]:
    """``[cells]``: whether the rounded corners still make a convex polygon: that turns left everywhere, once around."""
    sides = _sides(corners)
    following = np.roll(sides, -1, axis=1)
    turn = sides[:, :, 0] * following[:, :, 1] - sides[:, :, 1] * following[:, :, 0]
    angle = np.arctan2(turn, (sides * following).sum(axis=2))
    return np.asarray((turn > 0).all(axis=1) & (angle.sum(axis=1) < 3 * np.pi), dtype=np.bool_)


def _hull(corners: Array) -> Array:
    """``[n, 2]``: the convex hull of points, counter-clockwise (Andrew's monotone chain)."""
    points = np.unique(corners, axis=0)
    halves = []
    for half in (points, points[::-1]):
        chain: list[Array] = []
        for point in half:
            while len(chain) > 1:
                a, b = chain[-1] - chain[-2], point - chain[-1]
                if a[0] * b[1] - a[1] * b[0] > 0:
                    break
                chain.pop()
            chain.append(point)
        halves += chain[:-1]
    return np.array(halves)


def _inradii(corners: Array) -> Array:
    """By moving all sides inwards: the side that vanishes first is left out, again and again, until three are left.

    The three that are left touch the largest circle.
    """
    sides = _sides(corners)
    length = np.linalg.norm(sides, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = np.stack([-sides[:, :, 1], sides[:, :, 0]], axis=2) / length[:, :, None]  # inwards
    shift = corners - corners[:, :1]
    level = (normal * shift).sum(axis=2)  # the side: normal . x = level
    while normal.shape[1] > 3:
        time = _touching(normal, level)
        time = np.where(np.isfinite(time), time.clip(min=0), np.inf)
        time[np.isnan(normal[:, :, 0])] = -1  # between two corners of the same floats
        keep = np.arange(normal.shape[1]) != time.argmin(axis=1)[:, None]
        normal = normal[keep].reshape(len(normal), normal.shape[1] - 1, 2)
        level = level[keep].reshape(normal.shape[:2])
    radius = _touching(normal, level)[:, 1]
    return np.where(np.isfinite(radius), radius.clip(min=0), 0.0)


def _touching(normal: Array, level: Array) -> Array:
    """``[cells, n]``: the radius of the circle that touches a side and the sides before and after it."""
    (a, p), (b, q), (c, r) = ((np.roll(normal, k, axis=1), np.roll(level, k, axis=1)) for k in (1, 0, -1))
    ab, bc, ca = (x[:, :, 0] * y[:, :, 1] - x[:, :, 1] * y[:, :, 0] for x, y in ((a, b), (b, c), (c, a)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return -(p * bc + q * ca + r * ab) / (ab + bc + ca)
