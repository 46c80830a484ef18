"""Patel and Montufar's measures, against Jacobians layer by layer in NumPy and closed forms."""

import concurrent.futures
import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from cases.measures import input_jacobians, points, pre_activations, relu_net, weights
from cases.small_models import Do
from pylinregion import UnsupportedModelError
from pylinregion.measures import _network_function, density_local_complexity, local_rank, sharpness, total_variation
from pylinregion.measures._forward import pushed_forward


def densities(model, x, sigma, *, noise=None):
    """Over hidden layers, point by point; with noise, of biases with it, and each neuron without its own bias."""
    layers = weights(model)[:-1]
    total = 0.0
    for point in x:
        h, jacobian = point, np.eye(len(point))
        for number, (weight, bias) in enumerate(layers):
            moved = bias if noise is None else bias + noise[number]
            without, jacobian = weight @ h, weight @ jacobian
            z = without + moved
            u = z if noise is None else without
            total += (np.exp(-(u**2) / (2 * sigma**2)) * np.linalg.norm(jacobian, axis=1)).sum()
            h, jacobian = np.maximum(z, 0), (z > 0)[:, None] * jacobian
    return total / len(x)


def noise_of(model, sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(bias) for _, bias in weights(model)][:-1]
    return [sigma * torch.randn(size, generator=generator, dtype=torch.float64).numpy() for size in sizes]


@pytest.mark.parametrize("size", [1, 3, 32])
def test_densities_are_those_of_numpy(size, monkeypatch):
    model, x = relu_net([7, 12, 11, 3], seed=1), points(10, 7)
    for rows in (1024, 5):  # all directions in one pass, and in several
        monkeypatch.setattr(_network_function, "_DIRECTION_ROWS", rows)
        for sigma in (0.01, 0.5):
            noise = noise_of(model, sigma, 4)
            found = density_local_complexity(model, x, sigma=sigma, seed=4, batch_size=size)
            assert found == pytest.approx(densities(model, x.numpy(), sigma, noise=noise), rel=1e-10, abs=1e-300)
            found = density_local_complexity(model, x, sigma=sigma, bias="trained", batch_size=size)
            assert found == pytest.approx(densities(model, x.numpy(), sigma), rel=1e-10, abs=1e-300)


def test_the_noise_of_the_coded_estimator_acts_on_later_layers_alone():
    """It was once left in the exponent of its own neuron, where the paper's code cancels it."""
    one, deep, x = relu_net([4, 9, 1], seed=1), relu_net([4, 9, 9, 1], seed=1), points(20, 4)
    found = [[density_local_complexity(m, x, sigma=0.3, seed=seed) for seed in (0, 1)] for m in (one, deep)]
    zs = x.numpy() @ weights(one)[0][0].T
    want = (np.exp(-(zs**2) / (2 * 0.3**2)) * np.linalg.norm(weights(one)[0][0], axis=1)).sum(axis=1).mean()
    assert found[0] == pytest.approx([want, want], rel=1e-12) and found[1][0] != pytest.approx(found[1][1], rel=1e-4)
    tied = relu_net([4, 4, 4, 1], seed=2)
    tied[2].bias = tied[0].bias
    before = [p.clone() for p in tied.parameters()]
    noise = noise_of(tied, 0.3, 5)
    found = density_local_complexity(tied, x, sigma=0.3, seed=5)
    assert found == pytest.approx(densities(tied, x.numpy(), 0.3, noise=[noise[0], noise[0]]), rel=1e-12)
    assert all(torch.equal(p, q) for p, q in zip(tied.parameters(), before, strict=True))


def test_the_coded_estimator_does_not_see_the_bias_of_the_first_layer():
    model, x = relu_net([4, 9], seed=1), points(20, 4)
    model.append(nn.ReLU())
    before = [density_local_complexity(model, x, sigma=0.3, bias=bias) for bias in ("coded", "trained")]
    with torch.no_grad():
        model[0].bias.add_(1)
    after = [density_local_complexity(model, x, sigma=0.3, bias=bias) for bias in ("coded", "trained")]
    assert after[0] == pytest.approx(before[0], rel=1e-12)
    assert after[1] != pytest.approx(before[1], rel=1e-2)


