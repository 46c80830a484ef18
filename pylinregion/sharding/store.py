"""Work in shards, by one process or many: each is a file as soon as it is done, and a rerun goes on from there.

Processes share a folder and nothing else. With ``torch.distributed`` initialised (any backend) they agree on who does
what and wait for each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import distributed
from tqdm import tqdm

from pylinregion._util import memory, npz
from pylinregion._util.errors import PylinregionError
from pylinregion._util.locks import LOCK, held
from pylinregion._util.whole_files import create_file, is_part, read_object, replace_file
from pylinregion.caller.processes import Ranks
from pylinregion.graph.digest import digest_of

Arrays = dict[str, NDArray[Any]]

_JOB = "job.json"
_VERSION = 2  # of the folder and of its files; 1 had no locks and no checksums
_OLD_PART = re.compile(r"\.(job\.json|shard-\d{6,}\.npz)\.\d+")  # of version 1: what a kill left


class Shards:
    """The files of a job in a folder.

    One process at a time, or those of one ``torch.distributed`` together, work in a folder: the first of them has its
    lock, which the kernel lets go of when it ends, whatever ends it. A folder holds the shards of one job, which
    ``job.json`` names. A shard is sealed (:func:`pylinregion._util.npz.write`) with its job and its number.

    Args:
        folder: Made if it is not there.
        job: What is done, in full: whatever decides the results, as JSON.
        count: How many shards it has.
        ranks: The processes that do them.
        take: Takes the arrays of a shard, by number, and checks them; a ``ValueError`` says what is wrong.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        job: dict[str, Any],
        count: int,
        ranks: Ranks,
        take: Callable[[int, npz.Npz], Arrays],
    ) -> None:
        self.folder, self.count, self.ranks = Path(folder), count, ranks
        self._job: dict[str, Any] = json.loads(json.dumps({"version": _VERSION, **job, "shards": count}))
        self._take = take

    def run(
        self, make: Callable[[int], Arrays], is_right: Callable[[int, Arrays], str | None], progress: bool = False
    ) -> None:
        """Make the shards that are not there, this process its share; returns when all are there.

        Args:
            make: A shard, by number.
            is_right: Why a shard that is there cannot be used; None if it can.
            progress: Show a bar of this process's shards.

        Raises:
            PylinregionError: Another process ended before its shards were done, or one of another run works in the
                folder.
            ValueError: The folder holds the shards of another job, or is not one of shards; or a shard that is there
                cannot be used.
            OSError: The folder cannot be written to, or has no locks.
        """
        with contextlib.ExitStack() as until_done:
            self._run(self.ranks.first(lambda: self._begin(is_right, until_done)), make, progress)

    def _run(self, missing: Sequence[int], make: Callable[[int], Arrays], progress: bool) -> None:
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
            ValueError: It cannot be read, or is not that shard of this job.
        """
        try:
            with npz.opened(self.path(number), memory.budget(None)) as archive:
                of = archive.about().get("of")
                npz.require(of == self._name(number), "header", f"of {self._name(number)}", of)
                archive.check_seal()
                arrays = self._take(number, archive)
                archive.check_all_taken()
                return arrays
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.path(number)} is damaged: {error}. Remove it, and run the same again") from error

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{number:06d}.npz"

    def _name(self, number: int) -> str:
        """Of a shard and of no other: that of its job, and its number."""
        return f"shard {number} of {digest_of(json.dumps(self._job, sort_keys=True))}"

    def _begin(self, is_right: Callable[[int, Arrays], str | None], until_done: contextlib.ExitStack) -> list[int]:
        """Have the folder for this run until it is done, and for its job for good; returns what is missing."""
        self._refuse_others()  # before anything is made there
        self.folder.mkdir(parents=True, exist_ok=True)
        until_done.enter_context(held(self.folder))
        left = self._refuse_others()
        if not (self.folder / _JOB).exists():
            with contextlib.suppress(FileExistsError):  # where locks are none between machines
                create_file(self.folder / _JOB, lambda file: file.write(json.dumps(self._job, indent=1).encode()))
        self._check_job()
        for path in left:
            path.unlink(missing_ok=True)
        return self._missing(is_right)

    def _refuse_others(self) -> list[Path]:
        """See to it that the folder has a job, or nothing yet; returns what processes that were killed left there."""
        there = list(self.folder.iterdir()) if self.folder.exists() else []
        left = [path for path in there if is_part(path.name) or _OLD_PART.fullmatch(path.name)]
        names = {path.name for path in there} - {path.name for path in left} - {LOCK}
        if names and _JOB not in names:
            raise ValueError(f"{self.folder} must be empty or hold shards, and has neither a {_JOB} nor is empty")
        return left

    def _check_job(self) -> None:
        path = self.folder / _JOB
        there = read_object(path)
        if there.get("version") != _VERSION:
            raise ValueError(
                f"{self.folder} holds the shards of another version: {path} must be of version {_VERSION}, got "
                f"{there.get('version')!r}. Remove the folder, use another, or the pylinregion that made it"
            )
        differing = [key for key in {**there, **self._job} if repr(there.get(key)) != repr(self._job.get(key))]
        if differing:
            told = "; ".join(f"{key} is {there.get(key)!r} there and {self._job.get(key)!r} here" for key in differing)
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
        replace_file(self.path(number), lambda file: npz.write(file, arrays, {"of": self._name(number)}))

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
