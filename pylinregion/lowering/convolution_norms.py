"""Upper bounds of the spectral norms of convolutions."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP, UNIT, spectral_norm

_MOST_PRODUCTS = 1 << 31
_SQUARINGS = 4


def norm_of_convolution(weight: Array, groups: int) -> float:
    """An upper bound of the spectral norm of a convolution on any space, whatever its stride, padding and dilation.

    On all of Z^d, stride 1, a convolution multiplies each frequency w with the matrix ``K(w) = sum over places k of
    W_k exp(i k w)``, and its norm is the largest of theirs. Zero padding, strides and borders leave some inputs and
    outputs away, and a dilation only moves frequencies, so that it is a bound for all. For each u, v the real part of
    ``u* K(w) v`` is a trigonometric polynomial, of degree ``h`` in each direction of a kernel with ``2 h + 1`` places
    (an even one is filled up with zeros). Such a polynomial is at most ``1 / cos(pi h / N)`` times its largest value at
    N equidistant points, N > 2 h (Ehlich and Zeller, Mathematische Zeitschrift 86, 1964). So finitely many matrices
    bound the norm, each through its powers (:func:`pylinregion._util.rounding.spectral_norm` has the rounding).

    Args:
        weight: ``[out channels, in channels / groups, *kernel]`` float64.
        groups: Of channels.
    """
    outputs, inputs, *kernel = weight.shape
    by_group = weight.reshape(groups, outputs // groups, inputs, *kernel)
    largest = float(np.abs(weight).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    halves = [size // 2 for size in kernel]
    counts = [1 if half == 0 else max(8, 8 * half) for half in halves]
    side = min(by_group.shape[1:3])
    if math.prod(counts) * groups * side**2 * max(by_group.shape[1:3]) * 8 > _MOST_PRODUCTS:
        return _by_places(by_group)
    factor = math.prod(1 / math.cos(math.pi * half / count) for half, count in zip(halves, counts, strict=True))
    waves = by_group.astype(np.complex128)
    for size, count in zip(kernel, counts, strict=True):  # each takes the first of the kernel's axes, and adds one
        angles = 2 * np.pi * (np.outer(np.arange(size), np.arange(count)) % count) / count
        waves = np.tensordot(waves, np.exp(1j * angles), axes=(3, 0))
    half = waves[..., : counts[-1] // 2 + 1]  # the weights are real: the others are conjugates
    matrices = np.moveaxis(half.reshape(groups, *by_group.shape[1:3], -1), -1, 1)
    matrices = matrices.reshape(-1, *by_group.shape[1:3])
    # What the sums over places, and the sines and cosines, are off by: a few units of the sum of sizes, as matrices.
    places = math.prod(kernel)
    off = (places + 8 * len(kernel)) * 4 * UNIT * math.sqrt(places) * float(np.sqrt((weight * weight).sum()))
    return (_largest_norm(matrices) * factor + off) * NORM_UP + NORM_UNDERFLOW


def _largest_norm(matrices: NDArray[np.complex128]) -> float:
    """The largest spectral norm of some complex matrices ``[n, rows, columns]``, from above.

    ``|B|^2 = |B* B|``, as for :func:`pylinregion._util.rounding.spectral_norm`, for all of them at a time.
    """
    if matrices.shape[1] < matrices.shape[2]:
        matrices = matrices.swapaxes(1, 2).conj()
    scale = float(np.abs(matrices).max())
    power = torch.from_numpy(np.ascontiguousarray(matrices / scale))
    gamma = 4 * (max(matrices.shape[1:]) + 4) * UNIT
    errors = []
    for _ in range(_SQUARINGS):
        errors.append(gamma * _largest_square(power) * NORM_UP)
        power = power.mH @ power
    bound = math.sqrt(_largest_square(power)) * NORM_UP
    for error in reversed(errors):
        bound = math.sqrt(bound + error) * NORM_UP
    return bound * scale


def _largest_square(matrices: Tensor) -> float:
    """Of the Frobenius norms."""
    return float(torch.view_as_real(matrices).square().sum(dim=(1, 2, 3)).max())


def _by_places(by_group: Array) -> float:
    """The sum over places of the norms of their matrices: each moves its image, and moves have norm 1."""
    groups, outputs, inputs = by_group.shape[:3]
    places = by_group.reshape(groups, outputs, inputs, -1)
    return max(
        sum(spectral_norm(np.ascontiguousarray(group[:, :, k])) for k in range(places.shape[3])) * NORM_UP
        for group in places
    )
