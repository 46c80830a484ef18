"""Slices that are folded together: the counts of each alone, the bounds of each row, and what is settled."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import ACTIVATIONS, STRUCTURES, Case, box, generic, random_case, random_stages
from cases.maxima import maxima_case, wide_maxima_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS
from cases.parts import SCALE
from cases.row_bounds import check_bounds, little_left_of_large_weights
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.exact import fold_pass, fold_room, slice_fold
from pylinregion.exact.backward_bounds import BackwardBounds
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.open_lines import OpenLines
from pylinregion.exact.over_polygons import LineBounds, OverPolygons
from pylinregion.exact.slice_engine import Engine
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.units import Units


@pytest.fixture(autouse=True)
def folds_of_any_maps(monkeypatch):
    """Chains of dense layers, too: what folds them in the core has its tests in test_dense_fold.py."""
    monkeypatch.setattr(slice_fold, "is_chain", lambda stages: False)


def around(case, count, seed):
    """Slices of the case's network: its own, and smaller ones with other origins on its plane."""
    rng = np.random.default_rng(seed)
    u, v, origin = case.plane.T
    origins, corners = [origin], [case.corners]
    for _ in range(count - 1):
        weights = rng.dirichlet(np.ones(len(case.corners)))
        s, t = weights @ case.corners if rng.random() < 0.7 else case.corners[rng.integers(len(case.corners))]
        origins.append(origin + s * u + t * v)
        corners.append(case.corners * 2.0 ** -int(rng.integers(0, 12)))
    return Slices(u[None].copy(), v[None].copy(), np.stack(origins), np.stack(corners))


def with_own_directions(slices, seed):
    rng = np.random.default_rng(seed)
    shape = len(slices), slices.origins.shape[1]
    return Slices(rng.standard_normal(shape), rng.standard_normal(shape), slices.origins, slices.corners)


def alone(stages, slices):
    """Regions and changes of each slice, one engine for each."""
    regions, changes = [], []  # of the last stage
    for k in range(len(slices)):
        u, v = (side[k if len(side) > 1 else 0] for side in (slices.u, slices.v))
        plane = np.stack([u, v, slices.origins[k]], axis=1)
        patterns = Engine(stages, plane, slices.corners[k]).enumerate(cells=True).cells.patterns
        regions.append(len(patterns))
        changes.append(np.bitwise_or.reduce(patterns) ^ np.bitwise_and.reduce(patterns))
    return regions, np.stack(changes)


def check(stages, slices):
    expected, changes = alone(stages, slices)
    many = ManySlices(stages)
    for how in ({}, {"force_exact": True}, {"threads": 2}):
        found = many.count(slices, **how)
        assert found.regions[:, -1].tolist() == expected, how
        assert np.array_equal(found.changes, changes), how
    for k in range(len(slices)):
        assert many.count(slices.part(slice(k, k + 1))).regions[0, -1] == expected[k]


@pytest.mark.turns(2)
@pytest.mark.part(16)
@pytest.mark.parametrize("seed", range(6 * SCALE))
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "wide"])
def test_counts_are_those_of_each_slice_alone(structure, kind, seed):
    case, _ = random_case(seed)
    shape = (case.plane.shape[0], 7, 6, 5, 1)
    activation = [name for name, (kinks, *_) in ACTIVATIONS.items() if 0 < len(kinks) < 4][seed % 12]
    case = Case(random_stages(structure, kind, shape, activation, seed), case.plane, case.corners)
    slices = around(case, 5, seed)
    check(case.stages, slices if seed % 2 else with_own_directions(slices, seed))


@pytest.mark.turns(2)
@pytest.mark.part(8)
@pytest.mark.parametrize("seed", range(60 * SCALE))
def test_counts_of_networks_of_any_kind(seed):
    case, _ = random_case(1000 + seed)
    check(case.stages, around(case, 4, seed))


@pytest.mark.turns(2)
@pytest.mark.part(8)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_counts_of_networks_with_maxima(kind, slice_kind):
    seed = NETWORK_KINDS.index(kind) + 20 * SLICE_KINDS.index(slice_kind)
    for case in (maxima_case(kind, slice_kind, seed), wide_maxima_case(kind, seed)):
        check(case.stages, around(case, 4, seed))


