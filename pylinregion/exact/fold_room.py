"""What a fold may take: columns, and bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pylinregion._util import memory
from pylinregion._util.errors import BudgetExceededError
from pylinregion.lowering.stages import MOST_LINES_AT_ONCE

_ALIVE = 4  # arrays of columns at the same time: of a stage, of the one before, and beside both; measured
_MOST_BYTES = 8 * MOST_LINES_AT_ONCE**2  # 32 TiB
_NO_MATTER = 1 << 28  # bytes that nobody is asked for


class TooManyColumnsError(Exception):
    """So many slices take more numbers than are held at a time; fewer will do, or a part of the only one.

    Attributes:
        stage: How many stages had been folded by then.
        columns: How many columns there were.
    """

    def __init__(self, stage: int = 0, columns: int = 0) -> None:
        super().__init__()
        self.stage, self.columns = stage, columns


@dataclass(frozen=True)
class Room:
    """What a fold may take.

    Attributes:
        axes: Of what is folded: two of slices, one of segments.
        widest: By stage, the most rows of those whose columns are there from then on (:func:`widest_behind`).
        most_columns: How many columns are held, of all slices together; None: what fits into the memory budget.
        max_bytes: What the fold of one slice may take; None: the memory budget.
    """

    axes: int
    widest: Sequence[int]
    most_columns: int | None
    max_bytes: int | None

    def check(self, columns: int, stage: int, squares: int | None = None) -> None:
        """Raise if so many columns, of a stage and those before it, are too many.

        Args:
            columns: Of all slices together.
            stage: The stage.
            squares: The sum of what slices have, each squared; None: as of one.

        Raises:
            TooManyColumnsError: There are more than ``most_columns``.
            BudgetExceededError: They take more than ``max_bytes``.
        """
        if self.most_columns is not None and columns > self.most_columns:
            raise TooManyColumnsError(stage, columns)
        self.check_bytes(columns, bytes_of_fold(columns, self.widest[stage], squares))

    def check_bytes(self, columns: int, size: int) -> None:
        """Raise a ``BudgetExceededError`` if so many bytes, for so many columns, are too many."""
        if size <= _NO_MATTER:
            return
        budget = min(memory.budget(self.max_bytes), _MOST_BYTES)
        if size <= budget:
            return
        takes = f"to follow them through the network takes {size} bytes, more than the memory budget of {budget} bytes"
        if self.axes == 1:  # which is cut as long as that helps
            raise BudgetExceededError(
                f"on a stretch of this segment, however short, {columns} or more neurons are on both sides, and "
                f"{takes}. Take a segment that keeps away from there, or set {memory.BUDGET_VARIABLE} to more",
                1,
            )
        raise BudgetExceededError(
            f"on this slice {columns} or more neurons are on both sides, and {takes}. Take a slice of "
            f"{0.9 * (budget / size) ** 0.5:.2g} of its width and height, fewer layers, or raise memory_budget",
            1,
        )


def widest_behind(rows: Sequence[int], sources: Sequence[Sequence[int]]) -> list[int]:
    """By stage, the most rows of the stages from it on, and of those that these read.

    Args:
        rows: Of each stage.
        sources: The stages that each reads; the input is -1.
    """
    found, widest, first = [0] * len(rows), 0, len(rows)
    for stage in reversed(range(len(rows))):
        reached = min([stage, *(source for source in sources[stage] if source >= 0)])
        widest = max([widest, *rows[min(reached, first) : first]])
        first = min(first, reached)
        found[stage] = widest
    return found


def bytes_of_fold(columns: int, widest: int, squares: int | None = None) -> int:
    """What a fold takes, with so many columns of stages with so many rows; ``squares``: see :meth:`Room.check`."""
    return 8 * (_ALIVE * columns * widest + (columns * columns if squares is None else squares))


def columns_that_fit(max_bytes: int, widest: int) -> int:
    """How many columns the fold of one slice may have."""
    half = _ALIVE * widest / 2
    return int(math.sqrt(half**2 + max_bytes / 8) - half)


def bytes_of_digits(vectors: int, rows: int, kept: int) -> int:
    """What a stage with so many rows takes in digits, of which so many are kept: these, and float64 of them."""
    return vectors * rows * _ALIVE * (4 * kept + 8)
