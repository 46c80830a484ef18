"""Every kind of linear map against the matrix that torch's operators make of unit vectors."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pylinregion._util import rounding
from pylinregion.lowering import linear_maps
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.convolution_norms import norm_of_convolution
from pylinregion.lowering.linear_maps import Dense, Terms, identity_map

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolution(channels, space, kernel, stride=1, padding=0, dilation=1, groups=1, transposed=False, rest=0):
    """A convolution of integers and its matrix; ``rest`` is the output padding of a transposed one."""
    dims = len(space)
    rng = np.random.default_rng([*channels, *space, *kernel])
    inputs, outputs = channels
    here, there = (outputs, inputs) if transposed else (inputs, outputs)  # of the convolution itself
    weight = rng.integers(-4, 5, (there, here // groups, *kernel)).astype(np.float64)
    weight[rng.random(weight.shape) < 0.1] = 0
    each = lambda sizes: (sizes,) * dims if isinstance(sizes, int) else tuple(sizes)  # noqa: E731
    units = torch.eye(inputs * math.prod(space)).double().reshape(-1, inputs, *space)
    kernels = torch.from_numpy(weight)
    if transposed:
        images = TRANSPOSE[dims](units, kernels, None, each(stride), each(padding), each(rest), groups, each(dilation))
    else:
        with warnings.catch_warnings():  # "same" of even kernels takes a copy
            warnings.simplefilter("ignore")
            images = CONVOLVE[dims](units, kernels, None, each(stride), padding, each(dilation), groups)
    if padding == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(each(dilation), kernel, strict=True)]
    before, after = (inputs, *space), tuple(images.shape[1:])
    shapes = (after, before) if transposed else (before, after)
    found = Convolution(weight, *shapes, each(stride), each(padding), each(dilation), groups, transposed)
    return found, images.flatten(1).T.numpy()


def terms(rows, width, count, seed=0, repeats=False):
    rng = np.random.default_rng(seed)
    place = np.stack([rng.choice(width, count, replace=repeats) for _ in range(rows)])
    factor = rng.integers(-3, 4, place.shape).astype(np.float64)
    matrix = np.zeros((rows, width))
    for row in range(rows):
        for at, much in zip(place[row], factor[row], strict=True):
            matrix[row, at] += much
    return Terms(place, factor, width), matrix


def dense(rows, width, places):
    weight = np.random.default_rng(places).integers(-3, 4, (rows, width)).astype(np.float64)
    matrix = torch.block_diag(*[torch.from_numpy(weight)] * places).numpy()
    return Dense(weight, places), matrix


KINDS = {
    "matrix": lambda: dense(4, 5, 1),
    "tall matrix": lambda: dense(7, 2, 1),
    "matrix at places": lambda: dense(3, 5, 4),
    "identity": lambda: (identity_map(5), np.eye(5)),
    "identity matrix": lambda: (Dense(np.eye(4)), np.eye(4)),
    "in place": lambda: (Terms(np.arange(4)[:, None], np.array([[2.0], [0], [-1], [1]]), 4), np.diag([2.0, 0, -1, 1])),
    "permutation": lambda: (Terms(np.array([[2], [0], [1]]), np.ones((3, 1)), 3), np.eye(3)[[2, 0, 1]]),
    "one term": lambda: terms(7, 5, 1),
    "terms": lambda: terms(6, 9, 4),
    "terms of few": lambda: terms(9, 2, 2),
    "repeated terms": lambda: terms(6, 4, 5, repeats=True),
    "1 dimension": lambda: convolution((2, 3), (7,), (3,)),
    "2 dimensions": lambda: convolution((2, 3), (5, 4), (3, 2)),
    "3 dimensions": lambda: convolution((2, 2), (3, 4, 3), (2, 3, 1)),
    "strided": lambda: convolution((2, 3), (8, 7), (3, 3), stride=(2, 3), padding=1),
    "strides that leave a rest": lambda: convolution((1, 2), (8, 9), (2, 2), stride=(3, 4)),
    "strides longer than kernels": lambda: convolution((2, 2), (9,), (2,), stride=4, padding=1),
    "dilated": lambda: convolution((1, 2), (9, 8), (3, 2), dilation=(2, 3), padding=(2, 1)),
    "grouped": lambda: convolution((4, 6), (5, 4), (3, 3), padding=1, groups=2),
    "depthwise": lambda: convolution((3, 6), (5, 5), (3, 3), padding=1, groups=3),
    "pointwise": lambda: convolution((3, 4), (3, 3), (1, 1)),
    "asymmetric padding": lambda: convolution((2, 2), (5, 6), (3, 3), padding=(2, 0)),
    "same, of an even kernel": lambda: convolution((2, 2), (5, 4), (2, 4), padding="same"),
    "same, of an odd kernel": lambda: convolution((2, 2), (5, 6), (3, 2), dilation=(2, 1), padding="same"),
    "padding larger than the kernel": lambda: convolution((2, 2), (3, 4), (2, 2), padding=(3, 5)),
    "kernel larger than the image": lambda: convolution((2, 2), (2, 3), (5, 4), padding=(2, 1)),
    "image of one": lambda: convolution((3, 2), (1, 1), (3, 3), padding=1),
    "transposed": lambda: convolution((2, 3), (4, 3), (3, 2), transposed=True),
    "transposed of 1 dimension": lambda: convolution((2, 4), (4,), (3,), stride=2, padding=1, rest=1, transposed=True),
    "transposed of 3": lambda: convolution((2, 1), (2, 2, 3), (2, 1, 3), stride=2, transposed=True),
    "transposed, strided": lambda: convolution(
        (2, 3), (3, 4), (3, 3), stride=(2, 3), padding=(1, 2), rest=(1, 2), transposed=True
    ),
    "transposed, strides longer": lambda: convolution((2, 2), (3, 3), (2, 2), stride=4, rest=3, transposed=True),
    "transposed, grouped": lambda: convolution(
        (4, 2), (3, 3), (3, 3), stride=2, padding=1, groups=2, dilation=2, rest=1, transposed=True
    ),
    "transposed, dilated": lambda: convolution((1, 2), (4, 4), (2, 3), dilation=(3, 2), rest=(2, 1), transposed=True),
    "transposed, padded": lambda: convolution((2, 2), (4, 5), (3, 3), padding=(1, 2), transposed=True),
}


@pytest.fixture(params=KINDS)
def case(request):
    return KINDS[request.param]()


def integers(rng, *shape):
    return torch.from_numpy(rng.integers(-9, 10, shape).astype(np.float64))


def test_products_are_those_of_the_matrix(case):
    found, matrix = case
    rng = np.random.default_rng(0)
    assert found.shape == matrix.shape
    for shape in ((), (1,), (3,), (2, 3)):
        x, g = integers(rng, *shape, found.width), integers(rng, *shape, found.rows)
        before = x.clone(), g.clone()
        assert np.array_equal(found.times(x).numpy(), x.numpy() @ matrix.T)
        assert np.array_equal(found.back(g).numpy(), g.numpy() @ matrix)
        assert torch.equal(x, before[0]) and torch.equal(g, before[1])
    columns = integers(rng, found.width, 3)
    product = found.on_columns(columns)
    assert np.array_equal(product.numpy(), matrix @ columns.numpy())
    assert product.untyped_storage().data_ptr() != columns.untyped_storage().data_ptr()


def test_a_large_matrix_is_looked_at_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(linear_maps, "_ROWS_AT_ONCE", 12)
    monkeypatch.setattr(rounding, "_AT_ONCE", 12)
    monkeypatch.setattr(rounding, "_MOST_PRODUCTS", 0)
    matrix = np.random.default_rng(0).integers(-9, 10, (7, 5)).astype(np.float64)
    parts = [*Dense(matrix).row_parts(12)]
    assert [(some.start, some.stop) for some, _ in parts] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert np.array_equal(np.concatenate([part.dense() for _, part in parts]), matrix)
    x = np.arange(10.0).reshape(2, 5)
    assert np.array_equal(Dense(matrix).absolute_times(torch.from_numpy(x)).numpy(), x @ np.abs(matrix).T)
    assert [some for some, _ in Dense(matrix, 2).row_parts(12)] == [slice(0, 14)]
    sums = np.abs(matrix).sum(axis=0).max() * np.abs(matrix).sum(axis=1).max()
    assert rounding.norm_of_any(matrix) == pytest.approx(min(np.linalg.norm(matrix), math.sqrt(sums)), rel=1e-8)
    diagonal = np.diag(np.arange(1.0, 6))
    assert rounding.norm_of_any(diagonal) == pytest.approx(5, rel=1e-8)


def test_matrices_and_their_entries(case):
    found, matrix = case
    assert np.array_equal(found.dense(), matrix) and np.array_equal(np.asarray(found), matrix)
    for units in (np.arange(found.width), np.array([found.width - 1, 0, 0]), np.zeros(0, np.int64)):
        images = found.images(torch.from_numpy(units))
        assert np.array_equal(images.numpy(), matrix.T[units])
        images += 1  # they are the caller's
    assert np.array_equal(found.dense(), matrix)
    row, column, value = found.entries()
    assert value.all()
    summed = np.zeros_like(matrix)
    np.add.at(summed, (row, column), value)
    assert np.array_equal(summed, matrix)


def test_large_matrices_are_formed_piece_by_piece(monkeypatch, case):
    monkeypatch.setattr("pylinregion.lowering.linear_maps._COLUMNS_AT_ONCE", 1)
    found, matrix = case
    assert np.array_equal(found.dense(), matrix)


def test_bounds(case):
    found, matrix = case
    rng = np.random.default_rng(0)
    sizes = np.abs(matrix)
    norms = np.linalg.norm(matrix, axis=1)
    assert (found.row_norms >= norms).all() and found.row_norms.shape == norms.shape
    assert found.norm >= np.linalg.norm(matrix, 2) * (1 - 1e-12)
    assert found.frobenius >= np.linalg.norm(matrix)
    most = max((matrix != 0).sum(axis=0).max(), (matrix != 0).sum(axis=1).max())
    assert found.terms >= max(1, most)
    x = rng.uniform(0, 1, (3, found.width)) * (rng.random((3, found.width)) < 0.7)
    assert (found.sizes(torch.from_numpy(x)).numpy() >= x @ sizes.T).all()
    assert (found.row_sums >= sizes.sum(axis=1)).all()
    assert (found.absolute.dense() >= sizes).all()
    doubled = found.with_numbers(lambda numbers: 2 * numbers)
    assert type(doubled) is type(found) and np.array_equal(doubled.dense(), 2 * matrix)


@pytest.mark.parametrize("name", [name for name in KINDS if "repeated" not in name])
def test_bounds_of_rows_are_near_them(name):
    """Exact where all of a window is inside; sums of sizes always."""
    found, matrix = KINDS[name]()
    assert np.allclose(found.row_sums, np.abs(matrix).sum(axis=1), rtol=1e-12)
    assert np.array_equal(found.absolute.dense(), np.abs(matrix))
    norms = np.linalg.norm(matrix, axis=1)
    if not isinstance(found, Convolution):
        assert np.allclose(found.row_norms, norms, rtol=1e-5, atol=1e-100)
    elif not any(found.padding) and not found.transposed:
        assert np.allclose(found.row_norms, norms, rtol=1e-5)
    else:
        by_channel = norms.reshape(found.source[0] if found.transposed else found.target[0], -1).max(axis=1)
        assert (found.row_norms.reshape(len(by_channel), -1).max(axis=1) >= by_channel).all()
        assert np.unique(found.row_norms).size <= len(by_channel)


def test_terms_that_take_a_number_twice_are_bounded_as_their_sum():
    """``x + x``: the rows are (2), and the 2-norm of the factors is less."""
    one = identity_map(3)
    twice = one.plus(one)
    assert np.array_equal(twice.dense(), 2 * np.eye(3))
    assert (twice.row_norms >= 2).all() and twice.norm >= 2 and twice.frobenius >= math.sqrt(12)


def test_sums_of_maps():
    few, matrix = terms(5, 6, 2)
    other, its = terms(5, 6, 3, seed=1)
    assert isinstance(few.plus(other), Terms) and np.array_equal(few.plus(other).dense(), matrix + its)
    full = Dense(np.arange(30.0).reshape(5, 6))
    for both in (few.plus(full), full.plus(few)):
        assert isinstance(both, Dense) and np.array_equal(both.dense(), matrix + full.weight)


def test_what_is_known_to_change_nothing_or_to_stay_in_place():
    assert identity_map(3).is_identity and identity_map(3).in_place and Dense(np.eye(3)).is_identity
    scaled = Terms(np.arange(3)[:, None], np.array([[1.0], [2], [0]]), 3)
    assert not scaled.is_identity and scaled.in_place and scaled.factors(torch.ones(3)).tolist() == [1, 2, 0]
    for found in (
        Dense(np.eye(3)[:2]),
        Dense(2 * np.eye(3)),
        Dense(np.array([[1.0, 1.0], [0.0, 1.0]])),
        Terms(np.arange(3)[:, None], np.ones((3, 1)), 4),  # the first three of four
        Terms(np.array([[1], [0]]), np.ones((2, 1)), 2),
    ):
        assert not found.is_identity and not found.in_place
    with pytest.raises(TypeError, match="not in place"):
        Dense(np.eye(3)).factors(torch.ones(3))


# ---- spectral norms of convolutions


def norm_without_borders(weight, groups, points=64):
    """The largest norm of a convolution's matrices at many frequencies, from below."""
    outputs, inputs, *kernel = weight.shape
    transform = np.fft.fftn(weight, [points if k > 1 else 1 for k in kernel], axes=range(2, weight.ndim))
    blocks = transform.reshape(groups, outputs // groups, inputs, -1).transpose(0, 3, 1, 2)
    return np.linalg.svd(blocks, compute_uv=False).max()


@pytest.mark.parametrize(
    "shape, groups",
    [
        ((1, 1, 2), 1),
        ((3, 2, 3), 1),
        ((2, 5, 9), 1),
        ((4, 3, 3, 3), 1),
        ((8, 8, 3, 3), 1),
        ((4, 1, 5, 5), 4),
        ((6, 2, 2, 4), 2),
        ((3, 4, 1, 1), 1),
        ((2, 2, 3, 3, 3), 1),
        ((2, 2, 7, 1), 1),
    ],
)
def test_spectral_norms_of_convolutions_are_bounded_within_a_factor(shape, groups):
    """``1 / cos(pi / 8)`` for each dimension with a window, and what the powers leave, the 32nd root of the rank."""
    rng = np.random.default_rng(0)
    dims = sum(size > 1 for size in shape[2:])
    factor = math.cos(math.pi / 8) ** -dims * min(shape[0] // groups, shape[1]) ** (1 / 32) * 1.001
    worst = 1.0
    for make in (
        rng.standard_normal,
        lambda shape: np.abs(rng.standard_normal(shape)),
        lambda shape: np.ones(shape),
        lambda shape: (-1.0) ** np.indices(shape).sum(axis=0),
        lambda shape: 1e-200 * rng.standard_normal(shape),
        lambda shape: 1e150 * rng.standard_normal(shape),
    ):
        weight = make(shape)
        bound, reached = norm_of_convolution(weight, groups), norm_without_borders(weight, groups)
        assert bound >= reached * (1 - 1e-12)
        assert bound <= reached * factor + 1e-150
        worst = max(worst, bound / reached if reached > 1e-150 else 1)
    assert worst > 1.0001 or not dims


def test_norms_of_convolutions_too_large_for_frequencies(monkeypatch):
    rng = np.random.default_rng(1)
    for shape, groups in (((4, 3, 3, 3), 1), ((4, 2, 2, 2), 2)):
        weight = rng.standard_normal(shape)
        reached = norm_without_borders(weight, groups)
        monkeypatch.setattr("pylinregion.lowering.convolution_norms._MOST_PRODUCTS", 0)
        assert reached <= norm_of_convolution(weight, groups) <= math.prod(shape[2:]) * reached
        monkeypatch.undo()


def test_norms_of_convolutions_of_nothing():
    assert norm_of_convolution(np.zeros((2, 2, 3)), 1) == 0
    assert norm_of_convolution(np.full((2, 2, 3), np.inf), 1) == np.inf