@pytest.mark.turns(2)
@pytest.mark.part(32)
@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "wide"])
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("worth", [fold_pass._WORTH, -1.0])  # by norms, or row by row, of all rows
def test_rows_are_within_their_bounds_and_what_is_settled_is(kind, structure, worth, monkeypatch):
    for name in ("_WORTH", "_LOOSE", "_MATTERS")[: 3 if worth < 0 else 1]:
        monkeypatch.setattr(fold_pass, name, worth)
    case, _ = random_case(7 + NETWORK_KINDS.index(kind))
    shape = (case.plane.shape[0], 8, 7, 6, 2)
    for seed, activation in enumerate(("relu", "leaky_relu 0.01", "hardsigmoid", "steps")):
        case = Case(random_stages(structure, kind, shape, activation, seed), case.plane, case.corners)
        together = around(case, 3, seed)
        for slices in (together, together.part(slice(0, 1))):  # one alone has bounds of each row besides
            assert check_bounds(case.stages, slices, seed) < 1


@pytest.mark.part(16)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("worth", [fold_pass._WORTH, -1.0])
def test_candidates_are_within_their_bounds(kind, worth, monkeypatch):
    monkeypatch.setattr(fold_pass, "_WORTH", worth)
    for seed in range(3):
        case = maxima_case(kind, SLICE_KINDS[seed], seed)
        check_bounds(case.stages, around(case, 3, seed), seed)


@pytest.mark.parametrize("count", [1, 3])
def test_what_large_numbers_have_rounded_is_kept_when_they_cancel(count, monkeypatch):
    """Sizes are small behind a difference of large numbers, what it is off by is not."""
    monkeypatch.setattr(fold_pass, "_WORTH", math.inf)  # bounds of the way forwards alone
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU()).double()
    with torch.no_grad():
        model[0].bias.uniform_(1e9, 2e9)
        model[2].weight[:, 7] = -(model[2].weight[:, :7] @ model[0].bias[:7]) / model[0].bias[7]
        model[2].bias.fill_(1.0)
        model[4].bias.copy_(-model[4].weight.sum(dim=1))  # all of its lines pass near the middle
    u, v = np.random.default_rng(0).normal(size=(2, 1, 3))
    slices = Slices(u, v, np.zeros((count, 3)), np.tile(box(-1, 1), (count, 1, 1)))
    stages = stages_of(plr.capture(model, torch.zeros(1, 3).double()))
    assert 1e-4 < check_bounds(stages, slices, 0) < 1


def test_bounds_of_deep_networks_of_two_kinks_do_not_grow_by_what_units_cut_off():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(24, 24).double(), nn.ReLU6()) for _ in range(40)]
    for layer in layers:
        layer[0].weight.data.normal_(std=0.28)
    stages = stages_of(plr.capture(nn.Sequential(*layers, nn.Linear(24, 1).double()), torch.zeros(1, 24).double()))
    slices = Slices(*torch.randn(2, 1, 24).double().numpy(), np.zeros((1, 24)), np.stack([box(-1e-3, 1e-3)]))
    found = SliceFolder(stages).fold(slices)
    assert 0 < len(found.error) < 20 and found.error.max() < 1e-6


def test_bounds_are_not_far_from_what_is_off():
    """Else they would settle little: of a wide network some row is off by a thousandth of its bound, or more."""
    stages = generic((6, 40, 40, 40, 1), seed=3)
    rng = np.random.default_rng(0)
    slices = Slices(*rng.standard_normal((2, 1, 6)), rng.standard_normal((3, 6)), np.stack([box(-0.1, 0.1)] * 3))
    assert check_bounds(stages, slices, 0) > 1e-4
    sizes = np.diff(SliceFolder(stages).fold(slices).begin)
    assert (sizes < 0.3 * stages.lines).all() and sizes.sum() > 0


