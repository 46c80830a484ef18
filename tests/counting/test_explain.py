"""What ``explain`` says of a model."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr
from cases.small_models import Do
from pylinregion.counting import estimate as estimates
from pylinregion.lowering import lower


class Mixed(nn.Module):
    """A bit of everything, with names of modules, of functions, and of modules used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.act = nn.ReLU6()
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Sequential(nn.Linear(8, 4), nn.GELU())

    def forward(self, x):
        h = self.pool(self.act(self.conv(x)))
        h = self.act(h - 1).flatten(1)
        h = torch.where(h > 0.25, h, 0.5 * h)
        h = self.norm(h).clamp(min=-1)
        return torch.maximum(self.head(h), h[:, :4]).softmax(1)


class Two(nn.Module):
    def forward(self, x):
        return x.relu(), x


class Steps(nn.Module):
    def forward(self, x):
        return (x > 0).to(x.dtype)


class Affine(nn.Module):
    def forward(self, x):
        return 2 * x


class Square(nn.Module):
    def forward(self, x):
        return x.relu() * x


class Ratio(nn.Module):
    def forward(self, x):
        return x / x.abs().sum(1, keepdim=True)


class Picked(nn.Module):
    def forward(self, x):
        return x.gather(1, x.max(1, keepdim=True)[1])


class Sorted(nn.Module):
    def forward(self, x):
        return x.sort(1)[0]


