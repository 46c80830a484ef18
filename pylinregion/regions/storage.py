"""Partitions in files: NumPy's npz format, without pickle, with a version."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylinregion._util import memory, npz
from pylinregion._util.errors import VerificationError
from pylinregion._util.npz import require
from pylinregion._util.whole_files import replace_file
from pylinregion.exact.pattern_table import Patterns, PatternTable
from pylinregion.geometry.slice import Slice
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import Units
from pylinregion.regions.affine_regions import AffineRegions
from pylinregion.regions.certificate import Certificate
from pylinregion.regions.region_set import Cells, RegionSet
from pylinregion.regions.storage_of_maps import arrays_of, described, read_map
from pylinregion.regions.verify import verify

_FORMAT = "pylinregion.Partition"
_VERSIONS = (1, 2, 3)  # 1 had no seal, and 1 and 2 had matrices alone
_CELLS = ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns")
_UNITS = ("line_begin", "kinks", "slopes", "intercepts")


def save(part: RegionSet, path: str | os.PathLike[str], compress: bool) -> None:
    """See :meth:`pylinregion.Partition.save`."""
    arrays: dict[str, Any] = {
        "slice.origin": part.slice.origin.numpy(),
        "slice.u": part.slice.u.numpy(),
        "slice.v": part.slice.v.numpy(),
        "slice.polygon": part.slice.polygon,
    }
    if part.cells is not None:
        arrays |= {f"cells.{name}": getattr(part.cells, name) for name in _CELLS if name != "patterns"}
        arrays |= _arrays_of_patterns(part.cells.patterns)
    stages = []
    for number, stage in enumerate(part.stages.stages):
        for source, block in stage.blocks.items():
            arrays |= arrays_of(block, f"stage{number}.block{source}")
        arrays |= {f"stage{number}.{name}": getattr(stage.units, name) for name in _UNITS}
        arrays[f"stage{number}.bias"] = stage.bias
        if stage.units.groups is not None:
            arrays[f"stage{number}.groups"] = stage.units.groups
        stages.append(
            {
                "sources": list(stage.blocks),
                "maps": [described(block) for block in stage.blocks.values()],
                "denominator": stage.units.denominator,
                "groups": stage.units.groups is not None,
                "layer": stage.layer,
                "after": stage.after,
            }
        )
    header = {
        "format": _FORMAT,
        "version": max(_VERSIONS),
        "layers": part.layers,
        "regions_per_layer": part.regions_per_layer,
        "certificate": vars(part.certificate),
        "whole": part.whole,
        "cells": part.cells is not None,
        "table": part.cells is not None and isinstance(part.cells.patterns, PatternTable),
        "stages": stages,
        "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
    }
    replace_file(path, lambda file: npz.write(file, arrays, header, compress=compress))


def read(path: str | os.PathLike[str]) -> AffineRegions:
    """See :func:`pylinregion.load`."""
    with Path(path).open("rb") as opened:  # that it cannot be opened is the caller's to know
        try:
            archive = npz.Npz(opened, memory.budget(None))
            header = archive.about()
            form, version = header["format"], header["version"]
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path} is not a partition that pylinregion saved: {type(error).__name__}: {error}"
            ) from error
        if form != _FORMAT or version not in _VERSIONS:
            known = " or ".join(map(str, _VERSIONS))
            raise ValueError(f"{path} must be a {_FORMAT} of version {known}, got {form} of version {version}")
        try:
            if version == 1:  # which had no stage that comes behind a layer
                header["stages"] = [each | {"after": -1} for each in header["stages"]]
            if version < 3:
                header["table"] = False
                header["stages"] = [each | {"maps": [_MATRIX] * len(each["sources"])} for each in header["stages"]]
            told = _Header(header)
            part = _read(told, _Arrays(archive, told.take("arrays", dict)))
            if version > 1:
                archive.check_seal()
            elif part.cells is not None:
                verify(part, None, samples=1000, seed=0)
        except (ValueError, TypeError, KeyError, VerificationError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    return part


class _Header:
    """What the header says, by name."""

    def __init__(self, values: Any, name: str = "") -> None:
        require(isinstance(values, dict), name or "header", "an object", type(values).__name__)
        self._values, self._name = values, name

    def take(self, name: str, kind: type) -> Any:
        """A value of a type; an int is none of bool."""
        where, value = self._name + name, self._values.get(name)
        require(
            type(value) is kind, f"header {where!r}", f"{kind.__name__}", "nothing" if value is None else repr(value)
        )
        return value

    def numbers(self, name: str, least: int) -> list[int]:
        """Integers from ``least`` up."""
        values = self.take(name, list)
        fit = all(type(value) is int and value >= least for value in values)
        require(fit, f"header {self._name + name!r}", f"integers from {least} up", values)
        return list(values)


class _Arrays:
    """The arrays of a file, and what the header says of their dtypes and shapes."""

    def __init__(self, archive: npz.Npz, told: dict[str, Any]) -> None:
        self._archive, self._told = archive, told

    def take(self, name: str, dtypes: Sequence[Any], shape: Sequence[int | None]) -> NDArray[Any]:
        """An array of one of some dtypes and of a shape (None: any size), without NaN, with its rows in order."""
        self._archive.check(name, dtypes, shape)
        header = self._archive.headers[name]
        found = [str(header.dtype), list(header.shape)]
        require(found == self._told.get(name), name, f"{self._told.get(name)}, as the header says", found)
        return self._archive.take(name, dtypes, shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, () if there is none."""
        header = self._archive.headers.get(name)
        return () if header is None else header.shape

    def check_all_taken(self) -> None:
        """There is no array of which the header does not say what it is for, and none that it says and is not there."""
        self._archive.check_all_taken()
        missing = sorted(self._told.keys() - self._archive.headers.keys())
        require(not missing, "header 'arrays'", "those that are there", f"also {', '.join(missing)}")


