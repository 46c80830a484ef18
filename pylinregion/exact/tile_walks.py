"""A slice in tiles: into how many it is cut, and what is found on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from pylinregion._util.errors import BudgetExceededError
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.walks_on_threads import SharedReport, in_order
from pylinregion.geometry.tiles import Tile, Tiling

Found = TypeVar("Found")

_PILOT = 8  # pilot tiles on a side of a slice, of which one is folded
_MORE = 1.5  # of the columns that fit: those that a slice is taken to have that does not
_MARGIN = 1.1  # of the columns of a tile, over those that are expected
_FINEST = 2**7  # pilot tiles a side: where these take too much the slice is refused
_HALVINGS = 12  # of a tile that takes more than the pilot let expect
_DRAWS = 16  # tilings that are tried: each has all its cuts elsewhere


def tiled(slice_: Slices, tile: Tile) -> Slices:
    """A tile of one slice."""
    return Slices(slice_.u, slice_.v, slice_.origins, tile.corners[None], tile.lines[None])


def tiles_a_side(slice_: Slices, room: int, columns: Callable[[Tile], int]) -> int:
    """How many tiles a side of a slice is cut into: as few as fit, by what a pilot tile takes.

    More tiles take longer: all of them together have more columns than the whole.

    Args:
        slice_: One, that has more columns than there is room for.
        room: Columns that fit.
        columns: Folds a tile, and tells how many there are.

    Raises:
        BudgetExceededError: Even a small tile does not fit.
    """
    if room < 1:
        raise _refused("one neuron on both sides does")
    tiling, pilots = _tiling(slice_, 0), _PILOT
    while True:
        try:
            found = max(1, columns(tiling.square(pilots)))
            break
        except BudgetExceededError as error:
            if 4 * pilots > _FINEST:
                raise _refused(error) from None
            pilots *= 4
    # Columns grow like the side of a tile, or less where bounds are loose on small ones too.
    power = min(max(math.log(_MORE * room / found) / math.log(pilots), 0), 1)
    fitting = (count for count in range(2, pilots) if _MARGIN * found * (pilots / count) ** power <= room)
    return next(fitting, pilots)


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
            except BudgetExceededError as error:
                if not halvings:
                    raise _refused(error) from None
            return [found for half in tiling.halves(tile) for found in at(half, halvings - 1)]

        found = in_order(tiling.squares(count), at, threads, report)
        yield [each for several in found for each in several]


def _tiling(slice_: Slices, draw: int) -> Tiling:
    lengths = float(np.linalg.norm(slice_.u)), float(np.linalg.norm(slice_.v))
    return Tiling(slice_.corners[0], lengths, draw)


def _refused(why: object) -> BudgetExceededError:
    return BudgetExceededError(f"even a small tile of the slice takes more than the memory budget: {why}", 1)
