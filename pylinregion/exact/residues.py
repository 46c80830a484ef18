"""Which regions have equal affine maps, decided exactly: maps modulo primes.

Everything that makes a map is a dyadic rational (over a power of 6 after hardsigmoid), so it has a residue modulo a
prime p > 3. Residues that differ prove that two maps do. Residues that agree for primes whose product is more than
twice the largest integer that the maps can differ by, over their common denominator, prove that the maps are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion.exact.maps import Maps
from pylinregion.exact.pattern_table import Patterns
from pylinregion.lowering.stages import INPUT, Stages

_NOTHING = -math.inf
_LOG2_6 = math.log2(6)


class Modulo:
    """The integers modulo a prime, as float64 from ``-p / 2`` to ``p / 2``: sums of products are exact below 2^53."""

    def __init__(self, prime: int) -> None:
        self.prime = prime

    def numbers(self, values: Array) -> Tensor:
        """Residues of dyadic rationals: 2 has an inverse."""
        mantissa, exponent = np.frexp(values)
        powers, place = np.unique(exponent, return_inverse=True)
        factor = np.array([pow(2, int(power) - 53, self.prime) for power in powers], dtype=np.int64)
        integer = np.ldexp(mantissa, 53).astype(np.int64) % self.prime
        residues = integer * factor[place.reshape(values.shape)] % self.prime
        return torch.from_numpy(np.where(2 * residues > self.prime, residues - self.prime, residues).astype(np.float64))

    def quotients(self, values: Array, denominator: float) -> Tensor:
        """Residues of quotients by an integer that the prime does not divide."""
        return self.reduced(self.numbers(values) * float(pow(int(denominator), -1, self.prime)))

    def reduced(self, values: Tensor) -> Tensor:
        """Residues of integers below 2^53 in size; a rounded quotient may leave one just beyond half the prime."""
        return values.sub_((values * (1 / self.prime)).round_(), alpha=self.prime)

    def integers(self, values: Tensor) -> NDArray[np.int32]:
        """The residues from 0 to p - 1."""
        return np.asarray(values.numpy().astype(np.int32) % self.prime, dtype=np.int32)


def equal_maps(stages: Stages, plane: Array, patterns: Patterns, pairs: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether the two regions of each pair have the same affine map on the slice.

    Args:
        stages: The network.
        plane: ``[inputs, 3]``.
        patterns: ``[regions, bytes]``, in the engine's order.
        pairs: ``[n, 2]`` regions.

    Returns:
        ``[n]``.
    """
    equal = np.ones(len(pairs), dtype=bool)
    proven, needed = 0.0, _scale(stages, plane)[0]
    point = np.append(np.random.default_rng(0).integers(1, 1 << 20, 2), 1).astype(np.float64)
    for number, prime in enumerate(_primes(stages)):
        left = np.flatnonzero(equal)
        if proven > needed or not len(left):
            return equal
        regions, place = np.unique(pairs[left], return_inverse=True)
        ring = Modulo(prime)
        inputs = ring.numbers(plane)
        if number == 0:  # the values at one point: a third of the work, and enough to tell most maps apart
            inputs = ring.reduced(inputs @ ring.numbers(point)[:, None])
        maps = Maps(stages, inputs, ring)
        found = np.empty((len(regions), maps.outputs * inputs.shape[1]), dtype=np.int32)
        for rows, chunk in maps.chunks(patterns[regions]):
            found[rows] = ring.integers(chunk.reshape(len(chunk), -1))
        place = place.reshape(-1, 2)
        equal[left] = (found[place[:, 0]] == found[place[:, 1]]).all(axis=1)
        proven += math.log2(prime) if number else 0.0
    raise OverflowError("the weights have too many bits")  # there are 10^4 primes: more than 10^5 bits


def _primes(stages: Stages) -> Iterator[int]:
    """Descending, and so small that the products of a whole row add up to less than 2^53."""
    terms = max(sum(block.terms for block in stage.blocks.values()) for stage in stages.stages) + 3
    bits = (54 - math.ceil(math.log2(terms))) // 2
    for candidate in range((1 << bits) - 1, 1 << (bits - 1), -2):
        if all(candidate % factor for factor in range(3, math.isqrt(candidate) + 1, 2)):
            yield candidate


