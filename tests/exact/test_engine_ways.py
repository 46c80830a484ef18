"""The slice engine in all its ways to run, and what must not change its answer, where fractions would take too long."""

import itertools

import numpy as np
import pytest
from hypothesis import settings

from cases.engine import (
    IDENTITY_PLANE,
    RUNS,
    Case,
    areas_of,
    bits_of,
    box,
    check_case,
    check_mesh,
    generic,
    perceptron,
    plane_of,
    random_stages,
    wide_case,
)
from cases.networks import random_network, random_slice
from cases.parts import examples
from pylinregion.exact.slice_engine import Engine, mesh_of_parts
from pylinregion.native.simd import simd_sets, use_simd

random_ones = settings(max_examples=examples(40, 3), deadline=None, derandomize=True, database=None)

SIMD = simd_sets()


def same_arrays(one, other):
    assert len(vars(one)) > 4
    for key, value in vars(one).items():
        found = getattr(other, key)
        assert value.dtype == found.dtype and np.array_equal(value, found), key


def same_answers(one, other):
    assert one.regions == other.regions
    same_arrays(one.cells, other.cells)


# ---- other ways to run, on networks that are too large for the oracle


LARGER = {
    "generic": (generic((2, 40, 40, 40, 1), gain=1.3), box(-2, 2)),
    "deep": (generic((2, *[11] * 9, 1), gain=1.5), box(-2, 2)),
    "one layer": (generic((2, 90, 1)), box(-3, 3)),
    "grid": (random_stages("chain", "grid", (2, 24, 16, 12, 1), "relu", 0), box(-2, 2)),
    "skips": (random_stages("skips", "float32", (2, 20, 20, 20, 1), "hardtanh", 0), box(-2, 2)),
    "duplicated": (random_stages("chain", "duplicated", (2, 30, 24, 24, 1), "relu", 0), box(-2, 2)),
    "mixed": (random_stages("mixed", "generic", (2, 24, 24, 24, 1), "relu", 3), box(-2, 2)),
}


def larger(name):
    stages, corners = LARGER[name]
    return Engine(stages, IDENTITY_PLANE, corners)


@pytest.mark.part(4)
@pytest.mark.parametrize("name", LARGER)
def test_all_ways_to_run_agree(name):
    engine = larger(name)
    plain = engine.enumerate(cells=True)
    assert plain.regions[-1] > 500
    check_mesh(Case(LARGER[name][0], IDENTITY_PLANE, LARGER[name][1]), plain.cells)
    assert abs(areas_of(plain.cells).sum() - (engine.corners[2, 0] - engine.corners[0, 0]) ** 2) < 1e-9
    for how in RUNS.values():
        assert engine.enumerate(cells=False, **how).regions == plain.regions
        other = engine.enumerate(cells=True, **how)
        assert other.regions == plain.regions
        assert np.array_equal(other.cells.patterns, plain.cells.patterns)  # in the same order
        assert np.array_equal(other.cells.edges, plain.cells.edges) and np.array_equal(
            other.cells.edge_cells, plain.cells.edge_cells
        )
        if "threads" in how:
            same_answers(plain, other)
    same_answers(plain, engine.enumerate(cells=True))  # again
    same_answers(plain, engine.enumerate(cells=True, threads=16))


def test_threads_give_cells_away_in_the_order_of_one():
    """Many more corners than are given to the mesh at once, while other threads finish later parts."""
    engine = Engine(generic((2, 60, 60, 60, 1), gain=1.4), IDENTITY_PLANE, box(-2, 2))
    plain = engine.enumerate(cells=True)
    assert len(plain.cells.indices) > 10 * 4096
    for threads in (2, 3, 8):
        same_answers(plain, engine.enumerate(cells=True, threads=threads))
        assert engine.enumerate(cells=True, threads=threads, max_regions=3000).stopped


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_parts_of_a_walk_are_the_whole(count, threads):
    engine = larger("generic")
    whole = engine.enumerate(cells=True)
    parts = [engine.enumerate_part(part, count, cells=True, threads=threads) for part in range(count)]
    counted = [engine.enumerate_part(part, count, cells=False, threads=threads) for part in range(count)]
    for found in (parts, counted):
        regions = [sum(counts) for counts in itertools.zip_longest(*(each.regions for each in found), fillvalue=0)]
        assert regions == whole.regions
    same_arrays(mesh_of_parts([each.cells for each in parts], engine.stages.lines), whole.cells)
    assert sum(len(each.cells.patterns) > 0 for each in parts) > count / 2  # they share the work


