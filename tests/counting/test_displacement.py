"""Chains counted by displacements: every sign that is not ambiguous is that of the real function."""

import copy
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import pylinregion as plr
from cases.counting import points
from cases.devices import DEVICES
from cases.networks import NETWORK_KINDS, random_network
from cases.parts import examples
from pylinregion.caller.processes import Ranks
from pylinregion.counting import chain_costs
from pylinregion.counting.chain import Chain
from pylinregion.counting.chain_costs import Costs
from pylinregion.counting.displacements import Displacements, share_that_changes
from pylinregion.counting.every_vertex import EveryVertex
from pylinregion.counting.request import CountOptions, checked_request
from pylinregion.native.simd import simd_sets, use_simd
from pylinregion.reference import rational
from pylinregion.runtime.evaluator import Evaluator

DTYPES = [torch.float32, torch.float64]
SIMD = simd_sets()
KINKS = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.25),
    "steep": lambda: nn.LeakyReLU(-3.0),
    "prelu": lambda: nn.PReLU(init=0.3),
    "abs": lambda: Abs(),
}


class Abs(nn.Module):
    def forward(self, x):
        return x.abs()


def network(widths, dtype=torch.float64, kink="relu", seed=0, scale=1.0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), KINKS[kink]()]
    net = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1:
                parameter *= scale
    return net.to(dtype)


def trained(widths, dtype, steps=150):
    """A net that has learned random labels: its weights are no longer small and of one size."""
    net = network(widths, torch.float32, seed=3)
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(64, widths[0], generator=generator)
    y = torch.randint(widths[-1], (64,), generator=generator)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.to(dtype), x.to(dtype)


def both_ways(net, x, radius, **options):
    ours = plr.count_regions(net, x, radius, displacement=True, estimate_ambiguous=True, **options)
    return ours, plr.count_regions(net, x, radius, displacement=False, **options)


def assert_same(ours, theirs):
    assert torch.equal(ours.changes, theirs.changes)
    assert torch.equal(ours.regions, theirs.regions)


def signs_at_vertices(weights, biases, x, frame, radius, slope):
    """``[2P][layers]`` of what lies above 0, in fractions."""
    pieces = rational.Pieces.leaky_relu(slope) if slope else rational.Pieces.relu()
    stages = rational.chain(weights, biases, pieces)
    found = []
    for sign in (1, -1):
        for direction in frame:
            vertex = [Fraction(a) + sign * Fraction(radius) * Fraction(b) for a, b in zip(x, direction, strict=True)]
            found.append(rational.forward(stages, vertex)[0])
    return found


# --- against the real function ---


@settings(max_examples=examples(150, 10), deadline=None)
@given(
    kind=st.sampled_from(NETWORK_KINDS),
    seed=st.integers(0, 10**6),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    pairs=st.integers(1, 4),
    radius=st.sampled_from([1e-4, 0.1, 1.0, 30.0]),
    slope=st.sampled_from([0.0, 0.25]),
    dtype=st.sampled_from(DTYPES),
)
def test_signs_that_are_not_ambiguous_are_those_of_the_real_function(kind, seed, widths, pairs, radius, slope, dtype):
    inputs = 4
    shape = (inputs, *widths, 1)
    weights, biases = random_network(kind, shape, seed)
    modules = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0]).to(dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight)), linear.bias.copy_(torch.from_numpy(bias))
        modules += [linear, nn.LeakyReLU(slope) if slope else nn.ReLU()]
    net = nn.Sequential(*modules[:-1])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, inputs, generator=generator, dtype=torch.float64).to(dtype)
    x[0] = x[0].round()
    frame = plr.random_frame((inputs,), pairs, seed=seed).to(dtype)
    captured = plr.capture(net, x)
    assume(any(node.op_name == "linear" for node in captured.nodes))  # "wild": rounding may look like another function
    counts = plr.count_regions(captured, x, radius, frame=frame, displacement=True, estimate_ambiguous=True)
    for b in range(len(x)):
        if counts.ambiguous[b] > 0:
            continue
        patterns = signs_at_vertices(
            [layer.weight.detach().double().numpy() for layer in modules[:-1:2]],
            [layer.bias.detach().double().numpy() for layer in modules[:-1:2]],
            x[b].double().tolist(),
            frame.double().tolist(),
            radius,
            slope,
        )
        table = [np.array([pattern[layer] for pattern in patterns]) for layer in range(len(widths))]
        assert counts.changes[b].tolist() == [int((rows != rows[0]).any(axis=0).sum()) for rows in table]
        assert counts.regions[b] == len({tuple(np.concatenate(rows).tolist()) for rows in zip(*table, strict=True)})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_few_signs_are_ambiguous(dtype):
    net = network((30, 64, 64, 64, 4), dtype)
    counts = plr.count_regions(
        net, points(200, 30, dtype=dtype), 0.1, n_directions=25, displacement=True, estimate_ambiguous=True
    )
    assert int(counts.total.sum()) > 500 and int(counts.ambiguous.sum()) == 0


