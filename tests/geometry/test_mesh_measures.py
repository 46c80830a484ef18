"""Sizes and shapes of cells, against fractions, linear programs and plain loops."""

from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from pylinregion.geometry import cell_measures
from pylinregion.geometry.mesh import Mesh
from pylinregion.geometry.point_location import Locator


def mesh_of(*polygons):
    """Cells that share nothing."""
    sizes = [len(polygon) for polygon in polygons]
    offsets = np.cumsum([0, *sizes])
    vertices = np.concatenate([np.asarray(polygon, dtype=np.float64) for polygon in polygons])
    following = np.concatenate([np.roll(np.arange(begin, end), -1) for begin, end in pairwise(offsets)])
    edges = np.stack([np.arange(len(vertices)), following], axis=1)
    cells = np.stack([np.repeat(np.arange(len(sizes)), sizes), np.full(len(vertices), -1)], axis=1)
    return Mesh(vertices, offsets, np.arange(len(vertices)), edges, cells)


def hull(n, seed, stretch=1.0):
    points = np.random.default_rng(seed).standard_normal((n, 2)) * [1.0, stretch]
    return points[ConvexHull(points).vertices]  # counter-clockwise


POLYGONS = {
    "triangle": [[0, 0], [4, 0], [0, 3]],
    "square": [[1, 1], [3, 1], [3, 3], [1, 3]],
    "rectangle": [[0, 0], [10, 0], [10, 1], [0, 1]],
    "standing rectangle": [[0, 0], [1, 0], [1, 10], [0, 10]],
    "parallelogram": [[0, 0], [5, 1], [6, 3], [1, 2]],
    "cut corner": [[0, 0], [4, 0], [4, 3.999], [3.999, 4], [0, 4]],
    "kite": [[0, -3], [1, 0], [0, 1], [-1, 0]],
    "needle": [[0, 0], [1e6, 0], [1e6, 1e-3]],
    "far and small": [[1e6, 1e6], [1e6 + 1e-6, 1e6], [1e6, 1e6 + 1e-6]],
    **{f"hull {seed}": hull(4 + 3 * seed, seed) for seed in range(12)},
    **{f"flat hull {seed}": hull(10 + 9 * seed, seed, 1e-3) for seed in range(6)},
    "many corners": np.stack([np.cos(np.arange(200) / 100 * np.pi), 2 * np.sin(np.arange(200) / 100 * np.pi)], axis=1),
}
ALL = mesh_of(*POLYGONS.values())


def fractions(polygon):
    return [(F(float(s)), F(float(t))) for s, t in polygon]


def exact_area_and_centroid(polygon):
    points = fractions(polygon)
    crosses = [(p, q, p[0] * q[1] - q[0] * p[1]) for p, q in zip(points, points[1:] + points[:1], strict=True)]
    twice = sum(cross for _, _, cross in crosses)
    centroid = [float(sum((p[k] + q[k]) * cross for p, q, cross in crosses) / (3 * twice)) for k in (0, 1)]
    return float(twice / 2), centroid


def test_areas_and_centroids_are_those_of_fractions():
    want = [exact_area_and_centroid(polygon) for polygon in POLYGONS.values()]
    assert np.allclose(cell_measures.areas(ALL), [area for area, _ in want], rtol=1e-12, atol=0)
    assert np.allclose(cell_measures.centroids(ALL), [centroid for _, centroid in want], rtol=1e-12, atol=1e-12)


def test_perimeters_and_eccentricities_are_those_of_loops():
    for name, perimeter, eccentricity in zip(
        POLYGONS, cell_measures.perimeters(ALL), cell_measures.eccentricities(ALL), strict=True
    ):
        points = np.asarray(POLYGONS[name], dtype=np.float64)
        assert perimeter == pytest.approx(
            sum(np.hypot(*(points[i] - points[i - 1])) for i in range(len(points))), rel=1e-12
        )
        distances = [np.hypot(*(p - q)) for i, p in enumerate(points) for q in points[:i]]
        assert eccentricity == pytest.approx(max(distances) / min(distances), rel=1e-12)


def test_inradii_are_those_of_a_linear_program():
    radii = cell_measures.inradii(ALL)
    for (name, polygon), radius in zip(POLYGONS.items(), radii, strict=True):
        if name == "needle":  # too thin for the program; of triangles it is twice the area over the perimeter
            assert radius == pytest.approx(1e3 / (2e6 + 1e-3), rel=1e-9)
            continue
        points = np.asarray(polygon, dtype=np.float64)
        points = points - points[0]
        size = np.abs(points).max()
        side = (np.roll(points, -1, axis=0) - points) / size
        normal = np.stack([-side[:, 1], side[:, 0]], axis=1) / np.linalg.norm(side, axis=1)[:, None]
        level = (normal * points / size).sum(axis=1)
        # maximise r: normal . x - r >= level
        program = linprog(
            [0, 0, -1], np.column_stack([-normal, np.ones(len(normal))]), -level, bounds=[(None, None)] * 3
        )
        assert radius == pytest.approx(size * program.x[2], rel=1e-6), name
    by_name = dict(zip(POLYGONS, radii, strict=True))
    assert by_name["triangle"] == pytest.approx(1)
    assert by_name["square"] == pytest.approx(1)
    assert by_name["rectangle"] == by_name["standing rectangle"] == pytest.approx(0.5)


