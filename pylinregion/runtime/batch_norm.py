"""Batch norms in eval mode, fused into the convolution or linear layer before them, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pylinregion.graph.network import Network, Node, Ref
from pylinregion.runtime.step_arguments import resolved

_LAYERS = ("linear", "conv1d", "conv2d", "conv3d")


def fusable(
    network: Network, users: dict[int, list[int]], given: frozenset[int], wanted: tuple[int, ...]
) -> dict[int, int]:
    """Batch norms whose operand is a layer that nobody else reads: norm to layer.

    Args:
        network: The network.
        users: The nodes that take each value.
        given: Values that the caller has.
        wanted: Values that the caller wants.
    """
    nodes = network.nodes
    fused = {}
    for index in users:
        node = nodes[index]
        if node.op_name not in _LAYERS or node.role != "value":
            continue
        if index in given or index in wanted or len(users[index]) != 1:
            continue
        norm = nodes[users[index][0]]
        channels = node.shape is not None and (node.op_name != "linear" or len(node.shape) == 2)
        plain = norm.op_name == "batch_norm" and norm.args[0] == Ref(index) and has_constants(network, norm, given, 5)
        if plain and channels and has_constants(network, node, given, 3):
            fused[users[index][0]] = index
    return fused


def has_constants(network: Network, node: Node, given: frozenset[int], count: int) -> bool:
    """Whether the second of a node's first ``count`` arguments and on are given constants."""
    tensors = [argument for argument in node.args[1:count] if argument is not None]
    return not node.kwargs and all(
        isinstance(argument, Ref)
        and argument.index in given
        and network.nodes[argument.index].role in ("state", "constant")
        for argument in tensors
    )


def fused_into(
    weight: Tensor, bias: Tensor | None, norm: tuple[Any, ...], constants: dict[int, Any]
) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias with the batch norm behind it.

    Args:
        weight, bias: Of the layer.
        norm: The arguments of ``aten.batch_norm``.
        constants: The values of those that are constants.
    """
    scale, shift = _scale_and_shift(norm, constants)
    fused = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    offset = shift if bias is None else shift + bias.double() * scale
    return fused.to(weight.dtype), offset.to(weight.dtype)


def _scale_and_shift(arguments: tuple[Any, ...], constants: dict[int, Any]) -> tuple[Tensor, Tensor]:
    """What an ``aten.batch_norm`` in eval mode does to a channel, in float64."""
    weight, bias, mean, variance = (resolved(argument, constants) for argument in arguments[1:5])
    scale: Tensor = torch.rsqrt(variance.double() + arguments[7])
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()
