"""What was proved about a count, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    """How the decisions behind a partition were taken: each the sign of a polynomial in the network's parameters.

    The numbers are the same for any number of threads. On processors with other instructions, whose roundings differ,
    some decisions may go to the integers that do not here, and the other way round.

    Attributes:
        filter: Decisions that float64 took, with a proven bound of its rounding errors.
        exact: Decisions that integers took, because float64 could not.
        ties: Of these, how many were exact zeros: lines through a point, equal neurons and the like.
        definition: What is counted, in a sentence.
    """

    filter: int
    exact: int
    ties: int
    definition: str

    @property
    def decisions(self) -> int:
        """All decisions."""
        return self.filter + self.exact

    @property
    def proven(self) -> bool:
        """Whether every decision was proven. There is no other way to take one: what cannot be proven is refused."""
        return True

    def __str__(self) -> str:
        tie = "tie" if self.ties == 1 else "ties"
        return (
            f"{self.decisions} decisions, all proven: {self.filter} in float64 with error bounds, {self.exact} in "
            f"integers ({self.ties} exact {tie})"
        )
