"""What a traced model asked of values: constants, which become guards, checks for NaN and infinity, or data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.capturing.branches import Asked
from pylinregion.capturing.node_source import source_of
from pylinregion.capturing.tracing import FinalRefusal, TracedGraph
from pylinregion.graph.network import place

_COMPARES = ("eq", "ne", "lt", "le", "gt", "ge")


def sort_out(traced: TracedGraph, values: Sequence[Any]) -> tuple[dict[fx.Node, Asked], dict[fx.Node, str]]:
    """Tell apart what was asked.

    Args:
        traced: The graph.
        values: What the answers to :attr:`TracedGraph.asked` were read from.

    Returns:
        The values that do not depend on the input, with what was asked; and those that do and are looked at for NaN and
        infinity alone, with where.

    Raises:
        UnsupportedModelError: An answer depends on the input in another way.
    """
    dependent = _dependent(traced)
    fixed: dict[fx.Node, Asked] = {}
    checked: dict[fx.Node, str] = {}
    for asked, value in zip(traced.asked, values, strict=True):
        if not isinstance(value, fx.Node):
            continue  # folded by the tracer: nothing can change it
        if value not in dependent:
            fixed[value] = asked
            continue
        operands = _looked_at(value, dependent)
        if operands is None and isinstance(asked.answer, bool):
            raise FinalRefusal(
                f"the model's control flow depends on the data{asked.place}: it has no single graph of operators"
            )
        if operands is None:
            raise UnsupportedModelError(
                f"the forward pass makes Python's numbers of values that depend on the input{asked.place}"
            )
        checked.update(dict.fromkeys(operands, asked.place))
    return fixed, checked


def pass_repairs(traced: TracedGraph) -> dict[fx.Node, str]:
    """Take ``nan_to_num`` out of a graph, which leaves finite values as they are.

    Returns:
        What must be finite, with where.
    """
    checked: dict[fx.Node, str] = {}
    dependent = _dependent(traced)
    for node in list(traced.graph.nodes):
        if _name(node) == "nan_to_num" and node.args[0] in dependent:
            operand = node.args[0]
            checked[operand] = place(*source_of(node, traced.root))
            node.replace_all_uses_with(operand)
            traced.graph.erase_node(node)
    return checked


def _dependent(traced: TracedGraph) -> set[fx.Node]:
    """The nodes that depend on the input, be it on its batch size alone."""
    found: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op == "placeholder" and node.target == traced.input_name:
            found.add(node)
        operands = node.all_input_nodes[:1] if _name(node) == "type_as" else node.all_input_nodes
        if any(operand in found for operand in operands):
            found.add(node)
    return found


def _looked_at(value: fx.Node, dependent: set[fx.Node]) -> set[fx.Node] | None:
    """What a value looks at, if only for NaN and infinity, so that it is the same for all finite values; else None."""
    looked_at: set[fx.Node] = set()
    stack, seen = [value], {value}
    while stack:
        node = stack.pop()
        if _tests_finiteness(node):
            looked_at.add(node.args[0])  # type: ignore[arg-type]
            continue
        operands = [operand for operand in node.all_input_nodes if operand in dependent]
        if not operands:
            return None  # the input itself
        stack.extend(operand for operand in operands if operand not in seen)
        seen.update(operands)
    return looked_at


def _tests_finiteness(node: fx.Node) -> bool:
    """``isnan``, ``isinf``, ``isfinite``, and what they are made of: ``x == x`` and comparisons with infinity."""
    name = _name(node)
    if name in ("isnan", "isinf", "isfinite", "isposinf", "isneginf"):
        return True
    if name not in _COMPARES or not isinstance(node.args[0], fx.Node):
        return False
    other = node.args[1]
    return (name in ("eq", "ne") and other is node.args[0]) or (isinstance(other, float) and math.isinf(other))


def _name(node: fx.Node) -> str:
    return node.target._schema.name.split("::")[1] if isinstance(node.target, torch._ops.OpOverload) else ""
