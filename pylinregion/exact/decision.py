"""The decision boundary of a partition: exact, because the engine cuts the cells where the largest output changes.

The outputs are the candidates of one more maximum. On each cell one class wins; between cells with different winners
runs the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util import memory
from pylinregion._util.arrays import Array
from pylinregion._util.errors import BudgetExceededError
from pylinregion.exact.pattern_table import Patterns, PatternTable, bits_at
from pylinregion.exact.slice_engine import engine_of
from pylinregion.geometry import cell_measures
from pylinregion.geometry.mesh import Mesh
from pylinregion.lowering.linear_maps import identity_map
from pylinregion.lowering.stages import Stage, Stages
from pylinregion.lowering.units import candidates, identity, same, sums


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
        size = np.bincount(place, weights=cell_measures.areas(self.mesh))
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
        # The direction of the longest piece: that of one between two vertices that nearly coincide is noise.
        pieces = ends[1::2] - ends[::2]
        by_length = np.lexsort((np.linalg.norm(pieces, axis=1), group[::2]))
        longest = by_length[np.searchsorted(group[::2][by_length], np.arange(len(names)), side="right") - 1]
        direction, start = pieces[longest], ends[::2][longest]
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

    Raises:
        BudgetExceededError: The cells take more than the memory budget.
        ValueError: The patterns are not those of the network's regions.
    """
    longer = with_winner(stages)
    budget = memory.budget(None)
    found = engine_of(longer, plane, corners).enumerate(
        cells=True, threads=threads, max_bytes=budget // memory.PEAK_OF_CELLS
    )
    if found.cells is None or found.stopped:
        raise BudgetExceededError(
            f"the regions cut where the class changes take more than the memory budget of {budget} bytes: there are at "
            f"least {found.n_regions}, a lower bound. Raise {memory.BUDGET_VARIABLE}, or take a smaller slice",
            found.n_regions,
        )
    parts = found.cells.patterns
    mesh = Mesh(*(getattr(found.cells, each.name) for each in fields(Mesh)))
    lines = patterns.lines if isinstance(patterns, PatternTable) else np.arange(stages.lines)
    known = {row.tobytes(): region for region, row in enumerate(np.packbits(bits_at(patterns, lines), axis=1))}
    parent = np.array([known.get(row.tobytes(), -1) for row in np.packbits(bits_at(parts, lines), axis=1)], np.int64)
    if (parent < 0).any() or len(np.unique(parent)) != len(patterns):
        raise ValueError(
            "patterns must be those of the network's regions on this slice, and are not: arrays of the partition, or "
            "of its file, were changed"
        )
    decided = bits_at(parts, np.arange(stages.lines, longer.lines))
    winner = decided[:, 0] if decided.shape[1] == 1 else decided.argmax(axis=1)
    return Decision(mesh, parent, winner.astype(np.int64))


def with_winner(stages: Stages) -> Stages:
    """The network with one more decision, which output is the largest; of one output, whether it is above 0."""
    *before, last = stages.stages
    if last.rows == 1:
        units, summed = same(1, [0.0], [0, 1], [0, 0]), identity_map(1)
    else:
        units = candidates(np.array([0, last.rows]))
        summed = sums(units)
    return Stages(
        [*before, replace(last, units=units), Stage({len(before): summed}, np.zeros(1), identity(1))], stages.layers
    )
