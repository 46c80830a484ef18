"""What is true of every right partition, checked on one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion._util.arrays import Array
from pylinregion._util.errors import VerificationError
from pylinregion.caller.isolation import isolated
from pylinregion.caller.wrappers import unwrap
from pylinregion.capturing.capture import capture_for_shape
from pylinregion.capturing.tracing import output_tensors
from pylinregion.exact.maps import Evaluation, evaluate
from pylinregion.exact.neurons import Neurons
from pylinregion.exact.pattern_table import names_of_rows, states
from pylinregion.exact.proven_maps import most_off
from pylinregion.geometry import cell_measures
from pylinregion.geometry.mesh import Mesh
from pylinregion.geometry.point_location import Locator
from pylinregion.graph.network import Network
from pylinregion.regions.affine_regions import AffineRegions

_ROUNDING = 1e-9  # of sums of areas and lengths, relative; combinatorics is compared with equality


def verify(part: AffineRegions, model: nn.Module | None, samples: int, seed: int) -> dict[str, Any]:
    """See :meth:`pylinregion.Partition.verify`."""
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if model is not None and not part.whole:
        raise ValueError("the outputs of this partition, by its first layers only, are not the model's")
    if checks.integer("samples", samples) < 0:
        raise ValueError(f"samples must be 0 or more, got {samples}")
    report: dict[str, Any] = {}
    for check in (_tiling, _topology, _patterns, _neurons):
        report |= check(part)
    report |= _samples(part, model, samples, seed)
    return report


def _require(true: bool | np.bool_, what: str) -> None:
    if not true:
        raise VerificationError(f"this partition is not right: {what}")


def _tiling(part: AffineRegions) -> dict[str, Any]:
    scaled = _Scaled.of(part)
    areas, whole = cell_measures.signed_areas(scaled.mesh), float(cell_measures.areas(scaled.outline)[0])
    error = abs(float(areas.sum()) - whole) / whole
    limit = _ROUNDING + scaled.noise * float(cell_measures.perimeters(scaled.outline)[0]) / whole
    _require(error < limit, f"the areas of its cells add up to {1 + (areas.sum() - whole) / whole} of the slice's")
    smallest = float(areas.min()) / whole
    _require(smallest > -limit, f"cell {int(areas.argmin())} has area {smallest} of the slice's")
    return {
        "area of the slice": float(np.ldexp(whole, -2 * scaled.exponent)),
        "relative error of the sum of areas": error,
        "smallest area": float(np.ldexp(areas.min(), -2 * scaled.exponent)),
    }


@dataclass(frozen=True)
class _Scaled:
    """The cells moved to 0 and scaled to an extent of about 1, so that areas lose nothing.

    Attributes:
        mesh: The cells.
        outline: The slice as one cell.
        noise: What coordinates are rounded to, several times.
        exponent: Of the power of two that coordinates were multiplied by.
    """

    mesh: Mesh
    outline: Mesh
    noise: float
    exponent: int

    @classmethod
    def of(cls, part: AffineRegions) -> _Scaled:
        polygon = part.slice.polygon
        low = polygon.min(axis=0)
        exponent = -int(np.frexp((polygon - low).max())[1])
        n = len(polygon)
        nothing = np.zeros((0, 2), np.int64)
        whole = Mesh(np.ldexp(polygon - low, exponent), np.array([0, n]), np.arange(n), nothing, nothing)
        noise = 64 * float(np.spacing(np.ldexp(np.abs(polygon).max(), exponent)))
        return cls(replace(part.mesh, vertices=np.ldexp(part.vertices - low, exponent)), whole, noise, exponent)


def _topology(part: AffineRegions) -> dict[str, Any]:
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
    scaled = _Scaled.of(part)
    length = float(np.linalg.norm(np.diff(scaled.mesh.vertices[border], axis=1)[:, 0], axis=1).sum())
    around = float(cell_measures.perimeters(scaled.outline)[0])
    room = _ROUNDING * around + scaled.noise * len(border)
    _require(abs(length - around) < room, f"its border is {length / around} times as long as the slice's")
    return {"vertices": vertices, "edges": edges, "regions": cells, "V - E + F": euler, "mean degree": degree}


def _sorted(pairs: NDArray[Any], owner: NDArray[Any]) -> NDArray[Any]:
    rows = np.concatenate([pairs, owner[:, None]], axis=1)
    return rows[np.lexsort(rows.T)]


def _patterns(part: AffineRegions) -> dict[str, Any]:
    rows = set(names_of_rows(part.patterns))
    _require(len(rows) == part.n_regions, f"it has {len(rows)} different patterns in {part.n_regions} regions")
    return {"different patterns": len(rows)}


def _neurons(part: AffineRegions) -> dict[str, Any]:
    """The neuron of an edge is on other pieces on its two sides."""
    inner = part.mesh.inner()
    _require(
        bool(((part.edge_neuron >= 0) == inner).all()), "an edge inside has no neuron, or one of the border has one"
    )
    neuron, cells = part.edge_neuron[inner], part.edge_cells[inner]
    of_line = Neurons.of(part.stages).of_line
    order = np.argsort(of_line, kind="stable")
    begin, end = (np.searchsorted(of_line, neuron, side, order) for side in ("left", "right"))
    changes = np.zeros(len(neuron), dtype=bool)
    for step in range(int((end - begin).max(initial=0))):
        line = order[np.minimum(begin + step, end - 1)]
        changes |= states(part.patterns, cells[:, 0], line) != states(part.patterns, cells[:, 1], line)
    if not changes.all():
        edge = int(np.flatnonzero(inner)[changes.argmin()])
        raise VerificationError(
            f"this partition is not right: the pattern of neuron {part.edge_neuron[edge]} is the same on both sides of "
            f"edge {edge}"
        )
    return {}


def _samples(part: AffineRegions, model: nn.Module | None, samples: int, seed: int) -> dict[str, Any]:
    st = _points(part, samples, seed)
    inside, near = np.zeros(len(st), dtype=np.int64), np.zeros(len(st), dtype=np.int64)
    locator = Locator(part.mesh)
    for point, _, depth in locator.depths(st):
        np.add.at(inside, point[depth > locator.blur], 1)
        np.add.at(near, point[depth > -locator.blur], 1)
    _none(inside > 1, st, lambda at: f"is in {inside[at]} cells")
    _none(near == 0, st, lambda at: "is in no cell")
    regions = part.locate(st)
    _none(regions < 0, st, lambda at: "is in no region")
    sure = inside == 1
    found = evaluate(part.stages, part.slice, st)
    told = np.unpackbits(part.patterns[regions], axis=1, count=part.stages.lines, bitorder="little")
    unlike = (told != found.on) & found.sure
    _none(sure & unlike.any(axis=1), st, lambda at: f"has not the pattern of its region {regions[at]}")
    different, place = np.unique(regions, return_inverse=True)
    maps = part.affine_maps(different)
    off = most_off(maps, np.abs(part.slice.polygon).max(axis=0))[place]
    maps = maps[place]
    outputs = (maps[:, :, :2] * st[:, None, :]).sum(axis=2) + maps[:, :, 2]
    error = np.abs(outputs - found.outputs)
    allowed = np.minimum(found.of_sums, found.rounding + off)
    _none(sure & (error > allowed).any(axis=1), st, lambda at: f"has a map that is off by {error[at].max()}")
    report = {
        "points": len(st),
        "points inside a cell": int(sure.sum()),
        "points with their cell's pattern": int((told == found.on).all(axis=1).sum()),
        "largest error of a map": float(error[sure].max(initial=0.0)),
    }
    if model is not None:
        report["largest difference from the model"] = _difference(part, model, st, found)
    return report


def _none(wrong: NDArray[np.bool_], st: Array, what: Callable[[int], str]) -> None:
    if wrong.any():
        at = int(wrong.argmax())
        raise VerificationError(f"this partition is not right: point {st[at].tolist()} {what(at)}")


def _points(part: AffineRegions, samples: int, seed: int) -> Array:
    """Some drawn in the slice, and the centroids of some cells: a large share of the cells is small."""
    rng = np.random.default_rng(seed)
    low, high = part.slice.polygon.min(axis=0), part.slice.polygon.max(axis=0)
    drawn = rng.uniform(low, high, (samples, 2))
    drawn = drawn[part.slice.contains(drawn)]
    cells = rng.choice(part.n_regions, min(samples, part.n_regions), replace=False)
    centres = part.centroids()[cells]
    return np.concatenate([drawn, centres[part.slice.contains(centres)]])


def _difference(part: AffineRegions, model: nn.Module, st: Array, expected: Evaluation) -> float:
    """How far the model's own outputs are, relative to the largest, and whether that is rounding."""
    module = unwrap(model)
    inputs = part.slice.points(st)
    network = capture_for_shape(module, part.slice.input_shape)
    wanted, given = expected.outputs.shape[1], [network.nodes[index].units for index in network.outputs]
    _require(given == [wanted], f"it has {wanted} outputs, and those of the model are {' and '.join(map(str, given))}")
    try:  # what a model of low precision rounds itself says nothing of its function
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wide = copy.deepcopy(module).double()
        found = _outputs(wide, network, inputs)
        limit = 2 * expected.rounding
    except Exception:  # it cannot be copied, or makes tensors of a dtype of its own
        found = _outputs(module, network, inputs.to(network.dtype))
        limit = np.array(float(torch.finfo(network.dtype).eps) ** 0.5 * np.abs(expected.outputs).max(initial=0.0))
    error = np.abs(found - expected.outputs)
    largest = float(error.max(initial=0.0)) / max(float(np.abs(expected.outputs).max(initial=0.0)), 1e-300)
    _require(bool((error <= limit).all()), f"its outputs are {largest} (relative) from those of the model")
    return largest


def _outputs(module: nn.Module, network: Network, inputs: Tensor) -> Array:
    """``[points, outputs]``: of all that the module returns, the tensor that is the captured network's output."""
    with isolated(module), torch.no_grad():
        returned = output_tensors(module(inputs.to(network.device)))
    node = network.nodes[network.outputs[0]]
    rows = returned[network.places[0]].movedim(node.batch_dim, 0)
    outputs: Array = rows.double().cpu().reshape(len(inputs), node.units).numpy()
    return outputs
