"""Where a monitor's records go: functions, JSON lines, CSV, TensorBoard, Weights & Biases.

A record is a flat ``dict[str, float]`` with a ``"step"``. A sink is any function of a record; those here can also be
rewound, so that a run that is resumed from a checkpoint writes no step twice.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pylinregion._optional import optional
from pylinregion.whole_files import replace_file

Record = Mapping[str, float]


class Sink:
    """A place for records."""

    def __call__(self, record: Record) -> None:
        """Take a record."""
        raise NotImplementedError

    def rewind(self, step: int) -> None:
        """Forget the records past ``step``: the run goes on from there."""

    def close(self) -> None:
        """Let go of what is open; a record after that opens it again."""


class _Lines(Sink):
    """A text file of one line a record. A line is there as a whole, and has left the process, or is not there.

    Args:
        path: The file; its folder is made if need be. If there are records in it, only a monitor that is resumed
            (:meth:`pylinregion.Monitor.load_state_dict`) goes on with it: any other gets a ``FileExistsError``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._mine = False  # what is in the file was written or taken over by this sink

    def rewind(self, step: int) -> None:
        """Drop the records past ``step``, and a line that was not finished."""
        if self.path.exists():
            whole = self.path.read_bytes().rpartition(b"\n")[0].split(b"\n")
            kept = self._kept([line.decode() for line in whole if line], step)
            replace_file(self.path, lambda file: file.write(b"".join(line.encode() + b"\n" for line in kept)))
        self._mine = True

    def _kept(self, lines: list[str], step: int) -> list[str]:
        raise NotImplementedError

    def _write(self, line: str) -> None:
        if not self._mine and self.path.exists() and self.path.stat().st_size:
            raise FileExistsError(
                f"{self.path} has records of another run: give another path, delete it, or resume with load_state_dict"
            )
        self._mine = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:  # not kept open: there is nothing to flush, and nothing to forget to close
            file.write(line.encode() + b"\n")


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
        """The records of a file, NaN where it has ``null``; a last line that was not finished is left out."""
        lines = Path(path).read_bytes().rpartition(b"\n")[0].splitlines()
        records = [json.loads(line) for line in lines]
        return [{key: math.nan if value is None else value for key, value in record.items()} for record in records]

    def _kept(self, lines: list[str], step: int) -> list[str]:
        return [line for line in lines if json.loads(line)["step"] <= step]


class CSV(_Lines):
    """A table: a column a key, a row a record. The keys are those of the first record; later ones may lack some."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._columns: list[str] | None = None

    def __call__(self, record: Record) -> None:
        """Write a row.

        Raises:
            ValueError: The record has a key that the first one had not.
        """
        if self._columns is None:
            columns = list(record)
            self._write(_row(columns))
            self._columns = columns
        if new := [key for key in record if key not in self._columns]:
            raise ValueError(f"{self.path} must have a column for each key, but {new[0]!r} was not in its first record")
        self._write(_row([record.get(key, "") for key in self._columns]))

    def _kept(self, lines: list[str], step: int) -> list[str]:
        rows = list(csv.reader(lines))
        self._columns = rows[0] if rows else None
        if self._columns is None:
            return []
        place = self._columns.index("step")
        return [lines[0]] + [line for line, row in zip(lines[1:], rows[1:], strict=True) if float(row[place]) <= step]


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