def test_a_sign_on_a_kink_is_ambiguous():
    """Neuron 1 is 0 at both vertices of the second pair, up to what float64 may have rounded."""
    net = network((2, 2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]])), net[0].bias.copy_(torch.tensor([5.0, -1.0]))
    counts = plr.count_regions(
        net, torch.tensor([[1.0, 0.0]]).double(), 0.5, frame=torch.eye(2), displacement=True, estimate_ambiguous=True
    )
    assert counts.ambiguous.tolist() == [2]


def test_rounding_of_the_layers_before_is_not_forgotten():
    """1e8 + 0.1 - 1e8 is 0.099999994 in float64: layer 4 cannot be told, small as its and layer 3's own rounding is."""
    net = network((1, 2, 1, 1, 2, 1))
    with torch.no_grad():
        for layer, weight, bias in zip(
            net[::2],
            ([[1.0], [0.0]], [[1.0, -1.0]], [[1.0]], [[1.0], [-1.0]], [[1.0, 1.0]]),
            ([1e8, 1e8], [0.0], [0.0], [-0.099999997, 0.099999997], [0.0]),
            strict=True,
        ):
            layer.weight.copy_(torch.tensor(weight).double())
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    x = torch.tensor([[0.1], [0.3]], dtype=torch.float64)
    counts = plr.count_regions(net, x, 1e-12, frame=torch.ones(1, 1), displacement=True, estimate_ambiguous=True)
    assert counts.ambiguous.tolist() == [4, 0]


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("blocks", [1, 4, 32])
def test_the_worst_rounding_of_float32_is_allowed_for(blocks, layer, simd):
    """A sum that loses half a unit at every addition, all to one side, is as far off as the bound of section 12 allows.

    Neuron 0 of layer 1 is displaced by 1 and weighs 1; 31 more of the first block, and one of each further block, are
    displaced by 2^-12 and weigh as much: each adds 2^-24 to 1, which rounds to 1. The sign of a neuron of the layer
    after the sum, or of the sum itself, depends on what was lost.
    """
    n, lost = 32 * blocks, 30 + blocks
    small = torch.zeros(n)
    small[:32], small[::32] = 2.0**-12, 2.0**-12
    small[0] = 1
    offset = 2 * small + (small == 0)  # all of layer 1 are on
    net = network((1, n, 1, 1, 1), torch.float32)
    at_plus = 3 * (1 + lost * 2.0**-24)  # the sum, in the real numbers
    bias = -((at_plus - 2.0**-24) // 2.0**-22 * 2.0**-22)  # at least 2^-24 less, and a number of float32
    with torch.no_grad():
        for linear, weight, b in zip(
            net[::2],
            (small[:, None], small[None], torch.ones(1, 1), torch.ones(1, 1)),
            (offset, bias if layer == 1 else 0.0, 1.0 if layer == 1 else bias, 0.0),
            strict=True,
        ):
            linear.weight.copy_(weight)
            linear.bias.copy_(torch.as_tensor(b))
    with use_simd(simd):
        counts = plr.count_regions(
            net, torch.zeros(1, 1), 1.0, frame=torch.ones(1, 1), displacement=True, estimate_ambiguous=True
        )
    assert counts.changes.tolist() == [[0, int(layer == 1), int(layer == 2)]] and counts.ambiguous.tolist() == [0]


def test_patterns_of_more_than_64_neurons():
    """64 neurons tell the minus vertices apart, 36 more only plus from minus: five patterns."""
    net = network((4, 100, 1))
    with torch.no_grad():
        net[0].weight.fill_(1.0), net[0].bias.fill_(0.1)
        net[0].weight[:64] = torch.eye(4).repeat(16, 1)
    counts = plr.count_regions(net, torch.zeros(1, 4).double(), 1.0, frame=torch.eye(4), displacement=True)
    assert counts.changes.tolist() == [[100]] and counts.regions.tolist() == [5]


def test_neurons_without_weights_are_certain():
    """They are their biases, exactly, 0 among them; so are neurons behind layers that are off."""
    net = network((3, 4, 4, 1))
    with torch.no_grad():
        net[0].weight[:2] = 0
        net[0].bias[:2] = torch.tensor([0.0, -1.0])
        net[2].weight[0] = 0
        net[2].bias[0] = 0
    counts, plain = both_ways(net, points(20, 3), 0.5, n_directions=3)
    assert_same(counts, plain)
    assert counts.ambiguous.tolist() == [0] * 20


def test_weights_whose_squares_underflow_are_weights():
    """The norm of such a row is not 0: it was counted as one without weights, which is certain."""
    net = network((2, 1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1e-200, 0.0]], dtype=torch.float64)), net[0].bias.zero_()
    counts = plr.count_regions(
        net, torch.zeros(1, 2).double(), 1.0, frame=torch.eye(2), displacement=True, estimate_ambiguous=True
    )
    assert counts.ambiguous.tolist() == [4]


