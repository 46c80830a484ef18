"""A model made of another: it runs the live one, so weights, modes, hooks and devices are those of today."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any

from torch import Tensor, nn

from pylinregion.caller.wrappers import unwrap
from pylinregion.views.absent import is_absent
from pylinregion.views.nested import mapped


class ModelView(nn.Module):
    """A module that runs a model in a way of its own.

    Captures look through it: modules and tensors have the names that they have in the user's model.

    Args:
        model: The model, out of the wrappers of ``torch.compile`` and data parallelism.

    Raises:
        TypeError: ``model`` is no module.
    """

    model: nn.Module
    takes_the_models_inputs = False  # whether its arguments are the model's

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, whose forward pass can be run, got {type(model).__name__}")
        self.model = unwrap(model)
        self.training = self.model.training
        self._args: list[Any] = []
        self._kwargs: dict[str, Any] = {}

    def hold(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Keep arguments of the model: tensors, also in what is nested, by copies, which go where the model goes."""

        def kept(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            name = _BufferName(f"held_{len(self._buffers)}")
            self.register_buffer(name, value.detach().clone(), persistent=False)
            return name

        self._args, self._kwargs = mapped(list(args), kept), mapped(dict(kwargs), kept)

    def arguments(self, rows: Any, x: Any = None) -> tuple[list[Any], dict[str, Any]]:
        """The arguments that are kept: tensors ``[1, ...]``, of one point, once for each point.

        Args:
            rows: How many points there are.
            x: What takes the place of ``...``.
        """

        def given(value: Any) -> Any:
            if isinstance(value, EllipsisType):
                return x
            if not isinstance(value, _BufferName):
                return value
            tensor = self.get_buffer(value)
            return tensor.expand(rows, *tensor.shape[1:]) if tensor.shape[:1] == (1,) else tensor

        return mapped(self._args, given), mapped(self._kwargs, given)


class _BufferName(str):
    """Stands for a tensor that a view keeps as a buffer."""


def rows_of(x: Any) -> Any:
    """How many points there are."""
    return x.missing.rows if is_absent(x) else x.shape[0]


def innermost(module: nn.Module) -> nn.Module:
    """The user's own model in a view, or in views of views."""
    return innermost(module.model) if isinstance(module, ModelView) else module


def depth(module: nn.Module) -> int:
    """How many views a model is in."""
    return 1 + depth(module.model) if isinstance(module, ModelView) else 0


def reference(module: nn.Module) -> Callable[[], nn.Module | None]:
    """A weak reference; of a view one to its model, for a view is as good as another that is made like it.

    Returns:
        A function that gives the module; None once the user's own model is gone.
    """
    if not isinstance(module, ModelView):
        return weakref.ref(module)
    model_of, like = reference(module.model), copy.copy(module)
    like._modules = {}

    def again() -> nn.Module | None:
        if (model := model_of()) is None:
            return None
        view = copy.copy(like)
        view._modules = {"model": model}
        return view

    return again
