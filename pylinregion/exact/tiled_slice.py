"""A slice that is walked tile by tile: counts and cells are those of the whole (docs/exactness.md, 5.4)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from pylinregion._util import memory
from pylinregion._util.arrays import Int64s
from pylinregion.exact.fold_room import columns_that_fit
from pylinregion.exact.pattern_table import PatternTable
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.slice_walks import DECISIONS, How, SliceCounts, SliceWalks
from pylinregion.exact.tile_walks import on_tiles, tiled, tiles_a_side
from pylinregion.exact.tiled_cells import TileCells, joined_cells
from pylinregion.exact.tiled_counts import TileCounts, TileLines, changes_together, is_generic, regions_together
from pylinregion.geometry.tiles import Tile

Found = TypeVar("Found")
Joined = TypeVar("Joined")

_OF_CELLS = ("offsets", "xy", "keys", "rows", "patterns")
_TWICE = 2  # the cells of all tiles are there, and then those of the whole


def count_in_tiles(walks: SliceWalks, slice_: Slices, how: How) -> SliceCounts:
    """Count one slice, whose tiles go to threads.

    Raises:
        BudgetExceededError: Even a small tile takes more than ``how.max_bytes``.
    """

    def look(systems: SliceSystems, where: Slices) -> tuple[TileCounts, TileLines]:
        found = walks.count(systems, where, how._replace(threads=1), pieces=True)
        if found["stopped_at"] >= 0:
            raise _StoppedError(found["regions"][0])
        alone = {name: array[0] for name, array in found.items() if name != "stopped_at"}
        return _counts_of_tile(alone, systems), TileLines(alone["changes"], alone["somewhere"])

    def joined(tiles: list[tuple[Tile, tuple[TileCounts, TileLines]]]) -> SliceCounts:
        counts = [(tile, each) for tile, (each, _) in tiles]
        regions = regions_together(counts)
        return SliceCounts(
            regions=regions[None],
            changes=changes_together([lines for _, (_, lines) in tiles])[None],
            decisions=np.sum([each.decisions for _, each in counts], axis=0)[None],
            rows=np.array([sum(each.rows for _, each in counts)]),
            stopped_at=0 if 0 <= how.max_regions < regions[-1:].sum() else -1,
        )

    try:
        return _in_tiles(walks, slice_, how, look, joined, cells=False)
    except _StoppedError as error:
        nothing = np.zeros((1, (walks.stages.lines + 7) // 8), np.uint8)
        return SliceCounts(error.regions[None], nothing, np.zeros((1, 4), np.int64), np.zeros(1, np.int64), 0)


def cells_in_tiles(walks: SliceWalks, slice_: Slices, how: How, max_bytes: int | None) -> dict[str, Any]:
    """The cells of one slice, found tile by tile: what the core tells of the whole, without seams.

    Args:
        walks: The network.
        slice_: Where.
        how: How. Tiles go to threads.
        max_bytes: Stop when the cells take more.

    Raises:
        BudgetExceededError: Even a small tile takes more than ``how.max_bytes``.
    """
    left = _Budget(None if max_bytes is None else max_bytes // _TWICE)

    def look(systems: SliceSystems, where: Slices) -> tuple[TileCounts, TileCells]:
        found = walks.cells(systems, where, how._replace(threads=1), left.bytes)
        if found["stopped"] or not left.take(sum(found[name].nbytes for name in _OF_CELLS)):
            raise _StoppedError(np.array(found["regions"], np.int64))
        lines = systems.line[: int(systems.begin[-1])].astype(np.int64)
        patterns = PatternTable(systems.on[0], lines, found["patterns"])
        cells = TileCells(**{name: found[name] for name in ("offsets", "xy", "keys", "rows")}, patterns=patterns)
        found["decisions"] = [found[name] for name in DECISIONS]
        return _counts_of_tile(found, systems), cells

    def joined(tiles: list[tuple[Tile, tuple[TileCounts, TileCells]]]) -> dict[str, Any] | None:
        counts = [(tile, each) for tile, (each, _) in tiles]
        regions = regions_together(counts)
        if 0 <= how.max_regions < regions[-1:].sum():
            raise _StoppedError(regions)
        mesh = joined_cells([(tile, cells) for tile, (_, cells) in tiles])
        if mesh is None:
            left.give_back()
            return None
        if len(mesh["offsets"]) - 1 != regions[-1:].sum(initial=not len(regions)):
            raise RuntimeError(f"there are {regions} regions, and {len(mesh['offsets']) - 1} cells of the tiles")
        return mesh | _told(regions, np.sum([each.decisions for _, each in counts], axis=0), stopped=False)

    try:
        return _in_tiles(walks, slice_, how, look, joined, cells=True)
    except _StoppedError as error:
        return _told(error.regions, np.zeros(4, np.int64), stopped=True)


def _in_tiles(
    walks: SliceWalks,
    slice_: Slices,
    how: How,
    look: Callable[[SliceSystems, Slices], tuple[TileCounts, Found]],
    joined: Callable[[list[tuple[Tile, tuple[TileCounts, Found]]]], Joined | None],
    cells: bool,
) -> Joined:
    """What is found on the tiles, put together: of the first tiling with which that goes."""
    max_bytes = memory.budget(how.max_bytes) // how.threads

    def fold(tile: Tile, in_digits: bool | None = None) -> tuple[SliceSystems, Slices]:
        where = tiled(slice_, tile)
        return walks.folder.fold(where, max_bytes, cells, in_digits), where

    room = columns_that_fit(max_bytes, walks.folder.widest)
    network = walks.folder.network
    count = tiles_a_side(slice_, room, lambda tile: network.columns_all_along(fold(tile)[0].stage_begin[0]))
    begin = walks.folder.in_digits  # as the pilot tile: what comes must not depend on which tile is first
    for tiles in on_tiles(slice_, count, lambda tile: look(*fold(tile, begin)), how.threads, how.report):
        if all(is_generic(tile, counts) for tile, (counts, _) in tiles):
            together = joined(tiles)
            if together is not None:
                return together
    raise RuntimeError("every tiling of a slice has cuts along lines of the network, or through where they cross")


def _counts_of_tile(found: dict[str, Any], systems: SliceSystems) -> TileCounts:
    return TileCounts(
        regions=np.asarray(found["regions"], np.int64),
        decisions=np.asarray(found["decisions"], np.int64),
        rows=int(systems.begin[-1]),
        pieces=found["pieces"],
        zero_along=found["zero_along"],
        zero_at=found["zero_at"],
    )


def _told(regions: Int64s, decisions: Int64s, stopped: bool) -> dict[str, Any]:
    """As the core tells it."""
    return {"regions": regions.tolist(), "stopped": stopped} | dict(zip(DECISIONS, decisions.tolist(), strict=True))


class _StoppedError(Exception):
    """There is more on a tile than there may be on its slice; ``regions`` are those that were found on it."""

    def __init__(self, regions: Int64s) -> None:
        super().__init__()
        self.regions = regions


class _Budget:
    """Bytes that are left for the cells of all tiles; None: any."""

    def __init__(self, whole: int | None) -> None:
        self._whole = self.bytes = whole
        self._lock = threading.Lock()

    def take(self, used: int) -> bool:
        """Whether there were so many."""
        with self._lock:
            self.bytes = None if self.bytes is None else max(-1, self.bytes - used)
            return self.bytes is None or self.bytes >= 0

    def give_back(self) -> None:
        """All of them."""
        self.bytes = self._whole
