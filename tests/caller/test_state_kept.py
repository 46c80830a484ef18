"""What a forward pass and hooks write to is what it was, after anything that the package does with a model."""

import collections
import functools
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import pylinregion as plr
from pylinregion.caller.reachable import Contents

BANK: list = []
CALLS = 0

USES = {
    "count_regions": lambda m, x: plr.count_regions(m, x, 0.1, n_directions=3),
    "partition": lambda m, x: plr.partition(m, plr.Slice.around(x[0], 1.0)),
    "Monitor": lambda m, x: plr.Monitor(
        m, {"a": (x, torch.zeros(len(x), dtype=torch.long))}, 0.1, n_directions=3
    ).measure(),
    "commutativity": lambda m, x: plr.measures.commutativity(m, x),
    "feature_ranks": lambda m, x: plr.measures.feature_ranks(m, x),
}


@functools.lru_cache
def table(size):
    return torch.ones(size)


class Tracker:
    def __init__(self):
        self.mean, self.calls = torch.zeros(12), 0

    def __call__(self, part, args, output):
        self.calls += 1
        self.mean = self.mean + output.detach().mean(0)


class Writes(nn.Module):
    """Writes to about everything that code can write to."""

    SEEN = 0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.last = nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 2)
        self.bias = nn.Parameter(torch.randn(12))
        self.stats = types.SimpleNamespace(mean=torch.zeros(12), calls=0, rows=np.zeros(12))
        self.cache, self.deep, self.recent = {}, {"a": {"b": {}}}, collections.deque(maxlen=3)
        self.register_buffer("kept", None)
        self.plain = torch.zeros(12)
        self.tracker, self.bank, self.running = Tracker(), {"mean": torch.zeros(12)}, torch.zeros(12)
        self.act.register_forward_hook(self.tracker)
        self.act.register_forward_hook(lambda part, args, output: self.bank.update(mean=output.detach().mean(0)))
        running = self.running

        def dead(part, args, output):
            running.mul_(0.9).add_(0.1 * output.detach().mean(0))

        self.act.register_forward_hook(dead)

    def forward(self, x):
        global CALLS
        CALLS += 1
        type(self).SEEN += 1
        h = self.act(self.first(x) + self.cache.setdefault("cpu", self.bias * 2) * table(12))
        self.stats.mean = self.stats.mean + h.detach().mean(0)
        self.stats.calls += 1
        self.deep["a"]["b"]["h"] = self.kept = self.bias + 1
        self.recent.append(h)
        BANK.append(h.detach())
        return self.last(h)


def seen(model):
    """All that it writes to."""
    stats, tracker = model.stats, model.tracker
    counts = CALLS, model.SEEN, stats.calls, tracker.calls
    held = [stats.mean, tracker.mean, model.bank["mean"], model.kept, *BANK, *model.recent]
    held += [*model.cache.values(), *model.deep["a"]["b"].values()]
    return counts, held, [model.running.clone(), model.plain.clone()]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("use", USES)
def test_the_users_state_is_left_alone(use, warm):
    BANK.clear()
    model, x = Writes(), torch.randn(7, 5)
    if warm:
        model(x)
    before = seen(model)
    for _ in range(2):  # the second uses the capture of the first
        USES[use](model, x)
        after = seen(model)
        assert after[0] == before[0]
        assert len(after[1]) == len(before[1]) and all(a is b for a, b in zip(after[1], before[1], strict=True))
        assert all(map(torch.equal, after[2], before[2]))
    assert type(table(12)) is torch.Tensor and float(table(12).sum()) == 12
    model(x).sum().backward()
    assert model.first.weight.grad is not None and model.training


def test_activations_of_a_hook_are_those_of_the_users_forward():
    model, kept, x = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 2)), {}, torch.randn(7, 5)
    model[1].register_forward_hook(lambda part, args, output: kept.update(relu=output))
    out = model(x)
    mine = kept["relu"]
    plr.count_regions(model, x, 0.1, n_directions=3)
    assert kept["relu"] is mine
    (out.sum() + mine.abs().sum()).backward()
    assert model[0].weight.grad is not None


