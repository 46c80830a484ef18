"""Partitions in files: NumPy's npz format, without pickle, with a version."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pylinregion.certificate import Certificate
from pylinregion.slice import Slice
from pylinregion.stages import Stage, Stages, Units

if TYPE_CHECKING:
    from pylinregion.regions import Partition

_FORMAT = "pylinregion.Partition"
_VERSION = 1
_CELLS = ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns")
_UNITS = ("line_begin", "kinks", "slopes", "intercepts")


def save(part: Partition, path: str | os.PathLike[str], compress: bool) -> None:
    """See :meth:`pylinregion.Partition.save`."""
    arrays: dict[str, Any] = {
        "slice.origin": part.slice.origin.numpy(),
        "slice.u": part.slice.u.numpy(),
        "slice.v": part.slice.v.numpy(),
        "slice.polygon": part.slice.polygon,
    }
    if part.cells is not None:
        arrays |= {f"cells.{name}": getattr(part.cells, name) for name in _CELLS}
    described = []
    for number, stage in enumerate(part.stages.stages):
        arrays |= {f"stage{number}.block{source}": block for source, block in stage.blocks.items()}
        arrays |= {f"stage{number}.{name}": getattr(stage.units, name) for name in _UNITS}
        arrays[f"stage{number}.bias"] = stage.bias
        if stage.units.groups is not None:
            arrays[f"stage{number}.groups"] = stage.units.groups
        described.append({"sources": list(stage.blocks), "denominator": stage.units.denominator, "layer": stage.layer})
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "layers": part.layers,
        "regions_per_layer": part.regions_per_layer,
        "certificate": vars(part.certificate),
        "whole": part.whole,
        "cells": part.cells is not None,
        "stages": described,
    }
    arrays["header"] = np.array(json.dumps(header))
    with Path(path).open("wb") as file:  # a file, for savez would add an ending to a name
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def load(path: str | os.PathLike[str]) -> Partition:
    """Read a partition that :meth:`Partition.save` wrote. Nothing in the file is run.

    Args:
        path: The file.

    Returns:
        The partition, with all that it had.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a partition, or one of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays["header"]))
        form, version = header["format"], header["version"]
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a partition that pylinregion saved: {error}") from error
    if form != _FORMAT or version != _VERSION:
        raise ValueError(f"{path} must be a {_FORMAT} of version {_VERSION}, got {form} of version {version}")
    try:
        return _read(header, arrays)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _read(header: dict[str, Any], arrays: dict[str, Any]) -> Partition:
    from pylinregion.regions import Cells, Partition  # which imports this module

    stages = [
        Stage(
            {source: arrays[f"stage{number}.block{source}"] for source in described["sources"]},
            arrays[f"stage{number}.bias"],
            Units(
                **{name: arrays[f"stage{number}.{name}"] for name in _UNITS},
                denominator=described["denominator"],
                groups=arrays.get(f"stage{number}.groups"),
            ),
            described["layer"],
        )
        for number, described in enumerate(header["stages"])
    ]
    where = Slice(*(arrays[f"slice.{name}"] for name in ("origin", "u", "v", "polygon")))
    layers = tuple(header["layers"])
    cells = Cells(*(arrays[f"cells.{name}"] for name in _CELLS)) if header["cells"] else None
    counts = tuple(header["regions_per_layer"])
    part = Partition(
        where, layers, counts, Certificate(**header["certificate"]), Stages(stages, layers), header["whole"], cells
    )
    if cells is not None:
        _check(part, cells)
    return part


def _check(part: Partition, cells: Any) -> None:
    """Whether arrays fit each other, so that nothing reads outside of them."""
    regions, vertices, edges = part.n_regions, len(cells.vertices), len(cells.edges)
    lines = part.stages.lines
    fits = (
        all(getattr(cells, name).dtype.kind in ("f" if name == "vertices" else "iu") for name in _CELLS)
        and cells.vertices.shape == (vertices, 2)
        and cells.offsets.shape == (regions + 1,)
        and cells.edges.shape == cells.edge_cells.shape == (edges, 2)
        and cells.edge_neuron.shape == (edges,)
        and cells.patterns.shape == (regions, (lines + 7) // 8)
        and cells.offsets[0] == 0
        and cells.offsets[-1] == len(cells.indices)
        and bool((np.diff(cells.offsets) >= 3).all())
    )
    neurons = int(sum(stage.units.neurons for stage in part.stages.stages if stage.layer >= 0))
    ranges = (
        (cells.indices, 0, vertices),
        (cells.edges, 0, vertices),
        (cells.edge_cells, -1, regions),
        (cells.edge_neuron, -1, neurons),
    )
    if not fits or not all(low <= array.min() and array.max() < high for array, low, high in ranges):
        raise ValueError("its arrays do not fit each other")