def exact_maps(stages: Stages, inputs: Array, patterns: Patterns) -> Array:
    """The maps of regions, correctly rounded: put together from as many residues as tell all integers apart.

    Args:
        stages: The network.
        inputs: ``[inputs, columns]``.
        patterns: ``[regions, bytes]``.

    Returns:
        ``[regions, outputs, columns]``.
    """
    needed, low, sixths = _scale(stages, inputs)
    low = 0 if math.isinf(low) else int(low)
    primes: list[int] = []
    digits: list[NDArray[np.int64]] = []  # of the mixed radix of the primes
    proven = 0.0
    for prime in _primes(stages):
        ring = Modulo(prime)
        maps = Maps(stages, ring.numbers(inputs), ring)
        found = np.concatenate([ring.integers(chunk) for _, chunk in maps.chunks(patterns)]).astype(np.int64)
        digit = found * (pow(2, -low, prime) * pow(6, sixths, prime) % prime) % prime
        for earlier, known in zip(primes, digits, strict=True):
            digit = (digit - known) % prime * pow(earlier, -1, prime) % prime
        primes.append(prime)
        digits.append(digit)
        proven += math.log2(prime)
        if proven > needed:
            break
    total = np.zeros(digits[0].shape, dtype=object)
    for prime, digit in zip(reversed(primes), reversed(digits), strict=True):
        total = total * prime + digit.astype(object)
    whole, unit = math.prod(primes), 6**sixths << max(0, -low)
    result = np.empty(total.size)
    for place, number in enumerate(total.reshape(-1).tolist()):
        result[place] = ((number - whole if 2 * number > whole else number) << max(0, low)) / unit
    return result.reshape(total.shape)


def _scale(stages: Stages, plane: Array) -> tuple[float, float, int]:
    """The scale of maps as integers over their common denominator.

    Returns:
        More than log2 of twice what two maps can differ by, or one can be; the exponent of the lowest bit; and the
        power of 6 in the denominator.
    """
    high, low, sixths = {INPUT: _largest(plane)}, {INPUT: _lowest(plane)}, {INPUT: 0}
    for number, stage in enumerate(stages.stages):
        units = stage.units
        sources = list(stage.blocks)
        size, last = _largest(stage.bias), _lowest(stage.bias)
        for source, block in stage.blocks.items():
            size = _sum(size, _largest(block.numbers) + math.log2(block.terms) + high[source])
            last = min(last, _lowest(block.numbers) + low[source])
        high[number] = _sum(_largest(units.slopes) + size, _largest(units.intercepts)) + 0.1  # for roundings here
        low[number] = min(_lowest(units.slopes) + last, _lowest(units.intercepts))
        sixths[number] = max(sixths[source] for source in sources) + int(units.denominator != 1)
    last_stage = len(stages.stages) - 1
    power = sixths[last_stage]
    if high[last_stage] == _NOTHING:
        return 0.0, math.inf, power
    return 2 + high[last_stage] - low[last_stage] + _LOG2_6 * power, low[last_stage], power


def _sum(x: float, y: float) -> float:
    """log2 of the sum of two numbers given by theirs."""
    top = max(x, y)
    return top if top == _NOTHING else top + math.log2(2 ** (x - top) + 2 ** (y - top))


def _largest(values: Array) -> float:
    """log2 of the largest size."""
    top = float(np.abs(values).max(initial=0.0))
    return math.log2(top) if top else _NOTHING


def _lowest(values: Array) -> float:
    """The exponent of the lowest bit that is set in any; infinity if all are 0."""
    numbers = values[values != 0]
    if not numbers.size:
        return math.inf
    mantissa, exponent = np.frexp(numbers)
    integer = np.ldexp(mantissa, 53).astype(np.int64)
    trailing = np.log2((integer & -integer).astype(np.float64))
    return float((exponent - 53 + trailing).min())
