"""Linear maps between values, by their numbers: as a matrix, or as a few terms for each row.

What lies between two kinks of a network is one of these, or a convolution
(:mod:`pylinregion.lowering.convolution_map`). They are data: they can be applied in float64, forwards and backwards, to
integers and to residues, be bounded, written to a file, and read by the core.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UP, frobenius_norm, norm_of_any
from pylinregion._util.tensors import CPU, Stored

_COLUMNS_AT_ONCE = 1 << 24  # numbers of a matrix that is formed
_ROWS_AT_ONCE = 1 << 20  # numbers of a matrix that are looked at
_NUMBERS_AT_ONCE = 1 << 20  # of vectors that a map takes or gives


class LinearMap(abc.ABC):
    """``y = W x`` with stored numbers, wherever x is."""

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """Numbers of y."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Numbers of x."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, width)``."""
        return self.rows, self.width

    @property
    @abc.abstractmethod
    def numbers(self) -> Array:
        """The numbers that W is made of, in an order of its own: W has each at one place, or at several."""

    @property
    @abc.abstractmethod
    def terms(self) -> int:
        """At least the products that a row, or a column, sums."""

    def roundings(self, device: torch.device = CPU) -> int:
        """At least how often a product is rounded, with the sums that it enters, in ``W x`` and ``g W``."""
        return self.terms

    @abc.abstractmethod
    def with_numbers(self, change: Callable[[Array], Array]) -> LinearMap:
        """The same map of other numbers; 0 must stay 0."""

    @abc.abstractmethod
    def times(self, x: Tensor) -> Tensor:
        """``W x`` for vectors ``[..., width]``: ``[..., rows]``; the same tensor if :attr:`is_identity`."""

    def add_times(self, out: Tensor, x: Tensor) -> None:
        """Add ``W x`` for vectors ``[n, width]`` to ``[n, rows]``, which lies in one piece of memory."""
        for some in vectors_at_once(len(x), max(self.shape), _NUMBERS_AT_ONCE):
            out[some] += self.times(x[some])

    @abc.abstractmethod
    def back(self, g: Tensor) -> Tensor:
        """``g W`` for vectors ``[..., rows]``: ``[..., width]``; the same tensor if :attr:`is_identity`."""

    def add_back(self, out: Tensor, g: Tensor) -> None:
        """Add ``g W`` for vectors ``[n, rows]``, each sum as a whole, to ``[n, width]`` in one piece of memory."""
        out += self.back(g)

    def images(self, units: Tensor) -> Tensor:
        """``W`` of some unit vectors: its columns, as rows ``[len(units), rows]`` that the caller may change."""
        vectors = torch.zeros(len(units), self.width, dtype=torch.float64, device=units.device)
        vectors[torch.arange(len(units), device=units.device), units] = 1
        return self.times(vectors)

    def add_images(self, out: Tensor, units: Tensor, factors: Tensor) -> None:
        """Add the same, each times a factor, to ``[len(units), rows]``."""
        images = self.images(units)
        images *= factors[:, None]
        out += images

    @cached_property
    @abc.abstractmethod
    def row_norms(self) -> Array:
        """``[rows]``: upper bounds of the 2-norms of rows."""

    @cached_property
    @abc.abstractmethod
    def norm(self) -> float:
        """An upper bound of the spectral norm."""

    @cached_property
    def frobenius(self) -> float:
        """An upper bound of the Frobenius norm."""
        return frobenius_norm(self.row_norms)

    @cached_property
    def absolute(self) -> LinearMap:
        """``|W|``."""
        return self.with_numbers(np.abs)

    def row_parts(self, numbers: int) -> Iterator[tuple[slice, LinearMap]]:
        """The map, or, of a matrix with more numbers, some of its rows after the other: which, and their map."""
        yield slice(0, self.rows), self

    def absolute_times(self, x: Tensor) -> Tensor:
        """``|W| x`` for vectors ``[..., width]`` that are not negative, rounded: ``[..., rows]``."""
        return self.absolute.times(x)

    @cached_property
    def row_sums(self) -> Array:
        """``[rows]``: the sums of absolute values, rounded; 0 where a row has no numbers but 0."""
        return np.asarray(self.absolute_times(torch.ones(self.width, dtype=torch.float64, device="cpu")).numpy())

    def sizes(self, x: Tensor) -> Tensor:
        """At least ``|W| x`` for vectors ``[..., width]`` that are not negative: ``[..., rows]``."""
        return self.absolute_times(x) * UP

    def on_columns(self, x: Tensor) -> Tensor:
        """``W x`` for ``[width, n]``: ``[rows, n]``, in memory of its own."""
        return x.clone() if self.is_identity else self.times(x.T.contiguous()).T

    def dense(self) -> Array:
        """``[rows, width]``; 0 for what it does not have."""
        out = np.zeros(self.shape)
        step = max(1, _COLUMNS_AT_ONCE // max(1, *self.shape))
        for begin in range(0, self.width, step):
            end = min(begin + step, self.width)
            out[:, begin:end] = self.images(torch.arange(begin, end, device="cpu")).T.numpy()
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The matrix, for NumPy."""
        return self.dense() if dtype is None else self.dense().astype(dtype)

    def entries(self) -> tuple[Int64s, Int64s, Array]:
        """The row, the column and the value of each number of W that is not 0."""
        matrix = self.dense()
        row, column = np.nonzero(matrix)
        return row, column, matrix[row, column]

    def plus(self, other: LinearMap) -> LinearMap:
        """The sum of two maps: their terms one behind the other, or as a matrix."""
        if isinstance(self, Terms) and isinstance(other, Terms):
            places = np.concatenate([self.place, other.place], axis=1)
            return Terms(places, np.concatenate([self.factor, other.factor], axis=1), self.width)
        return Dense(self.dense() + other.dense())

    @property
    def is_identity(self) -> bool:
        """Whether it is known to change nothing."""
        return False

    @property
    def in_place(self) -> bool:
        """Whether it is known that each row is its own number times one of ``factors``."""
        return False

    def factors(self, x: Tensor) -> Tensor:
        """``[rows]``: of a map that is in place; where ``x`` is."""
        raise TypeError("this map is not in place")

    @abc.abstractmethod
    def for_core(self) -> tuple[Any, ...]:
        """What ``csrc/partition/linear_map.h`` reads."""


