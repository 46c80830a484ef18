"""A model with one of its outputs."""

import collections
import dataclasses

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.small_models import Do

pytestmark = pytest.mark.usefixtures("doubles")

Pair = collections.namedtuple("Pair", "mean spread")


@dataclasses.dataclass
class Record:
    mean: torch.Tensor
    spread: torch.Tensor


@pytest.mark.part(6)
@pytest.mark.parametrize(
    "wrap, keys",
    [
        (lambda a, b: (a, b), [(1,), (-1,)]),
        (lambda a, b: [[a], {"spread": b}], [(1, "spread"), (1, 0)]),
        (lambda a, b: {"mean": a, "spread": b}, [("spread",), (1,)]),
        (lambda a, b: {0: a, "spread": b}, [("spread",)]),
        (Pair, [("spread",), (1,)]),
        (Record, [("spread",), (-1,)]),
    ],
)
def test_one_output(wrap, keys):
    model = Do(lambda s, x: wrap(s.a(x).relu(), s.b(x).relu()), a=nn.Linear(3, 5), b=nn.Linear(3, 4)).requires_grad_(
        False
    )
    x = torch.randn(3, 3)
    with pytest.raises(plr.UnsupportedModelError, match="one output tensor, this one has 2"):
        plr.partition(model, plr.Slice.around(x[0], 1.0))
    alone = nn.Sequential(model.b, nn.ReLU())
    for path in keys:
        assert torch.equal(plr.select(model, *path)(x), alone(x))
    chosen = plr.select(model, *keys[0])
    one, other = (plr.count_regions(each, x, 1.0, n_directions=3, method="axes") for each in (chosen, alone))
    assert torch.equal(one.changes, other.changes) and torch.equal(one.regions, other.regions)
    assert plr.partition(chosen, plr.Slice.around(x[0], 1.0)).layers == ("relu",)


def test_one_output_of_a_model_of_several_inputs():
    model = nn.Bilinear(2, 3, 4)
    both = nn.GRU(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    assert torch.equal(plr.select(both, 1)(x), both(x)[1])
    wrapped = Do(lambda s, x: (s.part(x, x.new_ones(len(x), 3)),), part=model)
    assert torch.equal(plr.select(wrapped, 0)(y := torch.randn(2, 2)), model(y, torch.ones(2, 3)))

    class Two(nn.Module):
        def forward(self, x, y):
            return {"sum": x + y, "product": x * y}

    held = plr.fix(plr.select(Two(), "sum"), y=torch.ones(1, 2))
    assert torch.equal(held(y), y + 1)


def test_bad_keys_are_named():
    model, x = Do(lambda s, x: {"a": x.relu(), "b": [x]}), torch.randn(2, 3)
    with pytest.raises(ValueError, match="select must be told which output, by one key or more, got none"):
        plr.select(model)
    for key, kind in ((True, "bool"), (1.0, "float"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"a key must be the name or the number of an output, got {kind}"):
            plr.select(model, key)
    with pytest.raises(TypeError, match=r"model must be an nn.Module, .* got dict"):
        plr.select({}, "a")
    for keys, match in (
        (("c",), "the model's output has nothing under 'c': it has 'a', 'b'"),
        ((2,), "the model's output has nothing under 2: it has 'a', 'b'"),
        (("b", 1), "the model's output has nothing under 1: it has 1 item"),
        (("b", "x"), "the model's output has nothing under 'x': it has 1 item"),
        (("a", 0), "the model returns a tensor: there is nothing to select by 0"),
    ):
        with pytest.raises(plr.UnsupportedModelError, match=match):
            plr.count_regions(plr.select(model, *keys), x, 0.1)
        assert plr.explain(plr.select(model, *keys), x).coverage["vertices"] is not None
    with pytest.raises(plr.UnsupportedModelError, match="the model returns one NoneType: there is nothing to select"):
        plr.select(Do(lambda s, x: None), 0)(x)
