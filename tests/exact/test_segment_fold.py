"""Segments through the fold: what the dense tracer and the rational oracle find, wherever they are cut."""

import os
import signal
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import STRUCTURES, perceptron, random_stages
from cases.maxima import any_case
from cases.networks import NETWORK_KINDS
from cases.traces import SEGMENT_KINDS, check_against_oracle, network_of, parts, random_segments
from pylinregion.counting import exact_count
from pylinregion.exact import fold_room, segment_fold, segment_maps, slice_fold
from pylinregion.exact.segment_engine import Tracer
from pylinregion.exact.segment_fold import FoldedTracer, tracer_of
from pylinregion.lowering.lower import stages_of

TRIED = ("relu", "leaky_relu 0.01", "abs", "relu6", "hardsigmoid")
EXACT = ("offsets", "change_offsets", "changes", "starts")


def hold(held, stages, monkeypatch, columns=12):
    """Let folds hold all columns of a small segment ("whole"), or so few that it is "cut"."""
    if held == "cut":
        monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", columns * max(stage.rows for stage in stages.stages))


HELD = pytest.mark.parametrize("held", ["whole", "cut"])


def same_traces(stages, first, second, **how):
    """All that is exact, equal; places and maps near. Gives the folded one."""
    dense, folded = (kind(stages).trace(first, second, starts=True, **how) for kind in (Tracer, FoldedTracer))
    for name in EXACT:
        assert np.array_equal(getattr(folded, name), getattr(dense, name)), name
    assert np.abs(folded.t - dense.t).max(initial=0) < 1e-7
    assert np.all((folded.t > 0) & (folded.t < 1))
    size = np.abs(dense.maps).max(axis=1)
    rounding = (
        4 * 2.0**-53 * size.max(axis=1, keepdims=True)
    )  # of a value at an end, a difference from that in the middle
    allowed = np.where(size > 0, 1e-6 * size + rounding, 1e-12)
    assert (np.abs(folded.maps - dense.maps).max(axis=1) <= allowed).all()
    return folded


# ---- against the dense tracer and the oracle


@pytest.mark.turns(2)
@pytest.mark.part(8)
@pytest.mark.parametrize("segments", SEGMENT_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@HELD
def test_the_fold_finds_what_the_dense_tracer_does(kind, segments, held, monkeypatch):
    seed = NETWORK_KINDS.index(kind) + SEGMENT_KINDS.index(segments)
    stages = network_of(kind, TRIED[seed % len(TRIED)], seed)
    hold(held, stages, monkeypatch)
    ends = random_segments(segments, stages.inputs, 3, seed)
    same_traces(stages, *ends, threads=1 + seed % 2)
    same_traces(stages, *ends, radii=np.array([0.5, 2.0, 1.0]))


@pytest.mark.turns(2)
@pytest.mark.part(8)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("structure", STRUCTURES[1:5])
@HELD
def test_breakpoints_are_those_of_the_oracle(structure, kind, held, monkeypatch):
    seed = STRUCTURES.index(structure) + NETWORK_KINDS.index(kind)
    stages = random_stages(structure, kind, (3, 7, 6, 5, 2), TRIED[seed % len(TRIED)], seed)
    hold(held, stages, monkeypatch)
    ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], 3, 3, seed)
    found, expected = check_against_oracle(stages, *ends, tracer=FoldedTracer, force_exact=seed % 3 == 0)
    for b, line in enumerate(expected):
        maps = found.maps[found.offsets[b] + b : found.offsets[b + 1] + b + 1]
        wanted = np.array([[[float(x) for x in row] for row in rows] for rows in line.outputs])
        error, size = np.abs(maps - wanted).max(axis=1), np.abs(wanted).max(axis=1)
        assert (error <= np.where(size > 0, 1e-9 * size, 1e-12)).all()


@pytest.mark.turns(2)
@pytest.mark.part(6)
@pytest.mark.parametrize("seed", range(60))
@HELD
def test_maxima_are_cut_where_the_winner_changes(seed, held, monkeypatch):
    stages = any_case(seed)[0].stages
    hold(held, stages, monkeypatch)
    ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], stages.inputs, 3, seed)
    check_against_oracle(stages, *ends, tracer=FoldedTracer)
    same_traces(stages, *ends)


@pytest.mark.turns(2)
def test_decisions_in_integers_are_the_same():
    stages = network_of("zero_bias", "relu", 3, (3, 9, 9, 2))
    ends = random_segments("grid", 3, 6, 0)
    found, exact = (FoldedTracer(stages).trace(*ends, force_exact=force) for force in (False, True))
    assert exact.exact > exact.filter >= 0 and np.array_equal(found.changes, exact.changes)


# ---- cases by hand


def rows_of(*rows):
    """One hidden layer with the rows (weights..., bias), and one output."""
    array = np.array(rows, dtype=np.float64)
    return perceptron([array[:, :-1], np.ones((1, len(array)))], [array[:, -1], np.zeros(1)])


