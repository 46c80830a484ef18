"""Traces of segments against the rational oracle, the slice engine and the models' own outputs."""

from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases.engine import KINKED, SHAPES, STRUCTURES, perceptron, plane_of, random_stages
from cases.networks import NETWORK_KINDS
from cases.parts import some
from cases.traces import SEGMENT_KINDS, check_against_oracle, network_of, parts, plain_net, random_segments
from pylinregion._util.rounding import spectral_norm
from pylinregion.exact.segment_engine import Tracer
from pylinregion.exact.slice_engine import Engine
from pylinregion.native.simd import simd_sets, use_simd

TRIED = ("relu", "leaky_relu 0.01", "abs", "relu6", "hardsigmoid")


# ---- against the oracle


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("activation", TRIED)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_breakpoints_are_those_of_the_oracle(kind, activation):
    for seed, segments in enumerate(SEGMENT_KINDS):
        stages = network_of(kind, activation, 7 * len(kind) + seed)
        ends = random_segments(segments, stages.inputs, 3, seed)
        found, expected = check_against_oracle(stages, *ends)
        for b, line in enumerate(expected):
            maps = found.maps[found.offsets[b] + b : found.offsets[b + 1] + b + 1]
            wanted = np.array([[[float(x) for x in row] for row in rows] for rows in line.outputs])
            assert maps.shape == wanted.shape
            # Of each region by itself, though others may be steeper by 2^60. (Its slopes or values may all be 0.)
            error, size = np.abs(maps - wanted).max(axis=1), np.abs(wanted).max(axis=1)
            assert (error <= np.where(size > 0, 1e-9 * size, 1e-12)).all(), (kind, seed)


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("structure", STRUCTURES[1:5])
def test_networks_of_every_structure_are_traced_as_the_oracle_does(structure, seed):
    rng = np.random.default_rng([STRUCTURES.index(structure), seed])
    kind, activation = str(rng.choice(NETWORK_KINDS)), str(rng.choice(KINKED))
    stages = random_stages(structure, kind, SHAPES[seed % len(SHAPES)], activation, seed)
    ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], stages.inputs, 3, seed)
    check_against_oracle(stages, *ends)


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_decisions_in_integers_are_the_same(kind):
    for seed, segments in enumerate(SEGMENT_KINDS):
        stages = network_of(kind, KINKED[seed], seed)
        ends = random_segments(segments, stages.inputs, 2, seed)
        found, _ = check_against_oracle(stages, *ends, force_exact=True)
        assert found.exact >= found.filter


@pytest.mark.parametrize("name", simd_sets()[1:])  # the best one is in all other tests
def test_every_instruction_set_finds_the_same(name):
    with use_simd(name):
        for seed, kind in some(list(enumerate(NETWORK_KINDS)), 4, name):
            stages = network_of(kind, TRIED[seed % len(TRIED)], seed, (4, 20, 9, 17, 3))
            ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], 4, 2, seed)
            check_against_oracle(stages, *ends)


def test_threads_and_batches_change_no_bit():
    stages = network_of("generic", "relu", 1, (5, 30, 30, 2))
    starts, ends = random_segments("generic", 5, 100, 1)
    tracer = Tracer(stages)
    whole = tracer.trace(starts, ends)
    assert whole.offsets[-1] > 2000 and whole.exact == 0
    for threads in (2, 3, 64):
        other = tracer.trace(starts, ends, threads=threads)
        for name in ("offsets", "t", "change_offsets", "changes", "maps"):
            assert np.array_equal(getattr(whole, name), getattr(other, name))
    for b in (0, 37, 99):
        one = tracer.trace(starts[b : b + 1], ends[b : b + 1])
        t, lines = parts(whole, b)
        assert np.array_equal(one.t, t) and parts(one, 0)[1] == lines
    without = tracer.trace(starts, ends, maps=False)
    assert without.maps is None and np.array_equal(without.t, whole.t)


def test_segments_backwards_have_the_breakpoints_in_reverse():
    found = 0
    for seed, kind in some(list(enumerate(NETWORK_KINDS)), 4, "backwards"):
        stages = network_of(kind, TRIED[seed % len(TRIED)], seed, (3, 12, 12, 12, 1))
        starts, ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], 3, 4, seed)
        there, back = Tracer(stages).trace(starts, ends), Tracer(stages).trace(ends, starts)
        for b in range(4):
            assert parts(there, b)[1] == parts(back, b)[1][::-1]
        found += len(there.t)
    assert found > 0


