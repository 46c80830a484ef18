"""What is found around points: of a batch, and of all of them as batches come in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pylinregion.caller.processes import Ranks


class BatchCounts(NamedTuple):
    """What was found around ``b`` points.

    Attributes:
        changes: ``[b, L]`` int64: neurons of each layer that change.
        regions: ``[b]`` int64: different patterns.
        nonfinite: ``[L + U, b]`` uint8: 1 where a pre-activation of a layer is NaN or infinite, or one of ``U`` other
            values that the model looks at.
        ambiguous: ``[b]`` int64: signs that rounding may have decided; None: it was not asked for.
    """

    changes: Tensor
    regions: Tensor
    nonfinite: Tensor
    ambiguous: Tensor | None

    @classmethod
    def zeros(cls, points: int, layers: int, others: int, ambiguous: bool, device: torch.device) -> BatchCounts:
        """Nothing was found yet around so many points."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        nonfinite = zeros(layers + others, points, dtype=torch.uint8)
        return cls(zeros(points, layers), zeros(points), nonfinite, zeros(points) if ambiguous else None)

    def put(self, rows: slice | Tensor, found: BatchCounts) -> None:
        """Write what was found around some of the points."""
        self.changes[rows] = found.changes
        self.regions[rows] = found.regions
        self.nonfinite[:, rows] = found.nonfinite
        if self.ambiguous is not None and found.ambiguous is not None:
            self.ambiguous[rows] = found.ambiguous

    def summed(self, ranks: Ranks) -> BatchCounts:
        """Of all processes, of which each has its part of the points, and zeros elsewhere."""
        changes, regions, nonfinite = ranks.summed(self.changes, self.regions, self.nonfinite)
        ambiguous = None if self.ambiguous is None else ranks.summed(self.ambiguous)[0]
        return BatchCounts(changes, regions, nonfinite, ambiguous)


def number_of(rows: slice | Tensor) -> int:
    """How many points these rows are."""
    number: int = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
    return number
