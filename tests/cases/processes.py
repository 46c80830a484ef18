"""Processes of their own for tests, forked from one that has imported the package: it takes a moment, not seconds."""

import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["cases.traced"])


@dataclass(frozen=True)
class Ended:
    """How a process ended: -9 if it was killed, as for ``subprocess``; and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """A process that runs this code as its main module, in a folder, with arguments in ``sys.argv``."""

    def __init__(self, code: str, *arguments: object, cwd: Path, **environment: str) -> None:
        self._said = tempfile.TemporaryDirectory()
        files = [f"{self._said.name}/stdout", f"{self._said.name}/stderr"]
        self._process: BaseProcess = _forking.Process(
            target=_run, args=(code, list(map(str, arguments)), str(cwd), environment, files)
        )
        self._process.start()

    def ended(self, seconds: float = 300) -> Ended:
        """Wait for it."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"it took more than {seconds} s")
        with self._said as folder:
            return Ended(self._process.exitcode, *(Path(folder, name).read_text() for name in ("stdout", "stderr")))


def run(code: str, *arguments: object, cwd: Path, **environment: str) -> Ended:
    return Started(code, *arguments, cwd=cwd, **environment).ended()


def _run(code: str, arguments: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    for stream, path in zip((sys.stdout, sys.stderr), files, strict=True):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv[1:] = arguments
    exec(compile(code, "<the code of a test>", "exec"), {"__name__": "__main__"})
