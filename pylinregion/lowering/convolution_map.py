"""Convolutions as linear maps: of none a matrix is formed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP
from pylinregion._util.tensors import CPU
from pylinregion.lowering.convolution_norms import norm_of_convolution
from pylinregion.lowering.gathered_convolution import NOTHING, Gathered
from pylinregion.lowering.linear_maps import LinearMap, vectors_at_once
from pylinregion.native.convolutions import RUN, add_convolved, add_images, convolved

_NUMBERS_AT_ONCE = 2**26  # what is interrupted waits for so many; and those of windows on a device


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
    def rows(self) -> int:
        """Those of all channels."""
        return math.prod(self.source if self.transposed else self.target)

    @property
    def width(self) -> int:
        """That of all channels."""
        return math.prod(self.target if self.transposed else self.source)

    @property
    def numbers(self) -> Array:
        """The kernels."""
        return self.weight

    @property
    def terms(self) -> int:
        """Those of a whole window, or of all windows that one number is in."""
        outputs, inputs, *kernel = self.weight.shape
        return int(max(inputs, outputs // self.groups) * math.prod(kernel))

    def roundings(self, device: torch.device = CPU) -> int:
        """Products are summed in runs, then these: csrc/convolution/convolution.h; elsewhere in any order."""
        if device != CPU:
            return self.terms
        outputs, inputs, *kernel = self.weight.shape

        def of(channels: int) -> int:
            run = min(channels, RUN)
            pieces = math.prod(kernel) * math.ceil(channels / run)
            in_one = RUN // run
            return min(in_one, pieces) * run + math.ceil(pieces / in_one)

        return max(of(inputs), of(outputs // self.groups))

    @property
    def behind(self) -> tuple[int, ...]:
        """By dimension: the padding behind that the last window needs; negative if it ends before the source does."""
        _, _, *kernel = self.weight.shape
        sizes = zip(self.source[1:], self.target[1:], self.stride, self.padding, self.dilation, kernel, strict=True)
        return tuple((t - 1) * stride + d * (k - 1) + 1 - s - front for s, t, stride, front, d, k in sizes)

    @cached_property
    def windows(self) -> Int64s:
        """``[windows, kernel]``: what each holds, by its place in a channel of the source; -1 beside that."""
        _, _, *kernel = self.weight.shape
        found = np.zeros((1, 1), np.int64)
        for n, count, k, stride, padding, dilation in zip(
            self.source[1:], self.target[1:], kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            place = np.add.outer(np.arange(count) * stride - padding, np.arange(k) * dilation)
            place[(place < 0) | (place >= n)] = NOTHING
            both = found[:, None, :, None] * n + place[None, :, None]
            both[(found < 0)[:, None, :, None] | (place < 0)[None, :, None]] = NOTHING
            found = both.reshape(len(found) * count, -1)
        return found

    def with_numbers(self, change: Callable[[Array], Array]) -> Convolution:
        """The same windows with other kernels."""
        return replace(self, weight=np.ascontiguousarray(change(self.weight)))

    def times(self, x: Tensor) -> Tensor:
        """By the kernel of the extension; on a device by products of matrices."""
        return self._convolved(x, self.width, self.rows, True)

    def add_times(self, out: Tensor, x: Tensor) -> None:
        """By the kernel of the extension, which takes together what is not 0 in the same places, and adds."""
        self._add(out, x, True)

    def back(self, g: Tensor) -> Tensor:
        """The other way."""
        return self._convolved(g, self.rows, self.width, False)

    def add_back(self, out: Tensor, g: Tensor) -> None:
        """By the kernel of the extension, which adds sums that it has begun with 0."""
        self._add(out, g, False)

    def images(self, units: Tensor) -> Tensor:
        """Each is the kernel of a channel, at its place."""
        out = torch.zeros(len(units), self.rows, dtype=torch.float64, device=units.device)
        self.add_images(out, units, out.new_ones(len(units)))
        return out

    def add_images(self, out: Tensor, units: Tensor, factors: Tensor) -> None:
        """At the places of kernels alone."""
        if out.device == CPU:
            add_images(self._told, units.numpy(), factors.numpy(), out)
        else:
            self._gathered[0].add_images(out, units, factors)

    def _convolved(self, x: Tensor, size: int, to: int, forwards: bool) -> Tensor:
        vectors = x.detach().reshape(-1, size)
        if x.device == CPU:
            return convolved(self._told, vectors, forwards).reshape(*x.shape[:-1], to)
        out = x.new_zeros(len(vectors), to)
        self._add(out, vectors, forwards)
        return out.reshape(*x.shape[:-1], to)

    def _add(self, out: Tensor, x: Tensor, forwards: bool) -> None:
        given = None if x.device == CPU else self._gathered[not forwards]
        for some in vectors_at_once(len(x), max(self.shape) if given is None else given.size, _NUMBERS_AT_ONCE):
            if given is None:
                add_convolved(self._told, x[some].detach(), forwards, out[some])
            else:
                out[some] += given.times(x[some].detach())

    @cached_property
    def _told(self) -> tuple[Any, ...]:
        return self.for_core()

    @cached_property
    def _gathered(self) -> tuple[Gathered, Gathered]:
        """This map, and its transpose."""
        given = Gathered.forwards(self.weight, self.groups, self.windows, math.prod(self.source[1:]))
        return (given.transposed, given) if self.transposed else (given, given.transposed)

    @cached_property
    def row_norms(self) -> Array:
        """Those of whole windows, by channel; at borders they are larger than the norms."""
        outputs, inputs = self.weight.shape[:2]
        squares = (self.weight * self.weight).reshape(self.groups, outputs // self.groups, inputs, -1)
        by_channel = np.sqrt(squares.sum(axis=(1, 3) if self.transposed else (2, 3))).reshape(-1)
        norms = by_channel * NORM_UP + NORM_UNDERFLOW
        return np.repeat(norms, self.rows // len(norms))

    @cached_property
    def norm(self) -> float:
        """That of a convolution without borders, or the Frobenius norm."""
        return min(norm_of_convolution(self.weight, self.groups), self.frobenius)

    def for_core(self) -> tuple[Any, ...]:
        """The kernels and all sizes."""
        sizes = (self.source, self.target, self.stride, self.padding, self.dilation)
        return "convolution", np.ascontiguousarray(self.weight), *map(list, sizes), self.groups, self.transposed
