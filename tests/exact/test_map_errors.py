"""One bound for the maps of all regions: through lines that regions differ in errors go on, the rest is pulled back."""

from fractions import Fraction as F

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.networks import random_slice
from cases.partitions import ACTIVATIONS, both, matched
from cases.parts import some
from pylinregion.exact import row_errors
from pylinregion.exact.map_errors import maps_and_errors
from pylinregion.exact.maps import Maps, Reals
from pylinregion.exact.residues import exact_maps


def floats(part):
    return maps_and_errors(Maps(part.stages, torch.from_numpy(part.slice.plane.copy()), Reals()), part.patterns)


@pytest.mark.parametrize("activation", some(list(ACTIVATIONS), 4, "errors of maps"))
def test_what_the_lines_are_off_by_goes_on(activation):
    """Large weights cancel along the slice, in rows whose sides differ; later layers round next to nothing."""
    rng = np.random.default_rng(3)
    origin, u, v, polygon = where = random_slice("generic", 3, 3)
    across = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    first = 2.0**30 * across + rng.standard_normal((5, 3))
    weights = [first, rng.standard_normal((4, 5)), rng.standard_normal((2, 4))]
    centre = np.mean(polygon, axis=0)
    bias = -first @ (origin + centre[0] * u + centre[1] * v)
    part, oracle = both(weights, [bias, rng.standard_normal(4), np.zeros(2)], where, activation)
    assert part.n_regions > 5
    found, bounds = floats(part)
    most = 0.0
    for map_, cell in zip(found.tolist(), matched(part, oracle), strict=True):
        for row, errors, numbers in zip(map_, bounds.tolist(), oracle.cells[cell].outputs, strict=True):
            for x, e, y in zip(row, errors, numbers, strict=True):
                assert abs(F(x) - y) <= F(e)
                most = max(most, float(abs(F(x) - y)))
    assert most > 1e-10 and bounds.max() < 1e4 * most


@pytest.mark.parametrize("seed", some(list(range(6)), 3, "errors of maps of blocks"))
def test_bounds_hold_of_convolutions_maxima_and_residual_connections(seed):
    torch.manual_seed(seed)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return x + self.two(nn.functional.relu6(self.one(x).relu() - 0.2))

    stem = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2))
    model = nn.Sequential(*stem, Block(), nn.Hardsigmoid(), Block(), nn.Flatten(), nn.Linear(27, 2)).double().eval()
    part = plr.partition(model, plr.Slice.around(torch.randn(1, 6, 6).double(), 1.0))
    assert part.n_regions > 5
    found, bounds = floats(part)
    true = exact_maps(part.stages, part.slice.plane, part.patterns)
    off = np.abs(found - true) - 2.0**-53 * np.abs(true)  # that rounded it, too
    assert (off <= bounds).all() and off.max() > 1e-3 * bounds.max()
    worst = bounds[..., :2].max() / np.abs(true[..., :2]).max()
    assert worst < 1e-9


def test_rows_that_are_pulled_back_on_threads(monkeypatch, threads):
    """Rows go to threads some at a time; what each is off by is the same to the bit, and nothing is left of threads."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 9))
    part = plr.partition(model.double(), plr.Slice.around(torch.randn(1, 8, 8), 0.5))
    monkeypatch.setattr(row_errors, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(row_errors, "_NUMBERS_AT_ONCE", 1)
    crews = []
    in_order = row_errors.in_order
    monkeypatch.setattr(row_errors, "in_order", lambda jobs, *rest: crews.append(len(jobs)) or in_order(jobs, *rest))
    found = []
    for count in (1, 3):
        threads(count)
        found.append(floats(part))
        assert torch.get_num_threads() == count
    monkeypatch.setattr(row_errors, "_NUMBERS_ON_THREADS", 1)  # no room for vectors of more than one
    found.append(floats(part))
    assert crews == [1, 3, 1]
    assert all(np.array_equal(one, other) for each in found[1:] for one, other in zip(found[0], each, strict=True))
