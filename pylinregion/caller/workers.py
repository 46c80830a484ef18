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
    crew = _Crew(jobs, work, setting)
    left = len(crew.todo)
    try:
        for number in range(min(workers, left)):
            # Not a threading.Thread: its start() waits for the thread, and an interrupt then leaves one that may be
            # about to begin, which nobody can wait for. Such a thread finds the crew closed, and touches nothing.
            try:
                _thread.start_new_thread(crew.run, ())
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
    """The threads of one call, and what they are to do.

    A thread that has left holds on to nothing but the crew, and the crew, once closed, to nothing of its caller's:
    torch frees tensors without Python's lock, and a thread that then waits for the lock while the interpreter ends is
    ended in the middle of it, and the process with it.
    """

    def __init__(
        self,
        jobs: Iterable[Any],
        work: Callable[[Any], Any],
        setting: Callable[[], contextlib.AbstractContextManager[object]],
    ) -> None:
        self.todo = collections.deque(jobs)
        self._work: Callable[[Any], Any] | None = work
        self._setting: Callable[[], contextlib.AbstractContextManager[object]] | None = setting
        self._changed = threading.Condition()
        self._closed = False
        self._inside = 0
        self._results: collections.deque[tuple[Any, BaseException | None]] = collections.deque()
        _crews.add(self)

    def run(self) -> None:
        """Work, on a thread."""
        with self._changed:
            if self._closed:
                return
            self._inside += 1
        try:
            self._work_on()
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _work_on(self) -> None:
        """Do jobs as long as there are any. What this holds on to is gone when it returns."""
        work, setting = self._work, self._setting
        assert work is not None and setting is not None  # until it is closed
        try:
            with setting():
                while (job := self._next()) is not None:
                    self._report(work(job[0]), None)
        except BaseException as error:  # raised again by the thread that waits for the results
            self._report(None, error)

    def _next(self) -> tuple[Any] | None:
        """The next job, if there is one and it is wanted."""
        with self._changed:
            return None if self._closed or not self.todo else (self.todo.popleft(),)

    def _report(self, result: Any, error: BaseException | None) -> None:
        with self._changed:
            self._results.append((result, error))
            self._changed.notify_all()

    def result(self) -> tuple[Any, BaseException | None]:
        """Of one job; waits for it."""
        with self._changed:
            while not self._results:
                self._changed.wait(1.0)  # an interrupt that comes just before the wait is raised after it
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
                    self._work = self._setting = None
                    self.todo.clear()
                    self._results.clear()
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
