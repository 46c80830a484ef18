"""The slice engine against the rational oracle, with equality, and against itself where the oracle would take too long.

``PYLINREGION_TEST_SCALE=10`` runs ten times as many random cases.
"""

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import engine as engine_cases
from cases.engine import (
    ACTIVATIONS,
    IDENTITY_PLANE,
    KINKED,
    POLYGONS,
    RUNS,
    SHAPES,
    STRUCTURES,
    Case,
    any_case,
    areas_of,
    bits_of,
    box,
    check_case,
    check_mesh,
    check_segment,
    generic,
    lines,
    perceptron,
    plane_of,
    random_case,
    random_stages,
    reshaped,
    segment_case,
    stage,
    wide_case,
)
from cases.networks import NETWORK_KINDS, SLICE_KINDS, integer_networks, polygons, random_network, random_slice
from cases.parts import SCALE, examples, some
from pylinregion.exact import slice_engine as engine_module
from pylinregion.exact.slice_engine import Engine, mesh_of_parts
from pylinregion.lowering.stages import INPUT, Stages
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


# ---- random networks against the oracle


@pytest.mark.part(4)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_every_kind_of_network_on_every_slice(kind, slice_kind):
    first = NETWORK_KINDS.index(kind) + 3 * SLICE_KINDS.index(slice_kind)
    for seed in range(first, first + SCALE):
        shape = SHAPES[seed % len(SHAPES)]
        *slice_, corners = random_slice(slice_kind, shape[0], seed)
        stages = random_stages("chain", kind, shape, "relu", seed)
        check_case(Case(stages, plane_of(*slice_), corners))


@pytest.mark.part(4)
@pytest.mark.parametrize("activation", KINKED)
@pytest.mark.parametrize("kind", ["generic", "small_int", "zero_bias"])
def test_every_activation(kind, activation):
    for seed in range(SCALE):
        shape = SHAPES[(KINKED.index(activation) + seed) % len(SHAPES)]
        if len(ACTIVATIONS[activation][0]) > 2:
            shape = (3, 3, 2, 1)
        *slice_, corners = random_slice(SLICE_KINDS[seed % len(SLICE_KINDS)], shape[0], seed)
        check_case(Case(random_stages("chain", kind, shape, activation, seed), plane_of(*slice_), corners))


@pytest.mark.part(2)
@pytest.mark.parametrize("seed", range(4 * SCALE))
@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "wide"])
def test_every_structure(structure, seed):
    kind = ("generic", "small_int", "grid", "duplicated", "three_level", "int8")[seed % 6]
    shape = ((2, 6, 4, 4, 1), (3, 5, 5, 5, 2), (2, 3, 3, 3, 3, 3, 1), (4, 10, 4, 1))[seed % 4]
    *slice_, corners = random_slice(SLICE_KINDS[seed % 5], shape[0], seed)
    check_case(Case(random_stages(structure, kind, shape, "relu", seed), plane_of(*slice_), corners))


@pytest.mark.parametrize("how", POLYGONS)
def test_polygons_of_every_shape(how):
    for seed in range(4 * SCALE):
        kind = ("generic", "small_int", "float16", "duplicated")[seed % 4]
        *slice_, corners = random_slice("grid" if seed % 2 else "generic", 2, seed)
        stages = random_stages("chain", kind, (2, 5, 4, 1), "relu", seed)
        check_case(Case(stages, plane_of(*slice_), reshaped(corners, how, seed)))


@pytest.mark.parametrize("kind", ["generic", "small_int", "duplicated", "scaled", "spike"])
def test_folded_networks(kind):
    """Wide layers with most neurons settled: the engine folds them away, below the root too."""
    folds = 0
    for seed in range(2 * SCALE):
        activation = ("relu", "hardtanh", "leaky_relu 0.25")[seed % 3]
        case = wide_case(kind, activation, seed)
        results = check_case(case, runs=("plain", "one fold", "two threads"))
        folds += results[True, "plain"].folds
        assert results[True, "one fold"].folds == 0
    assert folds > 0


def test_deep_networks_pay_for_their_roundings_again():
    """So many stages without a fold that the prepaid roundings run out, and that bounds decide little."""
    for seed in range(2 * SCALE):
        shape = (2, *[3] * 20, 1)
        weights, biases = random_network("generic", shape, seed)
        case = Case(perceptron([1.4 * weight for weight in weights], biases), IDENTITY_PLANE, box(-3, 3))
        assert check_case(case)[True, "plain"].regions[-1] > 3


