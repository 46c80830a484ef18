"""The captured network is compared with the model."""

import itertools

import pytest
import torch

import pylinregion as plr
from cases.small_models import Do, mlp
from pylinregion.capturing import classify, selfcheck
from pylinregion.graph.operators import TABLE, Kind, Op

pytestmark = pytest.mark.usefixtures("doubles")


def test_a_global_that_changes_is_found_by_the_self_check():
    numbers = itertools.count(1)
    with pytest.raises(plr.UnsupportedModelError, match="does not reproduce the model on fresh inputs"):
        plr.capture(mlp(Do(lambda s, x: (x * next(numbers)).relu())), torch.randn(3, 6))


def test_the_self_check_finds_wrong_rows_of_the_table(monkeypatch):
    monkeypatch.setitem(TABLE, "sin", Op(Kind.AFFINE))
    with pytest.raises(plr.UnsupportedModelError, match=r"sin in module '1' at .* is not affine in the input"):
        plr.capture(mlp(Do(lambda s, x: x.sin().relu())), torch.randn(3, 6))


def test_the_self_check_compares_with_the_model(monkeypatch):
    """Also where the outputs are equal at the points of the capture."""
    build = classify.build

    def wrong(trace, example):
        network = build(trace, example)
        network.nodes[network.layers[0].node].target = torch.ops.aten.abs.default
        return network

    model, x = mlp(Do(lambda s, z: z.relu())), torch.randn(3, 6)
    with torch.no_grad():
        model[0].bias.fill_(10.0)
    monkeypatch.setattr(classify, "build", wrong)
    monkeypatch.setattr(selfcheck, "fresh_inputs", lambda x, seed=0: 20 * torch.randn(5, *x.shape[1:]))
    with pytest.raises(plr.UnsupportedModelError, match="does not reproduce the model"):
        plr.capture(model, x)


def test_outputs_that_cancel_are_no_difference():
    """A network with weights -1, 0 and 1 gave 2e-7 here and 0 there, and was said to be another function."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1, bias=False)).float()
    with torch.no_grad():
        net[0].bias.fill_(7.0), net[2].weight.zero_()
    x = torch.randn(5, 2, dtype=torch.float32)
    network = plr.capture(net, x)
    net.requires_grad_(False)
    selfcheck.same_function(network, lambda x: net(x) + 1e-7, x)
    with pytest.raises(plr.UnsupportedModelError, match="does not reproduce the model"):
        selfcheck.same_function(network, lambda x: net(x) + 1e-2, x)


def test_a_division_by_zero_is_told_from_what_is_not_affine():
    with pytest.raises(plr.UnsupportedModelError, match=r"div in module '1' at .* makes NaN or infinite numbers of"):
        plr.capture(mlp(Do(lambda s, z: (z / 0).relu())), torch.randn(3, 6))
