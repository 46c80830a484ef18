"""Chains of every form, counted by displacements as at every vertex."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pylinregion as plr
from cases.chains import DTYPES, KINKS, assert_same, both_ways, counted_ranges, network, trained
from cases.counting import points
from cases.devices import DEVICES
from cases.networks import random_network
from cases.parts import examples
from pylinregion.native.simd import simd_sets, use_simd

SIMD = simd_sets()


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("radius", [1e-4, 0.01, 0.5, 5.0])
@pytest.mark.parametrize("kink", KINKS)
def test_random_networks(kink, radius, dtype, device):
    net = network((40, 70, 33, 9, 8, 7, 1), dtype, kink).to(device)
    assert_same(*both_ways(net, points(60, 40, dtype=dtype).to(device), radius, n_directions=25))


@pytest.mark.part(4)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pairs", [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 100])
def test_any_number_of_pairs(pairs, dtype, device):
    net = network((120, 40, 50, 30, 2), dtype, scale=2.0).to(device)
    assert_same(*both_ways(net, points(20, 120, dtype=dtype).to(device), 0.7, n_directions=pairs))


@pytest.mark.parametrize("widths", [(5, 1, 1), (5, 1, 7, 1, 2), (5, 8, 9, 3), (30, 200, 200, 2), (30, 1000, 40, 2)])
def test_any_width(widths):
    assert_same(*both_ways(network(widths, scale=1.5), points(15, widths[0]), 0.3, n_directions=5))


@pytest.mark.part(2)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("radius", [0.05, 1.0, 5.0, 20.0])
def test_pairs_that_turn_uneven_within_a_layer(radius, dtype):
    """Such a pair has no second column yet: one that another point left there gave wrong counts, at large radii and on
    trained networks alone."""
    net, x = trained((20, 60, 60, 60, 10), dtype)
    assert_same(*both_ways(net, x, radius, n_directions=20))


@pytest.mark.parametrize("kind", ["zero_bias", "duplicated", "dead"])
def test_degenerate_networks(kind):
    weights, biases = random_network(kind, (6, 20, 20, 20, 1), 1)
    net = network((6, 20, 20, 20, 1))
    with torch.no_grad():
        for layer, weight, bias in zip(net[::2], weights, biases, strict=True):
            layer.weight.copy_(torch.from_numpy(weight)), layer.bias.copy_(torch.from_numpy(bias))
    counts, plain = both_ways(net, points(50, 6), 0.5, n_directions=6)
    certain = counts.ambiguous == 0
    assert int(certain.sum()) > 25
    assert torch.equal(counts.changes[certain], plain.changes[certain])


def test_one_radius_for_each_point():
    net = network((10, 30, 30, 1))
    radii = torch.linspace(1e-3, 3, 40, dtype=torch.float64)
    assert_same(*both_ways(net, points(40, 10), radii, n_directions=8))


def test_the_output_is_counted_as_a_layer():
    net = network((10, 30, 30, 3))
    counts, plain = both_ways(net, points(40, 10), 2.0, n_directions=8, include_output=True)
    assert counts.layers[-1] == "output" and int(counts.changes[:, -1].sum()) > 0
    assert_same(counts, plain)


def test_batch_norms_and_dropout_between():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 20, bias=False),
        nn.BatchNorm1d(20), nn.LeakyReLU(), nn.Linear(20, 15), nn.PReLU(15), nn.Linear(15, 2),
    ).double()  # fmt: skip
    net(torch.randn(64, 3, 4).double())
    assert_same(*both_ways(net, points(40, 3, 4), 1.0, n_directions=8))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("radius", [0.01, 0.5, 4.0])
def test_convolutions_in_front(radius, dtype, device):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 30), nn.ReLU(), nn.Linear(30, 20),
        nn.ReLU(), nn.Linear(20, 2),
    ).to(device, dtype)  # fmt: skip
    x = points(30, 1, 8, 8, dtype=dtype).to(device)
    ours = plr.count_regions(net, x, radius, n_directions=10, displacement=True)
    assert_same(ours, plr.count_regions(net, x, radius, n_directions=10, displacement=False))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("simd", SIMD)
def test_instruction_sets(simd, dtype):
    net, x = trained((20, 50, 40, 10), dtype)
    want = plr.count_regions(net, x, 1.0, n_directions=19, displacement=False)
    with use_simd(simd):
        assert_same(plr.count_regions(net, x, 1.0, n_directions=19, displacement=True), want)


def test_threads_and_batches():
    net, x = trained((20, 50, 40, 10), torch.float32)
    want = plr.count_regions(net, x, 0.5, displacement=True, n_directions=10)
    before = torch.get_num_threads()
    try:
        for threads, batch in ((1, 7), (2, None), (3, 5)):
            torch.set_num_threads(threads)
            assert_same(plr.count_regions(net, x, 0.5, displacement=True, n_directions=10, batch_size=batch), want)
    finally:
        torch.set_num_threads(before)


@pytest.mark.turns(2)
@settings(max_examples=examples(60, 4), deadline=None)
@given(
    widths=st.lists(st.integers(1, 24), min_size=2, max_size=6),
    kink=st.sampled_from(sorted(KINKS)),
    pairs=st.integers(1, 12),
    radius=st.floats(1e-4, 10),
    scale=st.sampled_from([0.5, 1.0, 3.0]),
    seed=st.integers(0, 10**6),
)
def test_random_chains(widths, kink, pairs, radius, scale, seed):
    net = network((12, *widths, 1), torch.float64, kink, seed, scale)
    x = points(12, 12, seed=seed)
    counts, plain = both_ways(net, x, radius, n_directions=pairs)
    certain = counts.ambiguous == 0
    assert torch.equal(counts.changes[certain], plain.changes[certain])
    assert torch.equal(counts.regions[certain], plain.regions[certain])


@pytest.mark.parametrize("layers", [["1"], ["3"], ["3", "5"], ["1", "5"]])
def test_some_layers(layers):
    net = network((10, 30, 20, 30, 3))
    ours, plain = (
        plr.count_regions(net, points(40, 10), 1.0, n_directions=8, layers=layers, displacement=way)
        for way in (True, False)
    )
    assert ours.layers == tuple(layers)
    assert_same(ours, plain)


# --- on a GPU ---


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("radius", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("kink", KINKS)
@pytest.mark.parametrize("widths", [(40, 70, 33, 9, 8, 7, 1), (30, 200, 200, 200, 3), (9, 3000, 5, 1)], ids=str)
def test_cuda_counts_what_the_cpu_counts(widths, kink, radius, dtype):
    net, x = network(widths, dtype, kink), points(60, widths[0], dtype=dtype)
    options = {"n_directions": min(25, widths[0]), "displacement": True, "estimate_ambiguous": True}
    want = plr.count_regions(net, x, radius, **options)
    got = plr.count_regions(net.to("cuda"), x.to("cuda"), radius, **options)
    assert got.changes.is_cuda
    certain = (got.ambiguous.cpu() == 0) & (want.ambiguous == 0)
    assert int(certain.sum()) > 55
    assert torch.equal(got.changes.cpu()[certain], want.changes[certain])
    assert torch.equal(got.regions.cpu()[certain], want.regions[certain])


@pytest.mark.cuda
def test_cuda_takes_displacements_by_request_alone(monkeypatch):
    net, x = network((20, 30, 30, 1)).to("cuda"), points(10, 20).to("cuda")
    ranges = counted_ranges(monkeypatch)
    plr.count_regions(net, x, 0.1, n_directions=8)
    assert not any(chained for *_, chained in ranges)
    plr.count_regions(net, x, 0.1, n_directions=8, displacement=True)
    assert ranges[-1][2]
