"""Tiles of polygons: they cover them exactly, each with its borders on the lines that are told."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import pylinregion as plr
from cases.parts import SCALE
from pylinregion.geometry.tiles import Tile, Tiling

POLYGONS = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "diamond": [(0.1, 0), (0, 0.1), (-0.1, 0), (0, -0.1)],
    "triangle": [(0, 0), (3, 1), (1, 2)],
    "heptagon": [(np.cos(k), np.sin(k)) for k in 2 * np.pi * np.arange(7) / 7],
    "needle": [(0, 0), (1, 1e-9), (2, 1), (1, 1 - 1e-9)],
    "trapezium": [(0, 0), (4, 0), (3, 1), (1, 1)],
}


def area(points):
    return sum(p[0] * q[1] - q[0] * p[1] for p, q in pairwise([*points, points[0]])) / 2


def left_of(border, point):
    (a, b), (c, d) = (tuple(map(Fraction, end)) for end in (border.start, border.end))
    return (c - a) * (point[1] - b) - (d - b) * (point[0] - a)


def check(whole, tiles):
    assert sum(area(tile.points) for tile in tiles) == area(whole.points)
    for tile in tiles:
        n = len(tile.points)
        for number, border in enumerate(tile.borders):
            away = [left_of(border, point) for point in tile.points]
            assert away[number] == 0 == away[(number + 1) % n]
            assert sum(value > 0 for value in away) == n - 2
        for start, end in tile.lines:
            assert {type(number) for number in (*start.tolist(), *end.tolist())} == {float}
        assert np.abs(tile.corners - np.array(tile.points, dtype=float)).max() == 0
    sides = {border.side for tile in tiles for border in tile.borders}
    assert {-1 - side for side in sides if side < 0} == set(range(len(whole.points)))
    assert {side ^ 1 for side in sides if side >= 0} == {side for side in sides if side >= 0}


@pytest.mark.parametrize("name", POLYGONS)
@pytest.mark.parametrize("columns, rows", [(1, 1), (2, 1), (3, 5)])
def test_a_grid_covers_the_polygon_exactly(name, columns, rows):
    slice_ = plr.Slice(np.zeros(2), *np.eye(2), polygon=POLYGONS[name])
    tiling = Tiling(slice_.polygon, (2.0, 0.5), draw=3)
    tiles = tiling.grid(columns, rows)
    assert columns + rows - 1 <= len(tiles) <= columns * rows
    check(tiling.whole, tiles)
    halves = [half for tile in tiles for half in tiling.halves(tile)]
    assert len(halves) == 2 * len(tiles)
    check(tiling.whole, halves)
    square = tiling.square(8)
    assert 0 < area(square.points) < area(tiling.whole.points)
    if name in ("square", "diamond"):
        assert abs(area(square.points) / area(tiling.whole.points) - (1 / 16 if name == "square" else 1 / 64)) < 1e-9


@pytest.mark.parametrize("seed", range(10 * SCALE))
def test_cuts_anywhere_are_exact(seed):
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(5) + rng.uniform(-0.3, 0.3, 5)) / 5
    whole = Tile.whole(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    tiles = [whole]
    for number in range(6):
        start, end = rng.standard_normal((2, 2)) * 0.3
        before, tiles = tiles, []
        for tile in before:
            try:
                tiles += tile.cut(tuple(start), tuple(end), number)
            except ValueError:
                tiles.append(tile)
        check(whole, tiles)
    assert len(tiles) > 3


def test_cuts_through_corners_and_beside_the_polygon():
    square = Tile.whole(np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]))
    left, right = square.cut((0.0, 0.0), (3.0, 3.0), 0)
    assert [len(tile.points) for tile in (left, right)] == [3, 3]
    check(square, [left, right])
    left, right = square.cut((0.0, 0.0), (1.0, 0.5), 0)
    assert [len(tile.points) for tile in (left, right)] == [4, 3]
    check(square, [left, right])
    for start, end in (((0.0, 0.0), (1.0, 0.0)), ((0.0, 1.0), (1.0, 2.0)), ((0.0, 0.0), (0.0, 0.0))):
        with pytest.raises(ValueError, match="a line that crosses the tile"):
            square.cut(start, end, 0)


def test_tiles_are_as_wide_as_high_in_the_input_space():
    long = np.array([(0.0, 0.0), (4.0, 0.0), (4.0, 1.0), (0.0, 1.0)])
    assert len(Tiling(long).squares(8)) == 8 * 2
    assert len(Tiling(long, (1.0, 4.0)).squares(8)) == 8 * 8
    assert len(Tiling(long, (1.0, 1000.0)).squares(8)) == 8
    half, _ = Tiling(long).halves(Tile.whole(long))
    assert abs(half.corners[:, 0].max() - 2) < 0.3 and half.corners[:, 1].max() == 1
