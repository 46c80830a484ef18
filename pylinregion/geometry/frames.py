"""Frames: the orthonormal directions of a neighbourhood, whose vertices are ``x ± r v_p``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pylinregion._util import checks
from pylinregion.caller.plain_torch import plain_torch


def default_directions(input_shape: Sequence[int]) -> int:
    """How many directions a neighbourhood has: 25, as in the papers, or as many as there are input dimensions."""
    return min(25, math.prod(input_shape))


@plain_torch()
def random_frame(input_shape: Sequence[int], n_directions: int | None = None, *, seed: int = 0) -> Tensor:
    """Draw random orthonormal directions.

    They are uniformly distributed (the Q factor of a Gaussian matrix, signs fixed by R), drawn on the CPU by a
    generator of their own: torch's random state is left alone, and one seed gives one frame for every device.

    Args:
        input_shape: The shape of a point.
        n_directions: ``P``, at most the number of input dimensions. None: 25, or as many as there are dimensions.
        seed: Of the generator.

    Returns:
        ``[P, *input_shape]`` float64 on the CPU, orthonormal to 1e-12.

    Raises:
        ValueError: More directions than input dimensions, or fewer than one; a point has no numbers.
        TypeError: ``n_directions`` or ``seed`` is no integer.

    Source: the neighbourhood is that of Humayun, Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why",
        ICML 2024 (arXiv 2402.15555), section 2.2.

    >>> frame = random_frame((28, 28), 25)
    >>> flat = frame.flatten(1)
    >>> bool((flat @ flat.T - torch.eye(25)).abs().max() < 1e-12)
    True
    """
    dimensions = math.prod(input_shape)
    if dimensions < 1:
        raise ValueError(f"input_shape must have at least one dimension of the input, got {list(input_shape)}")
    count = default_directions(input_shape) if n_directions is None else n_directions
    count = checks.positive_integer("n_directions", count)
    seed = checks.integer("seed", seed)
    if count > dimensions:
        raise ValueError(f"n_directions must be at most the {dimensions} input dimensions, got {count}")
    return _draw(dimensions, count, seed).view(count, *input_shape).clone()


@functools.lru_cache(maxsize=8)
def _draw(dimensions: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    gaussian = torch.randn(dimensions, count, generator=generator, dtype=torch.float64, device="cpu")
    q, r = torch.linalg.qr(gaussian)
    directions: Tensor = (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).T
    return directions.contiguous()


def check_frame(frame: Tensor, input_shape: Sequence[int], points: int) -> bool:
    """Check a caller's frame.

    Args:
        frame: ``[P, *input_shape]``, one for all points, or ``[B, P, *input_shape]``, one for each.
        input_shape: The shape of a point.
        points: ``B``.

    Returns:
        Whether there is one frame per point.

    Raises:
        TypeError: Not a floating point tensor.
        ValueError: Wrong shape, not finite, or not orthonormal to the rounding of its dtype.
    """
    checks.floating_tensor("frame", frame)
    shape = list(input_shape)
    each = frame.dim() == len(shape) + 2
    lead = 2 if each else 1
    fits = frame.dim() == len(shape) + lead and list(frame.shape[lead:]) == shape and (not each or len(frame) == points)
    if not fits or frame.shape[lead - 1] < 1:
        one, many = ["P", *shape], [points, "P", *shape]
        raise ValueError(
            f"frame must be [{', '.join(map(str, one))}] or [{', '.join(map(str, many))}], got {list(frame.shape)}"
        )
    checks.finite("frame", frame)
    flat = frame.detach().flatten(lead).to(torch.float64)
    dimensions = flat.shape[-1]
    if flat.shape[-2] > dimensions:
        raise ValueError(
            f"frame must have at most as many directions as the {dimensions} input dimensions, got {flat.shape[-2]}"
        )
    products = flat @ flat.transpose(-1, -2)
    error = (products - torch.eye(flat.shape[-2], dtype=torch.float64, device=flat.device)).abs()
    # Rounding the entries moves a product of unit vectors by at most 2 eps; the rest is room for how they were made.
    if error.numel() and float(error.max()) > 8 * torch.finfo(frame.dtype).eps * max(1.0, math.sqrt(dimensions) / 8):
        place = (error == error.max()).nonzero()[0].tolist()
        raise ValueError(
            f"frame must be orthonormal, but the product of directions {place[-2]} and {place[-1]} is "
            f"{float(products[tuple(place)]):.6g}"
        )
    return each
