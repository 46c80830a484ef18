"""The arguments of a program's steps: values in the place of references, and other dtypes."""

from __future__ import annotations

from typing import Any

import torch

from pylinregion.graph.network import Node, Ref


def resolved(arguments: Any, values: dict[int, Any]) -> Any:
    """Arguments with the values that they refer to."""
    kind = type(arguments)
    if kind is Ref:
        return values[arguments.index]
    if kind is tuple:
        return tuple([resolved(argument, values) for argument in arguments])
    if kind is dict:
        return {key: resolved(argument, values) for key, argument in arguments.items()}
    return arguments


def retyped(node: Node, retype: dict[torch.dtype, torch.dtype]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A node's arguments with some dtypes replaced, that which it makes tensors of among them."""
    args, kwargs = _replaced((node.args, node.kwargs), retype)
    if node.dtype in retype and _makes_tensors_of_a_default_dtype(node):
        kwargs = {**kwargs, "dtype": retype[node.dtype]}
    return args, kwargs


def _replaced(arguments: Any, retype: dict[torch.dtype, torch.dtype]) -> Any:
    if isinstance(arguments, torch.dtype):
        return retype.get(arguments, arguments)
    if isinstance(arguments, tuple):
        return tuple(_replaced(argument, retype) for argument in arguments)
    if isinstance(arguments, dict):
        return {key: _replaced(argument, retype) for key, argument in arguments.items()}
    return arguments


def _makes_tensors_of_a_default_dtype(node: Node) -> bool:
    """``torch.full((2,), 0.5)`` and the like."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.kwargs.get("dtype") is not None:
        return False
    kinds = {argument.name: str(argument.type) for argument in schema.arguments}
    return "dtype" in kinds and not any("Tensor" in kind for kind in kinds.values())
