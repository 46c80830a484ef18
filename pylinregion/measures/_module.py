"""The module itself, for measures that no captured network stands in for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pylinregion.caller.wrappers import unwrap
from pylinregion.capturing.tracing import output_tensor


def module_of(model: Any) -> nn.Module:
    """The user's own module, out of the wrappers of ``torch.compile`` and data parallelism.

    Raises:
        TypeError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    return unwrap(model)


def logits(module: nn.Module, x: Tensor) -> Tensor:
    """A classifier's output.

    Raises:
        ValueError: It is not ``[n, classes]`` finite numbers of two classes or more.
        TypeError: It is no floating point tensor, and holds no single one.
    """
    out = output_tensor(module(x))
    if not out.is_floating_point():
        raise TypeError(f"model must return a floating point tensor, got a tensor of {out.dtype}")
    if out.dim() != 2 or len(out) != len(x) or out.shape[1] < 2:
        raise ValueError(f"model must return [{len(x)}, classes] with 2 classes or more, got {list(out.shape)}")
    if not bool(torch.isfinite(out).all()):
        raise ValueError("model must return finite numbers, got NaN or infinity")
    return out
