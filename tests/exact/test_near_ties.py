"""Where vertices nearly coincide: the side between two of them has no direction that one could go by.

In each of these the partition was right, and what was made of its coordinates was not.
"""

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr


def through_a_point(seed, neurons, *after):
    """Lines that meet in one point but for the rounding of their biases: a cell of 1e-17 in the middle."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, neurons), *after).double()
    with torch.no_grad():
        point = torch.rand(2, generator=generator, dtype=torch.float64) - 0.5
        net[0].weight.copy_(torch.randn(neurons, 2, generator=generator, dtype=torch.float64))
        net[0].bias.copy_(-(net[0].weight @ point))
    return net


def three_lines(seed):
    torch.manual_seed(0)
    net = through_a_point(seed, 3, nn.ReLU(), nn.Linear(3, 2))
    return net, plr.partition(net, plr.Slice.box(-1, 1))


def without_biases(seed):
    """On the plane through two inputs and, up to rounding, 0."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(10, 24, bias=False), nn.ReLU(), nn.Linear(24, 24, bias=False), nn.ReLU(), nn.Linear(24, 3, bias=False)
    )
    return net, plr.partition(net, plr.Slice.through(torch.randn(10), torch.randn(10), torch.zeros(10), margin=1.0))


def points_of(part, count=2000):
    low, high = part.slice.polygon.min(axis=0), part.slice.polygon.max(axis=0)
    st = np.random.default_rng(0).uniform(low, high, (count, 2))
    return st[part.slice.contains(st)]


@pytest.mark.parametrize("seed", [10, 24, 55, 75])
def test_points_are_located_beside_a_side_of_noise(seed):
    net, part = three_lines(seed)
    st = points_of(part)
    z = (torch.from_numpy(st) @ net[0].weight.T + net[0].bias).detach().numpy()
    clear = (np.abs(z) > 1e-13).all(axis=1)
    told = np.packbits(z > 0, axis=1, bitorder="little")
    assert clear.sum() > 1900 and np.array_equal(part.patterns[part.locate(st[clear])], told[clear])


@pytest.mark.part(3)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_points_are_located_in_networks_without_biases(seed):
    net, part = without_biases(seed)
    st = points_of(part, 5000)
    net = net.double()
    with torch.no_grad():
        first = net[0](part.slice.points(st))
        second = net[2](first.relu())
    z = torch.cat([first, second], 1).numpy()
    clear = (np.abs(z) > 1e-12).all(axis=1)
    told = np.packbits(z > 0, axis=1, bitorder="little")
    assert clear.sum() > 0.9 * len(st) and np.array_equal(part.patterns[part.locate(st)][clear], told[clear])
    part.verify(net, samples=200)


@pytest.mark.parametrize("seed", [24, 65, 69, 83])
def test_classes_beside_a_side_of_noise(seed):
    net, part = three_lines(seed)
    st = points_of(part)
    outputs = net(torch.from_numpy(st)).detach().numpy()
    clear = np.abs(outputs[:, 0] - outputs[:, 1]) > 1e-6
    assert clear.sum() > 1900 and np.array_equal(part.class_of(st[clear]), outputs[clear].argmax(axis=1))


def test_points_on_lines_get_the_region_that_the_network_has_there():
    """Within 1e-9 of a line, on either side: nearer than coordinates are trusted."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 2)).double()
    part = plr.partition(net, plr.Slice.box(-3, 3))
    inner = part.edge_cells[:, 1] >= 0
    ends = part.vertices[part.edges[inner]]
    middle, along = ends.mean(axis=1), ends[:, 1] - ends[:, 0]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    st = np.concatenate([middle + 1e-9 * across, middle - 1e-9 * across])
    on = (net[0](torch.from_numpy(st)) > 0).numpy()
    found = part.patterns[part.locate(st)]
    assert np.array_equal(found, np.packbits(on, axis=1, bitorder="little"))
    assert (found[: len(middle)] != found[len(middle) :]).any(axis=1).all()


@pytest.mark.parametrize("seed", [10, 23, 24])
def test_no_circle_is_larger_than_its_cell(seed):
    """Of a convex polygon the area is at least r times half of the perimeter; and no area is negative."""
    for _, part in (three_lines(seed), without_biases(seed)):
        areas = part.areas()
        assert (areas >= 0).all()
        large = areas > 1e-9
        assert large.sum() > 5
        assert (part.inradii() * part.perimeters() / 2 <= areas * (1 + 1e-9))[large].all()


def fan_length(net):
    """The boundary of outputs that meet in one point: rays from it to the border of [-1, 1]^2."""
    weight, bias = (p.detach().numpy() for p in net[0].parameters())
    point = -np.linalg.lstsq(weight, bias, rcond=None)[0]
    angle = np.linspace(0, 2 * np.pi, 40001)[:-1]
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    winner = (around @ weight.T).argmax(axis=1)
    total = 0.0
    for place in np.flatnonzero(winner != np.roll(winner, 1)):
        x, y = weight[winner[place]] - weight[winner[place - 1]]
        ray = np.array([-y, x]) / np.hypot(x, y)
        ray *= np.sign(ray @ around[place])
        total += float(np.where(ray > 0, (1 - point) / ray, (-1 - point) / ray).min())
    return total


@pytest.mark.parametrize("outputs, seed", [(4, 117), (4, 135), (4, 139), (4, 144), (8, 26), (8, 36), (8, 50), (8, 65)])
def test_the_decision_boundary_where_outputs_nearly_meet_in_a_point(seed, outputs):
    net = through_a_point(seed + 1000 * outputs, outputs)
    segments = plr.partition(net, plr.Slice.box(-1, 1)).decision_boundary().segments
    assert np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1).sum() == pytest.approx(fan_length(net), abs=1e-6)
