"""Traces of segments against the rational oracle, the slice engine and the models' own outputs."""

import os
import signal
import threading
import time
from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import ACTIVATIONS, KINKED, SHAPES, STRUCTURES, perceptron, plane_of, random_stages
from cases.networks import NETWORK_KINDS, random_network
from cases.partitions import model_of
from cases.parts import some
from cases.traces import SEGMENT_KINDS, check_against_oracle, parts, random_segments
from pylinregion._util.rounding import spectral_norm
from pylinregion.exact.maps import Maps, Reals
from pylinregion.exact.neurons import Neuron
from pylinregion.exact.segment_engine import Tracer
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.lower import stages_of
from pylinregion.native.simd import simd_sets, use_simd

TRIED = ("relu", "leaky_relu 0.01", "abs", "relu6", "hardsigmoid")


def network_of(kind, activation, seed, shape=None):
    return random_stages("chain", kind, shape or SHAPES[seed % len(SHAPES)], activation, seed)


# ---- against the oracle


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


# ---- the public function


def plain_net(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 20), nn.LeakyReLU(), nn.Linear(20, 4)).to(dtype)


class Residual(nn.Module):
    """A convolution, batch norm, a skip and two outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(48, 2)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1), self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = self.norm(self.first(x)).relu()
        return self.head((h + nn.functional.hardtanh(self.second(h))).flatten(1))


@pytest.mark.parametrize(
    "model, shape", [(plain_net(), (3,)), (Residual().eval(), (2, 4, 4))], ids=["plain", "residual"]
)
def test_traces_say_what_the_model_computes(model, shape):
    torch.manual_seed(0)
    start, end = torch.randn(2, 6, *shape) * 2
    line = plr.trace(model, start, end)
    assert len(line) == 6 and line.n_regions.sum() == len(line.maps) == line.region_offsets[-1] > 60
    double = __import__("copy").deepcopy(model).double()
    for b in range(6):
        t, flips = line.segment(b)
        assert len(flips) == len(t) == line.n_regions[b] - 1 and all(flips)
        stops = np.concatenate([[0.0], t, [1.0]])
        for r, (low, high) in enumerate(pairwise(stops)):
            at = torch.tensor([low, (low + high) / 2, high])
            points = start[b].double() + at.view(-1, *[1] * len(shape)) * (end[b].double() - start[b].double())
            region = line.region_offsets[b] + r
            with torch.no_grad():
                values = double(points).numpy()
            mine = np.outer(at, line.slopes[region]) + line.intercepts[region]
            assert np.abs(mine - values).max() < 1e-10
    assert line.layers == plr.capture(model, start).layer_names
    layers = {line.layers[number] for number in line.layer}
    assert layers == set(line.layers)
    first = Neuron(line.layers[line.layer[0]], int(line.unit[0]))
    assert line.neuron(int(line.neurons[0])) == first == line.segment(0)[1][0][0]
    assert "all proven" in repr(line) and "6 segments" in repr(line) and line.definition in repr(line)
    assert line.certificate.exact == line.certificate.ties == 0 < line.certificate.filter


@pytest.mark.parametrize("kind", ["zero_bias", "duplicated", "int8"])
def test_slopes_are_those_of_autograd(kind):
    weights, biases = random_network(kind, (4, 15, 15, 3), 5)
    model = model_of(weights, biases)
    start, end = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    line = plr.trace(model, start, end)
    for b in range(5):
        stops = np.concatenate([[0.0], line.segment(b)[0], [1.0]])
        for r, middle in enumerate((stops[:-1] + stops[1:]) / 2):
            t = torch.tensor(middle, requires_grad=True)
            jacobian = torch.autograd.functional.jacobian(lambda t, b=b: model(start[b] + t * (end[b] - start[b])), t)
            region = line.region_offsets[b] + r
            assert np.abs(jacobian.numpy() - line.slopes[region]).max() <= 1e-11 * max(1.0, np.abs(line.slopes).max())


@pytest.mark.parametrize("steep", [1e10, 1e14, 1e18])
def test_maps_after_a_steep_piece_are_those_of_their_own_region(steep):
    """hardtanh(k x - 0.3 k) + x / 64: the last region is x / 64 + 1, whatever k was before; found by a review."""
    net = nn.Sequential(nn.Linear(1, 2), nn.Hardtanh(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[steep], [2.0**-6]]))
        net[0].bias.copy_(torch.tensor([-0.3 * steep, 0.0]))
        net[2].weight.fill_(1.0)
        net[2].bias.zero_()
    line = plr.trace(net, torch.zeros(1, 1), torch.ones(1, 1))
    assert line.n_regions.tolist() == [3]
    assert line.slopes[[0, 2], 0].tolist() == [2.0**-6, 2.0**-6]
    assert line.intercepts[[0, 2], 0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("options", [{}, {"radii": np.array([0.5, 2.0, 1.0])}])
def test_maps_where_rows_are_scaled_are_those_of_the_patterns(options):
    """Rows times 1e12 and 1e-12; layers in which a steep piece of an earlier one is off, and maxima of them."""
    rng = np.random.default_rng(4)
    scales = [torch.from_numpy(10.0 ** rng.choice([-12, 0, 12], size=12)) for _ in range(2)]
    net = nn.Sequential(
        nn.Linear(4, 12), nn.Hardtanh(), nn.Linear(12, 12), nn.ReLU(), nn.Unflatten(1, (3, 4)), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(6, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer, scale in zip((net[0], net[2]), scales, strict=True):
            layer.weight.copy_(torch.from_numpy(rng.standard_normal(layer.weight.shape)) * scale[:, None])
            layer.bias.copy_(torch.from_numpy(rng.standard_normal(12)) * scale)
        net[7].weight.copy_(torch.from_numpy(rng.standard_normal((3, 6))))
    stages = stages_of(plr.capture(net, torch.zeros(2, 4, dtype=torch.float64)))
    first, second = rng.standard_normal((2, 3, 4))
    found = Tracer(stages).trace(first, second, starts=True, **options)
    along, start = second - first, first
    if options:
        along, start = 2 * options["radii"][:, None] * second, first - options["radii"][:, None] * second
    for b in range(3):
        on = np.unpackbits(found.starts[b], count=stages.lines, bitorder="little")
        for r, changed in enumerate([[], *parts(found, b)[1]]):
            on[changed] ^= 1
            inputs = torch.from_numpy(np.stack([along[b], start[b]], axis=1))
            ((_, wanted),) = Maps(stages, inputs, Reals()).chunks(np.packbits(on, bitorder="little")[None])
            got, size = found.maps[found.offsets[b] + b + r], np.abs(wanted[0].numpy()).max(axis=0)
            assert (np.abs(got - wanted[0].numpy()) <= 1e-9 * size).all(), (b, r)
    assert len(found.t) > 20
    without = Tracer(stages).trace(first, second, **options)
    assert np.array_equal(without.maps, found.maps) and without.starts is None


def test_maps_of_ordinary_networks_are_sums_along_the_segment(monkeypatch):
    """The way by patterns is for the others: it is slower."""
    stages = network_of("generic", "relu", 1, (20, 50, 50, 50, 5))
    starts, ends = random_segments("generic", 20, 20, 1)
    monkeypatch.setattr("pylinregion.exact.segment_engine.affine_maps", None)
    assert np.isfinite(Tracer(stages).trace(starts, ends).maps).all()


def test_patterns_on_both_sides_of_a_breakpoint_differ_by_what_is_told():
    model = plain_net(torch.float64)
    start, end = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    line = plr.trace(model, start, end)
    t, flips = line.segment(0)
    stops = np.concatenate([[0.0], t, [1.0]])
    middles = torch.from_numpy((stops[:-1] + stops[1:]) / 2)
    hidden = []
    value = start + middles[:, None] * (end - start)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                value = layer(value)
            else:
                hidden.append(value > 0)
                value = layer(value)
    pattern = torch.cat(hidden, dim=1)
    names = [Neuron(layer, unit) for layer in line.layers for unit in range(20)]
    assert len(flips) > 5
    for k, told in enumerate(flips):
        assert {names[i] for i in (pattern[k] != pattern[k + 1]).nonzero().flatten().tolist()} == set(told)


def test_segments_may_be_one_many_or_none_and_of_any_kind():
    model = plain_net()
    start, end = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    many = plr.trace(model, start, end)
    one = plr.trace(model, start[2], end[2])
    assert len(one) == 1 and np.array_equal(one.t, many.segment(2)[0])
    assert repr(one).startswith(f"Trace of 1 segment: {one.n_regions[0]} region")
    none = plr.trace(model, start[:0], end[:0])
    assert len(none) == 0 and none.n_regions.shape == (0,) and none.maps.shape == (0, 4, 2)
    same = plr.trace(model, start, start)
    assert same.n_regions.tolist() == [1] * 5 and not len(same.t)
    assert np.array_equal(same.slopes, np.zeros((5, 4)))
    network = plr.capture(model, start)
    exported = torch.export.export(model, (start,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for other in (network, exported):
        assert np.array_equal(plr.trace(other, start, end).t, many.t)
        assert np.array_equal(plr.trace(other, start[2], end[2]).t, one.t)
    for convert in (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.double):
        assert np.array_equal(plr.trace(model, convert(start), convert(end), threads=2).neurons, many.neurons)
    quick = plr.trace(model, start, end, slopes=False)
    assert quick.maps is None and np.array_equal(quick.neurons, many.neurons)
    for name in ("slopes", "intercepts"):
        with pytest.raises(ValueError, match=r"this trace has no slopes: call trace\(..., slopes=True\)"):
            getattr(quick, name)
    half = plr.trace(plain_net(torch.bfloat16), start, end)
    assert half.n_regions.sum() > 5


def test_ends_of_float64_whose_difference_is_not_exact():
    stages = network_of("generic", "relu", 3, (2, 8, 8, 1))
    start, end = np.array([[1e-9, 1.0]]), np.array([[1e9 + 1e-7, -1e-20]])
    assert F(end[0, 0] - start[0, 0]) != F(end[0, 0]) - F(start[0, 0])
    check_against_oracle(stages, start, end)


def test_progress_goes_to_stderr(capfd):
    plr.trace(plain_net(), torch.zeros(7, 3), torch.ones(7, 3), progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "7/7" in err


def test_weights_of_now_are_traced():
    model = plain_net()
    start, end = torch.zeros(3), torch.ones(3)
    before = plr.trace(model, start, end)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(-1.5)
    after = plr.trace(model, start, end)
    stages = stages_of(plr.capture(model, start[None]))
    wanted = Tracer(stages).trace(start[None].double().numpy(), end[None].double().numpy())
    assert np.array_equal(after.t, wanted.t) and not np.array_equal(after.t, before.t)


def test_bad_arguments_are_named():
    model, x = plain_net(), torch.zeros(2, 3)

    def bad(message, start=x, end=x, *, error=ValueError, net=model, **arguments):
        with pytest.raises(error, match=message):
            plr.trace(net, start, end, **arguments)

    nan = x.clone()
    nan[1, 2] = torch.nan
    bad(r"start must be finite, got nan at \[1, 2\]", nan)
    bad(r"end must be finite, got nan at \[1, 2\]", end=nan)
    bad(r"end must have the shape of start, \[2, 3\], got \[3\]", end=x[0])
    bad(r"start must be \[B, \*input_shape\] or \[\*input_shape\], got \[2, 4\]", torch.zeros(2, 4), torch.zeros(2, 4))
    network = plr.capture(model, x)
    bad(
        r"start must be \[B, 3\] or \[3\], as the network was captured, got \[4\]",
        x[0, :1].expand(4),
        x[0, :1].expand(4),
        net=network,
    )
    bad("start must be an array of real numbers", "here", error=TypeError)
    bad("end must be a tensor of real numbers, got torch.complex64", end=x + 0j, error=TypeError)
    number = torch.tensor(1.0)
    bad(r"start must be \[B, \*input_shape\] or \[\*input_shape\], got a single number", number, number)
    bad("slopes must be True or False, got int", slopes=1, error=TypeError)
    bad("threads must be at least 1, got 0", threads=0)
    bad(rf"threads must be at most 65536, got {2**70}", threads=2**70)
    bad("threads must be an integer, got float", threads=1.0, error=TypeError)
    bad("model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got str", net="net", error=TypeError)
    smooth = nn.Sequential(nn.Linear(3, 3), nn.GELU())
    bad("exact methods .* gelu in module '1'", net=smooth, error=plr.UnsupportedModelError)
    broken = plain_net()
    plr.trace(broken, x, x)
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.inf
    bad("the model's 0.weight has NaN or infinite entries", net=broken, error=plr.UnsupportedModelError)
    line = plr.trace(model, x, x + 1)
    for b in (-1, 2):
        with pytest.raises(ValueError, match=f"b must be from 0 to 1, got {b}"):
            line.segment(b)
    with pytest.raises(ValueError, match="neuron must be from 0 to 39, got 40"):
        line.neuron(40)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_is_heard_within_a_second(threads):
    stages = network_of("zero_bias", "relu", 0, (30, 60, 60, 60, 1))
    starts, ends = random_segments("through the origin", 30, 5000, 0)
    tracer = Tracer(stages)
    pressed, begun = [], threading.Event()

    def press():
        begun.wait()
        pressed.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            tracer.trace(starts, ends, force_exact=True, threads=threads, report=lambda done: begun.set())
    finally:
        signal.signal(signal.SIGINT, before)
    assert (time.process_time() - pressed[0]) / threads < 1  # of the processor's time


def test_arrays_are_read_only():
    line = plr.trace(plain_net(), torch.zeros(2, 3), torch.ones(2, 3))
    for array in (line.offsets, line.t, line.neuron_offsets, line.neurons, line.maps, line.slopes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_activations_are_all_known():
    assert set(TRIED) <= set(ACTIVATIONS)