def test_parts_of_a_slice_of_one_region():
    engine = Engine(generic((2, 3, 1)), IDENTITY_PLANE, box(1e-9, 2e-9))
    parts = [engine.enumerate_part(part, 3, cells=True) for part in range(3)]
    assert [len(each.cells.patterns) for each in parts] == [0, 0, 1]
    same_arrays(mesh_of_parts([each.cells for each in parts], 3), engine.enumerate(cells=True).cells)


def test_parts_that_are_not_of_one_walk_are_refused():
    engine = larger("generic")
    part = engine.enumerate_part(1, 3, cells=True).cells
    with pytest.raises(RuntimeError, match="has more than two cells"):
        mesh_of_parts([part, part], engine.stages.lines)


@pytest.mark.parametrize("name", LARGER)
@pytest.mark.parametrize("simd", SIMD)
def test_instruction_sets_agree(name, simd):
    engine = larger(name)
    here = engine.enumerate(cells=True)
    with use_simd(simd):
        there = engine.enumerate(cells=True)
        assert engine.enumerate(cells=False).regions == here.regions == there.regions
    for key in ("patterns", "offsets", "indices", "edges", "edge_cells", "edge_rows"):
        assert np.array_equal(getattr(here.cells, key), getattr(there.cells, key)), key
    assert np.abs(here.cells.vertices - there.cells.vertices).max() < 1e-9


@pytest.mark.parametrize("simd", SIMD)
def test_instruction_sets_against_the_oracle(simd):
    with use_simd(simd):
        for seed, kind in enumerate(["generic", "small_int", "scaled", "int8"]):
            check_case(wide_case(kind, "relu", seed), runs=("plain", "exact"))
            *slice_, corners = random_slice("corner", 3, seed)
            stages = random_stages("mixed", kind, (3, 5, 5, 5, 2), "relu", seed)
            check_case(Case(stages, plane_of(*slice_), corners), runs=("plain", "exact"))


def test_every_decision_can_be_forced_through_integers():
    for name in ("grid", "mixed"):
        engine = larger(name)
        plain, forced = engine.enumerate(cells=True), engine.enumerate(cells=True, force_exact=True)
        assert forced.exact >= forced.regions[-1] and plain.exact < forced.exact
        assert forced.zeros <= forced.exact


# ---- what must not change the answer


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_neurons_does_not_matter(seed):
    weights, biases = random_network("small_int" if seed else "generic", (2, 9, 7, 5, 1), seed)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(bias)) for bias in biases[:-1]]
    permuted, moved = [w.copy() for w in weights], [b.copy() for b in biases]
    for k, order in enumerate(orders):
        permuted[k], moved[k] = permuted[k][order], moved[k][order]
        permuted[k + 1] = permuted[k + 1][:, order]
    one, other = perceptron(weights, biases), perceptron(permuted, moved)
    answers = [Engine(stages, IDENTITY_PLANE, box(-2, 2)).enumerate(cells=True) for stages in (one, other)]
    assert answers[0].regions == answers[1].regions
    columns = np.concatenate([order + sum(len(b) for b in biases[:k]) for k, order in enumerate(orders)])
    before, after = (bits_of(one, answer.cells.patterns) for answer in answers)
    assert {row.tobytes() for row in before[:, columns]} == {row.tobytes() for row in after}
    assert len(answers[0].cells.edges) == len(answers[1].cells.edges)


