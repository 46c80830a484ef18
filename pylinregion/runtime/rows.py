"""Values as rows: one entry a row of the batch, wherever the batch is in a value."""

from __future__ import annotations

from torch import Tensor

from pylinregion.graph.network import Node
from pylinregion.native.addresses import row_dense


def as_rows(value: Tensor, node: Node) -> Tensor:
    """A value with the batch first and one entry a row of it, row dense; a view where that is possible."""
    if node.batch_dim == 0 and node.batch_factor == 1:
        return row_dense(value)
    first = value.movedim(node.batch_dim, 0).contiguous()
    return first.view(len(first) // node.batch_factor, -1)


def from_rows(rows: Tensor, like: Tensor, node: Node) -> Tensor:
    """The inverse of :func:`as_rows`."""
    if node.batch_dim == 0 and node.batch_factor == 1:
        return rows
    return rows.view(like.movedim(node.batch_dim, 0).shape).movedim(0, node.batch_dim)
