"""Several walks at once, on threads: their results in order, what they have found so far told together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.torch_settings import one_thread
from pylinregion.caller.workers import in_parallel
from pylinregion.native.exact_engines import Report

Job = TypeVar("Job")
Found = TypeVar("Found")


class SharedReport:
    """What several walks have found so far, together.

    Args:
        report: Is told it; None: nobody is.
    """

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._regions = 0
        self._stopped = threading.Event()

    def of_one(self) -> Report:
        """For one walk, which it stops once :meth:`stop` was called."""
        before = 0

        def told(regions: int) -> None:
            nonlocal before
            if self._stopped.is_set():
                raise _StoppedError
            with self._lock:
                self._regions += regions - before
                before = regions
                if self._report is not None:
                    self._report(self._regions)

        return told

    def stop(self) -> None:
        """Let the walks end at their next report."""
        self._stopped.set()


def in_order(
    jobs: Sequence[Job], work: Callable[[Job], Found], threads: int, report: SharedReport | None = None
) -> list[Found]:
    """The results of jobs, done on some threads, on each by itself: torch's operators are not cut up there.

    An error or an interrupt stops the walks of all of them.

    Args:
        jobs: What to do.
        work: Does it.
        threads: How many.
        report: That of the walks; None: they are none.
    """
    if threads <= 1 or len(jobs) <= 1:
        return [work(job) for job in jobs]
    found: dict[int, Found] = {}

    def numbered_work(job: tuple[int, Job]) -> tuple[int, Found]:
        return job[0], work(job[1])

    def keep(result: tuple[int, Found]) -> None:
        found[result[0]] = result[1]

    def stop() -> None:
        if report is not None and len(found) < len(jobs):
            report.stop()

    with one_thread():
        in_parallel(list(enumerate(jobs)), numbered_work, threads, keep, _alone, stop)
    return [found[number] for number in range(len(jobs))]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    torch.set_num_threads(1)  # what a new thread has is up to its OpenMP library
    with plain_torch():
        yield


class _StoppedError(Exception):
    """Ends a walk that nobody waits for any more."""
