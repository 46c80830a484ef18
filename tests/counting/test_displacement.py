"""Signs of chains by displacements: every one that is not ambiguous is that of the real function."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import pylinregion as plr
from cases.chains import DTYPES, KINKS, assert_same, both_ways, counted_ranges, network
from cases.counting import points
from cases.networks import NETWORK_KINDS, random_network
from cases.parts import examples
from pylinregion.counting.chain_costs import Costs
from pylinregion.native.simd import simd_sets, use_simd
from pylinregion.reference import rational

SIMD = simd_sets()


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


@pytest.mark.turns(2)
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
    size = x.abs().amax(0).double().numpy() + radius
    for weight, bias in zip(weights, biases, strict=True):
        size = np.abs(weight) @ size + np.abs(bias)
        assume(size.max() < torch.finfo(dtype).max)  # "wild": else there are no numbers to count
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


@pytest.mark.part(2)
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


@pytest.mark.turns(2)
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
