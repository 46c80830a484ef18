"""How many signs rounding may have decided: an estimate, from the same vertices in two precisions."""

from __future__ import annotations

import torch
from torch import Tensor


def ambiguous_signs(
    low: dict[int, list[Tensor]], high: dict[int, list[Tensor]], points: int, scale: float, device: torch.device
) -> Tensor:
    """Count the signs within the estimated rounding error of a kink.

    The error of a layer at a point is taken to be the largest difference between the two precisions over the point's
    vertices and the layer's neurons, times ``scale``. Labels (max-pool winners, comparisons) are ambiguous where the
    two precisions disagree.

    Args:
        low: What each layer reported in the lower precision, by layer number.
        high: The same in the higher precision.
        points: ``B``; each value is ``[B * V, ...]``.
        scale: The rounding error of the counted dtype over that of the lower precision.
        device: Of the result.

    Returns:
        ``[B]`` int64.
    """
    total = torch.zeros(points, dtype=torch.int64, device=device)
    for number, values in high.items():
        for coarse, fine in zip(low[number], values, strict=True):
            a, b = coarse.reshape(points, -1), fine.reshape(points, -1)
            if not fine.is_floating_point():
                total += (a != b).sum(dim=1)
            elif b.shape[1]:
                error = (a - b).abs().amax(dim=1, keepdim=True) * scale
                total += (b.abs() <= error).sum(dim=1)
    return total