class Scaled(nn.Module):
    """Piecewise affine: a value times a step, and quotients of constants."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(6))

    def forward(self, x):
        return x * (x > 0) / self.w.exp() + F.leaky_relu(x * self.w.sigmoid()) @ torch.ones(6, 6)


def test_rows_name_every_operator_that_matters():
    explanation = plr.explain(Mixed(), torch.randn(2, 1, 6, 6))
    rows = [(row.layer, row.op, row.kind, row.breakpoints, row.units) for row in explanation.rows]
    assert rows == [
        ("act#1", "hardtanh", "kink", "0, 6", 32),
        ("pool", "max_pool2d", "kink", "winner", 8),
        ("act#2", "hardtanh", "kink", "0, 6", 8),
        ("gt", "gt", "kink", "0.25", 8),
        ("norm", "layer_norm", "other", "", 0),
        ("clamp", "clamp", "kink", "-1", 8),
        ("head.1", "gelu", "smooth", "sign", 4),
        ("maximum", "maximum", "kink", "difference", 4),
        ("softmax", "softmax", "other", "", 0),
    ]
    assert explanation.units == 72 and explanation.captured_by == "torch.export"
    assert all(re.match(r"test_explain.py:\d+: \S", row.line) for row in explanation.rows)
    lines = [row.line.split(": ", 1)[1] for row in explanation.rows]
    assert lines[:3] == ["h = self.pool(self.act(self.conv(x)))"] * 2 + ["h = self.act(h - 1).flatten(1)"]
    assert lines[4] == lines[5] == "h = self.norm(h).clamp(min=-1)"


def test_the_layers_are_those_that_are_counted():
    model, x = Mixed(), torch.randn(2, 1, 6, 6)
    counts = plr.count_regions(model, x, 0.1, n_directions=2)
    assert counts.layers == tuple(row.layer for row in plr.explain(model, x).rows if row.kind != "other")
    assert plr.count_regions(model, x, 0.1, n_directions=2, layers=["act#2", "gt"]).layers == ("act#2", "gt")


def test_it_prints_as_a_table():
    text = str(plr.explain(Mixed(), torch.randn(2, 1, 6, 6))).splitlines()
    assert text[0].split() == ["layer", "op", "kind", "breakpoints", "units", "source"]
    assert set(text[1]) == {"-"} and len(text[1]) == max(map(len, text[:11]))
    columns = [text[0].index(name) for name in ("op", "kind", "source")]
    for row in text[2:11]:
        assert all(row[column - 1] == " " and row[column] != " " for column in columns)
    assert re.fullmatch(
        r"act#1    hardtanh    kink    0, 6            32  test_explain.py:\d+: h = self.pool.*", text[2]
    )
    assert re.fullmatch(
        r"norm     layer_norm  other                    -  test_explain.py:\d+: h = self.norm.*", text[6]
    )
    assert text[11] == "72 neurons in 7 layers; captured by torch.export"
    assert text[12] == "vertices: covered"
    place = r"layer_norm in module 'norm' at test_explain.py:\d+: .*"
    assert re.fullmatch(f"axes, slice, partition, trace: not covered. {place} not piecewise affine", text[13])
    assert len(text) == 14


def test_a_model_without_kinks():
    explanation = plr.explain(Affine(), torch.randn(2, 6))
    assert explanation.rows == () and set(explanation.coverage.values()) == {None}
    assert list(explanation.coverage) == ["vertices", "axes", "slice", "partition", "trace"]
    assert str(explanation).splitlines()[0] == "0 neurons in 0 layers; captured by torch.export"
    assert "1 neuron in 1 layer;" in str(plr.explain(nn.ReLU(), torch.randn(2, 1)))


def test_piecewise_affine_models_are_covered_by_exact_methods():
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Flatten(), nn.Hardtanh())
    explanation = plr.explain(layers, torch.randn(2, 1, 6, 6))
    assert set(explanation.coverage.values()) == {None}
    assert str(explanation).splitlines()[-1] == "vertices, axes, slice, partition, trace: covered"


def test_what_partition_covers_is_what_it_takes(monkeypatch):
    monkeypatch.setattr(lower, "LARGEST_MATRIX", 10_000)
    linear = nn.Sequential(nn.Linear(6, 4), nn.PReLU(), nn.Linear(4, 2), nn.ReLU6(), nn.Softshrink())
    assert plr.explain(linear, torch.randn(2, 6)).coverage["partition"] is None
    text = str(plr.explain(linear, torch.randn(2, 6)))
    assert text.splitlines()[-1] == "vertices, axes, slice, partition, trace: covered"
    pool = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.MaxPool1d(2), nn.Flatten())
    assert set(plr.explain(pool, torch.randn(2, 6)).coverage.values()) == {None}
    assert plr.trace(pool, torch.zeros(1, 6), torch.tensor([[2.0, 1, 1, 2, 0, 0]])).n_regions == 1
    plr.count_regions(pool, torch.zeros(2, 6), radius=1.0, n_directions=2, method="axes")
    for model, message in (
        (
            nn.Sequential(nn.Linear(6, 4), nn.Hardshrink()),
            "exact methods need continuous activations, and hardshrink in module '1' jumps",
        ),
        (nn.Sequential(nn.Linear(6, 120), nn.ReLU(), nn.Linear(120, 120)), "one of 120 x 120"),
        (Two(), "the model has 2 output tensors"),
        (Steps(), r"exact methods need continuous functions: to at test_explain.py:\d+: .* jumps where gt at .*"),
        (Do(lambda self, x: x.relu() / 0), r"exact methods need finite numbers, and div at .* makes others"),
    ):
        reason = plr.explain(model, torch.randn(2, 6)).coverage["partition"]
        assert re.search(message, reason)
        with pytest.raises(plr.UnsupportedModelError, match="exact methods"):
            plr.partition(model, plr.Slice.around(torch.zeros(6), 1.0))


@pytest.mark.parametrize(
    "model, reason",
    [
        (nn.Sequential(nn.ReLU(), nn.SiLU()), "silu in module '1': a smooth activation has no linear regions"),
        (nn.Sequential(nn.Linear(6, 6), nn.Softmax(1)), "softmax in module '1': it is not piecewise affine"),
        (
            Square(),
            r"mul at test_explain.py:\d+: return x.relu\(\) \* x: it multiplies two values that depend on the input",
        ),
        (Ratio(), r"div at test_explain.py:\d+: .*: it divides by a value that depends on the input"),
        (Picked(), r"gather at test_explain.py:\d+: .*: more than its first argument depends on the input"),
    ],
    ids=["smooth", "softmax", "product", "quotient", "gather"],
)
def test_exact_methods_say_what_stops_them(model, reason):
    coverage = plr.explain(model, torch.randn(2, 6)).coverage
    assert coverage["vertices"] is None and re.fullmatch(reason, coverage["axes"])
    assert coverage["slice"] == coverage["partition"] == coverage["trace"] == coverage["axes"]


def test_a_refused_model_gives_the_reason_and_no_table():
    explanation = plr.explain(nn.Sequential(nn.Linear(6, 6), Sorted()), torch.randn(2, 6))
    assert explanation.rows == () and explanation.captured_by == "" and explanation.units == 0
    reason = explanation.coverage["vertices"]
    assert re.match(
        r"sort in module '1' at test_explain.py:\d+: return x.sort\(1\)\[0\]: .* has kinks that are not", reason
    )
    assert str(explanation).splitlines() == [f"vertices, axes, slice, partition, trace: not covered. {reason}"]


def test_networks_and_bad_arguments():
    model, x = Mixed(), torch.randn(2, 1, 6, 6)
    assert plr.explain(plr.capture(model, x), x) == plr.explain(model, x)
    with pytest.raises(ValueError, match="x must be points the model takes"):
        plr.explain(model, torch.randn(2, 7))
    with pytest.raises(TypeError, match="model must be an nn"):
        plr.explain("model", x)


def test_lines_are_the_users_own():
    """Neither torch's nor this package's: a module of torch's own, called by our tracer alone, has none."""
    rows = plr.explain(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.zeros(2, 3)).rows
    assert [row.line for row in rows] == [""]


