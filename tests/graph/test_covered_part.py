"""Refusals of exact methods offer the part behind, where there is one that they cover."""

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.small_models import Do


def relu_head():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


class Pooled(nn.Module):
    """A maximum over positions, weighed by attention, and a head."""

    def __init__(self, head):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.pool = Do(lambda s, h: (s.weigh(h).softmax(dim=1) * h).sum(dim=1), weigh=nn.Linear(4, 1))
        self.head = head

    def forward(self, x):
        return self.head(self.pool(self.embed(x)))


def offer(model, x):
    """What is offered, and that it is covered."""
    reasons = {reason for method, reason in plr.explain(model, x).coverage.items() if method != "vertices"}
    (reason,) = reasons
    path = reason.partition("(the part behind is covered: plr.at(model, '")[2].removesuffix("'))")
    if not path:
        return None
    part = plr.at(model, path)
    assert plr.partition(part, plr.Slice.around(part.points(x)[0], 1.0)).layers
    return path


@pytest.mark.part(2)
@pytest.mark.parametrize(
    "model, path",
    [
        (lambda: Pooled(relu_head()), "head"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.GELU(), relu_head()), "4"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 4), relu_head()), "2"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), relu_head()), "3"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2)), None),  # nothing bends
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), relu_head(), nn.Softmax(1)), None),
        (
            lambda: Do(lambda s, x: s.head(s.gate(x).sigmoid() * s.gate(x)), gate=nn.Linear(3, 4), head=relu_head()),
            "head",
        ),
        # The other value is a product too.
        (
            lambda: Do(
                lambda s, x: s.head(x * x.sum(1, True)) + x[:, :2] ** 2, head=relu_head()[0:0].append(nn.Linear(3, 2))
            ),
            None,
        ),
        # What goes around the module is affine, but then the part is no function of its input alone.
        (
            lambda: Do(
                lambda s, x: s.head(s.a(x).sin()) + s.b(x), a=nn.Linear(3, 4), b=nn.Linear(3, 2), head=relu_head()
            ),
            None,
        ),
        # The head takes two values; its first module does not.
        (lambda: Do(lambda s, x: s.head(s.a(x).sin(), s.a(x)), a=nn.Linear(3, 4), head=Two()), "head.one"),
    ],
)
def test_the_part_behind_is_offered_if_it_is_covered(model, path):
    torch.manual_seed(0)
    model = model()
    shape = (4, 5, 3) if isinstance(model, Pooled) else (4, 3)
    assert offer(model, torch.randn(shape)) == path


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.rest = relu_head()[1:]
        self.one = nn.Linear(4, 6)

    def forward(self, h, other):
        return self.rest(self.one(h + other))


def test_partition_and_trace_say_it():
    model, x = Pooled(relu_head()), torch.randn(2, 5, 3)
    match = (
        r"softmax in module 'pool' at .*not piecewise affine \(the part behind is covered: plr.at\(model, 'head'\)\)"
    )
    with pytest.raises(plr.UnsupportedModelError, match=match):
        plr.partition(model, plr.Slice.around(x[0], 0.1))
    with pytest.raises(plr.UnsupportedModelError, match=match):
        plr.trace(model, x[:1], x[1:])
    with pytest.raises(plr.UnsupportedModelError, match=match):
        plr.count_regions(model, x, 0.1, method="axes")
