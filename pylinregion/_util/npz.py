"""Arrays in NumPy's ``.npy`` and ``.npz`` files, written whole and read like a stranger's.

Nothing in a file is run, headers are read before any data, and what they say is held against the file and against a
budget first. What is written is *sealed*: the array ``header``, JSON, says what the others are, and their checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pylinregion._util.arrays import AnyArray

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # NumPy's own limit: it parses Python literals
_KINDS = {"b": "bool", "i": "integers", "u": "integers", "f": "floats", "c": "complex", "U": "text", "S": "bytes"}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_STEP = 1 << 20
_ABOUT = "header"


class Header(NamedTuple):
    """What a file says of an array before its data.

    Attributes:
        dtype, shape: Of the array.
        fortran: Whether the first index is the one that varies fastest.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, file: Any) -> AnyArray:
        """The data that follows, in some pieces: what is decompressed never is in memory twice."""
        array = np.empty(self.shape, self.dtype, "F" if self.fortran else "C")
        memory = array.reshape(-1, order="A").view(np.uint8).data if self.nbytes else memoryview(b"")
        for begin in range(0, len(memory), _STEP):
            piece = memory[begin : begin + _STEP]
            if (got := file.readinto(piece)) != len(piece):
                raise ValueError(f"must have {self.nbytes} bytes of data, got {begin + got}")
        if file.read(1):  # what is read to its end is held against its checksum, too
            raise ValueError(f"must end after {self.nbytes} bytes of data, got more")
        return array


def read_header(file: Any) -> Header:
    """The header of an array, from the beginning of a file.

    Raises:
        ValueError: It is none of an array of numbers or text.
    """
    start = file.read(8)
    if len(start) < 8 or start[:6] != _MAGIC or start[6] not in (1, 2):
        raise ValueError("must be an array as numpy.save writes it")
    lengths, parse = {
        1: ("<H", np.lib.format.read_array_header_1_0),
        2: ("<I", np.lib.format.read_array_header_2_0),
    }[start[6]]
    length = file.read(struct.calcsize(lengths))
    if len(length) < struct.calcsize(lengths) or struct.unpack(lengths, length)[0] > _LONGEST_HEADER:
        raise ValueError(f"must have a header of at most {_LONGEST_HEADER} bytes")
    try:
        shape, fortran, dtype = parse(io.BytesIO(length + file.read(struct.unpack(lengths, length)[0])))
    except Exception as error:  # whatever Python says of literals that are none
        raise ValueError(f"must have a header that can be read: {type(error).__name__}: {error}") from error
    if dtype.hasobject:
        raise ValueError("must hold numbers, got Python objects, which are pickled; allow_pickle is never used")
    if dtype.kind not in _KINDS or dtype.subdtype is not None:
        raise ValueError(f"must hold numbers or text, got {dtype}")
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        raise ValueError(f"must have a shape of up to 32 sizes from 0 up, got {list(shape)}")
    header = Header(dtype, tuple(shape), bool(fortran))
    if max(header.nbytes, math.prod(max(size, 1) for size in shape) * max(dtype.itemsize, 1)) >= 1 << 62:
        raise ValueError(f"must have a shape that memory could hold, got {list(shape)}")
    return header


def map_npy(path: str | Path) -> AnyArray:
    """The array of a ``.npy`` file, memory-mapped and read-only.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is no ``.npy`` file of numbers or text, it is cut off, or something follows its array.
    """
    with Path(path).open("rb") as file:
        try:
            header = read_header(file)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        offset, size = file.tell(), file.seek(0, io.SEEK_END)
    if size != offset + header.nbytes:
        raise ValueError(
            f"{path} must have {header.nbytes} bytes of data for {list(header.shape)} {header.dtype}, got "
            f"{size - offset}"
        )
    order: Any = "F" if header.fortran else "C"
    if not header.nbytes:
        return np.zeros(header.shape, header.dtype, order)
    return np.memmap(path, header.dtype, "r", offset, header.shape, order)


