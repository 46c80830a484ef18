"""The cells of a slice from those of its tiles, without seams (docs/exactness.md, 5.4).

A region of the slice is what tiles have of one pattern. Its edges are on different rows, and each of its corners is
inside a tile, so that tiles tell for each edge the one behind it. Where corners are on cuts, cuts are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion.exact.pattern_table import PatternRows, PatternTable, bits_at
from pylinregion.geometry.tiles import Tile
from pylinregion.native.exact_engines import MeshOfParts

_CUT = np.iinfo(np.int64).min  # the row of an edge along a cut
_BITS_AT_ONCE = 1 << 24
_BACKWARDS = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)), bitorder="little")  # the bits of each byte


@dataclass(frozen=True)
class TileCells:
    """The cells of a tile, each with corners of its own.

    Attributes:
        offsets: ``[R + 1]`` int64: the corners of each cell.
        xy: ``[corners, 2]`` float64.
        keys: ``[corners, 2]`` uint64: names of vertices within the tile.
        rows: ``[corners]`` int32: the row along the edge behind each corner.
        patterns: Of the cells.
    """

    offsets: Int64s
    xy: Array
    keys: NDArray[np.uint64]
    rows: NDArray[np.int32]
    patterns: PatternTable


@dataclass
class _Corners:
    """Corners of cells, one cell behind the other, counter-clockwise.

    Attributes:
        cell: ``[corners]``: of which each is.
        before, behind: ``[corners]``: the rows along the edges at it.
        xy, keys: As of :class:`TileCells`; the same key is the same point in all tiles.
    """

    cell: Int64s
    before: Int64s
    behind: Int64s
    xy: Array
    keys: NDArray[np.uint64]

    def __getitem__(self, which: Any) -> _Corners:
        return _Corners(self.cell[which], self.before[which], self.behind[which], self.xy[which], self.keys[which])


def joined_cells(tiles: Sequence[tuple[Tile, TileCells]]) -> dict[str, Any] | None:
    """The mesh of the whole, as the engine gives it, in the order of its walk: by pattern, and what is on first.

    Its cells begin at the corner behind which the row with the least number is.

    Returns:
        The arrays of the mesh, and ``patterns``; None: some corner of a region is on a cut.
    """
    everywhere, lines = _lines_that_differ([found.patterns for _, found in tiles])
    bits = np.concatenate([_bits(found.patterns, lines) for _, found in tiles])
    region = _numbered(bits)
    corners = _joined([_corners(number, *each) for number, each in enumerate(tiles)])
    corners.cell = region[corners.cell]
    crossing = np.zeros(region.max() + 1, dtype=bool)
    crossing[corners.cell[corners.behind == _CUT]] = True
    edges = corners[(corners.behind != _CUT) & crossing[corners.cell]]
    corners = corners[(corners.before != _CUT) & (corners.behind != _CUT)]
    corners = corners[np.argsort(corners.cell, kind="stable")]
    if not _is_closed(edges, corners[crossing[corners.cell]]):
        return None
    order = _around(corners, crossing)
    if order is None:
        return None
    corners = corners[order]
    first = np.empty(len(crossing), np.int64)
    first[region[::-1]] = np.arange(len(region))[::-1]
    mesh: Any = MeshOfParts((len(lines) + 7) // 8)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(corners.cell, minlength=len(crossing)))])
    mesh.add(offsets, corners.xy, corners.keys, corners.behind.astype(np.int32), _BACKWARDS[bits[first]])
    found: dict[str, Any] = mesh.take()
    holes = len(found["vertices"]) - len(found["edge_rows"]) + len(crossing) - 1
    if holes:
        raise RuntimeError(f"the cells of {len(tiles)} tiles leave {holes} holes")
    return found | {"patterns": PatternTable(everywhere, lines, found["patterns"])}


def _lines_that_differ(patterns: Sequence[PatternTable]) -> tuple[PatternRows, Int64s]:
    """The lines that are on everywhere, a bit for each, and those that may be on in some cells and off in others."""
    on = np.bitwise_and.reduce([each.everywhere for each in patterns])
    differ = np.bitwise_or.reduce([each.everywhere for each in patterns]) ^ on
    apart = np.flatnonzero(np.unpackbits(differ, bitorder="little"))
    lines = np.unique(np.concatenate([apart, *(each.lines for each in patterns)])).astype(np.int64)
    np.bitwise_and.at(on, lines >> 3, ~(np.uint8(1) << (lines & 7).astype(np.uint8)))
    return on, lines


def _bits(patterns: PatternTable, lines: Int64s) -> PatternRows:
    """``[cells, bytes]``: those of some lines, the first in the highest bit."""
    out = np.empty((len(patterns), (len(lines) + 7) // 8), np.uint8)
    step = max(1, _BITS_AT_ONCE // max(1, len(lines)))
    for begin in range(0, len(patterns), step):
        some = PatternTable(patterns.everywhere, patterns.lines, patterns.bits[begin : begin + step])
        out[begin : begin + step] = np.packbits(bits_at(some, lines), axis=1)
    return out


def _numbered(bits: PatternRows) -> Int64s:
    """``[cells]``: the number of each pattern, in the order of the walk."""
    count, width = bits.shape
    if not width:
        return np.zeros(count, np.int64)
    order = np.argsort((~bits).view(f"V{width}")[:, 0], kind="stable")
    new = np.ones(count, dtype=bool)
    new[1:] = (bits[order[1:]] != bits[order[:-1]]).any(axis=1)
    region = np.empty(count, np.int64)
    region[order] = np.cumsum(new) - 1
    return region


def _corners(number: int, tile: Tile, found: TileCells) -> _Corners:
    """Those of a tile. Borders of the slice have rows from -2 down, as the engine numbers them."""
    behind = found.rows.astype(np.int64)
    border = behind <= -2
    sides = np.array([border.side for border in tile.borders])[-2 - behind[border]]
    behind[border] = np.where(sides >= 0, _CUT, sides - 1)
    ends = found.offsets[1:] - 1
    before = np.roll(behind, 1)
    before[found.offsets[:-1]] = behind[ends]
    own = np.random.default_rng(number).integers(2**64, size=2, dtype=np.uint64)
    cell = np.repeat(np.arange(len(ends)), np.diff(found.offsets))
    return _Corners(cell, before, behind, found.xy, found.keys ^ own)


def _joined(parts: Sequence[_Corners]) -> _Corners:
    counts = np.cumsum([0, *(int(part.cell[-1]) + 1 for part in parts)])
    return _Corners(
        np.concatenate([part.cell + count for part, count in zip(parts, counts, strict=False)]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("before", "behind", "xy", "keys")),
    )


def _is_closed(edges: _Corners, corners: _Corners) -> bool:
    """Whether each edge of each region ends at one corner, and begins at one."""
    wanted = np.unique(np.stack([edges.cell, edges.behind]), axis=1)
    return all(
        np.array_equal(wanted, np.stack([corners.cell, rows])[:, np.lexsort((rows, corners.cell))])
        for rows in (corners.before, corners.behind)
    )


def _around(corners: _Corners, crossing: NDArray[np.bool_]) -> Int64s | None:
    """The corners of each region from the one with the least row behind it, counter-clockwise.

    Those of regions that do not cross cuts are so up to where they begin.
    """
    begin = np.searchsorted(corners.cell, np.arange(len(crossing) + 1))
    size = np.diff(begin)
    least = np.minimum.reduceat(corners.behind, begin[:-1])
    start = np.flatnonzero(corners.behind == least[corners.cell])
    place = np.arange(len(corners.cell)) - begin[corners.cell]
    order = begin[corners.cell] + (place + start[corners.cell] - begin[corners.cell]) % size[corners.cell]
    for region in np.flatnonzero(crossing):
        here = range(begin[region], begin[region + 1])
        behind = dict(zip(corners.before[here.start : here.stop].tolist(), here, strict=True))
        at = int(start[region])
        for k in here:
            order[k] = at
            at = behind[int(corners.behind[at])]
            if at == start[region] and k + 1 < here.stop:
                return None
    return np.asarray(order)
