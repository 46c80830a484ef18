"""The networks of the examples on slices, beside themselves at sampled points; and that the comparison can fail."""

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import pylinregion as plr
from cases import parts, sampled
from cases.sampled import Disagreement, Pieces, check_samples, check_trace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import networks

POINTS = parts.examples(20_000, 20)


def partition_of(make, shape, radius=0.5, seed=0):
    model = networks.seeded(make, seed).double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return model, plr.partition(model, plr.Slice.around(x, radius, seed))


@pytest.mark.part(8)
@pytest.mark.parametrize("name", networks.SMALL)
def test_sampled_points_lie_in_cells_of_their_pattern(name):
    model, part = partition_of(*networks.SMALL[name], seed=int(parts.DRAW) % 1000)
    found = check_samples(part, model, POINTS)
    assert found.doubtful < 1e-3 * POINTS and min(part.n_regions, 2) <= found.cells <= part.n_regions
    part.verify(model, samples=10)


@pytest.mark.part(8)
@pytest.mark.parametrize("name", networks.SMALL)
def test_neurons_change_at_the_breakpoints_of_traces(name):
    make, shape = networks.SMALL[name]
    model = networks.seeded(make, int(parts.DRAW) % 1000).double()
    start, end = torch.randn(2, 3, *shape, dtype=torch.float64)
    line = plr.trace(model, start, end, slopes=False)
    assert len(line.t) > 3 and check_trace(line, model, start, end) >= 0.9 * len(line.t)


# ---- the comparison


class Kinks(nn.Module):
    """A kink of every kind that is read off."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(1, 2, 3), nn.Linear(24, 12)
        self.slope = nn.PReLU(init=0.3)

    def forward(self, x):
        z = functional.max_pool2d(self.conv(x), 3, 2, 1, ceil_mode=True)
        z = functional.max_pool2d(functional.leaky_relu_(z, 0.1), (2, 1), 1, dilation=(1, 2))
        z = self.dense(functional.relu6(5 * z.flatten(1)))
        a, b, c, d = self.slope(z).unflatten(1, (4, 3)).unbind(1)
        z = torch.stack([torch.maximum(a, b), torch.minimum(c, d)], dim=1)
        pair = torch.cat([z.amax(dim=(1, 2))[:, None], z.max(dim=1).values.clamp(-1, 0.1)], dim=1)
        return pair.abs() + nn.functional.hardtanh(pair)


@pytest.fixture(scope="module")
def compared():
    """A model and its partition, with kinks of every kind."""
    return partition_of(Kinks, (1, 9, 9), radius=4.0)


def with_patterns(part, patterns):
    return dataclasses.replace(part, cells=dataclasses.replace(part.cells, patterns=patterns))


def test_kinks_of_every_kind(compared):
    model, part = compared
    assert part.n_regions > 100
    found = check_samples(part, model, 1000, at_a_time=300)
    assert found.doubtful == 0 and found.cells > 50


def test_a_wrong_bit_is_noticed(compared):
    model, part = compared
    largest = int(part.areas().argmax())
    for line in np.linspace(0, part.stages.lines - 1, 9, dtype=int):
        patterns = np.array(part.patterns)
        patterns[largest, line >> 3] ^= 1 << (line & 7)
        wrong = with_patterns(part, patterns)
        right, found = (np.concatenate(list(each.pattern(largest).values())) for each in (part, wrong))
        if (right == found).all():
            continue  # the bit of the first candidate of a maximum, whose number is 0
        with pytest.raises(Disagreement, match=rf"in cell {largest}, neuron \d+ of layer .* is on piece \d, not \d"):
            check_samples(wrong, model, 1000)


def test_patterns_of_other_cells_are_noticed(compared):
    model, part = compared
    with pytest.raises(Disagreement, match=r"is on piece|no cell holds"):  # near an edge cells are found by patterns
        check_samples(with_patterns(part, np.roll(part.patterns, 1, axis=0)), model, 100)


def test_another_module_is_noticed(compared):
    _, part = compared
    with pytest.raises(Disagreement, match="is on piece"):
        check_samples(part, networks.seeded(Kinks, seed=9), 1000)
    with pytest.raises(Disagreement, match=r"layers of \[5\] neurons, the partition of \["):
        check_samples(part, nn.Sequential(nn.Flatten(), nn.Linear(81, 5), nn.ReLU()), 10)


def test_another_neuron_of_a_trace_is_noticed(compared):
    model, _ = compared
    start, end = torch.randn(2, 2, 1, 9, 9, dtype=torch.float64)
    line = plr.trace(model, start, end)
    assert check_trace(line, model, start, end) == len(line.t) > 20
    neurons = line.neurons.copy()
    neurons[line.neuron_offsets[5]] += 1
    with pytest.raises(Disagreement, match="at breakpoint 5 of segment 0, t = "):
        check_trace(dataclasses.replace(line, neurons=neurons), model, start, end)
    with pytest.raises(Disagreement, match=r"neurons .* change, not"):
        check_trace(dataclasses.replace(line, t=line.t**2), model, start, end)


def test_points_are_on_all_of_the_slice():
    polygon = [[0, 0], [4, 0], [1, 3], [0, 1]]
    part = plr.partition(nn.Linear(2, 1), plr.Slice([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], polygon))
    st = sampled.sample(part, 20_000, 0)
    assert part.locate(st).tolist() == [0] * len(st)
    assert np.allclose(st.mean(axis=0), part.centroids()[0], atol=0.02)


def test_what_is_nearly_zero_is_doubtful_and_zero_is_not():
    rows = torch.tensor([[1, 0.5, 1e-12], [1, 0.5, 0], [-1, 1e-10, 0.5]], dtype=torch.float64)
    with Pieces() as seen:
        rows.relu(), rows.amax(dim=1), (rows + 6).clamp(-1, 6), (rows[:, :1] + rows).amax(dim=1)
    assert [each.tolist() for each in seen.doubtful] == [[True, False, False], [False] * 3] * 2
    with Pieces() as seen:
        (rows * 0 + 1 + rows.flip(1).cumsum(1) * 1e-12).amax(dim=1), torch.zeros(2, 3).amax(dim=1)
    assert seen.doubtful[0].any() and not seen.doubtful[1].any() and seen.layers[1].tolist() == [[0], [0]]


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_windows_are_those_of_max_pools(ceil_mode):
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    tried = 0
    for kernel, stride, padding, dilation in itertools.product((1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        if padding > kernel / 2:
            continue
        pooled, at = functional.max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
        values, place = sampled._windows(x, *([each] * 2 for each in (kernel, stride, padding, dilation)), ceil_mode)
        assert torch.equal(values.amax(dim=-1).view_as(pooled), pooled), (kernel, stride, padding, dilation)
        best = place.expand_as(values).gather(-1, values.argmax(dim=-1, keepdim=True)).view_as(at)
        top, left = (torch.arange(size) * stride - padding for size in pooled.shape[2:])
        row, column = (at // 10 - top[:, None]) // dilation, (at % 10 - left) // dilation
        wide = sum((left + k * dilation).clamp(-1, 10) % 11 < 10 for k in range(kernel))  # of the window, in the image
        whole = (top[:, None] >= 0) & (left >= 0)
        assert torch.equal(best[..., whole], (row * wide + column)[..., whole])
        tried += 1
    assert tried == 30
