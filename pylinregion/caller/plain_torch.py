"""What a caller may have switched on in torch, and what a public function runs in whatever that is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.overrides
import torch.utils._python_dispatch
from torch._functorch import pyfunctorch
from torch.utils._device import DeviceContext

from pylinregion.caller.torch_settings import full_precision

_functions: Any = torch.overrides
_dispatch: Any = torch.utils._python_dispatch


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """The state in which every public function runs: that of a thread in which nothing was switched on.

    No gradients, no ``torch.inference_mode`` (tensors made in it cannot be differentiated or written to outside), no
    autocast and reduced precision, no modes of a caller that see each operator, no ``torch.func`` transform around, and
    no default device without data. Another default device stays, for the model may make its constants there; what is
    made here names its device and its dtype.
    """
    with (
        _no_function_modes(),  # first, for they see the others
        _no_dispatch_modes(),
        _no_transforms(),
        torch.inference_mode(False),
        torch.no_grad(),
        full_precision(),
    ):
        yield


def _no_dispatch_modes() -> contextlib.AbstractContextManager[Any]:
    return _dispatch._disable_current_modes() if _dispatch._len_torch_dispatch_stack() else contextlib.nullcontext()


def _no_transforms() -> contextlib.AbstractContextManager[Any]:
    inside = torch._C._functorch.peek_interpreter_stack() is not None
    return pyfunctorch.temporarily_clear_interpreter_stack() if inside else contextlib.nullcontext()


@contextlib.contextmanager
def _no_function_modes() -> Iterator[None]:
    """Without those of a caller; of these, a default device is one."""
    modes = _functions._get_current_function_mode_stack()
    kept = [mode for mode in modes if isinstance(mode, DeviceContext) and mode.device.type not in ("cpu", "meta")]
    if len(kept) == len(modes):
        yield
        return
    _replace_function_modes(kept)
    try:
        yield
    finally:
        _replace_function_modes(modes)


def _replace_function_modes(modes: list[Any]) -> None:
    for _ in _functions._get_current_function_mode_stack():
        _functions._pop_mode()
    for mode in modes:
        _functions._push_mode(mode)
