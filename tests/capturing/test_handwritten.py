"""Activations that are written out are the one operator that they are; what is not counted is said."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr
from cases.small_models import Do, mlp
from pylinregion.capturing import tracing

pytestmark = pytest.mark.usefixtures("doubles")

WRITTEN = {
    "gelu": [
        lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))),
        lambda z: z * 0.5 * (1.0 + torch.erf(z * 0.7071067811865476)),
        lambda z: z * (1 + torch.special.erf(z / 2**0.5)) / 2,
        lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * torch.pow(z, 3)))),
        lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))),
    ],
    "silu": [lambda z: z * torch.sigmoid(z), lambda z: z / (1 + torch.exp(-z))],
    "quick_gelu": [lambda z: z * torch.sigmoid(1.702 * z)],
    "mish": [lambda z: z * torch.tanh(F.softplus(z)), lambda z: z * torch.tanh(torch.log1p(torch.exp(z)))],
    "sigmoid": [lambda z: 1 / (1 + torch.exp(-z)), lambda z: torch.exp(z) / (1 + torch.exp(z))],
    "tanh": [lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()), lambda z: 2 * torch.sigmoid(2 * z) - 1],
    "softplus": [lambda z: torch.log(1 + torch.exp(z)), lambda z: torch.log1p(z.exp())],
}


class Written(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


@pytest.mark.part(2)
@pytest.mark.parametrize(
    ("name", "function"), [(name, function) for name, functions in WRITTEN.items() for function in functions]
)
def test_activations_that_are_written_out_are_recognised(name, function):
    """The counts are those of the sign of the pre-activation, which a ReLU in its place has."""
    model, x = mlp(Written(function), nn.Linear(8, 4)), torch.randn(4, 6)
    frame = plr.random_frame((6,), 5)
    counts = plr.count_regions(model, x, 1.0, frame=frame)
    (row,) = plr.explain(model, x).rows
    assert (row.layer, row.op, row.kind, row.units) == ("1", name, "smooth", 8)
    assert row.line.startswith("test_handwritten.py:") and counts.uncounted == ()
    bare = nn.Sequential(model[0], nn.ReLU())
    assert torch.equal(counts.changes, plr.count_regions(bare, x, 1.0, frame=frame).changes) and counts.total.any()


def test_what_comes_behind_is_computed_by_the_formula():
    formula = WRITTEN["gelu"][3]
    model, x = mlp(Written(formula), nn.Linear(8, 8), nn.ReLU()), torch.randn(4, 6)
    frame = plr.random_frame((6,), 5)
    bare = mlp(nn.GELU("tanh"), nn.Linear(8, 8), nn.ReLU())
    bare.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(
        plr.count_regions(model, x, 2.0, frame=frame).changes, plr.count_regions(bare, x, 2.0, frame=frame).changes
    )
    assert plr.capture(model, x).layer_names == ("1", "3")


@pytest.mark.parametrize("function", [WRITTEN["gelu"][0], WRITTEN["silu"][0], WRITTEN["mish"][0]])
def test_the_fallback_recognises_them_too(function, monkeypatch):
    monkeypatch.setattr(tracing, "_export", lambda *args, **named: 1 / 0)
    (row,) = plr.explain(mlp(Written(function)), torch.randn(2, 6)).rows
    assert row.kind == "smooth" and row.units == 8


@pytest.mark.parametrize(
    "function",
    [
        lambda z: 0.5 * z * (1 + torch.erf(z / 1.4142)),
        lambda z: 0.5 * z * (1 + torch.tanh(0.7978845608 * (z + 0.044715 * z**3))),
        lambda z: 0.5 * z * (1 + torch.erf(-z / math.sqrt(2))),
        lambda z: torch.exp(-z * z),
        lambda z: torch.sqrt(z * z + 1e-9),
        lambda z: 0.5 * z.roll(1, 1) * (1 + torch.erf(z / math.sqrt(2))),
    ],
)
def test_other_functions_are_named_and_not_taken_for_one(function):
    model, x = mlp(Written(function)), torch.randn(2, 6)
    assert not [row for row in plr.explain(model, x).rows if row.kind == "smooth" and row.op not in ("tanh", "sigmoid")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert plr.count_regions(model, x, 1.0, n_directions=2).uncounted


def test_a_value_in_the_middle_that_is_read_elsewhere_stays():
    def forward(s, x):
        gate = torch.sigmoid(x)
        return x * gate + gate.relu()

    rows = plr.explain(Do(forward), torch.randn(2, 6)).rows
    assert [(row.op, row.kind) for row in rows] == [("sigmoid", "smooth"), ("mul", "other"), ("relu", "kink")]


# What is not counted is said.


@pytest.mark.parametrize(
    ("function", "operators"),
    [
        (lambda z: z**2, "pow"),
        (lambda z: z * z, "mul"),
        (torch.sin, "sin"),
        (lambda z: torch.exp(-z.square()), "square in module '1', exp"),
        (lambda z: F.softmax(z, -1), "softmax"),
        (lambda z: z / z.sum(1, keepdim=True), "div"),
    ],
    ids=["power", "product", "sine", "gaussian", "softmax", "quotient"],
)
def test_a_network_of_which_nothing_is_counted_says_so(function, operators):
    model, x = mlp(Written(function), nn.Linear(8, 2)), torch.rand(3, 6) + 0.5
    operators += " in module '1'"
    said = f"nothing of this network is counted: it has no neurons, its non-linear operators are {operators}"
    with pytest.warns(UserWarning, match=f"{said}; local complexity is 0 whatever it computes$") as caught:
        counts = plr.count_regions(model, x, 0.1, n_directions=2)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert counts.definition.endswith(said) and said in repr(counts) and counts.layers == () and not counts.total.any()
    assert ", ".join(counts.uncounted) == operators and counts.to_dict()["uncounted"]
    text = str(plr.explain(model, x))
    assert "nothing of this model is counted: none of its non-linear operators is one that is" in text
    assert plr.count_regions(model, x, 0.1, n_directions=2, include_output=True).layers == ("output",)


def test_an_affine_network_is_said_to_be_one():
    model, x = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), torch.randn(3, 6)
    for method in ("vertices", "axes"):
        counts = plr.count_regions(model, x, 0.1, method, n_directions=2)
        assert counts.definition.endswith("the network is affine: it has no neurons") and counts.uncounted == ()
    assert "the model is affine: it has no neurons" in str(plr.explain(model, x))


def test_what_is_not_counted_beside_what_is():
    model = mlp(nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4), nn.Softmax(1))
    counts = plr.count_regions(model, torch.randn(3, 6), 0.1, n_directions=2)
    assert counts.uncounted == ("layer_norm in module '1'", "softmax in module '4'")
    assert counts.definition.endswith("; not counted: layer_norm in module '1', softmax in module '4'")
    many = nn.Sequential(*(Written(torch.sin) for _ in range(7)), nn.ReLU())
    counts = plr.count_regions(many, torch.randn(3, 6), 0.1, n_directions=2)
    assert len(counts.uncounted) == 7 and counts.definition.endswith("sin in module '4' and 2 more")
    plain = plr.count_regions(mlp(), torch.randn(3, 6), 0.1, n_directions=2)
    assert plain.uncounted == () and "not counted" not in plain.definition


def test_shards_and_the_monitor_say_it(tmp_path):
    model, x = mlp(Written(torch.sin)), torch.randn(3, 6)
    with pytest.warns(UserWarning, match="nothing of this network is counted"):
        counts = plr.count_in_shards(model, x, 0.1, tmp_path, n_directions=2)
    assert counts.uncounted == counts.load().uncounted == ("sin in module '1'",)
    with pytest.warns(UserWarning, match="nothing of this network is counted"):
        plr.Monitor(model, {"x": x}, 0.1, n_directions=2, every=1, budget=None).step()
