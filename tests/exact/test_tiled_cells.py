"""Cells of slices in tiles: the mesh of the whole, without seams."""

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases.engine import IDENTITY_PLANE, box, generic, perceptron, random_case
from cases.maxima import maxima_case, wide_maxima_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS
from cases.parts import SCALE
from cases.random_layers import random_model, random_place, small_slice
from cases.tilings import GRIDS, force, residual_net
from pylinregion._util.errors import BudgetExceededError
from pylinregion.exact import fold_room
from pylinregion.exact.slice_engine import folded_engine
from pylinregion.geometry.tiles import Tiling
from pylinregion.lowering.lower import stages_of

MESH = ("offsets", "indices", "edges", "edge_cells", "edge_rows")


def polygons(mesh):
    """Of each cell its corners and the rows along the edges behind them."""
    rows = {
        edge: row
        for (p, q), row in zip(mesh.edges.tolist(), mesh.edge_rows.tolist(), strict=True)
        for edge in ((p, q), (q, p))
    }
    for begin, end in zip(mesh.offsets[:-1], mesh.offsets[1:], strict=True):
        corners = mesh.indices[begin:end].tolist()
        yield corners, [rows[edge] for edge in zip(corners, corners[1:] + corners[:1], strict=True)]


def same_mesh(whole, tiled):
    """The same cells in the same order, of the same vertices and edges: what differs is where each begins."""
    name = {}
    for (corners, rows), (others, other_rows) in zip(polygons(whole), polygons(tiled), strict=True):
        n = len(corners)
        assert len(others) == n
        turns = [k for k in range(n) if other_rows[k:] + other_rows[:k] == rows]
        far = [np.abs(whole.vertices[corners] - tiled.vertices[others[k:] + others[:k]]).max() for k in turns]
        k = turns[int(np.argmin(far))]
        for vertex, other in zip(corners, others[k:] + others[:k], strict=True):
            assert name.setdefault(vertex, other) == other
    assert sorted(name.values()) == list(range(len(tiled.vertices))) and len(name) == len(whole.vertices)
    there = tiled.vertices[[name[vertex] for vertex in range(len(name))]]
    assert np.abs(whole.vertices - there).max() <= 1e-6 * np.abs(whole.vertices).max()

    def edges(mesh, of):
        both = zip(mesh.edges.tolist(), mesh.edge_cells.tolist(), mesh.edge_rows.tolist(), strict=True)
        return {(frozenset((of(p), of(q))), frozenset(cells), row) for (p, q), cells, row in both}

    assert edges(whole, name.get) == edges(tiled, int)


def in_tiles(engine):
    """An engine whose fold does not fit."""
    engine.refused = BudgetExceededError("it does not fit", 1)
    return engine


def check(stages, plane, corners, monkeypatch, natural=False, **how):
    """Every tiling has the cells of the whole, and all of them the same arrays."""
    whole = folded_engine(stages, plane, corners).enumerate(cells=True)
    engine, found = in_tiles(folded_engine(stages, plane, corners)), []
    for grid in GRIDS:
        force(monkeypatch, *grid, natural)
        found.append(engine.enumerate(cells=True, **how))
        assert found[-1].regions == whole.regions and not found[-1].stopped
        assert np.array_equal(np.asarray(found[-1].cells.patterns), np.asarray(whole.cells.patterns))
        assert all(np.array_equal(getattr(found[0].cells, each), getattr(found[-1].cells, each)) for each in MESH)
    same_mesh(whole.cells, found[-1].cells)


@pytest.mark.part(15)
@pytest.mark.parametrize("seed", range(120 * SCALE))
def test_tiles_have_the_cells_of_the_whole(seed, monkeypatch):
    case, _ = random_case(12000 + seed)
    how = ({}, {"force_exact": True}, {"threads": 2})[seed % 3]
    check(case.stages, case.plane, case.corners, monkeypatch, natural=seed % 2 == 0, **how)


