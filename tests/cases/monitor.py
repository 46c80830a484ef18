"""A small training run that tests of the monitor share. Nothing is tested here."""

import copy

import torch
from torch import nn
from torch.nn import functional

RADIUS = 0.3


def network():
    """Batch norm, dropout and a ReLU that changes in place; from a fixed seed."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 10),
        nn.BatchNorm1d(10),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(10, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def data():
    """``x`` ``[60, 6]`` and three classes ``y`` ``[60]``."""
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0)


def probes():
    """Two with labels, one without."""
    x, y = data()
    return {"train": (x[:20], y[:20]), "test": (x[20:50], y[20:50]), "random": x[50:]}


class Run:
    """A training, step by step, that draws its batches from torch's global generator."""

    def __init__(self, wrap=lambda model: model):
        self.model = network()
        self.called = wrap(self.model)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=0.02)
        self.x, self.y = data()
        torch.manual_seed(2)

    def step(self, scaler=None):
        rows = torch.randint(len(self.x), (16,))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=scaler is not None):
            loss = functional.cross_entropy(self.called(self.x[rows]), self.y[rows])
        self.optimiser.zero_grad()
        if scaler is None:
            loss.backward()
            self.optimiser.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(self.optimiser)
            scaler.update()
        return loss

    def state(self):
        """All that training goes on from."""
        gradients = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        return copy.deepcopy(self.model.state_dict()), gradients, torch.get_rng_state()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def values(record):
    """A record without its times."""
    return {key: value for key, value in record.items() if key != "seconds"}
