"""How the command line ends: interrupts, errors, output that cannot be written, and as a program."""

import errno
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pylinregion as plr
from pylinregion.cli import commands
from pylinregion.cli.commands import main

safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("in_made")


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "count_regions", interrupt)
    assert main(["count", "m.pt2", "x.npy", "--radius", "1"]) == 130
    assert capsys.readouterr() == ("", "pylinregion: interrupted\n")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("no\nmemory"), OverflowError("too large"), RecursionError()]
)
def test_whatever_torch_raises_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(commands, "count_regions", fail)
    words = {MemoryError: "out of memory", RuntimeError: "no memory", OverflowError: "too large"}
    assert fails("count", "m.pt2", "x.npy", "--radius", "1") == words.get(type(error), "RecursionError")


def test_what_a_program_raises_is_named(monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError("val")

    monkeypatch.setattr(commands, "capture", fail)
    monkeypatch.setattr(commands, "explain", fail)
    assert fails("count", "m.pt2", "x.npy", "--radius", "1") == "m.pt2: KeyError: 'val'"
    assert fails("explain", "m.pt2") == "m.pt2: KeyError: 'val'"


@pytest.mark.parametrize("arguments", [["explain", "m.pt2"], ["grok", "--list"], ["--help"], ["--version"]])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_output_that_cannot_be_written_is_an_error(
    arguments: list[str], number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full(), 1 << 20), encoding="utf-8"))
    assert main(arguments) == 1
    told = f"pylinregion: error: [Errno {number}] {os.strerror(number)}\n"
    assert capsys.readouterr().err == ("" if number == errno.EPIPE else told)  # the reader of a pipe wants no more


def test_closed_output_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["explain", "m.pt2"]) == 1
    assert capsys.readouterr().err == "pylinregion: error: standard output is closed\n"


def test_closed_messages_do_no_harm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["count", "m.pt2", "x64.npy", "--radius", "1", "--directions", "2", "--progress"]
    monkeypatch.setattr(sys, "stderr", None)
    assert main(arguments) == 0
    assert "local complexity" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stderr", None)
    assert main([*arguments[:2], "absent.npy", *arguments[3:]]) == 1
    assert capsys.readouterr().out == ""


def test_errors_that_are_not_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(commands, "count_regions", fail)
    with pytest.raises(AssertionError, match="a bug"):
        main(["count", "m.pt2", "x.npy", "--radius", "1"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"pylinregion {plr.__version__}\n"


@pytest.mark.turns(3)
def test_module_runs_as_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "pylinregion", "explain", "factories_of_the_tests:net", "--shape"]
    done = subprocess.run([*command, "4"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and "14 neurons in 2 layers" in done.stdout
    monkeypatch.setattr(sys, "argv", ["pylinregion", *command[5:], "5"])
    monkeypatch.delitem(sys.modules, "pylinregion.__main__", raising=False)  # of a test that imports all there is
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pylinregion", run_name="__main__")
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and out == ""
    assert err.startswith("pylinregion: error: ") and err.count("\n") == 1


@pytest.mark.turns(3)
@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is full")
def test_a_full_device_is_an_error_and_python_says_nothing_at_exit() -> None:
    command = [sys.executable, "-m", "pylinregion", "--version"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "pylinregion: error: [Errno 28] No space left on device\n")


@pytest.mark.turns(3)
@pytest.mark.skipif(sys.platform == "win32", reason="pipes close in another way on Windows")
def test_a_closed_pipe_is_no_error_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pylinregion", "doctor"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
