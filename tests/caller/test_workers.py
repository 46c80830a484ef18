"""Threads of Python: all jobs are done, or no more are begun and those that run are waited for."""

import _thread
import contextlib
import subprocess
import sys
import textwrap
import threading

import pytest

from cases import processes
from pylinregion.caller.workers import in_parallel


@pytest.mark.parametrize("workers", [1, 2, 5, 100])
def test_all_jobs_are_done(workers):
    results = []
    in_parallel(range(40), lambda job: job**2, workers, results.append)
    assert sorted(results) == [job**2 for job in range(40)]


def test_without_jobs_no_thread_is_started(monkeypatch):
    monkeypatch.setattr(_thread, "start_new_thread", lambda *arguments: pytest.fail("started"))
    in_parallel([], lambda job: job, 4, lambda result: None)


def test_each_thread_is_in_its_setting():
    here = threading.local()

    @contextlib.contextmanager
    def setting():
        here.inside = True
        yield
        here.inside = False

    results = []
    in_parallel(range(20), lambda job: here.inside, 3, results.append, setting)
    assert results == [True] * 20


def test_an_error_is_raised_and_no_more_jobs_are_begun():
    """An IndexError too, which is what an empty queue raises."""
    begun, stopping = [], threading.Event()

    def work(job):
        begun.append(job)
        if job == 0:
            raise IndexError("job 0")
        stopping.wait()

    with pytest.raises(IndexError, match="job 0"):
        in_parallel(range(1000), work, 2, lambda result: None, stop=stopping.set)
    assert begun in ([0], [0, 1], [1, 0])


def test_what_a_caller_gave_is_let_go_by_the_caller():
    """A tensor that a thread let go as the interpreter ended took the process with it."""
    by = []

    class Held:
        def __del__(self):
            by.append(threading.get_ident())

        def __call__(self, job):
            return job

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            in_parallel(range(4), Held(), 2, lambda result: None)
    finally:
        sys.setswitchinterval(before)
    assert by == [threading.get_ident()] * 300


@pytest.mark.parametrize("given", [0, 1, 2])
def test_the_system_gives_few_threads(given, monkeypatch):
    start, started = _thread.start_new_thread, []

    def limited(*arguments):
        if len(started) == given:
            raise RuntimeError("can't start new thread")
        started.append(start(*arguments))

    monkeypatch.setattr(_thread, "start_new_thread", limited)
    results = []
    if given:
        in_parallel(range(30), lambda job: job, 4, results.append)
        assert sorted(results) == list(range(30))
    else:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            in_parallel(range(30), lambda job: job, 4, results.append)


def forked(script, tmp_path):
    return processes.run(textwrap.dedent(script), cwd=tmp_path)


def run(script, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)


@pytest.mark.turns(2)
def test_interrupts_wait_for_the_jobs_that_run(tmp_path):
    """Three real SIGINTs, one upon the other, fifty times: the first while jobs run, the others while it waits."""
    ran = forked(
        """
        import os, signal, threading
        from pylinregion.caller.workers import in_parallel
        signal.signal(signal.SIGINT, signal.default_int_handler)
        inside, most = set(), []
        for round in range(50):
            both, stopping, release = threading.Barrier(3), threading.Event(), threading.Event()
            def work(job):
                inside.add(job)
                if job < 2:
                    both.wait()
                release.wait()
                inside.discard(job)
            def interrupt():
                both.wait()
                os.kill(os.getpid(), signal.SIGINT)
                stopping.wait()
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                release.set()
            other = threading.Thread(target=interrupt)
            other.start()
            interrupted = False
            try:
                in_parallel(range(1000), work, 2, lambda result: None, stop=stopping.set)
            except KeyboardInterrupt:
                interrupted = True
                most.append(len(inside))
            while other.is_alive():
                try:
                    other.join()
                except KeyboardInterrupt:
                    pass
            assert interrupted
        print("inside", max(most))
        """,
        tmp_path,
    )
    assert (ran.stdout, ran.returncode) == ("inside 0\n", 0), ran.stderr


def test_an_interrupt_while_threads_are_started(tmp_path):
    """At each of the first places where Python looks for signals: the thread that is there begins no job."""
    ran = forked(
        """
        import _thread, os, signal, threading
        from pylinregion.caller.workers import _crews, in_parallel
        signal.signal(signal.SIGINT, signal.default_int_handler)
        start = _thread.start_new_thread
        for round in range(50):
            def interrupted(*arguments):
                start(*arguments)
                os.kill(os.getpid(), signal.SIGINT)
            _thread.start_new_thread = interrupted
            try:
                in_parallel(range(1000), lambda job: None, 3, lambda result: None)
            except KeyboardInterrupt:
                assert not any(crew._inside for crew in _crews)
            else:
                raise AssertionError("no interrupt")
        print("none inside")
        """,
        tmp_path,
    )
    assert (ran.stdout, ran.returncode) == ("none inside\n", 0), ran.stderr


@pytest.mark.turns(2)
def test_the_end_of_the_process_waits_for_what_an_interrupt_left(tmp_path):
    ran = run(
        """
        import threading
        from pylinregion.caller import workers
        entered, go = threading.Event(), threading.Event()
        close = workers._Crew.close
        def cut_short(crew):
            raise KeyboardInterrupt
        workers._Crew.close = cut_short
        def work(job):
            entered.set()
            go.wait()
            print("finished", flush=True)
        def first(job):
            if job == 1:
                entered.wait()
                raise ValueError
            work(job)
        try:
            workers.in_parallel([0, 1], first, 2, lambda result: None)
        except KeyboardInterrupt:
            pass
        workers._Crew.close = close
        go.set()
        print("ended", flush=True)
        """,
        tmp_path,
    )
    assert "finished" in ran.stdout and "ended" in ran.stdout and ran.returncode == 0, ran.stderr
