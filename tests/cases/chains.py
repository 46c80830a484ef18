"""Networks that end in chains of dense layers, counted in both ways."""

import itertools

import torch
from torch import nn

import pylinregion as plr
from pylinregion.counting.displacements import Displacements
from pylinregion.counting.every_vertex import EveryVertex

DTYPES = [torch.float32, torch.float64]
KINKS = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.25),
    "steep": lambda: nn.LeakyReLU(-3.0),
    "prelu": lambda: nn.PReLU(init=0.3),
    "abs": lambda: Abs(),
}


class Abs(nn.Module):
    def forward(self, x):
        return x.abs()


def network(widths, dtype=torch.float64, kink="relu", seed=0, scale=1.0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), KINKS[kink]()]
    net = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1:
                parameter *= scale
    return net.to(dtype)


def trained(widths, dtype, steps=150):
    """A net that has learned random labels: its weights are no longer small and of one size."""
    net = network(widths, torch.float32, seed=3)
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(64, widths[0], generator=generator)
    y = torch.randint(widths[-1], (64,), generator=generator)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.to(dtype), x.to(dtype)


def both_ways(net, x, radius, **options):
    ours = plr.count_regions(net, x, radius, displacement=True, estimate_ambiguous=True, **options)
    return ours, plr.count_regions(net, x, radius, displacement=False, **options)


def assert_same(ours, theirs):
    assert torch.equal(ours.changes, theirs.changes)
    assert torch.equal(ours.regions, theirs.regions)


def counted_ranges(monkeypatch):
    """A list that takes, of all that is counted, the first point, the last and whether by displacements."""
    ranges = []

    def watch(way, name, chained):
        count = getattr(way, name)

        def record(self, rows, *rest):
            if isinstance(rows, slice):  # not points whose signs a chain left unproven
                ranges.append((rows.start, rows.stop, chained))
            return count(self, rows, *rest)

        monkeypatch.setattr(way, name, record)

    watch(EveryVertex, "count", False), watch(Displacements, "count", True), watch(Displacements, "tried", True)
    return ranges
