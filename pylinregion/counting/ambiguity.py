"""How many signs rounding may have decided: an estimate, from the same vertices in two precisions."""

from __future__ import annotations

import torch
from torch import Tensor

from pylinregion.counting.batch_counts import number_of
from pylinregion.counting.request import CountRequest
from pylinregion.counting.vertex_evaluator import VertexEvaluator
from pylinregion.runtime.observer import observe
from pylinregion.runtime.vertices import Split


class AmbiguityEstimate:
    """The network of a request in its dtype and in another, to be compared around points."""

    def __init__(self, request: CountRequest) -> None:
        self._request = request
        counted, other = request.x.dtype, torch.float64
        if counted == torch.float64:
            other = torch.float32
        self._precisions = [VertexEvaluator(request, dtype) for dtype in (counted, other)]

    def signs(self, rows: slice | Tensor) -> Tensor:
        """``[b]`` int64: the ambiguous signs around the points of these rows."""
        points = number_of(rows)
        own, other = (self._reported(at, rows, points) for at in self._precisions)
        if self._request.x.dtype == torch.float64:
            scale = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
            return ambiguous_signs(other, own, points, scale, self._request.x.device)
        return ambiguous_signs(own, other, points, 1.0, self._request.x.device)

    def _reported(self, at: VertexEvaluator, rows: slice | Tensor, points: int) -> dict[int, list[Tensor]]:
        """What each layer reports at the vertices."""
        formed = [value.materialise() if isinstance(value, Split) else value for value in at.start(rows)]
        return observe(at.evaluator, formed, points * self._request.vertices)[1]


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
