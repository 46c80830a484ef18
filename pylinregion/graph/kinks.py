"""What each kink of the table is: its arguments, where it bends, and how much room its pieces take."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.network import Node, Ref
from pylinregion.graph.operators import Kind
from pylinregion.native.label_changes import label_words
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_words


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


def pattern_words(node: Node, units: int) -> int:
    """64-bit words that a kink's pieces take in the pattern of a vertex."""
    assert node.op is not None
    kink = scalar_kink(node)
    if kink is not None:
        return sign_words(units, len(kink.breakpoints))
    return sign_words(units) if node.op.kink == "pair" else label_words(units)
