"""Where a monitor's records go: functions, JSON lines, CSV, TensorBoard, Weights & Biases.

A record is a flat ``dict[str, float]`` with a ``"step"``. A sink is any function of a record; those here can also be
rewound, so that a run that is resumed from a checkpoint writes no step twice.
"""

from __future__ import annotations

import abc
import csv
import io
import json
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pylinregion._util.errors import PylinregionError
from pylinregion._util.locks import wait_for
from pylinregion._util.optional import optional
from pylinregion._util.whole_files import naming, replace_file

Record = Mapping[str, float]


class Sink(abc.ABC):
    """A place for records."""

    @abc.abstractmethod
    def __call__(self, record: Record) -> None:
        """Take a record."""

    def rewind(self, step: int) -> None:  # noqa: B027 (not all need to)
        """Forget the records past ``step``: the run goes on from there."""

    def close(self) -> None:  # noqa: B027
        """Let go of what is open; a record after that opens it again."""


class _Lines(Sink):
    """A text file of one line a record. A line is there as a whole, and has left the process, or is not there.

    Args:
        path: The file; its folder is made if need be. If there are records in it, only a monitor that is resumed
            (:meth:`pylinregion.Monitor.load_state_dict`) goes on with it: any other gets a ``FileExistsError``. A pipe
            or a device is written to as it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._end: int | None = None  # where this sink's last line ends; None: what is there is none of its own

    def rewind(self, step: int) -> None:
        """Drop the records past ``step``, and a line that was not finished.

        Raises:
            ValueError: There is something else than records in the file, which stays as it is.
        """
        there = self.path.read_bytes() if self.path.is_file() else b""
        kept = b"".join(line + b"\n" for line in self._kept(_finished(there)[0], step))
        if kept != there:
            replace_file(self.path, lambda file: file.write(kept))
        self._end = len(kept)

    @abc.abstractmethod
    def _kept(self, lines: list[bytes], step: int) -> list[bytes]:
        """Those of lines that are not past a step."""

    def _write(self, line: str) -> None:
        """Append a line, or leave the file as it was.

        Raises:
            FileExistsError: There are records of another run.
            PylinregionError: The file does not end where this sink left it.
            OSError: It cannot be written, as on a full disk.
        """
        content = line.encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Not kept open: there is nothing to flush, and nothing to forget to close.
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            wait_for(file)
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                _write_all(file, content)
                return
            self._check_end(found.st_size)
            try:
                _write_all(file, content)
            except BaseException:  # the next record would be glued to half of this one
                file.truncate(found.st_size)
                raise
            self._end = found.st_size + len(content)

    def _check_end(self, size: int) -> None:
        if self._end is None and size:
            raise FileExistsError(
                f"{self.path} has records of another run: give another path, delete it, or resume with load_state_dict"
            )
        if size != (self._end or 0):
            raise PylinregionError(
                f"{self.path} must end where this run's last record does, after {self._end} bytes, got {size}: another "
                "process writes to it, or it was changed or removed"
            )


class JSONLines(_Lines):
    """A JSON object a line (``.jsonl``), in the file as soon as it is measured. NaN and infinities are ``null``.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "records.jsonl"
    >>> JSONLines(path)({"step": 1, "train/lc": 2.5})
    >>> JSONLines.read(path)
    [{'step': 1, 'train/lc': 2.5}]
    """

    def __call__(self, record: Record) -> None:
        """Write a line."""
        finite = {key: value if math.isfinite(value) else None for key, value in record.items()}
        self._write(json.dumps(finite, allow_nan=False))

    @staticmethod
    def read(path: str | os.PathLike[str]) -> list[dict[str, float]]:
        """The records of a file, NaN where it has ``null``.

        A last line that was not finished, by a process that was killed or is just writing it, is left out with a
        warning.

        Raises:
            ValueError: Another line is no record; the message says which.
        """
        lines, rest = _finished(Path(path).read_bytes())
        if rest:
            warnings.warn(f"{path}: line {len(lines) + 1}, the last, was not finished: left it out", stacklevel=2)
        records = [_record(path, number, line) for number, line in enumerate(lines, 1)]
        return [{key: math.nan if value is None else value for key, value in record.items()} for record in records]

    def _kept(self, lines: list[bytes], step: int) -> list[bytes]:
        kept = []
        for number, line in enumerate(lines, 1):
            its = _record(self.path, number, line).get("step")
            if its is None:
                raise ValueError(f"{self.path}: line {number} must have a step, got none")
            if its <= step:
                kept.append(line)
        return kept


class CSV(_Lines):
    """A table: a column a key, a row a record. The keys are those of the first record; later ones may lack some."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._columns: list[str] | None = None

    def __call__(self, record: Record) -> None:
        """Write a row.

        Raises:
            ValueError: The record has a key that the first one had not, or one that is longer than a line.
        """
        if self._columns is None:
            columns = list(record)
            if long := [key for key in columns if "\n" in key or "\r" in key]:
                raise ValueError(f"{self.path} must have keys of one line, got {long[0]!r}")
            self._write(_row(columns))
            self._columns = columns
        if new := [key for key in record if key not in self._columns]:
            raise ValueError(f"{self.path} must have a column for each key, but {new[0]!r} was not in its first record")
        self._write(_row([record.get(key, "") for key in self._columns]))

    def _kept(self, lines: list[bytes], step: int) -> list[bytes]:
        """The head, too, if there are rows: without any the next record says what the columns are."""
        steps: list[float] = []
        for number, line in enumerate(lines, 1):
            try:
                (row,) = csv.reader([line.decode()], strict=True)
                if number == 1:
                    columns, place = row, row.index("step")
                    continue
                if len(row) != len(columns):
                    raise ValueError(f"{len(row)} columns")
                steps.append(float(row[place]))
            except (ValueError, csv.Error) as error:
                what = "a head with a step" if number == 1 else f"a row of {len(columns)} columns with a step"
                raise ValueError(f"{self.path}: line {number} must be {what}, got {error}") from error
        rows = [line for line, its in zip(lines[1:], steps, strict=True) if its <= step]
        self._columns = columns if rows else None
        return [lines[0], *rows] if rows else []


