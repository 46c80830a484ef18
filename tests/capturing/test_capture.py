"""The capture is reused while it holds, follows the live model, and names bad arguments."""

import gc
import importlib
import types
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import pylinregion as plr
from cases.small_models import Do, mlp, tied
from cases.witness import check

capture_module = importlib.import_module("pylinregion.capturing.capture")
pytestmark = pytest.mark.usefixtures("doubles")


@pytest.fixture
def traces(monkeypatch):
    """A list that grows by one whenever a module is traced."""
    seen = []
    trace = capture_module._from_module
    monkeypatch.setattr(capture_module, "_from_module", lambda *args: seen.append(args) or trace(*args))
    return seen


def test_counts_follow_the_weights_without_a_new_capture(traces):
    model, x = mlp(nn.ReLU(), nn.Linear(8, 8), nn.Tanh()), torch.randn(3, 6)
    network = plr.capture(model, x)
    assert network.state["0.weight"] is model[0].weight
    before = check(model, x)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
    model(x).square().sum().backward()
    optimiser.step()
    after = check(model, x)
    assert not torch.equal(before.changes, after.changes)
    with torch.no_grad():
        model[0].bias.add_(1.0)
    check(model, x)
    model[0].weight.data = torch.randn(8, 6)
    check(model, x)
    model.load_state_dict({name: torch.randn_like(value) for name, value in model.state_dict().items()})
    check(model, x)
    model.load_state_dict({name: torch.randn_like(value) for name, value in model.state_dict().items()}, assign=True)
    check(model, x)
    model[2].weight = nn.Parameter(torch.randn(8, 8))
    counts = plr.count_regions(network, x, 4.0, frame=plr.random_frame((6,), 6))  # a network of one's own follows too
    assert torch.equal(counts.changes, check(model, x).changes)
    assert len(traces) == 1


