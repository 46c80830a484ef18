"""Slices in tiles: the counts are those of the whole, whatever the tiling and the number of threads."""

import functools
import threading

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases.engine import IDENTITY_PLANE, box, generic, perceptron, random_case
from cases.maxima import maxima_case, wide_maxima_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS
from cases.parts import SCALE
from cases.random_layers import random_model, random_place, small_slice
from cases.tilings import GRIDS, counted_in_tiles, force, residual_net, slices_of
from pylinregion.exact import fold_room, tile_walks, tiled_slice
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_engine import folded_engine
from pylinregion.exact.slice_systems import Slices
from pylinregion.geometry.tiles import Tiling
from pylinregion.lowering.lower import stages_of


@pytest.fixture
def forced(monkeypatch):
    """See :func:`cases.tilings.force`."""
    return functools.partial(force, monkeypatch)


def check(stages, plane, corners, forced, natural=False, **how):
    """Every tiling has the counts of the whole."""
    many, where = ManySlices(stages), slices_of(plane, corners)
    whole = many.count(where)
    for grid in GRIDS:
        forced(*grid, natural)
        found = counted_in_tiles(many, where, **how)
        assert np.array_equal(found.regions, whole.regions), grid
        assert np.array_equal(found.changes, whole.changes), grid
        assert found.stopped_at == -1


@pytest.mark.turns(2)
@pytest.mark.part(12)
@pytest.mark.parametrize("seed", range(120 * SCALE))
def test_tiles_count_what_the_whole_does(seed, forced):
    case, _ = random_case(8000 + seed)
    how = ({}, {"force_exact": True}, {"threads": 2})[seed % 3]
    check(case.stages, case.plane, case.corners, forced, natural=seed % 2 == 0, **how)


@pytest.mark.turns(2)
@pytest.mark.part(16)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_tiles_count_what_the_whole_does_with_maxima(kind, slice_kind, forced):
    seed = NETWORK_KINDS.index(kind) + 20 * SLICE_KINDS.index(slice_kind)
    for natural, case in enumerate((maxima_case(kind, slice_kind, seed), wide_maxima_case(kind, seed))):
        check(case.stages, case.plane, case.corners, forced, natural=bool(natural))


@pytest.mark.turns(2)
@pytest.mark.part(20)
@pytest.mark.parametrize("seed", range(20 * SCALE))
def test_tiles_count_what_the_whole_does_of_convolutional_networks(seed, forced):
    model, shape = random_model(seed)
    origin, u, v, polygon = random_place(seed, shape)
    stages = stages_of(plr.capture(model, torch.zeros(2, *shape, dtype=next(model.parameters()).dtype)))
    where, _ = small_slice(model, origin, u, v, polygon, most=100)
    check(stages, where.plane, where.polygon, forced, natural=seed % 2 == 0)


@pytest.mark.turns(2)
@pytest.mark.parametrize("corners", [box(-1, 1), np.array([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)])])
@pytest.mark.parametrize(
    "grid, normals",
    [
        ((2, 1), [(1, 0), (0, 1), (1, 1), (1, -1)]),  # a line along the only cut
        ((2, 2), [(1, 3), (3, -1)]),  # lines through the point where cuts meet
        ((2, 2), [(1, 0), (0, 1), (1, 1), (1, -1)]),
    ],
)
def test_cuts_along_lines_and_through_where_they_cross_are_moved(grid, normals, corners, forced, monkeypatch):
    stages = perceptron([np.array(normals, dtype=float), np.ones((1, len(normals)))], [np.zeros(len(normals)), [0.0]])
    many, where = ManySlices(stages), slices_of(IDENTITY_PLANE, corners)
    whole = many.count(where).regions
    draws = forced(*grid, natural=True)
    assert np.array_equal(counted_in_tiles(many, where).regions, whole)
    assert draws == [0, 0, 1][-len(draws) :] and draws[-1] == 1
    monkeypatch.setattr(tiled_slice, "is_generic", lambda *tile: True)  # what they would count there is wrong
    forced(*grid, natural=True)
    try:
        assert not np.array_equal(counted_in_tiles(many, where).regions, whole)
    except RuntimeError as error:
        assert "on one side" in str(error)


@pytest.mark.turns(2)
@pytest.mark.parametrize("exponent, expected", [(1.0, 2), (0.5, 3), (0.0, 8)])
def test_a_slice_is_cut_into_as_few_tiles_as_fit(exponent, expected):
    """Columns that grow like powers of the side, 1500 of the whole where 1000 fit."""

    def columns(tile):
        taken.append(np.ptp(tile.corners[:, 0]) / 2)
        return round(1500 * taken[-1] ** exponent)

    taken = []
    assert tile_walks.tiles_a_side(slices_of(IDENTITY_PLANE, box(-1, 1)), 1000, columns) == expected
    assert len(taken) == 1 and abs(taken[0] - 1 / 8) < 1e-9

    def refused(tile):
        if columns(tile) > 200:
            raise plr.BudgetExceededError("it does not fit", 1)
        return 100

    if exponent:
        taken.clear()
        assert 2 <= tile_walks.tiles_a_side(slices_of(IDENTITY_PLANE, box(-1, 1)), 100, refused) <= 1 / taken[-1]
    else:
        with pytest.raises(plr.BudgetExceededError, match="it does not fit"):
            tile_walks.tiles_a_side(slices_of(IDENTITY_PLANE, box(-1, 1)), 100, refused)