@pytest.fixture
def with_norms(monkeypatch):
    """The norm form of the bounds, in networks of any depth."""
    monkeypatch.setattr(engine_module, "_STAGES_FOR_NORMS", 1)


@pytest.mark.part(4)
@pytest.mark.parametrize("kind", ["generic", "small_int", "duplicated", "scaled"])
@pytest.mark.parametrize("structure", STRUCTURES[:-1])
def test_bounds_by_norms(kind, structure, with_norms):
    for seed in range(2 * SCALE):
        stages = random_stages(structure, kind, (2, 5, 5, 4, 1), "relu", seed)
        check_case(Case(stages, IDENTITY_PLANE, box(-2, 2)), runs=("plain", "one fold", "one stage ahead"))


@random_ones
@given(st.integers(0, 2**31))
def test_cases_of_any_kind(seed):
    case, _ = any_case(seed)
    check_case(case, runs=("plain", "two threads"))


@random_ones
@given(integer_networks(max_depth=3, max_width=5), polygons(), st.sampled_from(sorted(ACTIVATIONS)))
def test_networks_of_small_integers(network, polygon, activation):
    check_case(Case(perceptron(*network, activation), IDENTITY_PLANE, polygon))


@random_ones
@given(
    integer_networks(max_depth=1, max_width=7, size=4),
    polygons(),
    st.lists(st.sampled_from([-3, -2, -1, 0, 1, 2, 3]), min_size=8, max_size=8),
    st.integers(30, 52),
)
def test_ties_that_are_broken_by_the_last_bits(network, polygon, steps, bits):
    """Lines through common points and copies of lines, each moved by some units in the last places."""
    (weight, *rest), (bias, *others) = network
    nudged = bias + np.resize(steps, len(bias)) * 2.0**-bits
    turned = weight * (1 + np.resize(steps[::-1], weight.shape) * 2.0**-bits)
    case = Case(perceptron([turned, *rest], [nudged, *others]), IDENTITY_PLANE, polygon)
    check_case(case, coordinates=False)


@pytest.mark.parametrize("kind", ["small_int", "three_level", "scaled"])
def test_ties_that_rounding_hides_from_bounds_by_norms(kind, with_norms):
    """Rows that depend on each other, on planes that no number of theirs survives exactly."""
    for seed in some(range(40 * SCALE), 4, f"ties {kind}"):
        stages = random_stages("chain", kind, (3, 5, 5, 5, 4, 1), "relu", seed)
        plane = np.random.default_rng(seed).standard_normal((3, 3))
        check_case(Case(stages, plane, box(-2, 2)), runs=("plain", "one fold"), coordinates=False)


def test_ties_between_layers():
    """A neuron of layer 2 that is 0 exactly, or all but, where those of layer 1 cross."""
    for power in (0, 40, 48, 52):
        first = [[1, 0], [0, 1], [1, 1], [1, -1]]
        second = [[1, 1, -1, 0], [2, -1, 0, -1], [-1, -1, 1, 0], [0, 0, 1, -1]]
        offset = 2.0**-power if power else 0.0
        biases = [np.zeros(4), np.array([offset, -offset, 0.0, offset]), np.zeros(1)]
        check_case(Case(perceptron([first, second, [[1, 1, 1, 1]]], biases), IDENTITY_PLANE, box(-2, 2)))


# ---- cases by name


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0, 0, 0)],
        [(0, 0, 1), (0, 0, -1)],
        [(1, 0, 0)],
        [(1, 0, 0), (1, 0, 0)],
        [(1, 0, 0), (-1, 0, 0), (2, 0, 0), (-0.5, 0, 0)],
        [(1, -1, 0)],  # from corner to corner
        [(1, 0, 2), (0, 1, 2), (1, 0, -2), (0, -1, 2)],  # along all edges
        [(1, 1, 4), (1, 1, -4)],  # touches a corner
        [(1, -1, 0), (1, 1, 0), (1, 0, 0), (0, 1, 0)],  # all through one point
        [(1, 0, 2), (1, -1, 0), (0, 1, -2), (1, -2, 2)],  # all through the corner (-2, -2) or (-2, 2) or along it
        [(k, 1, 0) for k in range(-6, 7)],
        [(1, 0, k / 4) for k in range(-10, 11)],
        [(1, 0, k) for k in (-1, 0, 1)] + [(0, 1, k) for k in (-1, 0, 1)] + [(1, 1, k) for k in (-2, -1, 0, 1, 2)],
    ],
    ids=lambda rows: str(len(rows)) + " lines",
)
def test_arrangements_of_lines(rows):
    for activation in ("relu", "hardtanh", "steps"):
        check_case(Case(lines(*rows, activation=activation), IDENTITY_PLANE, box(-2, 2)))


