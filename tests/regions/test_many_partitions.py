"""``partitions`` gives for each slice what ``partition`` gives, one by one."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import random_case
from cases.parts import SCALE
from cases.tilings import residual_net
from pylinregion.exact import fold_pass, fold_room, slice_fold, tile_walks, tiled_slice
from pylinregion.exact.backward_bounds import BackwardBounds
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_engine import Engine, engines_of
from pylinregion.exact.slice_systems import Slices
from pylinregion.regions import many_partitions
from pylinregion.regions.enumeration import prepared


def net(*widths):
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4),
        nn.ReLU(), nn.Linear(4, 2),
    ).eval()  # fmt: skip


def around(shape, count, seed=0, radius=0.5):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return [plr.Slice.around(point, radius * (1 + k), seed=seed) for k, point in enumerate(points)]


def together_of(slices):
    """Slices that have as many corners."""
    ((_, together),) = many_partitions._together(slices, range(len(slices)))
    return together


def same(found, expected, cells):
    """All that is decided, in the same order; coordinates up to rounding."""
    assert found.regions_per_layer == expected.regions_per_layer and found.layers == expected.layers
    assert found.whole == expected.whole and found.definition == expected.definition
    assert (found.cells is None) == (not cells)
    if not cells:
        return
    assert type(found.patterns) is type(expected.patterns)
    for name in ("patterns", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "layer_of_edge", "neurons"):
        ours, theirs = (np.asarray(getattr(part, name)) for part in (found, expected))
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), name
    assert np.array_equal(found.degrees(), expected.degrees())
    assert (found.adjacency() != expected.adjacency()).nnz == 0
    extent = np.abs(expected.slice.polygon).max()
    assert np.abs(found.vertices - expected.vertices).max() <= 1e-9 * extent


@pytest.mark.parametrize("cells", [True, False])
@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize(("model", "shape"), [(lambda: net(4, 8, 8, 2), (4,)), (conv, (1, 6, 6))], ids=["mlp", "conv"])
def test_each_is_what_partition_finds(model, shape, layers, cells):
    model = model()
    slices = around(shape, 4) + around(shape, 2, seed=1)
    names = None if layers is None else list(plr.capture(model, torch.zeros(1, *shape)).layer_names[:layers])
    found = list(plr.partitions(model, slices, layers=names, cells=cells))
    assert [part.slice for part in found] == slices and len({part.n_regions for part in found}) > 2
    for part, slice_ in zip(found, slices, strict=True):
        same(part, plr.partition(model, slice_, layers=names, cells=cells), cells)
        if cells:
            part.verify(None if layers else model, samples=50)


@pytest.mark.parametrize("cells", [True, False])
def test_polygons_may_have_any_corners_and_slices_come_from_anywhere(cells, monkeypatch):
    model = net(2, 8, 8, 1)
    plane = [[1.0, 0], [0, 1]]
    polygons = [
        [[-1, -1], [1, -1], [0, 1]], [[-1, -1], [1, -1], [1, 1], [-1, 1]], [[0, 0], [2, 0], [2, 2], [0, 2]],
        [[-2, 0], [0, -2], [2, 0], [1, 2], [-1, 2]], [[-1, -1], [1, -1], [0, 1]],
    ]  # fmt: skip
    slices = [plr.Slice(torch.zeros(2), *torch.tensor(plane), polygon) for polygon in polygons]
    expected = [plr.partition(model, slice_, cells=cells) for slice_ in slices]
    most = sorted(part.n_regions for part in expected)[-2]
    first = next(number for number, part in enumerate(expected) if part.n_regions > most)
    for at_once in (256, 2, 1):
        monkeypatch.setattr(many_partitions, "_AT_ONCE", at_once)
        for threads in (1, 2):
            found = plr.partitions(model, (slice_ for slice_ in slices), cells=cells, threads=threads)
            for part, whole in zip(found, expected, strict=True):
                same(part, whole, cells)
        found = plr.partitions(model, slices, cells=cells, max_regions=most)
        assert [next(found).n_regions for _ in range(first)] == [part.n_regions for part in expected[:first]]
        with pytest.raises(
            plr.BudgetExceededError, match=rf"^slices\[{first}\]: there are more than max_regions={most}"
        ):
            next(found)
    assert list(plr.partitions(model, [])) == []


def test_what_is_done_to_the_model_or_torch_meanwhile_does_not_matter():
    model = net(4, 8, 8, 2)
    slices = around((4,), 4)
    expected = [plr.partition(model, slice_, cells=False).regions_per_layer for slice_ in slices]
    for cells in (True, False):
        for mode in (torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)):
            parts = plr.partitions(model, slices, cells=cells)
            first = next(parts)
            kept = [parameter.detach().clone() for parameter in model.parameters()]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.zero_()
            with mode():
                found = [first, *parts]
                assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), kept, strict=True):
                    parameter.copy_(value)
            assert [part.regions_per_layer for part in found] == expected


@pytest.mark.parametrize("cells", [True, False])
def test_affine_networks_have_one_region(cells):
    parts = list(plr.partitions(nn.Linear(4, 2), around((4,), 3), cells=cells))
    assert [part.n_regions for part in parts] == [1, 1, 1]
    if cells:
        assert [len(part.vertices) for part in parts] == [4, 4, 4]


@pytest.mark.part(4)
@pytest.mark.parametrize("seed", range(24 * SCALE))
def test_cells_of_slices_folded_together_are_those_of_each_alone(seed, monkeypatch):
    """Of networks with ties, of all activations and structures; folded a few at a time, too."""
    case, _ = random_case(6000 + seed)
    planes = [case.plane, case.plane * [1, 1, 0], case.plane * [0.5, 2, 1], case.plane]
    slices = Slices(*np.stack(planes).transpose(2, 0, 1).copy(), np.stack([case.corners] * 4))
    if seed % 2:
        monkeypatch.setattr(slice_fold, "_MOST_NUMBERS", 4 * case.stages.lines**2)
    for plane, engine in zip(planes, engines_of(ManySlices(case.stages), slices), strict=True):
        found, alone = engine.enumerate(cells=True), Engine(case.stages, plane, case.corners).enumerate(cells=True)
        assert found.regions == alone.regions and np.array_equal(np.asarray(found.cells.patterns), alone.cells.patterns)
        for name in ("offsets", "indices", "edges", "edge_cells", "edge_rows"):
            assert np.array_equal(getattr(found.cells, name), getattr(alone.cells, name)), name
        assert np.abs(found.cells.vertices - alone.cells.vertices).max() <= 1e-9 * np.abs(case.corners).max()


def test_rows_of_many_slices_tell_corners_as_well_as_those_of_one(monkeypatch):
    """As of a deep network whose norms say little: else coordinates would be looked up in integers."""
    torch.manual_seed(0)
    widths = [4, *[12] * 20, 1]
    model = nn.Sequential(*[part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())][:-1]).double()
    with torch.no_grad():
        for module in model[::2]:
            module.weight.mul_(2.2), module.bias.mul_(2.2)
    slices = around((4,), 3, radius=0.1)
    stages = prepared(model, slices[0], None, 1, None, None).stages
    together = together_of(slices)
    folded = [engine._systems for engine in engines_of(ManySlices(stages), together)]
    folder = slice_fold.SliceFolder(stages)
    # One alone is followed back besides, and has other rows: less is open before them.
    monkeypatch.setattr(BackwardBounds, "__len__", lambda self: 0)
    alone = [folder.fold(together.part(slice(k, k + 1)), cells=True).error for k in range(3)]
    assert sum(map(len, alone)) > 20
    for own, others in zip(folded, alone, strict=True):
        change = 0.1 * np.abs(own.affine[:2]).sum(axis=0)
        assert np.all(own.error <= np.maximum(2 * others, 4 * fold_pass._SHARP * change))


@pytest.mark.parametrize("cells", [True, False])
def test_a_slice_that_does_not_fit_is_found_in_tiles_among_the_others(cells, monkeypatch):
    """Of counts the budget was not heard of."""
    monkeypatch.setattr(fold_room, "bytes_of_fold", lambda columns, widest, squares=None: columns << 30)
    monkeypatch.setattr(tiled_slice, "columns_that_fit", lambda max_bytes, widest: max_bytes >> 30)
    tiled = []
    monkeypatch.setattr(tiled_slice, "tiles_a_side", lambda *given: tiled.append(1) or tile_walks.tiles_a_side(*given))
    model = residual_net()
    points = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slices = [plr.Slice.around(point, radius) for point, radius in zip(points, (1e-7, 1.0, 1e-7), strict=True)]
    expected = [plr.partition(model, where, cells=cells, memory_budget=1 << 50) for where in slices]
    assert [part.n_regions > 100 for part in expected] == [False, True, False]
    found = plr.partitions(model, slices, cells=cells, memory_budget=60 << 30)
    for part, where, whole in zip(found, slices, expected, strict=True):
        alone = plr.partition(model, where, cells=cells, memory_budget=60 << 30)
        assert part.regions_per_layer == whole.regions_per_layer
        same(part, alone, cells)
    assert len(tiled) == 2  # both times, of one slice
    parts = plr.partitions(model, slices, cells=cells, memory_budget=1 << 29)
    assert next(parts).n_regions == expected[0].n_regions
    with pytest.raises(plr.BudgetExceededError, match=r"^slices\[1\]: even a small tile of the slice takes more"):
        next(parts)


def test_so_many_columns_of_many_slices_that_memory_is_short_are_folded_in_parts(monkeypatch):
    """All slices at once were given to the tiles of one."""
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    model, slices = net(4, 12, 12, 1), around((4,), 6)
    expected = [plr.partition(model, each).n_regions for each in slices]
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", str(fold_room.bytes_of_fold(30, 12)))
    assert [part.n_regions for part in plr.partitions(model, slices, cells=False)] == expected
    x = torch.stack([each.origin for each in slices])
    frame = torch.stack([slices[0].u, slices[0].v])
    radii = torch.tensor([each.polygon.max() for each in slices])
    assert plr.count_regions(model.double(), x, radii, "slice", frame=frame).regions.tolist() == expected


@pytest.mark.parametrize("cells", [True, False])
def test_a_slice_with_too_many_regions_ends_it_and_those_before_it_have_come(cells):
    model = net(2, 30, 30, 1)
    small, large = (plr.Slice.box(-size, size) for size in (1e-6, 5.0))
    parts = plr.partitions(model, [small, small, large, small], cells=cells, max_regions=50)
    assert [next(parts).n_regions for _ in range(2)] == [plr.partition(model, small).n_regions] * 2
    with pytest.raises(plr.BudgetExceededError, match="a lower bound") as info:
        next(parts)
    assert info.value.n_regions > 50
    assert str(info.value).startswith("slices[2]: there are more than max_regions=50 regions: at least")


@pytest.mark.parametrize("cells", [True, False])
def test_a_slice_with_numbers_that_are_too_large_is_named_and_those_before_it_have_come(cells):
    model, slices = net(4, 8, 8, 2), around((4,), 3)
    far = plr.Slice(1e160 * slices[1].origin, slices[1].u, slices[1].v, slices[1].polygon)
    parts = plr.partitions(model, [slices[0], far, slices[2]], cells=cells)
    assert next(parts).n_regions == plr.partition(model, slices[0]).n_regions
    with pytest.raises(
        plr.UnsupportedModelError, match=r"^slices\[1\]: exact methods do not cover weights of this scale"
    ):
        next(parts)


def test_bad_arguments_are_named_at_once():
    model, slices = net(4, 8, 2), around((4,), 2)

    def bad(message, given=slices, error=ValueError, **arguments):
        with pytest.raises(error, match=message):
            plr.partitions(model, given, **arguments)

    bad("slices must be a list of pylinregion.Slice, got Slice", slices[0], TypeError)
    bad("slices must be a list of pylinregion.Slice, got int", 3, TypeError)
    bad(r"slices\[1\] must be a pylinregion.Slice, got str", [slices[0], "a"], TypeError)
    bad(
        r"slices must be of one shape: slices\[1\] is of \[3\], and slices\[0\] of \[4\]", [slices[0], *around((3,), 1)]
    )
    bad(r"slices\[0\] must be of the model's input shape, got \[3\]", around((3,), 2))
    huge = plr.Slice(slices[0].origin, slices[0].u, slices[0].v, [[0, 0], [1e31, 0], [0, 1e31]])
    bad(r"slices\[0\].polygon must have coordinates up to 1e\+30", [huge])
    bad(r"slices\[1\].polygon must have coordinates up to 1e\+30", [slices[0], huge])
    bad("max_regions must be", max_regions=0)
    bad("cells must be", cells=1, error=TypeError)
    bad("threads must be", threads=0)
    bad("threads must be", [], threads=0)
