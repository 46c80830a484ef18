"""Cells of a slice that share their vertices and edges. Plain data: nothing here knows of networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Integers


@dataclass(frozen=True, eq=False)
class Mesh:
    """Convex cells that tile a convex polygon. The arrays are read-only.

    Attributes:
        vertices: ``[V, 2]`` float64.
        offsets: ``[R + 1]``: the corners of cell r are ``indices[offsets[r]:offsets[r + 1]]``, counter-clockwise.
        indices: Vertex numbers.
        edges: ``[E, 2]`` vertex numbers.
        edge_cells: ``[E, 2]``: the cells at each edge; the second is -1 on the border.
    """

    vertices: Array
    offsets: Integers
    indices: Integers
    edges: Integers
    edge_cells: Integers

    def __post_init__(self) -> None:
        for each in fields(self):
            if isinstance(array := getattr(self, each.name), np.ndarray):
                array.setflags(write=False)

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return len(self.offsets) - 1

    def polygon(self, cell: int) -> Array:
        """``[n, 2]``: the corners of a cell."""
        return self.vertices[self.indices[self.offsets[cell] : self.offsets[cell + 1]]]

    def by_size(self) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """For each number of corners the cells that have it, and their corners ``[cells, n, 2]``, some at a time."""
        sizes = np.diff(self.offsets)
        for n in np.unique(sizes):
            cells = np.flatnonzero(sizes == n)
            step = max(1, (1 << 20) // int(n))
            for begin in range(0, len(cells), step):
                some = cells[begin : begin + step]
                yield some, self.vertices[self.indices[self.offsets[some][:, None] + np.arange(n)]]

    def inner(self) -> NDArray[np.bool_]:
        """``[E]``: which edges have a cell on both sides."""
        return self.edge_cells[:, 1] >= 0


def narrow(values: Integers, largest: int) -> Integers:
    """Integers up to ``largest`` as int32 where they fit."""
    return values.astype(np.int32 if largest < 2**31 else np.int64, copy=False)