def test_halves_of_segments_have_the_breakpoints_of_the_whole():
    for seed, kind in some(list(enumerate(NETWORK_KINDS)), 3, "halves"):
        stages = network_of(kind, TRIED[seed % len(TRIED)], seed, (3, 12, 12, 1))
        starts = random_segments("grid", 3, 4, seed)[0]
        ends = starts + np.array([4.0, -8.0, 2.0])
        middles = (starts + ends) / 2  # exact: all are small integers
        tracer = Tracer(stages)
        whole, first, second = (tracer.trace(*both) for both in ((starts, ends), (starts, middles), (middles, ends)))
        for b in range(4):
            (t, lines), (t1, lines1), (t2, lines2) = (parts(found, b) for found in (whole, first, second))
            joined = lines1 + lines2
            if joined != lines:  # something changes right at the middle
                here = len(lines1)
                assert lines[:here] == lines1 and lines[here + 1 :] == lines2 and abs(t[here] - 0.5) < 1e-9
                t = np.delete(t, here)
            assert np.abs(np.concatenate([t1 / 2, 0.5 + t2 / 2]) - t).max(initial=0.0) < 1e-9


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize(
    "shape, activation",
    [
        ((10, 64, 64, 64, 10), "relu"),
        ((6, *[24] * 12, 2), "relu"),
        ((8, 100, 7, 100, 3), "leaky_relu 0.25"),
        ((4, 40, 40, 1), "relu6"),
        ((4, 40, 40, 1), "steps"),
        ((2, *[6] * 26, 1), "abs"),
    ],
)
def test_larger_networks_are_traced_as_the_slice_engine_enumerates(shape, activation):
    weights, biases = [], []
    rng = np.random.default_rng(len(shape))
    for columns, rows in pairwise(shape):
        weights.append(rng.standard_normal((rows, columns)) * np.sqrt(2 / columns))
        biases.append(rng.standard_normal(rows) / 2)
    stages = perceptron(weights, biases, activation)
    starts = rng.integers(-8, 9, (4, shape[0])).astype(np.float64)
    ends = rng.integers(-8, 9, (4, shape[0])).astype(np.float64)  # so that the difference is exact
    found = Tracer(stages).trace(starts, ends)
    assert found.offsets[-1] > 50
    for b, (start, end) in enumerate(zip(starts, ends, strict=True)):
        plane = plane_of(start, end - start, np.zeros_like(start))
        cells = Engine(stages, plane, np.array([[0.0, 0.0], [1.0, 0.0]])).enumerate_part(0, 1, cells=True).cells
        bits = np.unpackbits(cells.patterns, axis=1, bitorder="little")[:, : stages.lines]
        t, lines = parts(found, b)
        assert [np.flatnonzero(p != q).tolist() for p, q in pairwise(bits)] == lines
        assert np.abs(cells.xy[1:-1:2, 0] - t).max(initial=0.0) < 1e-8


# ---- cases by hand


def relu_lines(rows, last=None):
    """One hidden layer with the rows (weights..., bias), and one output."""
    array = np.array(rows, dtype=np.float64)
    out = np.ones((1, len(array))) if last is None else np.array([last], dtype=np.float64)
    return perceptron([array[:, :-1], out], [array[:, -1], np.zeros(1)])


def changes(stages, start, end):
    found, _ = check_against_oracle(stages, np.array([start], float), np.array([end], float))
    t, lines = parts(found, 0)
    return t.tolist(), lines


def test_neurons_that_change_together_share_a_breakpoint():
    stages = relu_lines([[1, -1], [-2, 2], [1, -3], [4, -100]])
    assert changes(stages, [0], [4]) == ([0.25, 0.75], [[0, 1], [2]])


def test_a_neuron_that_touches_its_kink_does_not_change():
    absolute = perceptron([[[1], [-1]], [[1, 1]], [[1]]], [[0, 0], [0], [0]])  # relu(|x|)
    assert changes(absolute, [-1], [1]) == ([0.5], [[0, 1]])
    negative = perceptron([[[1], [-1]], [[-1, -1]], [[1]]], [[0, 0], [0], [0]])  # relu(-|x|)
    assert changes(negative, [-1], [1]) == ([0.5], [[0, 1]])


def test_later_layers_that_change_at_an_old_breakpoint_are_told_there():
    stages = perceptron([[[1], [-1]], [[1, -1]], [[1]]], [[0, 0], [0], [0]])  # relu(x)
    assert changes(stages, [-1], [3]) == ([0.25], [[0, 1, 2]])
    flat = perceptron([[[1]], [[1]], [[1]]], [[0], [0], [0]])  # relu(relu(x)): identically 0 below 0
    assert changes(flat, [-1], [1]) == ([0.5], [[0, 1]])
    assert changes(flat, [1], [-1]) == ([0.5], [[0, 1]])


def test_segments_along_a_kink_and_without_length():
    stages = relu_lines([[1, 0, 0], [0, 1, 0]])
    assert changes(stages, [0, -1], [0, 2]) == ([1 / 3], [[1]])
    for start, end in [((0, -1), (0, -3)), ((1, 1), (1, 1)), ((0, 0), (0, 0)), ((-1, -1), (0, 0)), ((0, 0), (1, 1))]:
        assert changes(stages, start, end) == ([], [])


