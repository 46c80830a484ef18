"""The decision boundary of a partition: exact, because the engine cuts the cells where the largest output changes.

The outputs are compared in a tournament: the winner of two is ``f + relu(g - f)``, one more neuron of the network. On
a cell that no such neuron cuts, one class wins; between cells with different winners runs the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion import measures
from pylinregion.engine import Engine
from pylinregion.maps import Array, Patterns
from pylinregion.mesh import Mesh
from pylinregion.stages import Stage, Stages, identity, same


class DecisionBoundary(NamedTuple):
    """Where the class changes.

    Attributes:
        segments: ``[S, 2, 2]`` float64: from one end (s, t) to the other.
        cells: ``[S]``: the region that each is in; of one on an edge, the first of the two.
        classes: ``[S, 2]``: the classes on its two sides, the smaller one first.
    """

    segments: Array
    cells: NDArray[np.int64]
    classes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Decision:
    """The cells of a partition, cut where the class changes (and at other places). The arrays are read-only.

    Attributes:
        mesh: The cut cells.
        parent: ``[cut cells]``: the region of the partition that each is a part of.
        winner: ``[cut cells]``: its class.
    """

    mesh: Mesh
    parent: NDArray[np.int64]
    winner: NDArray[np.int64]

    def __post_init__(self) -> None:
        for array in (self.parent, self.winner):
            array.setflags(write=False)

    def of_regions(self, regions: int) -> NDArray[np.int64]:
        """``[regions]``: the class that has most of each region's area."""
        classes = int(self.winner.max()) + 1
        parts, place = np.unique(self.parent * classes + self.winner, return_inverse=True)
        size = np.bincount(place, weights=measures.areas(self.mesh))
        order = np.lexsort((-parts, size))  # the last of a region: the largest part, of equal ones the lowest class
        result = np.empty(regions, dtype=np.int64)
        result[parts[order] // classes] = parts[order] % classes
        return result

    def boundary(self) -> DecisionBoundary:
        """The edges between different winners, joined where they are one segment."""
        edges = self.mesh.edge_cells
        inner = np.flatnonzero(self.mesh.inner())
        sides = self.winner[edges[inner]]
        cut = inner[sides[:, 0] != sides[:, 1]]
        classes = np.sort(self.winner[edges[cut]], axis=1)
        parents = np.sort(self.parent[edges[cut]], axis=1)
        # In a region, and on the side that two regions share, a pair of classes ties along one line.
        names, group = np.unique(np.concatenate([parents, classes], axis=1), axis=0, return_inverse=True)
        group = np.repeat(group.reshape(-1), 2)
        ends = self.mesh.vertices[self.mesh.edges[cut].reshape(-1)]
        direction = np.zeros((len(names), 2))
        start = np.zeros((len(names), 2))
        direction[group[::2]], start[group[::2]] = ends[1::2] - ends[::2], ends[::2]
        along = ((ends - start[group]) * direction[group]).sum(axis=1)
        order = np.lexsort((along, group))
        first = np.searchsorted(group[order], np.arange(len(names)))
        last = np.searchsorted(group[order], np.arange(len(names)), side="right") - 1
        segments = np.stack([ends[order[first]], ends[order[last]]], axis=1)
        return DecisionBoundary(segments.reshape(-1, 2, 2), names[:, 0], names[:, 2:])


def decide(stages: Stages, plane: Array, corners: Array, patterns: Patterns, threads: int) -> Decision:
    """Cut the regions of a partition by the class.

    Args:
        stages: The network; with one output, class 1 is where it is above 0.
        plane: ``[inputs, 3]``.
        corners: ``[n, 2]``.
        patterns: ``[regions, bytes]`` of the partition.
        threads: For the engine.
    """
    longer, tree = _with_tournament(stages)
    found = Engine(longer, plane, corners).enumerate(cells=True, threads=threads)
    mesh = Mesh(*(found[name] for name in ("vertices", "offsets", "indices", "edges", "edge_cells")))
    bits = np.unpackbits(found["patterns"], axis=1, count=longer.lines, bitorder="little")
    rows = np.packbits(bits[:, : stages.lines], axis=1, bitorder="little")
    known = {row.tobytes(): region for region, row in enumerate(patterns)}
    parent = np.array([known[row.tobytes()] for row in rows], dtype=np.int64)
    return Decision(mesh, parent, tree.winner(bits[:, stages.lines :]))


@dataclass
class _Tree:
    """A tournament among consecutive classes.

    Attributes:
        first: The lowest of its classes.
        spine: Its value is that output plus the units of these (stage, unit).
        line: Its last match; -1: there is but one class.
        parts: The tournaments whose winners meet there.
    """

    first: int
    spine: list[tuple[int, int]]
    line: int = -1
    parts: tuple[_Tree, _Tree] | None = None

    def winner(self, on: NDArray[np.uint8]) -> NDArray[np.int64]:
        """``[cells]``: the class that wins, of equal ones the lowest; ``on`` is ``[cells, matches]``."""
        if self.parts is None:
            return np.full(len(on), self.first, dtype=np.int64)
        low, high = (part.winner(on) for part in self.parts)
        return np.where(on[:, self.line] != 0, high, low)


def _with_tournament(stages: Stages) -> tuple[Stages, _Tree]:
    """A network with the matches between its outputs as further stages."""
    found = list(stages.stages)
    outputs = len(found) - 1
    width = found[outputs].rows
    matches = 0
    if width == 1:
        found.append(Stage({outputs: np.eye(1)}, np.zeros(1), same(1, [0.0], [0, 1], [0, 0])))
        tree = _Tree(0, [], 0, (_Tree(0, []), _Tree(1, [])))
    else:
        trees = [_Tree(output, []) for output in range(width)]
        while len(trees) > 1:
            pairs = list(zip(trees[::2], trees[1::2], strict=False))
            stage = len(found)
            blocks = {outputs: np.zeros((len(pairs), width))}
            following = []
            for row, (low, high) in enumerate(pairs):
                for tree, sign in ((high, 1.0), (low, -1.0)):
                    blocks[outputs][row, tree.first] = sign
                    for source, unit in tree.spine:
                        blocks.setdefault(source, np.zeros((len(pairs), found[source].rows)))[row, unit] = sign
                following.append(_Tree(low.first, [*low.spine, (stage, row)], matches + row, (low, high)))
            matches += len(pairs)
            found.append(Stage(blocks, np.zeros(len(pairs)), same(len(pairs), [0.0], [0, 1], [0, 0])))
            trees = following + trees[2 * len(pairs) :]
        (tree,) = trees
    rows = found[-1].rows
    found.append(Stage({len(found) - 1: np.eye(rows)}, np.zeros(rows), identity(rows)))
    return Stages(found, stages.layers), tree
