"""A model with one of its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.views.absent import is_absent
from pylinregion.views.model_view import ModelView
from pylinregion.views.nested import has_fields


def select(model: nn.Module, *keys: str | int) -> OutputChoice:
    """A model that returns one of the outputs of another.

    It runs the live model, as :func:`pylinregion.at`. What only the other outputs depend on is not in its network.

    Args:
        model: A module that returns a tuple, a list, a dictionary or a dataclass, or a part of one.
        keys: Which: a name (a key, or a field), or a place from 0 on; several go inwards, as in
            ``plr.select(model, "decoder", 0)``.

    Returns:
        A module that takes what ``model`` takes.

    Raises:
        TypeError: ``model`` is no module, or a key neither a string nor an integer.
        ValueError: There is no key.

    That the output has nothing under a key shows when the forward pass runs: an ``UnsupportedModelError``.

    >>> import torch, pylinregion as plr
    >>> class TwoHeads(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.trunk, self.mean, self.spread = (torch.nn.Linear(3, 3) for _ in range(3))
    ...     def forward(self, x):
    ...         h = self.trunk(x).relu()
    ...         return {"mean": self.mean(h), "spread": self.spread(h).exp()}
    >>> plr.explain(plr.select(TwoHeads(), "mean"), torch.zeros(1, 3)).coverage["partition"] is None
    True
    """
    return OutputChoice(model, keys)


class OutputChoice(ModelView):
    """A model with one of its outputs; see :func:`select`.

    Args:
        model: The model.
        keys: Which output.
    """

    takes_the_models_inputs = True

    def __init__(self, model: nn.Module, keys: tuple[str | int, ...]) -> None:
        super().__init__(model)
        if not keys:
            raise ValueError("select must be told which output, by one key or more, got none")
        for key in keys:
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                raise TypeError(f"a key must be the name or the number of an output, got {type(key).__name__}")
        self.keys = keys

    def extra_repr(self) -> str:
        """Which output."""
        return f"keys={self.keys}"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output when the model takes these arguments."""
        value = self.model(*args, **kwargs)
        for key in self.keys:
            value = value if is_absent(value) else _item(value, key)
        return value


def _item(output: Any, key: str | int) -> Any:
    """One of the things in a model's output.

    Raises:
        UnsupportedModelError: There is none of that name or number.
    """
    if isinstance(output, Mapping):
        named = dict(output)
    elif has_fields(output):
        named = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    elif isinstance(output, (list, tuple)):
        named = {name: getattr(output, name) for name in getattr(output, "_fields", ())}
    else:
        kind = "a tensor" if isinstance(output, Tensor) else f"one {type(output).__name__}"
        raise UnsupportedModelError(f"the model returns {kind}: there is nothing to select by {key!r}")
    if isinstance(key, str) and key in named:
        return named[key]
    values = list(named.values()) if named else list(output)
    if isinstance(key, int) and -len(values) <= key < len(values):
        return values[key]
    has = f"has {', '.join(map(repr, named))}" if named else f"has {len(values)} items"
    raise UnsupportedModelError(f"the model's output has nothing under {key!r}: it {has}")
