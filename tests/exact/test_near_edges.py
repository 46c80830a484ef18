"""Which region and class points at edges have, and what maps and breakpoints are worth, against rational arithmetic.

Of lines that are almost equal, in slices that are almost none, and of networks whose large weights cancel.
"""

from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.networks import random_slice
from cases.partitions import ACTIVATIONS, both, matched, model_of
from cases.parts import some
from cases.rational import evaluate as rational_values
from cases.rational import place
from pylinregion.exact.map_errors import maps_and_errors
from pylinregion.exact.maps import Maps, Reals, evaluate, jacobians
from pylinregion.exact.proven_maps import affine_maps
from pylinregion.lowering.lower import stages_of
from pylinregion.reference import rational

PLANE = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])


class MaxOfPairs(nn.Module):
    def forward(self, x):
        return x.unflatten(1, (-1, 2)).amax(2)


def nearly_equal(seed, shape):
    """Rows that are multiples of others, but for the last bits."""
    rng = np.random.default_rng(seed)
    weights, biases = [], []
    for columns, rows in pairwise(shape):
        whole = np.concatenate([rng.standard_normal((rows, columns)), rng.standard_normal((rows, 1)) / 2], axis=1)
        for row in range(1, rows):
            if rng.random() < 0.6:
                whole[row] = whole[rng.integers(row)] * rng.choice([1.0, 3.0, 0.1, -1.0, -0.3])
                for column in rng.integers(0, columns + 1, rng.integers(0, 3)):
                    whole[row, column] = np.nextafter(whole[row, column], rng.choice([-9.0, 9.0]))
        weights.append(whole[:, :-1])
        biases.append(whole[:, -1])
    return weights, biases


def points_at_edges(part, seed, count=60):
    """Vertices, points of edges, and points beside them, some nearer than float64 can tell."""
    rng = np.random.default_rng(seed)
    ends = part.vertices[part.edges]
    on = np.concatenate([part.vertices, ends[:, 0] + (ends[:, 1] - ends[:, 0]) * rng.random((len(ends), 1))])
    extent = np.ptp(part.slice.polygon, axis=0)
    beside = [on + rng.standard_normal(on.shape) * extent * scale for scale in (1e-17, 1e-16, 1e-12, 1e-8, 1e-7)]
    st = rng.permutation(np.concatenate([on, *beside]))
    return st[part.slice.contains(st)][:count]


def check_points(part, oracle, network, activation, where, st):
    at = matched(part, oracle)
    stages = rational.chain(*network, ACTIVATIONS[activation][1]())
    for point, region, found in zip(st, part.locate(st), part.class_of(st), strict=True):
        holding = oracle.locate(*point)
        assert region == min(r for r, cell in enumerate(at) if cell in holding), point
        s, t = map(F, point.tolist())
        x = [F(float(o)) + s * F(float(u)) + t * F(float(v)) for o, u, v in zip(*where[:3], strict=True)]
        outputs = rational.forward(stages, x)[1]
        assert found == (int(outputs[0] > 0) if len(outputs) == 1 else outputs.index(max(outputs))), point


@pytest.mark.part(3)
@pytest.mark.parametrize("how", ["as they are", "thin", "small"])
@pytest.mark.parametrize("activation", ["relu", "hardtanh", "hardsigmoid", "softshrink"])
def test_points_at_edges_of_nearly_equal_lines(activation, how):
    for seed in some(range(3), 3, f"{activation} {how}"):
        shape = [(2, 6, 4, 2), (2, 8, 1), (3, 4, 4, 3)][seed]
        network = nearly_equal(seed, shape)
        where = list(random_slice("generic", shape[0], seed))
        if how == "thin":
            where[3] = where[3] * np.array([1, 1e-9])
        if how == "small":
            where[3] = 0.25 + 1e-6 * where[3]
        part, oracle = both(*network, where, activation)
        check_points(part, oracle, network, activation, where, points_at_edges(part, seed))


def test_the_sign_of_a_difference_of_nearly_equal_neurons():
    """The second layer takes 3 (0.1 z) - 0.3 z, which is rounding of weights alone, and float64 adds its own."""
    first = np.array([[0.3, -0.7], [0.1 * 0.3, 0.1 * -0.7]])
    network = (
        [first * 1.0, np.array([[1.0, -10.0], [-1.0, 10.0]]), np.ones((1, 2))],
        [
            np.array([0.2, 0.1 * 0.2]),
            np.zeros(2),
            np.zeros(1),
        ],
    )
    where = (*PLANE, np.array([[-3.0, -3.0], [3.0, -3.0], [3.0, 3.0], [-3.0, 3.0]]))
    part, oracle = both(*network, where)
    check_points(part, oracle, network, "relu", where, points_at_edges(part, 0, 200))


