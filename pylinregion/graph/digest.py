"""Names for tensors and networks that tell one from any other."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion.graph.network import Network


def digest_of(*values: Tensor | NDArray[Any] | str) -> str:
    """A name for numbers and words: SHA-256, in hexadecimal."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            found.update(value.encode())
            continue
        if isinstance(value, Tensor):  # NumPy has not all of torch's dtypes
            found.update(f"{value.dtype}{list(value.shape)}".encode())
            numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        else:
            found.update(f"{value.dtype}{value.shape}".encode())
            numbers = np.ascontiguousarray(value)
        found.update(numbers.tobytes())
    return found.hexdigest()


def digest_of_network(network: Network) -> str:
    """A name for what a network computes: its operators and its weights."""
    graph = [f"{node.target}{node.args}{node.kwargs}{node.state}" for node in network.nodes]
    return digest_of("\n".join(graph), *(network.state[name] for name in sorted(network.state)))