@pytest.mark.parametrize("count", [2, 5, 11, 12, 13, 20])
def test_many_chords_in_one_cell(count):
    """More of them than are counted at once, with all crossings inside and without."""
    angles = np.pi * np.arange(count) / count
    near = [(np.cos(a), np.sin(a), 0.01 * k * k) for k, a in enumerate(angles)]
    fan = [(np.cos(a), np.sin(a), 0.0) for a in angles]
    for rows in (near, fan):
        case = Case(lines(*rows), IDENTITY_PLANE, reshaped(box(-2, 2), "many corners", count))
        check_case(case, runs=("plain", "exact"))


def test_networks_without_lines():
    """One region; also where all neurons are constant."""
    for stages in (
        Stages([stage({INPUT: [[1, 2]]}, [3], "identity")]),
        Stages([stage({INPUT: [[1, 2]]}, [3], "half"), stage({0: [[1]]}, [0], "constant")]),
        perceptron([np.zeros((3, 2)), np.zeros((2, 3)), np.zeros((1, 2))], [np.zeros(3), np.ones(2), np.zeros(1)]),
        perceptron([np.zeros((3, 2)), np.ones((1, 3))], [[0.0, 6.0, -1.0], np.zeros(1)], "relu6"),
    ):
        case = Case(stages, IDENTITY_PLANE, box(-1, 1))
        answer = check_case(case)[True, "plain"]
        assert len(answer.cells.offsets) == 2 and np.array_equal(answer.cells.vertices, box(-1, 1))


def test_neurons_that_die_and_wake():
    weights = [[[1, 0], [0, 1], [-1, -1]], [[1, 1, 1], [-1, -1, -1], [0, 0, 0]], [[5, -3, 2], [1, 1, -1]], [[1, 1]]]
    for biases in ([[0, 0, 0], [0, 0, 0], [0, 0], [0]], [[0, 0, -1], [-2, -1, 0], [-1, 1], [0]]):
        for activation in KINKED:
            check_case(Case(perceptron(weights, biases, activation), IDENTITY_PLANE, box(-3, 3)))


def test_blocks_from_everywhere():
    """A stage that takes from two earlier stages and from the input, one that takes from the input alone, and one that
    takes from nothing."""
    rng = np.random.default_rng(1)

    def weight(*shape):
        return rng.integers(-2, 3, shape)

    stages = [
        stage({INPUT: weight(4, 3)}, weight(4), "relu"),
        stage({0: weight(3, 4)}, weight(3), ["hardtanh", "identity", "abs"]),
        stage({0: weight(3, 4), 1: weight(3, 3), INPUT: weight(3, 3)}, weight(3), "relu"),
        stage({INPUT: weight(2, 3)}, weight(2), ["relu6", "tent"]),
        stage({}, weight(2), "relu"),
        stage({1: weight(2, 3), 3: weight(2, 2), 4: weight(2, 2)}, weight(2), "identity"),
        stage({5: weight(2, 2), 2: weight(2, 3)}, weight(2), ["leaky_relu 0.25", "hardsigmoid"]),
        stage({6: weight(2, 2), INPUT: weight(2, 3)}, weight(2), "identity"),
    ]
    plane = np.array([[1.0, 0, 0], [0, 1, 0], [1, -1, 1]])
    check_case(Case(Stages(stages), plane, box(-2, 2)))


def test_vertices_where_nearly_equal_lines_cross():
    """-3 z and 3 z rounded: the second cuts the first somewhere, and cells later in the network depend on where."""
    check_case(random_case(37)[0], runs=("plain",), coordinates=False)


@pytest.mark.parametrize("seed", [37, 72, 185])
def test_coordinates_where_nearly_equal_lines_cross(seed):
    check_case(random_case(seed)[0], runs=("plain",))


def test_areas_on_a_slice_that_is_far_away_and_small():
    """Coordinates that were known to parts of their size, not of the slice's."""
    check_case(any_case(3535)[0], runs=("plain",))


