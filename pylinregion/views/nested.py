"""What a model takes or returns: tensors in nested sequences, mappings and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def leaves(value: Any) -> Iterator[Any]:
    """What is in it, in order."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif has_fields(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, slice):
        yield from leaves((value.start, value.stop, value.step))
    else:
        yield value


def with_tensors(value: Any, made: Callable[[Tensor], Tensor]) -> Any:
    """The same with other tensors in the places of those in it."""
    if isinstance(value, Tensor):
        return made(value)
    if isinstance(value, (list, tuple)):
        items = [with_tensors(item, made) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    found: Any = value
    if isinstance(value, Mapping):
        found = copy.copy(value)
        for key, item in value.items():
            found[key] = with_tensors(item, made)
    elif has_fields(value):
        found = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(found, field.name, with_tensors(getattr(value, field.name), made))
    return found


def has_fields(value: Any) -> bool:
    """Whether it is a dataclass's instance."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
