"""What a network gives on the regions of segments that were folded: sums over the lines that are on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import UNIT
from pylinregion.exact.breakpoints import Breakpoints
from pylinregion.exact.pattern_table import bits_at
from pylinregion.exact.slice_systems import SliceOutputs, SliceSystems

_WORTH = 1e-9  # of a region's largest slope, and value: what rounding may be expected to do (docs/exactness.md, 11)
_OF_COLUMNS = 256 * UNIT  # what the numbers of a column are expected to be off by, in units of their size
_NUMBERS_AT_ONCE = 1 << 20  # of the lines of a segment on some of its regions


def maps_along(systems: SliceSystems, outputs: SliceOutputs, found: Breakpoints, extents: Array) -> Array:
    """The outputs on each region as functions of s.

    Args:
        systems, outputs: The segments, folded.
        found: Their breakpoints, with ``starts``.
        extents: ``[B]``: the largest |s| of each, which slopes are measured by.

    Returns:
        ``[regions, outputs, 2]``: slope, and value at s = 0; NaN where rounding is expected to do too much to them.
    """
    parts = []
    column = 0
    for segment, (begin, end) in enumerate(pairwise(systems.begin.tolist())):
        n = end - begin
        matrix = systems.columns[column : column + n * (n + 8)].reshape(n, n + 8)
        column += n * (n + 8)
        stages = list(pairwise(systems.stage_begin[segment].tolist()))
        forms = systems.affine[::2, begin:end].T[:, None]  # [n, 1, 2]
        taken = outputs.columns[begin:end]
        noise, shares = outputs.row_noise[begin:end, None] ** 2, outputs.shares[:, None]
        for on in _patterns(systems, found, segment, begin, end):
            z = np.zeros((n, on.shape[1], 2))  # of rows that are on; of others 0
            off = np.zeros(on.shape)  # squares of what they are expected to be off by
            for low, high in stages:
                some = matrix[:low, low:high]
                z[low:high] = (forms[low:high] + _sums(some, z[:low])) * on[low:high, :, None]
                own = noise[low:high] + (some * some).T @ off[:low]
                off[low:high] = own * on[low:high] + _OF_COLUMNS**2 * (z[low:high] ** 2).sum(axis=2)
            maps = outputs.affine[segment].T[:, None] + _sums(taken, z)
            expected = np.sqrt((outputs.noise[segment] * shares) ** 2 + (taken * taken).T @ off) / shares
            sizes = np.abs(maps) * np.array([extents[segment], 1.0]) / shares[:, :, None]
            good = expected.max(axis=0) <= _WORTH * sizes.max(axis=0).min(axis=1)
            parts.append(np.where(good[:, None, None], maps.transpose(1, 0, 2), np.nan))
    return np.concatenate(parts)


def _sums(columns: Array, z: Array) -> Array:
    """``[rows, regions, 2]``: what rows take from others ``[n, regions, 2]``, by columns ``[n, rows]``."""
    flat = z.reshape(len(z), z.shape[1] * z.shape[2])
    out: Array = (columns.T @ flat).reshape(columns.shape[1], *z.shape[1:])
    return out


def _patterns(
    systems: SliceSystems, found: Breakpoints, segment: int, begin: int, end: int
) -> Iterator[NDArray[np.int8]]:
    """``[n, regions]``: which rows of a segment's system are on, some regions after the other."""
    assert found.starts is not None
    lines = systems.line[begin:end].astype(np.int64)
    state = bits_at(found.starts[segment : segment + 1], lines)[0].astype(np.int8)
    low, high = found.offsets[segment : segment + 2].tolist()
    step = max(1, _NUMBERS_AT_ONCE // max(1, end - begin))
    for first in range(low, high + 1, step):  # the event in front of some regions; the first region has none
        events = np.arange(first, min(first + step, high + 1)) - 1
        flips = np.zeros((len(lines), len(events)), dtype=np.int8)
        inner = events[events >= low]
        if len(inner):
            changes = slice(found.change_offsets[inner[0]], found.change_offsets[inner[-1] + 1])
            at = np.repeat(inner - events[0], np.diff(found.change_offsets[inner[0] : inner[-1] + 2]))
            flips[np.searchsorted(lines, found.changes[changes]), at] = 1
        on = (np.cumsum(flips, axis=1, dtype=np.int64) + state[:, None] & 1).astype(np.int8)
        state = on[:, -1]
        yield on
