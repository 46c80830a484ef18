"""``partition_in_shards``: a partition by several processes, or in a run that can be ended and gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pylinregion._util import checks, memory
from pylinregion._util.errors import BudgetExceededError
from pylinregion._util.npz import Npz, require
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.processes import Ranks
from pylinregion.exact.neurons import Neurons
from pylinregion.exact.slice_engine import EngineCells, Enumeration, PartCells, SliceWalk, engine_of, mesh_of_parts
from pylinregion.geometry.slice import Slice
from pylinregion.graph.digest import digest_of, digest_of_network
from pylinregion.graph.network import Network
from pylinregion.lowering.stages import Stages
from pylinregion.regions.enumeration import found_partition, prepared
from pylinregion.regions.partition import Partition
from pylinregion.sharding.store import Arrays, Shards

_INTEGERS = (np.int64,)
_CELLS = tuple(each.name for each in fields(PartCells))
_COUNTED = ("filter", "exact", "zeros")


@plain_torch()
def partition_in_shards(
    model: nn.Module | torch.export.ExportedProgram | Network,
    slice_: Slice,
    folder: str | os.PathLike[str],
    *,
    parts: int = 64,
    cells: bool = True,
    layers: list[str] | None = None,
    threads: int | None = None,
    memory_budget: int | None = None,
    progress: bool = False,
) -> Partition | None:
    """:func:`partition` by several processes, or in a run that can be ended and gone on with.

    The walk over the slice is cut into parts, each a shard; put together in order they are what :func:`partition`
    gives, to the bit, for any number of parts and processes. See :func:`count_in_shards` for processes and folders.

    Args:
        model, slice_, cells, layers: As for :func:`partition`.
        folder: Where the shards go.
        parts: How many there are; several for each process, for some take longer than others.
        threads: CPU threads of this process; None: ``torch.get_num_threads()``.
        memory_budget: Bytes that finding the cells of one part may take, and following a network of convolutions on the
            whole slice: there is no part of a slice that is cut into tiles; None: as for :func:`partition`.
        progress: Show a bar of this process's shards.

    Returns:
        The partition in process 0, None in the others. The certificate counts the decisions of all parts.

    Raises:
        ValueError, TypeError, UnsupportedModelError: As for :func:`partition` and :func:`count_in_shards`.
        BudgetExceededError: The cells of a part take more than ``memory_budget``, or following the network does.
        PylinregionError: Another process ended before its shards were done; those that are done are kept.
    """
    checks.positive_integer("parts", parts)
    checks.switches(cells=cells, progress=progress)
    ready = prepared(model, slice_, layers, threads, None, memory_budget)
    ranks = Ranks.current()
    partitioning = _Partitioning(
        engine_of(ready.stages, slice_.plane, slice_.polygon, memory_budget),
        parts,
        ready.threads,
        cells,
        memory.budget(memory_budget) if cells else None,
    )
    job = {
        "what": "partition",
        "network": digest_of_network(ready.network),
        "slice": digest_of(slice_.plane, slice_.polygon),
        "layers": list(ready.stages.layers),
        "cells": cells,
    }
    shards = Shards(folder, job, parts, ranks, _Layout.of(ready.stages, cells).take)
    shards.run(partitioning.make, lambda number, arrays: None, progress)
    return None if ranks.rank else found_partition(ready, slice_, _together(shards, ready.stages, cells))


@dataclass(frozen=True)
class _Partitioning:
    """How shards are made: the walk over a slice, part by part.

    Attributes:
        engine: Walks.
        parts: How many there are.
        threads: CPU threads.
        cells: Whether cells are kept.
        budget: Bytes that finding those of a part may take; None: any.
    """

    engine: SliceWalk
    parts: int
    threads: int
    cells: bool
    budget: int | None

    def make(self, number: int) -> Arrays:
        """What is found in a part.

        Raises:
            BudgetExceededError: Its cells take more than the budget, or following the network on the slice does.
        """
        if (refused := self.engine.refused) is not None:
            raise BudgetExceededError(
                f"{refused}. Without shards, pylinregion.partition finds the regions in tiles, within that budget",
                refused.n_regions,
            )
        found = self.engine.enumerate_part(
            number,
            self.parts,
            cells=self.cells,
            threads=self.threads,
            max_bytes=None if self.budget is None else self.budget // memory.PEAK_OF_CELLS,
        )
        if found.stopped:
            least = found.n_regions
            raise BudgetExceededError(
                f"the cells of part {number} of {self.parts} take more than the memory budget of {self.budget} bytes: "
                f"it has at least {least} regions, a lower bound. Take more parts, raise memory_budget, or count only",
                least,
            )
        arrays = {name: np.array(getattr(found, name), dtype=np.int64) for name in ("regions", *_COUNTED)}
        return arrays if found.cells is None else arrays | {name: getattr(found.cells, name) for name in _CELLS}


@dataclass(frozen=True)
class _Layout:
    """What is in a shard.

    Attributes:
        stages_with_lines: Of the network; a part has regions of each, or nothing at all.
        rows: Rows of the network, which edges lie on.
        pattern_bytes: Of a cell's pattern.
        cells: Whether there are cells.
    """

    stages_with_lines: int
    rows: int
    pattern_bytes: int
    cells: bool

    @staticmethod
    def of(stages: Stages, cells: bool) -> _Layout:
        """That of a network's parts."""
        return _Layout(_stages_with_lines(stages), Neurons.of(stages).rows, (stages.lines + 7) // 8, cells)

    def take(self, number: int, archive: Npz) -> Arrays:
        """The arrays of a shard, checked."""
        arrays = {"regions": archive.take("regions", _INTEGERS, (None,))}
        sizes = (0, self.stages_with_lines)
        require(len(arrays["regions"]) in sizes, "regions", f"of a size in {sizes}", len(arrays["regions"]))
        arrays |= {name: archive.take(name, _INTEGERS, ()) for name in _COUNTED}
        for name, array in arrays.items():
            require((array >= 0).all(), name, "numbers from 0 up", array.min(initial=0))
        return arrays | (self._take_cells(archive) if self.cells else {})

    def _take_cells(self, archive: Npz) -> Arrays:
        """The cells of a part, all that the mesh goes by held against each other."""
        offsets = archive.take("offsets", _INTEGERS, (None,))
        fit = len(offsets) > 0 and offsets[0] == 0 and (np.diff(offsets) >= 3).all() and (offsets >= 0).all()
        require(fit, "offsets", "from 0 up, by 3 or more for each cell", offsets)
        corners, cells = int(offsets[-1]), len(offsets) - 1
        arrays = {
            "offsets": offsets,
            "xy": archive.take("xy", (np.float64,), (corners, 2)),
            "keys": archive.take("keys", (np.uint64,), (corners, 2)),
            "rows": archive.take("rows", (np.int32,), (corners,)),
            "patterns": archive.take("patterns", (np.uint8,), (cells, self.pattern_bytes)),
        }
        highest = arrays["rows"].max(initial=-1)
        require(highest < self.rows, "rows", f"below {self.rows}", highest)
        return arrays


def _together(shards: Shards, stages: Stages, cells: bool) -> Enumeration[EngineCells]:
    """What the engine would have found at once, from all parts in order.

    Raises:
        ValueError: They are not the parts of one slice.
    """
    regions = np.zeros(_stages_with_lines(stages), dtype=np.int64)
    decisions = dict.fromkeys(_COUNTED, 0)

    def parts() -> Iterator[Arrays]:
        for number in range(shards.count):
            arrays = shards.read(number)
            regions[: len(arrays["regions"])] += arrays["regions"]
            for name in _COUNTED:
                decisions[name] += int(arrays[name])
            yield arrays

    mesh = None
    if cells:
        mesh = _mesh(parts(), stages.lines, shards.folder)
        vertices, edges, found = len(mesh.vertices), len(mesh.edges), len(mesh.patterns)
        whole = vertices - edges + found == 1 and found == regions[-1:].sum(initial=not len(regions))
        told = f"{vertices} vertices, {edges} edges and {found} regions"
        require(whole, str(shards.folder), "the parts of one slice", told)
    else:
        for _ in parts():
            pass
    return Enumeration(regions=regions.tolist(), stopped=False, **decisions, cells=mesh)


def _mesh(parts: Iterator[Arrays], lines: int, folder: Path) -> EngineCells:
    try:
        return mesh_of_parts((PartCells(*(arrays[name] for name in _CELLS)) for arrays in parts), lines)
    except RuntimeError as error:
        raise ValueError(f"{folder} must hold the parts of one slice, got others: {error}") from error


def _stages_with_lines(stages: Stages) -> int:
    return sum(stage.units.lines > 0 for stage in stages.stages)
