"""Segments, and their traces beside those of the rational oracle."""

from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from cases.engine import SHAPES, oracle_stages, random_stages
from pylinregion.exact.segment_engine import Tracer
from pylinregion.reference import rational

SEGMENT_KINDS = ("generic", "grid", "through the origin", "from the origin", "along an axis", "short")


def network_of(kind, activation, seed, shape=None):
    return random_stages("chain", kind, shape or SHAPES[seed % len(SHAPES)], activation, seed)


def plain_net(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 20), nn.LeakyReLU(), nn.Linear(20, 4)).to(dtype)


def random_segments(kind, inputs, count, seed):
    """Starts and ends ``[count, inputs]``."""
    rng = np.random.default_rng([SEGMENT_KINDS.index(kind), inputs, seed])
    if kind == "generic":
        return rng.standard_normal((2, count, inputs)) * 2
    if kind == "grid":
        return rng.integers(-2, 3, (2, count, inputs)).astype(np.float64)  # some of no length
    if kind == "through the origin":
        start = rng.standard_normal((count, inputs))
        return np.stack([start, -2 * start])
    if kind == "from the origin":
        return np.stack([np.zeros((count, inputs)), rng.standard_normal((count, inputs))])
    if kind == "along an axis":
        axis = np.eye(inputs)[rng.integers(inputs, size=count)]
        return np.stack([-axis, 2 * axis])
    start = rng.integers(-2, 3, (count, inputs)).astype(np.float64)
    return np.stack([start, start + np.ldexp(rng.standard_normal((count, inputs)), -30)])


def owners(stages):
    """The (stage, unit) of each line."""
    return [
        (number, unit) for number, stage in enumerate(stages.stages) for unit in stage.units.neuron_of_line.tolist()
    ]


def parts(found, b):
    """The breakpoints of a segment, and the lines that change at each."""
    begin, end = found.offsets[b], found.offsets[b + 1]
    bounds = found.change_offsets[begin : end + 1].tolist()
    return found.t[begin:end], [found.changes[low:high].tolist() for low, high in pairwise(bounds)]


def check_against_oracle(stages, first, second, *, far=1e-6, tracer=Tracer, **options):
    """Trace, and compare all that is exact; gives the result and the oracle's."""
    found = tracer(stages).trace(first, second, **options)
    in_fractions, owner = oracle_stages(stages), owners(stages)
    expected = []
    for b, (start, end) in enumerate(zip(first, second, strict=True)):
        line = rational.trace(in_fractions, start, end)
        t, changes = parts(found, b)
        assert [{owner[k] for k in lines} for lines in changes] == line.changes, (b, options)
        assert all(lines == sorted(set(lines)) for lines in changes)
        assert np.all((t > 0) & (t < 1)) and np.all(np.diff(t) >= 0)
        assert all(abs(F(x) - y) <= far for x, y in zip(t.tolist(), line.breakpoints, strict=True))
        expected.append(line)
    return found, expected
