"""A model of several inputs with all but one held is a model of one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr

pytestmark = pytest.mark.usefixtures("doubles")


class Decoder(nn.Module):
    """Of a conditional autoencoder: the label goes in at every layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(11, 8), nn.Linear(8, 4)

    def forward(self, z, label):
        h = self.a(torch.cat([z, label], dim=1)).relu()
        return self.c(self.b(torch.cat([h, label], dim=1)).relu())


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.value = nn.Linear(5, 12), nn.Linear(12, 1)

    def forward(self, *, state, action, scale=1.0):
        return scale * self.value(self.hidden(torch.cat([state, action], dim=-1)).relu())


def decoder_at(model, label):
    """The same for one label, written by hand: it is a bias."""
    a, b, c = nn.Linear(2, 8), nn.Linear(8, 8), model.c
    with torch.no_grad():
        for part, layer, width in ((a, model.a, 2), (b, model.b, 8)):
            part.weight.copy_(layer.weight[:, :width])
            part.bias.copy_(layer.bias + layer.weight[:, width:] @ label[0])
    return nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)


@pytest.mark.part(6)
@pytest.mark.parametrize("by", ["position", "name", "both"])
def test_a_decoder_at_a_label(by):
    model, label = Decoder(), torch.tensor([[0.0, 1.0, 0.0]])
    free = {
        "position": lambda: plr.fix(model, ..., label),
        "name": lambda: plr.fix(model, label=label),
        "both": lambda: plr.fix(model, ..., label=label),
    }[by]()
    label_before = label.clone()
    label.zero_()  # what is held is a copy
    alone = decoder_at(model, label_before)
    slice_ = plr.Slice.box((-2, -2), (2, 2))
    one, other = plr.partition(free, slice_), plr.partition(alone, slice_)
    assert one.n_regions == other.n_regions > 5
    assert np.array_equal(one.patterns, other.patterns)
    assert np.allclose(one.affine_maps(), other.affine_maps(), rtol=1e-12, atol=1e-14)
    one.verify(free, samples=50)
    with torch.no_grad():
        model.a.weight.mul_(2)
    x = torch.randn(4, 2)
    one = plr.count_regions(free, x, 1.0, n_directions=2)
    other = plr.count_regions(decoder_at(model, label_before), x, 1.0, n_directions=2)
    assert torch.equal(one.changes, other.changes) and one.total.sum() > 0


def test_a_q_function_at_a_state_and_at_an_action():
    model, state, action = Critic(), torch.randn(1, 3), torch.randn(1, 2)
    weight, bias = model.hidden.weight, model.hidden.bias
    for free, x, own, held in (
        (plr.fix(model, state=state, scale=2.0), torch.randn(4, 2), weight[:, 3:], bias + weight[:, :3] @ state[0]),
        (
            plr.fix(model, action=action, state=..., scale=2.0),
            torch.randn(4, 3),
            weight[:, :3],
            bias + weight[:, 3:] @ action[0],
        ),
    ):
        alone = nn.Sequential(nn.Linear(x.shape[1], 12), nn.ReLU(), model.value)
        alone[0].weight, alone[0].bias = nn.Parameter(own.detach().clone()), nn.Parameter(held.detach())
        one, other = (plr.count_regions(each, x, 1.0, method="slice") for each in (free, alone))
        assert torch.equal(one.changes, other.changes) and torch.equal(one.regions, other.regions)
        assert one.total.sum() > 0
        assert torch.allclose(free(x), 2 * alone(x))


def test_parts_of_what_is_fixed():
    model, label, x = Decoder(), torch.randn(1, 3), torch.randn(4, 2)
    alone = decoder_at(model, label)
    for part in (plr.fix(plr.to(model, "b"), label=label), plr.to(plr.fix(model, label=label), "b")):
        assert torch.allclose(part(x), alone[:3](x))
        assert plr.count_regions(part, x, 1.0, n_directions=2).layers == ("relu",)
    part = plr.at(plr.fix(model, label=label), "a")  # which takes the label too, behind the code
    assert torch.allclose(part(torch.cat([x, label.expand(4, -1)], dim=1)), alone(x))
    assert part.points(x).shape == (4, 5)


