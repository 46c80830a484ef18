"""Programs reuse memory: what is read again must not be overwritten meanwhile."""

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases import oracle


class Several(nn.Module):
    """A net in which several values are alive at a time; ``kinks`` gives the operands of its ReLUs."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.first, self.a, self.b, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def kinks(self, x):
        z = self.first(x)
        h = z.relu()
        a, b = self.a(h), self.b(h)
        if self.way == "read again":
            return [z, a, self.last(a.relu() + a)]
        if self.way == "side by side":
            return [z, self.last(a - b), self.last(b)]
        c = self.last(a)  # a view of a is read after c is written
        return [z, c, c + a.view(-1, 4, 2).transpose(1, 2).flatten(1)]

    def forward(self, x):
        return torch.stack([z.relu() for z in self.kinks(x)], dim=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("way", ["read again", "side by side", "view"])
def test_values_that_are_read_again_are_not_overwritten(way, dtype):
    net = Several(way).to(dtype)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    frame = plr.random_frame((6,), 6)
    rows = oracle.vertices(x.double(), 0.5, frame)
    with torch.no_grad():
        signs = [z.reshape(40, 12, -1) > 0 for z in net.double().kinks(rows.flatten(0, 1))]
    want = torch.stack([(on != on[:, :1]).any(1).sum(1) for on in signs], dim=1)
    counts = plr.count_regions(net.to(dtype), x, 0.5, frame=frame)
    assert torch.equal(counts.changes[:, -3:], want)  # behind those on the way to what is returned
