"""A slice in tiles: into how many it is cut, and what is found on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from pylinregion._util.errors import BudgetExceededError
from pylinregion.exact.slice_fold import bytes_of_fold
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.walks_on_threads import SharedReport, in_order
from pylinregion.geometry.tiles import Tile, Tiling

Found = TypeVar("Found")

_PILOT = 8  # pilot tiles on a side of a slice, of which one is folded
_MARGIN = 1.25  # of the columns of a tile, over what the pilot lets expect
_FINEST = 2**12  # tiles a side of a pilot that takes too much: the slice is refused
_HALVINGS = 12  # of a tile that takes more than the pilot let expect
_DRAWS = 16  # tilings that are tried: each has all its cuts elsewhere


def tiled(slice_: Slices, tile: Tile) -> Slices:
    """A tile of one slice."""
    return Slices(slice_.u, slice_.v, slice_.origins, tile.corners[None], tile.lines[None])


def tiles_a_side(slice_: Slices, widest: int, max_bytes: int, columns: Callable[[Tile], int]) -> int:
    """How many tiles a side of a slice is cut into: as few as fit, by what a pilot tile takes.

    The columns of a tile grow like its side.

    Args:
        slice_: One.
        widest: As of :class:`~pylinregion.exact.slice_fold.SliceFolder`.
        max_bytes: What the fold of one tile may take.
        columns: Folds a tile, and tells how many columns there are.

    Raises:
        BudgetExceededError: Even a small tile does not fit.
    """
    pilots = _PILOT
    tiling = _tiling(slice_, 0)
    while True:
        try:
            found = columns(tiling.square(pilots))
            break
        except BudgetExceededError:
            pilots *= 4
            if pilots > _FINEST:
                raise
    for count in range(2, pilots):
        if bytes_of_fold(round(_MARGIN * found * pilots / count), widest) <= max_bytes:
            return count
    return pilots


def on_tiles(
    slice_: Slices, count: int, look: Callable[[Tile], Found], threads: int, report: SharedReport
) -> Iterator[list[tuple[Tile, Found]]]:
    """What is found on the tiles of a slice, of one tiling after the other, all cut elsewhere.

    Args:
        slice_: One.
        count: Tiles a side. One that does not fit is halved.
        look: What to do on each, in any order.
        threads: How many look.
        report: Of what they look with.

    Raises:
        BudgetExceededError: From ``look``: even a small part of a tile does not fit.
    """
    for draw in range(_DRAWS):
        tiling = _tiling(slice_, draw)

        def at(tile: Tile, halvings: int = _HALVINGS, tiling: Tiling = tiling) -> list[tuple[Tile, Found]]:
            try:
                return [(tile, look(tile))]
            except BudgetExceededError:
                if not halvings:
                    raise
            return [found for half in tiling.halves(tile) for found in at(half, halvings - 1)]

        found = in_order(tiling.squares(count), at, threads, report)
        yield [each for several in found for each in several]


def _tiling(slice_: Slices, draw: int) -> Tiling:
    lengths = float(np.linalg.norm(slice_.u)), float(np.linalg.norm(slice_.v))
    return Tiling(slice_.corners[0], lengths, draw)
