"""The affine maps of regions as float64 numbers that are worth something: where rounding leaves too little, exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion.exact import maps
from pylinregion.exact.fixed_point import PRECISION, Digits, digits_for
from pylinregion.exact.map_errors import maps_and_errors
from pylinregion.exact.maps import Maps, Reals
from pylinregion.exact.maps_in_digits import maps_in_digits
from pylinregion.exact.pattern_table import Patterns, part_of
from pylinregion.exact.residues import exact_maps
from pylinregion.lowering.stages import Stages

_AT_ONCE = 1 << 23  # numbers of a stage's vectors, in digits
_PRECISIONS = PRECISION, 2 * PRECISION, 3 * PRECISION  # slopes may be much less than values
_WORTH = 1e-6  # of itself, what a map may be off by, proven


def affine_maps(stages: Stages, inputs: Array, extents: Array, patterns: Patterns, worth: float = _WORTH) -> Array:
    """The outputs on regions as affine functions, right to a millionth.

    Of each output the slopes are off by at most a millionth of their 2-norm, and the constant by a millionth of what
    ``|a s| + |b t| + |c|`` can be. Float64 with a bound of its rounding errors proves that nearly everywhere, by norms
    or, in deep networks, row by row, and is then mostly much nearer; what it does not prove is computed in digits, or
    exactly and rounded correctly.

    Args:
        stages: The network.
        inputs: ``[inputs, columns]``: of s, t ... and the constant.
        extents: ``[columns - 1]``: the largest |s|, |t| ...
        patterns: ``[regions, bytes]``.
        worth: What it may be off by in place of a millionth.

    Returns:
        ``[regions, outputs, columns]``.
    """
    in_floats = Maps(stages, torch.from_numpy(np.ascontiguousarray(inputs)), Reals())
    result = np.empty((len(patterns), in_floats.outputs, inputs.shape[1]))
    good = np.zeros(len(patterns), dtype=bool)
    for rows, chunk, bounds in in_floats.bounded_chunks(patterns):
        result[rows] = chunk.numpy()
        good[rows] = _are_worth(result[rows], bounds.numpy(), extents, worth).all(axis=1)
        if not good[rows].any():  # the network is so deep that norms prove nothing
            break
    left = np.flatnonzero(~good)
    if len(left):
        result[left], errors = maps_and_errors(in_floats, part_of(patterns, left))
        good[left] = _are_worth(result[left], errors, extents, worth).all(axis=1)
        left = np.flatnonzero(~good)
    for some, digits in _tries(stages, good, inputs.shape[1]):
        result[some], errors = maps_in_digits(stages, inputs, part_of(patterns, some), digits)
        good[some] = _are_worth(result[some], errors, extents, worth).all(axis=1)
    left = np.flatnonzero(~good)
    if len(left):
        result[left] = exact_maps(stages, inputs, patterns[left])
    return result


def most_off(maps: Array, extents: Array) -> Array:
    """``[regions, outputs]``: what :func:`affine_maps` may be off by, anywhere on the slice, from what it found."""
    slopes = np.linalg.norm(maps[:, :, :-1], axis=2) * np.linalg.norm(extents)
    sizes = np.abs(maps[:, :, -1]) + np.abs(maps[:, :, :-1]) @ extents
    return np.asarray(2 * _WORTH * (slopes + sizes))


def jacobians(stages: Stages, patterns: Patterns) -> Tensor:
    """The derivative of the outputs by the inputs on regions: of each output right to a millionth of its 2-norm.

    Args:
        stages: The network.
        patterns: ``[regions, bytes]``.

    Returns:
        ``[regions, outputs, inputs]`` float64.
    """
    result, bounds = maps.jacobians(stages, patterns)
    good = (bounds <= _WORTH * result.norm(dim=2)).all(dim=1).numpy()
    result = result if good.all() else result.clone()
    for some, digits in _tries(stages, good, result.shape[1]):
        result[some], errors = maps.jacobians_in_digits(stages, part_of(patterns, some), digits)
        good[some] = (errors <= _WORTH * result[some].norm(dim=2)).all(dim=1).numpy()
    left = np.flatnonzero(~good)
    if len(left):
        everywhere = np.eye(stages.inputs, stages.inputs + 1)  # and the constant
        result[left] = torch.from_numpy(exact_maps(stages, everywhere, patterns[left])[:, :, :-1].copy())
    return result


def _tries(stages: Stages, good: NDArray[np.bool_], vectors: int) -> Iterator[tuple[Int64s, Digits]]:
    """Regions that are not good yet, some at a time, and digits for them: few, then more for those that need more.

    Args:
        stages: The network.
        good: ``[regions]``: read again after each try.
        vectors: Of a region.
    """
    step = max(1, _AT_ONCE // (max(stage.rows for stage in stages.stages) * vectors))
    for precision in _PRECISIONS:
        left = np.flatnonzero(~good)
        digits = digits_for(stages.stages, precision) if len(left) else None
        if digits is None:
            return
        for begin in range(0, len(left), step):
            yield left[begin : begin + step], digits


def _are_worth(found: Array, bounds: Array, extents: Array, part: float) -> Array:
    """``[regions, outputs]`` bool, from bounds ``[regions, outputs, columns]``, or the same ones for all regions."""
    slopes, off = (np.linalg.norm(each[..., :-1], axis=-1) for each in (found, bounds))
    size = np.abs(found[:, :, -1]) + np.abs(found[:, :, :-1]) @ extents
    with np.errstate(invalid="ignore"):
        worth: Array = (off <= part * slopes) & (bounds[..., -1] <= part * size)
    return worth
