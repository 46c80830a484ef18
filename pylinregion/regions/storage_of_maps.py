"""Linear maps in the files of partitions: their numbers as arrays, what they are in the header."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.npz import require
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, LinearMap, Terms

_LARGEST_SIZE = 1 << 31
_FLOATS, _INTEGERS = (np.float64,), (np.int64,)

Take = Callable[[str, tuple[Any, ...], tuple[int | None, ...]], NDArray[Any]]


def arrays_of(block: LinearMap, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a map, by name."""
    arrays: dict[str, NDArray[Any]] = {name: block.numbers}
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
    sizes = {name: list(getattr(block, name)) for name in ("source", "target", "stride", "padding", "dilation")}
    return {"kind": "convolution", **sizes, "groups": block.groups, "transposed": block.transposed}


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
    kind = told.get("kind")
    if kind == "dense":
        (places,) = _sizes([told.get("places")], f"{name}.places", 1, 1)
        fits = rows % places == 0 and width % places == 0
        require(fits, f"{name}.places", f"a divisor of {rows} and of {width}", places)
        return Dense(take(name, _FLOATS, (rows // places, width // places)), places)
    if kind == "terms":
        factor = take(name, _FLOATS, (rows, None))
        place = take(f"{name}.place", _INTEGERS, factor.shape)
        fits = factor.shape[1] > 0 and bool(((place >= 0) & (place < width)).all())
        require(fits, f"{name}.place", f"from 0 to {width - 1}", place)
        return Terms(place, factor, width)
    require(kind == "convolution", f"header of {name}", "dense, terms or convolution", kind)
    found = _convolution(told, take, name)
    require(found.shape == (rows, width), name, f"of {rows} rows and width {width}", list(found.shape))
    return found


def _convolution(told: dict[str, Any], take: Take, name: str) -> Convolution:
    strides = told.get("stride")
    dims = len(strides) if isinstance(strides, list) else 0
    require(1 <= dims <= 3, f"{name}.stride", "a list of 1 to 3 integers", strides)
    source, target = (_sizes(told.get(key), f"{name}.{key}", dims + 1, 1) for key in ("source", "target"))
    stride, dilation = (_sizes(told.get(key), f"{name}.{key}", dims, 1) for key in ("stride", "dilation"))
    padding = _sizes(told.get("padding"), f"{name}.padding", dims, 0)
    (groups,) = _sizes([told.get("groups")], f"{name}.groups", 1, 1)
    fits = source[0] % groups == 0 and target[0] % groups == 0
    require(fits, f"{name}.groups", f"a divisor of {source[0]} and of {target[0]}", groups)
    transposed = told.get("transposed")
    require(type(transposed) is bool, f"{name}.transposed", "True or False", transposed)
    weight = take(name, _FLOATS, (target[0], source[0] // groups, *[None] * dims))
    require(min(weight.shape) > 0, name, "not empty", weight.shape)
    found = Convolution(weight, source, target, stride, padding, dilation, groups, bool(transposed))
    require(_has_sizes_of_torch(found), f"{name}.target", "as many windows as padding and stride give", target)
    return found


def _has_sizes_of_torch(block: Convolution) -> bool:
    """Whether the source and the target have such sizes as torch gives them.

    As many windows as the padded source holds, and that is padded behind by as much as in front, or by one more if that
    keeps its size ("same", where windows reach over an odd number). Of a transposed convolution: a source that is as
    long as the windows, less the padding, and longer by less than the stride or the dilation ("output_padding").
    """
    for d, behind in enumerate(block.behind):
        over, front, stride = block.dilation[d] * (block.weight.shape[2 + d] - 1), block.padding[d], block.stride[d]
        keeps_size = not block.transposed and stride == 1 and over == 2 * front + 1 == front + behind
        rest = front + keeps_size - behind
        if not 0 <= rest < (max(stride, block.dilation[d]) if block.transposed else stride):
            return False
    return True


def _sizes(numbers: Any, name: str, count: int, least: int) -> tuple[int, ...]:
    fits = isinstance(numbers, list) and len(numbers) == count
    fits = fits and all(type(n) is int and least <= n < _LARGEST_SIZE for n in numbers)
    require(fits, name, f"{count} integers from {least} up", numbers)
    return tuple(numbers)