def test_no_slices_no_lines_and_numbers_that_are_too_large():
    stages = generic((2, 5, 4, 1))
    many = ManySlices(stages)
    none = np.zeros((0, 2))
    assert many.count(Slices(np.eye(2)[:1], np.eye(2)[1:], none, np.zeros((0, 4, 2)))).regions.shape == (0, 2)
    far = Slices(np.eye(2)[:1], np.eye(2)[1:], np.array([[0.0, 0], [1e200, 0]]), np.stack([box(-1, 1)] * 2))
    with pytest.raises(UnsupportedModelError, match="exact methods do not cover weights of this scale: the weights up"):
        many.count(far)


def test_an_error_of_the_report_ends_it():
    stages = generic((2, 128, 128, 128, 1), gain=1.5)
    slices = Slices(np.eye(2)[:1], np.eye(2)[1:], np.zeros((2, 2)), np.stack([box(-3, 3)] * 2))
    seen = []

    def report(regions):
        seen.append(regions)
        if regions > 0:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        ManySlices(stages).count(slices, force_exact=True, report=report)  # which takes longer than a report waits
    assert seen[-1] > 0


def test_slices_on_which_too_much_is_left_are_folded_in_parts(monkeypatch):
    monkeypatch.setattr(BackwardBounds, "__len__", lambda self: 0)  # one alone has sharper bounds
    stages = generic((3, 20, 20, 20, 1), seed=1)
    rng = np.random.default_rng(0)
    slices = Slices(*rng.standard_normal((2, 1, 3)), rng.standard_normal((7, 3)), np.stack([box(-1, 1)] * 7))
    whole = ManySlices(stages).count(slices)
    for most in (1, 20 * int(whole.rows.max()), 40 * int(whole.rows.max())):
        monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", most)
        found = ManySlices(stages).count(slices)
        assert np.array_equal(found.regions, whole.regions) and np.array_equal(found.changes, whole.changes)
        assert np.array_equal(found.rows, whole.rows) and np.array_equal(found.decisions, whole.decisions)
    with pytest.raises(fold_room.TooManyColumnsError):
        SliceFolder(stages).fold(slices)


@pytest.mark.parametrize("between", [0, 1, 3])
def test_what_a_layer_is_off_by_is_handed_on(between):
    stages, slices = little_left_of_large_weights(between)
    assert np.diff(SliceFolder(stages).fold(slices).begin).sum() > 8
    assert 1e-3 < check_bounds(stages, slices, 0) < 1


def test_kinks_nearer_to_each_other_than_their_bounds_are_settled_in_their_order():
    units = Units(np.array([0, 2]), np.array([1e9, 1e9 + 1e-6]), np.array([0.0, 1.0, 3.0]), np.zeros(3))
    for low, high, on, off in (
        ((-1.0, 1.0), (3.0, 2.0), (True, True), (False, False)),
        ((-3.0, -2.0), (-1.0, 1.0), (False, False), (True, True)),
        ((1.0, -1.0), (3.0, 2.0), (True, False), (False, False)),
    ):
        bounds = [torch.tensor([numbers], dtype=torch.float64) for numbers in ([0.0, 0.0], low, high)]
        lines = LineBounds(torch.zeros(1, 3, 2), *bounds)
        where = Slices(np.eye(2)[:1], np.eye(2)[1:], np.zeros((1, 2)), box(-1, 1)[None])
        over = OverPolygons(where, OpenLines(1, 2))
        found = over.decided(units, torch.zeros(0, 2), lines, None, None)
        assert [tuple(each[0].tolist()) for each in found] == [on, off]


def test_a_slice_with_too_many_regions_is_named_in_whichever_part_it_is(monkeypatch):
    stages = generic((2, 20, 20, 1), seed=1)
    sizes = (1e-6, 1e-6, 1e-6, 3.0, 1e-6)
    slices = Slices(np.eye(2)[:1], np.eye(2)[1:], np.zeros((5, 2)), np.stack([box(-size, size) for size in sizes]))
    for most in (2**22, 1):
        monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", most)
        found = ManySlices(stages).count(slices, max_regions=20)
        assert found.stopped_at == 3 and found.regions[3, -1] > 20 and len(found.regions) == (5 if most > 1 else 4)
