"""When points are counted by displacements, and that each is counted once."""

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.chains import DTYPES, assert_same, counted_ranges, network
from cases.counting import points
from pylinregion.caller.processes import Ranks
from pylinregion.counting import chain_costs
from pylinregion.counting.chain import Chain
from pylinregion.counting.chain_costs import Costs
from pylinregion.counting.displacements import share_that_changes
from pylinregion.counting.request import CountOptions, checked_request
from pylinregion.runtime.evaluator import Evaluator


def test_the_faster_way_is_chosen(monkeypatch):
    """Where little changes, displacements; where much does, or few pairs fill the vectors, the vertices."""
    net = network((784, 200, 200, 200, 10), torch.float32)
    x = points(1000, 784, dtype=torch.float32)
    ranges = counted_ranges(monkeypatch)
    for radius, pairs in ((0.05, 25), (5.0, 25), (0.05, 2)):
        plr.count_regions(net, x, radius, n_directions=pairs)
    chosen = [chained for _, end, chained in ranges if end == 1000]
    assert chosen == [True, False, False]


@pytest.mark.parametrize("pays", [True, False])
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("threads", [1, 3])
def test_points_that_were_tried_are_not_counted_again(pays, batch_size, threads, monkeypatch):
    net, x = network((784, 60, 60, 10)), points(300, 784)
    want = plr.count_regions(net, x, 0.5, displacement=False, n_directions=20)
    monkeypatch.setattr(Chain, "pays", lambda *arguments: pays)
    ranges = counted_ranges(monkeypatch)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same(plr.count_regions(net, x, 0.5, n_directions=20, batch_size=batch_size), want)
    finally:
        torch.set_num_threads(before)
    assert ranges[0] == (0, min(16, batch_size or 16), True)
    assert {chained for *_, chained in ranges[1:]} == {pays}
    assert sorted(point for begin, end, _ in ranges for point in range(begin, end)) == list(range(300))


def test_processes_that_try_other_points_count_each_point_once(monkeypatch):
    """Batches, and so the points that are tried, may differ between processes: those of process 0 are taken."""
    net, x = network((784, 60, 60, 10)), points(300, 784)
    want = plr.count_regions(net, x, 0.5, displacement=False, n_directions=20)
    monkeypatch.setattr(Costs, "promise", lambda *arguments: True)
    monkeypatch.setattr(Chain, "pays", lambda *arguments: True)
    told, found = [], []

    class Process(Ranks):
        def agreed(self, number):
            told.append(number) if self.rank == 0 else told.append(told.pop(0))
            return told[-1]

        def summed(self, *tensors):
            found.append(tensors)
            return tensors

    for rank, batch_size in ((0, 40), (1, 7)):
        plr.count_regions(net, x, 0.5, n_directions=20, batch_size=batch_size, _ranks=Process(rank, 2))
    changes, regions = (a + b for a, b in zip(found[0][:2], found[1][:2], strict=True))
    assert torch.equal(changes, want.changes) and torch.equal(regions, want.regions)
    assert told == [16, 40]  # points that were tried, and of a batch


def test_points_that_overflow_when_tried_are_counted_again(monkeypatch):
    """What is refused names the point and the layer as if nothing had been tried."""
    net, x = network((784, 60, 60, 10), torch.float64), points(300, 784)
    with torch.no_grad():
        net[2].weight[3] = torch.finfo(torch.float64).max
    monkeypatch.setattr(Chain, "pays", lambda *arguments: False)
    ranges = counted_ranges(monkeypatch)
    with pytest.raises(ValueError, match="pre-activations of layer '3' are NaN or infinite around point 0"):
        plr.count_regions(net, x, 0.5, n_directions=20)
    assert ranges[:2] == [(0, 16, True), (0, ranges[1][1], False)]


