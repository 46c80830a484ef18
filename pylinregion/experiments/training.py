"""The training loop of the house: one step at a time, on data that is in memory, and its state for resuming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion.experiments.config import Training
from pylinregion.experiments.data import stream
from pylinregion.experiments.interventions import GaussianNoise, commutative_penalty, swapped
from pylinregion.experiments.models import embedding_and_body

Index = Tensor | slice
_BATCHES, _NOISE = 10, 11  # streams of random numbers


class Batches:
    """Indices of one batch after the other: each epoch is a new random order, cut into batches.

    Args:
        count: Points.
        size: Of a batch; the last one of an epoch is smaller if it must. None: all.
        generator: Of the orders.
    """

    def __init__(self, count: int, size: int | None, generator: torch.Generator) -> None:
        self.count, self.size, self._generator = count, min(size or count, count), generator
        self._order, self._next = torch.empty(0, dtype=torch.int64), 0

    def __call__(self) -> Tensor | None:
        """``[b]`` int64 on the CPU; None stands for all points in their own order."""
        if self.size == self.count:
            return None
        if self._next >= len(self._order):
            self._order, self._next = torch.randperm(self.count, generator=self._generator), 0
        chosen = self._order[self._next : self._next + self.size]
        self._next += self.size
        return chosen

    @property
    def ends_epoch(self) -> bool:
        """Whether the last batch was the last of its epoch."""
        return self._next >= len(self._order)

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch."""
        return {"order": self._order, "next": self._next, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._order, self._next = state["order"], state["next"]
        self._generator.set_state(state["generator"])


class Trainer:
    """A model, its optimiser, and the points that it learns.

    Points are indexed where they lie, so that a step costs what its tensor operations cost.

    Args:
        model: The module, on its device.
        x: Training points ``[N, ...]``, or tokens, on that device.
        y: Classes ``[N]``, of texts ``[N, T]``, int64.
        classes: How many.
        settings: How to train.
        seed: Of batches and noise.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, classes: int, settings: Training, seed: int) -> None:
        self.model, self._x, self._y, self._settings = model, x, y, settings
        self._embed, self._body = embedding_and_body(model)
        self._loss = _loss(settings.loss, getattr(torch, settings.loss_dtype), classes, y)
        self._batches = Batches(len(x), settings.batch, stream(seed, _BATCHES))
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        self._optimizer = kind(
            model.parameters(),
            lr=settings.learning_rate,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._noise = GaussianNoise(*settings.noise) if settings.noise else None
        self._noise_generator = stream(seed, _NOISE)
        self.train_accuracy = 0.0  # of the last epoch, as its batches were seen; kept only for the noise
        self._right = torch.zeros((), dtype=torch.int64, device=x.device)
        self._seen = 0

    def step(self) -> None:
        """One step of the optimiser."""
        chosen = self._batches()
        x = self._x if chosen is None else self._x[chosen]
        rows: Index = slice(None) if chosen is None else chosen
        self._optimizer.zero_grad()
        if self._noise is None:
            out = self.model(x)
        else:
            out = self._body(self._noise(self._embed(x), self.train_accuracy, self._noise_generator))
            self._count(out, rows)
        loss = self._loss(out, rows)
        if self._settings.commutative:
            loss = loss + commutative_penalty(out, self.model(swapped(x)), self._settings.commutative)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _count(self, out: Tensor, rows: Index) -> None:
        """The train accuracy that the noise goes by: of predictions made while training, once an epoch."""
        labels = self._y[rows]
        self._right += (out.detach().argmax(dim=1) == labels).sum()
        self._seen += labels.numel()
        if self._batches.ends_epoch:
            self.train_accuracy = int(self._right) / self._seen
            self._right.zero_()
            self._seen = 0

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "batches": self._batches.state_dict(),
            "noise_generator": self._noise_generator.get_state(),
            "accuracy": {"last": self.train_accuracy, "right": int(self._right), "seen": self._seen},
            "torch_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there: the next steps are those that would have come."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches.load_state_dict(state["batches"])
        self._noise_generator.set_state(state["noise_generator"])
        self.train_accuracy = state["accuracy"]["last"]
        self._right.fill_(state["accuracy"]["right"])
        self._seen = state["accuracy"]["seen"]
        torch.set_rng_state(state["torch_rng"])


def _loss(name: str, dtype: torch.dtype, classes: int, y: Tensor) -> Callable[[Tensor, Index], Tensor]:
    """A loss of outputs and the rows that they are of."""
    if name == "mse":
        targets = nn.functional.one_hot(y, classes).to(dtype)
        return lambda out, rows: nn.functional.mse_loss(out.to(dtype), targets[rows])
    return lambda out, rows: nn.functional.cross_entropy(out.to(dtype), y[rows])
