"""Names of values in the course of a fold: those with one name are the same function all over a slice.

Pools that overlap pick the same number more than once, and on the blank border of an image a convolution gives the same
number everywhere, so that the candidates of the next pool are equal: no bound settles them, and no arithmetic need be
done (docs/exactness.md, 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, LinearMap, Terms
from pylinregion.lowering.units import Units

ZERO = 0  # the name of what is 0 all over the slice
_MOST_NUMBERS = 1 << 24  # of a map, or of windows, that are looked at: of more, each row gets a name of its own


@dataclass(frozen=True, eq=False)
class Named:
    """Names of values.

    Attributes:
        of: ``[B, n]`` int64.
    """

    of: Tensor

    @cached_property
    def repeated(self) -> bool:
        """Whether two values of a slice have the same."""
        ordered = self.of.sort(dim=1).values
        return bool((ordered[:, 1:] == ordered[:, :-1]).any())


class Names:
    """Gives names.

    Args:
        count: Slices; what is on different ones is not compared.
    """

    def __init__(self, count: int) -> None:
        self._count, self._next = count, ZERO + 1

    def new(self, n: int) -> Named:
        """``[count, n]``: names that nothing has."""
        first = self._next
        self._next += n
        return Named(torch.arange(first, self._next).expand(self._count, n))

    def of_inputs(self, numbers: Array) -> Named:
        """``[count, n]``: those of functions by numbers ``[count, k, n]``: one for the same; of zeros alone 0."""
        found = self.new(numbers.shape[2]).of.numpy().copy()
        keys = np.ascontiguousarray((numbers + 0.0).swapaxes(1, 2)).view(np.int64)
        found.reshape(-1)[:] = found.reshape(-1)[_firsts_of_slices(keys).reshape(-1)]
        found[(numbers == 0).all(axis=1)] = ZERO
        return Named(torch.from_numpy(found))

    def of_rows(self, blocks: Mapping[int, LinearMap], bias: Array, some: Tensor, given: Mapping[int, Named]) -> Named:
        """Those of rows.

        One without bias, all of whose terms but one are 0, is that one's unit if the factor is 1; others are equal if
        they are made of equal values in the same way.

        Args:
            blocks, bias: What makes them of units.
            some: ``[count, rows]``: 0 where rows are 0 all over the slice.
            given: ``[count, units]`` of each source.
        """
        found = self.new(len(bias)).of.clone()
        left = np.ones((self._count, len(bias)), dtype=bool)
        terms = {source: block for source, block in blocks.items() if isinstance(block, Terms)}
        numbers = sum(block.numbers.size for block in terms.values())
        if len(terms) == len(blocks) and numbers * self._count <= _MOST_NUMBERS:
            alone, name = _units_alone(terms, bias, {source: given[source].of for source in terms})
            found[alone] = name[alone]
            left = ~alone.numpy()
        sizes = [_looked_at(block) for block in blocks.values()]
        if left.any() and all(sizes) and any(given[source].repeated for source in blocks):
            step = max(1, _MOST_NUMBERS // max(sizes))
            for begin in range(0, self._count, step):
                part = slice(begin, begin + step)
                names = {source: given[source].of[part].numpy() for source in blocks}
                number, row = np.nonzero(left[part])
                if (firsts := _equal_rows(blocks, bias, names, number, row)) is not None:
                    own = found[part]
                    own[number, row] = own[number[firsts], row[firsts]]
        found[some == 0] = ZERO
        return Named(found)

    def of_units(
        self, rows: Named, slope: Tensor, constant: Tensor, some: Tensor, born: tuple[Tensor, Tensor]
    ) -> Named:
        """Those of units, of which some are not settled.

        Args:
            rows: ``[count, n]``: names of their rows.
            slope, constant: ``[count or 1, n]``: of the pieces that they are settled on.
            some: ``[count, n]``: 0 where they are 0 all over the slice.
            born: The slices and the numbers of those that are not settled.
        """
        own = self.new(rows.of.shape[1]).of
        as_they_are = ((slope == 1) & (constant == 0)).expand_as(own)
        found = torch.where(as_they_are, rows.of, own)
        changed = ~as_they_are & (some != 0)
        changed[born] = False
        if bool(changed.any()) and rows.repeated:
            pieces = (each.expand_as(own)[changed].numpy() + 0.0 for each in (slope, constant))
            at = changed.nonzero(as_tuple=True)
            keys = [at[0].numpy(), rows.of[changed].numpy(), *(each.view(np.int64) for each in pieces)]
            found[changed] = found[changed][torch.from_numpy(_firsts(np.stack(keys, axis=1)))]
        found[born] = own[born]
        found[some == 0] = ZERO
        return Named(found)


def _firsts(keys: NDArray[np.int64]) -> Int64s:
    """``[n]``: for each row of ``[n, k]`` the first that is equal."""
    factors = np.random.default_rng(0).integers(1, 2**62, keys.shape[1]) * 2 + 1
    _, first, which = np.unique((keys * factors).sum(axis=1), return_index=True, return_inverse=True)
    found: Int64s = first[which.reshape(-1)].astype(np.int64)
    if (keys[found] != keys).any():  # rows of the same sum
        _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        found = first[which.reshape(-1)].astype(np.int64)
    return found


def _firsts_of_slices(keys: NDArray[np.int64]) -> Int64s:
    """``[B, n]``: for each row of ``[B, n, k]`` the first of its slice that is equal, by its place among all."""
    count, n, k = keys.shape
    with_slice = np.empty((count, n, k + 1), np.int64)
    with_slice[:, :, :k], with_slice[:, :, k] = keys, np.arange(count)[:, None]
    return _firsts(with_slice.reshape(-1, k + 1)).reshape(count, n)


def _units_alone(blocks: Mapping[int, Terms], bias: Array, given: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """``[B, rows]``: whether a row is one unit, times 1, and the name of that."""
    terms = torch.zeros(len(next(iter(given.values()))), len(bias), dtype=torch.int64, device="cpu")
    name = torch.zeros_like(terms)
    for source, block in blocks.items():
        of_terms, factor = given[source][:, torch.from_numpy(block.place)], torch.from_numpy(block.factor)
        taken = (factor != 0) & (of_terms != ZERO)
        terms += (taken & (factor == 1)).sum(dim=2) + 2 * (taken & (factor != 1)).sum(dim=2)
        name += (of_terms * taken).sum(dim=2)
    return (terms == 1) & torch.from_numpy(bias == 0), name


def _looked_at(block: LinearMap) -> int:
    """How many numbers of a slice are looked at to find rows that a map makes in the same way; 0: they are not."""
    found = block.numbers.size
    if isinstance(block, Convolution):
        found = 0 if block.transposed else block.groups * block.windows.size
    elif not isinstance(block, Terms) and not (isinstance(block, Dense) and block.places > 1):
        return 0
    return found if found <= _MOST_NUMBERS else 0


def _equal_rows(
    blocks: Mapping[int, LinearMap], bias: Array, names: Mapping[int, Int64s], number: Int64s, row: Int64s
) -> Int64s | None:
    """Of some rows of slices, for each the first of its slice that is made of equal values in the same way.

    Args:
        blocks, bias: What makes them of units.
        names: ``[B, units]`` of each source.
        number, row: ``[n]``: the slices and the rows.

    Returns:
        ``[n]``: places among these; None: they all differ.
    """
    keys = [number, np.ascontiguousarray(bias[row] + 0.0).view(np.int64)]
    for source, block in blocks.items():
        made = _made_alike(block, names[source], number, row)
        if made is None:
            return None
        keys.append(made)
    return _firsts(np.stack(keys, axis=1))


def _made_alike(block: LinearMap, names: Int64s, number: Int64s, row: Int64s) -> Int64s | None:
    """Equal numbers for rows that a map makes of equal values in the same way; None: they all differ."""
    if isinstance(block, Terms):
        taken = np.where(block.factor[row] != 0, names[number[:, None], block.place[row]], ZERO)
        factor = np.where(taken != ZERO, block.factor[row], 0.0)
        return _firsts(np.concatenate([taken, factor.view(np.int64)], axis=1))
    if isinstance(block, Convolution):
        alike = _of_windows(block, names)
        of_row: tuple[slice | None, ...] = (slice(None), slice(None), None)
        kernel = np.arange(block.target[0]).reshape(block.groups, -1, 1)
    else:
        assert isinstance(block, Dense)
        alike = _firsts_of_slices(names.reshape(len(names), block.places, -1))
        of_row, kernel = (slice(None), slice(None), None), np.arange(len(block.weight)).reshape(1, 1, -1)
    if (alike.reshape(-1) == np.arange(alike.size)).all():
        return None
    return np.asarray((alike[of_row] + kernel * alike.size).reshape(len(names), -1)[number, row])


def _of_windows(block: Convolution, names: Int64s) -> Int64s:
    """``[B, groups, windows]``: equal numbers for windows that hold equal values; beside the source these are 0."""
    count = len(names)
    channels = names.reshape(count * block.groups, -1, math.prod(block.source[1:]))
    vectors = np.full((len(channels), channels.shape[2] + 1, channels.shape[1]), ZERO)
    vectors[:, :-1] = channels.swapaxes(1, 2)
    found = _firsts_of_slices(_firsts_of_slices(vectors)[:, block.windows])
    return found.reshape(count, block.groups, -1)


def later_equals(units: Units, names: Tensor, off: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which candidates that are left are equal to one before them that is left in the same maximum.

    Args:
        units: Of the candidates.
        names: ``[B, candidates]``.
        off: ``[B, candidates]``: those that are not left.
    """
    owner, line = np.nonzero(~off)
    group, name = units.neuron_of_line[line], names.numpy()[owner, line]
    order = np.lexsort((name, group, owner))  # which leaves equal ones in their order
    keys: list[Int64s] = [each[order] for each in (owner, group, name)]
    again = np.zeros(len(order), dtype=bool)
    again[1:] = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    found = np.zeros_like(off)
    found[owner[order[again]], line[order[again]]] = True
    return found