@pytest.mark.turns(2)
def test_as_many_columns_fit_as_take_no_more_bytes():
    for widest in (1, 100, 16384):
        for columns in (1, 7, 3000):
            size = fold_room.bytes_of_fold(columns, widest)
            assert fold_room.columns_that_fit(size, widest) == columns
            assert fold_room.columns_that_fit(size - 1, widest) == columns - 1


def test_columns_are_charged_for_the_stages_that_they_are_in():
    """Most columns of a residual network begin in its late, narrow stages: these were charged for the widest of all."""
    assert fold_room.widest_behind([100, 10, 5], [[-1], [0], [1]]) == [100, 100, 10]
    assert fold_room.widest_behind([100, 10, 5, 50, 1], [[-1], [0], [1], [2, 0], [3]]) == [100, 100, 100, 100, 50]
    assert fold_room.widest_behind([], []) == []
    stages = generic((2, 200, 6, 6, 1), seed=3)
    folder = ManySlices(stages)._walks.folder
    births = np.array([0, 10, 14, 18])
    alone = folder.network.columns_all_along(births)
    assert 10 <= alone < 18
    assert fold_room.bytes_of_fold(alone + 1, 200) > max(
        fold_room.bytes_of_fold(10, 200), fold_room.bytes_of_fold(14, 200), fold_room.bytes_of_fold(18, 6)
    )


@pytest.mark.turns(2)
def test_a_slice_that_does_not_fit_is_counted_in_tiles_that_do(monkeypatch):
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    net = residual_net()
    where = plr.Slice.around(0.1 * torch.randn(1, 12, 12, dtype=torch.float64), 1.0)
    whole = plr.partition(net, where, cells=False, threads=1)
    stages = whole.stages
    engine = folded_engine(stages, where.plane, where.polygon)
    widest = engine._many._walks.folder.widest
    columns = engine._many._walks.folder.network.columns_all_along(engine._systems.stage_begin[0])
    bytes_of_whole = fold_room.bytes_of_fold(columns, widest)
    looked = []
    look = tiled_slice.tiled
    monkeypatch.setattr(tiled_slice, "tiled", lambda slice_, tile: looked.append(tile) or look(slice_, tile))
    assert not stages.are_one_system
    for threads in (1, 2):
        tiled = plr.partition(net, where, cells=False, memory_budget=bytes_of_whole - 1, threads=threads)
        assert tiled.regions_per_layer == whole.regions_per_layer and len(looked) > 4
        assert tiled.certificate.filter != whole.certificate.filter
        looked.clear()
    with pytest.raises(plr.BudgetExceededError, match=r"even a small tile .* memory budget: one neuron on both sides"):
        plr.partition(net, where, cells=False, memory_budget=3000)


@pytest.mark.turns(2)
def test_a_tile_that_does_not_fit_is_halved(forced, monkeypatch):
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    stages = generic((2, 12, 12, 1), seed=2)
    where = slices_of(IDENTITY_PLANE, box(-1, 1))
    many = ManySlices(stages)
    whole = many.count(where)
    forced(1, 1)
    halves = []
    halve = Tiling.halves
    monkeypatch.setattr(Tiling, "halves", lambda self, tile: halves.append(tile) or halve(self, tile))
    budget = fold_room.bytes_of_fold(int(whole.rows[0]), 12) // 3
    found = counted_in_tiles(many, where, max_bytes=budget)
    assert np.array_equal(found.regions, whole.regions) and np.array_equal(found.changes, whole.changes)
    assert len(halves) > 2 and found.rows[0] > whole.rows[0]


@pytest.mark.turns(2)
def test_too_many_regions_stop_it_in_a_tile_and_behind_all(forced):
    stages = generic((2, 20, 20, 1), seed=1)
    many, where = ManySlices(stages), slices_of(IDENTITY_PLANE, box(-3, 3))
    whole = many.count(where).regions[0, -1]
    forced(2, 2)
    for threads in (1, 2):
        for most, stopped in ((10, 0), (whole - 1, 0), (whole, -1)):
            found = counted_in_tiles(many, where, max_regions=int(most), threads=threads)
            assert found.stopped_at == stopped
            assert found.regions[0, -1] == whole if stopped else most < found.regions[0, -1] <= whole


@pytest.mark.turns(2)
@pytest.mark.parametrize("tile_count", [False, True])
def test_an_error_of_the_report_ends_all_walks(tile_count, forced):
    stages = generic((2, 128, 128, 128, 1), gain=1.5)
    where = slices_of(IDENTITY_PLANE, box(-3, 3))
    slices = where if tile_count else Slices(where.u, where.v, np.zeros((3, 2)), np.stack([box(-3, 3)] * 3))
    forced(2, 2)
    before, seen = threading.active_count(), []

    def report(regions):
        seen.append(regions)
        if regions > 0:
            raise KeyError("enough")

    count = functools.partial(counted_in_tiles, ManySlices(stages)) if tile_count else ManySlices(stages).count
    with pytest.raises(KeyError, match="enough"):
        count(slices, threads=2, force_exact=True, report=report)  # which takes longer than a report waits
    assert threading.active_count() == before and seen == sorted(seen)


@pytest.mark.turns(2)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_slices_on_threads_count_what_they_do_on_one(threads):
    stages = generic((3, 12, 12, 1), seed=4)
    rng = np.random.default_rng(0)
    slices = Slices(*rng.standard_normal((2, 1, 3)), rng.standard_normal((7, 3)), np.stack([box(-1, 1)] * 7))
    one, several = ManySlices(stages).count(slices), ManySlices(stages).count(slices, threads=threads)
    for name in ("regions", "changes", "decisions", "rows"):
        assert np.array_equal(getattr(one, name), getattr(several, name)), name
