"""How a module is put together: its parts and its tensors, which a captured network has references to."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_GLOBAL_HOOKS = nn.modules.module._global_forward_pre_hooks, nn.modules.module._global_forward_hooks
_PLAIN = frozenset((type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size))


@dataclass
class Fingerprint:
    """What two equal modules have in common besides the values of their tensors.

    Attributes:
        parts: By name the part, the class and its forward pass, its settings, and its tensors: which are the same ones,
            shapes, dtypes and devices.
        complete: Whether that is all that decides what the module computes: its parts are torch's own, and without
            hooks. Code of others may read anything.
    """

    parts: list[Any]
    complete: bool


def fingerprint(module: nn.Module) -> Fingerprint:
    """That of a module."""
    parts: list[Any] = []
    complete = not any(_GLOBAL_HOOKS)
    numbers: dict[int, int] = {}  # tells which modules share a tensor

    def kind(tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        return numbers.setdefault(id(tensor), len(numbers)), tensor.shape, tensor.dtype, tensor.device

    for name, part in module.named_modules(remove_duplicate=False):
        owner = type(part)
        tensors = {key: kind(t) for own in (part._parameters, part._buffers) for key, t in own.items()}
        settings = {key: value for key, value in vars(part).items() if key not in _MODULE_ATTRIBUTES}
        complete &= owner.__module__.startswith("torch.nn.modules.") and all(map(_is_plain, settings.values()))
        complete &= not part._forward_hooks and not part._forward_pre_hooks
        parts.append((name, _Same(part), owner.forward, settings if complete else None, tensors))
    return Fingerprint(parts, complete)


def _is_plain(value: Any) -> bool:
    """Whether a setting is what it says, and compares by that."""
    kind = type(value)
    if kind is tuple:
        return all(map(_is_plain, value))
    function = isinstance(value, (types.FunctionType, types.BuiltinFunctionType))
    of_torch = function and str(value.__module__).startswith("torch.")
    return kind in _PLAIN or of_torch


class _Same:
    """Equal to another of the same living object, which it does not keep alive."""

    def __init__(self, value: Any) -> None:
        self.address = id(value)
        self.value: Callable[[], Any] = weakref.ref(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.address == other.address and self.value() is not None