def _largest(values):
    return [x == max(values) for x in values]


def test_maxima_at_points_where_candidates_tie():
    """Pools over ReLUs tie at 0 on whole regions, and candidates elsewhere on lines."""
    torch.manual_seed(0)
    first = nn.Linear(2, 8, dtype=torch.float64)
    model = nn.Sequential(first, nn.ReLU(), nn.Unflatten(1, (1, 8)), nn.MaxPool1d(4, 2), nn.Flatten(), nn.Linear(3, 2))
    model = model.double()
    with torch.no_grad():
        for each in first.parameters():
            each.mul_(4).round_()
        first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
    part = plr.partition(model, plr.Slice.box(-2, 2))
    st = np.concatenate([points_at_edges(part, 0, 300), np.argwhere(np.ones((17, 17))) / 4 - 2])
    weight, bias = (
        [[F(x) for x in row] for row in np.atleast_2d(p.detach().numpy()).tolist()] for p in first.parameters()
    )
    patterns = np.unpackbits(part.patterns, axis=1, count=part.stages.lines, bitorder="little")
    edges, ties = 0, 0
    for point, region in zip(st, part.locate(st), strict=True):
        s, t = map(F, point.tolist())
        z = [row[0] * s + row[1] * t + b for row, b in zip(weight, bias[0], strict=True)]
        windows = [_largest([max(x, F(0)) for x in z[2 * window : 2 * window + 4]]) for window in range(3)]
        holding = [
            number
            for number, pattern in enumerate(patterns)
            if all(x == 0 or (x > 0) == on for x, on in zip(z, pattern[:8].tolist(), strict=True))
            and all(each[pattern[8 + 4 * k : 12 + 4 * k].argmax()] for k, each in enumerate(windows))
        ]
        assert region == holding[0]
        edges += len(holding) > 1
        ties += any(sum(each) > 1 and max(z[2 * k : 2 * k + 4]) > 0 for k, each in enumerate(windows))
    assert edges > 3 and ties > 3


@pytest.mark.parametrize("module", [nn.ReLU(), MaxOfPairs()], ids=["relu", "maxima"])
def test_points_of_a_grid_on_which_all_numbers_are_exact(module, monkeypatch):
    """Weights are integers, so that float64 does not round: which regions hold a point is told by plain arithmetic."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 16), module, nn.LazyLinear(8), module, nn.LazyLinear(3)).double()
    with torch.no_grad():
        model(torch.zeros(1, 2).double())
        for each in model.parameters():
            each.mul_(4).round_()
    part = plr.partition(model, plr.Slice.box(-2, 2))
    st = np.argwhere(np.ones((33, 33))) / 8 - 2
    with torch.no_grad():
        first = model[0](torch.from_numpy(st))
        z = torch.cat([first, model[2](module(first))], dim=1).numpy()
        classes = model(torch.from_numpy(st)).numpy().argmax(axis=1)
    on = np.unpackbits(part.patterns, axis=1, count=24, bitorder="little")[:, None] == 1
    if isinstance(module, nn.ReLU):
        holds = ((z > 0) == on) | (z == 0)
    else:
        pairs = z.reshape(-1, 12, 2)
        holds = ~on | (pairs == pairs.max(axis=2, keepdims=True)).reshape(z.shape)
    holds = holds.all(axis=2)
    told = part.locate(st), part.class_of(st)
    assert np.array_equal(told[0], holds.argmax(axis=0)) and np.array_equal(told[1], classes)
    assert (holds.sum(axis=0) > 1).sum() > 100 and (holds.sum(axis=0) > 3).sum() >= 3
    monkeypatch.setattr("pylinregion.exact.near_edges._SIGNS", 7 * part.stages.lines)
    monkeypatch.setattr("pylinregion.exact.near_edges._DOUBTS", 3)
    assert np.array_equal(told, (part.locate(st), part.class_of(st)))


# ---- maps


def cancelling(big):
    """Softshrink and a subtraction, after which nothing of the large weights is left."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 2))
    hidden = np.concatenate([big * weight, big * weight + np.spacing(big * weight)])
    out = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    return [hidden, out], [np.zeros(6), np.zeros(3)]


