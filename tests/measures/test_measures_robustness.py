"""Adversarial and random perturbations, against closed forms and PGD in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from cases.measures import input_jacobians, points, pre_activations, relu_net, softmax
from pylinregion.measures import perturbation_error, robust_accuracy


class Recorder(nn.Module):
    """A model whose inputs are noted outside of it."""

    def __init__(self, model, seen):
        super().__init__()
        self.model = model
        self.note = seen.append

    def forward(self, x):
        self.note(x.detach().clone())
        return self.model(x)


def unit_points(n, d, seed=3):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("random_start", [False, True])
def test_a_linear_classifier_is_as_robust_as_its_margins(loss, random_start):
    model = relu_net([12, 2], seed=4)
    x = unit_points(400, 12)
    y = torch.randint(2, (400,), generator=torch.Generator().manual_seed(5))
    (weight, bias) = (value.detach().numpy() for value in model[0].parameters())
    sign = np.where(y.numpy() == 1, 1, -1)
    slope = weight[1] - weight[0]
    value = x.numpy() @ slope + bias[1] - bias[0]
    radii = [0.0, 0.02, 0.05, 0.1, 0.3]
    free = [(sign * value > radius * np.abs(slope).sum()).mean() for radius in radii]
    boxed = []
    for radius in radii:  # each coordinate goes as far as ball and domain let it
        push = -sign[:, None] * np.sign(slope)
        far = np.clip(x.numpy() + radius * push, 0, 1)
        boxed.append((sign * (far @ slope + bias[1] - bias[0]) > 0).mean())
    assert len(set(free)) == len(set(boxed)) == len(radii) and free != boxed
    for low, high, want in ((None, None, free), (0, 1, boxed)):
        found = robust_accuracy(
            model, x, y, radii, low=low, high=high, alpha=0.07, steps=10, random_start=random_start, loss=loss
        )
        assert found.accuracy.tolist() == pytest.approx(want)
        assert found.clean == pytest.approx(free[0])
        assert found.zero_gradients.tolist() == [0.0] * 5
        assert found.eps.tolist() == radii and found.accuracy.dtype == torch.float64


def numpy_attack(model, x, y, radius, alpha, steps, start, low, high, loss):
    """All iterates."""
    x, y = x.numpy(), y.numpy()
    rows = np.arange(len(x))
    moved = np.clip(x + radius * start, low, high)
    found = [moved]
    for _ in range(steps):
        logits = pre_activations(model, moved)[-1]
        if loss == "cross_entropy":
            by_logits = softmax(logits)
            by_logits[rows, y] -= 1
        else:
            others = logits.copy()
            others[rows, y] = -np.inf
            by_logits = np.zeros_like(logits)
            by_logits[rows, others.argmax(axis=1)] = 1
            by_logits[rows, y] = -1
        gradient = np.stack([g @ input_jacobians(model, p)[-1] for g, p in zip(by_logits, moved, strict=True)])
        moved = np.clip(x + np.clip(moved + alpha * np.sign(gradient) - x, -radius, radius), low, high)
        found.append(moved)
    return found


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_iterates_are_those_of_numpy(loss):
    model = relu_net([8, 16, 16, 5], seed=2, scale=2.0)
    x, y = unit_points(60, 8), torch.arange(60) % 5
    start = 2 * torch.rand(60, 8, generator=torch.Generator().manual_seed(11), dtype=torch.float64).numpy() - 1
    radii, seen = [0.05, 0.2], []
    found = robust_accuracy(
        Recorder(model, seen), x, y, radii, low=0.0, high=1.0, alpha=0.03, steps=7, loss=loss, seed=11
    )
    assert torch.equal(seen[0], x)
    for number, radius in enumerate(radii):
        want = numpy_attack(model, x, y, radius, 0.03, 7, start, 0.0, 1.0, loss)
        got = seen[1 + 8 * number : 9 + 8 * number]
        for ours, theirs in zip(got, want, strict=True):
            assert np.allclose(ours.numpy(), theirs, rtol=0, atol=1e-12)
            assert (np.abs(ours.numpy() - x.numpy()) <= radius + 1e-15).all()
        right = pre_activations(model, want[-1])[-1].argmax(axis=1) == y.numpy()
        assert float(found.accuracy[number]) == pytest.approx(right.mean())


def test_batches_and_several_radii_change_nothing():
    model = relu_net([8, 16, 5], seed=2, scale=2.0)
    x, y = unit_points(50, 8), torch.arange(50) % 5
    whole = robust_accuracy(model, x, y, [0.05, 0.2], low=0, high=1, steps=5)
    parts = robust_accuracy(model, x, y, [0.05, 0.2], low=0, high=1, steps=5, batch_size=7)
    alone = robust_accuracy(model, x, y, 0.2, low=0, high=1, steps=5)
    assert torch.equal(whole.accuracy, parts.accuracy) and whole.clean == parts.clean
    assert torch.equal(whole.accuracy[1:], alone.accuracy)
    assert 0 < float(alone.accuracy) < float(whole.accuracy[0]) <= whole.clean


def test_a_sure_model_hides_behind_gradients_of_zero():
    """Logits 1000 apart: the cross-entropy's gradient is 0 for points that are right, and the margin's is not."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1000.0], [1000.0]]))
        model.bias.zero_()
    x = torch.tensor([[-0.5], [0.5], [0.5], [-0.5], [0.5]])
    y = torch.tensor([0, 1, 1, 1, 1])  # the fourth is wrong: its gradient is not 0, but it goes on being wrong
    blind = robust_accuracy(model, x, y, [0.6], low=-2, high=2, alpha=0.2, steps=5, random_start=False)
    assert blind.accuracy.tolist() == [0.8] and blind.zero_gradients.tolist() == [0.8]
    seeing = robust_accuracy(model, x, y, [0.6], low=-2, high=2, alpha=0.2, steps=5, random_start=False, loss="margin")
    assert seeing.accuracy.tolist() == [0.0] and seeing.zero_gradients.tolist() == [0.0]


