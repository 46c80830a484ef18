"""Every operator of the table in a small model: what ``explain`` says of it is what the exact methods do."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.operator_calls import CALLS, COVERED, ON_OTHER_DEVICES
from pylinregion.graph.operators import TABLE

ROUNDED = ("to", "_to_copy")  # casts to float32, which are no part of the exact function
TOGETHER = 12


class Model(nn.Module):
    """Some operators of the same 8 values."""

    def __init__(self, *names):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(2, 8).double()
        self.functions = [CALLS[name] for name in names]

    def forward(self, x):
        outputs = []
        for function in self.functions:
            found = function(self.first(x))
            outputs += found if isinstance(found, (list, tuple)) else [found]
        return torch.cat([output.double().reshape(x.shape[0], -1) for output in outputs], 1)


def test_no_row_is_left_out():
    assert set(CALLS) | ON_OTHER_DEVICES == set(TABLE)


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("begin", range(0, len(COVERED), TOGETHER))
def test_exact_methods_take_what_explain_calls_covered(begin):
    names = COVERED[begin : begin + TOGETHER]
    model, x = Model(*names), torch.linspace(-1, 1.5, 6).double().view(3, 2)
    reason = plr.explain(model, x).coverage["partition"]
    assert reason is None, reason
    part = plr.partition(model, plr.Slice.box(-1.0, 1.5))
    part.verify(None if set(names) & set(ROUNDED) else model)
    centres = part.centroids()
    maps = part.affine_maps()
    outputs = (maps[:, :, :2] * centres[:, None]).sum(2) + maps[:, :, 2]
    expected = model(torch.from_numpy(centres)).detach().numpy()
    limit = 1e-6 if set(names) & set(ROUNDED) else 1e-11
    assert np.abs(outputs - expected).max() < limit * (1 + np.abs(expected).max())
    trace = plr.trace(model, x[:1], x[1:2])
    t = np.linspace(0.013, 0.987, 23)
    region = np.searchsorted(trace.t, t)
    along = trace.slopes[region] * t[:, None] + trace.intercepts[region]
    points = x[:1] + torch.from_numpy(t)[:, None] * (x[1:2] - x[:1])
    expected = model(points).detach().numpy()
    assert np.abs(along - expected).max() < limit * (1 + np.abs(expected).max())


@pytest.mark.turns(2)
@pytest.mark.part(4)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call is not None and name not in COVERED])
def test_exact_methods_refuse_what_explain_does_not(name):
    model, x = Model(name), torch.linspace(-1, 1.5, 6).double().view(3, 2)
    reason = plr.explain(model, x).coverage["partition"]
    assert reason is not None
    assert re.search(rf"{re.split('[:.]', name)[0]}.* at test_operators.py:\d+: ", reason)
    for run in (lambda: plr.partition(model, plr.Slice.box(-1, 1)), lambda: plr.trace(model, x[0], x[1])):
        with pytest.raises(plr.UnsupportedModelError, match=re.escape(reason)):
            run()
