"""Patterns of regions, of which most lines are on the same side everywhere: a bit for each of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Int64s

_BYTES_AT_ONCE = 1 << 24

PatternRows = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PatternTable:
    """Patterns ``[regions, bytes]``, whole rows of which are made when they are asked for, as those of an array are.

    Attributes:
        everywhere: ``[bytes]`` uint8: bit k % 8 of byte k // 8 is 1 where line k is on in all regions.
        lines: ``[k]`` int64: the lines that a region may differ in, ascending; they are 0 in ``everywhere``.
        bits: ``[regions, (k + 7) // 8]`` uint8: theirs, likewise.
    """

    everywhere: NDArray[np.uint8]
    lines: Int64s
    bits: PatternRows

    def __post_init__(self) -> None:
        for array in (self.everywhere, self.lines, self.bits):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def shape(self) -> tuple[int, int]:
        """``(regions, bytes)`` of the rows."""
        return len(self.bits), len(self.everywhere)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """That of the rows."""
        return np.dtype(np.uint8)

    def __getitem__(self, regions: Any) -> PatternRows:
        """The rows of some regions, or the row of one."""
        bits = self.bits[regions]
        own = np.unpackbits(np.atleast_2d(bits), axis=1, count=len(self.lines), bitorder="little")
        rows = np.repeat(self.everywhere[None], len(own), axis=0)
        byte, shift = self.lines >> 3, (self.lines & 7).astype(np.uint8)
        np.bitwise_or.at(rows.T, byte, (own << shift).T)
        return rows if bits.ndim == 2 else rows[0]

    def __iter__(self) -> Iterator[PatternRows]:
        step = max(1, _BYTES_AT_ONCE // max(1, len(self.everywhere)))
        for begin in range(0, len(self), step):
            yield from list(self[begin : begin + step])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, for NumPy."""
        return self[:] if dtype is None else self[:].astype(dtype)

    @property
    def changing(self) -> Int64s:
        """The lines that are on in some regions and off in others."""
        if not len(self):
            return self.lines[:0]
        some = np.bitwise_or.reduce(self.bits, axis=0) ^ np.bitwise_and.reduce(self.bits, axis=0)
        changing: Int64s = self.lines[np.unpackbits(some, count=len(self.lines), bitorder="little") != 0]
        return changing


Patterns = PatternRows | PatternTable


def part_of(patterns: Patterns, regions: Int64s) -> Patterns:
    """The patterns of some regions, kept as those of all are."""
    if isinstance(patterns, PatternTable):
        return PatternTable(patterns.everywhere, patterns.lines, patterns.bits[regions])
    return np.asarray(patterns[regions])


def changing_lines(patterns: Patterns, lines: int) -> Int64s:
    """The lines that are on in some regions and off in others."""
    if isinstance(patterns, PatternTable):
        return patterns.changing
    some = np.bitwise_or.reduce(patterns, axis=0) ^ np.bitwise_and.reduce(patterns, axis=0)
    return np.flatnonzero(np.unpackbits(some, count=lines, bitorder="little"))


def names_of_rows(patterns: Patterns) -> list[bytes]:
    """Bytes for each region, that are equal where patterns are."""
    return [row.tobytes() for row in (patterns.bits if isinstance(patterns, PatternTable) else patterns)]


def bits_at(patterns: Patterns, lines: Int64s) -> NDArray[np.uint8]:
    """``[regions, n]``: 0 or 1: whether each of some lines is on."""
    if not isinstance(patterns, PatternTable):
        byte, shift = lines >> 3, (lines & 7).astype(np.uint8)
        return np.asarray(patterns[:, byte] >> shift & 1)
    same = patterns.everywhere[lines >> 3] >> (lines & 7).astype(np.uint8) & 1
    out = np.repeat(same[None], len(patterns), axis=0)
    place = np.searchsorted(patterns.lines, lines)
    own = np.flatnonzero(np.append(patterns.lines, -1)[place] == lines)
    at = place[own]
    out[:, own] = patterns.bits[:, at >> 3] >> (at & 7).astype(np.uint8) & 1
    return out


def states(patterns: Patterns, regions: NDArray[np.integer[Any]], line: Int64s) -> NDArray[np.uint8]:
    """``[n]``: 0 or 1: whether a line is on in a region, for n of both."""
    if not isinstance(patterns, PatternTable):
        return np.asarray(patterns[regions, line >> 3] >> (line & 7).astype(np.uint8) & 1, dtype=np.uint8)
    same = patterns.everywhere[line >> 3] >> (line & 7).astype(np.uint8) & 1
    place = np.searchsorted(patterns.lines, line)
    own = np.flatnonzero(np.append(patterns.lines, -1)[place] == line)
    at = place[own]
    same[own] = patterns.bits[regions[own], at >> 3] >> (at & 7).astype(np.uint8) & 1
    return np.asarray(same)