# --- exact ties ---


class Flat(nn.Module):
    """Pools ``[n, 1, inputs]``."""

    def forward(self, x):
        return nn.functional.max_pool1d(x[:, None], 2).flatten(1)


class Steps(nn.Module):
    def forward(self, x):
        return torch.where(x > 0.5, x, 2 * x)


FRONTS = {"none": None, "max_pool": Flat, "conv": lambda: nn.Conv1d(1, 2, 3, padding=1), "steps": Steps}


def ternary(front, kink, dtype, seed=0, inputs=16, width=24, depth=3):
    """A network of weights -1, 0 and 1 (and slopes that are powers of two): no value of it has more than a few bits."""
    layers = []
    if FRONTS[front] is not None:
        layers = (
            [nn.Unflatten(1, (1, inputs)), FRONTS[front](), nn.ReLU(), nn.Flatten()]
            if front == "conv"
            else [FRONTS[front]()]
        )
    wide = {"max_pool": inputs // 2, "conv": 2 * inputs}.get(front, inputs)
    for outputs in [width] * depth:
        layers += [nn.Linear(wide, outputs), KINKS[kink]()]
        wide = outputs
    net = nn.Sequential(*layers, nn.Linear(wide, 3))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1:
                few = torch.rand(parameter.shape, generator=generator) < 0.3
                parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator) * few)
            else:
                parameter.fill_(0.25)  # a PReLU's
    return net.to(dtype)


def changes_by_hand(net, x, radius, frame):
    """``[B, kinks]`` and ``[B]``: changes of each dense kink, and patterns of all, module by module in float64."""
    z = torch.cat([x[:, None] + radius * frame, x[:, None] - radius * frame], dim=1).flatten(0, 1).double()
    changes, patterns = [], []
    net = copy.deepcopy(net).double()
    with torch.no_grad():
        for part in net[:-1]:
            on = (z > (0.5 if isinstance(part, Steps) else 0)).reshape(len(x), 2 * len(frame), -1)
            if isinstance(part, Flat):
                pairs = z.view(len(on), on.shape[1], -1, 2)
                on = pairs[..., 1] > pairs[..., 0]
            if not isinstance(part, (nn.Linear, nn.Conv1d, nn.Flatten, nn.Unflatten)):
                patterns.append(on)
                if not isinstance(part, (Flat, Steps)):
                    changes.append((on != on[:, :1]).any(dim=1).sum(dim=1))
            z = part(z)
    together = torch.cat(patterns, dim=2)
    regions = torch.tensor([len({tuple(row) for row in rows.tolist()}) for rows in together])
    return torch.stack(changes, dim=1), regions


