"""The points that a monitor looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion._util import checks


@dataclass
class Probe:
    """Points, and their labels if there are any. They move to wherever the model is.

    Attributes:
        x: ``[B, *input_shape]``.
        y: ``[B, ...]``, or None.
    """

    x: Tensor
    y: Tensor | None

    def on(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Points and labels on a device."""
        if self.x.device != device or (self.y is not None and self.y.device != device):
            self.x = self.x.to(device)
            self.y = None if self.y is None else self.y.to(device)
        return self.x.detach(), None if self.y is None else self.y.detach()

    @property
    def versions(self) -> tuple[int, int | None]:
        """Numbers that tell whether points or labels were changed in place."""
        return self.x._version, None if self.y is None else self.y._version


def module_device(module: nn.Module) -> torch.device:
    """Where the module's parameters are, or the first of them; the CPU if it has none."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def check_probes(probes: Any, module: nn.Module) -> dict[str, Probe]:
    """Named points, or pairs of points and labels.

    Raises:
        TypeError, ValueError: The mapping, a name, points or labels are not as they must be.
    """
    if not isinstance(probes, Mapping):
        raise TypeError(f"probes must be a dict of names and points, got {type(probes).__name__}")
    if not probes:
        raise ValueError("probes must hold at least one, got none")
    return {_name(name): _probe(f"probes[{name!r}]", value, module) for name, value in probes.items()}


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"probes must have names without '/' that are not empty, got {name!r}")
    return name


def _probe(where: str, value: Any, module: nn.Module) -> Probe:
    x, y = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not isinstance(x, Tensor):
        raise TypeError(f"{where} must be points x or a pair (x, y) of tensors, got {type(value).__name__}")
    checks.floating_tensor(where, x)
    if x.dim() < 1 or len(x) < 1:
        raise ValueError(f"{where} must be points [B, *input_shape], at least one, got {list(x.shape)}")
    if y is not None and not isinstance(y, Tensor):
        raise TypeError(f"the labels of {where} must be a tensor, got {type(y).__name__}")
    if y is not None and (y.dim() < 1 or len(y) != len(x)):
        raise ValueError(f"the labels of {where} must be one for each of its {len(x)} points, got {list(y.shape)}")
    device = module_device(module)
    x = x.detach().to(device)
    checks.finite(where, x)
    checks.fits_module(where, x, module)
    return Probe(x, None if y is None else y.detach().to(device))