def test_areas_of_a_thin_slice():
    """A cell was 1e-7 of its area too small: coordinates were good to parts of the slice's length, not of its width."""
    check_case(any_case(106924)[0], runs=("plain",))


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


@pytest.mark.part(2)
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


# ---- segments


@pytest.mark.part(3)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_segments_of_every_kind(kind):
    for seed in range(5 * SCALE):
        shape = SHAPES[seed % len(SHAPES)]
        *slice_, corners = random_slice(SLICE_KINDS[seed % 5], shape[0], seed)
        structure = STRUCTURES[seed % 5]
        stages = random_stages(structure, kind, shape, KINKED[seed % len(KINKED)], seed)
        case = segment_case(Case(stages, plane_of(*slice_), corners), seed)
        for how in RUNS.values():
            check_segment(case, **how)


@random_ones
@given(
    integer_networks(inputs=3, max_depth=3, max_width=4),
    st.lists(st.integers(-3, 3), min_size=6, max_size=6),
    st.sampled_from(KINKED),
    st.sampled_from([(0, 1), (-2, 3), (0.125, 0.75)]),
)
def test_segments_of_small_integers(network, ends, activation, interval):
    """Among them segments of zero length, which are one region."""
    plane = np.array([[b - a, 0, a] for a, b in zip(ends[:3], ends[3:], strict=True)], dtype=np.float64)
    corners = np.array([[interval[0], 0.0], [interval[1], 0.0]])
    check_segment(Case(perceptron(*network, activation), plane, corners))


def test_long_segments_are_counted_alike_in_all_ways():
    rng = np.random.default_rng(0)
    weights, biases = random_network("generic", (40, 60, 60, 60, 3), 0)
    start, end = 3 * rng.standard_normal((2, 40))
    plane = np.stack([end - start, np.zeros(40), start], axis=1)
    engine = Engine(perceptron(weights, biases), plane, np.array([[0.0, 0.0], [1.0, 0.0]]))
    plain = engine.enumerate_part(0, 1, cells=True)
    assert plain.regions[-1] > 50 and np.all(np.diff(plain.cells.xy[0::2, 0]) > 0)
    for how in RUNS.values():
        other = engine.enumerate_part(0, 1, cells=True, **how)
        assert other.regions == plain.regions and np.array_equal(other.cells.patterns, plain.cells.patterns)
        assert np.array_equal(other.cells.rows, plain.cells.rows)
    back = Engine(
        perceptron(weights, biases), np.stack([start - end, np.zeros(40), end], axis=1), engine.corners
    ).enumerate_part(0, 1, cells=True)
    assert abs(len(back.cells.patterns) - len(plain.cells.patterns)) <= 1  # start + (end - start) is not quite the end


# ---- the long run of bench/check_exact.py


def test_the_long_run_continues_and_reports_what_differs(tmp_path, monkeypatch, capsys):
    bench = Path(__file__).resolve().parents[2] / "bench"
    monkeypatch.syspath_prepend(str(bench))
    spec = importlib.util.spec_from_file_location("long_run", bench / "check_exact.py")
    long_run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(long_run)
    arguments = ["--networks", "6", "--first", "40", "--out", str(tmp_path)]
    assert long_run.main([*arguments, "--minutes", "0"]) == 0
    saved = json.loads((tmp_path / "oracle-40-6.json").read_text())
    assert saved["done"] == 1 and saved["mismatches"] == []

    compare = long_run.one

    def wrong(seed, maxima):
        if seed == 43:
            raise engine_cases.Difference("regions", 1, 2)
        return compare(seed, maxima)

    monkeypatch.setattr(long_run, "one", wrong)
    assert long_run.main(arguments) == 1
    saved = json.loads((tmp_path / "oracle-40-6.json").read_text())
    assert saved["done"] == 6 and [mismatch["seed"] for mismatch in saved["mismatches"]] == [43]
    assert sum(group["networks"] for group in saved["sums"]["kind"].values()) == 6
    assert "python bench/check_exact.py --seed 43" in capsys.readouterr().out
    assert long_run.main([*arguments, "--maxima"]) == 1
    assert json.loads((tmp_path / "oracle-maxima-40-6.json").read_text())["mismatches"][0]["seed"] == 43
    assert "python bench/check_exact.py --maxima --seed 43" in capsys.readouterr().out
