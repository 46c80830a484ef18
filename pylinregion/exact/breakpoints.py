"""What the tracer finds on segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array, Int64s


@dataclass(frozen=True, eq=False)
class Breakpoints:
    """The breakpoints of B segments, one segment after the other, and what was decided on the way.

    Attributes:
        offsets: ``[B + 1]``: those of segment b are ``offsets[b]`` up to ``offsets[b + 1]``.
        t: ``[breakpoints]``: where, from 0 to 1, ascending on each segment.
        change_offsets: ``[breakpoints + 1]``: into ``changes``.
        changes: The lines that change at each breakpoint, ascending. Where the winner of a maximum changes, two do.
        maps: ``[regions, outputs, 2]``: slope and value at t = 0 of each output; None if they were not asked for.
        starts: ``[B, bytes]`` uint8: the pattern of each segment's first region, bit r % 8 of byte r // 8 for line r,
            of the candidates of a maximum that of the winner; None if they were not asked for.
        filter: Decisions that float64 took.
        exact: Decisions that integers took.
        zeros: Of these, exact zeros.
    """

    offsets: Int64s
    t: Array
    change_offsets: Int64s
    changes: NDArray[np.int32]
    maps: Array | None
    starts: NDArray[np.uint8] | None
    filter: int
    exact: int
    zeros: int

    @classmethod
    def of(cls, found: dict[str, Any]) -> Breakpoints:
        """From what the core gives: how many there are of each, instead of where they begin."""
        names = ("t", "changes", "filter", "exact", "zeros")
        return cls(
            offsets=offsets_of(found["breakpoints"]),
            change_offsets=offsets_of(found["change_counts"]),
            maps=found.get("maps"),
            starts=found.get("starts"),
            **{name: found[name] for name in names},
        )


def offsets_of(counts: Int64s) -> Int64s:
    """Where each begins, and the end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
