"""Steps that are evenly spaced on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence


def log_spaced_steps(steps: int, count: int) -> list[int]:
    """0, and up to ``count`` different steps from 1 to ``steps`` that are evenly spaced on a logarithmic axis.

    >>> log_spaced_steps(1000, 4)
    [0, 1, 10, 100, 1000]
    """
    exponents = [position / max(1, count - 1) for position in range(count)]
    return sorted({0, steps, *(round(steps**exponent) for exponent in exponents)})


def thinned(steps: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of some steps, evenly chosen among them, with the last.

    >>> thinned([0, 1, 10, 100, 1000], 3)
    [0, 10, 1000]
    """
    return list(steps[:: -len(steps) // count][::-1])
