"""What is known of the regions of a network on a slice: the result of :func:`pylinregion.partition`."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.exact.decision import Decision, DecisionBoundary, decide, with_winner
from pylinregion.exact.neurons import Neuron, Neurons
from pylinregion.exact.proven_maps import affine_maps, jacobians
from pylinregion.exact.residues import equal_maps
from pylinregion.exact.signs import signs
from pylinregion.geometry import cell_measures
from pylinregion.geometry.mesh import Array, Integers, Mesh
from pylinregion.geometry.point_location import Locator
from pylinregion.geometry.slice import Slice, coordinates_of
from pylinregion.lowering.stages import Stages
from pylinregion.regions import export, storage
from pylinregion.regions.certificate import Certificate
from pylinregion.regions.statistics import statistics
from pylinregion.regions.verify import verify

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 1 << 13  # near sides, at a time
_REGIONS = 1 << 16  # likewise


@dataclass(frozen=True, eq=False)
class Cells(Mesh):
    """The cells of a partition: a mesh, with what the network does there.

    Attributes:
        edge_neuron: See :attr:`Partition.edge_neuron`.
        patterns: See :attr:`Partition.patterns`.
    """

    edge_neuron: NDArray[np.int32]
    patterns: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """The regions of a network on a slice: ``R`` cells with ``V`` vertices and ``E`` edges.

    Arrays on the slice are NumPy's, tensors in the input space torch's. A region is a number from 0 to R - 1, a neuron
    one from 0 up, layer after layer. The arrays of cells are read-only.

    Attributes:
        slice: The slice.
        layers: The names of the layers that cut it.
        regions_per_layer: How many regions there are if the later layers are left out.
        certificate: How the decisions were taken.
        stages: The network, a copy of its parameters. Do not write into it: what is computed later goes by it.
        whole: Whether these are all layers of the network, so that the outputs are the model's.
        cells: The cells; None if they were only counted, and then all that needs them raises a ``ValueError``.
    """

    slice: Slice
    layers: tuple[str, ...]
    regions_per_layer: tuple[int, ...]
    certificate: Certificate
    stages: Stages = field(repr=False)
    whole: bool = True
    cells: Cells | None = field(default=None, repr=False)

    # What was counted

    @property
    def n_regions(self) -> int:
        """How many regions the slice has."""
        return self.regions_per_layer[-1] if self.regions_per_layer else 1

    @property
    def definition(self) -> str:
        """What is counted, in a sentence."""
        return self.certificate.definition

    # Cells

    @property
    def mesh(self) -> Cells:
        """The cells."""
        if self.cells is None:
            raise ValueError("this partition was only counted: it has no cells. Call partition(..., cells=True)")
        return self.cells

    @property
    def vertices(self) -> Array:
        """``[V, 2]`` float64: (s, t)."""
        return self.mesh.vertices

    @property
    def offsets(self) -> Integers:
        """``[R + 1]``: the corners of region r are ``indices[offsets[r]:offsets[r + 1]]``."""
        return self.mesh.offsets

    @property
    def indices(self) -> Integers:
        """Vertex numbers, region after region, counter-clockwise."""
        return self.mesh.indices

    @property
    def edges(self) -> Integers:
        """``[E, 2]``: the vertices at the ends of each edge."""
        return self.mesh.edges

    @property
    def edge_cells(self) -> Integers:
        """``[E, 2]``: the regions on both sides; -1 outside the slice."""
        return self.mesh.edge_cells

    @property
    def edge_neuron(self) -> NDArray[np.int32]:
        """``[E]``: the neuron that changes across each edge (where several do, one of them); -1 on the border."""
        return self.mesh.edge_neuron

    @property
    def layer_of_edge(self) -> NDArray[np.int16]:
        """``[E]``: the layer of that neuron, as a place in :attr:`layers`; -1 on the border."""
        return np.append(self._neurons.layer, np.int16(-1))[self.edge_neuron]

    @property
    def patterns(self) -> NDArray[np.uint8]:
        """``[R, bytes]``, unique rows: bit ``k % 8`` of byte ``k // 8`` is 1 where breakpoint k is exceeded.

        Breakpoints are counted layer after layer, neuron after neuron; a ReLU has one, so that k is its number. A
        maximum has a bit for each of its candidates instead, which is 1 for the winner alone. What is made continuous
        of comparisons may have bits of no neuron behind theirs (``sign(z) * relu(|z| - t)``: of z = t and z = -t).
        """
        return self.mesh.patterns

    def polygon(self, region: int) -> Array:
        """``[n, 2]``: the corners of a region, counter-clockwise."""
        return self.mesh.polygon(self._region(region))

    def pattern(self, region: int) -> dict[str, NDArray[np.uint8]]:
        """For each layer ``[neurons]``: the piece that each is on; of a ReLU 0 is off and 1 is on.

        Of a maximum it is the place of the winner among its candidates: of a max-pool's window in row-major order, the
        padding left out; of ``maximum`` and ``minimum`` it is 1 where the first argument is above the second. Unsigned
        integers of 8 bits, or as many as the largest window needs.
        """
        row = self.patterns[self._region(region)]
        bits = np.unpackbits(row, count=self.stages.lines, bitorder="little")
        of_line, steps, first = self._neurons.of_line, self._neurons.step_of_line, self._neurons.first
        dtype = np.result_type(np.uint8, np.min_scalar_type(steps.max(initial=0)))
        own = of_line >= 0
        pieces = np.bincount(of_line[own], weights=(bits * steps)[own], minlength=int(first[-1])).astype(dtype)
        return {name: pieces[first[layer] : first[layer + 1]] for layer, name in enumerate(self.layers)}

    @property
    def neurons(self) -> NDArray[np.int64]:
        """The neurons that change anywhere on the slice, ascending."""
        patterns = self.patterns
        changed = np.bitwise_or.reduce(patterns, axis=0) ^ np.bitwise_and.reduce(patterns, axis=0)
        bits = np.unpackbits(changed, count=self.stages.lines, bitorder="little")
        neurons = np.unique(self._neurons.of_line[bits != 0]).astype(np.int64)
        return neurons[neurons >= 0]

    def neuron(self, number: int) -> Neuron:
        """The layer of a neuron, and its place there."""
        return self._neurons.named(number)

    @plain_torch()
    def points(self) -> Tensor:
        """``[V, *input_shape]``: the vertices in the input space."""
        return self.slice.points(self.vertices)

    # Sizes and shapes

    def areas(self, metric: str = "slice") -> Array:
        """``[R]``: the area of each region.

        Args:
            metric: Here and below: ``"slice"``: lengths in the coordinates (s, t); ``"input"``: in the input space.
                The two are the same where u and v are orthonormal, as those of ``Slice.through``, ``around`` and
                ``box``.
        """
        return cell_measures.areas(self._measured(metric))

    def perimeters(self, metric: str = "slice") -> Array:
        """``[R]``: the length of each region's boundary."""
        return cell_measures.perimeters(self._measured(metric))

    def centroids(self) -> Array:
        """``[R, 2]``: the centre of mass of each region."""
        return cell_measures.centroids(self.mesh)

    def inradii(self, metric: str = "slice") -> Array:
        """``[R]``: the radius of the largest circle in each region."""
        return cell_measures.inradii(self._measured(metric))

    def eccentricities(self, metric: str = "slice") -> Array:
        """``[R]``: the largest distance between two corners over the smallest (SplineCam's definition)."""
        return cell_measures.eccentricities(self._measured(metric))

    def corner_distances(self, metric: str = "slice") -> tuple[Array, Array]:
        """``[R]`` twice: mean and standard deviation of the distances of the corners to the centroid.

        SplineCam calls this centrality.
        """
        return cell_measures.corner_distances(self._measured(metric))

    def degrees(self) -> NDArray[np.int64]:
        """``[R]``: how many regions share an edge with each."""
        return cell_measures.degrees(self.mesh)

    def adjacency(self) -> Any:
        """Which regions share an edge.

        Returns:
            ``[R, R]`` boolean ``scipy.sparse.csr_array``, symmetric.

        Raises:
            ModuleNotFoundError: scipy is not installed (``pip install "pylinregion[graph]"``).
        """
        return export.adjacency(self)

    # The function

    @plain_torch()
    def affine_maps(self, regions: Any = None) -> Array:
        """The outputs as affine functions of (s, t), from the patterns.

        They are rounded, and right to a millionth: of each output the slope (a, b) is off by that part of its length at
        most, and c by that part of what ``|a s| + |b t| + |c|`` is at most on the slice; usually both are right to 12
        digits and more. Where float64 does not prove it, since large numbers cancel, they are computed exactly (slower)
        and rounded at the end.

        Args:
            regions: ``[n]`` region numbers; None: all.

        Returns:
            ``[n, K, 3]``: output k is ``a s + b t + c`` on the region.
        """
        if regions is not None and np.ndim(regions) != 1:
            raise ValueError(f"regions must be [n] region numbers, got {np.ndim(regions)} dimensions")
        return self._maps(self.patterns if regions is None else self.patterns[self._regions(regions)])

    @plain_torch()
    def jacobian(self, region: int) -> Tensor:
        """``[K, *input_shape]`` float64: the derivative of the outputs by the inputs on a region.

        Of each output right to a millionth of its length, as :meth:`affine_maps` are.
        """
        row = self.patterns[self._region(region)][None]
        return jacobians(self.stages, row)[0].reshape(-1, *self.slice.input_shape).clone()

    @plain_torch()
    def slope_norms(self, metric: str = "slice") -> Array:
        """``[R]``: the Frobenius norm of the outputs' derivative on each region.

        Args:
            metric: ``"slice"``: by (s, t); ``"input"``: along the slice, by lengths in the input space; ``"jacobian"``:
                by all inputs, also those directions that leave the slice (slower).
        """
        result = np.empty(len(self.patterns))
        if metric == "jacobian":
            step = max(1, (1 << 22) // (max(stage.rows for stage in self.stages.stages) * self.stages.stages[-1].rows))
            for begin in range(0, len(result), step):
                some = jacobians(self.stages, self.patterns[begin : begin + step])
                result[begin : begin + step] = some.flatten(1).norm(dim=1).numpy()
            return result
        change = np.eye(2) if self._metric(metric) == "slice" else np.linalg.inv(self.slice.isometry)
        for begin in range(0, len(result), _REGIONS):
            slopes = self._maps(self.patterns[begin : begin + _REGIONS])[:, :, :2]
            result[begin : begin + _REGIONS] = np.linalg.norm((slopes @ change).reshape(len(slopes), -1), axis=1)
        return result

    @plain_torch()
    def linear_regions(self) -> NDArray[np.int64]:
        """Regions joined where the network does not bend: maximal connected open sets on which it is affine.

        That is definition 4 of arXiv 2505.16716 on the slice. Whether the maps of neighbours are equal is decided
        exactly, modulo primes.

        Returns:
            ``[R]``: the linear region of each region; they are numbered from 0 in the order of their first region.
        """
        pairs = np.asarray(self.edge_cells[self.mesh.inner()])
        equal = pairs[equal_maps(self.stages, self.slice.plane, self.patterns, pairs)]
        return _components(self.n_regions, equal)

    @plain_torch()
    def decision_boundary(self) -> DecisionBoundary:
        """Where the largest output changes; of one output, where its sign does.

        Exact as the partition is: the engine cuts the regions where the class changes. Of equal outputs the first wins,
        and an output of 0 is not above 0. Needs one more enumeration, once.

        Returns:
            Segments ``[S, 2, 2]``, their regions ``[S]`` and the classes on their two sides ``[S, 2]``.

        Raises:
            ValueError: The partition is not that of the whole network.
        """
        return self._decision.boundary()

    @plain_torch()
    def decision(self) -> Decision:
        """The regions cut where the class changes: what :meth:`decision_boundary` and :meth:`class_of` go by.

        Raises:
            ValueError: The partition is not that of the whole network.
        """
        return self._decision

    @plain_torch()
    def class_of(self, where: Any) -> NDArray[np.int64]:
        """The class: the place of the largest output; of one output, 1 where it is above 0, else 0.

        Args:
            where: Region numbers (integers, one or ``[n]``), or points (s, t) ``[..., 2]``: floats, or integers with
                two dimensions or more. So ``[0, 1]`` is two regions, and ``[[0, 1]]`` and ``[0.0, 1.0]`` are a point.

        Returns:
            ``[...]``: for a region that the boundary crosses, the class that has most of its area; for points outside
            the slice -1. Of a point it is decided exactly, so that of outputs which are equal there the first wins.

        Raises:
            ValueError, TypeError: ``where`` is not that, or the partition is not that of the whole network.
        """
        if np.ndim(where) < 2 and np.asarray(where).dtype.kind in "iu":
            return self._decision.of_regions(self.n_regions)[self._regions(where)]
        return self._located(coordinates_of("where", where), self._decision_locator, self._decision.winner, self._won)

    @plain_torch()
    def locate(self, st: Any) -> NDArray[np.int64]:
        """The region that holds each point.

        Args:
            st: ``[..., 2]``: points (s, t).

        Returns:
            ``[...]``: the region, of several that share a point the first; -1 outside the slice. Decided exactly: by
            coordinates where these prove it, else by the signs of all lines at the point.
        """
        return self._located(coordinates_of("st", st), self._locator, np.arange(self.n_regions), self._held)

    @plain_torch()
    def locate_inputs(self, x: Any, *, off_plane: float | None = None) -> NDArray[np.int64]:
        """The region that holds each input.

        An input is taken for the nearest point of the slice's plane, whose coordinates (s, t) are rounded. The region
        that these are in is told exactly, as :meth:`locate` does it; within that rounding of an edge it may be another
        than the one beside which the input itself is.

        Args:
            x: ``[..., *input_shape]``.
            off_plane: How far an input may be from the slice's plane and still be on it; None: a millionth of the
                largest input on the slice, which is room for rounding to float32.

        Returns:
            ``[...]``: the region; -1 for inputs that are not on the slice.
        """
        st, residual = self.slice.coordinates(x)
        if off_plane is not None:
            if isinstance(off_plane, bool) or not isinstance(off_plane, numbers.Real):
                raise TypeError(f"off_plane must be a number, got {type(off_plane).__name__}")
            if not off_plane >= 0:
                raise ValueError(f"off_plane must not be negative, got {off_plane}")
        else:
            off_plane = 1e-6 * float(self.slice.points(self.slice.polygon).flatten(1).norm(dim=1).max())
        return np.where(residual <= off_plane, self.locate(st), -1)

    # Reports

    @plain_torch()
    def statistics(self, distance: float | None = None) -> dict[str, dict[str, float]]:
        """Sizes, shapes and slopes of regions: of all, near the decision boundary, and far from it.

        Near is what lies within a distance of the boundary, and a region counts in either group by the share of its
        area that lies there. So the regions per area of a group are the mean of 1 / area over points drawn uniformly in
        it: the density of regions at these points, which can be compared with that of other places. (Regions that the
        boundary crosses could not: any curve crosses large regions more often than small ones.)

        Args:
            distance: In coordinates (s, t); None: the side of a square as large as a region is on average.

        Returns:
            For ``"all"``, ``"near_boundary"`` and ``"far_from_boundary"`` (the last two if the partition is that of the
            whole network) the number of regions, their total area, regions per area, corners in total, and mean and
            standard deviation of area, perimeter, inradius, eccentricity, centrality (the distance of corners to the
            centroid: mean, and deviation within a region), corners, neighbours and slope norm.
            ``pandas.DataFrame(part.statistics())`` is a table.

        Raises:
            ValueError, TypeError: ``distance`` is no positive number.
        """
        return statistics(self, distance)

    @plain_torch()
    def verify(self, model: nn.Module | None = None, *, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Check what is true of every right partition.

        Areas add up to the slice's, V - E + F = 1, every edge has one region or two, the mean number of neighbours is
        at most 4 (with maxima 6), patterns are unique, the neuron of an edge is on another piece on its other side, and
        sampled points lie in one cell, whose pattern and map are the network's there.

        Args:
            model: A module: compare with its outputs, too, in float64 if a copy of it can be had so.
            samples: How many points and how many regions are looked at; 0: none.
            seed: Of the sample.

        Returns:
            What was found, by name.

        Raises:
            VerificationError: Something is not true; the message says what.
        """
        return verify(self, model, samples, seed)

    def to_networkx(self) -> Any:
        """A ``networkx.Graph``: regions with area and centroid; edges with neuron, layer, unit and length.

        Raises:
            ModuleNotFoundError: networkx is not installed (``pip install "pylinregion[graph]"``).
        """
        return export.to_networkx(self)

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON ``FeatureCollection`` of the regions, in coordinates (s, t), with area and slope norm."""
        return export.to_geojson(self)

    @plain_torch()
    def save(self, path: str | os.PathLike[str], *, compress: bool = False) -> None:
        """Write everything to a file: NumPy's npz format, without pickle. :func:`pylinregion.load` reads it.

        The file is there as a whole or not at all.
        """
        checks.switches(compress=compress)
        storage.save(self, path, compress)

    def plot(self, ax: Axes | None = None, *, color: Any = "slope", boundary: bool = True, points: Any = None) -> Axes:
        """Draw the regions.

        Args:
            ax: Where; None: a new figure.
            color: ``"slope"`` (norm), ``"area"``, ``"class"``, or ``[R]`` numbers; None: edges only.
            boundary: Draw the decision boundary, if the partition is that of the whole network.
            points: Inputs ``[n, *input_shape]`` to mark.

        Returns:
            The axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed (``pip install "pylinregion[plot]"``).
        """
        from pylinregion.regions.plot import plot

        checks.switches(boundary=boundary)
        return plot(self, ax, color, boundary, points)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {n}" for name, n in zip(self.layers, self.regions_per_layer, strict=True))
        lines = [
            f"Partition of a slice of inputs {list(self.slice.input_shape)}: {self.n_regions} region"
            f"{'s' * (self.n_regions != 1)}{'' if self.cells is not None else ', counted only'}",
            *([f"  after each layer: {counts}"] if counts else []),
            f"  {self.certificate}",
            f"  {self.definition}",
        ]
        return "\n".join(lines)

    # What is found on first use

    @cached_property
    def _neurons(self) -> Neurons:
        return Neurons.of(self.stages)

    @cached_property
    def _locator(self) -> Locator:
        return Locator(self.mesh)

    @cached_property
    def _decision(self) -> Decision:
        if not self.whole:
            raise ValueError("classes are those of the whole network, and this partition is by its first layers only")
        threads = torch.get_num_threads()
        return decide(self.stages, self.slice.plane, self.slice.polygon, self.patterns, threads)

    @cached_property
    def _decision_locator(self) -> Locator:
        return Locator(self._decision.mesh)

    def _located(
        self, st: Array, locator: Locator, told: NDArray[np.integer[Any]], decide: Callable[[Array], NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """What the locator's cells tell of points, or, where coordinates prove nothing, the network; -1 outside."""
        flat = st.reshape(-1, 2)
        result = np.full(len(flat), -1, dtype=np.int64)
        within = np.flatnonzero(self.slice.contains(flat))
        cells = locator.inside(flat[within])
        result[within] = told[cells]
        doubtful = within[cells < 0]
        for begin in range(0, len(doubtful), _POINTS):
            some = doubtful[begin : begin + _POINTS]
            result[some] = decide(flat[some])
        return result.reshape(st.shape[:-1])

    def _held(self, st: Array) -> NDArray[np.int64]:
        """The first region that holds each point: one with its side of every line that the point is not on."""
        sides = signs(self.stages, self.slice, st)
        on, off = (np.packbits(each, axis=1, bitorder="little") for each in (sides > 0, sides < 0))
        point, region = self._locator.near(st)
        pattern = self.patterns[region]
        holds = ~((on[point] & ~pattern) | (off[point] & pattern)).any(axis=1)
        result = np.full(len(st), self.n_regions, dtype=np.int64)
        np.minimum.at(result, point[holds], region[holds])
        return np.where(result < self.n_regions, result, -1)

    def _won(self, st: Array) -> NDArray[np.int64]:
        """The class at each point."""
        sides = signs(with_winner(self.stages), self.slice, st)[:, self.stages.lines :]
        return np.asarray(sides[:, 0] > 0 if sides.shape[1] == 1 else (sides >= 0).argmax(axis=1), dtype=np.int64)

    def _maps(self, patterns: NDArray[np.uint8]) -> Array:
        return affine_maps(self.stages, self.slice.plane, np.abs(self.slice.polygon).max(axis=0), patterns)

    def _measured(self, metric: str) -> Mesh:
        if self._metric(metric) == "slice":
            return self.mesh
        return replace(self.mesh, vertices=self.vertices @ self.slice.isometry.T)

    def _metric(self, metric: str) -> str:
        if metric not in ("slice", "input"):
            raise ValueError(f"metric must be 'slice' or 'input', got {metric!r}")
        return metric

    def _region(self, region: int) -> int:
        number = np.asarray(region)
        if number.ndim or number.dtype.kind not in "iu":
            raise TypeError(f"region must be an integer, got {type(region).__name__}")
        return int(checks.indices("region", number, self.n_regions))

    def _regions(self, regions: Any) -> NDArray[np.intp]:
        return checks.indices("regions", regions, self.n_regions)


def _components(regions: int, pairs: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """``[regions]``: the connected component of each, numbered in the order of their first."""
    root = np.arange(regions)
    while True:
        ends = np.sort(root[pairs], axis=1)
        if (ends[:, 0] == ends[:, 1]).all():
            return np.unique(root, return_inverse=True)[1].astype(np.int64)
        np.minimum.at(root, ends[:, 1], ends[:, 0])
        while not np.array_equal(root, root[root]):
            root = root[root]
