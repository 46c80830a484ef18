"""Which rows of a stage are multiples of another, whatever the input: duplicated, negated and scaled neurons.

The stored numbers alone tell it, exactly. What is not found costs time alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, LinearMap, Terms

_MOST_FRACTIONS = 1 << 20  # numbers that are compared as such
_LOOKED_AT = 8  # numbers of a row, at first
_NUMBERS_AT_ONCE = 1 << 20  # of rows that are looked at


@dataclass(frozen=True)
class Multiples:
    """Rows as multiples of others.

    Attributes:
        first: ``[rows]``: the first row that each is a multiple of.
        ratio: ``[rows]``: by which of ``ratios``.
        ratios: None is 0.
    """

    first: Int64s
    ratio: Int64s
    ratios: Sequence[Fraction]


def no_multiples(rows: int) -> Multiples:
    """Rows of which each is taken for one of its own."""
    return Multiples(np.arange(rows), np.zeros(rows, np.int64), [Fraction(1)])


def multiples(blocks: Mapping[int, LinearMap], bias: Array, before: Sequence[Multiples]) -> Multiples:
    """The multiples among the rows of a stage.

    Args:
        blocks, bias: The stage's.
        before: The multiples among the units of each stage before it.
    """
    maps = sorted(blocks.items())
    if all(isinstance(block, Dense) and block.places == 1 for _, block in maps):
        return _of_rows([*(block.dense() for _, block in maps), bias[:, None]])
    if len(maps) != 1:
        return no_multiples(len(bias))
    ((source, block),) = maps
    if not isinstance(block, Terms):
        return _of_channels(block, bias)
    if block.place.shape[1] > 1:
        return no_multiples(len(bias))
    return _of_terms(block, bias, no_multiples(block.width) if source < 0 else before[source])


def _of_channels(block: LinearMap, bias: Array) -> Multiples:
    """Rows of the same place take the same numbers, and so are multiples if those of their channels are."""
    kernels = _kernels(block)
    channels = sum(len(group) for group in kernels)
    rows = np.arange(len(bias))
    by_channel = rows.reshape(-1, channels).T if isinstance(block, Dense) else rows.reshape(channels, -1)
    added = bias[by_channel]
    if (added != added[:, :1]).any():
        return no_multiples(len(bias))
    first, ratio, ratios = np.zeros(channels, np.int64), np.zeros(channels, np.int64), [Fraction(1)]
    begin = 0
    for group in kernels:
        end = begin + len(group)
        found = _of_rows([group, added[begin:end, :1]])
        first[begin:end], ratio[begin:end] = begin + found.first, len(ratios) + found.ratio
        ratios += found.ratios
        begin = end
    result = no_multiples(len(bias))
    result.first[by_channel], result.ratio[by_channel] = by_channel[first], ratio[:, None]
    return Multiples(result.first, result.ratio, ratios)


def _kernels(block: LinearMap) -> list[Array]:
    """For each group of channels ``[channels, n]``: the numbers that a row takes where nothing is left away."""
    if not isinstance(block, Convolution):
        return [block.numbers]
    outputs, inputs = block.weight.shape[:2]
    by_group = block.weight.reshape(block.groups, outputs // block.groups, inputs, -1)
    if block.transposed:
        by_group = by_group.swapaxes(1, 2)
    return [group.reshape(len(group), -1) for group in by_group]


def _of_terms(block: Terms, bias: Array, given: Multiples) -> Multiples:
    """``factor u + bias`` and another are multiples if their units are, and ``bias / factor`` by the same number."""
    place, factor = block.place[:, 0], block.factor[:, 0]
    numbers, ratio = _unique_rows(np.stack([factor, bias, given.ratio[place]], axis=1))
    if len(numbers) > _MOST_FRACTIONS:
        return no_multiples(block.rows)
    steep = [Fraction(f) * given.ratios[int(r)] for f, _, r in numbers.tolist()]  # of the first multiple of its unit
    shift = [Fraction(b) / s if s else Fraction(0) for s, (_, b, _) in zip(steep, numbers.tolist(), strict=True)]
    names: dict[Fraction, int] = {}
    name = np.array([names.setdefault(each, len(names)) for each in shift])
    key = np.where(factor != 0, given.first[place] * len(names) + name[ratio], -1 - np.arange(block.rows))
    _, lead, same = np.unique(key, return_index=True, return_inverse=True)
    first = lead[same.reshape(-1)]
    pairs, own = _unique_rows(np.stack([ratio, ratio[first]], axis=1))
    return Multiples(first, own, [steep[a] / steep[b] if a != b else Fraction(1) for a, b in pairs.tolist()])


def _unique_rows(rows: NDArray[Any]) -> tuple[NDArray[Any], Int64s]:
    """The different rows, and which each is: equal ones come in runs, those of a channel."""
    starts = np.ones(len(rows), dtype=bool)
    starts[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    unique, of_run = np.unique(rows[starts], axis=0, return_inverse=True)
    return unique, of_run.reshape(-1)[np.cumsum(starts) - 1]


def _of_rows(matrices: Sequence[Array]) -> Multiples:
    """The multiples among the rows of matrices side by side, which may be as large as all the rest of a network."""
    count, width = len(matrices[0]), sum(matrix.shape[1] for matrix in matrices)
    pivots, scales = np.zeros(count, np.int64), np.zeros(count)
    looks = np.zeros((count, len(range(0, width, _apart(width)))), np.float32)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, width))
    for begin in range(0, count, at_once):
        some = slice(begin, begin + at_once)
        rows = np.concatenate([matrix[some] for matrix in matrices], axis=1)
        pivots[some] = np.abs(rows).argmax(axis=1)
        scales[some] = rows[np.arange(len(rows)), pivots[some]]
        looks[some] = _directions(rows[:, :: _apart(width)], scales[some])
    _, group, sizes = np.unique(looks, axis=0, return_inverse=True, return_counts=True)
    alike = np.flatnonzero((sizes[group.reshape(-1)] > 1) & (scales != 0))  # in what was looked at
    result = no_multiples(count)
    if not len(alike):
        return result
    rows = np.concatenate([matrix[alike] for matrix in matrices], axis=1)
    found = _of_rows_alike(rows, pivots[alike], scales[alike])
    result.first[alike], result.ratio[alike] = alike[found.first], found.ratio
    return Multiples(result.first, result.ratio, found.ratios)


def _apart(width: int) -> int:
    """How far apart the numbers are that are looked at first."""
    return max(1, width // _LOOKED_AT)


def _directions(rows: Array, scales: Array) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return (rows / np.where(scales != 0, scales, 1)[:, None]).astype(np.float32) + np.float32(0)  # no -0


def _of_rows_alike(rows: Array, pivots: Int64s, scales: Array) -> Multiples:
    first = np.arange(len(rows))
    directions = _directions(rows, scales)
    with np.errstate(all="ignore"):
        # Products of two numbers of 24 bits, with exponents of float32, are exact in float64.
        exact_products = bool((rows == rows.astype(np.float32)).all())
    names = [row.tobytes() for row in directions]
    alike: dict[bytes, list[int]] = {}  # the first rows of each direction, as far as float32 can tell directions apart
    budget = _MOST_FRACTIONS
    ratios, ratio = [Fraction(1)], np.zeros(len(rows), np.int64)
    for number, name in enumerate(names):
        earlier = alike.setdefault(name, [])
        for other in earlier:
            budget -= 0 if exact_products else rows.shape[1]
            pivot = int(pivots[other])
            if budget > 0 and _is_multiple(rows[other], rows[number], pivot, exact_products):
                first[number], ratio[number] = other, len(ratios)
                ratios.append(Fraction(float(rows[number, pivot])) / Fraction(float(rows[other, pivot])))
                break
        else:
            earlier.append(number)
    return Multiples(first, ratio, ratios)


def _is_multiple(row: Array, other: Array, pivot: int, exact_products: bool) -> bool:
    if exact_products:
        return bool((row * other[pivot] == other * row[pivot]).all())
    own, its = Fraction(float(row[pivot])), Fraction(float(other[pivot]))
    return all(Fraction(p) * its == Fraction(q) * own for p, q in zip(row.tolist(), other.tolist(), strict=True))
