"""Slices by their fold: what the engine finds on the dense system, and convolutions in fractions."""

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import random_case
from cases.maxima import maxima_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS
from cases.row_bounds import check_bounds
from pylinregion.exact import fold_pass, fold_room
from pylinregion.exact.pattern_table import changing_lines
from pylinregion.exact.slice_engine import Engine, FoldedEngine, engine_of, folded_engine
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.lower import stages_of

MESH = ("offsets", "indices", "edges", "edge_cells", "edge_rows")


def same_cells(stages, plane, corners, **how):
    """The same cells in the same order, with the same patterns, from both systems."""
    dense, folded = (kind(stages, plane, corners).enumerate(cells=True, **how) for kind in (Engine, folded_engine))
    assert folded.regions == dense.regions
    patterns = np.asarray(folded.cells.patterns)
    assert np.array_equal(patterns, dense.cells.patterns)
    assert np.array_equal(changing_lines(folded.cells.patterns, stages.lines), changing_lines(patterns, stages.lines))
    for name in MESH:
        assert np.array_equal(getattr(folded.cells, name), getattr(dense.cells, name)), name
    assert np.allclose(folded.cells.vertices, dense.cells.vertices, rtol=1e-9, atol=1e-9 * np.abs(corners).max())
    return dense.n_regions


@pytest.mark.part(8)
@pytest.mark.parametrize("seed", range(80))
def test_a_fold_gives_the_cells_of_the_dense_system(seed):
    case, _ = random_case(5000 + seed)
    same_cells(case.stages, case.plane, case.corners, **({}, {"threads": 2}, {"fold_ahead": 0})[seed % 3])


@pytest.mark.part(8)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_a_fold_gives_the_cells_of_maxima(kind):
    for seed in range(3):
        case = maxima_case(kind, SLICE_KINDS[seed], seed)
        same_cells(case.stages, case.plane, case.corners)


class Residual(nn.Module):
    """A stem, a residual block with batch norms, an overlapping max-pool, a strided block, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.down, self.up = nn.Conv2d(4, 3, 3, stride=2), nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        h = self.norm(self.stem(x)).relu()
        h = h + self.second(self.first(h).relu())
        h = nn.functional.max_pool2d(h, 3, 2, 1)
        h = torch.cat(
            [self.up(self.down(h.relu()).relu()), h.flip(1)[:, :1, :2, :2].repeat(1, 2, 2, 2)[..., :4, :4]], 1
        )
        return self.head(h.mean((2, 3)).unflatten(1, (2, 2)).sum(2))


def residual(seed):
    torch.manual_seed(seed)
    net = Residual().double().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3), module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(-1, 1), module.bias.normal_(0, 0.3)
    return net


def stages_on_a_slice(seed, size=8):
    net = residual(seed)
    where = plr.Slice.through(*torch.randn(3, 2, size, size, dtype=torch.float64))
    return net, stages_of(plr.capture(net, torch.zeros(2, 2, size, size, dtype=torch.float64))), where


def test_convolutions_take_the_fold_and_no_matrix():
    _, stages, where = stages_on_a_slice(0)
    kinds = [type(block) for stage in stages.stages for block in stage.blocks.values()]
    assert kinds.count(Convolution) == 5 and not stages.are_one_system
    assert isinstance(engine_of(stages, where.plane, where.polygon), FoldedEngine)


@pytest.mark.part(3)
@pytest.mark.parametrize("seed", range(3))
def test_a_residual_network_has_the_cells_of_its_matrices(seed):
    net, stages, where = stages_on_a_slice(seed)
    assert same_cells(stages, where.plane, where.polygon) > 100
    part = plr.partition(net, where)
    part.verify(net, samples=200)
    assert part.certificate.exact < 0.01 * part.certificate.filter


def test_decisions_in_integers_are_those_of_float64():
    _, stages, where = stages_on_a_slice(1, 6)
    engine = engine_of(stages, where.plane, where.polygon * 0.3)
    found, exact = (engine.enumerate(cells=False, force_exact=force) for force in (False, True))
    assert found.regions == exact.regions and found.n_regions > 20 and exact.exact > 1000


@pytest.mark.part(2)
@pytest.mark.parametrize("worth", [fold_pass._WORTH, -1.0])
def test_rows_of_convolutions_are_within_their_bounds(worth, monkeypatch):
    """Against fractions: by norms, and row by row."""
    monkeypatch.setattr(fold_pass, "_WORTH", worth)
    _, stages, where = stages_on_a_slice(2, 6)
    u, v, origin = (np.ascontiguousarray(column)[None] for column in where.plane.T)
    corners = np.stack([where.polygon * 2.0**-k for k in (3, 6)])
    both = Slices(u, v, np.repeat(origin, 2, axis=0), corners)
    assert check_bounds(stages, both.part(slice(0, 1)), 0) < 1
    assert check_bounds(stages, both, 0) < 1


def test_slices_folded_together_count_what_each_alone_does():
    net = residual(4)
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    slices = [plr.Slice.around(point, 1.0, seed=0) for point in x]
    counts = [part.n_regions for part in plr.partitions(net, slices, cells=False)]
    assert counts == [plr.partition(net, each).n_regions for each in slices]
    assert max(counts) > 20


def test_duplicated_channels_and_zero_biases_tie_exactly():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Flatten()
    )
    with torch.no_grad():
        net[0].weight[1], net[0].weight[2] = net[0].weight[0], -2 * net[0].weight[0]
    where = plr.Slice(torch.zeros(1, 5, 5), *torch.randn(2, 1, 5, 5), polygon=[(-1, -1), (1, -1), (1, 1), (-1, 1)])
    part = plr.partition(net.double(), where)
    part.verify(net, samples=100)
    stages = stages_of(plr.capture(net, torch.zeros(2, 1, 5, 5, dtype=torch.float64)))
    assert same_cells(stages, where.plane, where.polygon) == part.n_regions


def test_a_slice_that_takes_more_memory_than_there_may_be_is_refused_with_one_that_fits(monkeypatch):
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    net, _, where = stages_on_a_slice(0)
    said = r"(\d+) or more neurons are on both sides, .* memory budget of 20000 bytes. Take a slice of (0\.\d+) of its"
    with pytest.raises(plr.BudgetExceededError, match=said):
        plr.partition(net, where, memory_budget=20000)
    assert plr.partition(net, where, memory_budget=1 << 26).n_regions > 100


def test_a_convolution_without_kinks_is_verified():
    """The row of a table of no bytes was read-only."""
    part = plr.partition(nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 1, 1)), plr.Slice.box(-1, 1))
    assert part.verify(samples=10)["regions"] == 1


class Branches(nn.Module):
    """Layers side by side: the rows of one take nothing from the lines that another left open before."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1)
        self.third, self.last = nn.Conv2d(6, 3, 3), nn.Conv2d(1, 2, 3)

    def forward(self, x):
        both = torch.cat([self.first(x).relu(), self.second(x).relu()], 1)
        return torch.cat([self.third(both).relu().flatten(1), self.last(x).relu().flatten(1)], 1)


