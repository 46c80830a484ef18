"""The points that the command line takes from files: ``.npy`` arrays and ``.safetensors`` files, without pickle."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.npz import map_npy
from pylinregion._util.optional import optional
from pylinregion.cli.load_model import Loaded, check_memory, check_shape, dtype_name, note, one_line, refuse_folder

_NUMPY_MAGIC = b"\x93NUMPY"
_SAFETENSORS = re.compile(r"(.*?\.safetensors)(?::(.+))?", re.IGNORECASE | re.DOTALL)
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_DTYPES |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"}
_NAMES_SHOWN = 5


def load_points(path: str, loaded: Loaded) -> Tensor:
    """``[B, *input_shape]`` of the model's dtype, on the CPU."""
    rows = Rows(path, loaded)
    check_memory(path, math.prod(rows.shape) * 8)
    return rows[slice(0, rows.shape[0])]


class Rows:
    """The points of a file, read some at a time.

    Args:
        path: ``FILE.npy``, ``FILE.safetensors`` with one tensor, or ``FILE.safetensors:NAME``.
        loaded: The model that they are for.

    Attributes:
        shape: ``[B, *input_shape]``.

    Raises:
        ValueError, TypeError, OSError, ImportError: They cannot be had, or do not fit the model; a pickle is refused.
    """

    def __init__(self, path: str, loaded: Loaded) -> None:
        named = _SAFETENSORS.fullmatch(path)
        self._read: Callable[[slice], NDArray[Any] | Tensor]
        if named is None:
            array = _array(path)
            dtype, self.shape, self._read = array.dtype.name, array.shape, array.__getitem__
        else:
            dtype, self.shape, self._read = _tensor(named[1], named[2])
        if not self.shape:
            raise ValueError(f"{path} must hold points [B, *input_shape], got a single number")
        check_shape(path, self.shape[1:], loaded)
        self._dtype = loaded.dtype or (torch.float64 if dtype == "float64" else torch.float32)
        if dtype != dtype_name(self._dtype):
            note(f"{path} is {dtype}, the model takes {dtype_name(self._dtype)}: converted the points")

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of them, of the model's dtype."""
        found = self._read(rows)
        if isinstance(found, Tensor):
            return found.to(self._dtype)
        known = found.dtype.kind == "f" and found.dtype.itemsize <= 8
        return torch.from_numpy(found.astype(found.dtype.newbyteorder("=") if known else np.float64)).to(self._dtype)


def _array(path: str) -> NDArray[Any]:
    """The array of a ``.npy`` file, memory-mapped."""
    refuse_folder("points", path)
    with Path(path).open("rb") as file:
        magic = file.read(len(_NUMPY_MAGIC))
    if magic != _NUMPY_MAGIC:
        raise ValueError(f"{path} is no .npy array: write one with numpy.save, or a .safetensors file")
    array = map_npy(path)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{path} must hold real numbers, got {array.dtype}")
    return array


def _tensor(path: str, name: str | None) -> tuple[str, tuple[int, ...], Callable[[slice], NDArray[Any] | Tensor]]:
    """Dtype and shape of a tensor of a ``.safetensors`` file, and what reads some rows of it."""
    refuse_folder("points", path)
    library = optional("safetensors", "a .safetensors file", "safetensors")
    try:
        file = library.safe_open(path, framework="numpy")  # maps a file of any size; torch's must fit into memory
        name = _chosen(path, name, sorted(file.keys()))
        found = file.get_slice(name)
        kind = found.get_dtype()
        if kind == "BF16":  # NumPy has not this one
            found = library.safe_open(path, framework="pt").get_slice(name)
    except (library.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    if kind not in _DTYPES:
        raise TypeError(f"{path} must hold real numbers, {', '.join(_DTYPES)}, got {kind} in {name!r}")
    return _DTYPES[kind], tuple(found.get_shape()), found.__getitem__


def _chosen(path: str, name: str | None, names: list[str]) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    if not names:
        raise ValueError(f"{path} must hold points, got no tensors")
    there = ", ".join(map(repr, names[:_NAMES_SHOWN])) + ", ..." * (len(names) > _NAMES_SHOWN)
    if name is None:
        raise ValueError(f"{path} holds {len(names)} tensors, say which: {path}:{names[0]} (there are {there})")
    raise ValueError(f"{path} must hold {name!r}, got {there}")
