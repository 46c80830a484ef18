"""Folds in digits: vectors and maps of them in fractions, bounds of what is cut off, and who is folded so."""

from fractions import Fraction as F
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import random_case
from cases.maxima import maxima_case
from cases.networks import SLICE_KINDS
from cases.row_bounds import check_bounds
from cases.tilings import counted_in_tiles, force, slices_of
from pylinregion.exact import fixed_point, folded_network, maps, proven_maps, residues
from pylinregion.exact.fixed_point import PRECISION, Digits, digits_for
from pylinregion.exact.fold_pass import FoldPass, LooseBoundsError
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.maps_in_digits import maps_in_digits
from pylinregion.exact.slice_engine import Engine, folded_engine
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, Terms


def values(digits, x):
    """``[vectors, n]`` in fractions."""
    scales = [F(2) ** (digits.bits * (x.top - place)) for place in range(len(x.digits))]
    return [
        [sum((F(int(d)) * scale for d, scale in zip(each, scales, strict=True)), F(0)) for each in vector]
        for vector in x.digits.movedim(0, 2).tolist()
    ]


def spread(rng, *shape):
    return rng.normal(size=shape) * 2.0 ** rng.integers(-8, 8, size=shape)


@pytest.mark.parametrize("numbers", [1 << 20, 40])  # of a matrix that are taken apart at a time
@pytest.mark.parametrize("kept", [2, 3, 5, 9])
def test_maps_of_digits_are_those_of_fractions_but_for_what_is_cut_off(kept, numbers, monkeypatch):
    monkeypatch.setattr(fixed_point, "_OF_A_MAP", numbers)
    rng = np.random.default_rng(kept)
    dense, terms = (
        Dense(spread(rng, 8, 18)),
        Terms(rng.permuted(np.tile(np.arange(6), (8, 1)), axis=1)[:, :3], spread(rng, 8, 3), 6),
    )
    kernel = Convolution(spread(rng, 2, 2, 2, 2), (2, 3, 3), (2, 2, 2), (1, 1), (0, 0), (1, 1))
    bias = spread(rng, 8) * 1e-3
    bits = Digits.for_maps([[dense, terms, kernel]], 100).bits
    digits = Digits(bits, kept)
    given = [spread(rng, count, width) for count, width in ((4, 18), (3, 6), (5, 18))]
    parts = [digits.of(torch.from_numpy(each)) for each in given]
    for part, each in zip(parts, given, strict=True):
        off = [
            abs(a - F(b))
            for row, own in zip(values(digits, part), each.tolist(), strict=True)
            for a, b in zip(row, own, strict=True)
        ]
        assert max(off) <= F(part.off) and (kept < 5 or part.off == 0)
    found = digits.rows(
        list(zip((dense, terms, kernel), parts, strict=True)), 6, torch.from_numpy(bias), torch.tensor([2, 5])
    )
    inputs = [values(digits, part) for part in parts]
    got, most = values(digits, found), F(0)
    for k in range(6):
        for r in range(8):
            true = F(float(bias[r])) if k in (2, 5) else F(0)
            for block, x in zip((dense, terms, kernel), inputs, strict=True):
                if k < len(x):
                    true += sum(F(float(w)) * each for w, each in zip(block.dense()[r], x[k], strict=True))
            most = max(most, abs(true - got[k][r]))
    assert most <= F(found.off)
    assert (most > 0) == (kept < 9)
    floats = digits.floats(found).tolist()
    for row, own in zip(got, floats, strict=True):
        assert all(abs(a - F(b)) <= 4 * F(2) ** -53 * abs(a) for a, b in zip(row, own, strict=True))


@pytest.mark.parametrize("numbers", [1 << 20, 40])
def test_what_goes_back_through_a_matrix(numbers, monkeypatch):
    monkeypatch.setattr(fixed_point, "_OF_A_MAP", numbers)
    rng = np.random.default_rng(0)
    matrix, g = spread(rng, 9, 18), spread(rng, 3, 9)
    digits = Digits(Digits.for_maps([[Dense(matrix)]], 100).bits, 9)
    found = digits.back([(Dense(matrix), digits.of(torch.from_numpy(g)))], 3)
    exact = [
        [sum((F(a) * F(b) for a, b in zip(row, column, strict=True)), F(0)) for column in matrix.T.tolist()]
        for row in g.tolist()
    ]
    assert found.off == 0 and values(digits, found) == exact


