"""Values that are equal all over a slice: pools over pools, whose windows share what they pick."""

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.sampled import check_samples
from pylinregion.exact.equal_values import ZERO, Named, Names, later_equals
from pylinregion.exact.maps import evaluate, pieces
from pylinregion.exact.slice_engine import Engine, folded_engine
from pylinregion.lowering.linear_maps import Dense, Terms
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.units import candidates


class Pools(nn.Module):
    """As in GoogLeNet: a pool of stride 1 over a pool whose windows overlap, which takes the same numbers again."""

    def __init__(self, sign=1):
        super().__init__()
        self.first, self.last, self.sign = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(6, 2, 1), sign

    def forward(self, x):
        x = nn.functional.max_pool2d(self.sign * self.first(x).relu(), 3, 2, ceil_mode=True)
        x = torch.cat([x, nn.functional.max_pool2d(x, 3, 1, 1)], 1)
        return self.last(nn.functional.max_pool2d(x, 2, 1)).relu().flatten(1)


@pytest.mark.parametrize("radius", [1e-4, 0.3])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_a_pool_picked_twice_takes_no_columns_in_the_next(sign, radius):
    torch.manual_seed(0)
    net = Pools(sign).double()
    x = torch.randn(2, 9, 9, dtype=torch.float64)
    where = plr.Slice.around(x, radius)
    stages = stages_of(plr.capture(net, x.expand(2, -1, -1, -1)))
    engine = folded_engine(stages, where.plane, where.polygon)
    assert int(engine._systems.begin[-1]) < (8 if radius < 1e-3 else 250)
    found = engine.enumerate(cells=True)
    dense = Engine(stages, where.plane, where.polygon).enumerate(cells=True)
    assert found.regions == dense.regions
    assert np.array_equal(np.asarray(found.cells.patterns), dense.cells.patterns)
    check_samples(plr.partition(net, where), net, 500)


def test_names_of_rows():
    names = Names(1)
    given = torch.tensor([[105, ZERO, 107, 105]])
    some = torch.ones(1, 6, dtype=torch.float64)
    some[0, 4] = 0
    place = np.array([[0, 1], [3, 1], [0, 2], [2, 1], [1, 1], [0, 1]])
    factor = np.array([[1.0, 3], [1, 1], [1, 1], [2, 1], [1, 1], [1, 1]])
    bias = np.array([0, 0, 0, 0, 0, 1.0])
    given = {0: Named(given)}
    found = names.of_rows({0: Terms(place, factor, 4)}, bias, some, given).of[0].tolist()
    assert found[:2] == [105, 105] and found[4] == ZERO
    others = [found[2], found[3], found[5]]
    assert len({*others, 0, 105, 107}) == 6
    matrix = names.of_rows({0: Dense(np.eye(4))}, np.zeros(4), some[:, :4], given).of[0].tolist()
    assert not {*matrix} & {0, 105, 107, *found} and len({*matrix}) == 4


def test_names_of_units():
    names = Names(1)
    rows = names.new(4)
    some = torch.tensor([[1.0, 1, 0, 1]])
    slope, constant = torch.tensor([[1.0, 1, 0, 1]]), torch.tensor([[0.0, 0, 0, 2]])
    found = names.of_units(rows, slope, constant, some, (torch.tensor([0]), torch.tensor([1]))).of[0].tolist()
    assert found[0] == rows.of[0, 0] and found[2] == ZERO
    assert not {found[1], found[3]} & {0, *rows.of[0].tolist()} and found[1] != found[3]


def test_the_first_of_equals_stays():
    units = candidates(np.array([0, 3, 7]))
    names = torch.tensor([[4, 4, 9, 4, 5, 5, 4], [1, 2, 1, 3, 3, 3, 3]])
    off = np.array([[0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1, 0]], dtype=bool)
    expected = [[0, 1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0, 1]]
    assert later_equals(units, names, off).astype(int).tolist() == expected


