"""Stages of small networks, kept with the weights that they were made of: as long as no bit of these changes.

Lowering a network, its norms and its multiples take longer than many a count. That weights are what they were is seen
by comparing all of them with copies, which takes a hundredth of that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pylinregion.graph.network import Network
from pylinregion.lowering.stages import Stages

_MOST_NUMBERS = 1 << 22  # of weights, or of stages, that are kept
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def kept_stages(network: Network, make: Callable[[Network], Stages]) -> Stages:
    """The stages of a network of the weights of now.

    Args:
        network: The network.
        make: Makes them, of a network that reads the same.
    """
    if not _may_be_kept(network):
        return make(network)
    for weights, stages in list(network.lowered):
        if _are_same(weights, network.state):
            found: Stages = stages
            return found
    copy = network.copied()  # so that the stages are of these weights, whatever happens to the model's meanwhile
    stages = make(copy)
    if sum(block.numbers.size for stage in stages.stages for block in stage.blocks.values()) <= _MOST_NUMBERS:
        network.lowered[:] = [(copy.state, stages)]
    return stages


def _may_be_kept(network: Network) -> bool:
    tensors = network.state.values()
    return sum(tensor.numel() for tensor in tensors) <= _MOST_NUMBERS and all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_complex()
        and not tensor.is_quantized
        for tensor in tensors
    )


def _are_same(before: dict[str, Tensor], now: dict[str, Tensor]) -> bool:
    """Whether all tensors are the same, bit by bit: signs of zeros matter, as a divisor."""
    return before.keys() == now.keys() and all(_is_same(before[name], tensor) for name, tensor in now.items())


def _is_same(before: Tensor, now: Tensor) -> bool:
    return before.shape == now.shape and before.dtype == now.dtype and torch.equal(_bits(before), _bits(now))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(_INTEGERS[tensor.element_size()])
