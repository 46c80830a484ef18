"""Folds by torch's operators on another device: what they read is fetched, and what they find is what the CPU finds."""

import contextlib
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.elsewhere import THERE, elsewhere
from cases.engine import STRUCTURES, Case, box, generic, random_case, random_stages
from cases.maxima import maxima_case, wide_maxima_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS
from cases.parts import SCALE
from cases.row_bounds import check_bounds
from cases.traces import SEGMENT_KINDS, random_segments
from pylinregion.exact import device_check, fold_pass, slice_fold
from pylinregion.exact.device_check import problem_of
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.segment_fold import FoldedTracer
from pylinregion.exact.slice_engine import folded_engine
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.walk_device import WalkDevice
from pylinregion.lowering.lower import stages_of

EXACT = ("offsets", "change_offsets", "changes", "starts")


class FoldsThere(WalkDevice):
    """Folds are elsewhere, and the CPU walks."""

    def __init__(self):
        super().__init__("elsewhere", contextlib.nullcontext, THERE)

    def walk(self, of_core, *arguments, **asked):
        return of_core(*arguments, **asked)


def around(case, count, seed):
    """The case's slice, and smaller ones around points of it."""
    rng = np.random.default_rng(seed)
    u, v, origin = case.plane.T
    s, t = rng.dirichlet(np.ones(len(case.corners)), count).T[:2]
    origins = origin + np.r_[0, s[1:]][:, None] * u + np.r_[0, t[1:]][:, None] * v
    sizes = 2.0 ** -np.r_[0, rng.integers(0, 9, count - 1)]
    directions = (u[None], v[None]) if seed % 2 else rng.standard_normal((2, count, len(origin)))
    return Slices(*map(np.ascontiguousarray, directions), origins, sizes[:, None, None] * case.corners)


def same_counts(stages, slices):
    """Regions and changes, of all together and of one alone."""
    for some in (slices, slices.part(slice(0, 1))):
        expected = ManySlices(stages).count(some)
        with elsewhere() as there:
            found = ManySlices(stages, device=FoldsThere()).count(some, threads=2)
        assert there.ran > 10
        assert np.array_equal(found.regions, expected.regions) and np.array_equal(found.changes, expected.changes)


@pytest.mark.turns(2)
@pytest.mark.part(8)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "wide"])
def test_counts_are_those_of_folds_of_the_cpu(structure, kind):
    seed = STRUCTURES.index(structure) + NETWORK_KINDS.index(kind)
    case, _ = random_case(seed)
    activation = ("relu", "leaky_relu 0.01", "hardsigmoid", "steps", "abs", "relu6")[seed % 6]
    stages = random_stages(structure, kind, (case.plane.shape[0], 7, 6, 5, 1), activation, seed)
    same_counts(stages, around(Case(stages, case.plane, case.corners), 4, seed))


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_counts_of_maxima(kind):
    seed = NETWORK_KINDS.index(kind)
    for case in (maxima_case(kind, SLICE_KINDS[seed % 5], seed), wide_maxima_case(kind, seed)):
        same_counts(case.stages, around(case, 3, seed))


@pytest.mark.part(4)
@pytest.mark.parametrize("digits", [False, True])
@pytest.mark.parametrize("worth", [fold_pass._WORTH, -1.0])  # by norms, or row by row, of all rows
def test_rows_are_within_their_bounds(worth, digits, monkeypatch):
    for name in ("_WORTH", "_LOOSE", "_MATTERS")[: 3 if worth < 0 else 1]:
        monkeypatch.setattr(fold_pass, name, worth)
    for seed in range(4 * SCALE):
        case = maxima_case("generic", SLICE_KINDS[seed], seed) if seed % 4 == 3 else random_case(9000 + seed)[0]
        together = around(case, 3, seed)
        for slices in (together, together.part(slice(0, 1))):
            with elsewhere():
                found = SliceFolder(case.stages, device=THERE).fold(slices, in_digits=digits)
            assert check_bounds(case.stages, slices, seed, found) <= 1