@pytest.mark.parametrize("kind", ["generic", "small_int", "duplicated"])
def test_positive_factors_of_neurons_do_not_matter(kind):
    """Powers of two, undone by the next layer: all numbers scale exactly, so coordinates are equal to the bit."""
    shape = (2, 30, 40, 20, 1)
    weights, biases = random_network(kind, shape, 5)
    rng = np.random.default_rng(5)
    scaled, moved = [w.copy() for w in weights], [b.copy() for b in biases]
    for k in range(len(weights) - 1):
        powers = rng.integers(-25, 26, len(biases[k]))
        scaled[k], moved[k] = np.ldexp(scaled[k], powers[:, None]), np.ldexp(moved[k], powers)
        scaled[k + 1] = np.ldexp(scaled[k + 1], -powers)
    answers = [
        Engine(perceptron(*network), IDENTITY_PLANE, box(-2, 2)).enumerate(cells=True, fold_ahead=fold_ahead)
        for network in ((weights, biases), (scaled, moved))
        for fold_ahead in (None, 0, 1, 99)
    ]
    same_answers(answers[1], answers[5])  # one fold: the same operations
    for answer in answers[1:]:
        assert answer.regions == answers[0].regions
        for name in ("offsets", "indices", "edges", "edge_cells", "edge_rows", "patterns"):
            assert np.array_equal(getattr(answers[0].cells, name), getattr(answer.cells, name)), name


@pytest.mark.parametrize("kind", ["generic", "small_int"])
def test_the_basis_of_the_slice_does_not_matter(kind):
    stages = random_stages("chain", kind, (3, 12, 9, 6, 1), "relu", 2)
    origin, u, v = np.array([1.0, 0, -1]), np.array([1.0, 2, 0]), np.array([0.0, -1, 1])
    corners = np.array([[-2.0, -1], [1, -2], [3, 1], [0, 2], [-2, 1]])
    s, t = corners.T
    bases = {
        "quarter turn": ((origin, v, -u), np.stack([t, -s], axis=1)),
        "half turn": ((origin, -u, -v), -corners),
        "shear": ((origin, u, v + 3 * u), np.stack([s - 3 * t, t], axis=1)),
        "shift": ((origin + 2 * u - v, u, v), corners - [2, -1]),
        "scale": ((origin, 4 * u, v / 2), corners * [0.25, 2]),
    }
    first = Engine(stages, plane_of(origin, u, v), corners).enumerate(cells=True)
    for plane, moved in bases.values():
        other = Engine(stages, plane_of(*plane), moved).enumerate(cells=True)
        for key in ("patterns", "offsets", "indices", "edges", "edge_cells", "edge_rows"):
            assert np.array_equal(getattr(first.cells, key), getattr(other.cells, key)), key
    mirrored = Engine(stages, plane_of(origin, v, u), corners[::-1, ::-1]).enumerate(cells=True)
    assert {row.tobytes() for row in mirrored.cells.patterns} == {row.tobytes() for row in first.cells.patterns}
    # Another first corner: other names, the same cells.
    rolled = Engine(stages, plane_of(origin, u, v), np.roll(corners, 2, axis=0)).enumerate(cells=True)
    assert np.array_equal(rolled.cells.patterns, first.cells.patterns)
    assert sorted(map(tuple, rolled.cells.vertices.round(9))) == sorted(map(tuple, first.cells.vertices.round(9)))


@pytest.mark.parametrize("kind", ["generic", "float16", "zero_bias"])
def test_a_slice_cut_in_two_has_the_cells_of_both_parts(kind):
    stages = random_stages("chain", kind, (2, 16, 12, 8, 1), "relu", 1)
    cut = 0.34375
    whole, left, right = (
        Engine(stages, IDENTITY_PLANE, np.array([[a, -2.0], [b, -2], [b, 2], [a, 2]])).enumerate(cells=True)
        for a, b in ((-2.0, 2.0), (-2.0, cut), (cut, 2.0))
    )
    cells = [{row.tobytes() for row in part.cells.patterns} for part in (whole, left, right)]
    assert cells[0] == cells[1] | cells[2]
    along = np.array([[0.0, 0.0, cut], [4.0, 0.0, -2.0]])
    line = Engine(stages, along, np.array([[0.0, 0.0], [1.0, 0.0]])).enumerate_part(0, 1, cells=True)
    assert {row.tobytes() for row in line.cells.patterns} == cells[1] & cells[2]
    assert whole.regions[-1] == left.regions[-1] + right.regions[-1] - line.regions[-1]


def test_a_larger_polygon_has_more_cells():
    stages = generic((2, 20, 20, 1), seed=4)
    before = set()
    for size in (0.01, 0.5, 1.0, 3.0, 50.0, 1e6):
        answer = Engine(stages, IDENTITY_PLANE, box(-size, size)).enumerate(cells=True)
        now = {row.tobytes() for row in answer.cells.patterns}
        assert before <= now
        before = now
