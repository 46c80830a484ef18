"""Archives of ``torch.export.save``, loaded without running anything that is in them.

``torch.export.load`` runs code: it unpickles, evaluates and resolves what the archive says. So torch never reads the
file. The zip file is read here, every part is checked (the documents by
:mod:`pylinregion.archives.program_document`), and torch is given an archive in memory that is made anew of the checked
parts: the program, and tensors as raw numbers. Example inputs, extra files and whatever else is not needed to compute
stay out.
"""

from __future__ import annotations

import io
import json
import math
import operator
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from pylinregion._util import memory
from pylinregion.archives.program_document import checked_payloads, checked_program

WHY_NO_PICKLE = "a pickle, and loading one runs whatever code is in it"
_LONGEST_DOCUMENT = 1 << 27  # bytes of JSON; a program of ten thousand operators has a quarter of it
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id|models/model\.json"
    r"|data/(?:weights|constants)/(?:model\.pt|model_(?:weights|constants)_config\.json|(?:weight|tensor)_[0-9]{1,9})"
    r"|data/sample_inputs/model\.pt|extra/.+"
)
_KNOWN_BEFORE_2_8 = re.compile(
    r"version|serialized_(?:exported_program\.json|(?:state_dict|constants|example_inputs)\.pt)|extra_files/.+"
)


class NotAnArchive(ValueError):
    """A file that ``torch.export.load`` does not load either."""


