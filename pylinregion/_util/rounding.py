"""The constants of float64's rounding, and upper bounds of norms, proven.

No constant here is a tolerance: each is larger than an error that can occur, and makes a bound wider, so that more is
left to exact arithmetic. docs/exactness.md has the derivations; ``csrc/rounding.h`` has those of the extension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from pylinregion._util.arrays import Array

UNIT = 2.0**-53  # half of the distance from 1 to the next number: what one operation is off by, relative

# What a bound is multiplied by that was itself computed with rounding. Section 4.1: sums of at most 2^22 numbers that
# are not negative, two roundings each, are low by less than 4.7e-10 of themselves, and `n UNIT UP >= gamma_n`.
UP = 1 + 1e-9

# Likewise for 2-norms (sums of fewer than 10^9 squares, their root) and what a recursion over stages makes of them.
NORM_UP = 1 + 1e-6

# What a 2-norm loses by squares that underflow: each at most 2^-1075, n of them at most sqrt(n) 2^-537 (section 4.1).
NORM_UNDERFLOW = 1e-150

# More than all that underflows on the way through a network of a scale that is not refused, 2^-594 (section 9).
UNDERFLOW = 2.0**-500

_SQUARINGS = 3
_MOST_PRODUCTS = 1 << 32
_AT_ONCE = 1 << 20  # numbers of a matrix that are looked at


def spectral_norm(matrix: Array, squarings: int = _SQUARINGS, dtype: torch.dtype = torch.float64) -> float:
    """An upper bound of the spectral norm, proven, and near it.

    For every matrix ``|B|^2 = |B'B|`` in spectral norms, and ``|fl(B'B) - B'B| <= gamma |B|_F^2``. So, from ``B = W``
    on, each next ``B := fl(B'B)`` gives ``|B before|^2 <= |B| + gamma |B before|_F^2``, and the last one's Frobenius
    norm ends it; by then it is a power so high that the rank of the matrix matters little. Rounding ``W`` itself to
    the dtype of the products adds ``u |W|_F`` at most.

    Args:
        matrix: ``[m, n]`` float64.
        squarings: At least 1; each costs a product of matrices and halves what the logarithm of the bound is off.
        dtype: Of the products: float64, or float32, which takes half of the time and leaves the bound a little wider.
            In float32 the caller sees to it that torch computes in it
            (:func:`pylinregion.caller.torch_settings.full_precision`).
    """
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    unit = torch.finfo(dtype).eps / 2
    roundings = (max(matrix.shape) + 2) * unit
    if roundings > 0.5:  # the bounds of rounding end here
        return frobenius_norm(matrix)
    gamma = roundings / (1 - roundings) * UP
    steps = []
    for number in range(squarings):
        factor = 2.0 ** -math.frexp(float(np.abs(matrix).max()))[1]  # exact but for what is too small to matter
        matrix = matrix * factor
        size = frobenius_norm(matrix)
        steps.append((factor, gamma * size**2, 0.0 if number or dtype == torch.float64 else unit * size))
        product = torch.from_numpy(matrix).to(dtype)
        matrix = (product.T @ product).double().numpy()  # NumPy's threads would go on spinning
    bound = frobenius_norm(matrix)
    for factor, error, rounded in reversed(steps):
        bound = (math.sqrt((bound + error) * UP) + rounded) * UP / factor
    return bound * UP


def frobenius_norm(matrix: Array) -> float:
    """An upper bound of the Frobenius norm."""
    return math.sqrt(sum(float((part * part).sum()) for part in _parts(matrix))) * UP + NORM_UNDERFLOW


def _parts(matrix: Array) -> Iterator[Array]:
    """The rows, some at a time: a matrix may be as large as all the rest of a network."""
    step = max(1, _AT_ONCE * len(matrix) // max(1, matrix.size))
    for begin in range(0, len(matrix), step):
        yield matrix[begin : begin + step]


def norm_of_any(matrix: Array) -> float:
    """An upper bound of the spectral norm that takes no more than a product of the matrix with one as large."""
    if matrix.size * min(matrix.shape) <= _MOST_PRODUCTS:
        return spectral_norm(matrix)
    columns, longest = np.zeros(matrix.shape[1]), 0.0
    for part in _parts(matrix):
        sizes = np.abs(part)
        columns += sizes.sum(axis=0)
        longest = max(longest, float(sizes.sum(axis=1).max(initial=0.0)))
    most = float(columns.max(initial=0.0)) * longest
    return min(frobenius_norm(matrix), math.sqrt(most) * UP + NORM_UNDERFLOW)