def test_a_row_that_cancels_in_float64_only_is_not_zero():
    """A trap of EXACTNESS: 3 w - fl(3 w) is 0 in float64 and not in truth."""
    w = 0.1
    three = float(np.float64(3 * w))
    stages = perceptron(
        [[[w]], [[3.0]], [[1.0]]], [[0.0], [-three], [0.0]]
    )  # relu(3 relu(0.1 x) - 0.30000000000000004)
    t, lines = changes(stages, [0], [2])
    assert lines == [[1]] and abs(t[0] - 0.5) < 1e-15  # not at x = 1, but where the oracle has it
    shifted = perceptron([[[w]], [[3.0]], [[1.0]]], [[0.0], [-3 * F(w)], [0.0]])
    assert changes(shifted, [1], [2])[1] in ([], [[1]])


def test_nearly_equal_neurons_are_kept_apart_and_in_order():
    up = np.nextafter(1.0, 2.0)
    stages = relu_lines([[3, -up], [3, -1], [up, -1 / 3], [-3, np.nextafter(1.0, 0.0)], [6, -2]])
    _, lines = changes(stages, [0], [1])
    assert [1, 4] in lines and len(lines) == 4


def test_layers_that_are_dead_or_zero_cost_no_wrong_breakpoint():
    for bias in (0.0, 1.0, -1.0):
        stages = perceptron([[[1], [1]], np.zeros((2, 2)), [[1, 1]]], [[-5, -6], [bias, 0.0], [0]])
        assert changes(stages, [0], [1]) == ([], [])
    zeros = perceptron([np.zeros((3, 2)), np.ones((2, 3)), np.ones((1, 2))], [np.zeros(3), np.zeros(2), np.zeros(1)])
    assert changes(zeros, [-1, 0], [1, 2]) == ([], [])


def test_breakpoints_where_a_long_segment_is_cut():
    """Segments with many breakpoints are cut half-way between two of them: here something changes there, too."""
    n = 600
    places = np.arange(1, n + 1)
    first = np.ones((n + 1, 1)), np.concatenate([[0.0], -places / 1024])
    second = np.zeros((n, n + 1)), -(places - 0.5) / 1024
    second[0][:, 0] = 1
    stages = perceptron([first[0], second[0], np.ones((1, n))], [first[1], second[1], np.zeros(1)])
    found = Tracer(stages).trace(np.array([[-1.0]]), np.array([[1.0]]))
    t, lines = parts(found, 0)
    expected = [[0], *([line] for k in range(n) for line in (n + 1 + k, 1 + k))]
    assert lines == expected
    assert np.abs(2 * t - 1 - np.concatenate([[0], np.arange(1, 2 * n + 1) / 2048])).max() < 1e-12
    assert np.abs(found.maps[:, 0, 0] - 2 * (np.arange(2 * n + 2) // 2)).max() < 1e-6


def test_weights_and_inputs_of_extreme_scale_are_traced_exactly_or_refused():
    rng = np.random.default_rng(0)
    for exponent in (-1000, -300, -30, 30):
        weights = [rng.standard_normal((6, 3)), rng.standard_normal((6, 6)), rng.standard_normal((1, 6))]
        biases = [np.zeros(6), np.zeros(6), np.zeros(1)]
        weights[0] = np.ldexp(weights[0], exponent)
        for bias in biases[:1]:
            bias[:] = np.ldexp(rng.standard_normal(6), exponent)
        stages = perceptron(weights, biases)
        check_against_oracle(stages, *random_segments("generic", 3, 3, 1))
        check_against_oracle(perceptron(weights, biases), np.full((1, 3), 5e-324), np.full((1, 3), 1e-310), far=1)
    huge = relu_lines([[1e300, 0, 1], [0, 1e300, 1]])
    with pytest.raises(plr.UnsupportedModelError, match=r"weights of this scale: .* amplify by 2"):
        Tracer(huge)
    with pytest.raises(plr.UnsupportedModelError, match="amplify by 2"):
        plr.trace(plain_net(), np.full(3, -1e200), np.full(3, 1e200))


def test_norms_are_bounds_and_near():
    rng = np.random.default_rng(0)
    for rows, columns in ((1, 1), (200, 200), (10, 300), (300, 10), (50, 40)):
        for weight in (
            rng.standard_normal((rows, columns)),
            np.outer(rng.standard_normal(rows), rng.standard_normal(columns)),
            np.ldexp(rng.standard_normal((rows, columns)), 900),
            np.ldexp(rng.standard_normal((rows, columns)), -900),
            np.eye(rows, columns),
        ):
            true = np.linalg.norm(weight, 2)
            assert true * (1 - 1e-12) <= spectral_norm(weight, 6) <= 1.05 * true
            assert true * (1 - 1e-12) <= spectral_norm(weight) <= 1.4 * true
            assert true * (1 - 1e-12) <= spectral_norm(weight, dtype=torch.float32) <= 1.4 * true
    assert spectral_norm(np.zeros((3, 4))) == 0
