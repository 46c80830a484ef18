"""What ``partition`` refuses and where it stops: budgets, bad input, numbers of extreme scale."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

import pylinregion as plr
from cases.networks import random_network
from cases.partitions import mlp, model_of, patterns_of, small
from cases.parts import examples

PLANE = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
SHAPES = ((2, 5, 5, 1), (3, 4, 4, 3), (2, 3, 3, 3, 2), (4, 7, 4))
quick = settings(max_examples=examples(40, 3), deadline=None, derandomize=True, database=None)


# ---- limits


@pytest.mark.parametrize("cells", [True, False])
def test_max_regions(cells):
    total = small().n_regions
    assert small(cells=cells, max_regions=total).n_regions == total
    with pytest.raises(plr.BudgetExceededError, match=f"more than max_regions={total - 1} regions: at least") as caught:
        small(cells=cells, max_regions=total - 1)
    assert total - 1 < caught.value.n_regions <= total
    assert "a lower bound. Raise max_regions" in str(caught.value)
    assert isinstance(caught.value, plr.PylinregionError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.n_regions == caught.value.n_regions and str(again) == str(caught.value)


def test_a_large_slice_is_stopped_early():
    model, where = mlp(2, 128, 128, 128, 1), plr.Slice.box(-3, 3)
    total = plr.partition(model, where, cells=False).n_regions
    assert total > 10_000
    for cells in (True, False):
        with pytest.raises(plr.BudgetExceededError) as caught:
            plr.partition(model, where, cells=cells, max_regions=100)
        assert 100 < caught.value.n_regions < total / 2


def test_memory_budget(monkeypatch):
    model, where = mlp(2, 64, 64, 64, 1), plr.Slice.box(-3, 3)
    message = "take more than the memory budget of 300000 bytes: .* count only"
    with pytest.raises(plr.BudgetExceededError, match=message) as caught:
        plr.partition(model, where, memory_budget=300_000)
    assert 0 < caught.value.n_regions < plr.partition(model, where, cells=False, memory_budget=1).n_regions
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "300000")
    with pytest.raises(plr.BudgetExceededError, match=message):
        plr.partition(model, where)
    assert plr.partition(model, where, memory_budget=10**9).n_regions > caught.value.n_regions
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "1 GB")
    with pytest.raises(ValueError, match="PYLINREGION_MEMORY_BUDGET must be a number of bytes, at least 1, got '1 GB'"):
        plr.partition(model, where)


# ---- bad input


class Softmax(nn.Module):
    def forward(self, x):
        return x.softmax(1)


class Two(nn.Module):
    def forward(self, x):
        return x.relu(), x


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"slice_": [0, 1]}, TypeError, "slice_ must be a pylinregion.Slice, got list"),
        (
            {"model": "model"},
            TypeError,
            "model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got str",
        ),
        (
            {"slice_": plr.Slice(torch.zeros(3), [1.0, 0, 0], [0.0, 1, 0])},
            ValueError,
            r"slice_ must be of the model's input shape, got \[3\]: .*the model raised RuntimeError",
        ),
        (
            {"model": plr.capture(mlp(3, 2), torch.zeros(1, 3))},
            ValueError,
            r"slice_ must be of the model's input shape \[3\], got \[2\]",
        ),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"threads": 1.5}, TypeError, "threads must be an integer, got float"),
        ({"max_regions": 0}, ValueError, "max_regions must be at least 1, got 0"),
        ({"memory_budget": -5}, ValueError, "memory_budget must be at least 1, got -5"),
        ({"memory_budget": "1GB"}, TypeError, "memory_budget must be an integer, got str"),
        ({"layers": "1"}, TypeError, "layers must be a list of layer names, got str"),
        ({"layers": ["7"]}, ValueError, "layers must be among '1', got '7'"),
        ({"layers": ["1", "1"]}, ValueError, "layers must not repeat a name"),
        (
            {"slice_": plr.Slice([0.0, 0], [1.0, 0], [0.0, 1], [[0, 0], [1e31, 0], [0, 1]])},
            ValueError,
            r"slice_.polygon must have coordinates up to 1e\+30 in size, got 1e\+31",
        ),
        ({"model": Softmax()}, plr.UnsupportedModelError, "softmax"),
        ({"model": Two()}, plr.UnsupportedModelError, "one output tensor, this one has 2"),
        ({"model": nn.Sequential(nn.Linear(2, 2), nn.GELU())}, plr.UnsupportedModelError, "gelu.*smooth"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, error, message):
    given_ = {"model": mlp(2, 3, 1), "slice_": plr.Slice.box(0, 1), **arguments}
    with pytest.raises(error, match=message):
        plr.partition(given_.pop("model"), given_.pop("slice_"), **given_)


def test_wrong_regions_and_neurons_are_refused():
    part = small()
    for use in (part.polygon, part.pattern, part.jacobian, lambda r: part.affine_maps([r]), lambda r: part.class_of(r)):
        for wrong in (-1, part.n_regions):
            with pytest.raises(ValueError, match=f"regions? must be from 0 to {part.n_regions - 1}, got {wrong}"):
                use(wrong)
    with pytest.raises(TypeError, match="regions must be integers, got float64"):
        part.affine_maps([1.0])
    with pytest.raises(ValueError, match="neuron must be from 0 to 15, got 16"):
        part.neuron(16)


@pytest.mark.parametrize("exponent", [-900, -430, -300, 200, 400])
def test_extreme_scales_are_exact_or_refused(exponent):
    weights, biases = random_network("generic", (2, 5, 4, 1), 0)
    where = plr.Slice.box(-2, 2)
    plain = plr.partition(model_of(weights, biases), where)
    scale = 2.0**exponent
    scaled = [weights[0] * scale, weights[1] / scale, weights[2]], [biases[0] * scale, biases[1], biases[2]]
    if exponent == -900:  # the second layer amplifies by 2^900
        with pytest.raises(plr.UnsupportedModelError, match=r"weights of this scale: .* and 2\^440 is the limit"):
            plr.partition(model_of(*scaled), where)
    else:
        part = plr.partition(model_of(*scaled), where)
        assert part.n_regions > 30 and set(patterns_of(part)) == set(patterns_of(plain))


def tiny_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


@pytest.mark.parametrize("name", ["max_regions", "memory_budget", "threads"])
def test_integers_beyond_64_bits_are_no_error_of_the_binding(name):
    with pytest.raises(ValueError, match=rf"{name} must be at most \d+, got {2**70}"):
        plr.partition(tiny_net(), plr.Slice.box(-1, 1), **{name: 2**70})


def test_cells_is_true_or_false():
    with pytest.raises(TypeError, match="cells must be True or False, got int"):
        plr.partition(tiny_net(), plr.Slice.box(-1, 1), cells=3)


def test_infinite_weights_are_named():
    """They once said that a linear layer is not affine, or hides its derivative; so did 5e-324."""
    net = tiny_net().double()
    with torch.no_grad():
        net[0].weight.fill_(torch.inf)
    with pytest.raises(plr.UnsupportedModelError, match=r"the model's 0.weight has NaN or infinite entries"):
        plr.partition(net, plr.Slice.box(-1, 1))


def test_weights_of_the_smallest_numbers_are_partitioned():
    net = tiny_net().double()
    with torch.no_grad():
        net[0].weight.fill_(5e-324)
        net[0].bias.fill_(5e-324)
    part = plr.partition(net, plr.Slice.box(-2, 2))
    assert part.n_regions == 2  # on both sides of s + t + 1 = 0


def test_regions_and_neurons_that_are_no_integers_are_named():
    part = plr.partition(tiny_net(), plr.Slice.box(-1, 1))
    assert part.affine_maps([]).shape == (0, 1, 3)
    with pytest.raises(ValueError, match=r"regions must be \[n\] region numbers, got 0 dimensions"):
        part.affine_maps(0)
    for use in (part.pattern, part.polygon, part.jacobian):
        for wrong in ([0, 1], 0.0, True, "a"):
            with pytest.raises(TypeError, match="region must be an integer, got"):
                use(wrong)
    with pytest.raises(TypeError, match="neuron must be an integer, got float"):
        part.neuron(1.5)


def test_locate_inputs_checks_off_plane():
    part = plr.partition(tiny_net(), plr.Slice.box(-1, 1))
    for wrong in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="off_plane must not be negative, got"):
            part.locate_inputs(np.zeros(2), off_plane=wrong)
    with pytest.raises(TypeError, match="off_plane must be a number, got str"):
        part.locate_inputs(np.zeros(2), off_plane="a")
    assert part.locate_inputs(np.zeros(2), off_plane=0) >= 0


@pytest.mark.parametrize("cells", [False, True])
@pytest.mark.parametrize("duplicated", [False, True])
def test_the_certificate_is_the_same_for_any_number_of_threads(cells, duplicated):
    """The cells of tasks were settled twice, and their decisions counted twice; found by a review."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    if duplicated:
        with torch.no_grad():
            net[2].weight[32:], net[2].bias[32:] = net[2].weight[:32], net[2].bias[:32]
    found = [
        plr.partition(net, plr.Slice.box(-2, 2), cells=cells, threads=threads).certificate for threads in (1, 2, 3, 16)
    ]
    assert found[0] == found[1] == found[2] == found[3]