@pytest.mark.part(4)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("kink", ["relu", "leaky_relu", "abs", "prelu"])
def test_exact_ties_are_counted_as_they_are(kink, front, dtype):
    """No value is rounded at any vertex, and many are 0: these signs were those of a rounded centre."""
    net = ternary(front, kink, dtype)
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 2, (40, 16), generator=generator).to(dtype)
    frame, radius = torch.eye(16, dtype=dtype)[:10], 0.5
    changes, regions = changes_by_hand(net, x, radius, frame)
    for way in (True, False, None):
        counts = plr.count_regions(net, x, radius, frame=frame, displacement=way)
        assert torch.equal(counts.changes[:, -changes.shape[1] :], changes), way
        assert torch.equal(counts.regions, regions), way
    counts = plr.count_regions(net, x, radius, frame=frame, displacement=True, estimate_ambiguous=True)
    assert torch.equal(counts.changes[:, -changes.shape[1] :], changes)


@settings(max_examples=examples(40, 4), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.sampled_from([1, 3, 4, 10]),
    exponent=st.integers(-6, 3),
    front=st.sampled_from(sorted(FRONTS)),
    dtype=st.sampled_from(DTYPES),
)
def test_ties_at_any_radius(seed, pairs, exponent, front, dtype):
    net = ternary(front, "relu", dtype, seed, width=12, depth=2)
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randint(-8, 9, (8, 16), generator=generator) * 2.0**exponent).to(dtype)
    frame = torch.eye(16, dtype=dtype)[torch.randperm(16, generator=generator)[:pairs]]
    changes, regions = changes_by_hand(net, x, 2.0**exponent, frame)
    counts = plr.count_regions(net, x, 2.0**exponent, frame=frame, displacement=True)
    assert torch.equal(counts.changes[:, -changes.shape[1] :], changes) and torch.equal(counts.regions, regions)


def test_vertices_far_larger_than_their_differences_are_proven_or_evaluated():
    """Sums with 2^40 leave float64 no bits for the mean of 50 vertices."""
    net = ternary("max_pool", "relu", torch.float64)
    x = torch.randint(0, 2, (20, 16), generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        net[1].bias += 2.0**40
        net[3].bias -= 2.0**40 * net[3].weight.sum(dim=1)
    frame = torch.eye(16).double()[:10]
    changes, _ = changes_by_hand(net, x, 0.5, frame)
    counts = plr.count_regions(net, x, 0.5, frame=frame, displacement=True)
    assert torch.equal(counts.changes[:, 1:], changes)


def test_a_chain_whose_signs_stay_unproven_does_not_pay(monkeypatch):
    """Of a network in which nearly all points have ties, evaluating the vertices at once takes less than both."""
    net = ternary("none", "relu", torch.float32, inputs=784, width=100)
    x = torch.randint(0, 2, (300, 784), generator=torch.Generator().manual_seed(1)).float()
    monkeypatch.setattr(Costs, "promise", lambda *arguments: True)
    ranges = counted_ranges(monkeypatch)
    plr.count_regions(net, x, 0.5, frame=torch.eye(784)[:25])
    assert ranges[0][2] and not any(chained for *_, chained in ranges[1:])


# --- against the way over all vertices ---


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


# --- the choice ---


def test_the_faster_way_is_chosen(monkeypatch):
    """Where little changes, displacements; where much does, or few pairs fill the vectors, the vertices."""
    net = network((784, 200, 200, 200, 10), torch.float32)
    x = points(1000, 784, dtype=torch.float32)
    ranges = counted_ranges(monkeypatch)
    for radius, pairs in ((0.05, 25), (5.0, 25), (0.05, 2)):
        plr.count_regions(net, x, radius, n_directions=pairs)
    chosen = [chained for _, end, chained in ranges if end == 1000]
    assert chosen == [True, False, False]


def counted_ranges(monkeypatch):
    """A list that takes, of all that is counted, the first point, the last and whether by displacements."""
    ranges = []

    def watch(way, name, chained):
        count = getattr(way, name)

        def record(self, rows, *rest):
            if isinstance(rows, slice):  # not points whose signs a chain left unproven
                ranges.append((rows.start, rows.stop, chained))
            return count(self, rows, *rest)

        monkeypatch.setattr(way, name, record)

    watch(EveryVertex, "count", False), watch(Displacements, "count", True), watch(Displacements, "tried", True)
    return ranges


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
