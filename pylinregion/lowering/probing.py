"""The few terms of a linear operator, found by asking it: where each of its numbers comes from, or goes to.

A vector of ones gives factors, and vectors that have a bit of each place's number give places. Both the bits and their
complements are asked for, so that a number that two places have a part in is seen: some bit tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion.lowering.linear_maps import Terms

Images = Callable[[Tensor], Array]  # what a linear operator makes of some vectors [n, width]: [n, rows]


def sources(images: Images, width: int) -> Terms | None:
    """An operator of whose numbers each comes from one place, times a factor; None if it is no such operator.

    Args:
        images: The operator.
        width: Numbers that it takes.
    """
    bits = max(1, (width - 1).bit_length())
    numbers = torch.arange(width, device="cpu")
    one = torch.stack([(numbers >> k & 1).double() for k in range(bits)])
    found = images(torch.cat([torch.ones(1, width, dtype=torch.float64, device="cpu"), one, 1 - one]))
    factor, ones, zeros = found[0], found[1 : 1 + bits], found[1 + bits :]
    place = np.zeros(len(factor), np.int64)
    for k in range(bits):
        is_one, is_zero = ones[k] != 0, zeros[k] != 0
        fits = np.where(is_one, ones[k], zeros[k]) == factor
        if not (fits & (is_one ^ is_zero | (factor == 0))).all():
            return None
        place |= is_one.astype(np.int64) << k
    if (place >= width).any():
        return None
    place[factor == 0] = 0
    return Terms(place[:, None], np.ascontiguousarray(factor[:, None]), width)


def from_entries(row: Int64s, place: Int64s, factor: Array, shape: tuple[int, int]) -> Terms:
    """The operator with these entries, each at a place of its own."""
    order = np.lexsort((place, row))
    row, place, factor = row[order], place[order], factor[order]
    counts = np.bincount(row, minlength=shape[0])
    at = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.zeros((shape[0], max(1, int(counts.max(initial=0)))), np.int64)
    factors = np.zeros(places.shape)
    places[row, at], factors[row, at] = place, factor
    return Terms(places, factors, shape[1])


def joined(targets: Int64s, factor: Array, rows: int) -> Terms:
    """The operator that adds each number, times a factor, to one place.

    Args:
        targets: ``[width]``: the row of each.
        factor: ``[width]``.
        rows: How many there are.
    """
    some = np.flatnonzero(factor)
    return from_entries(targets[some], some, factor[some], (rows, len(targets)))


def terms_of(matrix: Array) -> Terms:
    """A matrix as terms."""
    row, place = np.nonzero(matrix)
    return from_entries(row, place, matrix[row, place], (matrix.shape[0], matrix.shape[1]))


def on_channels(one: Terms, channels: int) -> Terms:
    """The same terms for each of some channels, that come one behind the other."""
    number = np.arange(channels)[:, None, None]
    place = (one.place + number * one.width).reshape(channels * one.rows, -1)
    return Terms(place, np.tile(one.factor, (channels, 1)), channels * one.width)
