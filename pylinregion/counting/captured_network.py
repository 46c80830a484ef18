"""The network of a model that is asked about points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pylinregion.capturing.capture import capture
from pylinregion.graph.network import Network


def network_of(model: Any, example: Tensor, x: Tensor, dtype: torch.dtype | None) -> Network:
    """The network of a model, captured for an example, which must take the points ``x``.

    Raises:
        TypeError, ValueError: The points are not of its shape, device and dtype.
        UnsupportedModelError: The model cannot be captured.
    """
    network = capture(model, example)
    if tuple(x.shape[1:]) != network.input_shape:
        shape = ", ".join(map(str, network.input_shape))
        raise ValueError(f"x must be [B, {shape}], as the network was captured, got {list(x.shape)}")
    if x.device != network.device:
        raise ValueError(f"x must be on {network.device}, as the network was captured, got {x.device}")
    if dtype is None and x.dtype != network.dtype:
        raise TypeError(f"x must be {network.dtype}, as the network was captured, got {x.dtype}; or pass dtype=")
    return network