@pytest.mark.part(3)
@pytest.mark.parametrize("activation", ["softshrink", "relu", "hardsigmoid", "leaky_relu"])
@pytest.mark.parametrize("big", [1.0, 1e8, 1e30])
def test_maps_of_networks_that_cancel(big, activation):
    """Two layers of large weights of which little is left: in float64 they were off by several times themselves."""
    (hidden, out), biases = cancelling(big)
    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((3, 3))
    network = [hidden, out, mixed, np.ones((2, 3)) + rng.standard_normal((2, 3))], [*biases, np.zeros(2)]
    network[1].insert(2, rng.standard_normal(3))
    where = (*PLANE, np.array([[-2.0, -2], [2, -2], [2, 2], [-2, 2]]))
    part, oracle = both(*network, where, activation)
    at = matched(part, oracle)
    wanted = np.array([[[float(x) for x in row] for row in oracle.cells[i].outputs] for i in at])
    found = part.affine_maps()
    slope = np.linalg.norm(wanted[:, :, :2], axis=2)
    size = np.abs(wanted[:, :, 2]) + 2 * np.abs(wanted[:, :, :2]).sum(axis=2)
    assert (np.linalg.norm((found - wanted)[:, :, :2], axis=2) <= 1e-6 * slope).all()
    assert (np.abs(found - wanted)[:, :, 2] <= 1e-6 * size).all()
    assert np.allclose(part.slope_norms(), np.linalg.norm(slope, axis=1), rtol=1e-6, atol=0)
    for r in range(part.n_regions):
        assert (np.linalg.norm(part.jacobian(r).numpy() - wanted[r, :, :2], axis=1) <= 1e-6 * slope[r]).all()


@pytest.mark.part(2)
@pytest.mark.parametrize("seed", range(6))
def test_bounds_of_maps_hold_and_exact_ones_are_rounded_correctly(seed, monkeypatch):
    activation = list(ACTIVATIONS)[seed]
    rng = np.random.default_rng(seed)
    shape = (3, 6, 5, 4, 2)
    weights = [rng.standard_normal(pair[::-1]) * 2.0 ** rng.integers(-20, 20) for pair in pairwise(shape)]
    biases = [rng.standard_normal(n) for n in shape[1:]]
    where = random_slice("generic", 3, seed)
    part, oracle = both(weights, biases, where, activation)
    wanted = [[list(row) for row in oracle.cells[i].outputs] for i in matched(part, oracle)]
    maps = Maps(part.stages, torch.from_numpy(part.slice.plane), Reals())
    for rows, chunk, bounds in maps.bounded_chunks(part.patterns):
        for map_, bound, true in zip(chunk.tolist(), bounds.tolist(), wanted[rows], strict=True):
            for row, errors, numbers in zip(map_, bound, true, strict=True):
                assert all(abs(F(x) - y) <= F(e) for x, e, y in zip(row, errors, numbers, strict=True))
    together, bound = maps_and_errors(maps, part.patterns)
    for map_, true in zip(together.tolist(), wanted, strict=True):
        for row, errors, numbers in zip(map_, bound.tolist(), true, strict=True):
            assert all(abs(F(x) - y) <= F(e) for x, e, y in zip(row, errors, numbers, strict=True))
    slopes, errors = jacobians(part.stages, part.patterns)
    u, v = part.slice.plane[:, 0], part.slice.plane[:, 1]
    for jacobian, bound, true in zip(slopes.tolist(), errors.tolist(), wanted, strict=True):
        for row, error, numbers in zip(jacobian, bound, true, strict=True):
            for direction, slope in ((u, numbers[0]), (v, numbers[1])):
                along = sum(F(x) * F(float(d)) for x, d in zip(row, direction, strict=True))
                assert abs(along - slope) <= F(error) * F(float(np.linalg.norm(direction) * (1 + 1e-9)))
    monkeypatch.setattr("pylinregion.exact.proven_maps._WORTH", 0.0)
    found = affine_maps(part.stages, part.slice.plane, np.ones(2), part.patterns, worth=0.0)
    assert found.tolist() == [[[float(x) for x in row] for row in rows] for rows in wanted]
    jacobian = part.jacobian(0).numpy()
    assert np.allclose(jacobian @ u, found[0, :, 0], rtol=1e-12, atol=1e-12 * np.abs(jacobian).max())