class Convolutional(nn.Module):
    """Of every kind: strided, dilated, grouped, transposed, with pools, a sum and a concatenation around them."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.down, self.up = nn.Conv2d(4, 3, 3, stride=2), nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1)
        self.point, self.head = nn.Conv2d(4, 3, 1), nn.Linear(12, 5)

    def forward(self, x):
        h = self.stem(x).relu()
        h = h + self.grouped(h).relu()
        h = torch.cat([nn.functional.avg_pool2d(h, 2), self.up(self.down(h).relu())[..., 1:4, 1:4]], 1)
        h = nn.functional.max_pool2d(h.relu(), 2, 1)
        return self.head(self.point(h[:, 2:6]).relu().flatten(1)).relu()


def convolutional(seed, count, size=0.2):
    torch.manual_seed(seed)
    stages = stages_of(plr.capture(Convolutional().double(), torch.zeros(2, 2, 6, 6, dtype=torch.float64)))
    rng = np.random.default_rng(seed)
    u, v, origins = rng.standard_normal((3, count, 72))
    return stages, Slices(u, v, origins, np.repeat(size * box(-1, 1)[None], count, axis=0))


@pytest.mark.parametrize("seed", range(2 * SCALE))
def test_convolutions(seed):
    stages, slices = convolutional(seed, 4)
    same_counts(stages, slices)
    for digits in (False, True):
        with elsewhere():
            found = SliceFolder(stages, device=THERE).fold(slices, in_digits=digits)
        here = SliceFolder(stages).fold(slices, in_digits=digits)
        assert np.array_equal(found.line, here.line) and np.array_equal(found.on, here.on)
        assert (found.error >= 0.5 * here.error).all()  # sums in any order: it is no less careful


def test_rows_of_convolutions_are_within_their_bounds(monkeypatch):
    monkeypatch.setattr(fold_pass, "_WORTH", -1.0)
    stages, slices = convolutional(5, 2, 0.02)
    for some in (slices, slices.part(slice(0, 1))):
        with elsewhere():
            found = SliceFolder(stages, device=THERE).fold(some)
        assert check_bounds(stages, some, 0, found) < 1


def test_cells_of_one_slice():
    stages, slices = convolutional(3, 1, 1.0)
    plane = np.stack([slices.u[0], slices.v[0], slices.origins[0]], axis=1)
    here = folded_engine(stages, plane, slices.corners[0]).enumerate(cells=True).cells
    with elsewhere():
        cells = folded_engine(stages, plane, slices.corners[0], device=FoldsThere()).enumerate(cells=True).cells
    for name in ("patterns", "offsets", "indices", "edges", "edge_cells", "edge_rows"):
        assert np.array_equal(getattr(cells, name), getattr(here, name)), name
    assert np.abs(cells.vertices - here.vertices).max() < 1e-9 and len(np.asarray(here.patterns)) > 50


@pytest.mark.cuda
@pytest.mark.parametrize("digits", [None, True])
def test_a_gpu_folds_as_the_cpu_does(digits):
    class OnGpu(FoldsThere):
        def __init__(self):
            super().__init__()
            self.folds = torch.device("cuda", 0)

    random, rng = random_case(1)[0], np.random.default_rng(0)
    wide = generic((50, 100, 100, 1))
    small = Slices(*rng.standard_normal((2, 1, 50)), rng.standard_normal((500, 50)), 0.1 * np.stack([box(-1, 1)] * 500))
    networks = [(random.stages, around(random, 4, 1)), convolutional(1, 9), (wide, small)]
    for kind in ("generic", "duplicated"):
        case = maxima_case(kind, SLICE_KINDS[0], 0)
        networks.append((case.stages, around(case, 3, 0)))
    for stages, slices in networks:
        expected, there = ManySlices(stages).count(slices), ManySlices(stages, device=OnGpu())
        if digits:
            there._walks.folder.in_digits = True
        found = there.count(slices)
        assert np.array_equal(found.regions, expected.regions) and np.array_equal(found.changes, expected.changes)


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_segments(kind):
    seed = NETWORK_KINDS.index(kind)
    stages = random_stages(STRUCTURES[1 + seed % 4], kind, (3, 7, 6, 5, 2), "leaky_relu 0.01", seed)
    ends = random_segments(SEGMENT_KINDS[seed % len(SEGMENT_KINDS)], 3, 3, seed)
    for maps in (False, True):
        here = FoldedTracer(stages).trace(*ends, starts=True, maps=maps)
        with elsewhere():
            found = FoldedTracer(stages, device=FoldsThere()).trace(*ends, starts=True, maps=maps)
        assert all(np.array_equal(getattr(found, name), getattr(here, name)) for name in EXACT)
        if maps:
            assert np.allclose(found.maps, here.maps, rtol=1e-7, atol=1e-9 * np.abs(here.maps).max())


def test_slices_of_very_different_sizes_are_summed_alike(monkeypatch):
    """One has nearly all of the columns; some at a time, and all at once."""
    stages = generic((3, 30, 30, 30, 1), seed=1)
    rng = np.random.default_rng(0)
    sizes = np.r_[1.0, np.full(9, 1e-3)][rng.permutation(10)]
    slices = Slices(*rng.standard_normal((2, 1, 3)), rng.standard_normal((10, 3)), sizes[:, None, None] * box(-1, 1))
    for at_once in (1, 5000, 2**26):
        for name in ("open_lines._ON_A_DEVICE", "fold_pass._ON_A_DEVICE", "fold_pass._AT_ONCE"):
            monkeypatch.setattr(f"pylinregion.exact.{name}", at_once)
        same_counts(stages, slices)


@pytest.mark.parametrize("fits", [0, 1, 3])
def test_memory_that_is_not_there(fits, monkeypatch):
    """Fewer slices at a time, at last one by one on the CPU, which is told; nothing is lost."""
    stages, slices = convolutional(1, 7)
    expected = ManySlices(stages).count(slices)
    folded = SliceFolder._folded_in_place

    def in_little_memory(self, some, *arguments):
        if self.network.device == THERE and len(some) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return folded(self, some, *arguments)

    monkeypatch.setattr(SliceFolder, "_folded_in_place", in_little_memory)
    with elsewhere(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = ManySlices(stages, device=FoldsThere()).count(slices)
    assert np.array_equal(found.regions, expected.regions)
    assert len(told) == (7 if fits == 0 else 0)
    assert all(
        "meta has too little free memory for the fold of a slice: the CPU folds it" in str(each) for each in told
    )


def test_a_device_that_folds_something_else_is_not_trusted(monkeypatch):
    """Whose products round by more, or whose fold is off by more than it says."""
    with elsewhere():
        assert problem_of(FoldsThere()) is None
        folded = SliceFolder.fold

        def wrong(self, slices, *arguments, **asked):
            found = folded(self, slices, *arguments, **asked)
            if self.network.device == THERE:
                found.affine[2] += 0.01
            return found

        monkeypatch.setattr(SliceFolder, "fold", wrong)
        assert problem_of(FoldsThere()) == "does not fold as the CPU does: regions differ; please report this"
        product = torch.matmul
        monkeypatch.setattr(torch, "matmul", lambda a, b: product(a.float(), b.float()).double())
        assert problem_of(FoldsThere()) == "rounds products of float64 matrices by more than float64 does"


def test_products_that_lose_small_numbers_are_found(monkeypatch):
    """As if numbers were integers of 56 bits, in units of the largest of their row, or column."""

    def emulated(a, b):
        def cut(x, dim):
            unit = 2.0 ** (torch.log2(x.abs().amax(dim=dim, keepdim=True)).ceil() - 56)
            return torch.round(x / unit) * unit

        return cut(a, 1) @ cut(b, 0)

    assert device_check._multiplies_in_float64(torch.device("cpu"))
    monkeypatch.setattr(torch, "matmul", emulated)
    assert not device_check._multiplies_in_float64(torch.device("cpu"))


def test_all_points_are_counted_in_one_go_on_a_device(monkeypatch, threads):
    """Not a few on each thread of the host."""
    threads(4)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(9, 3)
    calls = []
    counted = ManySlices.count

    def count(self, slices, **how):
        calls.append((len(slices), how["threads"], threading.current_thread() is threading.main_thread()))
        return counted(self, slices, **how)

    monkeypatch.setattr(ManySlices, "count", count)
    expected = plr.count_regions(model, x, 0.5, method="slice", seed=0)
    calls.clear()

    class Here(FoldsThere):
        def __init__(self):
            super().__init__()
            self.folds = torch.device("cpu")

    monkeypatch.setattr("pylinregion.counting.exact_count.walks_on", lambda *_: Here())
    found = plr.count_regions(model, x, 0.5, method="slice", seed=0)
    assert calls == [(9, 4, True)] and torch.equal(found.regions, expected.regions)


def test_a_folder_of_the_cpu_takes_the_core_for_chains():
    stages = generic((3, 5, 1))
    assert SliceFolder(stages)._dense is not None and SliceFolder(stages, device=THERE)._dense is None
    assert slice_fold._MOST_ON_A_DEVICE > slice_fold._MOST_NUMBERS
