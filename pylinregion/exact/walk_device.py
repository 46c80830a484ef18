"""Slices on a CUDA device: folded there by torch's operators, and walked by the core's warps.

A walk's result is the CPU's to the bit, from the same fold. A fold there rounds as the device does; what regions there
are depends on no rounding.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from pylinregion._util.tensors import CPU
from pylinregion.native.devices import named_device
from pylinregion.native.extension import cuda_built

_NO_MEMORY = "out of memory"  # as CUDA says it


class WalkDevice:
    """A device whose warps walk, one call at a time.

    Args:
        name: For messages.
        current: Makes it the current one of the thread, for a while.
        folds: Where torch folds what it walks.

    Attributes:
        left: How many slices it has left to the CPU so far: with more regions than were allowed, or walks that need
            more memory than there is, or, where cells are kept, without any line.
    """

    def __init__(
        self, name: str, current: Callable[[], AbstractContextManager[object]], folds: torch.device = CPU
    ) -> None:
        self.name, self.folds = name, folds
        self.left = 0
        self._current = current
        self._lock = threading.Lock()

    def call(self, of_core: Callable[..., dict[str, Any]], *arguments: Any, **asked: Any) -> dict[str, Any]:
        """What a method of the core's engines finds, by warps; by the CPU where they have no memory for it.

        Args:
            of_core: The method.
            arguments, asked: Its arguments.

        Raises:
            RuntimeError: A kernel failed, or CUDA did.
        """
        try:
            return self.walk(of_core, *arguments, **asked)
        except RuntimeError as error:
            if _NO_MEMORY not in str(error):
                raise
        torch.cuda.empty_cache()  # what torch keeps for later
        try:
            return self.walk(of_core, *arguments, **asked)
        except RuntimeError as error:
            if _NO_MEMORY not in str(error):
                raise
        warnings.warn(
            f"{self.name} has too little free memory for walks along slices: the CPU walks", RuntimeWarning, 2
        )
        return of_core(*arguments, **asked)

    def walk(self, of_core: Callable[..., dict[str, Any]], *arguments: Any, **asked: Any) -> dict[str, Any]:
        """As :meth:`call`, but an error where there is no memory.

        Args:
            of_core, arguments, asked: As of :meth:`call`.

        Raises:
            RuntimeError: Likewise, or there is too little memory.
        """
        with self._lock, self._current():
            found = of_core(*arguments, **asked, on_device=True)
            self.left += found.pop("on_the_cpu")
        if halvings := found.pop("halvings"):
            warnings.warn(
                f"{self.name} has little free memory: walks along slices took 1/{2**halvings} of what they ask for, "
                "which may take longer",
                RuntimeWarning,
                2,
            )
        return found


def called(
    device: WalkDevice | None, of_core: Callable[..., dict[str, Any]], *arguments: Any, **asked: Any
) -> dict[str, Any]:
    """What a method of the core's engines finds, on a device; None: the CPU."""
    return of_core(*arguments, **asked) if device is None else device.call(of_core, *arguments, **asked)


def folds_on(device: WalkDevice | None) -> torch.device:
    """Where torch folds what is walked there; None: the CPU."""
    return CPU if device is None else device.folds


@functools.cache
def cuda_walks(index: int) -> WalkDevice:
    """Those of a CUDA device that torch sees."""
    return WalkDevice(f"cuda:{index}", lambda: torch.cuda.device(index), torch.device("cuda", index))


def checked_device(device: Any, of_model: torch.device) -> torch.device:
    """Where walks are asked for.

    Args:
        device: The argument: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or a ``torch.device``; None: where the model is, if
            walks can be there, else the CPU.
        of_model: Where the model is.

    Raises:
        ValueError: It is no such device, or there is none, or pylinregion was built without CUDA.
        TypeError: It is neither a string nor a device.
    """
    if device is None:
        return of_model if of_model.type == "cuda" and cuda_built else torch.device("cpu")
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a string, a torch.device or None, got {type(device).__name__}")
    return named_device(str(device), "device")
