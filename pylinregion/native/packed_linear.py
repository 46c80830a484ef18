"""Linear layers with their weights packed for the CPU's vectors (``csrc/linear.h``)."""

from __future__ import annotations

import torch
from torch import Tensor

from pylinregion.native.addresses import CPU, DTYPES, address
from pylinregion.native.extension import _C


class PackedLinear:
    """A linear layer ``y = x W^T + b`` with its weights packed for the CPU's vectors.

    For batches that fit the cache it is about twice as fast as a BLAS that does not use the widest vectors. Sums run
    over the inputs in order, with fused multiply-adds.

    Args:
        weight: ``[out, in]`` float32 or float64 on the CPU, ``in`` and ``out`` at least 1.
        bias: ``[out]`` like ``weight``, or None.

    Raises:
        ValueError: One of them is not as above.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        if weight.dim() != 2 or not weight.numel():
            raise ValueError(f"weight must be [out, in], both at least 1, got {list(weight.shape)}")
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
        floats = torch.float32, torch.float64
        weight_at = address("weight", weight, CPU, *floats)
        bias_at = 0 if bias is None else address("bias", bias, CPU, self.dtype, shape=(self.out_features,))
        self._code = DTYPES[weight.dtype]
        size = _C.packed_size(self._code, self.in_features, self.out_features)
        self._packed = torch.empty(size, dtype=weight.dtype, device=CPU)
        _C.pack_linear(
            self._code,
            weight_at,
            bias_at,
            self.in_features,
            self.out_features,
            self._packed.data_ptr(),
        )

    @staticmethod
    def takes(dtype: torch.dtype, device: torch.device) -> bool:
        """Whether this machine has the kernel for tensors of that dtype and device."""
        return dtype in (torch.float32, torch.float64) and device.type == "cpu" and _C.simd() != "portable"

    def __call__(self, x: Tensor, out: Tensor | None = None, threads: int = 1) -> Tensor:
        """Apply the layer.

        Args:
            x: ``[..., in]`` of the weights' dtype, any strides.
            out: ``[rows, out]`` contiguous memory for the result, not overlapping ``x``; None allocates it.
            threads: CPU threads.

        Returns:
            ``[..., out]``.

        Raises:
            ValueError: ``x`` does not fit.
        """
        if x.dim() < 1 or x.shape[-1] != self.in_features or x.dtype != self.dtype or x.device != CPU:
            raise ValueError(
                f"x must be [..., {self.in_features}] {self.dtype} on the CPU, got {list(x.shape)} {x.dtype} {x.device}"
            )
        x = x.contiguous()
        rows = x.numel() // self.in_features
        if out is None:
            out = torch.empty(rows, self.out_features, dtype=self.dtype, device=CPU)
        elif out.shape != (rows, self.out_features) or out.dtype != self.dtype or not out.is_contiguous():
            raise ValueError(
                f"out must be contiguous [{rows}, {self.out_features}] {self.dtype}, got {list(out.shape)}"
            )
        _C.linear_cpu(
            self._code,
            address("x", x, CPU, self.dtype),
            rows,
            self.in_features,
            self.out_features,
            self._packed.data_ptr(),
            address("out", out, CPU, self.dtype),
            threads,
        )
        return out if x.dim() == 2 else out.view(*x.shape[:-1], self.out_features)