def mlp(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def test_a_radius_says_what_an_exact_count_takes(monkeypatch):
    monkeypatch.setattr(estimates, "_SECONDS", 1e9)  # nothing is too dear, however slow the machine
    model, x = mlp(30), torch.rand(9, 20)
    explanation = plr.explain(model, x, 0.5)
    found = explanation.estimate
    counts = plr.count_regions(model, x, 0.5, method="slice")
    assert (found.points, found.neurons, found.share, found.fitting) == (9, 60, 1.0, 1.0)
    assert found.regions == counts.regions.double().mean()
    assert counts.changes.sum(1).double().mean() <= found.unsettled <= 60
    assert str(explanation).splitlines()[-1] == str(found)
    assert str(found).startswith(f"exact count on a point's slice: about {found.unsettled:.2g} of 60 neurons unsettled")
    assert "for 9 points on one thread" in str(found)
    mixed = plr.explain(model, x, torch.linspace(0.1, 0.5, 9)).estimate
    assert mixed.regions < found.regions and mixed.seconds > 0
    one = plr.explain(model, x[:1], 0.5).estimate
    assert one.points == 1 and one.regions == counts.regions[0] and "1 point on" in str(one)


def test_what_is_not_tried_is_extrapolated(monkeypatch):
    """Pilots of small radii say what is to be expected, within an order of magnitude."""
    model, x = mlp(100), torch.rand(2, 20)
    wanted = plr.count_regions(model, x, 3.0, method="slice")
    ticks = itertools.count()
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: float(next(ticks)))  # a pilot takes a second
    for first, dear in ((1 / 16, 0.0), (1 / 4, 0.0), (1 / 16, 1e9)):
        monkeypatch.setattr(estimates, "_FIRST", first)
        monkeypatch.setattr(estimates, "_SECONDS", dear)
        found = plr.explain(model, x, 3.0).estimate
        assert found.share == (first if dear == 0 else 1)
        regions, changes = wanted.regions.double().mean(), wanted.changes.sum(1).double().mean()
        assert regions / 10 < found.regions < regions * 10
        assert changes / 2 < found.unsettled < 4 * changes
        assert 1 <= found.seconds < 2 * (3 + 200) / 3 + 1


def test_a_slice_that_does_not_fit_says_which_would(monkeypatch):
    monkeypatch.setattr(estimates, "_SECONDS", 1e9)
    model, x = mlp(300), torch.rand(2, 20)
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "200000")
    found = plr.explain(model, x, 3.0).estimate
    assert found.bytes > 200_000 and found.share < 1 and 0 < found.fitting < 1
    assert str(found).splitlines()[1].startswith("that is more than the memory budget of 200 KiB, so it is counted ")
    assert str(found).endswith(f"a slice of {found.fitting:.2g} of the radius would fit")


def test_estimates_need_exact_methods_and_a_radius():
    x = torch.rand(4, 20)
    assert plr.explain(mlp(5), x).estimate is None
    assert plr.explain(nn.Sequential(nn.Linear(20, 4), nn.Tanh()), x, 1.0).estimate is None
    assert plr.explain(mlp(5), x[:0], 1.0).estimate is None
    assert plr.explain(nn.Linear(20, 3), x, 1.0).estimate.regions == 1
    for radius, error in ((0.0, ValueError), ("1", TypeError), (torch.ones(3), ValueError)):
        with pytest.raises(error, match="radius must be"):
            plr.explain(mlp(5), x, radius)