@pytest.mark.turns(2)
@HELD
def test_directions_are_those_of_the_ends_to_the_last_bit(held, monkeypatch):
    """x2 goes from 2^-60 to 1, and its direction is no float: with the nearest one, 1, the two rows part."""
    tiny = 2.0**-60
    stages = rows_of([1, 0, 0, -0.5], [0, 1, -1, -0.5], [0, 1, 0, -0.75])
    hold(held, stages, monkeypatch, 1)
    start, end = np.array([[0.0, tiny, tiny / 2]]), np.array([[1.0, 1.0, tiny / 2]])
    found, _ = check_against_oracle(stages, start, end, tracer=FoldedTracer)
    t, lines = parts(found, 0)
    assert lines == [[0, 1], [2]] and t[0] == 0.5


@pytest.mark.turns(2)
def test_what_changes_at_a_cut_is_told_there(monkeypatch):
    """Cuts are at halves: here two rows cross one, one only touches it, and one changes there after another layer."""
    folds = []
    folded = slice_fold.SliceFolder.fold_segments
    monkeypatch.setattr(
        slice_fold.SliceFolder, "fold_segments", lambda *given, **how: folds.append(1) or folded(*given, **how)
    )
    monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", 10)
    hidden = np.array([[1.0], [-2.0], [1.0], [1.0], [1.0]]), np.array([0.0, 0.0, -0.375, -0.5, -0.625])
    second = np.array([[1.0, 0.5, 0.0, 0.0, 0.0], [-1.0, -0.5, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]), np.zeros(3)
    stages = perceptron([hidden[0], second[0], np.ones((1, 3))], [hidden[1], second[1], np.zeros(1)])
    found, _ = check_against_oracle(stages, np.array([[-1.0]]), np.array([[1.0]]), tracer=FoldedTracer)
    assert parts(found, 0)[1] == [[0, 1, 7], [2], [3], [4]] and found.t[0] == 0.5
    assert len(folds) > 3


@pytest.mark.turns(2)
@HELD
def test_segments_along_kinks_and_without_length(held, monkeypatch):
    stages = rows_of([1, 0, 0], [0, 1, 0], [2, 0, 0])
    hold(held, stages, monkeypatch, 1)
    for start, end in [((0, -1), (0, 2)), ((1, 1), (1, 1)), ((0, 0), (0, 0)), ((-1, -1), (0, 0)), ((-1, 1), (2, -2))]:
        ends = np.array([start], float), np.array([end], float)
        check_against_oracle(stages, *ends, tracer=FoldedTracer)
        same_traces(stages, *ends)


@pytest.mark.turns(2)
def test_maps_that_rounding_leaves_too_little_of_are_those_of_the_patterns(monkeypatch):
    asked = []
    exactly = segment_fold.SegmentTracer._completed
    monkeypatch.setattr(
        segment_fold.SegmentTracer,
        "_completed",
        lambda self, found, ends: (
            asked.append(np.isnan(found.maps).any(axis=(1, 2)).tolist()) or exactly(self, found, ends)
        ),
    )
    steep = 1e14  # hardtanh(k x - 0.3 k) + x / 64: the last region is x / 64 + 1
    stages = perceptron([[[steep], [2.0**-6]], [[1.0, 1.0]]], [[-0.3 * steep, 0.0], [0.0]], "hardtanh")
    found = FoldedTracer(stages).trace(np.zeros((1, 1)), np.ones((1, 1)))
    assert found.maps[[0, 2], 0].tolist() == [[2.0**-6, -1.0], [2.0**-6, 1.0]]
    ordinary = network_of("generic", "relu", 1, (20, 50, 50, 50, 5))
    FoldedTracer(ordinary).trace(*random_segments("generic", 20, 4, 1))
    assert asked[0] == [True, False, True] and not any(asked[1])


@pytest.mark.turns(2)
def test_many_regions_are_mapped_a_part_at_a_time(monkeypatch):
    stages = network_of("generic", "relu", 1, (4, 30, 30, 3))
    ends = random_segments("generic", 4, 2, 1)
    whole = FoldedTracer(stages).trace(*ends)
    monkeypatch.setattr(segment_maps, "_NUMBERS_AT_ONCE", 100)
    assert len(whole.t) > 30
    assert np.allclose(FoldedTracer(stages).trace(*ends).maps, whole.maps, rtol=1e-12, atol=0)


# ---- many segments, threads, limits


@pytest.mark.turns(2)
def test_threads_change_no_bit_and_batches_nothing_that_is_exact(monkeypatch):
    stages = network_of("generic", "relu", 1, (5, 30, 30, 2))
    ends = random_segments("generic", 5, 60, 1)
    whole = FoldedTracer(stages).trace(*ends, starts=True)
    monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", 1500)
    some = [FoldedTracer(stages).trace(*ends, starts=True, threads=threads) for threads in (1, 2, 5)]
    assert whole.offsets[-1] > 1000 and whole.exact == 0
    for name in EXACT:
        assert np.array_equal(getattr(some[0], name), getattr(whole, name))
    for other in some[1:]:
        for name in (*EXACT, "t", "maps", "filter"):
            assert np.array_equal(getattr(some[0], name), getattr(other, name)), name


def convolutions(seed=0, channels=4):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * channels, 3),
    ).double().eval()  # fmt: skip


