"""What a fold reads of a network, whatever the slices are."""

from __future__ import annotations

from functools import cached_property

import torch

from pylinregion._util.arrays import Int64s
from pylinregion._util.tensors import CPU, as_tensor
from pylinregion.exact.fixed_point import Digits, digits_for
from pylinregion.exact.fold_room import bytes_of_fold, columns_that_fit, widest_behind
from pylinregion.lowering.stages import Stages


class FoldedNetwork:
    """What a fold reads of a network.

    Args:
        stages: Its.
        outputs: Whether what it gives is asked for, too.
        device: Where that is.
    """

    def __init__(self, stages: Stages, outputs: bool, device: torch.device = CPU) -> None:
        self.stages = stages
        self.device = device
        self.outputs = outputs
        with_lines = [number for number, stage in enumerate(stages.stages) if stage.units.lines]
        self.end = with_lines[-1] + 1 if with_lines else 0  # the stages behind cut nothing
        if outputs:
            self.end = len(stages.stages)
        kept = stages.stages[: self.end]
        self.row_norms = [
            {source: as_tensor(block.row_norms, device) for source, block in stage.blocks.items()} for stage in kept
        ]
        self.products = [sum(block.rows * block.terms for block in stage.blocks.values()) for stage in kept]
        self.numbers = sum(block.numbers.size for stage in kept for block in stage.blocks.values())
        self.widest = max((stage.rows for stage in kept), default=0)
        self.widest_behind = widest_behind([stage.rows for stage in kept], [list(stage.blocks) for stage in kept])
        self.with_lines = with_lines
        self.last_reader = {source: number for number, stage in enumerate(kept) for source in stage.blocks}
        self.maxima = any(stage.units.groups is not None for stage in kept)

    def columns_all_along(self, births: Int64s) -> int:
        """How many columns of the widest stage take what the fold of a slice did.

        Args:
            births: ``[stages with lines + 1]``: how many columns there were after each, from 0 on.
        """
        sizes = [
            bytes_of_fold(int(columns), self.widest_behind[stage])
            for columns, stage in zip(births[1:], self.with_lines, strict=True)
        ]
        return columns_that_fit(max(sizes, default=0), self.widest)

    @cached_property
    def digits(self) -> Digits | None:
        """Those of a fold in digits; None: it is not for this network."""
        return None if self.outputs else digits_for(self.stages.stages[: self.end])
