"""Curvature of the loss, against Jacobians in NumPy and full Hessians."""

import numpy as np
import pytest
import torch
from torch import nn

from cases.measures import parameter_jacobian, points, pre_activations, relu_net, softmax
from cases.small_models import Do
from pylinregion import UnsupportedModelError, capture
from pylinregion.measures import _gradients, largest_eigenvalue, sharpness


def hessian(model, x, y, loss):
    """Of the mean loss by all parameters, entry by entry."""
    shapes = [p.shape for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    start = torch.cat([p.detach().double().flatten() for p in model.parameters()])

    def value(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        tensors = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        out = torch.func.functional_call(model, tensors, (x.double(),)).flatten(1)
        if loss == "cross_entropy":
            return nn.functional.cross_entropy(out, y)
        return 0.5 * (out - y).square().sum() / len(x)

    return torch.autograd.functional.hessian(value, start).numpy()


@pytest.mark.parametrize("widths", [[4, 3], [4, 6, 3], [3, 5, 5, 2]])
def test_sharpness_is_the_mean_squared_norm_of_the_gradients(widths):
    model, x = relu_net(widths, seed=1), points(17, widths[0])
    want = np.mean([(parameter_jacobian(model, point) ** 2).sum() for point in x.numpy()])
    assert sharpness(model, x) == pytest.approx(want, rel=1e-12)
    assert sharpness(model.float(), x.float()) == pytest.approx(want, rel=1e-5)


def test_sharpness_of_the_cross_entropy():
    model, x = relu_net([4, 6, 3], seed=1), points(17, 4)
    want = 0.0
    for point, logits in zip(x.numpy(), pre_activations(model, x.numpy())[-1], strict=True):
        jacobian, p = parameter_jacobian(model, point), softmax(logits)
        want += np.trace(jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian) / 17
    assert sharpness(model, x, loss="cross_entropy") == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_it_is_the_trace_of_the_hessian_at_any_labels(loss):
    """For networks that are affine in each parameter."""
    torch.manual_seed(0)
    convolution = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3)
    ).double()
    convolution[1].running_mean.normal_()
    convolution[1].weight.data.normal_()
    for model, x in ((relu_net([4, 6, 5, 3], seed=2), points(9, 4)), (convolution.eval(), points(9, 1, 4, 4))):
        y = torch.arange(9) % 3 if loss == "cross_entropy" else points(9, 3, seed=8)
        want = np.trace(hessian(model, x, y, loss))
        assert sharpness(model, x, loss=loss) == pytest.approx(want, rel=1e-10)


