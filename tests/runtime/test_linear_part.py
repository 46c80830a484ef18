"""The linear part of affine operators: what they make of directions, less what they make of 0, in whole numbers."""

import pytest
import torch
from torch.nn import functional

import pylinregion as plr
from cases.small_models import Do
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.linear_part import linear_part


def whole(*shape, seed=0):
    """Numbers that float64 adds and multiplies exactly."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).double()


aten = torch.ops.aten
OPERATORS = {
    "linear": lambda x: aten.linear.default(x, whole(5, 6, seed=1), None),
    "linear with bias": lambda x: aten.linear.default(x, whole(5, 6, seed=1), whole(5, seed=2)),
    "addmm": lambda x: aten.addmm.default(whole(4, seed=1), x, whole(6, 4, seed=2)),
    "conv1d": lambda x: aten.conv1d.default(x[:, None], whole(3, 1, 2, seed=1), whole(3, seed=2), padding=[1]),
    "conv_transpose1d": lambda x: aten.conv_transpose1d.default(x[:, None], whole(1, 3, 2, seed=1), whole(3, seed=2)),
    "add": lambda x: x + whole(6, seed=1),
    "rsub": lambda x: 3 - x,
    "twice": lambda x: x + 2 * x + 1,
    "cat": lambda x: torch.cat([x, whole(3, 2, seed=1), x + 1], dim=1),
    "split": lambda x: (x + 1).split([2, 4], dim=1),
    "pad": lambda x: functional.pad(x, (1, 2), value=5.0),
    "masked_fill": lambda x: x.masked_fill(torch.arange(6) < 2, 7.0),
    "where": lambda x: torch.where(torch.arange(6) < 2, x, whole(6, seed=1)),
    "index_put": lambda x: aten.index_put.default(x, [torch.tensor([0])], whole(6, seed=1)),
    "index_add": lambda x: torch.index_add(x, 1, torch.tensor([0, 3]), whole(3, 2, seed=1)),
    "detach": lambda x: x.detach(),
    "detach and add": lambda x: x.detach() * 2,
    "copy": lambda x: aten.copy.default(torch.zeros_like(x), x),
    "mean": lambda x: x.sum(dim=1),
    "avg_pool": lambda x: functional.avg_pool1d(x[:, None], 2),
    "flip": lambda x: x.flip(1),
    "ones_like": lambda x: torch.ones_like(x),
    "fill": lambda x: aten.fill.Scalar(x, 4.0),
    "batch_norm": lambda x: functional.batch_norm(
        x,
        whole(6, seed=1),
        torch.full((6,), 0.25 - 2.0**-20).double(),
        whole(6, seed=2),
        whole(6, seed=3),
        eps=2.0**-20,
    ),
}


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.enable_grad], ids=["no_grad", "enable_grad"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, surroundings):
    function, v = OPERATORS[name], whole(3, 6, seed=9)
    at_direction, at_zero = function(v), function(torch.zeros_like(v))
    with surroundings():
        found = linear_part(lambda values: function(values[0]), {0: v})
    parts = [x if isinstance(x, tuple) else (x,) for x in (found, at_direction, at_zero)]
    for image, a, b in zip(*parts, strict=True):
        assert torch.equal(image, a - b) and image.shape == a.shape and not image.requires_grad


def test_several_values():
    a, b = whole(3, 6, seed=1), whole(3, 6, seed=2)
    found = linear_part(lambda values: 2 * values[3] - values[8] + 5, {3: a, 8: b})
    assert torch.equal(found, 2 * a - b)


def test_a_tuple_of_values():
    a, b = whole(3, 6, seed=1), whole(3, 2, seed=2)
    found = linear_part(lambda values: torch.cat([*values[1], whole(3, 1)], dim=1), {1: (a, b)})
    assert torch.equal(found, torch.cat([a, b, torch.zeros(3, 1).double()], dim=1))


@pytest.mark.parametrize(
    "before",
    [
        lambda x: (x - 3) / 4,
        lambda x: x + x.sum(1, keepdim=True),
        lambda x: torch.cat([x[:, :3].detach(), 2 - x[:, 3:]], 1),
        lambda x: torch.ones_like(x) * x + 1,
        lambda x: torch.zeros_like(x).scatter_reduce(1, torch.arange(6).flip(0).expand_as(x), x, "sum"),
    ],
    ids=["normalise", "sum", "detach", "ones like it", "places of its shape"],
)
def test_prefixes_of_networks(before):
    """In whole numbers, so that differences are exact."""
    model = Do(lambda self, x: self.linear(before(x)).relu(), linear=torch.nn.Linear(6, 8)).double()
    with torch.no_grad():
        model.linear.weight.copy_(whole(8, 6, seed=1)), model.linear.bias.copy_(whole(8, seed=2))
        network, v = plr.capture(model, torch.zeros(2, 6).double()), 4 * whole(5, 6, seed=3)
        evaluator = Evaluator(network, torch.float64, [0], outputs=False, split=True)
        images = evaluator.prefix_directions(v)
        at_direction, at_zero = evaluator.prefix(v), evaluator.prefix(0 * v)
    for image, a, b in zip(images, at_direction, at_zero, strict=True):
        assert torch.equal(image, a - b) and bool(image.any())
