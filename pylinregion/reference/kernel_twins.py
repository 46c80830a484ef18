"""NumPy twins of the kernels, one name each. Arrays are float32 or float64; nothing is packed or tiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]


def split_preactivations(centre: FloatArray, directions: FloatArray, radius: npt.NDArray[np.float64]) -> FloatArray:
    """The pre-activations at the vertices, from those of the centres and of the directions.

    Args:
        centre: ``[B, N]``.
        directions: ``[P, N]``.
        radius: ``[B]`` float64, rounded to the dtype of ``centre``.

    Returns:
        ``[B, 2P, N]``: ``centre + radius * direction`` for each direction, then with minus.
    """
    offset = radius.astype(centre.dtype)[:, None, None] * directions[None]
    return np.concatenate([centre[:, None] + offset, centre[:, None] - offset], axis=1)


def sign_changes(
    z: FloatArray,
    breakpoints: Sequence[float] = (0.0,),
    activation: str = "none",
    slope: float = 0.0,
    low: float = -np.inf,
    high: float = np.inf,
) -> tuple[FloatArray, IntArray, IntArray]:
    """Pieces, counts and activations of a kink.

    Args:
        z: ``[B, V, N]``.
        breakpoints: Ascending numbers; a neuron is on piece ``k`` if ``k`` of them are below ``z``.
        activation: ``"none"``, ``"relu"``, ``"leaky_relu"`` or ``"clamp"``.
        slope, low, high: Its parameters.

    Returns:
        The activations ``[B, V, N]``, the pieces ``[B, V, N]`` int64, and ``[B]`` int64, how many neurons are not on
        one piece at all vertices.
    """
    pieces = np.zeros(z.shape, dtype=np.int64)
    for value in breakpoints:
        pieces += z > z.dtype.type(value)
    if activation == "relu":
        out = np.where(z > 0, z, z.dtype.type(0))
    elif activation == "leaky_relu":
        out = np.where(z > 0, z, z * z.dtype.type(slope))
    elif activation == "clamp":
        out = np.minimum(np.maximum(z, z.dtype.type(low)), z.dtype.type(high))
    else:
        out = z
    return out, pieces, label_changes(pieces)


def label_changes(labels: npt.NDArray[Any]) -> IntArray:
    """How many neurons do not have one label at all vertices: ``[B, V, N]`` to ``[B]`` int64."""
    if labels.shape[1] == 0:
        return np.zeros(labels.shape[0], dtype=np.int64)
    changed: npt.NDArray[np.bool_] = (labels != labels[:, :1]).any(axis=1)
    return np.asarray(changed.sum(axis=1), dtype=np.int64)


def distinct_patterns(patterns: npt.NDArray[Any]) -> IntArray:
    """How many different rows each point has: ``[B, V, W]`` to ``[B]`` int64."""
    return np.array([len({row.tobytes() for row in point}) for point in patterns], dtype=np.int64)
