"""Many slices of one network, folded together: of each, the lines that may cross it, as a small system.

One pass through the stages, in which each slice has three rows (what s, t and 1 give; a segment, two) and one for each
unit that is not settled on it (what later units take from that unit). Bounds over the polygon settle most units on the
way; these go on as affine functions, or as nothing. What is left is what
:class:`pylinregion.exact.many_slices.ManySlices` enumerates. docs/exactness.md, 5.2, has the bounds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from pylinregion._util import memory
from pylinregion._util.errors import BudgetExceededError
from pylinregion._util.tensors import CPU
from pylinregion.exact.dense_fold import DenseFolder, Star, is_chain
from pylinregion.exact.fixed_point import Digits
from pylinregion.exact.fold_pass import FoldPass, LooseBoundsError
from pylinregion.exact.fold_room import Room, TooManyColumnsError
from pylinregion.exact.fold_values import Values
from pylinregion.exact.folded_network import FoldedNetwork
from pylinregion.exact.slice_systems import SliceOutputs, Slices, SliceSystems
from pylinregion.lowering.stages import INPUT, Stages

_MOST_NUMBERS = 2**22  # of the forms, or the columns, of a stage on all slices
_MOST_ON_A_DEVICE = 2**27  # of these there
_TIMES_ON_A_DEVICE = 8  # as much memory there is for, at least


class SliceFolder:
    """Folds a network over slices.

    Args:
        stages: The network.
        outputs: Whether what it gives is asked for, too.
        device: Where it is folded.

    Attributes:
        in_digits: Whether the last fold that could choose ended in digits. The next one begins with them.
    """

    def __init__(self, stages: Stages, outputs: bool = False, device: torch.device = CPU) -> None:
        self.network = FoldedNetwork(stages, outputs, device)
        self._dense = DenseFolder(stages) if not outputs and device == CPU and is_chain(stages) else None
        self.in_digits = False

    @property
    def widest(self) -> int:
        """The most rows of a stage."""
        return self.network.widest

    @property
    def most_columns(self) -> int:
        """Of several slices together."""
        return max(1, self._most_numbers // max(1, self.widest))

    @property
    def _most_numbers(self) -> int:
        device = self.network.device
        if device == CPU:
            return _MOST_NUMBERS
        if device.type != "cuda":
            return _MOST_ON_A_DEVICE
        return min(_MOST_ON_A_DEVICE, max(_MOST_NUMBERS, memory.free_of(device) // (8 * _TIMES_ON_A_DEVICE)))

    def fold(
        self, slices: Slices, max_bytes: int | None = None, cells: bool = False, in_digits: bool | None = None
    ) -> SliceSystems:
        """Fold it over slices of a scale that :func:`pylinregion.exact.line_system.check_scale` lets through.

        Args:
            slices: Where.
            max_bytes: What the fold of one slice may take; None: the memory budget.
            cells: Whether corners of cells will be asked for: rows are then bounded so that float64 tells them.
            in_digits: Whether to begin in digits; None: as the last one ended, so that what comes depends on that.

        Raises:
            TooManyColumnsError: Of two slices or more.
            BudgetExceededError: One slice takes more than ``max_bytes``.
        """
        most = self.most_columns if len(slices) > 1 else None
        room = Room(slices.axes, self.network.widest_behind, most, max_bytes)
        if self._dense is not None and slices.axes == 2:
            star = Star(slices.origins, np.stack([slices.u, slices.v], axis=1), None, slices.corners)
            if (found := self._dense.fold(star, room, cells)) is not None:
                return SliceSystems(**found)
        return self._folded(slices, room, _nothing, cells, in_digits)[0].systems()

    def fold_segments(
        self, segments: Slices, *, most: int | None, between: Callable[[], object]
    ) -> tuple[SliceSystems, SliceOutputs | None]:
        """The same of segments, and what the network gives there if this is asked for.

        Args:
            segments: Where.
            most: How many columns are held; None: what fits into the memory budget.
            between: Called between two stages; an error of it ends the fold.

        Raises:
            TooManyColumnsError: There are more than ``most``.
            BudgetExceededError: They take more than the memory budget.
        """
        room = Room(segments.axes, self.network.widest_behind, most, None)
        fold, values = self._folded(segments, room, between, cells=len(segments) == 1)
        outputs = fold.output_forms(values[self.network.end - 1]) if self.network.outputs else None
        return fold.systems(), outputs

    @cached_property
    def _on_the_cpu(self) -> SliceFolder:
        return SliceFolder(self.network.stages, self.network.outputs)

    def _folded(
        self, slices: Slices, room: Room, between: Callable[[], object], cells: bool, in_digits: bool | None = None
    ) -> tuple[FoldPass, dict[int, Values]]:
        try:
            return self._folded_in_place(slices, room, between, cells, in_digits)
        except torch.OutOfMemoryError:  # of a device
            pass
        torch.cuda.empty_cache()
        if len(slices) > 1:
            raise TooManyColumnsError
        warnings.warn(
            f"{self.network.device} has too little free memory for the fold of a slice: the CPU folds it",
            RuntimeWarning,
            2,
        )
        return self._on_the_cpu._folded(slices, room, between, cells, in_digits)

    def _folded_in_place(
        self, slices: Slices, room: Room, between: Callable[[], object], cells: bool, in_digits: bool | None
    ) -> tuple[FoldPass, dict[int, Values]]:
        rows = (slices.axes + 1) * len(slices)
        if rows * max(self.widest, slices.origins.shape[1]) > self._most_numbers and len(slices) > 1:
            raise TooManyColumnsError
        fold, values = self._passed_as_pays(slices, room, between, self.in_digits if in_digits is None else in_digits)
        fold.tighten(cells)
        if fold.would_pay_in_digits(cells):
            try:
                fold, values = self._passed(self.network.digits, False, slices, room, between)
            except (BudgetExceededError, TooManyColumnsError):  # there is no room for them
                pass
            else:
                fold.tighten(cells)
        if in_digits is None:
            self.in_digits = fold.digits is not None
        return fold, values

    def _passed_as_pays(
        self, slices: Slices, room: Room, between: Callable[[], object], in_digits: bool
    ) -> tuple[FoldPass, dict[int, Values]]:
        """In float64, or in digits where its bounds are so loose that these take less time."""
        if not in_digits:
            try:
                return self._passed(None, True, slices, room, between)
            except LooseBoundsError:
                pass
        try:
            return self._passed(self.network.digits, False, slices, room, between)
        except (BudgetExceededError, TooManyColumnsError):  # there is no room for digits
            return self._passed(None, False, slices, room, between)

    def _passed(
        self, digits: Digits | None, may_end: bool, slices: Slices, room: Room, between: Callable[[], object]
    ) -> tuple[FoldPass, dict[int, Values]]:
        fold = FoldPass(self.network, slices, room, digits, may_end)
        stages = self.network.stages
        values = {INPUT: fold.plane(slices)}
        for number, stage in enumerate(stages.stages[: self.network.end]):
            between()
            made = fold.rows(number, values)
            values[number] = fold.through_units(stage.units, stages.first_lines[number], made)
        return fold, values


def _nothing() -> None:
    pass
