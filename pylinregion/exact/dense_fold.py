"""Folds of networks that are chains of dense layers: slice by slice, each in the cache, in the core.

What :mod:`pylinregion.exact.fold_pass` does for networks of any maps, in a part of its time; docs/exactness.md, 5.6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import NORM_UNDERFLOW, NORM_UP
from pylinregion.exact.fold_room import Room
from pylinregion.lowering.linear_maps import Dense
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.native import exact_engines

_LOOSE = 0.1  # of the slices have bounds that leave decisions to integers: sharper ones are worth their time


class Star(NamedTuple):
    """What is folded around each of some points: all ``x + sum of s_k v_k`` with ``sum of |s_k|`` at most its radius.

    Attributes:
        points: ``[B, inputs]`` float64.
        directions: ``[1, P, inputs]`` float64, or ``[B, P, inputs]``: v.
        radii: ``[B]`` float64; or None.
        corners: ``[B, n, 2]``: instead of a radius a polygon on two directions.
    """

    points: Array
    directions: Array
    radii: Array | None
    corners: Array | None = None


class DenseFolder:
    """Folds a chain of dense layers.

    Args:
        stages: One that :func:`is_chain` takes.
    """

    def __init__(self, stages: Stages) -> None:
        layers = [stage for stage in stages.stages if stage.units.lines]
        blocks = [_only_block(stage) for stage in layers]
        self._weights = [torch.from_numpy(block.weight) for block in blocks]
        self._bias = [torch.from_numpy(stage.bias) for stage in layers]
        self._chain: Any = exact_engines.DenseLayers(
            [
                (
                    np.ascontiguousarray(block.weight),
                    np.ascontiguousarray(stage.bias),
                    block.row_norms,
                    stage.units.slopes.reshape(-1, 2),
                    block.norm,
                    block.frobenius,
                    float(np.linalg.norm(stage.bias)) * NORM_UP + NORM_UNDERFLOW,
                )
                for stage, block in zip(layers, blocks, strict=True)
            ],
            lines=stages.lines,
        )

    def fold(self, star: Star, room: Room, cells: bool) -> dict[str, Any] | None:
        """What is left of the network on each slice; None: bounds row by row would be worth their time.

        Args:
            star: Where.
            room: What it may take.
            cells: Whether corners of cells will be asked for.

        Returns:
            ``SliceSystems`` as a dictionary; ``affine`` is ``[P + 1, rows]``.

        Raises:
            TooManyColumnsError, BudgetExceededError: As ``room`` says.
        """
        points, directions = torch.from_numpy(star.points), torch.from_numpy(star.directions)
        fold = exact_engines.DenseFold(
            self._chain, directions.shape[1], radii=star.radii, corners=star.corners, sizes=_sizes(star)
        )
        units, images = points, directions @ self._weights[0].T
        last = len(self._weights) - 1
        for number, (weight, bias) in enumerate(zip(self._weights, self._bias, strict=True)):
            constants = torch.addmm(bias, units, weight.T)
            units = torch.empty_like(constants)
            columns = fold.layer(
                constants.numpy(),
                images=None if number else images.numpy(),
                units=None if number == last else units.numpy(),
            )
            room.check(columns, number)
        found: dict[str, Any] = fold.systems(cells)
        return None if found.pop("loose") > _LOOSE * len(points) else found


def is_chain(stages: Stages) -> bool:
    """Whether each stage up to the last with lines is a matrix of the one before, with a kink at 0 on each row."""
    with_lines = [number for number, stage in enumerate(stages.stages) if stage.units.lines]
    return bool(with_lines) and all(
        stage.blocks.keys() == {INPUT if number == 0 else number - 1}
        and isinstance(block := _only_block(stage), Dense)
        and block.places == 1
        and _bends_once(stage)
        for number, stage in enumerate(stages.stages[: with_lines[-1] + 1])
    )


def _only_block(stage: Stage) -> Any:
    (block,) = stage.blocks.values()
    return block


def _bends_once(stage: Stage) -> bool:
    units = stage.units
    return (
        units.groups is None
        and units.denominator == 1
        and bool((np.diff(units.line_begin) == 1).all())
        and not units.kinks.any()
        and not units.intercepts.any()
    )


def _sizes(star: Star) -> Array:
    """``[B, 2]``: bounds of the 2-norms of points, and of how far the slice goes from them."""
    norms = _norms(torch.from_numpy(star.directions))
    if star.corners is None:
        assert star.radii is not None
        far = norms.max(dim=1).values * torch.from_numpy(star.radii)
    else:
        far = (torch.from_numpy(np.abs(star.corners)) * norms[:, None]).sum(dim=2).max(dim=1).values
    return torch.stack([_norms(torch.from_numpy(star.points)), far * NORM_UP], dim=1).numpy()


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1) * NORM_UP + NORM_UNDERFLOW
    return norms
