"""Kinks that take the largest or smallest of several values: which values compete in each of their units."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pylinregion._util.arrays import Int64s
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.kinks import bound_arguments
from pylinregion.graph.network import Node, Ref
from pylinregion.graph.operators import Kind

KINDS = ("pair", "max_pool", "pool_with_indices", "reduce", "reduce_with_indices", "scatter")

_AT_ONCE = 256  # unit images of a pool


@dataclass
class Contests:
    """Who competes in each unit of a kink.

    Attributes:
        groups: ``[units + 1]``: where the candidates of each unit begin.
        places: Each operand, and ``[candidates]``: which of its numbers each is; -1: it is of another operand.
        sign: 1 for maxima, -1 for minima.
    """

    groups: Int64s
    places: list[tuple[Ref, Int64s]]
    sign: float


def is_first_of_two(node: Node) -> bool:
    """Whether a node takes the values from a pair of values and indices."""
    return node.target is operator.getitem and node.args[1] == 0


def is_maximum(node: Node, depends: Callable[[Any], bool]) -> bool:
    """Whether a node's units are maxima or minima; ``depends`` tells which arguments depend on the input."""
    if node.op is None or node.op.kind is not Kind.KINK:
        return False
    return node.op.kink in KINDS or (node.op.kink == "clamp" and depends(_only_bound(node)))


def _only_bound(node: Node) -> Any:
    """The bound of a clamp that has one; else None."""
    low, high = (bound_arguments(node).get(name) for name in ("min", "max"))
    return None if low is not None and high is not None else low if high is None else high


def operands(node: Node) -> tuple[Ref, ...]:
    """The values among which a maximum is taken."""
    assert node.op is not None
    if node.op.kink == "scatter":
        arguments = bound_arguments(node)
        return arguments["self"], arguments[_source_of(node)]
    if node.op.kink == "clamp":
        return node.args[0], _only_bound(node)
    return node.args[: 2 if node.op.kink == "pair" else 1]


def contests_of(node: Node, shapes: list[tuple[int, ...]], constant: Callable[[Any], NDArray[Any]]) -> Contests:
    """The candidates of a kink.

    Args:
        node: ``maximum``, a max-pool, ``amax`` ...
        shapes: Those of its :func:`operands`, for one point: ``[1, ...]`` or a constant's.
        constant: Gives arguments that do not depend on the input, at one point.
    """
    assert node.op is not None
    if node.op.kink in ("pair", "clamp"):
        return _pair(node, shapes)
    if node.op.kink == "scatter":
        return _scattered(node, shapes, constant)
    shape = shapes[0]
    windows = _pooled(node, shape) if "pool" in node.op.kink else _reduced(node, shape)
    groups = np.cumsum([0, *(len(window) for window in windows)]).astype(np.int64)
    sign = -1.0 if node.op_name in ("amin", "min") else 1.0
    return Contests(groups, [(node.args[0], np.concatenate(windows).astype(np.int64))], sign)


def _pair(node: Node, shapes: list[tuple[int, ...]]) -> Contests:
    """Of equal values the one that makes ``a > b`` false wins, as where such kinks are counted at vertices."""
    numbers = [np.arange(int(np.prod(shape))).reshape(shape) for shape in shapes]
    low, high = (np.asarray(each).reshape(-1) for each in np.broadcast_arrays(*numbers))
    least = node.op_name in ("minimum", "fmin", "min") or bound_arguments(node).get("max") is not None
    sign = -1.0 if least else 1.0
    first = np.full((len(low), 2), -1, dtype=np.int64)
    second = first.copy()
    at = 1 if sign > 0 else 0  # a's place: the maximum is b where they are equal, the minimum is a
    first[:, at], second[:, 1 - at] = low, high
    groups = 2 * np.arange(len(low) + 1, dtype=np.int64)
    return Contests(groups, [*zip(operands(node), (first.reshape(-1), second.reshape(-1)), strict=True)], sign)


def _pooled(node: Node, shape: tuple[int, ...]) -> list[Int64s]:
    """The windows of a pool in row-major order: a window holds the places from which a lone 1 comes out."""
    assert node.target is not None
    dims = int(node.op_name[node.op_name.index("pool") + 4])
    space, channels = shape[-dims:], int(np.prod(shape[1:-dims]))
    size = int(np.prod(space))
    if any(isinstance(argument, Ref) for argument in node.args[1:]):
        raise UnsupportedModelError(f"exact methods do not take {node.where} yet: its sizes depend on the batch")
    held: list[Int64s] = []  # (place, window)
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


def _reduced(node: Node, shape: tuple[int, ...]) -> list[Int64s]:
    dims = bound_arguments(node)["dim"]
    axes = sorted(axis % len(shape) for axis in ([dims] if isinstance(dims, int) else dims))
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    numbers = np.arange(int(np.prod(shape))).reshape(shape).transpose(*rest, *axes)
    return list(numbers.reshape(int(np.prod([shape[axis] for axis in rest])), -1))


def _source_of(node: Node) -> str:
    return "source" if node.op_name == "index_reduce" else "src"


def _scattered(node: Node, shapes: list[tuple[int, ...]], constant: Callable[[Any], NDArray[Any]]) -> Contests:
    """Of each number of the result what is scattered to it, in row-major order; before these what was there."""
    arguments = bound_arguments(node)
    into, source = shapes
    index = constant(arguments["index"]).astype(np.int64)
    axis = arguments["dim"] % max(1, len(into))
    numbers = np.arange(int(np.prod(into))).reshape(into)
    if node.op_name == "index_reduce":
        target, taken = numbers.take(index, axis=axis), np.arange(int(np.prod(source))).reshape(source)
    else:
        # The index may be smaller than what it applies to; the other axes are its own.
        inner = numbers[tuple(slice(None if at == axis else size) for at, size in enumerate(index.shape))]
        target = np.take_along_axis(inner, index, axis=axis)
        taken = np.arange(int(np.prod(source))).reshape(source)[tuple(map(slice, index.shape))]
    order = np.argsort(target.reshape(-1), kind="stable")
    place, given = target.reshape(-1)[order], taken.reshape(-1)[order]
    hits = np.bincount(place, minlength=numbers.size)
    stays = (hits == 0) | bool(arguments["include_self"])
    groups = np.concatenate([[0], np.cumsum(hits + stays)]).astype(np.int64)
    own, theirs = np.full(groups[-1], -1, dtype=np.int64), np.full(groups[-1], -1, dtype=np.int64)
    own[groups[:-1][stays]] = np.flatnonzero(stays)
    theirs[own < 0] = given
    sign = -1.0 if arguments["reduce"] == "amin" else 1.0
    return Contests(groups, [(arguments["self"], own), (arguments[_source_of(node)], theirs)], sign)
