"""The wrappers that a module may come in: of ``torch.compile`` and of data parallelism."""

from __future__ import annotations

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