_MATRIX = {"kind": "dense", "places": 1}
_FLOATS, _INTEGERS = (np.float64,), (np.int32, np.int64)


def _read(header: _Header, arrays: _Arrays) -> AffineRegions:
    shape = arrays.shape("slice.origin")
    origin, u, v = (arrays.take(f"slice.{name}", _FLOATS, shape) for name in ("origin", "u", "v"))
    where = Slice(origin, u, v, arrays.take("slice.polygon", _FLOATS, (None, 2)))
    layers, counts = tuple(header.take("layers", list)), header.numbers("regions_per_layer", 1)
    require(all(isinstance(name, str) for name in layers), "header 'layers'", "names", layers)
    fit = len(counts) == len(layers) and counts == sorted(counts)
    require(fit, "header 'regions_per_layer'", f"{len(layers)} ascending numbers", counts)
    stages = _stages(header.take("stages", list), arrays, layers, math.prod(shape))
    proof = _Header(header.take("certificate", dict), "certificate.")
    decided, exact, ties = (proof.take(name, int) for name in ("filter", "exact", "ties"))
    fit = decided >= 0 and 0 <= ties <= exact
    require(fit, "header 'certificate'", "numbers of decisions", (decided, exact, ties))
    certificate = Certificate(decided, exact, ties, proof.take("definition", str))
    table = header.take("table", bool)
    cells = _cells(arrays, counts[-1] if counts else 1, stages, table) if header.take("cells", bool) else None
    arrays.check_all_taken()
    return AffineRegions(where, layers, tuple(counts), certificate, stages, header.take("whole", bool), cells)


def _stages(described: list[Any], arrays: _Arrays, layers: tuple[str, ...], inputs: int) -> Stages:
    stages: list[Stage] = []
    for number, each in enumerate(described):
        told, name = _Header(each, f"stages[{number}]."), f"stage{number}"
        sources = told.numbers("sources", INPUT)
        fit = len(set(sources)) == len(sources) and max(sources, default=INPUT) < number
        require(fit, f"header 'stages[{number}].sources'", "stages before it, each once", sources)
        bias = arrays.take(f"{name}.bias", _FLOATS, (None,))
        maps = told.take("maps", list)
        fit = len(maps) == len(sources) and all(isinstance(each, dict) for each in maps)
        require(fit, f"header 'stages[{number}].maps'", "an object for each source", maps)
        blocks = {
            source: read_map(
                each,
                arrays.take,
                f"{name}.block{source}",
                len(bias),
                inputs if source == INPUT else stages[source].rows,
            )
            for source, each in zip(sources, maps, strict=True)
        }
        units = _units(arrays, name, len(bias), told)
        layer, after = told.take("layer", int), told.take("after", int)
        require(-1 <= after < len(layers), f"header 'stages[{number}].after'", "a layer, or -1", after)
        stages.append(Stage(blocks, bias, units, layer, after))
    order = [stage.layer for stage in stages if stage.layer != -1]
    require(order == list(range(len(layers))), "header 'stages'", f"those of {len(layers)} layers in order", order)
    require(any(INPUT in stage.blocks for stage in stages), "header 'stages'", "of the input", "none that takes it")
    require(not stages[-1].units.lines, f"stage{len(stages) - 1}.kinks", "empty: these are the outputs", "kinks")
    return Stages(stages, layers)


