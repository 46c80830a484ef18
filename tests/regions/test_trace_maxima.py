"""Segments through maxima, which the tracer plays as tournaments of ReLUs, against the oracle and the slice engine."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import bits_of, oracle_stages, patterns_of, plane_of, stage
from cases.maxima import any_case, maxima, maxima_case, wide_maxima_case
from cases.networks import NETWORK_KINDS
from cases.traces import SEGMENT_KINDS, check_against_oracle, parts, random_segments
from pylinregion.exact.segment_engine import Tracer
from pylinregion.exact.slice_engine import Engine
from pylinregion.exact.tournament import Tournament
from pylinregion.lowering.stages import INPUT, Stages
from pylinregion.reference import rational


def check(stages, ends, **options):
    """Against the oracle: breakpoints, what changes, maps, and the pattern at the start."""
    found, expected = check_against_oracle(stages, *ends, starts=True, **options)
    assert [line.patterns[0] for line in expected] == patterns_of(stages, found.starts)
    for b, line in enumerate(expected):
        maps = found.maps[found.offsets[b] + b : found.offsets[b + 1] + b + 1]
        wanted = np.array([[[float(x) for x in row] for row in rows] for rows in line.outputs])
        assert maps.shape == wanted.shape
        assert np.abs(maps - wanted).max() <= 1e-9 * max(1.0, np.abs(wanted).max())
    return found


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("segments", SEGMENT_KINDS)
@pytest.mark.parametrize("kind", [kind for kind in NETWORK_KINDS if kind != "wild"])
def test_breakpoints_are_those_of_the_oracle(kind, segments):
    for seed in range(4):
        stages = maxima_case(kind, "generic", 10 * seed + len(kind)).stages
        check(stages, random_segments(segments, stages.inputs, 3, seed), force_exact=seed == 3)


@pytest.mark.part(3)
@pytest.mark.parametrize("seed", range(60))
def test_networks_of_any_kind(seed):
    stages = any_case(seed)[0].stages
    ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], stages.inputs, 3, seed)
    check_against_oracle(stages, *ends, threads=1 + seed % 2)


def test_many_maxima_are_traced_as_the_slice_engine_enumerates():
    breakpoints = 0
    for seed in range(8):
        stages = wide_maxima_case("generic", seed).stages
        start, end = (np.array(point, float) for point in ([-3, 2], [4, -1]))  # so that the difference is exact
        plane = plane_of(start, end - start, np.zeros(2))
        cells = Engine(stages, plane, np.array([[0.0, 0.0], [1.0, 0.0]])).enumerate_part(0, 1, cells=True).cells
        bits = bits_of(stages, cells.patterns)
        found = Tracer(stages).trace(start[None], end[None], starts=True)
        t, lines = parts(found, 0)
        breakpoints += len(t)
        assert [np.flatnonzero(p != q).tolist() for p, q in pairwise(bits)] == lines
        assert np.abs(cells.xy[1:-1:2, 0] - t).max() < 1e-8
        assert np.array_equal(bits[0], bits_of(stages, found.starts)[0])
    assert breakpoints > 50


def of_x(rows, sizes, after=None):
    """Maxima of functions (a, b): a x + b; then perhaps ReLUs (weights of the maxima ..., bias)."""
    rows = np.array(rows, dtype=np.float64)
    found = maxima(0, {INPUT: rows[:, :1]}, rows[:, 1], sizes)
    width = len(sizes)
    if after is not None:
        after = np.array(after, dtype=np.float64)
        found.append(stage({len(found) - 1: after[:, :-1]}, after[:, -1], "relu"))
        width = len(after)
    return Stages([*found, stage({len(found) - 1: np.ones((1, width))}, [0], "identity")])


def changes(stages, start, end):
    found = check(stages, (np.array([[start]], float), np.array([[end]], float)))
    t, lines = parts(found, 0)
    return t.tolist(), lines


def test_candidates_that_tie_below_a_third_change_nothing():
    below = [[1, -4], [-1, -4], [0, 0]]  # the first two are below 0 for |x| < 4, and tie at 0
    assert changes(of_x(below, [3]), -2, 2) == ([], [])
    assert changes(of_x(below[::-1], [3]), -2, 2) == ([], [])
    assert changes(of_x(below, [3]), -8, 8) == ([0.25, 0.75], [[1, 2], [0, 2]])


def test_three_candidates_that_meet_at_a_point():
    assert changes(of_x([[-1, 0], [0, 0], [1, 0]], [3]), -1, 3) == ([0.25], [[0, 2]])
    assert changes(of_x([[1, 0], [0, 0], [-1, 0]], [3]), -1, 3) == ([0.25], [[0, 2]])
    assert changes(of_x([[0, 0], [1, 0], [-1, 0]], [3]), -1, 3) == ([0.25], [[1, 2]])


def test_equal_candidates_go_to_the_first_of_them():
    assert changes(of_x([[1, 0], [1, 0], [0, 1], [0, 1]], [4]), 0, 4) == ([0.25], [[0, 2]])
    assert changes(of_x([[0, 1], [0, 1], [1, 0], [1, 0]], [4]), 0, 4) == ([0.25], [[0, 2]])
    # |x| - 1 and what is 0 wherever it is positive: a tie on an interval
    assert changes(of_x([[1, 0], [-1, 0]], [1, 1], after=[[1, 1, 0]]), -1, 1) == ([], [])


def test_a_maximum_and_a_relu_that_change_together_share_a_breakpoint():
    assert changes(of_x([[1, 0], [-1, 0]], [2], after=[[1, -1], [-2, 2]]), -2, 2) == (
        [0.25, 0.5, 0.75],
        [[2, 3], [0, 1], [2, 3]],
    )


def pools_of_relus(seed, shared):
    """ReLUs, maxima of three of them, and rows that take the maxima, or the ReLUs too."""
    rng = np.random.default_rng(seed)
    numbers = [rng.integers(-3, 4, shape).astype(np.float64) for shape in ((12, 3), (4, 4), (4, 12))]
    found = [stage({INPUT: numbers[0][:, :2]}, numbers[0][:, 2], "relu")]
    found += maxima(1, {0: np.eye(12)}, np.zeros(12), [3, 3, 3, 3])
    found.append(stage({2: numbers[1], **({0: numbers[2]} if shared else {})}, np.ones(4), "relu"))
    return Stages([*found, stage({3: np.ones((1, 4))}, [0], "identity")])


@pytest.mark.turns(2)
@pytest.mark.parametrize("shared", [False, True])
def test_pools_of_relus_tie_at_zero(shared):
    regions = exact_decisions = 0
    for seed in range(12):
        stages = pools_of_relus(seed, shared)
        found = check(stages, random_segments("generic", 2, 4, seed))
        regions, exact_decisions = regions + len(found.maps), exact_decisions + found.exact
        check(stages, random_segments("grid", 2, 4, seed))
    assert 0 < exact_decisions < regions  # ties of zeros are not told by integers, one by one


def test_a_tournament_computes_what_the_network_does():
    for seed in range(20):
        stages = any_case(seed)[0].stages
        played = Tournament(stages).stages
        assert all(each.units.groups is None for each in played.stages)
        x = np.random.default_rng(seed).integers(-4, 5, (3, stages.inputs)).tolist()
        for point in x:
            assert (
                rational.forward(oracle_stages(played), point)[1] == rational.forward(oracle_stages(stages), point)[1]
            )


# ---- models


def pooled_convnet():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 3),
    ).double()


def test_traces_of_a_pooled_convnet_are_what_the_model_computes():
    model = pooled_convnet()
    start, end = torch.randn(2, 6, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line = plr.trace(model, start, end)
    assert line.layers == ("1", "2", "4", "5")
    assert (line.n_regions > 60).all()
    used = np.bincount(line.layer, minlength=4)
    assert (used > 0).all()
    for b in range(len(line)):
        stops = np.concatenate([[0], line.segment(b)[0], [1]])
        middles = (stops[1:] + stops[:-1]) / 2
        maps = line.maps[line.region_offsets[b] : line.region_offsets[b + 1]]
        x = torch.stack([(1 - t) * start[b] + t * end[b] for t in middles.tolist()])
        wanted = model(x).detach().numpy()
        assert np.abs(maps[:, :, 0] * middles[:, None] + maps[:, :, 1] - wanted).max() < 1e-9
        names = [[line.neuron(number) for number in at] for at in changes_of(line, b)]
        assert all(len(set(at)) == len(at) for at in names)


def changes_of(line, b):
    bounds = line.neuron_offsets[line.offsets[b] : line.offsets[b + 1] + 1]
    return [line.neurons[low:high].tolist() for low, high in pairwise(bounds)]


def test_arms_and_slices_of_a_pooled_convnet():
    """Neurons that change along the arms change on their slice, and there are no more patterns than there."""
    model = pooled_convnet()
    x = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    frame = plr.random_frame((1, 12, 12), 2, seed=0)
    counts = [plr.count_regions(model, x, 3.0, frame=frame, method=method) for method in ("vertices", "axes", "slice")]
    for low, high in pairwise(counts):
        assert (low.changes <= high.changes).all() and (low.regions <= high.regions).all()
    assert (counts[0].regions < counts[1].regions).all()