class Blank(nn.Module):
    """Of all kinds that names go through: padding, groups, strides, tokens, clips, pools over pools, means."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.later = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2)
        self.each, self.tokens = nn.Conv2d(4, 4, 2, groups=4, dilation=2, padding=1), nn.Linear(4, 3)
        self.scales, self.slopes = nn.Parameter(torch.zeros(3, 1, 1)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        x = nn.functional.max_pool2d(nn.functional.relu6(self.norm(self.first(x))), 2)
        x = nn.functional.leaky_relu(self.deep(x), 0.25)
        x = torch.cat([x, nn.functional.max_pool2d(x, 3, 1, 1)], 1)[:, 2:6]
        x = nn.functional.avg_pool2d(self.later(self.each(x).relu()), 2, 1)
        many = nn.functional.prelu(x[:, 1:2].expand(-1, 3, -1, -1), self.slopes) + x[:, :1] * self.scales
        x = torch.cat([x[:, :1], many], 1)
        x = self.tokens(x.flatten(2).transpose(1, 2))
        return nn.functional.max_pool1d(x.transpose(1, 2).abs(), 3, 2).flatten(1)


def blank_case(seed, size):
    """All numbers have few bits, so that float64 does not round; most of the image is the same on the whole slice."""
    torch.manual_seed(seed)
    net = Blank().double().eval()
    with torch.no_grad():
        for each in (*net.parameters(), net.norm.running_mean):
            each.copy_((4 * each).round() / 2)
        net.norm.weight.copy_(torch.tensor([1.0, 0.5, -1.0, 2.0]))
        net.norm.eps = net.later.eps = 0.0
        net.later.bias.copy_(torch.tensor([1.0, -0.5, -1.0, 0.25]))
        net.scales[:, 0, 0], net.slopes[:] = torch.tensor([1.0, -2, 0.5]), torch.tensor([0.5, 0, -1])
    around, along = torch.zeros(2, 1, size, size, dtype=torch.float64)
    around[:, 4:8, 5:8] = torch.randint(-3, 4, (1, 4, 3))
    along[:, 5, 5:7] = torch.tensor([1, 0.5])
    where = plr.Slice(along, torch.roll(along, 1, 1), around, [[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return net, stages_of(plr.capture(net, around.expand(2, -1, -1, -1))), where


@pytest.mark.parametrize("seed", range(3))
def test_values_of_one_name_are_equal(seed, monkeypatch):
    net, stages, where = blank_case(seed, 24)
    named = {"of_rows": [], "of_units": []}
    for kind, seen in named.items():
        made = getattr(Names, kind)

        def keep(self, *given, made=made, seen=seen):
            seen.append(made(self, *given))
            return seen[-1]

        monkeypatch.setattr(Names, kind, keep)
    folded_engine(stages, where.plane, where.polygon)
    monkeypatch.undo()
    st = np.random.default_rng(seed).integers(-8, 9, (9, 2)) / 8
    on = evaluate(stages, where, st).on
    values, equal = {-1: where.points(st).flatten(1)}, 0
    for number, (stage, first) in enumerate(zip(stages.stages, stages.first_lines, strict=True)):
        z = stage.bias + sum(block.times(values[source]).numpy() for source, block in stage.blocks.items())
        units = stage.units
        piece = pieces(units, on[:, first : first + units.lines])
        values[number] = torch.from_numpy((units.slopes[piece] * z + units.intercepts[piece]) / units.denominator)
        for kind, x in (("of_rows", z), ("of_units", values[number].numpy())):
            if number >= len(named[kind]):
                continue
            names = named[kind][number].of[0].numpy()
            assert (x[:, names == ZERO] == 0).all()
            _, lead, which = np.unique(names, return_index=True, return_inverse=True)
            assert (x == x[:, lead[which]]).all(), (kind, number)
            equal += len(names) - len(lead)
    assert equal > 500
    assert np.array_equal(values[number], net(where.points(st)).detach())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_blank_border_of_an_image_takes_no_columns(seed, monkeypatch):
    """The pool behind the first convolution tied there: a slice through three digits of MNIST did not end."""
    net, stages, where = blank_case(seed, 12)
    engine = folded_engine(stages, where.plane, where.polygon)
    found = engine.enumerate(cells=True)
    dense = Engine(stages, where.plane, where.polygon).enumerate(cells=True)
    assert found.regions == dense.regions and found.n_regions > 5
    assert np.array_equal(np.asarray(found.cells.patterns), dense.cells.patterns)
    check_samples(plr.partition(net, where), net, 500)
    monkeypatch.setattr("pylinregion.exact.equal_values._equal_rows", lambda *_: None)
    more = folded_engine(stages, where.plane, where.polygon)
    assert int(more._systems.begin[-1]) > int(engine._systems.begin[-1]) + 100
