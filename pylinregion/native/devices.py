"""Devices by their names, as arguments of functions and of the command line have them."""

from __future__ import annotations

import torch

from pylinregion.native.extension import cuda_built


def named_device(name: str, argument: str) -> torch.device:
    """A device on which there are kernels.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``.
        argument: What it was given as, for messages.

    Raises:
        ValueError: There is no such device, or nothing can be counted on it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{argument} must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= seen:
            raise ValueError(f"{argument} {name}: torch sees {seen or 'no'} CUDA device{'s' * (seen != 1)}")
        if not cuda_built:
            raise ValueError(f"{argument} {name}: this pylinregion was built without CUDA, see pylinregion doctor")
    return device
