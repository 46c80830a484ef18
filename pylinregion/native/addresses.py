"""Where the numbers of torch tensors are, for the kernels: checked before an address is given away.

No tensor passes that is on another device than the call, of another dtype or size, or has no memory.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

CPU = torch.device("cpu")
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # as csrc/kink.h numbers them


def address(
    name: str, tensor: Tensor, device: torch.device, *dtypes: torch.dtype, shape: tuple[int, ...] | None = None
) -> int:
    """Where a tensor's numbers are.

    Args:
        name: For messages.
        tensor: The tensor.
        device: Where it must be: the CPU or a CUDA device.
        dtypes: What it may be of.
        shape: What it must be, contiguous; None: the caller sees to that.

    Raises:
        ValueError: It is not that, or has no memory.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.device != device or device_of(name, tensor) != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")
    if tensor.dtype not in dtypes:
        *some, last = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        wanted = f"{', '.join(some)} or {last}" if some else last
        raise ValueError(f"{name} must be {wanted}, got {tensor.dtype}")
    if shape is not None and (tensor.shape != shape or not tensor.is_contiguous()):
        raise ValueError(
            f"{name} must be contiguous {list(shape)}, got {list(tensor.shape)} with strides {tensor.stride()}"
        )
    try:
        found = 0 if isinstance(tensor, FakeTensor) else tensor.data_ptr()
    except RuntimeError:  # it stands for others
        found = 0
    if not found and tensor.numel():
        raise ValueError(f"{name} must have memory of its own, got {type(tensor).__name__}")
    return found


def device_of(name: str, tensor: Tensor) -> torch.device:
    """The device of a tensor that others must be on: one that has kernels."""
    if tensor.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} must be on the CPU or a CUDA device, got {tensor.device}")
    return tensor.device


def is_row_dense(z: Tensor) -> bool:
    """Whether each ``z[i]`` is one block of memory, the blocks follow each other, and all have the same order."""
    if z.is_contiguous():
        return True
    if z.dim() == 4:
        return z.is_contiguous(memory_format=torch.channels_last)
    return z.dim() == 5 and z.is_contiguous(memory_format=torch.channels_last_3d)


def row_dense(z: Tensor) -> Tensor:
    """``z``, or a contiguous copy where its layout is none that the kernels take."""
    return z if is_row_dense(z) else z.contiguous()
