"""Convolutional, residual and pooled networks for :mod:`pylinregion.reference.rational`, each operator as defined.

Layer by layer: a cell has the affine columns of every value, and is cut by the lines of one kink after another. There
are no bounds, nothing is folded, and what a cell shares with others is computed again.

>>> from pylinregion.reference.rational import partition
>>> net = Layers((1, 2, 2))
>>> _ = net.add(Convolution([[[[1, -1]]]], [0]))  # the differences along the two rows
>>> _ = net.add(Kink(Pieces.relu()))
>>> square = [[0, 0], [1, 0], [1, 1], [0, 1]]
>>> len(partition(net.steps, [0, 0.5, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, 0], square).cells)
4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion.reference.rational import Max, Pieces, Row, Step, _fraction

Numbers = NDArray[Any]  # exact ones, or float64, as ``rational.rational`` makes them
Columns = NDArray[Any]  # ``[columns, *shape]``: how a value depends on s, on t, and what it is where both are 0
Affine = Callable[..., Columns]  # from the columns of some values to those of another


class Layers:
    """A network that is made layer by layer.

    Args:
        shape: Of an input.

    Attributes:
        steps: What :func:`~pylinregion.reference.rational.partition` and ``trace`` take. The last layer is the output.
        shapes: Of the input, and of what each layer gives.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.steps: list[Step] = []
        self.shapes = [tuple(shape)]

    def add(self, operator: Affine | Kink | Largest, *sources: int) -> int:
        """Append a layer.

        Args:
            operator: What it does.
            sources: Of what: numbers of layers, -1 is the input. None: of the layer before.

        Returns:
            Its number.
        """
        sources = sources or (len(self.steps) - 1,)
        given = [self.shapes[source + 1] for source in sources]
        affine = operator.affine if isinstance(operator, (Kink, Largest)) else operator
        shape = affine(*(_numbers(np.zeros((1, *each))) for each in given)).shape[1:]
        units = operator.units(shape) if isinstance(operator, (Kink, Largest)) else []
        self.steps.append(_Layer(affine, sources, given, shape, units))
        self.shapes.append(operator.shape if isinstance(operator, Largest) else shape)
        return len(self.steps) - 1


@dataclass(frozen=True)
class _Layer:
    affine: Affine
    sources: tuple[int, ...]
    given: list[tuple[int, ...]]
    shape: tuple[int, ...]
    units: list[tuple[int, Pieces] | Max]

    def rows(self, values: list[list[Row]]) -> list[Row]:
        """See :class:`~pylinregion.reference.rational.Step`."""
        columns = [
            np.array(values[source + 1]).T.reshape(-1, *shape)
            for source, shape in zip(self.sources, self.given, strict=True)
        ]
        found = self.affine(*columns)
        return [tuple(row) for row in found.reshape(len(found), -1).T.tolist()]

    def width(self, widths: list[int]) -> int:
        """See :class:`~pylinregion.reference.rational.Step`."""
        for source, shape in zip(self.sources, self.given, strict=True):
            if widths[source + 1] != int(np.prod(shape)):
                raise ValueError(f"the input must have shape {list(shape)}, got {widths[source + 1]} numbers")
        return len(self.units) or int(np.prod(self.shape))


# ---- affine layers


