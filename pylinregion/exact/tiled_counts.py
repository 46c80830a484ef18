"""Counts of a slice from those of its tiles: what is on both sides of a cut counts once (docs/exactness.md, 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Int64s
from pylinregion.geometry.tiles import Tile


class TileCounts(NamedTuple):
    """What was found on a tile with n borders.

    Attributes:
        regions: ``[stages with lines]`` int64: the regions after each stage.
        decisions: ``[4]`` int64: as of :class:`~pylinregion.exact.many_slices.SliceCounts`.
        rows: Lines that the fold left.
        pieces: ``[stages with lines, n]`` int64: regions along each border after each stage.
        zero_along: ``[n]`` int64: how often a row was 0 all along a region's piece of a border.
        zero_at: ``[n]`` int64: and at the corner where the border begins.
    """

    regions: Int64s
    decisions: Int64s
    rows: int
    pieces: Int64s
    zero_along: Int64s
    zero_at: Int64s


class TileLines(NamedTuple):
    """On which sides lines are on a tile.

    Attributes:
        changes: ``[bytes]`` uint8: a bit for each line that is not on one side all over the tile.
        somewhere: ``[bytes]`` uint8: a bit for each that is on in some region.
    """

    changes: NDArray[np.uint8]
    somewhere: NDArray[np.uint8]


def is_generic(tile: Tile, found: TileCounts) -> bool:
    """Whether no row is 0 along a cut, or where a cut ends at another."""
    cut = np.array([border.side >= 0 for border in tile.borders])
    between_cuts = cut & np.roll(cut, 1)
    return not (found.zero_along[cut].any() or found.zero_at[between_cuts].any())


def regions_together(tiles: Sequence[tuple[Tile, TileCounts]]) -> Int64s:
    """``[stages with lines]``: the regions of the whole, where all tiles are generic.

    Raises:
        RuntimeError: What lies along a cut is not the same on both sides.
    """
    regions: Int64s = np.sum([found.regions for _, found in tiles], axis=0)
    along: dict[int, Int64s] = {}  # by side of a cut: the regions that meet it
    for tile, found in tiles:
        for number, border in enumerate(tile.borders):
            if border.side >= 0:  # one region goes on across each corner between two tiles of a side
                along[border.side] = along.get(border.side, 1) + found.pieces[:, number] - 1
    for side, meeting in along.items():
        if not np.array_equal(meeting, along[side ^ 1]):
            raise RuntimeError(f"the regions along cut {side // 2} are {meeting} on one side, {along[side ^ 1]} beyond")
        if side % 2 == 0:
            regions = regions - meeting
    return regions


def changes_together(tiles: Sequence[TileLines]) -> NDArray[np.uint8]:
    """``[bytes]``: a bit for each line that is not on one side all over the whole."""
    somewhere = np.bitwise_or.reduce([each.somewhere for each in tiles])
    everywhere = np.bitwise_and.reduce([each.somewhere & ~each.changes for each in tiles])
    return np.asarray(somewhere & ~everywhere)
