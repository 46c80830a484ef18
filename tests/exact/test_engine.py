"""The slice engine against the rational oracle, with equality. For other ways to run it see test_engine_ways.py.

``PYLINREGION_TEST_SCALE=10`` runs ten times as many random cases.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    box,
    check_case,
    check_segment,
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
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.stages import INPUT, Stages
from pylinregion.native.simd import simd_sets

random_ones = settings(max_examples=examples(40, 3), deadline=None, derandomize=True, database=None)

SIMD = simd_sets()


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


@pytest.mark.turns(2)
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
    monkeypatch.setattr(engine_module, "STAGES_FOR_NORMS", 1)


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


@pytest.mark.turns(2)
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


@pytest.mark.turns(2)
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


# ---- segments


@pytest.mark.turns(2)
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
