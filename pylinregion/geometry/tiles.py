"""Tiles of a convex polygon: it is cut by straight lines, exactly.

A border of a tile is a straight line through two points that float64 has exactly. The corners are where borders cross:
rational points, which float64 need not have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pylinregion._util.arrays import Array

Point = tuple[Fraction, Fraction]

_SHIFT = 0.1  # cuts are up to half as far, in widths of a tile, from where they would make tiles of one size
_GOLDEN = 0.6180339887498949
_NEARLY = 1e-6  # of a parallelogram; it decides nothing but where tiles are cut


class Border(NamedTuple):
    """A straight line that bounds a tile, which is on its left.

    Attributes:
        start, end: Two points of it.
        side: 2 c of a tile left of cut c, 2 c + 1 of one right of it; -1 - k: it is border k of the whole polygon.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    side: int


@dataclass(frozen=True)
class Tile:
    """A part of a polygon.

    Attributes:
        points: The corners, exactly, counter-clockwise. Border i goes from corner i to the next.
        borders: On which lines.
    """

    points: tuple[Point, ...]
    borders: tuple[Border, ...]

    @classmethod
    def whole(cls, polygon: Array) -> Tile:
        """A polygon ``[n, 2]``, counter-clockwise and strictly convex."""
        corners = [(float(s), float(t)) for s, t in polygon]
        borders = tuple(Border(p, q, -1 - k) for k, (p, q) in enumerate(pairwise([*corners, corners[0]])))
        return cls(tuple(_exact(corner) for corner in corners), borders)

    def cut(self, start: tuple[float, float], end: tuple[float, float], number: int) -> tuple[Tile, Tile]:
        """What lies left of the line from ``start`` to ``end``, which crosses the tile, and what right of it."""
        p, q = _exact(start), _exact(end)
        z = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for x, y in self.points]
        if not min(z) < 0 < max(z):
            raise ValueError("start and end must be of a line that crosses the tile")
        left = self._where_not_negative(z, Border(start, end, 2 * number))
        return left, self._where_not_negative([-value for value in z], Border(end, start, 2 * number + 1))

    def _where_not_negative(self, z: list[Fraction], border: Border) -> Tile:
        points: list[Point] = []
        borders: list[Border] = []
        for i, (point, here) in enumerate(zip(self.points, z, strict=True)):
            j = (i + 1) % len(z)
            following = z[j]
            if here >= 0:
                points.append(point)
                borders.append(border if here == 0 and following < 0 else self.borders[i])
            if here * following < 0:
                way = here / (here - following)
                x, y = (a + way * (b - a) for a, b in zip(point, self.points[j], strict=True))
                points.append((x, y))
                borders.append(border if here > 0 else self.borders[i])
        return Tile(tuple(points), tuple(borders))

    @property
    def corners(self) -> Array:
        """``[n, 2]``: the nearest numbers of float64."""
        return np.array([[float(s), float(t)] for s, t in self.points])

    @property
    def lines(self) -> Array:
        """``[n, 2, 2]``: two points of each border."""
        return np.array([[border.start, border.end] for border in self.borders])


class Tiling:
    """Ways to cut a polygon.

    Args:
        polygon: ``[n, 2]`` float64, counter-clockwise and strictly convex.
        lengths: Of the two directions of its coordinates.
        draw: Another number cuts elsewhere. Cuts are where lines of networks hardly ever are: not in the middle.
    """

    def __init__(self, polygon: Array, lengths: tuple[float, float] = (1.0, 1.0), draw: int = 0) -> None:
        self.whole = Tile.whole(polygon)
        self._lengths = np.array(lengths)
        self._draw = draw
        self._numbers: Iterator[int] = itertools.count()
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        self._base, self._sides = low, np.diag(high - low)
        if len(polygon) == 4:  # of a parallelogram along its sides, else of the rectangle around it
            sides = np.stack([polygon[1] - polygon[0], polygon[3] - polygon[0]])
            if np.abs(polygon[0] + polygon[2] - polygon[1] - polygon[3]).max() <= _NEARLY * np.abs(sides).max():
                self._base, self._sides = polygon[0], sides

    def grid(self, columns: int, rows: int) -> list[Tile]:
        """As many columns of tiles, cut into as many rows, as lie on the polygon."""
        tiles = []
        for column in self._strips(self.whole, 0, columns):
            tiles += self._strips(column, 1, rows)
        return tiles

    def squares(self, count: float) -> list[Tile]:
        """About so many tiles on each side, as wide as they are high."""
        size = self._sizes()
        columns, rows = (max(1, round(count * each / size.max())) for each in size)
        return self.grid(columns, rows)

    def square(self, count: float) -> Tile:
        """One in the middle of the polygon, about as large as one of so many on each side."""
        tile, middle, size = self.whole, self._places(self.whole).mean(axis=0), self._sizes()
        for across in range(2):
            width = size.max() / (count * size[across])
            if width < 1:
                tile = self._cut(tile, across, middle[across] - width / 2, 0)[-1]
                tile = self._cut(tile, across, middle[across] + width / 2, 0)[0]
        return tile

    def halves(self, tile: Tile) -> list[Tile]:
        """A tile, cut across where it is longer."""
        places = self._places(tile)
        low, high = places.min(axis=0), places.max(axis=0)
        across = int(np.argmax((high - low) * self._sizes()))
        return self._cut(tile, across, (low[across] + high[across]) / 2, high[across] - low[across])

    def _sizes(self) -> Array:
        """``[2]``: of the sides, in the input space."""
        return np.asarray(np.linalg.norm(self._sides * self._lengths, axis=1))

    def _places(self, tile: Tile) -> Array:
        """``[n, 2]``: the corners, in sides of the polygon."""
        return np.asarray((tile.corners - self._base) @ np.linalg.inv(self._sides))

    def _strips(self, tile: Tile, across: int, count: int) -> list[Tile]:
        strips = []
        for k in range(1, count):
            done, *rest = self._cut(tile, across, k / count, 1 / count)
            if not rest:
                continue
            strips.append(done)
            tile = rest[0]
        return [*strips, tile]

    def _cut(self, tile: Tile, across: int, place: float, width: float) -> list[Tile]:
        """Cut across a side of the polygon, at a place in [0, 1] of it, or up to so many widths aside."""
        place += _SHIFT * width * ((1000 * _GOLDEN * (1 + across + place) + _GOLDEN * self._draw) % 1 - 0.5)
        start = self._base + place * self._sides[across]
        end = start + (self._sides[1] if across == 0 else -self._sides[0])
        number = next(self._numbers)
        try:
            left, right = tile.cut((float(start[0]), float(start[1])), (float(end[0]), float(end[1])), number)
        except ValueError:  # of a polygon that is narrow there
            return [tile]
        return [left, right]


def _exact(point: tuple[float, float]) -> Point:
    return Fraction(point[0]), Fraction(point[1])
