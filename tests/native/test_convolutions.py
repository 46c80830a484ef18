"""Convolutions by the extension against loops over places, for any sizes that it accepts."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from cases.elsewhere import THERE, elsewhere
from cases.parts import SCALE
from pylinregion._util.tensors import as_array
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.native.convolutions import add_images, convolved


def by_places(block):
    """The matrix of the convolution that is transposed, or not: what each target takes from each source."""
    source, target = np.zeros(block.source), np.zeros(block.target)
    matrix = np.zeros((*target.shape, *source.shape))
    outputs, inputs, *kernel = block.weight.shape
    per_group = outputs // block.groups
    for o, *to in np.ndindex(*target.shape):
        for k in np.ndindex(*kernel):
            at = [
                t * s + d * n - p
                for t, s, d, n, p in zip(to, block.stride, block.dilation, k, block.padding, strict=True)
            ]
            if all(0 <= a < size for a, size in zip(at, block.source[1:], strict=True)):
                for i in range(inputs):
                    matrix[(o, *to, o // per_group * inputs + i, *at)] += block.weight[(o, i, *k)]
    matrix = matrix.reshape(target.size, source.size)
    return matrix.T if block.transposed else matrix


def odd(seed):
    """Any sizes: windows that lie beside the source, that leave most of it, and more of them than there is source."""
    rng = np.random.default_rng(seed)
    dims, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    inputs, outputs = (groups * int(rng.integers(1, 3)) for _ in range(2))
    most = (0, 9, 5, 3)[dims]
    space, after, kernel = (tuple(rng.integers(1, most + 1, dims).tolist()) for _ in range(3))
    stride, dilation = (tuple(rng.integers(1, 4, dims).tolist()) for _ in range(2))
    padding = tuple(rng.integers(-4, 8, dims).tolist())
    weight = rng.integers(-3, 4, (outputs, inputs // groups, *kernel)).astype(np.float64)
    shapes = (inputs, *space), (outputs, *after)
    return Convolution(weight, *shapes, stride, padding, dilation, groups, bool(rng.integers(2))), rng


@pytest.mark.parametrize("seed", range(40 * SCALE))
def test_any_sizes(seed):
    block, rng = odd(seed)
    matrix = by_places(block)
    assert np.array_equal(block.dense(), matrix)
    for count in (1, 3, 40):
        for size, forwards, expected in ((block.width, True, matrix.T), (block.rows, False, matrix)):
            x = rng.integers(-9, 10, (count, size)).astype(np.float64)
            x[rng.random(x.shape) < rng.choice([0.0, 0.5, 0.97])] = 0
            assert np.array_equal(convolved(block.for_core(), torch.from_numpy(x), forwards).numpy(), x @ expected)


@pytest.mark.parametrize("seed", range(20 * SCALE))
def test_operators_of_torch_do_the_same_on_a_device(seed):
    """Of any sizes, both ways, added to what is there; and images of units."""
    block, rng = odd(seed)
    matrix = block.dense()
    units, factors = rng.integers(0, block.width, 9), rng.integers(-3, 4, 9).astype(np.float64)
    for forwards, expected in ((True, matrix.T), (False, matrix)):
        x, before = (rng.integers(-9, 10, (5, size)).astype(np.float64) for size in expected.shape)
        with elsewhere():
            to, there = torch.from_numpy(before).to(THERE), torch.from_numpy(x).to(THERE)
            (block.add_times if forwards else block.add_back)(to, there)
            found = (block.times if forwards else block.back)(there.reshape(1, 5, -1))
            which = torch.from_numpy(units).to(THERE)
            images = block.images(which)
            block.add_images(images, which, torch.from_numpy(factors).to(THERE))
        assert np.array_equal(as_array(to), before + x @ expected)
        assert np.array_equal(as_array(found), (x @ expected)[None])
        assert np.array_equal(as_array(images), matrix.T[units] * (1 + factors[:, None]))
    assert block.roundings(THERE) == block.terms >= max(1, *np.count_nonzero(matrix, axis=0))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("seed", range(20 * SCALE))
def test_images_of_units_are_added(seed, count, threads):
    threads(count)
    block, rng = odd(seed)
    units = rng.integers(0, block.width, 9)
    factors, before = rng.integers(-3, 4, 9).astype(np.float64), rng.integers(-9, 10, (9, block.rows)).astype(float)
    out = torch.from_numpy(before.copy())
    add_images(block.for_core(), units, factors, out)
    assert np.array_equal(out.numpy(), before + factors[:, None] * by_places(block).T[units])


def test_images_of_no_units_are_refused():
    told = Convolution(np.ones((2, 3, 2)), (3, 5), (2, 4), (1,), (0,), (1,)).for_core()
    for unit in (-1, 15):
        with pytest.raises(ValueError, match="units must be those that the map reads"):
            add_images(told, np.array([0, unit]), np.ones(2), torch.zeros(2, 8).double())
    with pytest.raises(ValueError, match="factors must be"):
        add_images(told, np.array([0, 1]), np.ones(3), torch.zeros(2, 8).double())
    with pytest.raises(ValueError, match="out must be"):
        add_images(told, np.array([0, 1]), np.ones(2), torch.zeros(2, 15).double())


@pytest.mark.parametrize("transposed", [False, True])
def test_no_two_dimensions_are_alike(transposed):
    rng = np.random.default_rng(0)
    weight = rng.integers(-3, 4, (6, 2, 2, 4, 3)).astype(np.float64)
    block = Convolution(weight, (4, 4, 5, 6), (6, 4, 3, 3), (1, 2, 3), (1, 2, 3), (1, 2, 1), 2, transposed)
    x = rng.integers(-9, 10, (9, block.width)).astype(np.float64)
    out = convolved(block.for_core(), torch.from_numpy(x), True).numpy()
    assert np.array_equal(out, x @ by_places(block).T) and np.count_nonzero(out) > out.size / 2


def test_odd_cases_are_among_them():
    found = [odd(seed)[0] for seed in range(40)]
    assert any(min(block.padding) < 0 for block in found)
    assert any(max(block.behind) > max(block.padding) + 2 for block in found)
    assert any(not by_places(block).any() for block in found) and {block.transposed for block in found} == {True, False}


def test_none_and_many_vectors(threads):
    block, _ = odd(0)
    for count, workers in itertools.product((0, 1000), (1, 2)):
        threads(workers)
        x = torch.ones(count, block.width, dtype=torch.float64)
        out = convolved(block.for_core(), x, True).numpy()
        assert out.shape == (count, block.rows) and (out == by_places(block).sum(axis=1)).all()


@pytest.mark.parametrize("forwards", [True, False])
def test_so_many_products_that_threads_share_them(forwards, threads):
    """Boxes of all sizes; integers, so that sums are exact."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-3, 4, (8, 4, 3, 3)).astype(np.float64)
    block = Convolution(weight, (4, 16, 16), (8, 16, 16), (1, 1), (1, 1), (1, 1))
    size, matrix = (block.width, by_places(block).T) if forwards else (block.rows, by_places(block))
    x = rng.integers(-9, 10, (600, size // 256, 16, 16)).astype(np.float64)
    for vector, (top, left, high, wide) in zip(x, rng.integers(0, 16, (600, 4)), strict=True):
        vector[:, :top] = vector[:, top + high :] = vector[:, :, :left] = vector[:, :, left + wide :] = 0
    x = x.reshape(600, size)
    for count in (1, 3):
        threads(count)
        assert np.array_equal(convolved(block.for_core(), torch.from_numpy(x), forwards).numpy(), x @ matrix)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (2, [3, 0], "sizes of at least 1"),
        (3, [2, -1], "sizes of at least 1"),
        (4, [0], "sizes of at least 1"),
        (6, [0], "sizes of at least 1"),
        (4, [], "1 to 3 dimensions"),
        (4, [1, 1], "1 to 3 dimensions"),
        (5, [0, 0], "1 to 3 dimensions"),
        (7, 0, "weights for its channels"),
        (7, 2, "weights for its channels"),
        (2, [4, 5], "weights for its channels"),
        (3, [4, 5], "weights for its channels"),
    ],
)
def test_what_does_not_fit_is_refused(place, value, message):
    told = list(Convolution(np.ones((2, 3, 2)), (3, 5), (2, 4), (1,), (0,), (1,)).for_core())
    told[place] = value
    with pytest.raises(ValueError, match=message):
        convolved(tuple(told), torch.zeros(1, 15).double(), True)


