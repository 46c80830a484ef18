"""The few terms of a linear operator, found by asking it: where each of its numbers comes from, or goes to.

A vector of ones gives factors. Where a number comes from is asked bit by bit: for each bit of the places' numbers there
is a vector that is 0 at the places without it, and one that is 0 at those with it. If two places or more have a part in
a number, some bit tells one from another, and neither vector may give 0. So that these parts do not add up to 0, as
1, -1, -1, 1 do for every bit, each place has a random number from 1 to 2 in all vectors: of any operator they add up to
0 with a chance below 2^-50.
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
    random = 1 + torch.rand(width, dtype=torch.float64, device="cpu", generator=torch.Generator().manual_seed(0))
    found = images(
        torch.cat([torch.ones(1, width, dtype=torch.float64, device="cpu"), one * random, (1 - one) * random])
    )
    factor, is_one, is_zero = found[0], found[1 : 1 + bits] != 0, found[1 + bits :] != 0
    if (is_one & is_zero).any() or ((is_one | is_zero) != (factor != 0)).any():
        return None
    place = (is_one.astype(np.int64) << np.arange(bits)[:, None]).sum(axis=0)
    if (place >= width).any():
        return None
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
