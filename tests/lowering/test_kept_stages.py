"""Stages that are kept: of the weights of now, however these were changed."""

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion.lowering import kept_stages
from pylinregion.lowering.lower import stages_of


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    ).eval()


def by_one_bit(tensor):
    tensor.detach().numpy().reshape(-1).view(np.int32)[-1] ^= 1  # which torch does not notice


def minus_zero(tensor):
    tensor.detach().numpy().reshape(-1)[0] = -0.0


CHANGES = {
    "one bit": lambda model: by_one_bit(model[3].weight),
    "a bias": lambda model: by_one_bit(model[0].bias),
    "a buffer": lambda model: by_one_bit(model[2].running_mean),
    "in place": lambda model: model[0].weight.data.mul_(2),
    "other memory": lambda model: setattr(model[3].weight, "data", torch.ones(5, 6)),
    "another parameter": lambda model: setattr(model[3], "weight", nn.Parameter(torch.ones(5, 6))),
    "the sign of zero": lambda model: minus_zero(model[5].bias),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change):
    model = net()
    model[5].bias.data.zero_()
    x = torch.zeros(2, 3)
    kept = stages_of(plr.capture(model, x))
    again = stages_of(plr.capture(model, x))
    assert again is kept
    CHANGES[change](model)
    found = stages_of(plr.capture(model, x))
    assert found is not kept
    fresh = nn.Sequential(*net()).eval()
    fresh.load_state_dict(model.state_dict())
    for one, other in zip(found.stages, stages_of(plr.capture(fresh, x)).stages, strict=True):
        assert np.array_equal(one.bias, other.bias) and one.blocks.keys() == other.blocks.keys()
        assert all(np.array_equal(one.blocks[key].dense(), other.blocks[key].dense()) for key in one.blocks)


def test_what_is_kept_does_not_change_with_the_model():
    model = net().double()
    part = plr.partition(model, plr.Slice.around(torch.zeros(3).double(), radius=1.0, seed=0))
    before = [block.dense().copy() for stage in part.stages.stages for block in stage.blocks.values()]
    for parameter in model.parameters():
        parameter.data.fill_(7)
    after = [block.dense() for stage in part.stages.stages for block in stage.blocks.values()]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_large_networks_are_not_kept(monkeypatch):
    monkeypatch.setattr(kept_stages, "_MOST_NUMBERS", 10)
    network = plr.capture(net(), torch.zeros(2, 3))
    assert stages_of(network) is not stages_of(network) and not network.lowered