def _finished(content: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a file, and what comes after the last of them."""
    *lines, rest = content.split(b"\n")
    return lines, rest


def _record(path: str | os.PathLike[str], number: int, line: bytes) -> dict[str, Any]:
    """The record of a line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: line {number} must be a record, got {error}") from error
    if not isinstance(record, dict) or not all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in record.values()
    ):
        raise ValueError(f"{path}: line {number} must be an object of numbers, got {line[:80]!r}")
    return record


def _write_all(file: Any, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]


def _row(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


class TensorBoard(Sink):
    """A TensorBoard run: one scalar a key, over the steps.

    Args:
        folder: Of the event files.

    Raises:
        ModuleNotFoundError: tensorboard is not installed (``pip install "pylinregion[tensorboard]"``).
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        optional("tensorboard", "the TensorBoard sink", "tensorboard")
        self.folder = Path(folder)
        self._writer: Any = None
        self._purge: int | None = None

    def __call__(self, record: Record) -> None:
        """Write the scalars, and flush them."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
        for key, value in record.items():
            if key != "step":
                self._writer.add_scalar(key, value, int(record["step"]))
        self._writer.flush()

    def rewind(self, step: int) -> None:
        """Tell TensorBoard to leave out what was written past ``step``."""
        self.close()
        self._purge = step + 1

    def close(self) -> None:
        """Close the event file; what comes later goes into another one of the same run."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._purge = None, None


class WandB(Sink):
    """A Weights & Biases run: one metric a key, over the records' own ``step``, whatever else is logged to the run.

    What was logged stays: a run that is resumed from a checkpoint logs the steps since then again.

    Args:
        run: What ``wandb.init`` returned; None: the run that is active when the first record comes.

    Raises:
        ModuleNotFoundError: wandb is not installed (``pip install "pylinregion[wandb]"``).
    """

    def __init__(self, run: Any = None) -> None:
        self._wandb = optional("wandb", "the WandB sink", "wandb")
        self._run = run
        self._defined: set[str] = set()

    def __call__(self, record: Record) -> None:
        """Log the record.

        Raises:
            RuntimeError: There is no run.
        """
        run = self._run or self._wandb.run
        if run is None:
            raise RuntimeError("the WandB sink needs a run: call wandb.init first, or pass run=")
        for key in record:
            if key not in self._defined and key != "step":
                run.define_metric(key, step_metric="step")
                self._defined.add(key)
        run.log(dict(record))


def check_sinks(sink: Any) -> list[Callable[[Record], None]]:
    """One sink or a list of sinks, as a list.

    Raises:
        TypeError: One is not callable.
    """
    sinks = list(sink) if isinstance(sink, (list, tuple)) else [] if sink is None else [sink]
    for each in sinks:
        if not callable(each):
            raise TypeError(f"sink must be a function of a record, or a list of them, got {type(each).__name__}")
    return sinks
