"""Values that are equal all over a slice: pools over pools, whose windows share what they pick."""

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.sampled import check_samples
from pylinregion.exact.equal_values import ZERO, Names, later_equals
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
    found = names.of_rows({0: Terms(place, factor, 4)}, bias, some, {0: given})[0].tolist()
    assert found[:2] == [105, 105] and found[4] == ZERO
    others = [found[2], found[3], found[5]]
    assert len({*others, 0, 105, 107}) == 6
    matrix = names.of_rows({0: Dense(np.eye(4))}, np.zeros(4), some[:, :4], {0: given})[0].tolist()
    assert not {*matrix} & {0, 105, 107, *found} and len({*matrix}) == 4


def test_names_of_units():
    names = Names(1)
    rows = names.new(4)
    some = torch.tensor([[1.0, 1, 0, 1]])
    slope, constant = torch.tensor([[1.0, 1, 0, 1]]), torch.tensor([[0.0, 0, 0, 2]])
    found = names.of_units(rows, slope, constant, some, (torch.tensor([0]), torch.tensor([1])))[0].tolist()
    assert found[0] == rows[0, 0] and found[2] == ZERO
    assert not {found[1], found[3]} & {0, *rows[0].tolist()} and found[1] != found[3]


def test_the_first_of_equals_stays():
    units = candidates(np.array([0, 3, 7]))
    names = torch.tensor([[4, 4, 9, 4, 5, 5, 4], [1, 2, 1, 3, 3, 3, 3]])
    off = np.array([[0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1, 0]], dtype=bool)
    expected = [[0, 1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0, 1]]
    assert later_equals(units, names, off).astype(int).tolist() == expected
