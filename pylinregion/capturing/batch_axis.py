"""Where the batch is in every value of a traced graph: one dimension, whose size is a multiple of the batch size."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import Tensor, fx

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.capturing.tracing import EXAMPLE_ROWS, FinalRefusal, TracedGraph
from pylinregion.graph.network import Node, place
from pylinregion.graph.source import code_line, is_users

_BATCH_SIZES = (2, 3, 4, 5, 8, 10, 16, 31, 32, 64, 100, 128, 256, 1000, 1024, 4096)  # which a model must treat alike


def batch_symbol(node: fx.Node, traced: TracedGraph) -> Any:
    """The tracer's symbol for the batch size, from the node of the input.

    Raises:
        UnsupportedModelError: The batch size is fixed, or the model does not do the same for all.
    """
    size = node.meta["val"].shape[0]
    if not isinstance(size, torch.SymInt):
        raise UnsupportedModelError(
            f"the model fixes its batch size to {size}: it must take any number of points "
            "(write x.size(0) or -1 where it says that number; export a program with a dynamic batch dimension)"
        )
    symbol = size.node.expr
    if traced.method.startswith("torch.export"):  # make_fx also sees on what sizes torch chooses its own kernels
        for guard in size.node.shape_env.guards:
            if any(guard.expr.subs(symbol, number) == False for number in _BATCH_SIZES):  # noqa: E712
                loc: Any = getattr(getattr(guard, "sloc", None), "framework_loc", None)
                known = isinstance(loc, traceback.FrameSummary) and is_users(loc.filename)
                at = place("", code_line(loc.filename, loc.lineno or 0, loc.line or "")) if known else ""
                condition = str(guard.expr).replace(str(symbol), "batch_size")
                raise FinalRefusal(f"the model's control flow depends on the batch size{at}: it holds if {condition}")
    return symbol


def place_batch(new: Node, value: Any, batch: Any) -> None:
    """Shape, dtype and batch dimension of a node, from the tracer's own shapes.

    Raises:
        UnsupportedModelError: It has no batch dimension of its own, or its shape depends on the data.
    """
    if new.role == "size":
        factor = _factor(value, batch)
        if new.op_name == "sym_size" and factor is None:
            raise UnsupportedModelError(f"{new.where}: a size is no multiple of the batch size ({value})")
        new.batch_factor = factor or 0
        return
    if not isinstance(value, Tensor):
        return  # a tuple: its getitem nodes are placed
    new.dtype = value.dtype
    symbolic = [axis for axis, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]
    sizes: list[Any] = [value.shape[axis] for axis in symbolic]
    if any(size.node.expr.free_symbols - {batch} for size in sizes):
        raise FinalRefusal(f"{new.where}: the shape of its result depends on the data ({list(value.shape)})")
    factors = [_factor(size, batch) for size in sizes]
    if new.role == "rows":
        new.shape = tuple(-1 if axis in symbolic else int(size) for axis, size in enumerate(value.shape))
        return
    if not symbolic and len(value.shape) and value.shape[0] == EXAMPLE_ROWS:
        raise UnsupportedModelError(
            f"{new.where}: it fixes the batch size to {EXAMPLE_ROWS}, or mixes the points of a batch (its shape is "
            f"{list(value.shape)}): the model must take any number of points (write x.size(0) or -1 for their number)"
        )
    if len(symbolic) != 1 or factors[0] is None:
        raise UnsupportedModelError(
            f"{new.where}: it mixes the points of a batch, or fixes their number (its shape {list(value.shape)} has no "
            "batch dimension)"
        )
    new.batch_dim, new.batch_factor = symbolic[0], factors[0]
    new.shape = tuple(-1 if axis == symbolic[0] else int(size) for axis, size in enumerate(value.shape))


def _factor(size: Any, batch: Any) -> int | None:
    """``k`` where a size is ``k * batch``, else None."""
    if not isinstance(size, torch.SymInt):
        return None
    quotient = size.node.expr / batch
    return int(quotient) if quotient.is_Integer else None
