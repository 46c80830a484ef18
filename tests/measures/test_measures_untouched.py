"""Measures leave models and torch as they were, and do not depend on the caller's modes and devices."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from cases.measures import points
from pylinregion import UnsupportedModelError, measures

MEASURES = {
    "robust_accuracy": lambda m, x, y: measures.robust_accuracy(m, x, y, [0.1, 0.3], low=None, high=None).accuracy,
    "robust_accuracy, margin": lambda m, x, y: (
        measures.robust_accuracy(m, x, y, 0.2, low=-5, high=5, loss="margin", batch_size=7).accuracy
    ),
    "perturbation_error": lambda m, x, y: measures.perturbation_error(m, x, 0.1),
    "weight_norm": lambda m, x, y: measures.weight_norm(m),
    "last_layer_norm": lambda m, x, y: measures.last_layer_norm(m, x),
    "perturbed_information": lambda m, x, y: list(vars(measures.perturbed_information(m, x, 0.2)).values()),
    "matrix_entropy": lambda m, x, y: measures.matrix_entropy(x),
    "matrix_mutual_information": lambda m, x, y: measures.matrix_mutual_information(x, x[:, :2]),
    "commutativity": lambda m, x, y: measures.commutativity(m, x),
    "logit_commutativity": lambda m, x, y: measures.logit_commutativity(m, x),
    "neighbour_function": lambda m, x, y: measures.neighbour_function(x, x[:5], [0.0, 1.0, 2.0]),
    "sharpness": lambda m, x, y: measures.sharpness(m, x),
    "sharpness, cross-entropy": lambda m, x, y: measures.sharpness(m, x, loss="cross_entropy"),
    "largest_eigenvalue": lambda m, x, y: measures.largest_eigenvalue(m, x, y),
    "feature_ranks": lambda m, x, y: list(measures.feature_ranks(m, x, include_output=True).values()),
    "linear_probes": lambda m, x, y: list(measures.linear_probes(m, x, y, x, y, epochs=3, lr=0.1).test.values()),
    "density_local_complexity": lambda m, x, y: measures.density_local_complexity(m, x, sigma=0.5, bias="trained"),
    "local_rank": lambda m, x, y: list(measures.local_rank(m, x).values()),
    "total_variation": lambda m, x, y: measures.total_variation(m, x),
}


def restless(dtype=torch.float64):
    """A model with everything that a measure might disturb."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    ).to(dtype)
    model.train()
    model[1](points(30, 8, dtype=dtype))
    model[3].eval()  # modes differ
    model[4].bias.requires_grad_(False)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = None if number == 2 else torch.randn_like(parameter)
    return model


def data(dtype=torch.float64):
    x = points(20, 4, dtype=dtype)
    return x, torch.arange(20) % 3


def state(model):
    """All that should stay."""
    own = {name: (tensor, tensor.clone(), tensor._version) for name, tensor in model.state_dict(keep_vars=True).items()}
    grads = {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in model.named_parameters()}
    return own, grads, [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]


def surroundings():
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
    )


def as_array(value):
    return np.asarray(value.tolist() if isinstance(value, torch.Tensor) else value, dtype=np.float64)


@pytest.mark.part(2)
@pytest.mark.parametrize("name", MEASURES)
def test_nothing_is_left_behind(name):
    model, (x, y) = restless(), data()
    calls = []
    hooks = [
        model.register_forward_hook(lambda *args: calls.append("forward")),
        model[4].register_full_backward_hook(lambda *args: None),
    ]
    model(x)
    calls.clear()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    own, grads, requires, modes = state(model)
    before = surroundings()
    kept = x.clone(), y.clone()
    MEASURES[name](model, x, y)
    assert surroundings() == before
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1]) and not x.requires_grad
    now = model.state_dict(keep_vars=True)
    assert list(now) == list(own)
    for key, (tensor, values, version) in own.items():
        assert now[key] is tensor and torch.equal(tensor, values), key
        assert version == tensor._version, key
    for key, parameter in model.named_parameters():
        assert parameter.grad is grads[key][0], key
        assert parameter.grad is None or torch.equal(parameter.grad, grads[key][1]), key
    assert [p.requires_grad for p in model.parameters()] == requires
    assert [m.training for m in model.modules()] == modes
    calls.clear()
    model(x)
    assert calls == ["forward"]
    for hook in hooks:
        hook.remove()


@pytest.mark.part(2)
@pytest.mark.parametrize("name", MEASURES)
def test_the_callers_modes_do_not_matter(name):
    model, (x, y) = restless(torch.float32), data(torch.float32)
    measure = MEASURES[name]
    want = as_array(measure(model, x, y))
    assert np.isfinite(want).all()
    with torch.no_grad():
        assert np.array_equal(as_array(measure(model, x, y)), want)
    with torch.inference_mode():
        assert np.array_equal(as_array(measure(model, x.clone(), y.clone())), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(as_array(measure(model, x, y)), want)
    with torch.device("meta"):  # what is made without a device would be there
        assert np.array_equal(as_array(measure(model, x, y)), want)
    torch.set_default_dtype(torch.float64)
    try:
        assert np.array_equal(as_array(measure(model, x, y)), want)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(as_array(measure(model.eval(), x.requires_grad_(), y)), want)


@pytest.mark.part(2)
@pytest.mark.parametrize("name", ["feature_ranks", "perturbed_information", "sharpness", "local_rank"])
def test_measures_follow_the_weights(name):
    """The capture is kept; the weights are read anew."""
    model, (x, y) = restless(), data()
    before = as_array(MEASURES[name](model, x, y))
    with torch.no_grad():
        model[4].weight[2:] = 0
        model[4].bias[2:] = 1
    after = as_array(MEASURES[name](model, x, y))
    fresh = restless()
    fresh.load_state_dict(model.state_dict())
    assert np.array_equal(after, as_array(MEASURES[name](fresh, x, y))) and not np.array_equal(before, after)


@pytest.mark.cuda
@pytest.mark.parametrize("name", MEASURES)
def test_devices_agree(name):
    model, (x, y) = restless(), data()
    want = as_array(MEASURES[name](model, x, y))
    got = as_array(MEASURES[name](model.cuda(), x.cuda(), y.cuda()))
    assert np.allclose(got, want, rtol=1e-9, atol=1e-9)


def test_a_model_that_draws_in_eval_mode_has_its_draws_back():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(3, dtype=x.dtype)

    model, (x, y) = Noisy(4, 3, dtype=torch.float64), data()
    before = torch.get_rng_state()
    measures.robust_accuracy(model, x, y, 0.1, low=None, high=None)
    measures.commutativity(model, x)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_that_cannot_be_captured_are_refused():
    class Mixes(nn.Linear):
        def forward(self, x):
            return super().forward(x - x.mean(dim=0)).relu()

    model, x = Mixes(4, 4, dtype=torch.float64), points(6, 4)
    for measure in (measures.sharpness, measures.feature_ranks, measures.local_rank, measures.last_layer_norm):
        with pytest.raises(UnsupportedModelError, match="batch"):
            measure(model, x)