@pytest.mark.parametrize("big", [1.0, 1e7])
def test_values_and_signs_at_points_of_deep_networks(big):
    """As near to lines as points of float64 are. The first layers multiply, and then cancel, what they round."""
    rng = np.random.default_rng(5)
    depth, width = 14, 6
    weights = [rng.standard_normal((width, 3)), *rng.standard_normal((depth, width, width)) / 2]
    large = big * rng.standard_normal((width, width))
    weights[2:4] = (
        np.concatenate([large, large + rng.standard_normal((width, width))]),
        np.hstack([np.eye(width), -np.eye(width)]),
    )
    biases = [rng.standard_normal(len(weight)) for weight in weights]
    biases[2] = np.full(2 * width, 8 * big)
    stages = stages_of(plr.capture(model_of(weights, biases), torch.zeros(1, 3).double()))
    slice_ = rng.standard_normal((3, 3))
    where = plr.Slice(*slice_.copy(), [[-1, -1], [1, -1], [1, 1], [-1, 1]])
    low, high = rng.uniform(-1, 1, (2, 100, 2))
    first, last = (evaluate(stages, where, ends).on for ends in (low, high))
    differ = np.flatnonzero((first != last).any(axis=1))[:30]
    low, high = low[differ], high[differ]
    line = stages.lines - 1 - (first != last)[differ, ::-1].argmax(axis=1)  # the last
    last = last[differ, line]
    for _ in range(60):  # to where each changes its sign
        middle = (low + high) / 2
        above = evaluate(stages, where, middle).on[np.arange(len(line)), line] == last
        low, high = np.where(above[:, None], low, middle), np.where(above[:, None], middle, high)
    assert len(differ) == 30 and np.ptp(line) > 30
    st = np.concatenate([low, high, rng.uniform(-1, 1, (10, 2))])
    found = evaluate(stages, where, st)
    assert found.sure.mean() > 0.9
    for point, outputs, bounds, on, sure in zip(
        st.tolist(), found.outputs.tolist(), found.rounding.tolist(), found.on, found.sure, strict=True
    ):
        x = place(slice_, [F(each) for each in point])
        pattern, wanted = rational_values(weights, biases, x, lambda z: max(z, F(0)), [F(0)])
        assert all(abs(F(y) - z) <= F(e) for y, z, e in zip(outputs, wanted, bounds, strict=True))
        true = np.array([each > 0 for layer in pattern for each in layer])
        assert (on == true)[sure].all()
    of_sums = np.abs(found.of_sums).max() / found.rounding.max()
    assert of_sums > 10  # norms grow less


# ---- breakpoints


@pytest.mark.parametrize("seed", range(4))
def test_breakpoints_of_lines_that_nearly_cancel(seed):
    """They were off by up to 5e-9, where a row is a difference of two that are almost equal."""
    rng = np.random.default_rng(seed)
    start, end = rng.standard_normal((2, 3)) * 2
    row = rng.standard_normal(3)
    first, shift = np.array([row, 0.7 * row]), np.array([5, 3.5]) + rng.standard_normal(2) / 100
    factors = rng.standard_normal(6)
    second = np.stack([factors, -factors / 0.7 * (1 + 10.0 ** -rng.uniform(6, 8, 6))], axis=1)
    crossing = start + rng.uniform(0.2, 0.8, (6, 1)) * (end - start)  # about where each is 0
    bias = -(second * np.maximum(crossing @ first.T + shift, 0)).sum(axis=1)
    network = [first, second, np.ones((1, 6))], [shift, bias, np.zeros(1)]
    line = plr.trace(model_of(*network), start[None], end[None])
    true = rational.trace(rational.chain(*network, rational.Pieces.relu()), start, end)
    assert len(line.t) == len(true.breakpoints) > 1
    assert all(abs(F(t) - place) < 1e-14 for t, place in zip(line.t.tolist(), true.breakpoints, strict=True))
    wanted = np.array([[[float(x) for x in row] for row in rows] for rows in true.outputs])
    size = np.abs(wanted).max(axis=(1, 2))
    assert (np.abs(line.maps - wanted).max(axis=(1, 2)) <= 1e-8 * np.where(size > 0, size, 1)).all()