@pytest.mark.parametrize("scale", [2.0**-60, 1.0, 2.0**60])
def test_units_and_numbers_that_are_added(scale):
    rng = np.random.default_rng(3)
    digits = Digits(20, 6)
    start = spread(rng, 3, 4) * scale
    x = digits.of(torch.from_numpy(start))
    x.multiply(torch.tensor([[1.0, 0, -1, 1]], dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    off = x.off
    x = digits.plus(x, torch.full((1, 4), 6.0, dtype=torch.float64), torch.tensor([1]))
    off += x.off
    x = digits.with_units(x, 6, torch.tensor([3, 5]), torch.tensor([1, 2]), torch.tensor([1.0, -2.0]))
    expected = [[F(float(v)) * s for v, s in zip(row, (1, 0, -1, 1), strict=True)] for row in start]
    expected[1] = [each + 6 for each in expected[1]]
    expected += [[F(int(n)) for n in row] for row in ([0, 1, 0, 0], [0, 0, 0, 0], [0, 0, -2, 0])]
    differences = [
        abs(a - b) for row, own in zip(values(digits, x), expected, strict=True) for a, b in zip(row, own, strict=True)
    ]
    assert max(differences) <= F(off + x.off) and (scale != 1 or not any(differences))


@pytest.fixture
def in_digits(monkeypatch):
    """All slices are folded in digits."""
    passed = SliceFolder._passed

    def always(self, digits, may_end, *arguments):
        assert self.network.digits is not None
        return passed(self, self.network.digits, False, *arguments)

    monkeypatch.setattr(SliceFolder, "_passed", always)


def cases():
    for seed in range(16):
        yield random_case(7000 + seed)[0], seed
    for seed, kind in enumerate(("generic", "grid", "duplicated")):
        yield maxima_case(kind, SLICE_KINDS[seed], seed), seed


def is_plain(stages):
    return SliceFolder(stages).network.digits is not None


@pytest.mark.usefixtures("in_digits")
@pytest.mark.parametrize("precision", [48, 8, 0])
def test_bounds_hold_however_few_digits_are_kept(precision, monkeypatch):
    monkeypatch.setattr(folded_network, "digits_for", partial(digits_for, precision=precision))
    tried = 0
    for case, seed in cases():
        if is_plain(case.stages):
            slices = Slices(*case.plane.T[:2, None].copy(), case.plane.T[2:].copy(), case.corners[None])
            assert check_bounds(case.stages, slices, seed) < 1
            tried += 1
    assert tried > 3


@pytest.mark.usefixtures("in_digits")
def test_cells_are_those_of_the_dense_system():
    tried = 0
    for case, _ in cases():
        if is_plain(case.stages):
            dense, folded = (
                kind(case.stages, case.plane, case.corners).enumerate(cells=True) for kind in (Engine, folded_engine)
            )
            assert folded.regions == dense.regions
            assert np.array_equal(np.asarray(folded.cells.patterns), dense.cells.patterns)
            tried += 1
    assert tried > 3


class Deep(nn.Module):
    """Many convolutions with batch norms: norms grow by more than two from one to the next, values do not."""

    def __init__(self, blocks, channels):
        super().__init__()
        layers = []
        for number in range(blocks):
            layers += [
                nn.Conv2d(3 if number == 0 else channels, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU6(),
            ]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(channels, 3)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


def settled(blocks, channels, side, seed):
    """A network whose batch norms have seen inputs, and a slice around another."""
    torch.manual_seed(seed)
    model = Deep(blocks, channels)
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(32, 3, side, side))
    return model.eval(), plr.Slice.around(torch.randn(3, side, side), 0.05)


@pytest.fixture
def folds(monkeypatch):
    """Of each pass of a fold that is begun, whether it is in digits."""
    found, passed = [], SliceFolder._passed

    def seen(self, digits, *arguments):
        found.append(digits is not None)
        return passed(self, digits, *arguments)

    monkeypatch.setattr(SliceFolder, "_passed", seen)
    return found


def test_deep_networks_are_folded_in_digits_where_that_takes_less(monkeypatch, folds):
    model, where = settled(22, 5, 8, seed=1)
    found = plr.partition(model, where)
    assert folds == [False, True]
    found.verify(model)
    passed = SliceFolder._passed
    monkeypatch.setattr(
        SliceFolder, "_passed", lambda self, digits, _, *arguments: passed(self, digits, False, *arguments)
    )
    other = plr.partition(model, where)
    assert folds == [False, True, False]
    assert found.n_regions == other.n_regions > 5
    assert found.certificate.exact == 0 or found.certificate.exact <= other.certificate.exact


def forgetful(seed, kept=1e-11):
    """A network that has nearly forgotten its input: values change by so much of themselves, about kinks of theirs."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(48, 2)),
    ).double()
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    h = x
    with torch.no_grad():
        model[0].weight *= kept
        model[0].bias += 1
        for layer in model:
            h = layer(h)
            if layer in (model[2], model[4]):  # of each channel one unit is 0 there
                layer.bias -= h[0, :, 1, 1]
                h -= h[:, :, 1:2, 1:2].clone()
    return model.eval(), plr.Slice.around(x[0], 1.0)


@pytest.mark.parametrize("cells", [True, False])
def test_what_float64_leaves_to_integers_is_folded_in_digits(monkeypatch, folds, cells):
    model, where = forgetful(0)
    monkeypatch.setattr(FoldPass, "_look_for_digits", lambda *_: None)  # the pass in float64 goes to its end
    found = plr.partition(model, where, cells=cells)
    assert folds == [False, True]
    assert found.certificate.exact == 0
    monkeypatch.setattr(FoldPass, "would_pay_in_digits", lambda *_: False)
    other = plr.partition(model, where, cells=cells)
    assert folds == [False, True, False]
    assert found.n_regions == other.n_regions > 10 and other.certificate.exact > 0
    if cells:
        assert np.array_equal(np.asarray(found.cells.patterns), np.asarray(other.cells.patterns))
        assert np.allclose(found.areas(), other.areas(), rtol=1e-6)
        found.verify(model)


def test_what_float64_tells_is_not_folded_in_digits(folds):
    assert plr.partition(*forgetful(0, kept=0.1)).n_regions > 10
    assert folds == [False]


def test_tiles_begin_as_the_last_fold_before_them_ended(monkeypatch, folds):
    """In digits if that paid, whatever tile is first: no pass in float64 is begun for nothing."""
    model, where = settled(16, 4, 8, seed=1)

    def loose(self, *_):
        if self.digits is not None:
            pytest.fail("there are enough digits")
        raise LooseBoundsError

    monkeypatch.setattr(FoldPass, "_sharpen_all", loose)
    stages = plr.partition(model, where).stages
    assert folds == [False, True]
    force(monkeypatch, 2, 2)
    many, slice_ = ManySlices(stages), slices_of(where.plane, where.polygon)
    counts = []
    for begin, expected in ((False, [False, True] * 4), (True, [True] * 4)):
        many._walks.folder.in_digits = begin
        folds.clear()
        counts.append(counted_in_tiles(many, slice_).regions)
        assert folds == expected and many._walks.folder.in_digits == begin
    assert np.array_equal(*counts) and counts[0][0, -1] > 5
    folds.clear()
    many._walks.folder.in_digits = False
    for _ in range(2):
        many._walks.folder.fold(slice_)
    assert folds == [False, True, True]


def test_derivatives_of_deep_networks_need_no_integers(monkeypatch):
    """What goes back from the outputs in digits is what the integers give, rounded."""
    part = plr.partition(*settled(14, 4, 6, seed=2))
    patterns = np.asarray(part.patterns)[:3]
    plain, by_norms = maps.jacobians(part.stages, patterns)
    assert (by_norms > 1e-14 * plain.norm(dim=2)).all()
    everywhere = np.eye(108, 109)
    true = torch.from_numpy(residues.exact_maps(part.stages, everywhere, patterns)[:, :, :-1].copy())
    found, bounds = maps.jacobians_in_digits(part.stages, patterns, digits_for(part.stages.stages))
    off = (found - true).norm(dim=2)
    assert (off <= bounds).all() and (bounds <= 1e-14 * true.norm(dim=2)).all()
    monkeypatch.setattr(proven_maps, "exact_maps", None)
    monkeypatch.setattr(proven_maps, "_WORTH", 1e-14)  # as if they were so deep that norms prove nothing
    assert torch.equal(proven_maps.jacobians(part.stages, patterns), found)


class Clipped(nn.Module):
    """Two kinks, intercepts, and overlapping pools."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(12, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(nn.functional.relu6(4 * self.first(x)), 3, 2, 1)
        return self.head(nn.functional.max_pool2d(self.second(x).abs() - 1, 2, 1).relu().flatten(1)[:, :12])


@pytest.mark.parametrize("kept", [None, 3])
@pytest.mark.parametrize("deep", [False, True])
def test_maps_of_regions_are_those_of_integers(deep, kept, monkeypatch):
    torch.manual_seed(0)
    where = plr.Slice.around(torch.randn(1, 7, 7, dtype=torch.float64), 1.0)
    part = plr.partition(*(settled(14, 4, 6, seed=2) if deep else (Clipped().double(), where)))
    patterns = np.asarray(part.patterns)[:9]
    if kept:
        monkeypatch.setattr(Digits, "for_maps", lambda *_: Digits(12, kept))
    plane = np.round(16 * part.slice.plane) / 16  # of which nothing is cut off
    true = residues.exact_maps(part.stages, plane, patterns)
    found, bounds = maps_in_digits(part.stages, plane, patterns, digits_for(part.stages.stages))
    assert (np.abs(found - true) <= bounds + np.spacing(np.abs(true))).all()
    if kept:
        assert (np.abs(found - true) > 1e-13).any()
    else:
        assert (bounds <= 1e-14 * np.linalg.norm(true, axis=2, keepdims=True)).all()
        monkeypatch.setattr(proven_maps, "exact_maps", None)
        monkeypatch.setattr(
            proven_maps, "maps_and_errors", lambda _, some: (np.zeros((1, 1, 3)), np.full((1, 1, 3), np.inf))
        )
        monkeypatch.setattr(proven_maps.Maps, "bounded_chunks", lambda *_: iter(()))  # as if neither proved anything
        extents = np.abs(part.slice.polygon).max(axis=0)
        assert np.array_equal(proven_maps.affine_maps(part.stages, plane, extents, patterns), found)


@pytest.mark.parametrize("tries", [1, 2])
def test_slopes_that_vanish_beside_the_values_take_more_digits(tries, monkeypatch):
    """The maps of a MobileNet with random weights changed by 1e-14 of their values, and were left to integers."""
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6) for _ in range(7)]
    model = nn.Sequential(*(each for layer in layers for each in (layer, nn.ReLU())), nn.Linear(6, 2)).double()
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(1e-2)
            layer.bias.abs_()
    part = plr.partition(model, plr.Slice.around(torch.randn(6).double(), 1.0))
    patterns = np.asarray(part.patterns)
    true = residues.exact_maps(part.stages, part.slice.plane, patterns)
    slopes = torch.from_numpy(residues.exact_maps(part.stages, np.eye(6, 7), patterns)[:, :, :-1].copy())
    assert 0 < np.abs(true[:, :, :2]).max() < 1e-13 and np.abs(true[:, :, 2]).max() > 0.1
    nothing = np.zeros((1, 1, 3)), np.full((1, 1, 3), np.inf)
    monkeypatch.setattr(proven_maps, "maps_and_errors", lambda *_: nothing)
    monkeypatch.setattr(proven_maps.Maps, "bounded_chunks", lambda *_: iter(()))  # as if neither proved anything
    monkeypatch.setattr(
        proven_maps.maps, "jacobians", lambda *_: (torch.zeros_like(slopes), torch.full(slopes.shape[:2], torch.inf))
    )
    monkeypatch.setattr(proven_maps, "_PRECISIONS", (PRECISION // 2, 2 * PRECISION)[:tries])
    in_integers = []
    exact = proven_maps.exact_maps
    monkeypatch.setattr(proven_maps, "exact_maps", lambda *given: in_integers.append(1) or exact(*given))
    found = proven_maps.affine_maps(part.stages, part.slice.plane, np.ones(2), patterns)
    assert np.allclose(found, true, rtol=1e-12, atol=0)
    assert torch.allclose(proven_maps.jacobians(part.stages, patterns), slopes, rtol=1e-12, atol=0)
    assert len(in_integers) == (tries == 1)  # what goes back vanishes as a whole
