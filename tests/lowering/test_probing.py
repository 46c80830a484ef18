"""The terms of linear operators, found by asking them, against the matrices that the operators are."""

import numpy as np
import pytest
import torch

from pylinregion.lowering.probing import from_entries, joined, on_channels, sources, terms_of

WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 16, 33]


def operator(matrix):
    """``W`` as what is asked, and how often it was."""
    asked = []

    def images(vectors):
        asked.append(len(vectors))
        return vectors.numpy() @ matrix.T

    return images, asked


def one_term(rng, rows, width, zeros=0.2):
    matrix = np.zeros((rows, width))
    factors = rng.choice([-3.0, -1.0, 0.1, 1 / 3, 1.0, 1e-300, 1e300], rows)
    matrix[np.arange(rows), rng.integers(0, width, rows)] = factors * (rng.random(rows) >= zeros)
    return matrix


@pytest.mark.parametrize("width", WIDTHS)
def test_operators_with_one_term_are_found(width):
    rng = np.random.default_rng(width)
    matrices = [one_term(rng, rows, width) for rows in (1, 4, 40)]
    matrices += [np.zeros((3, width)), np.eye(width), np.eye(width)[::-1], np.eye(width)[rng.permutation(width)]]
    matrices += [np.eye(width)[[place] * 3] for place in range(width)]
    for matrix in matrices:
        images, asked = operator(matrix)
        found = sources(images, width)
        assert found is not None and found.factor.shape == (len(matrix), 1)
        assert np.array_equal(found.dense(), matrix)
        assert len(asked) == 1 and asked[0] <= 3 + 2 * max(1, np.log2(width))


@pytest.mark.parametrize("width", WIDTHS[1:])
@pytest.mark.parametrize("factors", [(1, 1), (1, -1), (2, -1), (0.5, 0.5), (1, 2), (-3, 1e-3)])
def test_operators_with_two_terms_in_a_row_are_refused(width, factors):
    """Also where the factors cancel, so that a vector of ones gives 0."""
    rng = np.random.default_rng(width)
    for _ in range(10):
        matrix = one_term(rng, 6, width)
        pair = rng.permutation(width)[:2]
        matrix[rng.integers(6)] = 0
        row = rng.integers(6)
        matrix[row] = 0
        matrix[row, pair] = factors
        assert sources(operator(matrix)[0], width) is None


def test_all_operators_with_small_numbers_on_few_places():
    """Every row of up to four numbers of -1, 0 and 1: found exactly if it has at most one."""
    for width in (1, 2, 3, 4):
        for row in np.ndindex(*(3,) * width):
            matrix = np.array([row], dtype=np.float64) - 1
            found = sources(operator(matrix)[0], width)
            if np.count_nonzero(matrix) > 1:
                assert found is None
            else:
                assert np.array_equal(found.dense(), matrix)


@pytest.mark.parametrize("width", [5, 8])
def test_operators_that_mix_places_in_any_way_are_refused(width):
    """Random mixtures of several places, some of which sum to 0, or to 0 on places with some bit."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(2, width + 1))
        places = rng.permutation(width)[:count]
        factors = rng.choice([-2.0, -1.0, 1.0, 2.0], count)
        if rng.random() < 0.5:
            factors[-1] = -factors[:-1].sum() or 1.0
        matrix = one_term(rng, 3, width)
        matrix[1] = 0
        matrix[1, places] = factors
        assert sources(operator(matrix)[0], width) is None


def test_operators_that_are_not_linear_or_have_infinite_numbers_are_refused():
    """Where a place that no width has is named, and where nothing fits."""
    assert sources(lambda x: np.ones((len(x), 1)), 4) is None
    assert sources(lambda x: np.abs(x.numpy()[:, :1] - x.numpy()[:, 1:2]) + x.numpy()[:, :1], 2) is None

    def beyond(vectors):  # says place 3 of three
        out = np.zeros((len(vectors), 1))
        out[:3] = 1
        return out

    assert sources(beyond, 3) is None


def test_sums_are_joined():
    targets, factor = np.array([2, 0, 2, 1, 2]), np.array([1.0, 2.0, -1.0, 0.0, 3.0])
    found = joined(targets, factor, 4)
    matrix = np.zeros((4, 5))
    matrix[targets, np.arange(5)] = factor
    assert np.array_equal(found.dense(), matrix) and found.place.shape == (4, 3)


def test_matrices_and_entries_as_terms():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (4, 7), (7, 4), (3, 16)):
        matrix = rng.integers(-1, 2, shape).astype(np.float64)
        for each in (matrix, np.zeros(shape)):
            found = terms_of(each)
            assert np.array_equal(found.dense(), each)
            assert found.place.shape[1] == max(1, int((each != 0).sum(axis=1).max()))
        row, place = np.nonzero(matrix)
        order = rng.permutation(len(row))
        found = from_entries(row[order], place[order], matrix[row, place][order], shape)
        assert np.array_equal(found.dense(), matrix)


def test_the_same_terms_for_each_channel():
    one = torch.tensor([[0.0, 1, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0]]).double()
    for channels in (1, 3):
        expected = torch.block_diag(*[one] * channels).numpy()
        assert np.array_equal(on_channels(terms_of(one.numpy()), channels).dense(), expected)
