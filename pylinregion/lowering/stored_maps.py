"""Operators that are products with stored weights: convolutions and linear layers, as the maps that they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pylinregion._util.arrays import Array
from pylinregion.graph.kinks import bound_arguments
from pylinregion.graph.network import Node, Ref
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, LinearMap

Constant = Callable[[Any], Array]

_TRANSPOSED = frozenset(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
_CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d", "convolution", "_convolution"]) | _TRANSPOSED


def stored_map(
    node: Node, depends: Callable[[Any], bool], shape: Callable[[int], tuple[int, ...]], own: tuple[int, ...]
) -> Callable[[Constant], tuple[LinearMap, Array]] | None:
    """What will make the map of a convolution or a linear layer, and what it adds; None: the node is neither.

    Args:
        node: A node of the network, of one point in front.
        depends: Whether an argument depends on the input's values.
        shape: The shape of a value at one point, ``[1, ...]``.
        own: That of the node's value.
    """
    if node.op_name != "linear" and node.op_name not in _CONVOLUTIONS:
        return None
    given = bound_arguments(node)
    operand, weight, bias = given["input"], given["weight"], given.get("bias")
    if not isinstance(operand, Ref) or not depends(operand) or depends(weight) or depends(bias):
        return None
    before = shape(operand.index)
    if node.op_name == "linear":
        return lambda constant: _linear(constant(weight), None if bias is None else constant(bias), before)
    if len(before) != len(own) or len(before) < 3 or (isinstance(given["padding"], str) and given["padding"] != "same"):
        return None
    return lambda constant: _convolution(
        node.op_name in _TRANSPOSED or bool(given.get("transposed")),
        constant(weight),
        None if bias is None else constant(bias),
        before[1:],
        own[1:],
        given,
    )


def _linear(weight: Array, bias: Array | None, before: tuple[int, ...]) -> tuple[LinearMap, Array]:
    places = math.prod(before[1:-1])
    added = np.zeros(len(weight)) if bias is None else bias
    return Dense(weight.copy(), places), np.tile(added, places)  # not the live model's memory


def _convolution(
    transposed: bool,
    weight: Array,
    bias: Array | None,
    before: tuple[int, ...],
    after: tuple[int, ...],
    given: dict[str, Any],
) -> tuple[LinearMap, Array]:
    dims = len(before) - 1
    stride, dilation = (_each(given[name], dims) for name in ("stride", "dilation"))
    if given["padding"] == "same":  # the odd one more is behind
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True))
    else:
        padding = _each(given["padding"], dims)
    source, target = (after, before) if transposed else (before, after)
    found = Convolution(weight.copy(), source, target, stride, padding, dilation, int(given["groups"]), transposed)
    added = np.zeros(after[0]) if bias is None else bias
    return found, np.repeat(added, math.prod(after[1:]))


def _each(sizes: Any, dims: int) -> tuple[int, ...]:
    """A number for each dimension; one may stand for all."""
    found = [sizes] if isinstance(sizes, int) else list(sizes)
    return tuple(found * dims if len(found) == 1 else found)
