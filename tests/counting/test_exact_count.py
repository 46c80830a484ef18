"""Counts by the methods "axes" and "slice" against the rational oracle, partition, trace and each other."""

from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.networks import NETWORK_KINDS, random_network
from cases.partitions import ACTIVATIONS, model_of
from pylinregion.counting import exact_count
from pylinregion.reference import rational

SHAPES = ((3, 6, 5, 1), (2, 7, 2), (4, 3, 3, 3, 1), (2, 2, 9, 4, 1))
TRIED = tuple(ACTIVATIONS)


def case_of(kind, seed):
    """A model, its oracle, centres, radii, and a frame: axes of the input space, or any."""
    shape, activation = SHAPES[seed % len(SHAPES)], TRIED[(seed + len(kind)) % len(TRIED)]
    weights, biases = random_network(kind, shape, seed)
    rng = np.random.default_rng([seed, len(kind)])
    centres = rng.integers(-2, 3, (3, shape[0])) / 2 if seed % 2 else rng.standard_normal((3, shape[0]))
    frame = plr.random_frame((shape[0],), 2, seed=seed)
    if seed % 4 < 2:
        frame = torch.eye(shape[0], dtype=torch.float64)[rng.permutation(shape[0])[:2]] * torch.tensor([[1.0], [-1.0]])
    stages = rational.chain(weights, biases, ACTIVATIONS[activation][1]())
    return (
        model_of(weights, biases, activation),
        stages,
        torch.from_numpy(centres),
        torch.tensor([0.5, 1.0, 3.0]),
        frame,
    )


def changed(patterns):
    """How many units of each hidden stage are not on one piece in all patterns, and how many patterns there are."""
    different = set(patterns)
    stages = list(zip(*different, strict=True))[:-1]
    return [sum(len(set(unit)) > 1 for unit in zip(*stage, strict=True)) for stage in stages], len(different)


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_arms_are_counted_as_the_oracle_traces_them(kind, seed):
    model, stages, x, radii, frame = case_of(kind, seed)
    counts = plr.count_regions(model, x, radii, method="axes", frame=frame)
    for b, (centre, radius) in enumerate(zip(x.tolist(), radii.tolist(), strict=True)):
        patterns = []
        for direction in frame.tolist():
            ends = [[F(c) + s * F(radius) * F(v) for c, v in zip(centre, direction, strict=True)] for s in (-1, 1)]
            patterns += rational.trace(stages, *ends).patterns
        expected = changed(patterns)
        assert (counts.changes[b].tolist(), int(counts.regions[b])) == expected


@pytest.mark.turns(2)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_slices_are_counted_as_the_oracle_cuts_them(kind):
    model, stages, x, radii, frame = case_of(kind, len(kind))
    counts = plr.count_regions(model, x, radii, method="slice", frame=frame)
    u, v = frame.tolist()
    for b, (centre, r) in enumerate(zip(x.tolist(), radii.tolist(), strict=True)):
        cells = rational.partition(stages, centre, u, v, [(r, 0), (0, r), (-r, 0), (0, -r)]).cells
        assert (counts.changes[b].tolist(), int(counts.regions[b])) == changed([cell.pattern for cell in cells])