def _units(arrays: _Arrays, name: str, rows: int, told: _Header) -> Units:
    """The units of a stage: as many kinks as ``line_begin`` says, and one piece more for each."""
    begin = arrays.take(f"{name}.line_begin", (np.int64,), (rows + 1,))
    fit = begin[0] == 0 and (np.diff(begin) >= 0).all()
    require(fit, f"{name}.line_begin", "ascending from 0", begin)
    lines = int(begin[-1])
    kinks = arrays.take(f"{name}.kinks", _FLOATS, (lines,))
    same_unit = np.repeat(np.arange(rows), np.diff(begin))
    ascend = (np.diff(kinks) > 0) | (np.diff(same_unit) > 0)
    require(ascend.all(), f"{name}.kinks", "ascending for each unit", kinks)
    slopes, intercepts = (arrays.take(f"{name}.{each}", _FLOATS, (lines + rows,)) for each in ("slopes", "intercepts"))
    denominator = told.take("denominator", float)
    require(denominator in range(1, 1 << 10), "header 'denominator'", "a small integer", denominator)
    groups = None
    if told.take("groups", bool):
        groups = arrays.take(f"{name}.groups", (np.int64,), (None,))
        fit = len(groups) > 0 and groups[0] == 0 and groups[-1] == rows and (np.diff(groups) > 0).all()
        require(fit, f"{name}.groups", f"ascending from 0 to {rows}", groups)
        require(np.array_equal(begin, np.arange(rows + 1)), f"{name}.line_begin", "a line for each candidate", begin)
    return Units(begin, kinks, slopes, intercepts, denominator, groups)


def _arrays_of_patterns(patterns: Patterns) -> dict[str, NDArray[Any]]:
    if not isinstance(patterns, PatternTable):
        return {"cells.patterns": patterns}
    return {
        "cells.patterns": patterns.bits,
        "cells.patterns.lines": patterns.lines,
        "cells.patterns.everywhere": patterns.everywhere,
    }


def _patterns(arrays: _Arrays, regions: int, lines: int, table: bool) -> Patterns:
    if not table:
        return _bits(arrays, "cells.patterns", (regions, (lines + 7) // 8), lines)
    own = arrays.take("cells.patterns.lines", (np.int64,), (None,))
    fit = bool((np.diff(own) > 0).all()) and (not len(own) or (own[0] >= 0 and own[-1] < lines))
    require(fit, "cells.patterns.lines", f"ascending from 0 to {lines - 1}", own)
    everywhere = _bits(arrays, "cells.patterns.everywhere", ((lines + 7) // 8,), lines)
    fit = not (everywhere[own >> 3] >> (own & 7).astype(np.uint8) & 1).any()
    require(fit, "cells.patterns.everywhere", "0 for lines that change", "others")
    return PatternTable(everywhere, own, _bits(arrays, "cells.patterns", (regions, (len(own) + 7) // 8), len(own)))


def _bits(arrays: _Arrays, name: str, shape: tuple[int, ...], count: int) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = arrays.take(name, (np.uint8,), shape)
    if spare := -count % 8:
        require((found[..., -1] >> (8 - spare) == 0).all(), name, f"0 in the last {spare} bits", "others")
    return found


def _cells(arrays: _Arrays, regions: int, stages: Stages, table: bool) -> Cells:
    """The cells, with all numbers in the arrays that they point into."""
    sizes = [math.prod(arrays.shape(f"cells.{name}")[:1]) for name in ("vertices", "edges")]
    require(sizes[0] - sizes[1] + regions == 1, "cells", "V - E + R = 1", f"{sizes[0]} - {sizes[1]} + {regions}")
    vertices = arrays.take("cells.vertices", _FLOATS, (None, 2))
    offsets = arrays.take("cells.offsets", _INTEGERS, (regions + 1,))
    fit = offsets[0] == 0 and (offsets >= 0).all() and (np.diff(offsets.astype(np.int64)) >= 3).all()
    require(fit, "cells.offsets", "from 0 up, by 3 or more for each region", offsets)
    indices = arrays.take("cells.indices", _INTEGERS, (int(offsets[-1]),))
    edges = arrays.take("cells.edges", _INTEGERS, (None, 2))
    edge_cells = arrays.take("cells.edge_cells", _INTEGERS, (len(edges), 2))
    edge_neuron = arrays.take("cells.edge_neuron", (np.int32,), (len(edges),))
    patterns = _patterns(arrays, regions, stages.lines, table)
    neurons = sum(stage.units.neurons for stage in stages.stages if stage.layer >= 0)
    for name, array, low, high in (
        ("indices", indices, 0, len(vertices)),
        ("edges", edges, 0, len(vertices)),
        ("edge_cells", edge_cells, -1, regions),
        ("edge_neuron", edge_neuron, -1, neurons),
    ):
        fit = low <= array.min(initial=low) and array.max(initial=low) < high
        require(fit, f"cells.{name}", f"from {low} to {high - 1}", f"{array.min()} to {array.max()}")
    require((edge_cells[:, 0] >= 0).all(), "cells.edge_cells", "0 or more in the first column", edge_cells[:, 0].min())
    return Cells(vertices, offsets, indices, edges, edge_cells, edge_neuron, patterns)