class Settings(nn.Module):
    """Reads about everything that an attribute can be."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(6, 8)])
        self.active = self.layers[0]
        self.alpha, self._beta, self.bounds, self.table = 0.2, 1.0, [0.4], {"low": {"at": 0.3}}
        self.config = types.SimpleNamespace(shift=0.0)
        self.act = F.leaky_relu
        self.offset = torch.randn(8)
        self.register_buffer("mean", torch.randn(8))

    def forward(self, x):
        h = self.active(x) * self._beta + self.offset + self.config.shift - self.mean
        return self.act(h.clamp(-self.table["low"]["at"], self.bounds[0]), self.alpha).abs()


CHANGES = {
    "number": lambda m: setattr(m, "alpha", -1.0),
    "private number": lambda m: setattr(m, "_beta", -2.0),
    "item of a list": lambda m: m.bounds.__setitem__(0, 1.5),
    "item of a dictionary": lambda m: m.table["low"].update(at=1.5),
    "field of an object": lambda m: setattr(m.config, "shift", 0.7),
    "function": lambda m: setattr(m, "act", lambda z, alpha: z.clamp(max=0.0).abs()),
    "other of two layers": lambda m: setattr(m, "active", m.layers[1]),
    "new layer": lambda m: setattr(m, "active", nn.Linear(6, 8)),
    "tensor": lambda m: setattr(m, "offset", torch.randn(8)),
    "tensor in place": lambda m: m.offset.neg_(),
    "buffer": lambda m: setattr(m, "mean", torch.randn(8)),
    "buffer of another shape": lambda m: setattr(m, "mean", torch.randn(1)),
    "hook": lambda m: m.active.register_forward_hook(lambda module, args, output: 2 * output),
    "weight decay": lambda m: [p.data.mul_(0.5) for p in m.parameters()],
}


def test_counts_follow_attributes(traces):
    """Each change on top of the others; equal captures are reused in between."""
    model, x = Settings(), torch.randn(3, 6)
    check(model, x, trivial=True)
    for change in CHANGES.values():
        before = len(traces)
        change(model)
        check(model, x, trivial=True)
        check(model, x, trivial=True)
        assert len(traces) <= before + 1


def test_a_hook_that_takes_anothers_place_is_noticed():
    model, x = mlp(), torch.randn(3, 6)
    for factor in (1.0, -1.0):
        handle = model[0].register_forward_hook(lambda module, args, output, factor=factor: factor * output + 0.3)
        check(model, x)
        handle.remove()


def test_parameters_that_are_no_longer_shared_are_noticed(traces):
    model, x = tied(), torch.randn(3, 6)
    check(model, x)
    model[2].weight = nn.Parameter(torch.randn(6, 6))
    check(model, x)
    assert len(traces) == 2


def test_new_modules_are_noticed():
    model, x = mlp(), torch.randn(3, 6)
    check(model, x)
    for threshold in (0.1, 0.4):
        model[1] = Do(lambda s, z, threshold=threshold: z.clamp(-threshold, threshold))
        check(model, x)


def test_another_dtype_or_shape_is_another_capture(traces):
    model, x = mlp(nn.ReLU(), Do(lambda s, z: z.mean(-1))), torch.randn(3, 6)
    network = plr.capture(model, x)
    plr.capture(model, torch.randn(2, 5, 6))
    assert plr.capture(model, x) is network and len(traces) == 2
    model.float()
    assert plr.capture(model, x.float()).dtype == torch.float32 and len(traces) == 3
    with pytest.raises(
        plr.UnsupportedModelError, match=r"0.weight was \[8, 6\] torch.float64 on cpu .* is now \[8, 6\] torch.fl"
    ):
        plr.count_regions(network, x, 0.5, n_directions=2)


def test_statistics_of_a_batch_norm_that_always_trains_are_put_back():
    """Batch norm writes into them without counting it as a change."""

    def normalised(self, x):
        return F.batch_norm(self.linear(x), self.mean, self.variance, training=True).relu()

    model = Do(normalised, linear=nn.Linear(6, 8), mean=torch.zeros(8), variance=torch.ones(8))
    with pytest.raises(plr.UnsupportedModelError, match=r"depends on the batch \(batch normalisation without running"):
        plr.capture(model, torch.randn(5, 6))
    assert torch.equal(model.mean, torch.zeros(8)) and torch.equal(model.variance, torch.ones(8))


def test_weight_norm_by_hooks_is_not_captured_each_time(traces):
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 8)), nn.ReLU())
    x = torch.randn(3, 6)
    for _ in range(2):
        check(model, x)
        with torch.no_grad():
            model[0].weight_g.mul_(-1.0)
    assert len(traces) == 1 and type(model[0].weight) is torch.Tensor


@pytest.mark.parametrize(
    "make",
    [
        mlp,
        lambda: mlp(nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 4)), nn.ReLU()),
        lambda: mlp(Do(lambda s, x: torch.subtract(x, 0.5).relu())),
    ],
    ids=["plain", "parametrized", "make_fx"],
)
def test_the_cache_does_not_keep_a_model_alive(make):
    model, x = make(), torch.randn(3, 6)
    network = plr.capture(model, x)
    gone, size = weakref.ref(model), len(capture_module._cache)
    del model
    gc.collect()
    assert gone() is None and len(capture_module._cache) < size
    assert plr.count_regions(network, x, 0.5, n_directions=3).changes.shape == (3, len(network.layers))


# Arguments.


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_bad_parameters_are_found_when_counting(value):
    model, x = mlp(), torch.randn(3, 6)
    check(model, x)
    with torch.no_grad():
        model[0].bias[2] = value
    with pytest.raises(plr.UnsupportedModelError, match=r"the model's 0.bias has NaN or infinite entries"):
        plr.count_regions(model, x, 0.5, n_directions=2)


def test_bad_arguments_are_named():
    model, x = mlp(), torch.randn(3, 6)
    with pytest.raises(TypeError, match="model must return a tensor, got int without one"):
        plr.capture(mlp(Do(lambda s, x: 3)), x)
    with pytest.raises(
        ValueError, match=r"^x must be points the model takes, got \[B, 7\] torch.float64, .*RuntimeError"
    ):
        plr.capture(model, torch.randn(3, 7))
    with pytest.raises(ValueError, match=r"example must be \[B, \*input_shape\]"):
        plr.capture(model, torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"example must be a torch.Tensor, got list"):
        plr.capture(model, [1.0])
    with pytest.raises(TypeError, match=r"example must be float32, .* got torch.int64"):
        plr.capture(model, torch.zeros(3, 6, dtype=torch.long))
    with pytest.raises(TypeError, match=r"model must be an nn.Module, .* got function"):
        plr.capture(lambda x: x, x)


def test_no_points_are_enough_to_capture():
    model = mlp()
    assert plr.capture(model, torch.randn(0, 6)) is plr.capture(model, torch.randn(3, 6))


class OfFinite(nn.Module):
    """Two neurons of what a function makes of the input, which is refused unless it is finite."""

    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, nn.Linear(2, 2)

    def forward(self, x):
        z = self.function(x)
        if not torch.isfinite(z).all():
            raise ValueError("not finite")
        return self.linear(z).relu()


def test_where_there_are_no_points_some_are_drawn():
    """At zeros, which it was, this model makes NaN."""
    assert plr.capture(OfFinite(lambda x: x / x.norm(dim=1, keepdim=True)), torch.zeros(0, 2)).layer_names == ("relu",)


def test_the_origin_of_a_slice_is_no_example():
    """It is 1e39 here, which float32 has not; exact methods look at the function."""
    origin, *axes = torch.tensor([[1e39, 0.0], [1.0, 0.0], [0.0, 1.0]])
    square = [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    model = OfFinite(lambda x: x).float()
    assert plr.partition(model, plr.Slice(origin, *axes, square)).n_regions == 1
    assert plr.trace(model, origin, origin + axes[1]).n_regions.tolist() == [1]


def test_for_a_shape_dtype_and_device_are_the_models():
    model = mlp().float()
    network = capture_module.capture_for_shape(model, [6])
    assert network is plr.capture(model, torch.randn(3, 6, dtype=torch.float32)) and network.dtype == torch.float32
    assert capture_module.capture_for_shape(network, [6]) is network
    with pytest.raises(TypeError, match=r"model must be an nn.Module, .* got function"):
        capture_module.capture_for_shape(lambda x: x, [6])