def vectors_at_once(count: int, size: int, numbers: int) -> Iterator[slice]:
    """So many vectors of a size, some at a time, of so many numbers together."""
    step = max(1, numbers // max(1, size))
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


@dataclass(frozen=True, eq=False)
class Dense(LinearMap):
    """A matrix ``[rows, width]``, or the same one for each of some places: ``y[p] = W x[p]``.

    Attributes:
        weight: Of one place.
        places: How many there are.
    """

    weight: Array
    places: int = 1

    @property
    def rows(self) -> int:
        """Those of all places."""
        return self.places * int(self.weight.shape[0])

    @property
    def width(self) -> int:
        """That of all places."""
        return self.places * int(self.weight.shape[1])

    @property
    def numbers(self) -> Array:
        """The matrix of one place."""
        return self.weight

    @property
    def terms(self) -> int:
        """Those of a full matrix."""
        return int(max(self.weight.shape))

    def with_numbers(self, change: Callable[[Array], Array]) -> Dense:
        """The same places with another matrix."""
        return replace(self, weight=change(self.weight))

    @cached_property
    def _weight(self) -> Stored:
        return Stored(self.weight)

    @cached_property
    def _row_norms(self) -> Stored:
        return Stored(self.row_norms)

    def times(self, x: Tensor) -> Tensor:
        """A product of matrices."""
        return self._on_places(x, self._weight.beside(x).T)

    def add_times(self, out: Tensor, x: Tensor) -> None:
        """A product of matrices, added by it."""
        for some in vectors_at_once(len(x), max(self.shape), _NUMBERS_AT_ONCE):
            to, of = out[some].view(-1, self.weight.shape[0]), x[some].reshape(-1, self.weight.shape[1])
            to.addmm_(of, self._weight.beside(x).T)

    def back(self, g: Tensor) -> Tensor:
        """A product of matrices."""
        return self._on_places(g, self._weight.beside(g))

    def _on_places(self, x: Tensor, matrix: Tensor) -> Tensor:
        out: Tensor = x.reshape(math.prod(x.shape[:-1]) * self.places, matrix.shape[0]) @ matrix
        return out.reshape(*x.shape[:-1], self.places * matrix.shape[1])

    def images(self, units: Tensor) -> Tensor:
        """Columns of the matrix."""
        if self.places > 1:
            return super().images(units)
        columns: Tensor = self._weight.beside(units).T[units]
        return columns

    def sizes(self, x: Tensor) -> Tensor:
        """Of one place by norms: of normal weights that is 1.3 times as much, and takes no product of matrices."""
        if self.places > 1:
            return super().sizes(x)
        norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self._row_norms.beside(x) * NORM_UP
        return norms

    def row_parts(self, numbers: int) -> Iterator[tuple[slice, LinearMap]]:
        """Of one place, some rows after the other: the matrix may be as large as all the rest of a network."""
        if self.places > 1 or self.weight.size <= numbers:
            yield from super().row_parts(numbers)
            return
        step = max(1, numbers // self.weight.shape[1])
        for begin in range(0, len(self.weight), step):
            some = slice(begin, min(begin + step, len(self.weight)))
            yield some, Dense(self.weight[some])

    def absolute_times(self, x: Tensor) -> Tensor:
        """Some rows at a time."""
        if self.places > 1:
            return super().absolute_times(x)
        parts = (part.absolute.times(x) for _, part in self.row_parts(_ROWS_AT_ONCE))
        return torch.cat([x[..., :0], *parts], dim=-1)

    def on_columns(self, x: Tensor) -> Tensor:
        """A product of matrices."""
        return self._weight.beside(x) @ x if self.places == 1 else super().on_columns(x)

    def dense(self) -> Array:
        """The matrix itself, of one place."""
        return self.weight if self.places == 1 else np.asarray(np.kron(np.eye(self.places), self.weight))

    @cached_property
    def is_identity(self) -> bool:
        """Whether it is the unit matrix."""
        rows, width = self.weight.shape
        return rows == width and np.count_nonzero(self.weight) == rows and bool((self.weight.diagonal() == 1).all())

    @cached_property
    def row_norms(self) -> Array:
        """Those of one place, for each."""
        norms = np.sqrt(np.einsum("rk,rk->r", self.weight, self.weight)) * NORM_UP + NORM_UNDERFLOW
        return np.tile(norms, self.places)

    @cached_property
    def norm(self) -> float:
        """That of one place."""
        return norm_of_any(self.weight)

    def for_core(self) -> tuple[Any, ...]:
        """The matrix and the places."""
        return "dense", np.ascontiguousarray(self.weight), self.places


@dataclass(frozen=True, eq=False)
class Terms(LinearMap):
    """A few terms for each row: ``y_r = sum over k of factor[r, k] x[place[r, k]]``.

    Attributes:
        place: ``[rows, k]`` int64.
        factor: ``[rows, k]``; 0 where a row has fewer.
        inputs: Numbers of x.
    """

    place: Int64s
    factor: Array
    inputs: int

    @property
    def rows(self) -> int:
        """Those of the arrays."""
        return len(self.place)

    @property
    def width(self) -> int:
        """``inputs``."""
        return self.inputs

    @property
    def numbers(self) -> Array:
        """The factors."""
        return self.factor

    @cached_property
    def terms(self) -> int:
        """The most of a row, or that one number of x has a part in."""
        users = np.bincount(self.place[self.factor != 0], minlength=1)
        return max(1, int(self.place.shape[1]), int(users.max()))

    def with_numbers(self, change: Callable[[Array], Array]) -> Terms:
        """The same places with other factors."""
        return replace(self, factor=change(self.factor))

    def entries(self) -> tuple[Int64s, Int64s, Array]:
        """Those that are stored; several may have one place, and add up."""
        row, k = np.nonzero(self.factor)
        return row, self.place[row, k], self.factor[row, k]

    @cached_property
    def in_place(self) -> bool:
        """Whether row r takes x[r] alone."""
        return self.place.shape == (self.inputs, 1) and bool((self.place[:, 0] == np.arange(self.inputs)).all())

    @cached_property
    def is_identity(self) -> bool:
        """Whether it is in place, with factors of 1."""
        return self.in_place and bool((self.factor == 1).all())

    def factors(self, x: Tensor) -> Tensor:
        """Those of the first term."""
        return self._stored[1].beside(x)[:, 0]

    @cached_property
    def _stored(self) -> tuple[Stored, Stored]:
        return Stored(self.place), Stored(self.factor)

    def _beside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        place, factor = self._stored
        return place.beside(x), factor.beside(x)

    def times(self, x: Tensor) -> Tensor:
        """Term by term, gathered."""
        if self.is_identity:
            return x
        place, factor = self._beside(x)
        if self.in_place:
            return x * factor[:, 0]
        out = x[..., place[:, 0]] * factor[:, 0]
        for k in range(1, place.shape[1]):
            out += x[..., place[:, k]] * factor[:, k]
        return out

    def back(self, g: Tensor) -> Tensor:
        """Term by term, scattered."""
        if self.is_identity:
            return g
        place, factor = self._beside(g)
        if self.in_place:
            return g * factor[:, 0]
        out = g.new_zeros(*g.shape[:-1], self.inputs)
        for k in range(place.shape[1]):
            out.index_add_(-1, place[:, k], g * factor[:, k])
        return out

    @cached_property
    def row_norms(self) -> Array:
        """Those of the factors; of a row that takes one number several times the sum of sizes."""
        norms = np.sqrt((self.factor * self.factor).sum(axis=1))
        empty = -1 - np.arange(self.place.shape[1])  # no places, each another
        places = np.sort(np.where(self.factor != 0, self.place, empty), axis=1)
        several = (places[:, 1:] == places[:, :-1]).any(axis=1)
        norms[several] = np.abs(self.factor[several]).sum(axis=1)
        return np.asarray(norms * NORM_UP + NORM_UNDERFLOW)

    @cached_property
    def norm(self) -> float:
        """The root of the largest sum of a row times that of a column."""
        sizes = np.abs(self.factor)
        columns = np.bincount(self.place.reshape(-1), sizes.reshape(-1), self.inputs)
        most = float(sizes.sum(axis=1).max(initial=0.0)) * float(columns.max(initial=0.0))
        return math.sqrt(most) * NORM_UP + NORM_UNDERFLOW

    def for_core(self) -> tuple[Any, ...]:
        """The factors and their places."""
        return "terms", np.ascontiguousarray(self.factor), np.ascontiguousarray(self.place), self.inputs, self.terms


def identity_map(size: int) -> Terms:
    """The map that changes nothing."""
    return Terms(np.arange(size)[:, None], np.ones((size, 1)), size)
