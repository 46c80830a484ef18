"""What is true of every right partition, checked on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pylinregion import _checks
from pylinregion.errors import VerificationError
from pylinregion.locate import Locator
from pylinregion.maps import Array, evaluate
from pylinregion.mesh import Mesh
from pylinregion.module_state import evaluation_mode, unwrap

if TYPE_CHECKING:
    from pylinregion.regions import Partition

_ROUNDING = 1e-9  # of sums of areas and lengths, relative; combinatorics is compared with equality
_COORDINATES = 1e-8  # how far coordinates may be off, relative: points nearer to an edge may be on its other side


def verify(part: Partition, model: nn.Module | None, samples: int, seed: int) -> dict[str, Any]:
    """See :meth:`pylinregion.Partition.verify`."""
    if model is not None and not part.whole:
        raise ValueError("the outputs of this partition, by its first layers only, are not the model's")
    _checks.positive_integer("samples", samples)
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    report: dict[str, Any] = {}
    for check in (_tiling, _topology, _patterns):
        report |= check(part)
    report |= _samples(part, model, samples, seed)
    return report


def _require(true: bool | np.bool_, what: str) -> None:
    if not true:
        raise VerificationError(f"this partition is not right: {what}")


def _tiling(part: Partition) -> dict[str, Any]:
    areas, whole = part.areas(), _area(part.slice.polygon)
    error = abs(float(areas.sum()) - whole) / whole
    _require(error < _ROUNDING, f"the areas of its cells add up to {areas.sum()}, the slice has {whole}")
    smallest = float(areas.min())
    _require(smallest > -_ROUNDING * whole, f"cell {int(areas.argmin())} has area {smallest}")
    return {"area of the slice": whole, "relative error of the sum of areas": error, "smallest area": smallest}


def _area(polygon: Array) -> float:
    x, y = polygon.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _topology(part: Partition) -> dict[str, Any]:
    mesh: Mesh = part.mesh
    vertices, edges, cells = len(mesh.vertices), len(mesh.edges), mesh.cells
    euler = vertices - edges + cells
    _require(euler == 1, f"V - E + F is {euler}, not 1")
    _require(len(np.unique(mesh.indices)) == vertices, "a vertex is in no cell")
    sizes = np.diff(mesh.offsets)
    _require(bool((sizes >= 3).all()), "a cell has fewer than three corners")
    following = np.arange(1, len(mesh.indices) + 1)
    following[mesh.offsets[1:] - 1] = mesh.offsets[:-1]
    sides = np.sort(np.stack([mesh.indices, mesh.indices[following]], axis=1), axis=1)
    owner = np.repeat(np.arange(cells), sizes)
    told = np.sort(mesh.edges, axis=1)
    both = np.concatenate([told, told[mesh.inner()]])
    of_cell = np.concatenate([mesh.edge_cells[:, 0], mesh.edge_cells[mesh.inner(), 1]])
    _require(
        np.array_equal(_sorted(sides, owner), _sorted(both, of_cell)),
        "the sides of the cells are not its edges, each with one cell or two",
    )
    degree = float(part.degrees().mean())
    most = 4 if all(stage.units.groups is None for stage in part.stages.stages) else 6  # lines cross, ties end
    _require(degree <= most, f"its cells have {degree} neighbours on average, more than {most}")
    border = mesh.edges[~mesh.inner()]
    met = np.bincount(border.reshape(-1))
    _require(bool((met[met > 0] == 2).all()), "its border is not closed")
    length = float(np.linalg.norm(np.diff(mesh.vertices[border], axis=1)[:, 0], axis=1).sum())
    corners = part.slice.polygon
    around = float(np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1).sum())
    _require(abs(length - around) < _ROUNDING * around, f"its border is {length} long, the slice's {around}")
    return {"vertices": vertices, "edges": edges, "regions": cells, "V - E + F": euler, "mean degree": degree}


def _sorted(pairs: NDArray[Any], owner: NDArray[Any]) -> NDArray[Any]:
    rows = np.concatenate([pairs, owner[:, None]], axis=1)
    return rows[np.lexsort(rows.T)]


def _patterns(part: Partition) -> dict[str, Any]:
    rows = {row.tobytes() for row in part.patterns}
    _require(len(rows) == part.n_regions, f"it has {len(rows)} different patterns in {part.n_regions} regions")
    return {"different patterns": len(rows)}


def _samples(part: Partition, model: nn.Module | None, samples: int, seed: int) -> dict[str, Any]:
    st = _points(part, samples, seed)
    locator = Locator(part.mesh)
    margin = _COORDINATES * float(np.abs(part.slice.polygon).max())
    held = locator.holders(st, margin)
    _require(bool((held <= 1).all()), f"point {st[held.argmax()].tolist()} is in {held.max()} cells")
    sure = held == 1
    _require(sure.any() or not len(st), "no point is in a cell")
    at = locator.locate(st)
    _require(bool((at >= 0).all()), "a point of the slice is in no cell")
    terms = np.abs(np.concatenate([st, np.ones((len(st), 1))], axis=1)) @ np.abs(part.slice.plane).T
    outputs, on, rounding = evaluate(part.stages, part.slice.points(st).numpy().reshape(len(st), -1), terms)
    maps = part.affine_maps(at)
    told = (maps[:, :, :2] * st[:, None, :]).sum(axis=2) + maps[:, :, 2]
    error = np.abs(told - outputs).max(axis=1)
    wrong = sure & (np.abs(told - outputs) > rounding).any(axis=1)
    _require(not wrong.any(), f"at {st[wrong.argmax()].tolist()} its map is off by {error[wrong.argmax()]}")
    rows = np.packbits(on, axis=1, bitorder="little")
    agree = (rows == part.patterns[at]).all(axis=1) if len(st) else np.ones(0, dtype=bool)
    report = {
        "points": len(st),
        "points inside a cell": int(sure.sum()),
        "points with their cell's pattern": int(agree.sum()),
        "largest error of a map": float(error[sure].max(initial=0.0)),
    }
    if model is not None:
        report["largest difference from the model"] = _difference(part, model, st, outputs)
    return report


def _points(part: Partition, samples: int, seed: int) -> Array:
    """Some drawn in the slice, and the centroids of some cells: a large share of the cells is small."""
    rng = np.random.default_rng(seed)
    low, high = part.slice.polygon.min(axis=0), part.slice.polygon.max(axis=0)
    drawn = rng.uniform(low, high, (samples, 2))
    drawn = drawn[part.slice.contains(drawn)]
    cells = rng.choice(part.n_regions, min(samples, part.n_regions), replace=False)
    centres = part.centroids()[cells]
    return np.concatenate([drawn, centres[part.slice.contains(centres)]])


def _difference(part: Partition, model: nn.Module, st: Array, outputs: Array) -> float:
    """How far the model's own outputs are, relative to the largest, and whether that is rounding."""
    module = unwrap(model)
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    inputs = part.slice.points(st).to(parameter)
    with torch.no_grad(), evaluation_mode(module):
        found = module(inputs).double().cpu().numpy().reshape(len(st), -1)
    error = float(np.abs(found - outputs).max(initial=0.0)) / max(float(np.abs(outputs).max(initial=0.0)), 1e-300)
    limit = float(torch.finfo(parameter.dtype).eps) ** 0.5
    _require(error < limit, f"its outputs are {error} (relative) from those of the model")
    return error
