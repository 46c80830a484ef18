"""Feature ranks, tunnels and linear probes, against NumPy and known ranks."""

import numpy as np
import pytest
import torch
from torch import nn

from cases.measures import points, pre_activations, relu_net
from pylinregion import capture, explain
from pylinregion.measures import feature_ranks, linear_probes, linear_probing, tunnel_length

EPS = 2.0**-52


def rank(features, size):
    singular = np.linalg.svd(np.cov(features.T), compute_uv=False)
    return int((singular > size * EPS * singular.max()).sum())


def narrow(width, seed=0):
    """A layer of ``width`` ranks inside a wider network."""
    model = relu_net([10, 30, 30, 30, 5], seed=seed)
    with torch.no_grad():
        model[2].weight.copy_(points(30, width, seed=8) @ points(width, 30, seed=9))
    return model


@pytest.mark.parametrize("n", [12, 30, 31, 300])
def test_ranks_are_those_of_the_covariances(n):
    """Fewer points than neurons, as many, one more, and many."""
    model, x = narrow(4), points(n, 10)
    want = [rank(z, z.shape[1]) for z in pre_activations(model, x.numpy())]
    assert want[1] == 4 and want[0] == min(10, n - 1)
    for size in (5, 256):
        found = feature_ranks(model, x, include_output=True, batch_size=size)
        assert found == dict(zip(["1", "3", "5", "output"], want, strict=True))
    assert list(feature_ranks(model, x)) == ["1", "3", "5"]
    assert feature_ranks(capture(model, x), x) == feature_ranks(model, x)


@pytest.mark.parametrize("size", [5, 30, 60])
def test_the_mean_of_features_costs_no_digits(size):
    """A bias of 10^6: the covariance from sums of squares would have full rank by rounding."""
    model, x = narrow(4), points(200, 10)
    with torch.no_grad():
        model[2].bias.fill_(1e6)
    assert feature_ranks(model, x, batch_size=size)["3"] == 4


def test_both_thresholds():
    """A singular value between d e and n e of the largest."""
    scales = torch.tensor([1.0, 1.0, (50 * EPS) ** 0.5], dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 3, bias=False, dtype=torch.float64), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(scales))
    x = points(200, 3)
    x = torch.linalg.qr(x - x.mean(dim=0))[0]  # centred, uncorrelated, of one variance
    assert feature_ranks(model, x) == {"1": 3} == feature_ranks(model, x, threshold="code")
    assert feature_ranks(model, x, threshold="text") == {"1": 2}


def test_float32_models_are_evaluated_in_float64():
    """In float32 the features themselves have rounding errors far above the threshold."""
    model, x = nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 30), nn.ReLU()), points(200, 10, dtype=torch.float32)
    nn.init.constant_(model[1].bias, 100.0)
    assert feature_ranks(model, x) == {"2": 3}
    assert rank(model[:2](x).detach().double().numpy(), 30) > 3


def test_casts_inside_a_model_are_not_rounded_to():
    """A cast to the model's dtype is one to float64 here."""

    class Cast(nn.Sequential):
        def forward(self, x):
            return super().forward(x).to(torch.float32).relu()

    model, x = Cast(nn.Linear(10, 3), nn.Linear(3, 30)), points(200, 10, dtype=torch.float32)
    nn.init.constant_(model[1].bias, 100.0)
    assert list(feature_ranks(model, x).values()) == [3]


def test_ranks_of_convolutions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4), nn.GELU())
    model, x = model.double(), points(150, 1, 6, 6)
    found = feature_ranks(model, x)
    features = model[0](x).flatten(1).detach().numpy()
    assert found == {"1": rank(features, 48), "5": 4} and found["1"] == 36
    assert "max_pool" in str(explain(model, x)) and list(found) == ["1", "5"]  # a max-pool has no pre-activation


def test_tunnel_length():
    ranks = dict(zip("abcdef", [400, 357, 300, 299, 47, 1], strict=True))
    assert tunnel_length(ranks) == 3 and tunnel_length(ranks, 301) == 4 and tunnel_length(ranks, 1) == 0
    with pytest.raises(TypeError, match=r"ranks must be a mapping from layers to ranks, got list"):
        tunnel_length([1, 2])
    with pytest.raises(ValueError, match=r"ranks must have at least 1 layer, got none"):
        tunnel_length({})
    with pytest.raises(TypeError, match=r"below must be an integer, got float"):
        tunnel_length(ranks, 1.5)


def numpy_probe(z, y, order, classes, epochs, lr, batch_size, penalty, generator):
    """Adam by hand, with the package's draws."""
    bound = 1 / np.sqrt(z.shape[1])
    start = torch.rand(classes, z.shape[1] + 1, generator=generator, dtype=torch.float64).numpy()
    theta = (2 * start - 1) * bound
    first, second, step = np.zeros_like(theta), np.zeros_like(theta), 0
    z, y = z[order], y[order]
    for _ in range(epochs):
        shuffled = torch.randperm(len(z), generator=generator).numpy()
        for begin in range(0, len(z), batch_size):
            rows = shuffled[begin : begin + batch_size]
            logits = z[rows] @ theta[:, :-1].T + theta[:, -1]
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), y[rows]] -= 1
            gradient = p.T @ np.column_stack([z[rows], np.ones(len(rows))]) / len(rows)
            gradient[:, :-1] += penalty * theta[:, :-1] / np.linalg.norm(theta[:, :-1])
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            theta = theta - lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return theta