def test_branches():
    """Those of GoogLeNet, say: what is followed back through their lines ended in an error."""
    torch.manual_seed(0)
    net, x = Branches().double(), torch.randn(1, 5, 5, dtype=torch.float64)
    where = plr.Slice.around(x, 0.5)
    assert same_cells(stages_of(plr.capture(net, x.expand(2, -1, -1, -1))), where.plane, where.polygon) > 20


@pytest.mark.parametrize("pool", [False, True])
def test_what_is_zero_all_over_a_slice_takes_no_columns(pool):
    """Batch norms of scale 0, and windows of ReLUs that are off: they have been columns, one for each neuron."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)] if pool else [nn.BatchNorm2d(4)]
    net = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()).double().eval()
    with torch.no_grad():
        net[0].bias.fill_(-1), net[4].bias.fill_(0)
        if not pool:
            net[2].weight.zero_()
    where = plr.Slice.around(0.1 * torch.randn(1, 8, 8, dtype=torch.float64), 0.5)
    stages = stages_of(plr.capture(net, torch.zeros(2, 1, 8, 8, dtype=torch.float64)))
    engine = folded_engine(stages, where.plane, where.polygon)
    assert int(engine._systems.begin[-1]) < 200 < stages.lines
    found = engine.enumerate(cells=False)
    assert found.exact == 0
    same_cells(stages, where.plane, where.polygon)


@pytest.mark.parametrize("asked", [1, 3])
def test_a_fold_has_the_threads_that_are_asked_for(asked, monkeypatch, threads):
    """Its operators are torch's, which afterwards has as many as before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    x, seen = torch.randn(1, 1, 8, 8), []
    fold = SliceFolder.fold

    def told(*given):
        seen.append(torch.get_num_threads())
        return fold(*given)

    monkeypatch.setattr(SliceFolder, "fold", told)
    threads(2)
    regions = plr.partition(model, plr.Slice.around(x[0], 0.5), threads=asked).n_regions
    assert seen == [asked] and torch.get_num_threads() == 2 and regions > 3
    plr.count_regions(model, x, 0.5, "slice")
    assert seen == [asked, 2] and torch.get_num_threads() == 2
    plr.count_regions(model, x.expand(4, -1, -1, -1), 0.5, "slice")
    assert set(seen[2:]) == {1} and torch.get_num_threads() == 2  # points go to threads