def test_what_is_not_of_one_point_is_given_as_it_is():
    class Graph(nn.Module):
        def forward(self, x, adjacency, power, weights):
            for _ in range(power):
                x = torch.einsum("ij,bj->bi", adjacency, x)
            return (x * weights["scale"]).relu()

    adjacency, x = torch.randn(4, 4), torch.randn(3, 4)
    free = plr.fix(Graph(), ..., adjacency, 2, {"scale": torch.ones(4)})
    assert torch.allclose(free(x), (x @ adjacency.T @ adjacency.T).relu())
    assert plr.count_regions(free, x, 1.0, n_directions=2).changes.shape == (3, 1)
    assert {held.dtype for held in free.float().buffers()} == {torch.float32}  # with the model


def test_one_entry_of_a_dictionary():
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.see, self.feel = nn.Linear(4, 8), nn.Linear(3, 8)

        def forward(self, observation):
            return (self.see(observation["image"]) + self.feel(observation["state"])).relu()

    model, state, x = Policy(), torch.randn(1, 3), torch.randn(3, 4)
    observation = {"image": ..., "state": state}
    free = plr.fix(model, observation)
    alone = nn.Sequential(copy.deepcopy(model.see), nn.ReLU())
    with torch.no_grad():
        alone[0].bias += model.feel(state)[0]
    one, other = (plr.count_regions(each, x, 1.0, n_directions=2) for each in (free, alone))
    assert torch.equal(one.changes, other.changes) and one.total.sum() > 0
    assert observation["image"] is ... and observation["state"] is state
    part = plr.at(model, "see", like=({"image": x[:1], "state": state},))
    assert torch.allclose(part(x), alone(x))
    with pytest.raises(ValueError, match=r"one input must be left free, got ... for 2"):
        plr.fix(model, {"image": ..., "state": ...})


@pytest.mark.parametrize(
    "error, args, kwargs, match",
    [
        (
            ValueError,
            (),
            {},
            "one input must be left free, and 'z', 'label' are left: give ... for the one that is free",
        ),
        (ValueError, (1, 2), {}, "one input must be left free, and none that the model needs is left: give ..."),
        (ValueError, (...,), {"label": ...}, "one input must be left free, got ... for 2"),
        (TypeError, (), {"lable": 1}, "the model has no input 'lable': it has 'z', 'label'"),
        (TypeError, (1,), {"z": 1}, "the model's input 'z' is given by position and by name"),
        (TypeError, (1, 2, ...), {}, "the model takes 2 inputs by position, got 3"),
    ],
)
def test_bad_inputs_are_named(error, args, kwargs, match):
    with pytest.raises(error, match=match):
        plr.fix(Decoder(), *args, **kwargs)


def test_what_a_model_does_not_take_shows_when_it_runs():
    with pytest.raises(TypeError, match=r"model must be an nn.Module, .* got function"):
        plr.fix(lambda x: x, ...)
    free = plr.fix(Decoder(), label=torch.randn(5, 3))  # several labels
    with pytest.raises(ValueError, match=r"x must be points the model takes, .* and the model raised RuntimeError"):
        plr.count_regions(free, torch.randn(2, 2), 0.1)


def test_a_model_that_needs_several_inputs_is_told_of_fix():
    match = "the model must take one tensor, and needs 2 inputs, 'z', 'label': plr.fix holds all but one"
    with pytest.raises(ValueError, match=match):
        plr.count_regions(Decoder(), torch.randn(2, 2), 0.1)
    with pytest.raises(ValueError, match=match):
        plr.count_regions(plr.to(Decoder(), "b"), torch.randn(2, 2), 0.1)
