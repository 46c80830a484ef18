"""A capture that is kept is that of the model as it is now, whatever the model's code reads."""

import importlib
import types

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr

capture_module = importlib.import_module("pylinregion.capturing.capture")
pytestmark = pytest.mark.usefixtures("doubles")

SETTINGS = {"scale": 1.0}
LOOSE = torch.tensor(1.0)


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = 0.0


class Reads(nn.Module):
    """Shifts its pre-activations by what a function reads."""

    OF_CLASS = 0.0

    def __init__(self, read, head=True):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 30), nn.Linear(30, 2)
        self.read = read
        self.array, self.plain = np.zeros(1), torch.zeros(1)
        self.nested = types.SimpleNamespace(inner=types.SimpleNamespace(shift=0.0), items=[0.0])
        self.deep = {"a": {"b": {"c": {"d": {"e": 0.0}}}}}
        self.long, self.names, self.slotted = [0.0] * 2000, {"x"}, Slotted()
        self.register_buffer("step", torch.zeros(1))

    def forward(self, x):
        return self.head(torch.relu(self.layer(x) - self.read(self)))


def put(space, key, value):
    space[key] = value


CHANGES = {
    "array in place": (lambda m: float(m.array[0]), lambda m: put(m.array, 0, 1.0)),
    "item of a plain tensor": (lambda m: m.plain.item(), lambda m: m.plain.add_(1)),
    "item of a buffer": (lambda m: m.step.item(), lambda m: m.step.add_(1)),
    "plain tensor in place": (lambda m: m.plain, lambda m: m.plain.add_(1)),
    "object in an object": (lambda m: m.nested.inner.shift, lambda m: setattr(m.nested.inner, "shift", 1.0)),
    "list in an object": (lambda m: m.nested.items[0], lambda m: put(m.nested.items, 0, 1.0)),
    "five dictionaries deep": (
        lambda m: m.deep["a"]["b"]["c"]["d"]["e"],
        lambda m: put(m.deep["a"]["b"]["c"]["d"], "e", 1.0),
    ),
    "long list": (lambda m: m.long[5], lambda m: put(m.long, 5, 1.0)),
    "set": (lambda m: float("y" in m.names), lambda m: m.names.add("y")),
    "slot": (lambda m: m.slotted.value, lambda m: setattr(m.slotted, "value", 1.0)),
    "attribute of the class": (lambda m: m.OF_CLASS, lambda m: setattr(type(m), "OF_CLASS", 1.0)),
    "global": (lambda m: SETTINGS["scale"], lambda m: put(SETTINGS, "scale", 2.0)),
    "global tensor": (lambda m: LOOSE, lambda m: LOOSE.add_(1)),
    "layer's forward": (
        lambda m: 0.0,
        lambda m: setattr(m.layer, "forward", lambda x: nn.Linear.forward(m.layer, x) - 1),
    ),
}


def counted(model, x):
    return plr.count_regions(model, x, 0.5, n_directions=4).changes


@pytest.mark.part(3)
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("blind", [False, True])
def test_what_the_model_reads_is_noticed(name, blind, monkeypatch):
    """Also where no output shows it, as behind a last layer that begins with zeros."""
    monkeypatch.setattr(Reads, "OF_CLASS", 0.0)
    monkeypatch.setitem(SETTINGS, "scale", 1.0)
    LOOSE.fill_(1.0)
    read, change = CHANGES[name]
    torch.manual_seed(0)
    model, x = Reads(read), torch.randn(20, 4)
    if blind:
        nn.init.zeros_(model.head.weight)
    before, network = counted(model, x), plr.capture(model, x)
    assert plr.capture(model, x) is network
    change(model)
    after = counted(model, x)
    capture_module._cache.clear()
    assert torch.equal(after, counted(model, x))
    assert not torch.equal(before, after)


def test_closures_hooks_and_methods_are_noticed():
    torch.manual_seed(0)
    shift = [0.0]
    model, x = Reads(lambda m: shift[0]), torch.randn(20, 4)
    off = counted(model, x)
    shift[0] = 1.0
    on = counted(model, x)
    assert not torch.equal(on, off)
    shift[0] = 0.0
    assert torch.equal(counted(model, x), off)
    switch = {"on": False}
    model.layer.register_forward_hook(lambda layer, args, output: output - 1.0 if switch["on"] else None)
    assert torch.equal(counted(model, x), off)
    switch["on"] = True
    assert torch.equal(counted(model, x), on)
    switch["on"] = False
    whole = nn.modules.module.register_module_forward_hook(
        lambda part, args, output: output - 1.0 if part is model.layer else None
    )
    assert torch.equal(counted(model, x), on)
    whole.remove()
    assert torch.equal(counted(model, x), off)


def test_torchs_own_modules_are_not_run_again():
    """What they are says what they compute: a training loop pays nothing."""
    model, x = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.1), nn.Linear(8, 2)), torch.randn(3, 4)
    counted(model, x)
    network = plr.capture(model, x)
    assert capture_module._origins[network].transcript is None
    model[1].forward = lambda z: z.relu()
    assert plr.capture(model, x) is not network
    del model[1].forward
    model[1].negative_slope = 2.0
    assert plr.capture(model, x) is not network


def test_steps_of_training_need_no_new_capture(monkeypatch):
    """Neither do counters, buffers, and numbers that are read from the model's tensors."""
    traced = []
    trace = capture_module._from_module
    monkeypatch.setattr(capture_module, "_from_module", lambda *args: traced.append(0) or trace(*args))
    torch.manual_seed(0)
    model, x = Reads(lambda m: m.step.item()), torch.randn(20, 4)
    model.steps, model.history = 0, []
    for step in range(3):
        model(x).square().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1 * parameter.grad)
        model.step.add_(0.1)
        model.steps += 1
        model.history.append(step)
        kept = counted(model, x)
    assert len(traced) == 1
    capture_module._cache.clear()
    assert torch.equal(kept, counted(model, x))


def test_what_no_output_depends_on_may_change(monkeypatch):
    """Operators of a counter, each time with another number."""

    class Counts(nn.Linear):
        calls, seen = 0, torch.zeros(())

        def forward(self, x):
            self.calls += 1
            self.seen = torch.full((), float(self.calls)) + x.detach().sum()
            return super().forward(x).relu()

    traced = []
    trace = capture_module._from_module
    monkeypatch.setattr(capture_module, "_from_module", lambda *args: traced.append(0) or trace(*args))
    model, x = Counts(4, 8), torch.randn(20, 4)
    network = plr.capture(model, x)
    for calls in range(1, 4):
        model(x)
        assert plr.capture(model, x) is network and model.calls == calls
    assert len(traced) == 1


def test_a_held_network_refuses_another_model():
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    x = torch.randn(3, 4)
    for change in (
        lambda m: setattr(m[0], "bias", None),
        lambda m: put(m, 1, nn.LeakyReLU(0.1)),
        lambda m: put(m, 1, nn.ReLU()),
        lambda m: m[0].register_forward_hook(lambda layer, args, output: output + 1),
    ):
        model = made()
        network = plr.capture(model, x)
        model[0].weight = nn.Parameter(torch.randn(8, 4))
        plr.capture(network, x)
        change(model)
        with pytest.raises(plr.UnsupportedModelError, match="capture the model again"):
            plr.count_regions(network, x, 0.5, n_directions=2)
    model = made()
    network = plr.capture(model, x)
    del model
    assert plr.count_regions(network, x, 0.5, n_directions=2).total.shape == (3,)
