"""Linear maps in the files of partitions: their numbers as arrays, what they are in the header."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.npz import require
from pylinregion.lowering.linear_maps import Convolution, Dense, LinearMap, Terms

_LARGEST_SIZE = 1 << 31
_BY_DIMENSION = ("stride", "padding", "dilation")

Take = Callable[[str, tuple[Any, ...], tuple[int | None, ...]], NDArray[Any]]


def arrays_of(block: LinearMap, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a map, by name."""
    arrays = {name: block.numbers}
    if isinstance(block, Terms):
        arrays[f"{name}.place"] = block.place
    return arrays


def described(block: LinearMap) -> dict[str, Any]:
    """What a map is, besides its arrays."""
    if isinstance(block, Dense):
        return {"kind": "dense", "places": block.places}
    if isinstance(block, Terms):
        return {"kind": "terms"}
    assert isinstance(block, Convolution)
    shape = {name: list(getattr(block, name)) for name in ("source", "target", *_BY_DIMENSION)}
    return {"kind": "convolution", **shape, "groups": block.groups, "transposed": block.transposed}


def read_map(told: dict[str, Any], take: Take, name: str, rows: int, width: int) -> LinearMap:
    """A map from its arrays and what the header says of it, checked.

    Args:
        told: What :func:`described` gave.
        take: Gives an array of one of some dtypes and of a shape.
        name: Of the array of numbers.
        rows, width: What its shape must be.

    Raises:
        ValueError: Something does not fit.
    """
    floats, integers = (np.float64,), (np.int64,)
    kind = told.get("kind")
    if kind == "dense":
        places = _size(told.get("places"), f"{name}.places")
        fits = rows % places == 0 and width % places == 0
        require(fits, f"{name}.places", f"a divisor of {rows} and of {width}", places)
        return Dense(take(name, floats, (rows // places, width // places)), places)
    if kind == "terms":
        factor = take(name, floats, (rows, None))
        place = take(f"{name}.place", integers, factor.shape)
        fits = factor.shape[1] > 0 and bool(((place >= 0) & (place < width)).all())
        require(fits, f"{name}.place", f"from 0 to {width - 1}", place)
        return Terms(place, factor, width)
    require(kind == "convolution", f"header of {name}", "dense, terms or convolution", kind)
    return _read_convolution(told, take, name, rows, width)


def _read_convolution(told: dict[str, Any], take: Take, name: str, rows: int, width: int) -> LinearMap:
    shape = {key: told.get(key) for key in ("source", "target", *_BY_DIMENSION)}
    for key, sizes in shape.items():
        least = -_LARGEST_SIZE if key == "padding" else 1
        fits = isinstance(sizes, list) and all(type(n) is int and least <= n < _LARGEST_SIZE for n in sizes)
        require(fits, f"{name}.{key}", f"a list of integers from {least} up", sizes)
    dims = len(shape["stride"])
    fits = 1 <= dims <= 3 and [len(sizes) for sizes in shape.values()] == [dims + 1, dims + 1, dims, dims, dims]
    require(fits, f"header of {name}", "sizes for 1 to 3 dimensions", shape)
    groups, transposed = _size(told.get("groups"), f"{name}.groups"), told.get("transposed")
    require(type(transposed) is bool, f"{name}.transposed", "True or False", transposed)
    source, target = shape["source"], shape["target"]
    fits = source[0] % groups == 0 and target[0] % groups == 0
    require(fits, f"{name}.groups", f"a divisor of {source[0]} and of {target[0]}", groups)
    weight = take(name, (np.float64,), (target[0], source[0] // groups, *[None] * dims))
    require(min(weight.shape) > 0, name, "not empty", weight.shape)
    found = Convolution(
        weight, tuple(source), tuple(target), *(tuple(shape[key]) for key in _BY_DIMENSION), groups, transposed
    )
    require(found.shape == (rows, width), name, f"of {rows} rows and width {width}", list(found.shape))
    for d in range(dims):  # every window begins where the one before does and a stride on, within what padding gives
        reach = (target[1 + d] - 1) * found.stride[d] + found.dilation[d] * (weight.shape[2 + d] - 1)
        fits = reach < source[1 + d] + 2 * abs(found.padding[d]) + math.prod(weight.shape[2:]) * found.dilation[d]
        require(fits, f"{name}.target", "windows that reach the source", target)
    return found


def _size(number: Any, name: str) -> int:
    require(type(number) is int and 1 <= number < _LARGEST_SIZE, name, "an integer from 1 up", number)
    return int(number)
