"""A model of several inputs with all but one of them held."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from types import EllipsisType
from typing import Any

from torch import Tensor, nn

from pylinregion.views.model_view import ModelView, rows_of
from pylinregion.views.nested import leaves

BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_SEVERAL = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def fix(model: nn.Module, /, *args: Any, **kwargs: Any) -> FreeInput:
    """A model of several inputs as a model of one: all others are held.

    The arguments are those of the model, with ``...`` in the place of the input that is left free:
    ``plr.fix(decoder, ..., label)``, ``plr.fix(critic, state=state, action=...)``, and for a model that takes one
    dictionary ``plr.fix(policy, {"image": ..., "state": state})``. Where there is no ``...``, the free one is the only
    input that the model needs and is not given. It runs the live model, as :func:`pylinregion.at`.

    Args:
        model: A module, or a part of one.
        args, kwargs: What to hold. Tensors ``[1, *shape]`` are for one point, and are given to the model once for each
            point; all else is given to it as it is. Tensors are copied.

    Returns:
        A module that takes points ``[B, *shape]`` of the input that is left.

    Raises:
        TypeError: ``model`` is no module, or has no input of a name.
        ValueError: No input is left free, or several are.

    >>> import torch, pylinregion as plr
    >>> class Critic(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden, self.value = torch.nn.Linear(5, 8), torch.nn.Linear(8, 1)
    ...     def forward(self, state, action):
    ...         return self.value(self.hidden(torch.cat([state, action], dim=1)).relu())
    >>> actions = plr.fix(Critic(), state=torch.zeros(1, 3))
    >>> plr.partition(actions, plr.Slice.box((-1, -1), (1, 1)), cells=False).n_regions > 0
    True
    """
    return FreeInput(model, args, kwargs)


class FreeInput(ModelView):
    """A model with all inputs but one held; see :func:`fix`.

    Args:
        model: The model.
        args, kwargs: Its arguments, see there.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(model)
        inputs = inputs_of(self.model)
        _check_names(inputs, args, kwargs)
        free = sum(isinstance(value, EllipsisType) for value in leaves((args, kwargs)))
        if free > 1:
            raise ValueError(f"one input must be left free, got ... for {free}")
        if not free:
            name = _only_one_left(self.model, args, kwargs)
            if inputs[name].kind is Parameter.POSITIONAL_ONLY:
                args = (*args, ...)
            else:
                kwargs = {**kwargs, name: ...}
        self.hold(args, kwargs)

    def forward(self, x: Tensor) -> Any:
        """What the model returns for ``x``, ``[B, *shape]``, and what is held."""
        args, kwargs = self.arguments(rows_of(x), x)
        return self.model(*args, **kwargs)


def inputs_of(model: nn.Module) -> dict[str, Parameter]:
    """A model's inputs by name."""
    while isinstance(model, ModelView) and model.takes_the_models_inputs:
        model = model.model
    return dict(inspect.signature(model.forward).parameters)


def needed_inputs(model: nn.Module) -> list[str]:
    """The names of the inputs that a model cannot do without; nothing is said of one that takes any number."""
    inputs = inputs_of(model).values()
    return [each.name for each in inputs if each.default is Parameter.empty and each.kind not in _SEVERAL]


def for_needed_inputs(model: nn.Module, value: Callable[[], Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments for all inputs that a model needs, or for the first if it needs none: a value each."""
    inputs, needed = inputs_of(model), needed_inputs(model)
    by_name = [name for name in needed if inputs[name].kind not in BY_POSITION]
    positions = len(needed) - len(by_name) if needed else 1
    return [value() for _ in range(positions)], {name: value() for name in by_name}


def _check_names(inputs: dict[str, Parameter], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The model has inputs of these names."""
    unknown = [name for name in kwargs if name not in inputs or inputs[name].kind in _SEVERAL]
    named = [name for name, each in inputs.items() if each.kind not in _SEVERAL]
    if unknown and not any(each.kind is Parameter.VAR_KEYWORD for each in inputs.values()):
        raise TypeError(
            f"the model has no input '{unknown[0]}': it has {', '.join(map(repr, named)) or 'no named ones'}"
        )
    places = [name for name, each in inputs.items() if each.kind in BY_POSITION]
    several = any(each.kind is Parameter.VAR_POSITIONAL for each in inputs.values())
    if len(args) > len(places) and not several:
        raise TypeError(f"the model takes {len(places)} inputs by position, got {len(args)}")
    twice = [name for name in places[: len(args)] if name in kwargs]
    if twice:
        raise TypeError(f"the model's input '{twice[0]}' is given by position and by name")


def _only_one_left(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The one input that a model needs and is not given."""
    inputs, needed = inputs_of(model), needed_inputs(model)
    by_position = [name for name, each in inputs.items() if each.kind in BY_POSITION][: len(args)]
    left = [name for name in needed if name not in (*by_position, *kwargs)]
    if len(left) != 1:
        found = f"{', '.join(map(repr, left))} are" if left else "none that the model needs is"
        raise ValueError(f"one input must be left free, and {found} left: give ... for the one that is free")
    return left[0]
