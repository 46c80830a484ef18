"""Which rows of a network are multiples of another, whatever the input: duplicated, negated and scaled neurons.

Rows of one stage are, and rows of several that take the same value, as where every layer of a DenseNet has a batch norm
of its own for the same features. The stored numbers alone tell it, exactly. What is not found costs time alone.
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
_BITS_OF_SHIFTS = 30  # of the numbers that are added
_NUMBERS_AT_ONCE = 1 << 20  # of rows that are looked at


@dataclass(frozen=True)
class Multiples:
    """Values as multiples of functions of the input, which have names.

    Attributes:
        name: ``[n]`` int64: of what each is a multiple; by no name goes more than one function.
        ratio: ``[n]``: by which of ``ratios``.
        ratios: None is 0.
    """

    name: Int64s
    ratio: Int64s
    ratios: Sequence[Fraction]

    @classmethod
    def own(cls, first: int, n: int) -> Multiples:
        """Values with names of their own, from one on."""
        return cls(np.arange(first, first + n), np.zeros(n, np.int64), [Fraction(1)])

    def named_from(self, first: int) -> Multiples:
        """The same functions by later names."""
        return Multiples(self.name + first, self.ratio, self.ratios)


class NamesOfRows:
    """Names of the rows of a network, stage by stage.

    Args:
        given: How many values there are before the first stage, by the number that stages have for these.
    """

    def __init__(self, given: Mapping[int, int]) -> None:
        self._names = 0
        self._begins: list[int] = []  # the first names of what has names of its own
        self._units = {source: self._own(n) for source, n in given.items()}
        self._shifts: dict[Fraction, int] = {}
        self._shifted: dict[int, tuple[Int64s, Int64s]] = {}  # what is ``f + shift``, by where f is from: keys, names

    def of_stage(self, number: int, blocks: Mapping[int, LinearMap], bias: Array, units_are_rows: bool) -> Int64s:
        """``[rows]``: the names of a stage's rows; those of rows that are multiples are equal."""
        rows = self._of_rows(blocks, bias)
        self._units[number] = rows if units_are_rows else self._own(len(bias))
        return rows.name

    def _own(self, n: int) -> Multiples:
        self._begins.append(self._names)
        self._names += n
        return Multiples.own(self._begins[-1], n)

    def _of_rows(self, blocks: Mapping[int, LinearMap], bias: Array) -> Multiples:
        own, maps = self._own(len(bias)), sorted(blocks.items())
        terms = [(source, block) for source, block in maps if isinstance(block, Terms)]
        if len(terms) == len(maps):
            return self._of_terms(terms, bias, own)
        if all(isinstance(block, Dense) and block.places == 1 for _, block in maps):
            return _of_rows([*(block.dense() for _, block in maps), bias[:, None]]).named_from(self._begins[-1])
        if len(maps) == 1:
            return _of_channels(maps[0][1], bias).named_from(self._begins[-1])
        return own

    def _of_terms(self, maps: Sequence[tuple[int, Terms]], bias: Array, own: Multiples) -> Multiples:
        """A row with one term, ``factor u + bias``, is a multiple of ``f + shift`` if u is one of f."""
        rows = len(bias)
        count, factor = np.zeros(rows, np.int64), np.zeros(rows)
        name, ratio, ratios = own.name.copy(), np.zeros(rows, np.int64), list(own.ratios)
        for source, block in maps:
            there = block.factor != 0
            some = np.flatnonzero(there.any(axis=1))
            at, given = there[some].argmax(axis=1), self._units[source]
            unit, factor[some] = block.place[some, at], block.factor[some, at]
            name[some], ratio[some] = given.name[unit], len(ratios) + given.ratio[unit]
            ratios += given.ratios
            count += there.sum(axis=1)
        alone = np.flatnonzero(count == 1)
        numbers, of_row = _unique_rows(np.stack([factor, bias, ratio], axis=1)[alone])
        if len(numbers) > _MOST_FRACTIONS:
            return own
        steep = [Fraction(f) * ratios[int(r)] for f, _, r in numbers.tolist()]
        shifts = [Fraction(b) / each for each, (_, b, _) in zip(steep, numbers.tolist(), strict=True)]
        shift = np.array([self._shifts.setdefault(x, len(self._shifts)) if x else -1 for x in shifts], np.int64)
        names, ratio = own.name.copy(), np.zeros(rows, np.int64)
        names[alone] = self._shifted_by(name[alone], shift[of_row] if len(alone) else alone, names[alone])
        ratio[alone] = 1 + of_row
        return Multiples(names, ratio, [Fraction(1), *steep])

    def _shifted_by(self, names: Int64s, shift: Int64s, new: Int64s) -> Int64s:
        """The names of functions plus numbers.

        Args:
            names: Of the functions.
            shift: Which number of those that have been added to any; -1: 0.
            new: Names for those that have none yet.
        """
        found = names.copy()
        shifted = np.flatnonzero(shift >= 0)
        origin = np.searchsorted(self._begins, names[shifted], side="right")
        for where in np.unique(origin).tolist():
            own = shifted[origin == where]
            keys, first, of_row = np.unique(
                names[own] << _BITS_OF_SHIFTS | shift[own], return_index=True, return_inverse=True
            )
            known, their = self._shifted.get(where, (keys[:0], keys[:0]))
            place = np.searchsorted(known, keys)
            is_known = np.append(known, -1)[place] == keys
            named = np.where(is_known, np.append(their, -1)[place], new[own][first])
            found[own] = named[of_row.reshape(-1)]
            keys, named = np.concatenate([known, keys[~is_known]]), np.concatenate([their, named[~is_known]])
            order = np.argsort(keys)
            self._shifted[where] = keys[order], named[order]
        return found


def _of_channels(block: LinearMap, bias: Array) -> Multiples:
    """Rows of the same place take the same numbers, and so are multiples if those of their channels are."""
    kernels = _kernels(block)
    channels = sum(len(group) for group in kernels)
    rows = np.arange(len(bias))
    by_channel = rows.reshape(-1, channels).T if isinstance(block, Dense) else rows.reshape(channels, -1)
    added = bias[by_channel]
    if (added != added[:, :1]).any():
        return Multiples.own(0, len(bias))
    first, ratio, ratios = np.zeros(channels, np.int64), np.zeros(channels, np.int64), [Fraction(1)]
    begin = 0
    for group in kernels:
        end = begin + len(group)
        found = _of_rows([group, added[begin:end, :1]])
        first[begin:end], ratio[begin:end] = begin + found.name, len(ratios) + found.ratio
        ratios += found.ratios
        begin = end
    result = Multiples.own(0, len(bias))
    result.name[by_channel], result.ratio[by_channel] = by_channel[first], ratio[:, None]
    return Multiples(result.name, result.ratio, ratios)


def _kernels(block: LinearMap) -> list[Array]:
    """For each group of channels ``[channels, n]``: the numbers that a row takes where nothing is left away."""
    if not isinstance(block, Convolution):
        return [block.numbers]
    outputs, inputs = block.weight.shape[:2]
    by_group = block.weight.reshape(block.groups, outputs // block.groups, inputs, -1)
    if block.transposed:
        by_group = by_group.swapaxes(1, 2)
    return [group.reshape(len(group), -1) for group in by_group]


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
    result = Multiples.own(0, count)
    if not len(alike):
        return result
    rows = np.concatenate([matrix[alike] for matrix in matrices], axis=1)
    found = _of_rows_alike(rows, pivots[alike], scales[alike])
    result.name[alike], result.ratio[alike] = alike[found.name], found.ratio
    return Multiples(result.name, result.ratio, found.ratios)


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