@dataclass(frozen=True)
class Convolution:
    """``out[o, p] = bias[o] + sum of weight[o, i, k] x[i, p stride + k dilation - padding]``, of 1 to 3 dimensions.

    Attributes:
        weight: ``[outputs, inputs / groups, *kernel]``.
        bias: ``[outputs]``; None: 0.
        stride, padding, dilation: One number, or one for each dimension.
        groups: Outputs of each group read the inputs of theirs alone.
    """

    weight: Any
    bias: Any = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def __post_init__(self) -> None:
        _make_exact(self, "weight", "bias")

    def __call__(self, x: Columns) -> Columns:
        """The columns of the result, ``[columns, outputs, *space]``."""
        return _plus(_bilinear(self._linear, self.weight, x), self.bias)

    def _linear(self, weight: Numbers, x: Columns) -> Columns:
        kernel, space = weight.shape[2:], x.shape[2:]
        stride, padding, dilation = (_each(value, len(space)) for value in (self.stride, self.padding, self.dilation))
        padded = np.zeros((*x.shape[:2], *(n + 2 * p for n, p in zip(space, padding, strict=True))), dtype=x.dtype)
        padded[_space(slice(p, p + n) for n, p in zip(space, padding, strict=True))] = x
        out = [
            (n - d * (k - 1) - 1) // s + 1
            for n, d, k, s in zip(padded.shape[2:], dilation, kernel, stride, strict=True)
        ]
        seen = [padded[_seen(at, out, stride, dilation)] for at in np.ndindex(kernel)]
        patches = np.stack(seen, axis=2).reshape(len(x), self.groups, -1, int(np.prod(out)))
        found: Columns = weight.reshape(self.groups, len(weight) // self.groups, -1) @ patches
        return found.reshape(len(x), len(weight), *out)


@dataclass(frozen=True)
class TransposedConvolution:
    """``out[o, p stride + k dilation - padding] += weight[i, o, k] x[i, p]``, for all p, k and i, from ``bias[o]`` on.

    Attributes:
        weight: ``[inputs, outputs / groups, *kernel]``.
        bias, stride, padding, dilation, groups: As of :class:`Convolution`.
        output_padding: Places more at the end of each dimension.
    """

    weight: Any
    bias: Any = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    output_padding: Any = 0

    def __post_init__(self) -> None:
        _make_exact(self, "weight", "bias")

    def __call__(self, x: Columns) -> Columns:
        """The columns of the result, ``[columns, outputs, *space]``."""
        return _plus(_bilinear(self._linear, self.weight, x), self.bias)

    def _linear(self, weight: Numbers, x: Columns) -> Columns:
        kernel, space = weight.shape[2:], x.shape[2:]
        stride, padding, dilation, more = (
            _each(value, len(space)) for value in (self.stride, self.padding, self.dilation, self.output_padding)
        )
        reach = [
            (n - 1) * s + d * (k - 1) + 1 + e
            for n, s, d, k, e in zip(space, stride, dilation, kernel, more, strict=True)
        ]
        outputs = self.groups * weight.shape[1]
        whole: Columns = np.zeros((len(x), outputs, *reach), dtype=x.dtype)
        of_group = x.reshape(len(x), self.groups, -1, int(np.prod(space)))
        for at in np.ndindex(kernel):
            part = weight[(..., *at)].reshape(self.groups, -1, weight.shape[1]).swapaxes(1, 2) @ of_group
            whole[_seen(at, space, stride, dilation)] += part.reshape(len(x), outputs, *space)
        found: Columns = whole[_space(slice(p, n - p) for p, n in zip(padding, reach, strict=True))]
        return found


@dataclass(frozen=True)
class Dense:
    """``weight @ x + bias`` of the last axis."""

    weight: Any
    bias: Any = None

    def __post_init__(self) -> None:
        _make_exact(self, "weight", "bias")

    def __call__(self, x: Columns) -> Columns:
        """The columns of the result, ``[columns, ..., outputs]``."""
        found = _bilinear(_dense, self.weight, x)
        if self.bias is not None:
            found[-1] = found[-1] + self.bias
        return found


@dataclass(frozen=True)
class Scale:
    """``factor * x + shift``; arrays of one dimension go with the first axis: a batch norm in eval mode."""

    factor: Any
    shift: Any = 0

    def __post_init__(self) -> None:
        _make_exact(self, "factor", "shift")

    def __call__(self, x: Columns) -> Columns:
        """The columns of the result, of the same shape."""
        factor, shift = (_along_first(each, x.ndim - 1) for each in (self.factor, self.shift))
        found = x * factor
        found[-1] = found[-1] + shift
        return found


@dataclass(frozen=True)
class Total:
    """The sum of values of one shape: a residual connection."""

    def __call__(self, *values: Columns) -> Columns:
        """The columns of the sum."""
        found: Columns = np.sum(np.stack(values), axis=0)
        return found


@dataclass(frozen=True)
class Join:
    """Values behind each other along an axis: a dense connection."""

    axis: int = 0

    def __call__(self, *values: Columns) -> Columns:
        """The columns of all."""
        return np.concatenate(values, axis=self.axis + 1)


@dataclass(frozen=True)
class Places:
    """Numbers elsewhere: views, padding, slices, pixel shuffles, nearest neighbours.

    Attributes:
        places: Of the shape of the result: where in the flattened value each number is; -1: it is 0.
    """

    places: NDArray[np.int64]

    def __call__(self, x: Columns) -> Columns:
        """The columns of the result."""
        flat = x.reshape(len(x), -1)
        return np.where(self.places >= 0, flat[:, np.maximum(self.places, 0)], 0)


@dataclass(frozen=True)
class Matrix:
    """``matrix @ (all numbers of all values) + offset``, of a shape.

    Attributes:
        matrix: ``[numbers of the result, numbers of the values]``.
        offset: ``[numbers of the result]``.
        shape: Of the result.
    """

    matrix: Any
    offset: Any
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _make_exact(self, "matrix", "offset")

    def __call__(self, *values: Columns) -> Columns:
        """The columns of the result."""
        found = _bilinear(_dense, self.matrix, _flat(values))
        found[-1] = found[-1] + self.offset
        return found.reshape(len(found), *self.shape)


@dataclass(frozen=True)
class WindowSums:
    """The sum of each window, times its factor: average pools.

    Attributes:
        windows: As of :class:`Largest`.
        factors: One for each.
        shape: Of the result.
    """

    windows: list[list[int]]
    factors: Sequence[Any]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _make_exact(self, "factors")

    def __call__(self, x: Columns) -> Columns:
        """The columns of the result."""
        flat = _flat([x])
        sums = [flat[:, window].sum(axis=1) * f for window, f in zip(self.windows, self.factors, strict=True)]
        return np.stack(sums, axis=1).reshape(len(x), *self.shape)


# ---- kinks


@dataclass(frozen=True)
class Kink:
    """An activation, or one for each place of the first axis (a PReLU)."""

    pieces: Pieces | Sequence[Pieces]

    def affine(self, x: Columns) -> Columns:
        """What is bent."""
        return x

    def units(self, shape: tuple[int, ...]) -> list[tuple[int, Pieces] | Max]:
        """One for each number."""
        size = int(np.prod(shape))
        if isinstance(self.pieces, Pieces):
            return [(row, self.pieces) for row in range(size)]
        each = size // len(self.pieces)
        return [(row, self.pieces[row // each]) for row in range(size)]


@dataclass(frozen=True)
class Largest:
    """The largest of each window; of equal ones the first.

    Attributes:
        windows: The places of its candidates, among the numbers of all values, one value behind the other.
        shape: Of the result.
    """

    windows: list[list[int]]
    shape: tuple[int, ...]

    def affine(self, *values: Columns) -> Columns:
        """What is compared."""
        return _flat(values)

    def units(self, shape: tuple[int, ...]) -> list[tuple[int, Pieces] | Max]:
        """One for each window."""
        return [Max(tuple(window)) for window in self.windows]


# ---- windows


@dataclass(frozen=True)
class Window:
    """What a pool sees.

    Attributes:
        places: Of the numbers in it, in row-major order; those of the padding are left out.
        size: How many there are with the padding.
    """

    places: list[int]
    size: int


def windows(
    shape: Sequence[int], kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[list[Window], tuple[int, ...]]:
    """The windows of a pool, and the shape of its result.

    Args:
        shape: ``[channels, *space]``.
        kernel, stride, padding, dilation: One number, or one for each dimension of space; the stride is the kernel's
            size if it is None.
        ceil_mode: A window that begins in the space or in the padding before it, but does not end there, is one too.
    """
    space = shape[1:]
    kernel, padding, dilation = (_each(value, len(space)) for value in (kernel, padding, dilation))
    stride = kernel if stride is None else _each(stride, len(space))
    along = []  # for each dimension, for each window: the places, and how many with the padding
    for n, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True):
        last = n + 2 * p - d * (k - 1) - 1
        count = last // s + 1
        if ceil_mode and last % s and count * s < n + p:
            count += 1
        reach = [[begin * s - p + d * at for at in range(k)] for begin in range(count)]
        along.append([([at for at in each if 0 <= at < n], sum(at < n + p for at in each)) for each in reach])
    return _windows(shape, along)


def adaptive_windows(shape: Sequence[int], out: Any) -> tuple[list[Window], tuple[int, ...]]:
    """The windows of an adaptive pool: number k of m is from ``floor(k n / m)`` to ``ceil((k + 1) n / m)``."""
    along = []
    for n, m in zip(shape[1:], _each(out, len(shape) - 1), strict=True):
        ranges = [range(k * n // m, -(-(k + 1) * n // m)) for k in range(m)]
        along.append([(list(each), len(each)) for each in ranges])
    return _windows(shape, along)


def _windows(shape: Sequence[int], along: list[list[tuple[list[int], int]]]) -> tuple[list[Window], tuple[int, ...]]:
    found = []
    for channel in range(shape[0]):
        for sides in product(*along):
            places = product([channel], *(inside for inside, _ in sides))
            sizes = [size for _, size in sides]
            found.append(Window([int(np.ravel_multi_index(at, shape)) for at in places], int(np.prod(sizes))))
    return found, (shape[0], *map(len, along))


def _each(value: Any, dimensions: int) -> tuple[int, ...]:
    return (value,) * dimensions if isinstance(value, int) else tuple(value)


def _space(slices: Iterable[slice]) -> tuple[Any, ...]:
    """An index of the dimensions of space."""
    return (..., *slices)


def _seen(at: Sequence[int], out: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[Any, ...]:
    """What place ``at`` of a kernel sees, or fills: one number for each of ``out``."""
    return _space(
        slice(k * d, k * d + (n - 1) * s + 1, s) for k, n, s, d in zip(at, out, stride, dilation, strict=True)
    )


def _numbers(values: Any) -> Numbers:
    """An array of what ``rational.rational`` makes of each."""
    given = np.asarray(values)
    numbers = np.array([_fraction(value) for value in given.reshape(-1)]).reshape(given.shape)
    return numbers if numbers.size else numbers.astype(object)


def _make_exact(layer: Any, *names: str) -> None:
    for name in names:
        if getattr(layer, name) is not None:
            object.__setattr__(layer, name, _numbers(getattr(layer, name)))


def _dense(weight: Numbers, x: Columns) -> Columns:
    found: Columns = x @ weight.T
    return found


def _bilinear(function: Callable[[Numbers, Columns], Columns], weight: Numbers, x: Columns) -> Columns:
    """A function that is linear in both; of fractions by integers over one denominator, in a fifth of the time."""
    if x.dtype != object:
        return function(weight, x)
    (m, p), (n, q) = _over_one_denominator(weight), _over_one_denominator(x)
    found: Columns = function(p, q) * (_fraction(1) / (m * n))
    return found


def _over_one_denominator(a: Numbers) -> tuple[int, Numbers]:
    """The least common denominator, and the array times it."""
    common = math.lcm(*{int(value.denominator) for value in a.flat})
    whole = [int(value.numerator) * (common // int(value.denominator)) for value in a.flat]
    return common, np.array(whole, dtype=object).reshape(a.shape)


def _along_first(values: Numbers, dimensions: int) -> Numbers:
    return values.reshape(-1, *[1] * (dimensions - 1)) if values.ndim == 1 else values


def _flat(values: Sequence[Columns]) -> Columns:
    return np.concatenate([each.reshape(len(each), -1) for each in values], axis=1)


def _plus(x: Columns, bias: Any) -> Columns:
    """``x`` with something added to each channel of its constant."""
    return x if bias is None else Scale(1, bias)(x)
