"""Jobs on threads of Python, none of which outlives the call that started it, whatever interrupts that."""

from __future__ import annotations

import _thread
import atexit
import collections
import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_parallel(
    jobs: Iterable[Job],
    work: Callable[[Job], Result],
    workers: int,
    done: Callable[[Result], object],
    setting: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    stop: Callable[[], object] = lambda: None,
) -> None:
    """Do jobs, each on one of some threads, in no particular order.

    Whatever ends this early, an error of a job or an interrupt, no more jobs are begun, and those that run are waited
    for. The end of the process waits for them too, where an interrupt got in between.

    Args:
        jobs: What to do.
        work: Does it.
        workers: How many threads; there may be fewer where the system gives no more.
        done: Called in this thread with the result of each job.
        setting: What each thread is in meanwhile.
        stop: Called at the end, early or not: jobs that still run need not be finished.
    """
    crew = _Crew(jobs)
    left = len(crew.todo)

    def run() -> None:
        if not crew.enter():
            return
        try:
            with setting():
                for job in crew:
                    crew.report(work(job), None)
        except BaseException as error:  # raised again by the thread that waits for the results
            crew.report(None, error)
        finally:
            crew.leave()

    try:
        for number in range(min(workers, left)):
            # Not a threading.Thread: its start() waits for the thread, and an interrupt then leaves one that may be
            # about to begin, which nobody can wait for. Such a thread finds the crew closed, and touches nothing.
            try:
                _thread.start_new_thread(run, ())
            except RuntimeError:
                if number == 0:
                    raise
                break
        for _ in range(left):
            result, error = crew.result()
            if error is not None:
                raise error
            done(result)
    finally:
        try:
            stop()
        finally:
            try:
                crew.close()
            finally:  # again, for an interrupt may come as it begins
                crew.close()


class _Crew:
    """The threads of one call, and what they are to do."""

    def __init__(self, jobs: Iterable[Any]) -> None:
        self.todo = collections.deque(jobs)
        self._changed = threading.Condition()
        self._closed = False
        self._inside = 0
        self._results: collections.deque[tuple[Any, BaseException | None]] = collections.deque()
        _crews.add(self)

    def enter(self) -> bool:
        """Begin to work, unless it is too late."""
        with self._changed:
            self._inside += not self._closed
            return not self._closed

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def __iter__(self) -> _Crew:
        return self

    def __next__(self) -> Any:
        """The next job, if there is one and it is wanted."""
        with self._changed:
            if self._closed or not self.todo:
                raise StopIteration
            return self.todo.popleft()

    def report(self, result: Any, error: BaseException | None) -> None:
        with self._changed:
            self._results.append((result, error))
            self._changed.notify_all()

    def result(self) -> tuple[Any, BaseException | None]:
        """Of one job; waits for it."""
        with self._changed:
            while not self._results:
                self._changed.wait()
            return self._results.popleft()

    def close(self) -> None:
        """Let nobody begin a job any more, and wait until nobody works; an interrupt meanwhile is raised afterwards."""
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                with self._changed:
                    self._closed = True
                    while self._inside:
                        self._changed.wait()
                break
            except KeyboardInterrupt as another:
                interrupt = another
        if interrupt is not None:
            raise interrupt


_crews: weakref.WeakSet[_Crew] = weakref.WeakSet()


@atexit.register
def _end() -> None:
    for crew in list(_crews):
        crew.close()
