"""Control flow: branches on constants are followed and watched, checks that only guard are passed, data is refused."""

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, Normal

import pylinregion as plr
from cases.small_models import Do, mlp
from cases.witness import check
from pylinregion.capturing import tracing

pytestmark = pytest.mark.usefixtures("doubles")


class Normalize(nn.Module):
    """As torchvision.transforms.v2 writes it."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, image):
        if not image.is_floating_point():
            raise TypeError("float expected")
        if image.ndim < 3:
            raise ValueError("images expected")
        dtype, device = image.dtype, image.device
        mean = torch.as_tensor(self.mean, dtype=dtype, device=device)
        std = torch.as_tensor(self.std, dtype=dtype, device=device)
        if (std == 0).any():
            raise ValueError("std evaluated to zero")
        if mean.ndim == 1:
            mean = mean.view(-1, 1, 1)
        if std.ndim == 1:
            std = std.view(-1, 1, 1)
        return image.clone().sub_(mean).div_(std)


MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]


@pytest.mark.parametrize("kind", ["lists", "tensors", "buffers"])
def test_torchvisions_normalize(kind):
    normalize = Normalize(MEAN, STD)
    if kind == "tensors":
        normalize = Normalize(torch.tensor(MEAN), torch.tensor(STD))
    if kind == "buffers":
        del normalize.mean, normalize.std
        normalize.register_buffer("mean", torch.tensor(MEAN))
        normalize.register_buffer("std", torch.tensor(STD))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model, x = nn.Sequential(normalize, net), torch.rand(3, 3, 6, 6)
    frame = plr.random_frame((3, 6, 6), 6)
    counts = check(model, x, radius=0.5)
    scaled = (x - torch.tensor(MEAN).view(3, 1, 1)) / 0.25
    normalize.std = torch.full((3,), 0.25) if kind == "buffers" else [0.25] * 3
    counts = plr.count_regions(model, x, 0.5, frame=frame)
    assert torch.equal(counts.total, plr.count_regions(net, scaled, 2.0, frame=frame).total)
    for method in ("axes", "slice"):
        plr.count_regions(model, x, 0.5, method, frame=frame[:2])


def on_a_buffer(s, x):
    return s.linear(x).relu() if s.scale > 0 else s.linear(x).abs()


def on_all_of_a_parameter(s, x):
    assert (s.linear.weight.abs() < 1e9).all()
    assert torch.isfinite(s.linear.weight).all(), "a check of a parameter"
    torch._assert((s.linear.weight < 1e9).all(), "another")
    return s.linear(x).relu()


def on_a_number(s, x):
    h = s.linear(x)
    return (h * 3).relu() if s.scale.item() > 1 and float(s.scale) > 1 else h.abs()


def on_a_sum_made_in_forward(s, x):
    total = torch.linspace(0, 1, 5, dtype=x.dtype).sum() * s.scale
    return s.linear(x).relu() if total > 0 else s.linear(x).abs()


def on_equality(s, x):
    h = s.linear(x)
    if torch.equal(s.scale, torch.tensor(2.0)) and torch.allclose(s.scale, torch.full((), 2.0 + 1e-9)):
        h = h.abs() * 2 + h.relu()
    return h if 2.0 in s.scale.view(1) else h.abs()


def shapes_from_numbers(s, x):
    n = int(s.count)
    halves = [s.linear(x)[:, k * n : (k + 1) * n] for k in range(s.count)]
    return sum(halves).relu() * s.scale.tolist() + torch.from_numpy(s.row.numpy()[:n].copy())


class Flags(Do):
    """Has something to branch on."""

    def __init__(self, function):
        super().__init__(function, scale=torch.tensor(2.0), count=torch.tensor(2), row=torch.arange(4.0))
        self.linear = nn.Linear(6, 8)


def agrees(model, plain, x):
    """The counts are those that the oracle has for a forward pass that asks nothing."""
    frame = plr.random_frame((6,), 6)
    bare = Do(plain, scale=model.scale, row=model.row, linear=model.linear)
    assert torch.equal(plr.count_regions(model, x, 4.0, frame=frame).total, check(bare, x).total)


def rectified(s, x):
    return s.linear(x).relu()


def folded(s, x):
    return s.linear(x).abs()


CONSTANT = {  # each with what it is, and what it is when the scale is no longer 2 but -3, or 1 column is summed, not 2
    on_a_buffer: (rectified, folded),
    on_all_of_a_parameter: (rectified, None),
    on_a_number: (rectified, folded),
    on_a_sum_made_in_forward: (rectified, folded),
    on_equality: (lambda s, x: folded(s, x) * 2 + rectified(s, x), folded),
    shapes_from_numbers: (
        lambda s, x: (s.linear(x)[:, :2] + s.linear(x)[:, 2:4]).relu(),
        lambda s, x: s.linear(x)[:, :1].relu(),
    ),
}


@pytest.mark.part(2)
@pytest.mark.parametrize("mechanism", ["torch.export", "make_fx"])
@pytest.mark.parametrize("forward", CONSTANT)
def test_branches_on_constants_are_followed_and_watched(forward, mechanism, monkeypatch):
    if mechanism == "make_fx":
        monkeypatch.setattr(tracing, "_export", lambda *args, **named: 1 / 0)
    model, x = Flags(forward), torch.randn(3, 6)
    before, after = CONSTANT[forward]
    agrees(model, before, x)
    network = plr.capture(model, x)
    assert network.method == mechanism
    with torch.no_grad():
        model.linear.weight.mul_(2.0)
    agrees(model, before, x)
    assert plr.capture(model, x) is network, "no branch was taken by what has changed"
    if after is None:
        return
    with torch.no_grad():
        model.scale.sub_(5)
        model.count.sub_(1)
    agrees(model, after, x)
    assert plr.capture(model, x) is not network
    with pytest.raises(plr.UnsupportedModelError, match=r"control flow at test_branches.py:\d+: .* capture the"):
        plr.count_regions(network, x, 1.0, n_directions=2)


def test_numbers_that_a_fallback_reads_do_not_stay_as_they_were(monkeypatch):
    """make_fx sees parameters with their values, and would keep a number that is read of one."""
    model, x = Flags(lambda s, x: (s.linear(x) - float(s.scale)).relu()), torch.randn(3, 6)
    check(model, x)
    with torch.no_grad():
        model.scale.neg_()
    check(model, x)


def test_a_list_is_not_taken_for_its_first_number():
    model, x = Flags(lambda s, x: (s.linear(x) * max(s.row.tolist())).relu()), torch.randn(3, 6)
    agrees(model, rectified, x)
    assert [guard.seen.tolist() for guard in plr.capture(model, x).guards] == [[0.0, 1.0, 2.0, 3.0]]


def test_a_number_that_is_only_used_follows_the_model():
    model, x = Flags(lambda s, x: (s.linear(x) - s.scale.item()).relu()), torch.randn(3, 6)
    check(model, x)
    network = plr.capture(model, x)
    with torch.no_grad():
        model.scale.neg_()
    check(model, x)
    assert plr.capture(model, x) is network


def by_largest(s, x):
    return x.relu() if x.max() > 0 else x


def by_replacing(s, x):
    h = s.linear(x).relu()
    return h.abs() if not h.any() else h


def by_sum(s, x):
    return x.relu() if torch.isnan(x).any() or x.sum() > 0 else x


@pytest.mark.parametrize("forward", [by_largest, by_replacing, by_sum])
def test_branches_on_data_are_refused_where_they_are(forward):
    model = nn.Sequential(nn.Linear(6, 6), Flags(forward))
    place = r"in module '1' at test_branches.py:\d+: .*"
    with pytest.raises(plr.UnsupportedModelError, match=f"control flow depends on the data {place} single graph"):
        plr.capture(model, torch.randn(3, 6))


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: s.linear(x).relu() * torch.as_tensor(x.sum(1).numpy()).mean(),
        lambda s, x: s.linear(x).relu() * (1 if float(x.sum()) > 0 else 2),
    ],
)
def test_numbers_of_data_are_not_kept(forward):
    model = Flags(forward)
    with pytest.raises(plr.UnsupportedModelError, match=r"Python's numbers of values that depend .* at test_branches"):
        plr.capture(model, torch.randn(3, 6))


# Checks that only guard.


def raises_for_nan(s, x):
    h = s.linear(x)
    if torch.isnan(x).any() or torch.isnan(h).any() or torch.isinf(h).sum() > 0:
        raise ValueError("NaN")
    return h.relu()


def asserts_finite(s, x):
    h = s.linear(x)
    assert torch.isfinite(h).all() and not (h != h).any(), "NaN"
    torch._assert(~torch.isnan(h.mean()), "NaN")
    assert torch.isnan(h.sum(0)).logical_not().all() and not bool((h.abs() == torch.inf).any())
    return h.relu()


def replaces_nan(s, x):
    h = s.linear(x)
    if not torch.isfinite(h).all():
        h = torch.nan_to_num(h)
    return h.relu()


def counts_nan(s, x):
    h = s.linear(x)
    bad = int(torch.isnan(h).sum()) + torch.isnan(h).float().mean().item()
    return h.relu() if bad == 0 else h


@pytest.mark.part(2)
@pytest.mark.parametrize("mechanism", ["torch.export", "make_fx"])
@pytest.mark.parametrize("forward", [raises_for_nan, asserts_finite, replaces_nan, counts_nan])
def test_checks_for_nan_are_passed(forward, mechanism, monkeypatch):
    if mechanism == "make_fx":
        monkeypatch.setattr(tracing, "_export", lambda *args, **named: 1 / 0)
    model, x = Flags(forward), torch.randn(3, 6)
    agrees(model, rectified, x)
    assert plr.capture(model, x).method == mechanism


def test_hooks_that_look_for_anomalies():
    def hook(module, args, output):
        if torch.isnan(output).any() or torch.isinf(output).any():
            raise RuntimeError(f"NaN in {module}")

    model = mlp(nn.ReLU(), nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 2))
    for part in model.modules():
        part.register_forward_hook(hook)
    check(model, torch.randn(3, 6))
    counts = plr.count_regions(model, torch.randn(3, 6), 0.1, n_directions=4, displacement=True)
    assert counts.layers == ("1", "3"), "what chains look at themselves does not keep them from counting"


def test_values_that_are_checked_in_front_of_the_first_kink():
    """They are affine in the input, and no operator but an affine one takes them."""

    def forward(s, x):
        h = s.linear(x)
        if not torch.isfinite(h).all():
            raise RuntimeError("NaN")
        return h.mul(2.0).relu()

    model, x = Flags(forward), torch.randn(3, 6)
    agrees(model, lambda s, x: s.linear(x).mul(2.0).relu(), x)
    with torch.no_grad():
        model.linear.weight.mul_(1e200)
    with pytest.raises(ValueError, match="are NaN or infinite around point 0 of x"):
        plr.count_regions(model, 1e200 * x, 0.1, n_directions=4)


def test_values_that_are_checked_and_hidden_are_looked_at_where_they_are_counted():
    """At some vertices the model goes another way: it must not be counted on this one."""

    def forward(s, x):
        h = 1 / s.linear(x).relu().clamp(max=1.0)  # infinite where a neuron is off
        if not torch.isfinite(h).all():
            h = -h.reciprocal()
        return (h.reciprocal() - 0.3).relu()

    model, x = Flags(forward), torch.randn(4, 6)
    with torch.no_grad():
        model.linear.weight.mul_(0.1)
        model.linear.bias.fill_(4.0)
    assert plr.count_regions(model, x, 0.1, n_directions=4).layers == ("relu#1", "clamp", "relu#2")
    way = r"a value is NaN or infinite, for which the model goes another way at test_branches.py:\d+: if not torch"
    with torch.no_grad():
        model.linear.bias[3] = 0.0
        across = torch.linalg.pinv(model.linear.weight[3:4])[:, 0]  # the neuron's own hyperplane is at 0
    with pytest.raises(ValueError, match="^around point 2 of x " + way):
        plr.count_regions(model, across * torch.tensor([[2.0], [2], [0], [2]]), 0.1, n_directions=4)
    with pytest.raises(plr.UnsupportedModelError, match="^at points like x " + way):
        plr.count_regions(Flags(forward), torch.full((2, 6), 1e3), 0.1, n_directions=4)


def test_repairs_of_nan_leave_finite_values_alone():
    """With the same refusal where they would do something, which only they would hide."""
    model, x = Flags(lambda s, x: torch.nan_to_num(s.linear(x), nan=3.0).relu()), torch.randn(3, 6)
    agrees(model, rectified, x)
    assert plr.explain(model, x).coverage["partition"] is None
    hidden = Flags(lambda s, x: torch.nan_to_num(1 / s.linear(x).relu(), posinf=0.0))
    with torch.no_grad():
        hidden.linear.weight.mul_(0.01)
        hidden.linear.bias.fill_(4.0)
    assert plr.count_regions(hidden, x, 0.1, n_directions=2, include_output=True).layers == ("relu", "output")
    with torch.no_grad():
        hidden.linear.bias.fill_(-4.0)
    assert not plr.count_regions(hidden, x, 0.1, n_directions=2).total.any(), "no neuron is behind it"
    with pytest.raises(ValueError, match=r"'output' are NaN or infinite around point 0 of x"):
        plr.count_regions(hidden, x, 0.1, n_directions=2, include_output=True)


# Distributions.


class Policy(nn.Module):
    def __init__(self, act, **settings):
        super().__init__()
        self.body, self.mean, self.spread = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.act, self.settings = act, settings

    def forward(self, x):
        h = self.body(x).relu()
        return self.act(Normal(self.mean(h), self.spread(h).clamp(-5, 2).exp(), **self.settings))


@pytest.mark.part(2)
@pytest.mark.parametrize(
    "act",
    [
        lambda normal: normal.mean,
        lambda normal: normal.stddev.relu(),
        lambda normal: Independent(normal, 1).mean,
        lambda normal: normal.log_prob(torch.zeros(3)).tanh(),
        lambda normal: Categorical(logits=normal.mean).logits,
        lambda normal: Bernoulli(logits=normal.mean).mean,
    ],
)
def test_distributions_on_a_path_without_chance(act):
    before = torch.distributions.Distribution._validate_args
    model, x = Policy(act), torch.randn(3, 6)
    frame = plr.random_frame((6,), 6)
    counts = plr.count_regions(model, x, 4.0, frame=frame)
    bare = mlp(nn.ReLU())
    bare[0] = model.body
    assert torch.equal(counts.changes[:, 0], check(bare, x).changes[:, 0])
    assert torch.distributions.Distribution._validate_args is before


def test_samples_and_checks_by_ones_own_wish_are_refused():
    with pytest.raises(plr.UnsupportedModelError, match=r"normal.* at test_branches.py:\d+: .* depends on chance"):
        plr.capture(Policy(lambda normal: normal.rsample()), torch.randn(3, 6))
    with pytest.raises(plr.UnsupportedModelError, match=r"control flow depends on the data at test_branches.py:\d+: "):
        plr.capture(Policy(lambda normal: normal.mean, validate_args=True), torch.randn(3, 6))
