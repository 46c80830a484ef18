"""At which steps a monitor measures: a schedule of steps, and a budget of time."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from pylinregion._util import checks


def is_log_step(step: int) -> bool:
    """Whether a step is one of the schedule ``"log"``.

    Each step below 30, each 10th below 150, each 100th below 1000, each 1000th below 100 000, and so on: each
    ``10^k``-th below ``10^(k + 2)``.

    Source: the released code of Humayun, Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why", ICML 2024
        (arXiv 2402.15555), up to step 10 000. From there on it takes 150 steps evenly spread over the run, whose length
        is not known here.

    >>> steps = [step for step in range(200_001) if is_log_step(step)]
    >>> steps[28:35], steps[40:46], steps[-2:]
    ([28, 29, 30, 40, 50, 60, 70], [130, 140, 200, 300, 400, 500], [190000, 200000])
    """
    if step < 30:
        return True
    if step < 150:
        return step % 10 == 0
    if step < 1000:
        return step % 100 == 0
    return bool(step % max(1000, 10 ** (len(str(step)) - 2)) == 0)


def schedule(name: str, every: Any) -> Callable[[int], bool]:
    """What a user says of steps, as a function of the step.

    Args:
        name: Of the argument, for messages.
        every: An integer k (each k-th step), ``"log"``, or a collection of steps.

    Raises:
        TypeError, ValueError: It is none of these.
    """
    if isinstance(every, str):
        if every != "log":
            raise ValueError(f"{name} must be an integer, 'log' or a collection of steps, got {every!r}")
        return is_log_step
    if isinstance(every, Collection):
        steps = frozenset(every)
        wrong = next((s for s in steps if isinstance(s, bool) or not isinstance(s, numbers.Integral) or s < 0), None)
        if wrong is not None or not steps:
            raise ValueError(f"{name} must hold steps, integers of at least 0, got {wrong if steps else 'none'!r}")
        return lambda step: step in steps
    each = checks.positive_integer(name, every)
    return lambda step: bool(step % each == 0)


class Stopwatch:
    """How much time went into training and how much into measuring. Fixed in size; goes on after a resume.

    Args:
        clock: Seconds, from any beginning.
        budget: The share of the training time that measuring may take; None: any.
    """

    def __init__(self, clock: Callable[[], float], budget: float | None) -> None:
        self._clock, self.budget = clock, budget
        self._trained = 0.0  # up to _since
        self._since: float | None = None  # None: the clock has not been started
        self.measuring = 0.0
        self.last_cost = 0.0

    def start(self) -> None:
        """Training goes on from here, unless it is going on."""
        if self._since is None:
            self._since = self._clock()

    @property
    def training(self) -> float:
        """Seconds of training, without what was spent in :meth:`measured` and :meth:`left_out`."""
        return self._trained if self._since is None else self._trained + (self._clock() - self._since)

    def affords(self) -> bool:
        """Whether one more measurement, as expensive as the last, stays within the budget."""
        return self.budget is None or self.measuring + self.last_cost <= self.budget * self.training

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """What happens inside is not training."""
        self._trained, self._since = self.training, None
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """What happens inside is measuring."""
        with self.left_out():
            begin = self._clock()
            try:
                yield
            finally:
                self.last_cost = self._clock() - begin
                self.measuring += self.last_cost

    def state_dict(self) -> dict[str, float]:
        """The seconds so far, as plain numbers."""
        return {"training": self.training, "measuring": self.measuring, "last_cost": self.last_cost}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from there; the time since then counts for nothing."""
        self._trained, self._since = float(state["training"]), None
        self.measuring, self.last_cost = float(state["measuring"]), float(state["last_cost"])


def check_budget(budget: Any) -> float | None:
    """A share of the training time, above 0, or None.

    Raises:
        TypeError, ValueError: It is neither.
    """
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, numbers.Real):
        raise TypeError(f"budget must be a number or None, got {type(budget).__name__}")
    share = float(budget)
    if not (math.isfinite(share) and share > 0):
        raise ValueError(f"budget must be finite and above 0, got {budget}")
    return share
