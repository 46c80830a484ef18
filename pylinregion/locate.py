"""Which cell holds a point: by a tree of boxes, all points going down together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylinregion.mesh import Array, Mesh

_POINTS = 1 << 14  # at a time


class Locator:
    """The boxes around the cells of a mesh, and around two of these, and so on.

    The cells are taken in the order of a curve that fills the plane, so that boxes next to each other are near.

    Args:
        mesh: The cells.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        starts = np.asarray(mesh.offsets[:-1])
        corners = mesh.vertices[mesh.indices]
        low, high = np.minimum.reduceat(corners, starts, axis=0), np.maximum.reduceat(corners, starts, axis=0)
        self.order = np.argsort(_along_a_curve(low + high), kind="stable")
        pad = 8 * np.finfo(np.float64).eps * float(np.abs(mesh.vertices).max())
        # Vertices are rounded: a point of the slice's border may be just outside.
        low, high = low[self.order] - pad, high[self.order] + pad
        self.levels = [np.concatenate([low, -high], axis=1)]
        while len(self.levels[-1]) > 1:
            last = self.levels[-1]
            self.levels.append(np.minimum.reduceat(last, np.arange(0, len(last), 2), axis=0))

    def locate(self, points: Array) -> NDArray[np.int64]:
        """The cell of each point of the slice; between cells the one that it is deepest in.

        Args:
            points: ``[n, 2]`` in the slice; what a point outside gets is a cell near by, or -1.
        """
        result = np.full(len(points), -1, dtype=np.int64)
        for point, cell, depth in self._depths(points):
            order = np.lexsort((-cell, depth, point))
            result[point[order]] = cell[order]  # the last of each point: the deepest, of equal ones the first cell
        return result

    def holders(self, points: Array, margin: float) -> NDArray[np.int64]:
        """In how many cells each point ``[n, 2]`` is, more than ``margin`` away from all their sides."""
        result = np.zeros(len(points), dtype=np.int64)
        for point, _, depth in self._depths(points):
            np.add.at(result, point[depth > margin], 1)
        return result

    def _depths(self, points: Array) -> list[tuple[NDArray[np.int64], NDArray[np.int64], Array]]:
        """Points, cells that may hold them, and how far within: the smallest distance to a side, negative outside."""
        mesh = self.mesh
        found = []
        for begin in range(0, len(points), _POINTS):
            some = points[begin : begin + _POINTS]
            point, cell = self._candidates(some)
            sides = mesh.offsets[cell + 1] - mesh.offsets[cell]
            pair = np.repeat(np.arange(len(cell)), sides)
            starts = np.cumsum(sides) - sides
            corner = np.arange(len(pair)) - starts[pair]
            offset, size = mesh.offsets[cell][pair], sides[pair]
            p = mesh.vertices[mesh.indices[offset + corner]]
            q = mesh.vertices[mesh.indices[offset + (corner + 1) % size]]
            side, to = q - p, some[point][pair] - p
            length = np.hypot(side[:, 0], side[:, 1])
            with np.errstate(invalid="ignore", divide="ignore"):
                depth = (side[:, 0] * to[:, 1] - side[:, 1] * to[:, 0]) / length
            depth[length == 0] = np.inf
            if len(cell):
                found.append((point + begin, cell, np.minimum.reduceat(depth, starts)))
        return found

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


def _along_a_curve(points: Array) -> NDArray[np.uint64]:
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
