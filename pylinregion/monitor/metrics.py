"""What a monitor measures: named measures in one table, and how any function becomes one."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion.caller.processes import ALONE, Ranks
from pylinregion.capturing.tracing import output_tensor
from pylinregion.counting.count import count_regions
from pylinregion.measures import weight_norm

_OF = ("points", "labels", "model")
_BATCH = 256  # points of a forward pass: large probes need no more memory than a batch of training


@dataclass(frozen=True)
class Measure:
    """A function whose values a monitor records.

    Attributes:
        name: In the keys of records.
        function: ``f(model, x, y) -> float | dict[str, float]``, with the module in eval mode, ``x`` points
            ``[B, *input_shape]`` and ``y`` labels ``[B, ...]`` (None: the probe has none); ``f(model)`` if it is of the
            model. It must not change ``x`` and ``y``; gradients are taken with ``torch.autograd.grad``, not with
            ``backward``.
        of: ``"points"``: of every probe; ``"labels"``: of the probes that have labels; ``"model"``: once.
        shared: Where ranks share points: True, all of them call the function, which sees to it itself that each does
            its part and that rank 0 returns the value; False, rank 0 alone calls it.
    """

    name: str
    function: Callable[..., float | Mapping[str, float]]
    of: str = "points"
    shared: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a string that is not empty, got {self.name!r}")
        if not callable(self.function):
            raise TypeError(f"function must be callable, got {type(self.function).__name__}")
        if self.of not in _OF:
            raise ValueError(f"of must be one of {', '.join(map(repr, _OF))}, got {self.of!r}")
        checks.switches(shared=self.shared)

    def values(self, *args: Any) -> dict[str, float]:
        """The function's values by their keys: its own name, and ``name/key`` for what a dict holds.

        A dict's key ``""`` stands for the name alone.

        Raises:
            TypeError: The function returned something else than numbers.
        """
        found = self.function(*args)
        entries = found.items() if isinstance(found, Mapping) else [("", found)]
        return {self.name + ("/" if key else "") + key: self._number(value) for key, value in entries}

    def _number(self, value: Any) -> float:
        single = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
        if not single and not isinstance(value, numbers.Real):
            raise TypeError(
                f"the measure {self.name!r} must return a number or a dict of numbers, got {type(value).__name__}"
            )
        return float(value.detach() if isinstance(value, Tensor) else value)


def local_complexity(
    model: nn.Module, x: Tensor, y: Tensor | None, ranks: Ranks = ALONE, **settings: Any
) -> dict[str, float]:
    """The mean of local complexity over points, with its 99 % interval, and the mean of each layer.

    Args:
        model: A module.
        x: ``[B, *input_shape]``.
        y: Not used.
        ranks: The processes that share the points.
        settings: Of :func:`pylinregion.count_regions`, ``radius`` among them.

    Returns:
        ``""``: the mean, ``"low"``, ``"high"``: the interval, ``"layer/NAME"``: the mean of that layer.
    """
    counts = count_regions(model, x, _ranks=ranks, **settings)
    mean, low, high = counts.mean()
    layers = {f"layer/{name}": counts.mean(name).mean for name in counts.layers}
    return {"": mean, "low": low, "high": high, **layers}


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """``[B, ...]``: what the model says about points, batch by batch, without gradients.

    Raises:
        TypeError: The model returns no tensor, or several of numbers.
    """
    with torch.no_grad():
        return torch.cat([output_tensor(model(part)) for part in torch.split(x, _BATCH)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor, ranks: Ranks = ALONE) -> float:
    """The share of points whose largest output is that of their label.

    Args:
        model: A module whose outputs are ``[B, K]`` or ``[B, K, ...]``, K classes.
        x: ``[B, *input_shape]``.
        y: Classes, integers ``[B]`` or ``[B, ...]``; or numbers of the outputs' shape, of which the largest counts (one
            for the class, else 0).
        ranks: The processes that share the points: each takes some of the batches.

    Raises:
        ValueError: The shapes do not go together, or there is but one class.
    """
    own = ranks.part(-(-len(x) // _BATCH))
    rows = slice(own.start * _BATCH, own.stop * _BATCH)
    found = _right(model, x[rows], y[rows]) if own.stop > own.start else torch.zeros(2, dtype=torch.int64, device="cpu")
    (found,) = ranks.summed(found)
    right, labels = found.tolist()
    return float(right / labels)


def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """``[2]`` int64: how many labels are those of the largest output, and how many there are."""
    said = outputs(model, x)
    if said.dim() < 2 or said.shape[1] < 2:
        raise ValueError(f"accuracy needs outputs [B, K] of at least 2 classes, got {list(said.shape)}")
    if y.is_floating_point():
        if y.shape != said.shape:
            raise ValueError(f"y must be classes or have the outputs' shape {list(said.shape)}, got {list(y.shape)}")
        y = y.argmax(dim=1)
    found = said.argmax(dim=1)
    if found.shape != y.shape:
        raise ValueError(f"y must be classes {list(found.shape)}, as the outputs are, got {list(y.shape)}")
    return torch.tensor([int((found == y).sum()), y.numel()], device="cpu")


def loss(model: nn.Module, x: Tensor, y: Tensor, *, function: Callable[[Tensor, Tensor], Tensor]) -> float:
    """``function(outputs, y)``, a number."""
    with torch.no_grad():
        return float(function(outputs(model, x), y))


@dataclass(frozen=True)
class Settings:
    """What the named measures need to know.

    Attributes:
        counting: Of :func:`pylinregion.count_regions`.
        loss: ``f(outputs, y)``.
        ranks: The processes that share the points.
    """

    counting: dict[str, Any]
    loss: Callable[[Tensor, Tensor], Tensor]
    ranks: Ranks = ALONE


# The measures that have names. A new one is a row here.
NAMED: dict[str, Callable[[Settings], Measure]] = {
    "local_complexity": lambda s: Measure(
        "lc", functools.partial(local_complexity, ranks=s.ranks, **s.counting), shared=True
    ),
    "accuracy": lambda s: Measure("accuracy", functools.partial(accuracy, ranks=s.ranks), "labels", shared=True),
    "loss": lambda s: Measure("loss", functools.partial(loss, function=s.loss), "labels"),
    "weight_norm": lambda s: Measure("weight_norm", weight_norm, "model"),
}


def chosen_measures(measures: Iterable[str | Measure | Callable[..., Any]], settings: Settings) -> list[Measure]:
    """The measures meant by names and functions.

    Raises:
        TypeError, ValueError: One is unknown, has no name, or has the name of another.
    """
    if isinstance(measures, (str, Measure)) or not isinstance(measures, Iterable):
        raise TypeError(f"measures must be a list of names and functions, got {type(measures).__name__}")
    found = [_measure(each, settings) for each in measures]
    names = [measure.name for measure in found]
    if not found:
        raise ValueError("measures must hold at least one, got none")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"measures must have different names, got {twice[0]!r} twice: Measure(name, function) gives one"
        )
    return found


def _measure(each: Any, settings: Settings) -> Measure:
    if isinstance(each, Measure):
        return each
    if isinstance(each, str):
        if each not in NAMED:
            raise ValueError(f"measures must be among {', '.join(map(repr, NAMED))}, or functions, got {each!r}")
        return NAMED[each](settings)
    if not callable(each):
        raise TypeError(f"measures must hold names and functions, got {type(each).__name__}")
    named = each
    while isinstance(named, functools.partial):
        named = named.func
    name = getattr(named, "__name__", "<none>")
    if name.startswith("<"):
        raise ValueError(f"a measure must have a name, got {each!r}: Measure(name, function) gives it one")
    return Measure(name, each)
