"""What a captured network depends on besides the values of its tensors, so that a change is noticed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


def fingerprint(module: nn.Module) -> list[Any]:
    """What of a module, besides its tensors' values, a captured network depends on."""
    parts: list[Any] = []
    numbers: dict[int, int] = {}  # tells which modules share a tensor

    def kind(tensor: Tensor | None) -> Any:
        number = numbers.setdefault(id(tensor), len(numbers))
        return None if tensor is None else (number, tensor.shape, tensor.dtype)

    for name, part in module.named_modules(remove_duplicate=False):
        tensors = {key: kind(t) for own in (part._parameters, part._buffers) for key, t in own.items()}
        plain = [
            (key, _comparable(value))
            for key, value in vars(part).items()
            if key not in _MODULE_ATTRIBUTES and key + "_g" not in tensors and key + "_orig" not in tensors
        ]  # weight norm and pruning by hooks set an attribute from such parameters on every forward pass
        hooks = (*part._forward_hooks, None, *part._forward_pre_hooks)  # keys that are never used again
        parts.append((name, _Same(part), _Same(type(part)), plain, hooks, tensors))
    return parts


def _comparable(value: Any, depth: int = 0) -> Any:
    """A value that compares equal while an attribute means the same."""
    if isinstance(value, (bool, int, float, str, type(None), torch.dtype)):
        return value
    if isinstance(value, (list, tuple, dict)) and len(value) <= 1000 and depth < 4:
        items = value.items() if isinstance(value, dict) else value
        return type(value), [_comparable(item, depth + 1) for item in items]
    if depth == 0 and hasattr(value, "__dict__") and not isinstance(value, (nn.Module, Tensor, type)):
        return _Same(value), _comparable(dict(vars(value)), 2)  # an object that holds settings
    return _Same(value)


class _Same:
    """Equal to another of the same living object, which it does not keep alive."""

    def __init__(self, value: Any) -> None:
        self.address = id(value)
        try:
            self.value: Callable[[], Any] = weakref.ref(value)
        except TypeError:  # nothing tells whether it lives
            self.value = object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.address == other.address and self.value() is not None
