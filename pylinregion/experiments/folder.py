"""The folder of a run: what is in it, and files that are there as a whole or not at all."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pylinregion._util.whole_files import replace_file


@dataclass(frozen=True)
class Folder:
    """Where a run keeps its files.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings, JSON."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """Versions, device and threads, JSON."""
        return self.path / "environment.json"

    @property
    def records(self) -> Path:
        """What was measured: JSON lines."""
        return self.path / "records.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state of training to resume from."""
        return self.path / "checkpoint.pt"

    @property
    def figure(self) -> Path:
        """The figure of the records, PNG."""
        return self.path / "figure.png"

    @property
    def report(self) -> Path:
        """One page, HTML, with everything in it."""
        return self.path / "report.html"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file at once: a kill, or a power cut, leaves the old file or the new one."""
    replace_file(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read them, and nothing that could run code.

    Raises:
        ValueError: It is no checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on a bad file
        raise ValueError(f"{path} is no checkpoint: {' '.join(str(error).split())}") from error
    if not isinstance(state, dict) or not {"step", "trainer", "monitor"} <= state.keys():
        raise ValueError(f"{path} is no checkpoint: it must have a step, a trainer and a monitor")
    return state
