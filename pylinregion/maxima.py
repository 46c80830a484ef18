"""Kinks that take the largest or smallest of several values: which values compete in each of their units."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pylinregion.errors import UnsupportedModelError
from pylinregion.kinks import bound_arguments
from pylinregion.network import Node, Ref
from pylinregion.ops import Kind

Places = NDArray[np.int64]

KINDS = ("pair", "max_pool", "pool_with_indices", "reduce", "reduce_with_indices")

_AT_ONCE = 256  # unit images of a pool


@dataclass
class Contests:
    """Who competes in each unit of a kink.

    Attributes:
        groups: ``[units + 1]``: where the candidates of each unit begin.
        places: Each operand, and ``[candidates]``: which of its numbers each is; -1: it is of another operand.
        sign: 1 for maxima, -1 for minima.
    """

    groups: Places
    places: list[tuple[Ref, Places]]
    sign: float


def is_first_of_two(node: Node) -> bool:
    """Whether a node takes the values from a pair of values and indices."""
    return node.target is operator.getitem and node.args[1] == 0


def is_maximum(node: Node) -> bool:
    """Whether a node's units are maxima or minima."""
    return node.op is not None and node.op.kind is Kind.KINK and node.op.kink in KINDS


def contests_of(node: Node, shapes: list[tuple[int, ...]]) -> Contests:
    """The candidates of a kink.

    Args:
        node: ``maximum``, a max-pool, ``amax`` ...
        shapes: Those of its operands, one of a pair and else the only one, for one point: ``[1, ...]`` or a constant's.
    """
    assert node.op is not None
    if node.op.kink == "pair":
        return _pair(node, shapes)
    shape = shapes[0]
    windows = _pooled(node, shape) if "pool" in node.op.kink else _reduced(node, shape)
    groups = np.cumsum([0, *(len(window) for window in windows)]).astype(np.int64)
    sign = -1.0 if node.op_name in ("amin", "min") else 1.0
    return Contests(groups, [(node.args[0], np.concatenate(windows).astype(np.int64))], sign)


def _pair(node: Node, shapes: list[tuple[int, ...]]) -> Contests:
    """Of equal values the one that makes ``a > b`` false wins, as where such kinks are counted at vertices."""
    numbers = [np.arange(int(np.prod(shape))).reshape(shape) for shape in shapes]
    low, high = (np.asarray(each).reshape(-1) for each in np.broadcast_arrays(*numbers))
    sign = -1.0 if node.op_name in ("minimum", "fmin", "min") else 1.0
    first = np.full((len(low), 2), -1, dtype=np.int64)
    second = first.copy()
    at = 1 if sign > 0 else 0  # a's place: the maximum is b where they are equal, the minimum is a
    first[:, at], second[:, 1 - at] = low, high
    groups = 2 * np.arange(len(low) + 1, dtype=np.int64)
    return Contests(groups, [(node.args[0], first.reshape(-1)), (node.args[1], second.reshape(-1))], sign)


def _pooled(node: Node, shape: tuple[int, ...]) -> list[Places]:
    """The windows of a pool in row-major order: a window holds the places from which a lone 1 comes out."""
    assert node.target is not None
    dims = int(node.op_name[node.op_name.index("pool") + 4])
    space, channels = shape[-dims:], int(np.prod(shape[1:-dims]))
    size = int(np.prod(space))
    if any(isinstance(argument, Ref) for argument in node.args[1:]):
        raise UnsupportedModelError(f"exact methods do not take {node.where} yet: its sizes depend on the batch")
    held: list[Places] = []  # (place, window)
    for begin in range(0, size, _AT_ONCE):
        images = torch.eye(min(_AT_ONCE, size - begin), size - begin, dtype=torch.float32, device="cpu")
        images = torch.nn.functional.pad(images, (begin, 0)).reshape(-1, 1, *space)
        found = node.target(images, *node.args[1:], **node.kwargs)
        inside = (found[0] if isinstance(found, tuple) else found).flatten(1)
        held.append(torch.nonzero(inside == 1).numpy() + np.array([begin, 0]))
    place, window = np.concatenate(held).T
    order = np.argsort(window, kind="stable")
    windows = np.split(place[order], np.flatnonzero(np.diff(window[order])) + 1)
    return [window + channel * size for channel in range(channels) for window in windows]


def _reduced(node: Node, shape: tuple[int, ...]) -> list[Places]:
    dims = bound_arguments(node)["dim"]
    axes = sorted(axis % len(shape) for axis in ([dims] if isinstance(dims, int) else dims))
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    numbers = np.arange(int(np.prod(shape))).reshape(shape).transpose(*rest, *axes)
    return list(numbers.reshape(int(np.prod([shape[axis] for axis in rest])), -1))