def test_the_trained_estimator_counts_kinks_on_a_line():
    """In one dimension the mean density times the length is the number of kinks."""
    model = relu_net([1, 6, 1], seed=5)
    weight, bias = (value.ravel() for value in weights(model)[0])
    kinks = -bias / weight
    low, high = kinks.min() - 1, kinks.max() + 1
    x = torch.linspace(float(low), float(high), 40_001, dtype=torch.float64)[:, None]
    sigma = 0.002
    density = density_local_complexity(model, x, sigma=sigma, bias="trained", batch_size=5000)
    assert density / (np.sqrt(2 * np.pi) * sigma) * (high - low) == pytest.approx(6, rel=1e-3)


def test_biases_of_convolutions_and_of_layers_without():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5, bias=False), nn.ReLU()).double()
    x = points(6, 2, 3, 3)
    sigma, want = 0.2, 0.0
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        noisy[0].bias += sigma * torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifts = [noisy[0].bias.detach().repeat_interleave(4), torch.zeros(5)]
    for point in x:
        for stop, shift in zip((1, 4), shifts, strict=True):
            jacobian = torch.autograd.functional.jacobian(lambda p, stop=stop: noisy[:stop](p).flatten(), point[None])
            z = noisy[:stop](point[None]).flatten().detach()
            norms = jacobian.flatten(1).norm(dim=1)
            want += float((torch.exp(-((z - shift) ** 2) / (2 * sigma**2)) * norms).sum()) / 6
    assert density_local_complexity(model, x, sigma=sigma) == pytest.approx(want, rel=1e-10)


def test_biases_of_linear_layers_on_sequences():
    """Two positions, three neurons each: the bias, and its noise, is that of the neuron."""
    torch.manual_seed(0)
    first, second = nn.Linear(4, 3), nn.Linear(3, 2)
    model, x, sigma = nn.Sequential(first, nn.ReLU(), second, nn.ReLU()).double(), points(6, 2, 4), 0.5
    generator = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(3, generator=generator, dtype=torch.float64).numpy()
    flat = [p.detach().numpy() for p in model.parameters()]
    want = 0.0
    for position in x.numpy().reshape(12, 4):
        without = flat[0] @ position
        want += (np.exp(-(without**2) / (2 * sigma**2)) * np.linalg.norm(flat[0], axis=1)).sum()
        z = without + flat[1] + noise
        jacobian = flat[2] @ ((z > 0)[:, None] * flat[0])
        u = flat[2] @ np.maximum(z, 0)
        want += (np.exp(-(u**2) / (2 * sigma**2)) * np.linalg.norm(jacobian, axis=1)).sum()
    assert density_local_complexity(model, x, sigma=sigma) == pytest.approx(want / 6, rel=1e-12)


def test_neurons_without_a_bias_of_their_own_are_refused():
    normalised = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()).double()
    x = points(5, 3)
    with pytest.raises(UnsupportedModelError, match=r"batch_norm.*which bias='coded' needs; take bias='trained'"):
        density_local_complexity(normalised, x)
    assert density_local_complexity(normalised, x, sigma=1.0, bias="trained") > 0


def test_local_ranks_are_those_of_numpy():
    model, x = relu_net([7, 12, 11, 3], seed=1), points(10, 7)
    for tolerance in (0.01, 0.5, 1.5):
        per_point = [
            [(np.linalg.svd(j, compute_uv=False) > tolerance).sum() for j in input_jacobians(model, point)[:-1]]
            for point in x.numpy()
        ]
        want = np.mean(per_point, axis=0)
        for size in (3, 32):
            found = local_rank(model, x, tolerance=tolerance, batch_size=size)
            assert list(found) == ["1", "3"] and list(found.values()) == pytest.approx(want)
    assert local_rank(model, x, layers=["3"]) == {"3": local_rank(model, x)["3"]}
    assert want[0] < 7  # the tolerance is absolute: it bites
    assert local_rank(relu_net([7, 12, 3], scale=1e-4), x)["1"] == 0