def net(*widths, seed=0):
    torch.manual_seed(seed)
    layers = []
    for columns, rows in pairwise(widths):
        layers += [nn.Linear(columns, rows), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_methods_are_in_order():
    model = net(6, 30, 30, 30, 2)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    found = [plr.count_regions(model, x, 0.8, method, n_directions=2) for method in ("vertices", "axes", "slice")]
    for less, more in pairwise(found):
        assert (less.changes <= more.changes).all() and (less.regions <= more.regions).all()
        assert (less.changes < more.changes).any() and (less.regions < more.regions).any()
    assert [counts.method for counts in found] == ["vertices", "axes", "slice"]
    assert all(counts.layers == found[0].layers for counts in found)
    for counts in found[1:]:
        assert counts.ambiguous.tolist() == [0] * 40 and counts.definition.endswith("exact")
        assert "0 (proven)" in repr(counts)


def test_arms_are_segments_through_the_point():
    model = net(5, 20, 20, 1).double()
    x = torch.randint(-4, 5, (3, 5), generator=torch.Generator().manual_seed(0)).double()
    counts = plr.count_regions(model, x, 2.0, "axes", frame=torch.eye(5, dtype=torch.float64)[1:2])
    step = 2 * torch.eye(5, dtype=torch.float64)[1]
    line = plr.trace(model, x - step, x + step)
    assert counts.regions.tolist() == line.n_regions.tolist()
    for b in range(3):
        neurons = {neuron for at in line.segment(b)[1] for neuron in at}
        assert counts.changes[b].tolist() == [sum(n.layer == layer for n in neurons) for layer in counts.layers]


def test_slices_are_those_of_partition():
    model, x = net(5, 20, 20, 1), torch.randn(2, 5, generator=torch.Generator().manual_seed(3))
    frame = plr.random_frame((5,), 2, seed=7)
    counts = plr.count_regions(model, x, torch.tensor([0.7, 2.0]), "slice", seed=7)
    for b, r in enumerate((float(torch.tensor(0.7)), 2.0)):
        part = plr.partition(model, plr.Slice(x[b].double(), *frame, [(r, 0), (0, r), (-r, 0), (0, -r)]))
        assert counts.regions[b] == part.n_regions
        assert counts.total[b] == len(part.neurons)


@pytest.mark.parametrize("method", ["axes", "slice"])
def test_threads_pieces_and_frames_of_their_own_change_nothing(method, monkeypatch):
    model, x = net(4, 25, 25, 2), torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    frame = plr.random_frame((4,), 2, seed=1)
    counts = plr.count_regions(model, x, 1.0, method, n_directions=2, seed=1)
    monkeypatch.setattr(exact_count, "_AT_ONCE", 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        each = plr.count_regions(model, x, 1.0, method, frame=frame.expand(9, 2, 4))
    finally:
        torch.set_num_threads(threads)
    alone = [plr.count_regions(model, point[None], 1.0, method, frame=frame) for point in x]
    for name in ("changes", "regions"):
        assert torch.equal(getattr(counts, name), getattr(each, name))
        assert torch.equal(getattr(counts, name), torch.cat([getattr(one, name) for one in alone]))


@pytest.mark.parametrize("method", ["axes", "slice"])
def test_layers_dtypes_and_batches_of_any_kind(method):
    model, x = net(4, 8, 8, 2), torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    counts = plr.count_regions(model, x, 1.0, method, n_directions=2)
    last = plr.count_regions(model, x, 1.0, method, n_directions=2, layers=["3"])
    assert torch.equal(last.changes[:, 0], counts.changes[:, 1]) and torch.equal(last.regions, counts.regions)
    none = plr.count_regions(model, x[:0], 1.0, method, n_directions=2)
    assert none.changes.shape == (0, 2) and none.regions.shape == none.ambiguous.shape == (0,)
    half = plr.count_regions(model.to(torch.bfloat16), x.to(torch.bfloat16), 1.0, method, n_directions=2)
    assert half.regions.sum() > 5
    affine = plr.count_regions(nn.Linear(4, 2), x, 1.0, method, n_directions=2)
    assert affine.changes.shape == (5, 0) and affine.regions.tolist() == [1] * 5


def test_25_directions_are_the_default_of_arms_and_two_of_slices():
    model, x = net(30, 8, 2), torch.zeros(1, 30)
    assert "the 50 arms" in plr.count_regions(model, x, 1.0, "axes").definition
    assert plr.count_regions(model, x, 1.0, "slice").regions[0] >= 1


def test_progress_goes_to_stderr(capfd):
    for method in ("axes", "slice"):
        plr.count_regions(net(4, 8, 2), torch.zeros(7, 4), 1.0, method, n_directions=2, progress=True)
        out, err = capfd.readouterr()
        assert out == "" and "7/7" in err


def test_bad_arguments_are_named():
    model, x = net(4, 8, 2), torch.zeros(2, 4)

    def bad(message, method, *, error=ValueError, net=model, radius=1.0, **arguments):
        with pytest.raises(error, match=message):
            plr.count_regions(net, arguments.pop("x", x), radius, method, **{"n_directions": 2, **arguments})

    for method in ("axes", "slice"):
        bad(f"include_output must not be given for method '{method}'", method, include_output=True)
        bad(f"estimate_ambiguous must not be given for method '{method}'", method, estimate_ambiguous=True)
        bad(f"dtype must not be given for method '{method}'", method, dtype=torch.float64)
        bad(f"batch_size must not be given for method '{method}'", method, batch_size=3)
        bad("radius must be finite and above 0, got 0", method, radius=0)
        bad("x must be finite, got nan", method, x=x * torch.nan)
        smooth = nn.Sequential(nn.Linear(4, 3), nn.GELU())
        bad("gelu in module '1'", method, net=smooth, error=plr.UnsupportedModelError)
    bad("n_directions must be 2 for method 'slice', got 3", "slice", n_directions=3)
    bad("frame must have 2 directions for method 'slice', got 3", "slice", frame=torch.eye(4)[:3])
    bad("n_directions must be at most", "axes", n_directions=5)


def test_slices_of_networks_with_maxima():
    """A pool's window is one neuron, however many candidates it has."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.ReLU())
    points = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    model.double()
    found = plr.count_regions(model, points, radius=0.5, method="slice", n_directions=2)
    at_corners = plr.count_regions(model, points, radius=0.5, n_directions=2)
    assert (at_corners.changes <= found.changes).all() and (found.changes[:, 1] > 0).any()
    u, v = plr.random_frame((1, 6, 6), 2)
    for point, changes, regions in zip(points, found.changes.tolist(), found.regions.tolist(), strict=True):
        corners = [[0.5, 0], [0, 0.5], [-0.5, 0], [0, -0.5]]
        partition = plr.partition(model, plr.Slice(point, u, v, corners))
        assert regions == partition.n_regions
        for layer, changed in zip(partition.layers, changes, strict=True):
            values = np.stack([partition.pattern(region)[layer] for region in range(regions)])
            assert (values != values[0]).any(axis=0).sum() == changed