def test_at_interpolation_it_is_the_trace_whatever_the_network():
    """Tied weights and tanh: affine in nothing."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 3, dtype=torch.float64)
    model, x = nn.Sequential(layer, nn.Tanh(), layer), points(6, 3)
    at, off = model(x).detach(), points(6, 3, seed=7)
    assert sharpness(model, x) == pytest.approx(np.trace(hessian(model, x, at, "squared")), rel=1e-10)
    assert sharpness(model, x) != pytest.approx(np.trace(hessian(model, x, off, "squared")), rel=1e-3)


def test_parameters_that_two_modules_share():
    """One tensor with two names: one set of parameters, whose gradients add up."""
    model, x = relu_net([3, 3, 3], seed=1), points(6, 3)
    model[2].weight = model[0].weight
    at = model(x).detach()
    want = hessian(model, x, at, "squared")
    assert len(want) == 15
    assert sharpness(model, x) == pytest.approx(np.trace(want), rel=1e-10)
    found = largest_eigenvalue(model, x, at)
    assert found == pytest.approx(np.linalg.eigvalsh(want)[-1], rel=1e-6)
    separate = relu_net([3, 3, 3], seed=1)
    network = capture(separate, x)
    separate[2].weight = separate[0].weight  # after the capture, which knows them by two names
    with pytest.raises(UnsupportedModelError, match="capture the model again"):
        sharpness(network, x)
    assert largest_eigenvalue(separate, x, at) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_batches_change_nothing(loss, monkeypatch):
    """Dense layers take as many points as they like, convolutions as many as their Jacobians leave room for."""
    torch.manual_seed(0)
    dense, x = relu_net([4, 6, 3], seed=1), points(17, 4)
    mixed = nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)
    ).double()
    whole = [sharpness(model, x, loss=loss) for model in (dense, mixed)]
    alone = [np.mean([sharpness(model, point[None], loss=loss) for point in x]) for model in (dense, mixed)]
    assert alone == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(_gradients, "_LARGEST_JACOBIANS", 5 * 3 * 6)
    assert sharpness(mixed, x, loss=loss) == pytest.approx(whole[1], rel=1e-12)
    monkeypatch.setattr(_gradients, "_BATCH", 4)
    assert [sharpness(model, x, loss=loss) for model in (dense, mixed)] == pytest.approx(whole, rel=1e-12)


class Odd(nn.Module):
    """Linear layers of all kinds: one without a bias, one used twice, one on matrices, a weight read elsewhere too."""

    def __init__(self):
        super().__init__()
        self.plain, self.twice, self.wide = nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(2, 2)
        self.scaled, self.fixed = nn.Linear(4, 3), nn.Linear(4, 4)
        self.register_buffer("buffer", torch.randn(4, 4))

    def forward(self, x):
        h = self.twice(self.twice(self.plain(x)).relu()).relu()
        h = self.wide(h.unflatten(1, (2, 2))).flatten(1).tanh()
        h = nn.functional.linear(h, self.buffer, self.fixed.bias)
        return self.scaled(h) * self.scaled.weight.sum()


def test_gradients_of_layers_of_all_kinds():
    torch.manual_seed(0)
    model, x = Odd().double(), points(5, 4)
    names = dict(model.named_parameters())
    names.pop("fixed.weight")  # nothing reads it
    want = 0.0
    for point in x:

        def outputs(*tensors, point=point):
            return torch.func.functional_call(model, dict(zip(names, tensors, strict=True)), (point[None],))[0]

        jacobians = torch.autograd.functional.jacobian(outputs, tuple(names.values()))
        want += sum(float(jacobian.square().sum()) for jacobian in jacobians) / 5
    assert sharpness(model, x) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("widths", [[4, 3], [4, 6, 3]])
def test_largest_eigenvalue_is_that_of_the_full_hessian(widths, loss):
    model, x, y = relu_net(widths, seed=3, scale=2.0), points(20, 4), torch.arange(20) % 3
    targets = y if loss == "cross_entropy" else nn.functional.one_hot(y, 3).double()
    want = np.linalg.eigvalsh(hessian(model, x, targets, loss))
    if len(widths) == 3:
        assert want[0] < -1e-3  # there are negative ones too
    found = largest_eigenvalue(model, x, y, loss=loss)
    assert found == pytest.approx(want[-1], rel=1e-6)
    assert largest_eigenvalue(model, x, y, loss=loss, batch_size=7, seed=5) == pytest.approx(want[-1], rel=1e-6)
    if loss == "squared":
        assert largest_eigenvalue(model, x, targets) == pytest.approx(found, rel=1e-9)
        off = points(20, 3, seed=9)
        want = np.linalg.eigvalsh(hessian(model, x, 30 * off, loss))
        assert largest_eigenvalue(model, x, 30 * off) == pytest.approx(want[-1], rel=1e-6)
        if len(widths) == 3:
            assert -want[0] > want[-1] * 0.5  # power iteration might find the other end


def test_an_eigenvalue_that_does_not_converge():
    model, x, y = relu_net([4, 6, 3], seed=3), points(20, 4), torch.arange(20) % 3
    with pytest.raises(RuntimeError, match=r"did not converge in 2 steps: .* raise steps or tolerance"):
        largest_eigenvalue(model, x, y, steps=2)


def test_a_model_without_curvature():
    """All neurons are off: only the last bias acts, and its Hessian is the identity."""
    model = relu_net([4, 6, 3], seed=3)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
    x = points(5, 4)
    assert sharpness(model, x) == pytest.approx(3.0)
    assert largest_eigenvalue(model, x, torch.arange(5) % 3) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_targets_have_the_shape_of_the_output(shape):
    """Of an output [B] they were once refused, and [B, 1] was wanted."""
    outputs = int(np.prod(shape, dtype=int))
    net, x = relu_net([4, 6, outputs], seed=3), points(5, 4)
    rows = torch.linspace(-1, 1, 5 * outputs, dtype=torch.float64).view(5, outputs)
    wanted = largest_eigenvalue(net, x, rows)
    odd = net.append(nn.Unflatten(1, shape) if shape else nn.Flatten(0))
    assert largest_eigenvalue(odd, x, rows.view(5, *shape)) == pytest.approx(wanted, rel=1e-9)
    assert largest_eigenvalue(odd, x, rows) == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(ValueError, match=rf"y must be \[5.*\] on cpu, as the model's output, got \[4, {outputs}\]"):
        largest_eigenvalue(odd, x, rows[1:])


def test_bad_arguments_are_named():
    model, x, y = relu_net([3, 4, 2]), points(5, 3), torch.tensor([0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match=r"loss must be one of 'squared', 'cross_entropy', got 'mse'"):
        sharpness(model, x, loss="mse")
    with pytest.raises(ValueError, match=r"model must have parameters that its output depends on"):
        sharpness(nn.ReLU(), x)
    with pytest.raises(ValueError, match=r"model must return at least one number for a point, this one returns none"):
        sharpness(nn.Sequential(model, nn.ReLU(), Do(lambda self, z: z[:, :0])), x)
    with pytest.raises(ValueError, match=r"y must be \[5, 2\] on cpu, as the model's output, got \[5, 3\] on cpu"):
        largest_eigenvalue(model, x, x)
    with pytest.raises(TypeError, match=r"y must be int64 class numbers, got torch.float64"):
        largest_eigenvalue(model, x, x[:, :2], loss="cross_entropy")
    with pytest.raises(ValueError, match=r"y must be at least 0 and below the 2 classes"):
        largest_eigenvalue(model, x, 3 * y)
    with pytest.raises(ValueError, match=r"tolerance must be above 0, got 0"):
        largest_eigenvalue(model, x, y, tolerance=0.0)
    with pytest.raises(TypeError, match=r"steps must be an integer, got float"):
        largest_eigenvalue(model, x, y, steps=1.5)
