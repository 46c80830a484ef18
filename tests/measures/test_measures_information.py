"""Entropies of features and what is built on them, against eigenvalues in NumPy and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases.measures import points, pre_activations, relu_net
from pylinregion.measures import matrix_entropy, matrix_mutual_information, perturbed_information


def gram(z):
    z = np.asarray(z, dtype=np.float64)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return z @ z.T


def entropy(r, alpha):
    p = np.clip(np.linalg.eigvalsh(r / len(r)), 0, None)
    p = p[p > 1e-15]
    return -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)


def information(a, b, alpha):
    return entropy(gram(a), alpha) + entropy(gram(b), alpha) - entropy(gram(a) * gram(b), alpha)


@pytest.mark.parametrize("alpha", [0.5, 1, 2, 3.5])
@pytest.mark.parametrize("shape", [(1, 4), (7, 3), (20, 20), (12, 50)])
def test_entropy_is_that_of_the_eigenvalues(shape, alpha):
    z = points(*shape, seed=sum(shape))
    assert matrix_entropy(z, alpha) == pytest.approx(entropy(gram(z), alpha), rel=1e-10, abs=1e-10)
    assert matrix_entropy(1e200 * z, alpha) == pytest.approx(entropy(gram(z), alpha), rel=1e-10, abs=1e-10)
    assert matrix_entropy(1e-200 * z, alpha) == pytest.approx(entropy(gram(z), alpha), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 1, 2, 3.5])
def test_entropy_of_known_spectra(alpha):
    """Groups of equal directions: the eigenvalues of R / n are the groups' shares."""
    sizes = [5, 2, 2, 1]
    z = torch.cat([torch.eye(4)[k].repeat(size, 1) * (1 + k) for k, size in enumerate(sizes)])
    p = np.array(sizes) / 10
    want = -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)
    assert matrix_entropy(z, alpha) == pytest.approx(want, rel=1e-12)
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    assert matrix_entropy(z * signs[:, None], alpha) == pytest.approx(want, rel=1e-12)
    # the same groups twice tell all about each other, and nothing about a constant
    assert matrix_mutual_information(z, z, alpha) == pytest.approx(want, rel=1e-12)
    assert matrix_mutual_information(z, torch.ones(10, 1), alpha) == pytest.approx(0, abs=1e-12)


def test_independent_groups_tell_nothing():
    """A grid: rows by one coordinate, columns by the other; R_a * R_b is the identity."""
    first, second = torch.eye(3).repeat_interleave(4, dim=0), torch.eye(4).repeat(3, 1)
    assert matrix_mutual_information(first, second) == pytest.approx(0, abs=1e-12)
    assert matrix_mutual_information(first, first) == pytest.approx(math.log(3), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1, 2])
def test_mutual_information_is_that_of_numpy(alpha):
    a, b = points(25, 6, seed=1), points(25, 40, seed=2)
    assert matrix_mutual_information(a, b, alpha) == pytest.approx(information(a, b, alpha), rel=1e-9)
    assert matrix_mutual_information(a, b, alpha) == pytest.approx(matrix_mutual_information(b, a, alpha), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000), st.sampled_from([0.5, 1, 2]))
def test_entropies_lie_in_their_bounds(n, d, seed, alpha):
    z, other = points(n, d, seed=seed), points(n, 3, seed=seed + 1)
    value = matrix_entropy(z, alpha)
    assert -1e-9 <= value <= math.log(min(n, d)) + 1e-9
    turned = z @ torch.linalg.qr(points(d, d, seed=seed + 2))[0]
    assert matrix_entropy(turned, alpha) == pytest.approx(value, abs=1e-8)
    joint = value + matrix_entropy(other, alpha) - matrix_mutual_information(z, other, alpha)
    assert joint <= math.log(n) + 1e-9


def test_float32_features_are_taken_as_they_are():
    z = points(30, 5).float()
    assert matrix_entropy(z) == pytest.approx(entropy(gram(z.double()), 1), rel=1e-12)


@pytest.mark.parametrize("alpha", [1, 2])
def test_perturbed_information_of_a_network(alpha):
    model = relu_net([6, 10, 9, 4], seed=1)
    x = points(22, 6)
    draw = torch.randn(22, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64).numpy()
    want = {}
    for name, inputs in (("plain", x.numpy()), ("noisy", x.numpy() + 0.4 * draw)):
        pieces = [pre_activations(model, part) for part in np.array_split(inputs, 3)]
        assert [len(piece[0]) for piece in pieces] == [8, 7, 7]
        want[name] = [
            (information(z[0], z[-1], alpha), entropy(gram(z[-1]), alpha), information(z[0], z[1], alpha))
            for z in pieces
        ]
    plain, noisy = (np.mean(want[name], axis=0) for name in ("plain", "noisy"))
    found = perturbed_information(model, x, 0.4, alpha=alpha, seed=9, batch_size=8)
    assert found.mutual_information == pytest.approx(plain[0], rel=1e-9)
    assert found.entropy == pytest.approx(plain[1], rel=1e-9)
    assert found.pmi == pytest.approx(noisy[0], rel=1e-9)
    assert found.pe == pytest.approx(noisy[1], rel=1e-9)
    assert found.mid == found.pmi - found.mutual_information and found.ed == found.pe - found.entropy
    inner = perturbed_information(model, x, 0.4, alpha=alpha, seed=9, batch_size=8, first="1", last="3")
    assert inner.pmi == pytest.approx(noisy[2], rel=1e-9)
    assert perturbed_information(model, x, 0.4, alpha=alpha, seed=9, batch_size=8, first="3").pmi != found.pmi


def test_bad_features_are_named():
    z = points(5, 3)
    with pytest.raises(TypeError, match=r"features must be a torch.Tensor, got list"):
        matrix_entropy([[1.0]])
    with pytest.raises(ValueError, match=r"features must be \[n, d\] with n and d at least 1, got \[5\]"):
        matrix_entropy(z[:, 0])
    with pytest.raises(ValueError, match=r"features must be finite, got nan at \[0, 0\]"):
        matrix_entropy(z * float("nan"))
    with pytest.raises(ValueError, match=r"b must have no row of zeros, which has no direction, got one at row 3"):
        matrix_mutual_information(z, z * torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])[:, None])
    with pytest.raises(ValueError, match=r"b must have as many rows as a, 5, got 4"):
        matrix_mutual_information(z, z[:4])
    with pytest.raises(ValueError, match=r"alpha must be above 0, got 0"):
        matrix_entropy(z, 0)
    with pytest.raises(TypeError, match=r"alpha must be a number, got str"):
        matrix_mutual_information(z, z, "1")
    model = relu_net([3, 4, 2])
    with pytest.raises(ValueError, match=r"first must be one of '1', got 'output'"):
        perturbed_information(model, z, 0.1, first="output")
    with pytest.raises(ValueError, match=r"last must be one of '1', 'output', got '2'"):
        perturbed_information(model, z, 0.1, last="2")
    with pytest.raises(ValueError, match=r"model must have an elementwise activation"):
        perturbed_information(relu_net([3, 2]), z, 0.1)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, got 0"):
        perturbed_information(model, z, 0.1, batch_size=0)