@pytest.mark.part(30)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_tiles_have_the_cells_of_the_whole_with_maxima(kind, slice_kind, monkeypatch):
    seed = NETWORK_KINDS.index(kind) + 20 * SLICE_KINDS.index(slice_kind)
    for natural, case in enumerate((maxima_case(kind, slice_kind, seed), wide_maxima_case(kind, seed))):
        check(case.stages, case.plane, case.corners, monkeypatch, natural=bool(natural))


@pytest.mark.part(20)
@pytest.mark.parametrize("seed", range(20 * SCALE))
def test_tiles_have_the_cells_of_convolutional_networks(seed, monkeypatch):
    model, shape = random_model(100 + seed)
    where, _ = small_slice(model, *random_place(100 + seed, shape), most=100)
    stages = stages_of(plr.capture(model, torch.zeros(2, *shape, dtype=next(model.parameters()).dtype)))
    check(stages, where.plane, where.polygon, monkeypatch, natural=seed % 2 == 0)


def test_a_partition_that_does_not_fit_is_found_in_tiles(monkeypatch):
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    net = residual_net()
    where = plr.Slice.around(0.1 * torch.randn(1, 12, 12, dtype=torch.float64), 0.2)
    whole = plr.partition(net, where)
    engine = folded_engine(whole.stages, where.plane, where.polygon)
    network = engine._many._walks.folder.network
    columns = network.columns_all_along(engine._systems.stage_begin[0])
    budget = fold_room.bytes_of_fold(columns, network.widest) - 1
    for threads in (1, 2):
        tiled = plr.partition(net, where, memory_budget=budget, threads=threads)
        assert tiled.regions_per_layer == whole.regions_per_layer and tiled.n_regions > 50
        tiled.verify(net, samples=100)
        assert np.allclose(tiled.areas(), whole.areas(), rtol=1e-9, atol=1e-12)
        assert np.array_equal(tiled.cells.patterns[:], whole.cells.patterns[:])
    same_mesh(engine.enumerate(cells=True).cells, in_tiles(engine).enumerate(cells=True).cells)
    for most in (5, whole.n_regions - 1):
        with pytest.raises(plr.BudgetExceededError, match=f"more than max_regions={most} regions: at least"):
            plr.partition(net, where, memory_budget=budget, max_regions=most)


def test_cells_that_take_too_much_and_errors_of_a_report_stop_it(monkeypatch):
    engine = in_tiles(folded_engine(generic((2, 128, 128, 128, 1), gain=1.5), IDENTITY_PLANE, box(-3, 3)))
    force(monkeypatch, 2, 2)
    for threads in (1, 2):
        stopped = engine.enumerate(cells=True, max_bytes=30000, threads=threads)
        assert stopped.stopped and stopped.cells is None and 1 < stopped.n_regions < 10000
    seen = []

    def report(regions):
        seen.append(regions)
        if regions > 0:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        engine.enumerate(cells=True, force_exact=True, report=report)  # which takes longer than a report waits
    with pytest.raises(BudgetExceededError, match="it does not fit"):
        engine.enumerate_part(0, 2, cells=True)
    assert seen[-1] > 0


def diagonal(tiling):
    """The square, first cut through two corners, then through one, then through none."""
    start, end = [((-1, -1), (1, 1)), ((-1, -0.9), (1, 1)), ((-1, -0.9), (1, 0.8))][tiling._draw]
    return tiling.whole.cut(tuple(map(float, start)), tuple(map(float, end)), 0)


def test_networks_without_lines_and_cuts_through_a_corner_of_the_slice(monkeypatch):
    triangle = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    for stages in (perceptron([np.ones((1, 2))], [np.zeros(1)]), generic((2, 6, 1))):
        check(stages, IDENTITY_PLANE, triangle, monkeypatch, natural=True)
    monkeypatch.setattr(Tiling, "grid", lambda tiling, *size: list(diagonal(tiling)))
    stages = generic((2, 6, 1))
    draws = force(monkeypatch, 2, 1)
    tiled = in_tiles(folded_engine(stages, IDENTITY_PLANE, box(-1, 1))).enumerate(cells=True)
    same_mesh(folded_engine(stages, IDENTITY_PLANE, box(-1, 1)).enumerate(cells=True).cells, tiled.cells)
    assert draws[-3:] == [0, 1, 2]
