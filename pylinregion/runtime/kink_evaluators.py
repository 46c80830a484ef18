"""How each kink of the table is evaluated and counted.

An elementwise kink with scalar breakpoints goes to the kernel that counts and activates in one pass. Every other kink
is counted through labels: the winner of a max-pool window, the side of a comparison, the piece of a clamp whose bounds
are tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from pylinregion.graph.kinks import bound_arguments, scalar_kink
from pylinregion.graph.network import Node
from pylinregion.native.scalar_kink import ScalarKink


class Counter(Protocol):
    """What a kink reports to while it is evaluated."""

    def signs(self, z: Any, kink: ScalarKink) -> Tensor | None:
        """Count the pieces of ``z``, and return its activations if the kink has one and they are wanted."""

    def labels(self, labels: Tensor) -> None:
        """Count labels, shaped like the kink's output."""


Evaluate = Callable[[Counter, tuple[Any, ...], dict[str, Any]], Any]


def kink_evaluator(node: Node) -> Evaluate:
    """The function that computes a kink's value and reports to a :class:`Counter`."""
    assert node.op is not None and node.target is not None
    target = node.target
    kink = scalar_kink(node)
    if kink is not None:
        scalar = kink

        def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            activations = counter.signs(args[0], scalar)
            return target(*args, **kwargs) if activations is None else activations

        return evaluate
    return {
        "pair": _pair,
        "clamp": _tensor_clamp,
        "max_pool": _max_pool,
        "pool_with_indices": _second_is_label,
        "reduce": _reduce,
        "reduce_with_indices": _second_is_label,
        "scatter": _scatter,
        "comparison": _comparison,
    }[node.op.kink](node)


def _pair(node: Node) -> Evaluate:
    """maximum, minimum: the sign of the difference; equal values are on the lower piece."""
    target = _target(node)

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        counter.signs(args[0] - args[1], ScalarKink())
        return target(*args, **kwargs)

    return evaluate


def _tensor_clamp(node: Node) -> Evaluate:
    """Clamp to tensors: how many of the bounds lie strictly below."""
    target = _target(node)
    names = [argument.name for argument in target._schema.arguments]

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        out: Tensor = target(*args, **kwargs)
        piece = torch.zeros(out.shape, dtype=torch.uint8, device=out.device)
        for name in ("min", "max"):
            if given.get(name) is not None:
                piece += given["self"] > given[name]
        counter.labels(piece)
        return out

    return evaluate


def _max_pool(node: Node) -> Evaluate:
    """The winner of a window is the first of its largest entries in row-major order, as torch's indices say."""
    with_indices = getattr(torch.ops.aten, f"{node.op_name}_with_indices").default

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out, winner = with_indices(*args, **kwargs)
        counter.labels(winner)
        return out

    return evaluate


def _second_is_label(node: Node) -> Evaluate:
    target = _target(node)

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = target(*args, **kwargs)
        counter.labels(out[1])
        return out

    return evaluate


def _reduce(node: Node) -> Evaluate:
    """amax, amin over dimensions: the first winner in row-major order."""
    target = _target(node)
    arguments = bound_arguments(node)
    winner = torch.argmax if node.op_name == "amax" else torch.argmin

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z: Tensor = args[0]
        dims = arguments["dim"]
        dims = sorted(axis % z.dim() for axis in ([dims] if isinstance(dims, int) else dims))
        rest = [axis for axis in range(z.dim()) if axis not in dims]
        out: Tensor = target(*args, **kwargs)
        flat = z.permute(*rest, *dims).flatten(len(rest))
        counter.labels(winner(flat, dim=-1).reshape(out.shape))
        return out

    return evaluate


def _scatter(node: Node) -> Evaluate:
    """The largest of what is scattered to a place: the first winner along the axis, what was there before all."""
    target = _target(node)
    names = [argument.name for argument in target._schema.arguments]

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = {"include_self": True, **dict(zip(names, args, strict=False)), **kwargs}
        into, axis, index = given["self"], given["dim"], given["index"]
        out: Tensor = target(*args, **kwargs)
        source: Tensor = given["src"] if "src" in given else given["source"]
        along = [1] * source.dim()
        along[axis] = -1
        if "source" in given:  # one index for each slice along the axis
            index = index.view(along).expand_as(source)
        places = torch.arange(1, index.shape[axis] + 1, device=out.device).view(along)
        won = source[tuple(map(slice, index.shape))] == out.gather(axis, index)
        nobody = index.shape[axis] + 1
        winner = torch.full(out.shape, nobody, device=out.device)
        winner = winner.scatter_reduce(axis, index, torch.where(won, places, nobody), "amin")
        counter.labels(torch.where(into == out, 0, winner) if given["include_self"] else winner)
        return out

    return evaluate


def _comparison(node: Node) -> Evaluate:
    target = _target(node)

    def evaluate(counter: Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = target(*args, **kwargs)
        counter.labels(out)
        return out

    return evaluate


def _target(node: Node) -> Any:
    assert node.target is not None
    return node.target