@pytest.mark.parametrize("penalty", [0.001, 3.0])
def test_probes_are_those_of_numpy(penalty):
    model, x, x_test = relu_net([6, 9, 8, 3], seed=1), points(103, 6), points(57, 6, seed=4)
    y, y_test = model(x).argmax(1), model(x_test).argmax(1)
    found = linear_probes(
        model, x, y, x_test, y_test, epochs=7, lr=0.05, batch_size=32, weight_penalty=penalty, held_out=0.2, seed=3
    )
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(103, generator=generator).numpy()
    held_out, train = order[:20], order[20:]
    assert list(found.test) == list(found.validation) == ["1", "3"]
    for number, name in enumerate(found.test):
        z, unseen = (pre_activations(model, points_.numpy())[number] for points_ in (x, x_test))
        twin = torch.Generator().set_state(generator.get_state())
        theta = numpy_probe(z, y.numpy(), train, 3, 7, 0.05, 32, penalty, generator)
        own = linear_probing._train(torch.from_numpy(z[train]), y[train], 3, 7, 0.05, 32, penalty, twin)
        assert np.allclose(torch.cat([own[0], own[1][:, None]], dim=1).numpy(), theta, rtol=1e-9, atol=1e-12)

        def accuracy(features, labels, theta=theta):
            return np.mean((features @ theta[:, :-1].T + theta[:, -1]).argmax(axis=1) == labels)

        assert found.test[name] == pytest.approx(accuracy(unseen, y_test.numpy()))
        assert found.validation[name] == pytest.approx(accuracy(z[held_out], y.numpy()[held_out]))
        assert 0.3 < found.test[name] < 1


def test_probes_tell_what_a_layer_knows():
    """The second layer sees only the first input, the labels are of both."""
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [1, 2], [2, 1]]))
        model[2].weight[:, 2:] = 0
    x, x_test = points(600, 2), points(600, 2, seed=2)
    y, y_test = (2 * (v[:, 0] > 0) + (v[:, 1] > 0) for v in (x, x_test))
    found = linear_probes(model, x, y, x_test, y_test, lr=0.03).test
    assert found["1"] > 0.9 and 0.35 < found["3"] < 0.65


def test_probes_without_validation():
    model, x, y = relu_net([3, 4, 2]), points(5, 3), torch.tensor([0, 1, 0, 1, 0])
    assert np.isnan(linear_probes(model, x, y, x, y, epochs=1, held_out=0.1).validation["1"])


def test_a_layer_without_neurons_has_rank_zero():
    with pytest.warns(UserWarning, match="zero-element"):
        model = torch.nn.Sequential(torch.nn.Linear(3, 0), torch.nn.ReLU(), torch.nn.Linear(0, 2)).double()
    assert feature_ranks(model, points(5, 3)) == {"1": 0}


def test_bad_arguments_are_named():
    model, x, y = relu_net([3, 4, 2]), points(5, 3), torch.tensor([0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match=r"threshold must be one of 'code', 'text', got 'paper'"):
        feature_ranks(model, x, threshold="paper")
    with pytest.raises(ValueError, match=r"x must be \[n, \*input_shape\] with at least 2 points, got \[1, 3\]"):
        feature_ranks(model, x[:1])
    with pytest.raises(ValueError, match=r"model must have an elementwise activation"):
        feature_ranks(relu_net([3, 2]), x)
    with pytest.raises(ValueError, match=r"in module '2' .*is NaN or infinite at some point of x"):
        feature_ranks(relu_net([3, 4, 4, 2], scale=1e170), x)
    with pytest.raises(ValueError, match=r"x must be \[n, 3\], as the network was captured, got \[5, 2\]"):
        feature_ranks(capture(model, x), x[:, :2])
    with pytest.raises(TypeError, match=r"x must be torch.float64, as the network was captured, got torch.float32"):
        feature_ranks(capture(model, x), x.float())
    with pytest.raises(ValueError, match=r"y must have shape \[5\]"):
        linear_probes(model, x, y[:3], x, y)
    with pytest.raises(ValueError, match=r"y_test must have shape \[4\], one for each point of x_test, got \[5\]"):
        linear_probes(model, x, y, x[:4], y)
    with pytest.raises(ValueError, match=r"x_test must be finite"):
        linear_probes(model, x, y, x / 0, y)
    with pytest.raises(ValueError, match=r"held_out must be below 1, got 1"):
        linear_probes(model, x, y, x, y, held_out=1.0)
    with pytest.raises(ValueError, match=r"lr must be above 0, got 0"):
        linear_probes(model, x, y, x, y, lr=0)
    with pytest.raises(ValueError, match=r"weight_penalty must be at least 0, got -1"):
        linear_probes(model, x, y, x, y, weight_penalty=-1)