def captured(model, shape):
    return plr.capture(model, torch.zeros(2, *shape, dtype=torch.float64))


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize("zero_bias", [False, True])
@HELD
def test_convolutions_are_traced_as_their_matrices_are(zero_bias, held, monkeypatch):
    model = convolutions(1)
    if zero_bias:
        with torch.no_grad():
            model[0].bias.zero_(), model[4].bias.zero_()
            model[0].weight[1] = -2 * model[0].weight[0]  # a channel twice
    stages = stages_of(captured(model, (2, 8, 8)))
    hold(held, stages, monkeypatch, 60)
    assert not stages.are_one_system and isinstance(tracer_of(stages), FoldedTracer)
    first, second = np.random.default_rng(0).standard_normal((2, 3, 128))
    if zero_bias:
        second = -first / 2  # through the point where all lines meet
    found = same_traces(stages, first, second)
    assert zero_bias or found.offsets[-1] > 300


@pytest.mark.turns(2)
def test_arms_around_points_are_counted_as_by_the_dense_tracer(monkeypatch):
    model = convolutions(2)
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    for how in ({"n_directions": 5}, {"frame": torch.eye(128)[:3].reshape(3, 2, 8, 8)}):
        folded = plr.count_regions(model, x, 0.7, method="axes", **how)
        with monkeypatch.context() as patch:
            patch.setattr(exact_count, "tracer_of", Tracer)
            dense = plr.count_regions(model, x, 0.7, method="axes", **how)
        assert torch.equal(folded.changes, dense.changes) and torch.equal(folded.regions, dense.regions)
        assert (folded.regions > 10).all()


@pytest.mark.turns(2)
def test_a_network_whose_matrices_would_be_too_large_is_traced():
    """The first convolution would be a matrix of 16384 x 16384."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(4096, 2),
    )  # fmt: skip
    x = torch.rand(2, 3, 32, 32)
    assert plr.explain(model, x).coverage == dict.fromkeys(("vertices", "axes", "slice", "partition", "trace"))
    line = plr.trace(model, x[0], x[0] + 0.05 * (x[1] - x[0]))
    assert line.n_regions[0] > 50 and line.certificate.exact == 0
    stops = np.concatenate([[0.0], line.t, [1.0]])
    middle = (stops[1:] + stops[:-1]) / 2
    wide, start = model.double(), x[0].double()
    along = (x[0] + 0.05 * (x[1] - x[0])).double() - start
    with torch.no_grad():
        values = wide(start + torch.from_numpy(middle)[:, None, None, None] * along).numpy()
    assert np.abs(line.slopes * middle[:, None] + line.intercepts - values).max() < 1e-13
    inside = torch.from_numpy(stops[1:-1])[:, None, None, None] * along + start
    with torch.no_grad():
        first = wide[0](inside).flatten(1).numpy()
    for at, (low, high) in enumerate(pairwise(line.neuron_offsets.tolist())):
        of_first = line.unit[low:high][line.layer[low:high] == 0]
        assert (np.abs(first[at, of_first]) < 1e-9).all()  # they are at their kink


@pytest.mark.turns(2)
def test_neurons_that_all_change_at_one_point_take_memory_and_are_named(monkeypatch):
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", 100)
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "100000")
    model = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 1))
    start = torch.randn(1, 8, 8)
    said = r"a stretch of this segment, however short, \d+ or more neurons are on both .* budget of 100000 bytes. Take"
    with pytest.raises(plr.BudgetExceededError, match=said):
        plr.trace(model, start, -start)


@pytest.mark.turns(2)
def test_numbers_that_are_too_large_are_refused():
    model = convolutions(3)
    big = torch.full((2, 8, 8), 1e200, dtype=torch.float64)
    with pytest.raises(plr.UnsupportedModelError, match="amplify by 2"):
        plr.trace(model, -big, big)


@pytest.mark.turns(2)
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_is_heard_within_a_second(threads):
    model = convolutions(4, 8)
    tracer = tracer_of(stages_of(captured(model, (2, 16, 16))))
    starts, ends = random_segments("generic", 512, 400, 0)
    pressed, told = [], threading.Event()

    def press():
        told.wait()
        pressed.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            tracer.trace(starts, ends, threads=threads, report=lambda done: told.set())
    finally:
        signal.signal(signal.SIGINT, before)
    assert (time.process_time() - pressed[0]) / threads < 1  # of the processor's time


@pytest.mark.turns(2)
def test_progress_tells_segments():
    stages = network_of("generic", "relu", 1, (5, 30, 30, 2))
    told = []
    FoldedTracer(stages).trace(*random_segments("generic", 5, 300, 1), maps=False, report=told.append)
    assert told == sorted(told) and told[0] == 0 and told[-1] == 300