def test_vectors_that_do_not_fit_are_refused():
    told = Convolution(np.ones((2, 3, 2)), (3, 5), (2, 4), (1,), (0,), (1,)).for_core()
    for size, forwards in ((8, True), (15, False)):
        with pytest.raises(ValueError, match="x must be"):
            convolved(told, torch.zeros(1, size).double(), forwards)


@pytest.mark.parametrize("channels", [1, 3, 16, 20, 33, 70, 128])
@pytest.mark.parametrize("forwards", [True, False])
def test_a_product_is_rounded_as_often_as_is_said(channels, forwards):
    """A large product first, then many that each are lost where they are added to it one by one."""
    kernel = 1, channels, 3, 3
    weight = np.ones(kernel if forwards else (channels, 1, 3, 3))
    shapes = ((channels, 3, 3), (1, 1, 1)) if forwards else ((1, 5, 5), (channels, 3, 3))
    found = Convolution(weight, *shapes, (1, 1), (0, 0), (1, 1))
    small = 0.9 * 2.0**-53
    x = torch.full((1, channels * 9), small, dtype=torch.float64)
    first, middle = (0, 0) if forwards else (8, 12)  # the place that comes first is the last, backwards
    x[0, first] = 1
    value = (found.times(x) if forwards else found.back(x))[0, middle].item()
    terms = 9 * channels
    off = abs(Fraction(value) - 1 - (terms - 1) * Fraction(small))
    assert off <= found.roundings() * Fraction(2) ** -53 * (1 + terms * Fraction(small))
    assert found.roundings() <= min(9, 32 // channels or 1) * min(channels, 32) + 9 * (channels + 31) // 32 + 9


def test_ones_that_are_summed_in_runs_are_rounded_less_often():
    weight = np.ones((1, 128, 3, 3))
    found = Convolution(weight, (128, 3, 3), (1, 1, 1), (1, 1), (0, 0), (1, 1))
    assert (found.roundings(), found.terms) == (32 + 36, 9 * 128)