def test_points_of_a_batch_do_not_weigh_on_each_other():
    """The gradient is 2^-149, the least float32 above 0, or a little more: a mean over the batch would make it 0."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    x, y = torch.full((200, 1), 51.0), torch.ones(200, dtype=torch.int64)  # exp(-102) is 5e-45
    found = robust_accuracy(model, x, y, 60.0, low=None, high=None, alpha=10.0, random_start=False)
    assert found.zero_gradients.tolist() == [0.0] and found.accuracy.tolist() == [0.0]


def test_zero_gradients_are_those_of_whole_points():
    """An input that the model does not read has no gradient; that is no attack that stands still."""
    model = nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    found = robust_accuracy(model, unit_points(9, 2), torch.zeros(9, dtype=torch.int64), 0.1, low=0, high=1)
    assert found.zero_gradients.tolist() == [0.0]


def test_perturbation_error_of_a_linear_map():
    """``E |W d|^2 = sigma^2 |W|_F^2``, and for one draw the number itself."""
    model = relu_net([6, 4], seed=1)
    x = points(500, 6)
    draw = torch.randn(500, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy() * 0.3
    weight = model[0].weight.detach().numpy()
    want = ((draw @ weight.T) ** 2).sum(axis=1).mean()
    assert perturbation_error(model, x, 0.3, seed=3) == pytest.approx(want, rel=1e-12)
    assert want == pytest.approx(0.09 * (weight**2).sum(), rel=0.1)


def test_perturbation_error_of_a_relu_network():
    model = relu_net([6, 9, 4], seed=1)
    x = points(70, 6)
    draw = torch.randn(70, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    outputs = [pre_activations(model, x.numpy() + shift)[-1] for shift in (0, 0.5 * draw)]
    want = ((outputs[1] - outputs[0]) ** 2).sum(axis=1).mean()
    assert perturbation_error(model, x, 0.5) == pytest.approx(want, rel=1e-12)
    assert perturbation_error(model, x, 0.5, batch_size=11) == pytest.approx(want, rel=1e-12)
    small = perturbation_error(model.float(), x.float(), 1e-6) / 1e-12  # float32 would be rounding alone
    slopes = [np.sum(input_jacobians(model, point)[-1] ** 2) for point in x.float().double().numpy()]
    assert small == pytest.approx(np.mean(slopes), rel=0.3)


def test_a_classifier_may_return_its_logits_in_a_dict():
    class Named(nn.Module):
        def __init__(self, *more):
            super().__init__()
            self.net, self.more = relu_net([3, 8, 4], seed=2), more

        def forward(self, x):
            return {"logits": self.net(x), "loss": None, **dict.fromkeys(self.more, x)}

    x, y = points(20, 3).sigmoid(), torch.arange(20) % 4
    attack = {"eps": [0.0, 0.1], "low": 0.0, "high": 1.0}
    found, plain = (robust_accuracy(model, x, y, **attack).accuracy for model in (Named(), Named().net))
    assert torch.equal(found, plain)
    with pytest.raises(TypeError, match=r"model must return one tensor, got dict with 2: plr.select takes one"):
        robust_accuracy(Named("features"), x, y, **attack)


def test_bad_arguments_of_the_attack_are_named():
    model, x, y = relu_net([3, 4, 2]), unit_points(5, 3), torch.tensor([0, 1, 0, 1, 0])

    def attack(model=model, x=x, y=y, eps=0.1, low=0, high=1, **more):
        return robust_accuracy(model, x, y, eps, low=low, high=high, **more)

    with pytest.raises(TypeError, match=r"model must be an nn.Module, got function"):
        attack(model=lambda x: x)
    with pytest.raises(ValueError, match=r"x must be \[n, \*input_shape\] with at least 1 point, got \[0, 3\]"):
        attack(x=x[:0], y=y[:0])
    with pytest.raises(TypeError, match=r"x must have the model's dtype torch.float64, got torch.float32"):
        attack(x=x.float())
    with pytest.raises(TypeError, match=r"y must be int64 class numbers, got torch.float64"):
        attack(y=y.double())
    with pytest.raises(ValueError, match=r"y must have shape \[5\], one for each point of x, got \[4\]"):
        attack(y=y[:4])
    with pytest.raises(ValueError, match=r"y must be at least 0 and below the 2 classes .* got 0 to 2"):
        attack(y=y * 2)
    with pytest.raises(ValueError, match=r"eps must be at least 0, got -0.1"):
        attack(eps=[0.1, -0.1])
    for eps in ([], "0.1", torch.tensor(0.1), None):
        with pytest.raises(TypeError, match=r"eps must be a number or a list of numbers, got"):
            attack(eps=eps)
    with pytest.raises(ValueError, match=r"x must be inside \[0, 0.5\]"):
        attack(high=0.5)
    with pytest.raises(ValueError, match=r"x must be inside \[0.5, 1\]"):
        attack(low=0.5)
    with pytest.raises(TypeError, match=r"low must be a number, got str"):
        attack(low="0")
    with pytest.raises(ValueError, match=r"alpha must be above 0, got 0"):
        attack(alpha=0)
    with pytest.raises(ValueError, match=r"steps must be at least 1, got 0"):
        attack(steps=0)
    with pytest.raises(ValueError, match=r"loss must be one of 'cross_entropy', 'margin', got 'mse'"):
        attack(loss="mse")
    with pytest.raises(TypeError, match=r"seed must be an integer, got float"):
        attack(seed=0.5)
    with pytest.raises(ValueError, match=r"model must return \[5, classes\] with 2 classes or more, got \[5, 1\]"):
        attack(model=relu_net([3, 1]))
    with pytest.raises(ValueError, match=r"model must return finite numbers"):
        attack(model=nn.Sequential(relu_net([3, 2]), nn.Softmax(1), nn.Threshold(2, float("inf"))))
    detached = relu_net([3, 2])
    detached.register_forward_hook(lambda module, args, out: out.detach())
    with pytest.raises(ValueError, match=r"model must be differentiable by its input"):
        attack(model=detached)
    with pytest.raises(ValueError, match=r"sigma must be above 0, got 0"):
        perturbation_error(model, x, 0.0)
    with pytest.raises(ValueError, match=r"x must be finite"):
        perturbation_error(model, x / 0.0, 0.1)