def test_corner_distances():
    mean, deviation = cell_measures.corner_distances(
        mesh_of(POLYGONS["square"], POLYGONS["rectangle"], [[0, 0], [3, 0], [0, 3]])
    )
    assert mean[:2] == pytest.approx([2**0.5, np.hypot(5, 0.5)]) and deviation[:2] == pytest.approx([0, 0])
    distances = [np.hypot(1, 1), np.hypot(2, 1), np.hypot(1, 2)]
    assert (mean[2], deviation[2]) == pytest.approx((np.mean(distances), np.std(distances)))


def test_corners_with_the_same_floats():
    """Two corners may be nearer than float64 tells; nothing becomes NaN."""
    cells = mesh_of([[0, 0], [1, 0], [1, 0], [0, 1]], [[0, 0], [0, 0], [0, 0]], [[0, 0], [1, 1], [2, 2]])
    assert cell_measures.areas(cells).tolist() == [0.5, 0, 0]
    assert cell_measures.inradii(cells) == pytest.approx([1 - 0.5**0.5, 0, 0])
    assert cell_measures.eccentricities(cells).tolist() == [np.inf, np.inf, 2]
    assert np.isfinite(cell_measures.centroids(cells)).all() and np.allclose(cell_measures.centroids(cells)[2], [1, 1])


def depths_of(locator, points):
    """Of each point how deep it is in each cell that may hold it, deepest first."""
    found = [[] for _ in points]
    for point, _, depth in locator.depths(np.asarray(points, dtype=np.float64)):
        for place, value in zip(point, depth, strict=True):
            found[place].append(float(value))
    return [sorted(values, reverse=True) for values in found]


def test_degrees_count_neighbours():
    # four squares around a point
    vertices = np.array([[s, t] for t in range(3) for s in range(3)], dtype=np.float64)
    corners = [0, 1, 4, 3, 1, 2, 5, 4, 3, 4, 7, 6, 4, 5, 8, 7]
    edges = [[0, 1], [1, 4], [3, 4], [0, 3], [1, 2], [2, 5], [4, 5], [4, 7], [6, 7], [3, 6], [5, 8], [7, 8]]
    cells = [[0, -1], [0, 1], [0, 2], [0, -1], [1, -1], [1, -1], [1, 3], [2, 3], [2, -1], [2, -1], [3, -1], [3, -1]]
    mesh = Mesh(vertices, np.arange(0, 17, 4), np.array(corners), np.array(edges), np.array(cells))
    assert cell_measures.degrees(mesh).tolist() == [2, 2, 2, 2]
    locator = Locator(mesh)
    assert locator.inside(np.array([[0.5, 0.5], [1.5, 0.25], [0.1, 1.9], [3, 2]])).tolist() == [0, 1, 2, -1]
    sides = np.array([[1.0, 0.5], [1.0, 1.0], [2.0, 2.0]])  # coordinates prove nothing there
    assert locator.inside(sides).tolist() == [-1, -1, -1]
    assert sorted(zip(*(each.tolist() for each in locator.near(sides)), strict=True)) == [
        *[(0, 0), (0, 1)],
        *[(1, 0), (1, 1), (1, 2), (1, 3)],
        (2, 3),
    ]
    assert depths_of(locator, [[0.5, 0.25], [1.0, 0.5]]) == [[0.0625], [0.0, 0.0]]  # the extent 2 counts as 4


def test_location_where_boxes_overlap():
    """Two triangles of a square: both boxes hold every point."""
    locator = Locator(mesh_of([[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]))
    points = np.array([[0.9, 0.1], [0.1, 0.9], [0.51, 0.5], [0.5, 0.51]])
    assert locator.inside(points).tolist() == [0, 1, 0, 1]
    (inside, outside), *_ = depths_of(locator, points[:1])
    assert inside == pytest.approx(0.05) and outside == pytest.approx(-0.8 / 2**0.5 / 2)


def test_location_where_cells_are_of_very_different_sizes():
    """Strips from 1 down to 2^-40 wide, and one cell beside them all."""
    ends = [0.0, *(2.0**-k for k in range(40, -1, -1))]
    strips = [[[a, 0], [b, 0], [b, 1], [a, 1]] for a, b in pairwise(ends)]
    locator = Locator(mesh_of([[-9, 0], [0, 0], [0, 1], [-9, 1]], *strips))
    middles = np.array([[(a + b) / 2, 0.3] for a, b in pairwise(ends)])
    points, cells = (each.tolist() for each in locator.near(middles))
    assert {(place, place + 1) for place in range(41)} <= set(zip(points, cells, strict=True))
    assert locator.inside(middles[-8:]).tolist() == list(range(34, 42))  # wider than coordinates are certain to
    deepest = [max(depths) for depths in depths_of(locator, middles[-3:])]
    assert deepest == [2.0**-4 / 16, 2.0**-3 / 16, 2.0**-2 / 16]  # 1/8, 1/4 and 1/2 wide; the extent 10 counts as 16
    assert locator.inside(np.array([[-3.0, 0.9], [-20.0, 0.5]])).tolist() == [0, -1]
