"""Linear maps between values, by their numbers: as a matrix, as a convolution, or as a few terms for each row.

What lies between two kinks of a network is one of these. They are data: they can be applied in float64, forwards and
backwards, to integers and to residues, be bounded, written to a file, and read by the core. Of a convolution no matrix
is formed.
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
from pylinregion.lowering.convolution_norms import norm_of_convolution
from pylinregion.native.convolutions import convolved

_COLUMNS_AT_ONCE = 1 << 24  # numbers of a matrix that is formed


class LinearMap(abc.ABC):
    """``y = W x`` with stored numbers.

    Attributes:
        rows, width: The shape of ``W``.
        numbers: Those that it is made of, in an order of its own: W has each at one place, or at several.
        terms: More than the products that a row, or a column, sums.
    """

    rows: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, width)``."""
        return self.rows, self.width

    @property
    @abc.abstractmethod
    def numbers(self) -> Array:
        """The numbers of W."""

    @property
    @abc.abstractmethod
    def terms(self) -> int:
        """The most products that a row or a column sums."""

    @abc.abstractmethod
    def with_numbers(self, change: Callable[[Array], Array]) -> LinearMap:
        """The same map of other numbers; 0 must stay 0."""

    @abc.abstractmethod
    def times(self, x: Tensor) -> Tensor:
        """``W x`` for vectors ``[..., width]``: ``[..., rows]``."""

    @abc.abstractmethod
    def back(self, g: Tensor) -> Tensor:
        """``g W`` for vectors ``[..., rows]``: ``[..., width]``."""

    def images(self, units: Int64s) -> Tensor:
        """``W`` of some unit vectors: its columns, as rows ``[len(units), rows]`` that the caller may change."""
        out = torch.zeros(len(units), self.width, dtype=torch.float64, device="cpu")
        out[torch.arange(len(units)), torch.from_numpy(units)] = 1
        return self.times(out)

    @cached_property
    @abc.abstractmethod
    def row_norms(self) -> Array:
        """``[rows]``: upper bounds of the 2-norms of rows."""

    @cached_property
    @abc.abstractmethod
    def norm(self) -> float:
        """An upper bound of the spectral norm."""

    def sizes(self, x: Tensor) -> Tensor:
        """At least ``|W| x`` for vectors ``[..., width]`` that are not negative: ``[..., rows]``."""
        return self._absolute.times(x) * UP

    @cached_property
    def _absolute(self) -> LinearMap:
        return self.with_numbers(np.abs)

    @abc.abstractmethod
    def for_core(self) -> Any:
        """What ``csrc/partition/linear_map.h`` reads."""

    @cached_property
    def frobenius(self) -> float:
        """An upper bound of the Frobenius norm."""
        return frobenius_norm(self.row_norms)

    def on_columns(self, x: Tensor) -> Tensor:
        """``W x`` for ``[width, n]``: ``[rows, n]``, in memory of its own."""
        return x.clone() if self.is_identity else self.times(x.T.contiguous()).T

    def dense(self) -> Array:
        """``[rows, width]``; 0 for what it does not have."""
        out = np.zeros(self.shape)
        step = max(1, _COLUMNS_AT_ONCE // max(self.shape))
        unit = torch.eye(self.width, dtype=torch.float64, device="cpu") if self.width <= step else None
        for begin in range(0, self.width, step):
            end = min(begin + step, self.width)
            if unit is not None:
                images = unit
            else:
                images = torch.zeros(end - begin, self.width, dtype=torch.float64, device="cpu")
                images[torch.arange(end - begin), torch.arange(begin, end)] = 1
            out[:, begin:end] = self.times(images).T.numpy()
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The matrix, for NumPy."""
        return self.dense() if dtype is None else self.dense().astype(dtype)

    def __iter__(self) -> Iterator[Array]:
        """Its rows."""
        return iter(self.dense())

    def absolute(self) -> LinearMap:
        """``|W|``."""
        return self._absolute

    @cached_property
    def row_sums(self) -> Array:
        """``[rows]``: the sums of absolute values, rounded."""
        ones = torch.ones(1, self.width, dtype=torch.float64, device="cpu")
        with np.errstate(over="ignore"):
            return self.absolute().times(ones)[0].numpy()

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

    @property
    def factors(self) -> Tensor:
        """``[rows]``: of a map that is in place."""
        raise AttributeError("this map is not in place")


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
    def rows(self) -> int:  # type: ignore[override]
        return self.places * self.weight.shape[0]

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.places * self.weight.shape[1]

    @property
    def numbers(self) -> Array:
        return self.weight

    @property
    def terms(self) -> int:
        return max(self.weight.shape)

    def with_numbers(self, change: Callable[[Array], Array]) -> Dense:
        return replace(self, weight=change(self.weight))

    @cached_property
    def _weight(self) -> Tensor:
        return torch.from_numpy(self.weight)

    def times(self, x: Tensor) -> Tensor:
        return self._on_places(x, self._weight.T)

    def back(self, g: Tensor) -> Tensor:
        return self._on_places(g, self._weight)

    def images(self, units: Int64s) -> Tensor:
        if self.places > 1:
            return super().images(units)
        return self._weight.T[torch.from_numpy(units)]

    def sizes(self, x: Tensor) -> Tensor:
        if self.places > 1:
            return super().sizes(x)
        # No product with absolute weights: of normal ones this is 1.3 times as much.
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True) * torch.from_numpy(self.row_norms) * NORM_UP

    def _on_places(self, x: Tensor, matrix: Tensor) -> Tensor:
        if self.places == 1:
            return x @ matrix
        out: Tensor = x.reshape(-1, matrix.shape[0]) @ matrix
        return out.reshape(*x.shape[:-1], self.places * matrix.shape[1])

    def on_columns(self, x: Tensor) -> Tensor:
        return self._weight @ x if self.places == 1 else super().on_columns(x)

    def dense(self) -> Array:
        return self.weight if self.places == 1 else np.kron(np.eye(self.places), self.weight)

    @cached_property
    def is_identity(self) -> bool:  # type: ignore[override]
        rows, width = self.weight.shape
        return rows == width and np.count_nonzero(self.weight) == rows and bool((self.weight.diagonal() == 1).all())

    @cached_property
    def row_norms(self) -> Array:
        norms = np.sqrt((self.weight * self.weight).sum(axis=1)) * NORM_UP + NORM_UNDERFLOW
        return np.tile(norms, self.places)

    @cached_property
    def norm(self) -> float:
        return norm_of_any(self.weight)

    def for_core(self) -> Any:
        return ("dense", np.ascontiguousarray(self.weight), self.places)


@dataclass(frozen=True, eq=False)
class Terms(LinearMap):
    """A few terms for each row: ``y_r = sum over k of factor[r, k] x[place[r, k]]``.

    Attributes:
        place: ``[rows, k]`` int64.
        factor: ``[rows, k]``; 0 where a row has fewer.
        width: Numbers of x.
    """

    place: Int64s
    factor: Array
    width: int  # type: ignore[misc]

    @property
    def rows(self) -> int:  # type: ignore[override]
        return len(self.place)

    @property
    def numbers(self) -> Array:
        return self.factor

    @cached_property
    def terms(self) -> int:  # type: ignore[override]
        users = np.bincount(self.place[self.factor != 0], minlength=1)
        return max(1, self.place.shape[1], int(users.max()))

    def with_numbers(self, change: Callable[[Array], Array]) -> Terms:
        return replace(self, factor=change(self.factor))

    def at_rows(self, rows: Int64s, sign: float = 1.0) -> Terms:
        """Some of its rows, times a sign."""
        return Terms(self.place[rows], sign * self.factor[rows], self.width)

    def entries(self) -> tuple[Int64s, Int64s, Array]:
        row, k = np.nonzero(self.factor)
        return row, self.place[row, k], self.factor[row, k]

    @cached_property
    def in_place(self) -> bool:  # type: ignore[override]
        return self.place.shape == (self.width, 1) and bool((self.place[:, 0] == np.arange(self.width)).all())

    @cached_property
    def is_identity(self) -> bool:  # type: ignore[override]
        return self.in_place and bool((self.factor == 1).all())

    @property
    def factors(self) -> Tensor:
        return self._tensors[1][:, 0]

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.place), torch.from_numpy(self.factor)

    def times(self, x: Tensor) -> Tensor:
        if self.is_identity:
            return x
        place, factor = self._tensors
        if self.in_place:
            return x * factor[:, 0]
        out = x[..., place[:, 0]] * factor[:, 0]
        for k in range(1, place.shape[1]):
            out += x[..., place[:, k]] * factor[:, k]
        return out

    def back(self, g: Tensor) -> Tensor:
        if self.is_identity:
            return g
        place, factor = self._tensors
        if self.in_place:
            return g * factor[:, 0]
        out = torch.zeros(*g.shape[:-1], self.width, dtype=g.dtype, device="cpu")
        for k in range(place.shape[1]):
            out.index_add_(-1, place[:, k], g * factor[:, k])
        return out

    @cached_property
    def row_norms(self) -> Array:
        return np.sqrt((self.factor * self.factor).sum(axis=1)) * NORM_UP + NORM_UNDERFLOW

    @cached_property
    def norm(self) -> float:
        sizes = np.abs(self.factor)
        columns = np.bincount(self.place.reshape(-1), sizes.reshape(-1), self.width)
        most = float(sizes.sum(axis=1).max(initial=0.0)) * float(columns.max(initial=0.0))
        return math.sqrt(most) * NORM_UP + NORM_UNDERFLOW

    def for_core(self) -> Any:
        return ("terms", np.ascontiguousarray(self.factor), np.ascontiguousarray(self.place), self.width, self.terms)


def identity_map(size: int) -> Terms:
    """The map that changes nothing."""
    return Terms(np.arange(size)[:, None], np.ones((size, 1)), size)


@dataclass(frozen=True, eq=False)
class Convolution(LinearMap):
    """A convolution of 1 to 3 dimensions with padding by zeros, or the transpose of one.

    Attributes:
        weight: ``[out channels, in channels / groups, *kernel]``, of the convolution that is transposed, if it is.
        source, target: ``(channels, *space)`` of what the convolution takes and gives.
        stride, padding, dilation: By dimension; the padding in front.
        groups: Of channels.
        transposed: Whether this is the transposed map, from ``target`` to ``source``.
    """

    weight: Array
    source: tuple[int, ...]
    target: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def rows(self) -> int:  # type: ignore[override]
        return math.prod(self.source if self.transposed else self.target)

    @property
    def width(self) -> int:  # type: ignore[override]
        return math.prod(self.target if self.transposed else self.source)

    @property
    def numbers(self) -> Array:
        return self.weight

    @property
    def terms(self) -> int:
        outputs, inputs, *kernel = self.weight.shape
        return max(inputs, outputs // self.groups) * math.prod(kernel)

    def with_numbers(self, change: Callable[[Array], Array]) -> Convolution:
        return replace(self, weight=np.ascontiguousarray(change(self.weight)))

    def times(self, x: Tensor) -> Tensor:
        return self._convolved(x, self.width, True).reshape(*x.shape[:-1], self.rows)

    def back(self, g: Tensor) -> Tensor:
        return self._convolved(g, self.rows, False).reshape(*g.shape[:-1], self.width)

    def _convolved(self, x: Tensor, size: int, forwards: bool) -> Tensor:
        return convolved(self._told, x.detach().reshape(-1, size), forwards)

    @cached_property
    def _told(self) -> Any:
        return self.for_core()

    def images(self, units: Int64s) -> Tensor:
        """Each is the kernel of a channel, at its place."""
        here, there = (self.target, self.source) if self.transposed else (self.source, self.target)
        out = torch.zeros(len(units), there[0], math.prod(there[1:]), dtype=torch.float64, device="cpu")
        channel, *place = np.unravel_index(units, here)
        outputs, inputs, *kernel = self.weight.shape
        theirs, own = (inputs, outputs // self.groups) if self.transposed else (outputs // self.groups, inputs)
        channels = (channel // own * theirs)[:, None] + np.arange(theirs)
        weights = self.weight.reshape(outputs, inputs, -1)
        for number, at in enumerate(np.ndindex(*kernel)):
            to = np.zeros(len(units), np.int64)
            fits = np.ones(len(units), dtype=bool)
            for d, k in enumerate(at):
                if self.transposed:
                    position = place[d] * self.stride[d] + k * self.dilation[d] - self.padding[d]
                else:
                    position, rest = np.divmod(place[d] + self.padding[d] - k * self.dilation[d], self.stride[d])
                    fits &= rest == 0
                fits &= (position >= 0) & (position < there[1 + d])
                to = to * there[1 + d] + position
            some = np.flatnonzero(fits)
            index = [torch.from_numpy(each) for each in (some[:, None], channels[some], to[some, None])]
            if self.transposed:
                values = weights[channel[some], :, number]
            else:
                values = weights[channels[some], (channel[some] % own)[:, None], number]
            out[index[0], index[1], index[2]] = torch.from_numpy(values)
        return out.flatten(1)

    @cached_property
    def row_norms(self) -> Array:
        outputs = self.weight.shape[0]
        if not self.transposed:
            by_channel = np.sqrt((self.weight * self.weight).reshape(outputs, -1).sum(axis=1))
        else:
            by_group = self.weight.reshape(self.groups, outputs // self.groups, self.weight.shape[1], -1)
            by_channel = np.sqrt((by_group * by_group).sum(axis=(1, 3))).reshape(-1)
        norms = by_channel * NORM_UP + NORM_UNDERFLOW
        return np.repeat(norms, self.rows // len(norms))

    @cached_property
    def norm(self) -> float:
        return min(norm_of_convolution(self.weight, self.groups), self.frobenius)

    def for_core(self) -> Any:
        shape = (self.source, self.target, self.stride, self.padding, self.dilation)
        return ("convolution", np.ascontiguousarray(self.weight), *map(list, shape), self.groups, self.transposed)


def as_map(block: LinearMap | Array) -> LinearMap:
    """A map as it is; a matrix as one."""
    return block if isinstance(block, LinearMap) else Dense(np.asarray(block, dtype=np.float64))
