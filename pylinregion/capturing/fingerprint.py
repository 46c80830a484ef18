"""How a module is put together: its parts and its tensors, which a captured network has references to."""

from __future__ import annotations

import types
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pylinregion.views.model_view import ModelView

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_GLOBAL_HOOKS = nn.modules.module._global_forward_pre_hooks, nn.modules.module._global_forward_hooks
_PLAIN = frozenset((type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size))


@dataclass
class Fingerprint:
    """What two equal modules have in common besides the values of their tensors.

    Attributes:
        parts: In one flat list, by name the part, its class's forward pass, its settings, and its tensors: which are
            the same ones, shapes, dtypes and devices.
        complete: Whether that is all that decides what the module computes: its parts are torch's own, and without
            hooks. Code of others may read anything.
    """

    parts: list[Any]
    complete: bool


def fingerprint(module: nn.Module) -> Fingerprint:
    """That of a module."""
    found: list[Any] = []
    complete = not any(_GLOBAL_HOOKS)
    numbers: dict[int, int] = {}  # tells which modules share a tensor

    def visit(name: str, part: nn.Module) -> None:
        nonlocal complete
        owner = type(part)
        found.extend((name, owner.forward))
        if not isinstance(part, ModelView):  # of which one is as good as another
            found.extend((id(part), weakref.ref(part)))  # a reference that has died equals no other
        for own in (part._parameters, part._buffers):
            for key, t in own.items():
                found.append(key)
                if t is not None:
                    found.extend((numbers.setdefault(id(t), len(numbers)), t.shape, t.dtype, t.device))
        if complete:
            complete = owner.__module__.startswith("torch.nn.modules.")
            complete &= not part._forward_hooks and not part._forward_pre_hooks
        if complete:
            settings = [item for item in vars(part).items() if item[0] not in _MODULE_ATTRIBUTES]
            if complete := all(_is_plain(value) for _, value in settings):
                found.extend(settings)
        for key, child in part._modules.items():
            if child is not None:
                visit(f"{name}.{key}", child)

    visit("", module)
    return Fingerprint(found, complete)


def _is_plain(value: Any) -> bool:
    """Whether a setting is what it says, and compares by that."""
    kind = type(value)
    if kind is tuple:
        return all(map(_is_plain, value))
    function = isinstance(value, (types.FunctionType, types.BuiltinFunctionType))
    of_torch = function and str(value.__module__).startswith("torch.")
    return kind in _PLAIN or of_torch
