"""Locks of processes on folders and files. The kernel lets go of them when a process ends, whatever ends it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pylinregion._util.errors import PylinregionError

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have a folder for this process alone. The file ``.lock`` stays there.

    Args:
        folder: Is there. Its file system must have ``flock``; one that machines share, between machines.

    Raises:
        PylinregionError: Another process, or another part of this one, has it.
        OSError: The folder cannot be written to, or locks cannot be had there.
    """
    path = folder / LOCK
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PylinregionError(
                f"another process works in {folder}: wait until it has ended, or use another folder"
            ) from None
        except OSError as error:
            raise OSError(error.errno, f"a lock (flock) cannot be had here: {error.strerror}", str(path)) from error
        yield


def wait_for(file: Any) -> None:
    """Have an open file for this process alone until it is closed, where the file system has locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
