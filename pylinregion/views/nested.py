"""What a model takes or returns: nested sequences, mappings and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any


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


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same with what a function makes of each thing in it."""
    if isinstance(value, (list, tuple)):
        items = [mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, Mapping):
        found: Any = copy.copy(value)
        for key, item in value.items():
            found[key] = mapped(item, change)
        return found
    if has_fields(value):
        found = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(found, field.name, mapped(getattr(value, field.name), change))
        return found
    return change(value)


def has_fields(value: Any) -> bool:
    """Whether it is a dataclass's instance."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
