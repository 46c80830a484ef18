"""A module in the state in which it is traced, and put back as it was afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def unwrap(model: Any) -> nn.Module:
    """The user's own module inside ``torch.compile`` and data-parallel wrappers.

    Raises:
        TypeError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got {type(model).__name__}"
        )
    inner: Any = getattr(model, "_orig_mod", None)
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrap(inner)


def replicated(model: nn.Module) -> bool:
    """Whether ``DistributedDataParallel`` keeps a copy of the model in every process there is."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return bool(model.process_group.size() == torch.distributed.get_world_size())
    inner = getattr(model, "_orig_mod", None)
    return inner is not None and replicated(inner)


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each submodule gets its own flag back."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """What forward passes and the tracer write into a module is undone: attributes, their containers, buffers."""
    parts = [part for part in module.modules() if not hasattr(part, "cls_to_become")]  # lazy ones keep what they learn
    own: list[Any] = [vars(part) for part in parts]
    own += [value for attributes in own for value in attributes.values() if isinstance(value, (dict, list))]
    before = [(container, container.copy()) for container in own]
    buffers = [(b, b._version, b.clone()) for b in module.buffers() if not b.is_inference()]
    try:
        yield
    finally:
        for container, content in before:
            _put_back(container, content)
        for buffer, version, values in buffers:
            if buffer._version != version or not _same(buffer, values):  # batch norm writes without telling
                with torch.no_grad():
                    buffer.copy_(values)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.layout is not torch.strided or torch.equal(one, other)


def _put_back(container: Any, content: Any) -> None:
    """Give a list or dict the items back that it had."""
    if isinstance(container, list):
        container[:] = content
        return
    for key in [key for key in container if key not in content]:
        del container[key]
    container.update((key, value) for key, value in content.items() if container.get(key) is not value)