class Npz:
    """An ``.npz`` archive that is open.

    Args:
        file: The archive; it must stay open.
        budget: Bytes that all its arrays may take.

    Attributes:
        headers: What it says of each array, by name.

    Raises:
        ValueError: It is no archive of arrays of numbers or text, two have one name, one is encrypted, its sizes do not
            fit each other, or all take more than the budget.
    """

    def __init__(self, file: BinaryIO, budget: int) -> None:
        with _told():
            self._archive = zipfile.ZipFile(file)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._taken: set[str] = set()
        self.headers: dict[str, Header] = {}
        size = file.seek(0, io.SEEK_END)
        for member in self._archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise ValueError(f"{name} must be an array, whose name ends with .npy")
            if name in self._members:
                raise ValueError(f"{name} must be there once, got it twice")
            if member.flag_bits & 1 or member.compress_type not in _METHODS:
                raise ValueError(f"{name} must be stored or deflated, and not encrypted")
            self._members[name] = member
        if sum(member.compress_size for member in self._members.values()) > size:
            raise ValueError("arrays must not lie in each other")
        for name, member in self._members.items():
            with _told(name), self._archive.open(member) as opened:
                header = self.headers[name] = read_header(opened)
                if opened.tell() + header.nbytes != member.file_size:
                    said = member.file_size - opened.tell()
                    raise ValueError(f"must have {header.nbytes} bytes of data, got {said}")
        if (needed := sum(header.nbytes for header in self.headers.values())) > budget:
            raise ValueError(f"arrays must fit into the memory budget of {budget} bytes, got {needed} bytes")

    def read(self, name: str) -> AnyArray:
        """An array as it is.

        Raises:
            ValueError: It is not there, or damaged.
        """
        require(name in self._members, name, "there", "nothing")
        with _told(name), self._archive.open(self._members[name]) as opened:
            return read_header(opened).read(opened)

    def check(self, name: str, dtypes: Sequence[Any], shape: Sequence[int | None]) -> None:
        """See to it that an array is there, of one of some dtypes and of a shape (None: any size), before it is read.

        Raises:
            ValueError: It is not.
        """
        require(name in self.headers, name, "there", "nothing")
        header, allowed = self.headers[name], [np.dtype(each) for each in dtypes]
        require(header.dtype in allowed, name, " or ".join(map(str, allowed)), header.dtype)
        sizes = ["n" if size is None else str(size) for size in shape]
        fits = len(header.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, header.shape, strict=True))
        require(fits, name, f"[{', '.join(sizes)}]", list(header.shape))

    def take(self, name: str, dtypes: Sequence[Any], shape: Sequence[int | None]) -> AnyArray:
        """An array that :meth:`check` finds right: its rows in order, its floats finite.

        Raises:
            ValueError: It is not that, or damaged.
        """
        self.check(name, dtypes, shape)
        self._taken.add(name)
        array = self.read(name)
        array = np.ascontiguousarray(array).reshape(array.shape)  # which makes [1] of a number
        if array.dtype.kind == "f":
            require(np.isfinite(array).all(), name, "finite", "NaN or infinite entries")
        return array

    def text(self, name: str) -> str:
        """A text.

        Raises:
            ValueError: It is not there, or none.
        """
        require(name in self.headers, name, "there", "nothing")
        self._taken.add(name)
        header = self.headers[name]
        require(header.dtype.kind == "U" and not header.shape, name, "a text", f"{header.dtype} {list(header.shape)}")
        return str(self.read(name))

    def about(self) -> dict[str, Any]:
        """What the archive says that it is.

        Raises:
            ValueError: It says nothing.
        """
        text = self.text(_ABOUT)
        try:
            about = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{_ABOUT} must be JSON, got {error}") from error
        require(isinstance(about, dict), _ABOUT, "an object", type(about).__name__)
        return dict(about)

    def check_seal(self) -> None:
        """See to it that arrays and header are those that :func:`write` wrote, and no others.

        Raises:
            ValueError: There is no seal, or something is not there, is another than was sealed, or was not sealed.
        """
        about = self.about()
        told = about.get("checksums")
        require(isinstance(told, dict), _ABOUT, "one with checksums", "none")
        checksums = dict(told or {})
        there = {name: member.CRC for name, member in self._members.items() if name != _ABOUT}
        for name in {**checksums, **there}:
            require(name in there, name, "there", "nothing")
            require(checksums.get(name) == there[name], name, "as it was written", "another checksum")
        require(about.pop("seal", None) == _seal_of(about), _ABOUT, "as it was written", "another checksum")

    def check_all_taken(self) -> None:
        """See to it that there is no array besides those that were taken.

        Raises:
            ValueError: There is.
        """
        left = sorted(self.headers.keys() - self._taken)
        require(not left, "arrays", "known ones", f"also {', '.join(left)}")


def require(true: bool | np.bool_, name: str, expected: str, got: object) -> None:
    """Say what something is not.

    Raises:
        ValueError: It is not true.
    """
    if not true:
        raise ValueError(f"{name} must be {expected}, got {got}")


@contextlib.contextmanager
def opened(path: str | Path, budget: int) -> Iterator[Npz]:
    """Open an archive, see :class:`Npz`.

    Raises:
        OSError: The file cannot be opened.
    """
    with Path(path).open("rb") as file:
        yield Npz(file, budget)


def write(file: BinaryIO, arrays: Mapping[str, Any], about: Mapping[str, Any], *, compress: bool = False) -> None:
    """Write an archive, sealed; :func:`numpy.load` reads it, too. The same arrays give the same bytes.

    Args:
        file: Where to.
        arrays: Numbers or text, by name.
        about: What they are, as JSON: the array ``header``, which gets the checksums of the others and its own.
        compress: Deflate them.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:

        def put(name: str, array: Any) -> int:
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type, member.external_attr = method, 0o600 << 16
            with archive.open(member, "w", force_zip64=True) as opened:
                np.lib.format.write_array(opened, np.asanyarray(array), allow_pickle=False)
            return member.CRC

        sealed = {**about, "checksums": {name: put(name, array) for name, array in arrays.items()}}
        put(_ABOUT, np.array(json.dumps({**sealed, "seal": _seal_of(sealed)})))


def _seal_of(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _told(name: str = "") -> Iterator[None]:
    """Whatever is wrong with an archive as a ``ValueError``; zipfile, zlib and NumPy have many for damaged ones."""
    try:
        yield
    except Exception as error:
        what = str(error) if type(error) is ValueError else f"cannot be read: {type(error).__name__}: {error}"
        raise ValueError(f"{name} {what}".strip()) from error
