"""Upper bounds of spectral norms, proven."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

_UNIT = 2.0**-53
_SQUARINGS = 3


def spectral_norm(matrix: Array, squarings: int = _SQUARINGS) -> float:
    """An upper bound of the spectral norm, proven, and near it.

    For every matrix ``|B|^2 = |B'B|`` in spectral norms, and ``|fl(B'B) - B'B| <= gamma |B|_F^2``. So, from ``B = W``
    on, each next ``B := fl(B'B)`` gives ``|B before|^2 <= |B| + gamma |B before|_F^2``, and the last one's Frobenius
    norm ends it; by then it is a power so high that the rank of the matrix matters little.

    Args:
        matrix: ``[m, n]`` float64.
        squarings: At least 1; each costs a product of matrices and halves what the logarithm of the bound is off.
    """
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    gamma = (max(matrix.shape) + 2) * _UNIT * (1 + 1e-9)
    steps = []
    for _ in range(squarings):
        factor = 2.0 ** -math.frexp(float(np.abs(matrix).max()))[1]  # exact but for what is too small to matter
        matrix = matrix * factor
        steps.append((factor, gamma * frobenius_norm(matrix) ** 2))
        product = torch.from_numpy(matrix)
        matrix = (product.T @ product).numpy()  # NumPy's threads would go on spinning
    bound = frobenius_norm(matrix)
    for factor, error in reversed(steps):
        bound = math.sqrt((bound + error) * (1 + 1e-9)) / factor
    return bound * (1 + 1e-9)


def frobenius_norm(matrix: Array) -> float:
    """An upper bound of the Frobenius norm."""
    return float(np.sqrt((matrix * matrix).sum())) * (1 + 1e-9) + 1e-150