def safe_archive(path: Path) -> io.BytesIO:
    """The archive, made anew of the parts that are known to hold no code, for ``torch.export.load``.

    Raises:
        FileNotFoundError: There is no such file.
        NotAnArchive: It is no archive of ``torch.export.save``.
        ValueError: A part of it may run code, or is not known; the message says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            return _remade(_Zip(file))
    except ValueError as error:
        raise type(error)(f"{path} {error}") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RecursionError, RuntimeError) as error:
        raise NotAnArchive(f"{path} is no archive that can be read: {error}") from None


class _Zip:
    """A zip file of which every entry is there once, as it is, under a plain name.

    torch writes no other. Entries are not compressed, so a file holds no more than its size.

    Attributes:
        names: The entries, without the folder that holds them all, if there is one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        size = file.seek(0, io.SEEK_END)
        if not zipfile.is_zipfile(file):
            raise NotAnArchive("is no archive of torch.export.save (not a zip file)")
        most = memory.budget(None)
        if size > most:
            raise ValueError(f"has {size} bytes, more than the {most} that may be used here")
        self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        for entry in entries:
            name = entry.filename
            if not name.isprintable() or "\\" in name or {"", ".", ".."} & set(name.split("/")):
                raise ValueError(f"has an entry of an odd name, {name[:80]!r}")
            if entry.flag_bits & 1:
                raise NotAnArchive(f"is encrypted (its entry {name!r})")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"is compressed (its entry {name!r}), which torch.export.save does not do")
        names = [entry.filename for entry in entries]
        twice, times = max(Counter(names).items(), key=operator.itemgetter(1), default=("", 0))
        if times > 1:
            raise ValueError(f"has {times} entries {twice!r}, and programs disagree which of them counts")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("says that it holds more than it has")
        folders = {name.split("/")[0] for name in names}
        self._folder = f"{folders.pop()}/" if len(folders) == 1 and all("/" in name for name in names) else ""
        self.names = [name.removeprefix(self._folder) for name in names]

    def size(self, name: str) -> int:
        return self._zip.getinfo(self._folder + name).file_size

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise NotAnArchive(f"is no archive of torch.export.save: it has no {name}")
        return self._zip.read(self._folder + name)

    def json(self, name: str) -> Any:
        """A document.

        Raises:
            ValueError: There is none, it is too large, or no JSON.
        """
        if name in self.names and self.size(name) > _LONGEST_DOCUMENT:
            raise ValueError(f"has a {name} of {self.size(name)} bytes")
        try:
            return json.loads(self.read(name).decode("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotAnArchive(f"has a {name} that is no JSON: {error}") from None

    def copy(self, name: str, target: zipfile.ZipFile, new: str) -> None:
        with self._zip.open(self._folder + name) as source, target.open(new, "w", force_zip64=True) as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


def _remade(archive: _Zip) -> io.BytesIO:
    names = set(archive.names)
    if "data.pkl" in names:
        raise ValueError(f"is {WHY_NO_PICKLE} (torch.save wrote it): use torch.export.save")
    if any(name.startswith("data/aotinductor/") for name in names):
        raise ValueError("has compiled code in it: give an archive of torch.export.save")
    old = "serialized_exported_program.json" in names
    if not old and "archive_format" not in names:
        raise NotAnArchive("is no archive of torch.export.save")
    known = _KNOWN_BEFORE_2_8 if old else _KNOWN
    odd = next((name for name in archive.names if not known.fullmatch(name)), None)
    if odd is not None:
        what = (
            WHY_NO_PICKLE if odd.startswith("data/constants/") else "none that torch.export.save writes for a program"
        )
        raise ValueError(f"has an entry {odd!r}, which is {what}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        (_remake_old if old else _remake)(archive, target)
    buffer.seek(0)
    return buffer


def _remake(archive: _Zip, target: zipfile.ZipFile) -> None:
    """The layout of torch 2.8 and later."""
    for name, wanted in (("archive_format", "pt2"), ("archive_version", "[0-9]{1,4}"), ("byteorder", "little")):
        if name in archive.names or name != "byteorder":
            target.writestr(f"archive/{name}", _small(archive, name, wanted))
    target.writestr("archive/.data/version", "6\n")
    target.writestr("archive/models/model.json", json.dumps(checked_program(archive.json("models/model.json"))))
    for what in ("weights", "constants"):
        folder = f"data/{what}"
        if f"{folder}/model.pt" in archive.names:
            tensors = _plain_tensors(archive.read(f"{folder}/model.pt"), f"{folder}/model.pt")
            target.writestr(f"archive/{folder}/model.pt", tensors)
            continue
        name = f"{folder}/model_{what}_config.json"
        payloads = checked_payloads(archive.json(name), name)
        for path in dict.fromkeys(_checked_payload(archive, folder, *item) for item in payloads.items()):
            archive.copy(path, target, f"archive/{path}")
        target.writestr(f"archive/{name}", json.dumps({"config": payloads}))
    target.writestr("archive/data/sample_inputs/model.pt", b"")


def _remake_old(archive: _Zip, target: zipfile.ZipFile) -> None:
    """The layout of torch 2.7 and before."""
    target.writestr("version", _small(archive, "version", r"[0-9]{1,4}\.[0-9]{1,4}"))
    program = checked_program(archive.json("serialized_exported_program.json"))
    target.writestr("serialized_exported_program.json", json.dumps(program))
    for name in ("serialized_state_dict.pt", "serialized_constants.pt"):
        target.writestr(name, _plain_tensors(archive.read(name), name))
    target.writestr("serialized_example_inputs.pt", b"")


def _small(archive: _Zip, name: str, wanted: str) -> str:
    text = archive.read(name).decode("utf-8", "replace") if archive.size(name) < 100 else ""
    if not re.fullmatch(wanted, text):
        raise NotAnArchive(f"is no archive of torch.export.save: its {name} is {text!r}")
    return text


def _checked_payload(archive: _Zip, folder: str, name: str, meta: dict[str, Any]) -> str:
    """The entry of a tensor that is kept as raw numbers."""
    path = f"{folder}/{meta['path_name']}"
    if meta["use_pickle"] or meta["tensor_meta"] is None:
        raise ValueError(f"has {name!r}, which is {WHY_NO_PICKLE}")
    if path not in archive.names:
        raise ValueError(f"has {name!r} in {path}, and there is no such entry")
    tensor = meta["tensor_meta"]
    numbers = [*tensor["sizes"], *tensor["strides"], tensor["storage_offset"]]
    if not all(number.get("as_int", -1) >= 0 for number in numbers):
        raise ValueError(f"has {name!r} of sizes that are no numbers")
    count = math.prod(size["as_int"] for size in tensor["sizes"])
    if count > 0 and archive.size(path) == 0:
        raise ValueError(f"has {name!r} without its numbers (exported from fake tensors)")
    if count > archive.size(path) and 16 * count > memory.budget(None):  # one number, expanded
        raise ValueError(f"has {name!r} of {count} numbers, more than there is memory for")
    return path


def _plain_tensors(pickled: bytes, name: str) -> bytes:
    """A dictionary of tensors, as ``torch.save`` writes it, read by its unpickler of plain tensors and written anew."""
    if not pickled:
        return b""
    _Zip(io.BytesIO(pickled))
    try:
        found = torch.load(io.BytesIO(pickled), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails in many ways
        raise ValueError(
            f"has a {name} that holds more than tensors ({type(error).__name__}); it is {WHY_NO_PICKLE}"
        ) from None
    plain = isinstance(found, dict) and all(
        isinstance(key, str) and type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided
        for key, value in found.items()
    )
    if not plain:
        raise ValueError(f"has a {name} that is no dictionary of tensors")
    buffer = io.BytesIO()
    torch.save(dict(found), buffer)
    return buffer.getvalue()