def test_hooks_that_change_what_is_computed_are_captured_and_keep_their_order():
    def made(watch):
        torch.manual_seed(0)
        model, order, seen = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 2)), [], []
        hooks = [lambda p, a, out: out + 1.0, lambda p, a, out: seen.append(out), lambda p, a, out: 2.0 * out]
        hooks += [lambda p, a, out: seen.append(out.mean().item()), lambda p, a, out: out - 3.0]
        for number, hook in enumerate(hooks):
            if watch or number % 2 == 0:
                order.append(model[0].register_forward_hook(hook).id)
        return model, order, seen

    x = torch.randn(7, 5)
    (plain, _, _), (watched, order, seen) = made(False), made(True)
    wanted = plr.count_regions(plain, x, 1.0, n_directions=4)
    assert torch.equal(plr.count_regions(watched, x, 1.0, n_directions=4).changes, wanted.changes)
    assert list(watched[0]._forward_hooks) == order and seen == []


def test_parameters_that_a_forward_pass_writes_to_are_put_back():
    class Bounded(nn.Linear):
        def forward(self, x):
            self.weight.data.clamp_(-0.1, 0.1)
            return super().forward(x).relu()

    class Renormed(nn.Linear):
        def forward(self, x):
            self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.1)
            return super().forward(x).relu()

    x = torch.randn(7, 5)
    for kind in (Bounded, Renormed):
        model = kind(5, 4)
        before, storage = model.weight.detach().clone(), model.weight.data_ptr()
        with pytest.raises(plr.UnsupportedModelError, match="changes 'weight' of the model"):
            plr.capture(model, x)
        assert torch.equal(model.weight, before) and model.weight.data_ptr() == storage, kind
        assert type(model.weight.data) is torch.Tensor
    model, mean = nn.Sequential(nn.Linear(5, 4), nn.ReLU()), torch.zeros(4)
    model[0].register_forward_hook(lambda part, args, output: output - mean.mul_(0.9).add_(output.mean(0)))
    with pytest.raises(plr.UnsupportedModelError, match="changes a tensor that was there before"):
        plr.capture(model, x)
    assert torch.equal(mean, torch.zeros(4))


def test_random_states_are_left_alone():
    class Draws(nn.Linear):
        def forward(self, x):
            return super().forward(x).relu() + 0.0 * torch.rand(4) + 0.0 * np.random.rand()

    model, x = Draws(5, 4), torch.randn(3, 5)
    before, others = torch.get_rng_state(), np.random.get_state()[1].tolist()
    plr.explain(model, x)
    assert torch.equal(torch.get_rng_state(), before) and np.random.get_state()[1].tolist() == others


@pytest.mark.parametrize("warm", [False, True])
def test_cached_parametrizations_stay_differentiable(warm):
    model, x = (
        nn.Sequential(parametrizations.orthogonal(nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, 2)),
        torch.randn(3, 5),
    )
    wanted = plr.count_regions(model, x, 0.4, n_directions=5).changes
    fresh = nn.Sequential(parametrizations.orthogonal(nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, 2))
    fresh.load_state_dict(model.state_dict())
    with parametrize.cached():
        if warm:
            own = fresh[0].weight
        assert torch.equal(plr.count_regions(fresh, x, 0.4, n_directions=5).changes, wanted)
        if warm:
            assert fresh[0].weight is own
        F.mse_loss(fresh(x), torch.zeros(3, 2)).backward()
    assert fresh[0].parametrizations.weight.original.grad is not None


def test_contents_find_slots_cells_globals_and_arrays():
    class Slotted:
        __slots__ = ("__hidden", "unset")

        def __init__(self):
            self.__hidden = [1]

        def hidden(self):
            return self.__hidden

    slotted, array, local = Slotted(), np.arange(3.0), 1

    class Module(nn.Module):
        def forward(self, x):
            nonlocal local
            local += 1
            slotted.hidden().append(2)
            slotted.unset = 3
            array[0] = 7
            return x

    module = Module()
    contents = Contents((module,), values=True)
    module(torch.zeros(1))
    assert (local, slotted.hidden(), array[0]) == (2, [1, 2], 7)
    contents.put_back()
    assert (local, slotted.hidden(), array[0]) == (1, [1], 0) and not hasattr(slotted, "unset")
