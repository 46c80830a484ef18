"""Vectors as integers of many digits, pushed through linear maps without rounding; what is cut off is told.

Where bounds of float64's rounding multiply to more than the values themselves, a fold is done in this
(docs/exactness.md, 5.5). A digit is an integer of few bits, so that a map of digits, applied to digits, is exact in
float64: the maps are those of :mod:`pylinregion.lowering.linear_maps`, of digits of their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import UP
from pylinregion.lowering.linear_maps import LinearMap, vectors_at_once
from pylinregion.lowering.stages import INPUT, Stage

MOST_DIGITS = 6  # of the numbers of a map: 53 bits, and what their exponents are apart
PRECISION = 48  # bits, besides those by which errors may grow: digits are kept for so many
_LEAST = -960  # a power of two: what is less is cut off
_AT_ONCE = 1 << 21  # digits that are multiplied at a time
_OF_A_MAP = 1 << 20  # numbers of a map that are taken apart at a time
_SHARE = 8  # of a map's numbers are digits of what it is applied to, at least, before it is taken apart again


@dataclass(frozen=True)
class FixedPoint:
    """``sum over p of digits[p] 2^(bits (top - p))``.

    Attributes:
        digits: ``[levels, vectors, n]`` float32: integers of at most ``2^(bits - 1)``.
        top: The level of the first.
        off: At least what was cut off from any number when this was made.
    """

    digits: Tensor
    top: int
    off: float = 0.0

    @property
    def vectors(self) -> int:
        """How many there are."""
        return self.digits.shape[1]

    def take(self, vectors: Tensor) -> FixedPoint:
        """Some of the vectors."""
        return FixedPoint(self.digits[:, vectors], self.top, self.off)

    def multiply(self, signs: Tensor, owner: Tensor) -> None:
        """Multiply each vector by one of several ``[signs, n]`` of -1, 0 and 1."""
        for some in vectors_at_once(len(owner), self.digits.shape[2], _AT_ONCE):
            self.digits[:, some] *= signs[owner[some]].float()


def digits_for(stages: Sequence[Stage], precision: int = PRECISION) -> Digits | None:
    """Digits in which bounds stay small through some stages; None: their slopes or numbers are not of the kind.

    Args:
        stages: They may read each other and the input.
        precision: Bits of the largest number that are right in the end.
    """
    if not all(stage.units.denominator == 1 and np.isin(stage.units.slopes, (-1, 0, 1)).all() for stage in stages):
        return None
    growth = {INPUT: 1.0}  # what norms make of 1 in any stage
    for number, stage in enumerate(stages):
        growth[number] = 1 + sum(block.norm * growth[source] for source, block in stage.blocks.items())
    largest = max(growth.values())
    if not largest < math.inf:
        return None
    digits = Digits.for_maps([[*stage.blocks.values()] for stage in stages], precision + math.log2(largest))
    maps = (part for stage in stages for block in stage.blocks.values() for part in block.row_parts(_OF_A_MAP))
    return digits if all(digits.split(part.numbers, MOST_DIGITS) is not None for _, part in maps) else None


class Digits:
    """How many bits a digit has, and how many digits are kept.

    Args:
        bits: Of a digit, at most 24.
        kept: Digits.
    """

    def __init__(self, bits: int, kept: int) -> None:
        self.bits, self.kept = bits, kept

    @classmethod
    def for_maps(cls, stages: Sequence[Sequence[LinearMap]], precision: float) -> Digits:
        """Digits so wide that the products of a row, of all maps of a stage, are exact in float64.

        Args:
            stages: The maps of each stage.
            precision: Bits that are kept at least, in units of the largest number.
        """
        products = max((sum(block.terms for block in maps) for maps in stages), default=1) * MOST_DIGITS
        bits = min(24, (52 - math.ceil(math.log2(products)) + 2) // 2)
        return cls(bits, 1 + math.ceil(precision / bits))

    def scale(self, level: int) -> float:
        """What a digit of a level counts."""
        return math.ldexp(1.0, max(self.bits * level, _LEAST))

    def split(self, numbers: Array, most: int) -> tuple[list[Array], int] | None:
        """Numbers as digits, exactly: the first level first, and that level; None: there are more than ``most``."""
        top = self._level(float(np.abs(numbers).max(initial=0.0)))
        if self.bits * (top - most) < _LEAST:
            return None
        found, rest = [], numbers
        for level in range(top, top - most, -1):
            digit = rest * (1 / self.scale(level))
            np.rint(digit, out=digit)
            rest = rest - digit * self.scale(level)
            found.append(digit)
            if not rest.any():
                return found, top
        return None

    def of(self, x: Tensor) -> FixedPoint:
        """Vectors ``[vectors, n]`` of float64."""
        levels: dict[int, Tensor] = {}
        off = self._add_numbers(levels, x, torch.arange(len(x), device=x.device), len(x))
        return self._one(self._carried(levels, x.new_zeros(x.shape)), off)

    def with_units(self, x: FixedPoint, vectors: int, at: Tensor, units: Tensor, entries: Tensor) -> FixedPoint:
        """Vectors 0 behind the others, in some of which one number is another integer.

        Args:
            x: The others.
            vectors: How many there are then.
            at, units, entries: Vectors, the place in each, and what is there: an integer of one digit.
        """
        more = x.digits.new_zeros(1, vectors - x.vectors, x.digits.shape[2])
        more[0, at - x.vectors, units] = entries.float()
        found = _Parts(self, vectors, x.digits.shape[2], more.device)
        found.add(0, x)
        found.add(x.vectors, FixedPoint(more, 0))
        return found.together()

    def floats(self, x: FixedPoint) -> Tensor:
        """``[vectors, n]`` float64, each off by 4 roundings of itself at most."""
        total = torch.zeros_like(x.digits[0], dtype=torch.float64)
        for number in range(len(x.digits) - 1, -1, -1):
            total += x.digits[number].double() * self.scale(x.top - number)
        return total

    def back(self, maps: Sequence[tuple[LinearMap, FixedPoint]], vectors: int) -> FixedPoint:
        """The sum of vectors ``g W`` for maps and what goes back through them."""
        zero = torch.zeros(maps[0][0].width, dtype=torch.float64, device=maps[0][1].digits.device)
        return self._products(maps, vectors, zero, torch.zeros(0, dtype=torch.int64), forwards=False)

    def rows(self, maps: Sequence[tuple[LinearMap, FixedPoint]], vectors: int, bias: Tensor, to: Tensor) -> FixedPoint:
        """The sum of maps of vectors, and of a bias.

        Args:
            maps: Each with what it is applied to: its first vectors, those behind are 0.
            vectors: How many there are.
            bias: ``[n]``.
            to: The vectors to which it is added.
        """
        return self._products(maps, vectors, bias, to, forwards=True)

    def _products(
        self, maps: Sequence[tuple[LinearMap, FixedPoint]], vectors: int, bias: Tensor, to: Tensor, *, forwards: bool
    ) -> FixedPoint:
        rows, device = len(bias), bias.device
        most = max(_AT_ONCE, *(block.numbers.size // _SHARE for block, _ in maps))
        step = max(1, most // (self.kept * max(max(block.shape) for block, _ in maps)))
        found = _Parts(self, vectors, rows, device)
        for begin in range(0, vectors, step):
            end = min(begin + step, vectors)
            levels: dict[int, Tensor] = {}
            for block, x in maps:
                count = min(end, x.vectors) - begin
                if count > 0:
                    given = x.digits[:, begin : begin + count].double()
                    self._add_products(levels, block, given, x.top, (end - begin, rows), forwards)
            some = (to[(to >= begin) & (to < end)] - begin).to(device)
            if len(some):
                found.off = max(found.off, self._add_numbers(levels, bias.expand(len(some), -1), some, end - begin))
            found.add(begin, self._carried(levels, bias.new_zeros(end - begin, rows)))
        return found.together()

    def _add_products(
        self, levels: dict[int, Tensor], block: LinearMap, x: Tensor, top: int, shape: tuple[int, int], forwards: bool
    ) -> None:
        """Add a map of digits ``[places, vectors, n]`` from a level down, or what goes back, to levels of a shape.

        A large map is taken apart some rows at a time, which are added to rows, or back to all. Whatever level their
        digits begin at, a row has no more than ``MOST_DIGITS``, so that sums stay exact.
        """
        for some, part in block.row_parts(_OF_A_MAP):
            given = (x if forwards else x[..., some]).flatten(0, 1)
            digits, first = _known(self.split(part.numbers, MOST_DIGITS))
            for number, digit in enumerate(digits):
                of_digits = _of_digits(part, digit)
                product = of_digits.times(given) if forwards else of_digits.back(given)
                for place, found in enumerate(product.reshape(len(x), x.shape[1], -1)):
                    level = first - number + top - place
                    if level not in levels:
                        levels[level] = x.new_zeros(shape)
                    levels[level][: x.shape[1], some if forwards else slice(None)] += found

    def plus(self, x: FixedPoint, numbers: Tensor, to: Tensor) -> FixedPoint:
        """Vectors, to some of which numbers ``[len(to), n]`` are added."""
        levels = {x.top - number: digit.double() for number, digit in enumerate(x.digits)}
        off = self._add_numbers(levels, numbers, to, x.vectors)
        return self._one(self._carried(levels, numbers.new_zeros(x.digits.shape[1:])), off)

    def _add_numbers(self, levels: dict[int, Tensor], numbers: Tensor, to: Tensor, vectors: int) -> float:
        """Add numbers ``[len(to), n]`` to some vectors; returns at least what is cut off from any of them."""
        top = self._level(float(numbers.abs().max()) if numbers.numel() else 0.0)
        last = min(top - self.kept, min(levels, default=top))
        rest = numbers
        for level in range(top, last - 1, -1):
            if not bool(rest.any()) or self.bits * level < _LEAST:
                break
            digit = torch.round(rest / self.scale(level))
            rest = rest - digit * self.scale(level)
            whole = numbers.new_zeros(vectors, numbers.shape[1])
            whole[to] = digit
            _add(levels, level, whole, vectors)
        return float(rest.abs().max()) if numbers.numel() else 0.0

    def _carried(self, levels: dict[int, Tensor], zero: Tensor) -> FixedPoint:
        """Digits again, from sums of products at each level: all of them; ``zero`` is what an empty one has."""
        level, highest = min(levels, default=0), max(levels, default=0)
        carry, found = zero, []
        base = 2.0**self.bits
        while level <= highest or bool(carry.any()):
            total = levels.pop(level, zero) + carry
            carry = torch.round(total / base)
            found.append((total - carry * base).float())
            level += 1
        while len(found) > 1 and not bool(found[-1].any()):
            found.pop()
            level -= 1
        found.reverse()
        return FixedPoint(torch.stack(found), level - 1)

    def _one(self, part: FixedPoint, off: float) -> FixedPoint:
        found = _Parts(self, part.vectors, part.digits.shape[2], part.digits.device)
        found.off = off
        found.add(0, part)
        return found.together()

    def _level(self, largest: float) -> int:
        """The level from which digits of numbers of this size go down."""
        return math.ceil((math.frexp(largest)[1] + 1) / self.bits) - 1 if largest else 0


class _Parts:
    """Vectors that come part by part: of one top, and the first digits of each."""

    def __init__(self, kind: Digits, vectors: int, n: int, device: torch.device) -> None:
        self._kind = kind
        self._digits = torch.zeros(kind.kept, vectors, n, dtype=torch.float32, device=device)
        self._top: int | None = None
        self._cut = False
        self.off = 0.0  # of what is added besides

    def add(self, begin: int, part: FixedPoint) -> None:
        """The next vectors, from ``begin`` on."""
        if not bool(part.digits.any()):
            return
        if self._top is None:
            self._top = part.top
        if part.top > self._top:
            self._lower(begin, part.top - self._top)
            self._top = part.top
        first = self._top - part.top
        own = part.digits[: max(0, self._kind.kept - first)]
        self._digits[first : first + len(own), begin : begin + part.vectors] = own
        self._cut = self._cut or bool(part.digits[len(own) :].any())

    def _lower(self, vectors: int, levels: int) -> None:
        """Put levels in front of those that there are."""
        kept = max(0, self._kind.kept - levels)
        for number in range(vectors):
            before = self._digits[:, number].clone()
            self._cut = self._cut or bool(before[kept:].any())
            self._digits[:, number] = 0
            self._digits[len(before) - kept :, number] = before[:kept]

    def together(self) -> FixedPoint:
        """All of them; ``off``: what is cut off is less than the last digit's unit."""
        top = 0 if self._top is None else self._top
        cut = self._kind.scale(top - self._kind.kept + 1) if self._cut else 0.0
        return FixedPoint(self._digits, top, (self.off + 2 * cut) * UP)


def _known(split: tuple[list[Array], int] | None) -> tuple[list[Array], int]:
    assert split is not None
    return split


def _of_digits(block: LinearMap, digits: Array) -> LinearMap:
    return block.with_numbers(lambda _: digits)


def _add(levels: dict[int, Tensor], level: int, part: Tensor, vectors: int) -> None:
    """Add the first vectors of a level."""
    if level not in levels:
        levels[level] = part.new_zeros(vectors, part.shape[1])
    levels[level][: len(part)] += part