def test_total_variation_is_that_of_numpy():
    model, x = relu_net([7, 12, 11, 3], seed=1), points(10, 7)
    norms = np.mean([[np.linalg.norm(j) for j in input_jacobians(model, point)] for point in x.numpy()], axis=0)
    assert total_variation(model, x) == pytest.approx(norms[1], rel=1e-12)
    assert total_variation(model, x, batch_size=3) == pytest.approx(norms[1], rel=1e-12)
    assert total_variation(model, x, layer="1") == pytest.approx(norms[0], rel=1e-12)
    assert total_variation(model, x, layer="output") == pytest.approx(norms[2], rel=1e-12)


def test_total_variation_of_a_function_on_an_interval():
    """The mean slope times the length is what the function goes up and down."""
    model = relu_net([1, 30, 30, 1], seed=5, scale=2.0)
    x = (torch.arange(100_000, dtype=torch.float64)[:, None] + 0.5) / 50_000 - 1
    values = pre_activations(model, np.linspace(-1, 1, 100_001)[:, None])[-1][:, 0]
    assert 2 * total_variation(model, x, layer="output", batch_size=10_000) == pytest.approx(
        np.abs(np.diff(values)).sum(), rel=1e-3
    )


def test_smooth_networks_have_jacobians_too():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU()).double(), points(6, 3)
    want = [torch.autograd.functional.jacobian(lambda p: model[:3](p)[0], p[None])[:, 0].norm() for p in x]
    assert total_variation(model, x) == pytest.approx(float(torch.stack(want).mean()), rel=1e-12)


def test_a_value_that_is_detached_is_refused():
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).relu().detach() + x

    with pytest.raises(UnsupportedModelError, match=r"detach.*hides its derivative"):
        total_variation(Detached(3, 3, dtype=torch.float64), points(5, 3), layer="output")


@pytest.mark.part(2)
@pytest.mark.parametrize("measure", [density_local_complexity, local_rank, total_variation, sharpness])
def test_what_is_infinite_is_named(measure):
    """They were NaN, or an error of LAPACK's."""
    with pytest.raises(UnsupportedModelError, match=r"makes NaN or infinite numbers of points like x"):
        measure(nn.Sequential(Do(lambda self, x: x / 0), relu_net([3, 4, 2])), points(5, 3))
    with pytest.raises(ValueError, match=r"in module '\d'.* is NaN or infinite at some point of x"):
        measure(relu_net([3, 4, 4, 2], scale=1e170), points(5, 3))


def test_bad_arguments_are_named():
    model, x = relu_net([3, 4, 2]), points(5, 3)
    with pytest.raises(ValueError, match=r"bias must be one of 'coded', 'trained', got 'none'"):
        density_local_complexity(model, x, bias="none")
    with pytest.raises(ValueError, match=r"sigma must be above 0, got 0"):
        density_local_complexity(model, x, sigma=0)
    with pytest.raises(ValueError, match=r"tolerance must be at least 0, got -1"):
        local_rank(model, x, tolerance=-1)
    with pytest.raises(ValueError, match=r"layers must be among '1', got '2'"):
        local_rank(model, x, layers=["2"])
    with pytest.raises(ValueError, match=r"layer must be one of '1', 'output', got '2'"):
        total_variation(model, x, layer="2")
    with pytest.raises(ValueError, match=r"model must have an elementwise activation"):
        total_variation(relu_net([3, 2]), x)
    with pytest.raises(TypeError, match=r"batch_size must be an integer, got float"):
        local_rank(model, x, batch_size=1.0)


def test_measures_in_several_threads():
    """Torch has one level of forward-mode differentiation for the whole process: threads share it."""
    model, x = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU()).double(), torch.randn(40, 6).double()
    want = local_rank(model, x)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert [each.result() for each in [pool.submit(local_rank, model, x) for _ in range(9)]] == [want] * 9


def test_a_level_of_the_caller_that_is_closed_meanwhile():
    """All derivatives that are made in a level go with it; 0 would have been taken for them."""
    level, calls = forward_ad.dual_level(), []

    def function(x):
        calls.append(x)
        if len(calls) == 1:
            level.__exit__(None, None, None)
        return [3 * x, torch.ones(2)]

    level.__enter__()
    (value, slope), (_, none) = pushed_forward(function, torch.ones(2), torch.tensor([1.0, 2.0]))
    assert (value.tolist(), slope.tolist(), none.tolist(), len(calls)) == ([3, 3], [3, 6], [0, 0], 2)
    with forward_ad.dual_level():  # none is left open
        pass
