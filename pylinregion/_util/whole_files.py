"""Files that are there as a whole or not at all, whatever ends the process or the power while they are written."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

_PART = re.compile(r"\.pylinregion-[0-9a-f]{16}\.part")
_LINKS = 40  # as many as the kernel follows


def replace_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name beside it, then give it its own at once.

    A file that is there keeps its permissions, and stays as it was if anything fails. At the end of a symbolic link it
    is what the link names that is replaced. Pipes and character devices are written to as they are.

    Args:
        path: The file; one that is there is replaced.
        write: Writes the content.

    Raises:
        OSError: It cannot be written; the error names ``path``.
    """
    with naming(path):
        target, there = _target(Path(path))
        if (there is not None and not stat.S_ISREG(there.st_mode)) or _is_open_file(target):
            with io.BufferedWriter(_OneWay(os.open(target, os.O_WRONLY | os.O_APPEND), "wb")) as file:
                write(file)
            return
        with _part(target, write, there) as part:
            part.replace(target)
    _make_last(target.parent)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It has none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the text, of its encoding, of its depth
        raise ValueError(f"{path} must be JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must have an object of keys and values, got {type(found).__name__}")
    return found


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of matplotlib's, of the kind that the path's ending names; PNG where it has none."""
    replace_file(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png", dpi=dpi))


def create_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """The same for a file that must not be there: of several processes, one makes it, and the others are told.

    Raises:
        FileExistsError: It is there.
        OSError: It cannot be written.
    """
    with naming(path), _part(path, write, None) as part:
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: the caller's lock is all there is
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            part.replace(path)
    _make_last(path.parent)


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """See to it, before any work, that :func:`replace_file` can write a file.

    Raises:
        OSError: It cannot; the error names ``path``.
    """
    with naming(path):
        target, there = _target(Path(path))
        if there is not None and not stat.S_ISREG(there.st_mode):
            return
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no folder for it")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "its folder cannot be written to")


def is_part(name: str) -> bool:
    """Whether a file of this name is what a process that was killed left of one that it was writing."""
    return _PART.fullmatch(name) is not None


def _target(path: Path) -> tuple[Path, os.stat_result | None]:
    """What a path names, at the end of symbolic links, and what is there; an error if that cannot be written.

    Links in ``/proc`` name what a process has open, be it a pipe, and are left as they are.
    """
    try:
        there = path.stat()
    except FileNotFoundError:
        there = None  # nothing, or a link to nothing
    for _ in range(_LINKS):
        if not path.is_symlink() or _is_open_file(path):
            break
        path = path.parent / path.readlink()
    if there is None:
        return path, None
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISREG(there.st_mode) or stat.S_ISCHR(there.st_mode) or stat.S_ISFIFO(there.st_mode)):
        raise OSError(errno.EINVAL, "must be a file, a pipe or a character device")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path, there


class _OneWay(io.FileIO):
    """A pipe, or a device: what is written is not gone back to."""

    def seekable(self) -> bool:
        return False

    def seek(self, *where: int) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


def _is_open_file(path: Path) -> bool:
    return os.path.realpath(path.parent).startswith("/proc/")


@contextlib.contextmanager
def _part(target: Path, write: Callable[[BinaryIO], Any], like: os.stat_result | None) -> Iterator[Path]:
    """The content in a file beside its target, with the owner and the permissions of one that was there."""
    part = target.with_name(f".pylinregion-{token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            write(file)
            file.flush()
            if like is not None and os.name == "posix":
                for owner in (-1, like.st_uid):
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), owner, like.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)


def _make_last(folder: Path) -> None:
    """See to it that a new name, too, outlasts a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the system name the file that is to be written, whatever they named."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # one of the package's own, which names it
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
