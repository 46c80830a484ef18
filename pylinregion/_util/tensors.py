"""Arrays of the host as tensors on a device, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pylinregion._util.arrays import AnyArray

CPU = torch.device("cpu")


def as_tensor(array: AnyArray, device: torch.device) -> Tensor:
    """The numbers of an array on a device; on the CPU in the same memory."""
    return torch.from_numpy(array).to(device)


def as_array(tensor: Tensor) -> Any:
    """The numbers of a tensor as an array; on the CPU in the same memory."""
    return tensor.cpu().numpy()


class Stored:
    """An array that tensors on several devices are computed with: on each it is kept.

    Args:
        array: Which does not change.
    """

    def __init__(self, array: AnyArray) -> None:
        self._on = {CPU: torch.from_numpy(array)}

    def beside(self, x: Tensor) -> Tensor:
        """It, where ``x`` is."""
        found = self._on.get(x.device)
        if found is None:
            found = self._on[x.device] = self._on[CPU].to(x.device)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: that of the CPU."""
        return {"_on": {CPU: self._on[CPU]}}
