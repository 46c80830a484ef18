"""Work in shards, by one process or many: each is a file as soon as it is done, and a rerun goes on from there.

Processes share a folder and nothing else. With ``torch.distributed`` initialised (any backend) they agree on who does
what and wait for each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from tqdm import tqdm

from pylinregion.errors import PylinregionError
from pylinregion.network import Network
from pylinregion.ranks import Ranks
from pylinregion.whole_files import replace_file

Arrays = dict[str, NDArray[Any]]

_JOB = "job.json"


class Shards:
    """The files of a job in a folder.

    Args:
        folder: Made if it is not there.
        job: What is done, in full: whatever decides the results, as JSON. A folder holds the shards of one job.
        count: How many shards it has.
        ranks: The processes that do them.

    Raises:
        ValueError: The folder holds the shards of another job, or is not one of shards.
    """

    def __init__(self, folder: str | os.PathLike[str], job: dict[str, Any], count: int, ranks: Ranks) -> None:
        self.folder, self.count, self.ranks = Path(folder), count, ranks
        ranks.first(lambda: self._open({**job, "shards": count}))

    def run(
        self, make: Callable[[int], Arrays], is_right: Callable[[int, Arrays], str | None], progress: bool = False
    ) -> None:
        """Make the shards that are not there, this process its share; returns when all are there.

        Args:
            make: A shard, by number.
            is_right: Why a shard that is there cannot be used; None if it can.
            progress: Show a bar of this process's shards.

        Raises:
            PylinregionError: Another process ended before its shards were done.
            ValueError: A shard that is there cannot be used.
        """
        missing: Sequence[int] = self.ranks.first(lambda: self._missing(is_right))
        for number in tqdm(missing[self.ranks.rank :: self.ranks.world], unit=" shards", disable=not progress):
            self._write(number, make(number))
        try:
            left = self.ranks.first(lambda: [number for number in missing if not self.path(number).is_file()])
            if self.ranks.world > 1:
                distributed.barrier()
        except RuntimeError as error:  # a connection that was closed
            raise PylinregionError(
                f"another process ended before its shards were done: {self._told()}. Run the same again to go on"
            ) from error
        if left:
            self._await(left)

    def read(self, number: int) -> Arrays:
        """A shard that is there.

        Raises:
            ValueError: It cannot be read.
        """
        try:
            with self.path(number).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, KeyError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path(number)} is damaged: {error}. Remove it, and run the same again") from error

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{number:06d}.npz"

    def _open(self, job: dict[str, Any]) -> None:
        path = self.folder / _JOB
        if not path.is_file():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise ValueError(f"{self.folder} must be empty or hold shards, and has neither a {_JOB} nor is empty")
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda file: file.write(json.dumps(job, indent=1).encode()))
            return
        try:
            there = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is no description of shards: {error}") from error
        here = json.loads(json.dumps(job))
        differing = [key for key in {**there, **here} if there.get(key) != here.get(key)]
        if differing:
            told = "; ".join(f"{key} is {there.get(key)!r} there and {here.get(key)!r} here" for key in differing)
            raise ValueError(f"{self.folder} holds the shards of another job: {told}")

    def _missing(self, is_right: Callable[[int, Arrays], str | None]) -> list[int]:
        missing = []
        for number in range(self.count):
            if not self.path(number).is_file():
                missing.append(number)
            elif (reason := is_right(number, self.read(number))) is not None:
                raise ValueError(f"{self.path(number)} {reason}. Remove the folder, or use another")
        return missing

    def _write(self, number: int, arrays: Arrays) -> None:
        replace_file(self.path(number), lambda file: np.savez(file, allow_pickle=False, **arrays))

    def _await(self, left: Sequence[int]) -> None:
        """Files that others wrote can take a moment to be seen on a network's disk."""
        still = [number for number in left if not self.path(number).is_file()]
        if still:
            raise PylinregionError(
                f"shards {still} are not in {self.folder} as process {self.ranks.rank} sees it: all processes need one "
                "folder"
            )

    def _told(self) -> str:
        done = sum(self.path(number).is_file() for number in range(self.count))
        return f"{done} of {self.count} shards are in {self.folder}"


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[tuple[int, torch.device]]:
    """The processes that ``torchrun`` started, or this one alone; gives its number and its device.

    A process that is told to end (``torchrun`` does so when another one has failed) says that shards are kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0, device
        return

    def ended(number: int, frame: object) -> None:
        raise PylinregionError("ended from outside. Shards that are done are kept: run the same again to go on")

    before = signal.signal(signal.SIGTERM, ended)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank(), device
    finally:
        distributed.destroy_process_group()
        signal.signal(signal.SIGTERM, before)


def digest_of(*values: Tensor | NDArray[Any] | str) -> str:
    """A name for numbers and words: SHA-256, in hexadecimal."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            found.update(value.encode())
            continue
        if isinstance(value, Tensor):  # NumPy has not all of torch's dtypes
            found.update(f"{value.dtype}{list(value.shape)}".encode())
            numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        else:
            found.update(f"{value.dtype}{value.shape}".encode())
            numbers = np.ascontiguousarray(value)
        found.update(numbers.tobytes())
    return found.hexdigest()


def digest_of_network(network: Network) -> str:
    """A name for what a network computes: its operators and its weights."""
    graph = [f"{node.target}{node.args}{node.kwargs}{node.state}" for node in network.nodes]
    return digest_of("\n".join(graph), *(network.state[name] for name in sorted(network.state)))
