"""How each kink of the table is counted when the network is evaluated at the vertices.

An elementwise kink with scalar breakpoints goes to the kernel that counts and activates in one pass. Every other kink
is counted through labels: the winner of a max-pool window, the side of a comparison, the piece of a clamp whose bounds
are tensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.network import Node, Ref
from pylinregion.graph.operators import Kind
from pylinregion.native.label_changes import label_words
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_words


class Counter(Protocol):
    """What a kink reports to while it is evaluated."""

    def signs(self, z: Any, kink: ScalarKink) -> Tensor | None:
        """Count the pieces of ``z``, and return its activations if the kink has one and they are wanted."""

    def labels(self, labels: Tensor) -> None:
        """Count labels, shaped like the kink's output."""


Evaluate = Callable[[Counter, tuple[Any, ...], dict[str, Any]], Any]


def bound_arguments(node: Node) -> dict[str, Any]:
    """A node's arguments by the names of its operator's schema, defaults filled in."""
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        value = argument.default_value if argument.has_default_value() else None
        if position < len(node.args):
            value = node.args[position]
        bound[argument.name] = node.kwargs.get(argument.name, value)
    return bound


def scalar_kink(node: Node) -> ScalarKink | None:
    """The breakpoints and activation of an elementwise kink with scalar breakpoints, else None.

    Raises:
        UnsupportedModelError: Its bounds are in the wrong order.
    """
    assert node.op is not None
    if node.op.kind is Kind.SMOOTH:
        return ScalarKink()  # by convention the sign of the pre-activation
    arguments = bound_arguments(node)
    form = node.op.kink
    if form == "relu":
        return ScalarKink((0.0,), "relu")
    if form == "leaky_relu":
        return ScalarKink((0.0,), "leaky_relu", slope=float(arguments["negative_slope"]))
    if form in ("rrelu", "prelu", "abs", "sign"):
        return ScalarKink()
    if form == "threshold":
        return ScalarKink((float(arguments["threshold"]),))
    if form == "hardsigmoid":
        return ScalarKink((-3.0, 3.0))
    if form == "shrink":
        return _between(node, -float(arguments["lambd"]), float(arguments["lambd"]), "none")
    if form == "relu6":
        return _between(node, 0.0, 6.0, "clamp")
    if form == "hardtanh":
        return _between(node, arguments["min_val"], arguments["max_val"], "clamp")
    if form == "clamp":
        low, high = arguments.get("min"), arguments.get("max")
        if isinstance(low, Ref) or isinstance(high, Ref):
            return None
        return _between(node, low, high, "clamp")
    return None


def _between(node: Node, low: float | None, high: float | None, activation: Any) -> ScalarKink:
    bounds = tuple(float(bound) for bound in (low, high) if bound is not None and math.isfinite(bound))
    if not bounds or list(bounds) != sorted(set(bounds)):
        raise UnsupportedModelError(f"{node.where}: its bounds must be in order, got min={low}, max={high}")
    return ScalarKink(
        bounds, activation, low=-math.inf if low is None else float(low), high=math.inf if high is None else float(high)
    )


def describe_breakpoints(node: Node) -> str:
    """Where a kink bends, in words for a table."""
    assert node.op is not None
    if node.op.kind is Kind.SMOOTH:
        return "sign"
    kink = scalar_kink(node)
    if kink is not None:
        return ", ".join(f"{value:g}" for value in kink.breakpoints)
    if node.op.kink in ("max_pool", "pool_with_indices", "reduce", "reduce_with_indices", "scatter"):
        return "winner"
    if node.op.kink == "comparison" and not isinstance(node.args[1], Ref):
        return f"{float(node.args[1]):g}"
    return "tensor bounds" if node.op.kink == "clamp" else "difference"


@functools.cache
def rounded(kink: ScalarKink, dtype: torch.dtype) -> ScalarKink:
    """The kink with its numbers as torch rounds them to the dtype of the data."""

    def to(value: float) -> float:
        return float(torch.tensor(value, dtype=torch.float64, device="cpu").to(dtype))

    points = tuple(to(value) for value in kink.breakpoints)
    return ScalarKink(points, kink.activation, to(kink.slope), to(kink.low), to(kink.high))


def evaluator(node: Node) -> Evaluate:
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


def pattern_words(node: Node, units: int) -> int:
    """64-bit words that a kink's pieces take in the pattern of a vertex."""
    assert node.op is not None
    kink = scalar_kink(node)
    if kink is not None:
        return sign_words(units, len(kink.breakpoints))
    return sign_words(units) if node.op.kink == "pair" else label_words(units)
