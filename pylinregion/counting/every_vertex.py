"""Counting by the pre-activations at every vertex."""

from __future__ import annotations

import torch
from torch import Tensor

from pylinregion.counting.ambiguity import AmbiguityEstimate
from pylinregion.counting.batch_counts import BatchCounts, number_of
from pylinregion.counting.batches import Needs
from pylinregion.counting.chain_match import OUTPUT_NUMBER
from pylinregion.counting.counters import Sites, Tally
from pylinregion.counting.request import CountRequest
from pylinregion.counting.vertex_evaluator import VertexEvaluator
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.runtime.rows import as_rows
from pylinregion.runtime.workspace import Workspace


class EveryVertex:
    """The network is evaluated at all vertices.

    Args:
        request: What is counted.
        at: The network at these.
        estimate: Of the signs that rounding may have decided; None: it is not asked for.

    Attributes:
        needs: What a point needs.
    """

    def __init__(self, request: CountRequest, at: VertexEvaluator, estimate: AmbiguityEstimate | None = None) -> None:
        self._request, self._at, self._estimate = request, at, estimate
        body = at.evaluator.body
        self._sites = Sites.of(request.network, request.counted, body, request.options.include_output)
        peak, largest = body.bytes_per_row(request.x.dtype)
        memory = request.vertices * (peak + 8 * self._sites.words) + 1
        self.needs = Needs(memory, request.vertices * largest)

    def count(self, rows: slice | Tensor, workspace: Workspace, threads: int) -> BatchCounts:
        """Count around the points of these rows.

        Args:
            rows: The points.
            workspace: Memory to count them in.
            threads: CPU threads.
        """
        request, evaluator = self._request, self._at.evaluator
        points = number_of(rows)
        tally = Tally(self._sites, points, request.vertices, request.x.device, workspace, threads)
        start = self._at.start(rows)
        outputs = evaluator.run(start, points * request.vertices, tally.counter, workspace, threads)
        if request.options.include_output:
            tally.counter(OUTPUT_NUMBER).signs(outputs[0], ScalarKink())
        nonfinite = tally.nonfinite
        if request.unseen:
            nonfinite = torch.cat([nonfinite, self._nonfinite(outputs[-len(request.unseen) :], points)])
        regions = tally.regions()
        ambiguous = None if self._estimate is None else self._estimate.signs(rows)
        return BatchCounts(tally.changes, regions, nonfinite, ambiguous)

    def _nonfinite(self, values: list[Tensor], points: int) -> Tensor:
        """``[U, points]`` uint8: where the values that the model looks at are NaN or infinite."""
        network = self._request.network
        rows = [
            as_rows(value, network.shaped(index)).reshape(points, -1)
            for index, value in zip(self._request.unseen, values, strict=True)
        ]
        return torch.stack([~each.isfinite().all(dim=1) for each in rows]).to(torch.uint8)