@pytest.mark.parametrize(
    ("n", "pairs", "radius"),
    [(1, 25, 0.05), (16, 25, 0.05), (1000, 3, 0.05), (1000, 25, 20.0), (0, 25, 0.05)],
    ids=["one point", "few points", "few pairs", "most neurons change", "no points"],
)
def test_nothing_is_tried_where_displacements_promise_nothing(n, pairs, radius, monkeypatch):
    """A chain's weights in float64 alone cost more than evaluating the vertices of a few points."""
    net, x = network((784, 200, 200, 200, 10), torch.float32), points(n, 784, dtype=torch.float32)
    ranges = counted_ranges(monkeypatch)
    plr.count_regions(net, x, radius, n_directions=pairs)
    assert not any(chained for *_, chained in ranges)


def test_pairs_that_leave_vectors_empty_promise_less(monkeypatch):
    """4 pairs in vectors of 16 float32 or of 8 float64 are multiplied as 16 and 8."""
    monkeypatch.setattr(chain_costs, "simd", lambda: "avx512")
    shares = {
        (pairs, size): Costs(pairs, size, 80_000, 156_800, 784, 600, 3).share(0.1)
        for pairs in (4, 16, 17)
        for size in (4, 8)
    }
    one = shares[16, 4]
    want = {(4, 4): 4, (16, 4): 1, (17, 4): 32 / 17, (4, 8): 2, (16, 8): 1, (17, 8): 24 / 17}
    assert {key: share / one for key, share in shares.items()} == pytest.approx(want)


@pytest.mark.parametrize("width", [50, 100, 200])
@pytest.mark.parametrize("radius", [0.05, 0.5])
def test_displacements_are_taken_for_narrow_layers_too(width, radius, monkeypatch):
    net, x = network((784, width, width, width, 10), torch.float32), points(1000, 784, dtype=torch.float32)
    ranges = counted_ranges(monkeypatch)
    plr.count_regions(net, x / 4, radius, n_directions=25)
    assert ranges and all(chained for *_, chained in ranges)


def test_the_share_that_changes_in_the_first_layer_is_guessed_from_a_few_points():
    net, x = network((30, 500, 20, 1)), points(400, 30)
    frame = plr.random_frame((30,), 12).double()
    options = CountOptions(False, False, None, None, None, False, None)
    request = checked_request(
        net, x, 0.3, "vertices", n_directions=None, frame=frame, seed=0, layers=None, options=options
    )
    evaluator = Evaluator(request.network, torch.float64, (0, 1), outputs=False, split=True)
    counts = plr.count_regions(net, x[:16], 0.3, frame=frame, displacement=False)
    with torch.no_grad():
        guessed = share_that_changes(request, evaluator)
    assert guessed == pytest.approx(float(counts.changes[:, 0].double().mean()) / 500, abs=1e-9)


@pytest.mark.parametrize(
    ("net", "x", "options"),
    [
        (nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU()).double(), points(2, 1, 5), {}),
        (network((3, 4, 1)), points(2, 3), {"frame": plr.random_frame((3,), 2).repeat(2, 1, 1)}),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double(), points(2, 3), {}),
    ],
    ids=["convolutions", "frame per point", "smooth"],
)
def test_no_chain(net, x, options):
    with pytest.raises(ValueError, match="displacement must not be True here: that needs a network in float32"):
        plr.count_regions(net, x, 0.1, displacement=True, **({"n_directions": 2} | options))


def test_exact_methods_have_no_vertices():
    with pytest.raises(ValueError, match="displacement must not be given for method 'axes': it has no vertices"):
        plr.count_regions(network((3, 4, 1)), points(2, 3), 0.1, "axes", n_directions=2, displacement=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_that_overflow(dtype):
    net = network((3, 4, 4, 1), dtype)
    with torch.no_grad():
        net[2].weight.fill_(torch.finfo(dtype).max)
    x = points(3, 3, dtype=dtype).abs() * 1e30
    if dtype == torch.float32:  # the centre is in float64, and so are pairs that float32 cannot hold
        x = x.double().float()
        counts = plr.count_regions(net, x, 1e10, n_directions=3, displacement=True)
        assert torch.equal(counts.changes, plr.count_regions(net.double(), x.double(), 1e10, n_directions=3).changes)
    else:
        with pytest.raises(ValueError, match="pre-activations of layer '3' are NaN or infinite around point"):
            plr.count_regions(net, x, 1e10, n_directions=3, displacement=True)
