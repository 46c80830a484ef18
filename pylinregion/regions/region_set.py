"""The regions of a network on a slice as they lie there: cells, patterns, neurons, sizes and shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util import checks
from pylinregion._util.arrays import Array, Integers
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.exact.neurons import Neuron, Neurons
from pylinregion.exact.pattern_table import Patterns, changing_lines
from pylinregion.geometry import cell_measures
from pylinregion.geometry.mesh import Mesh
from pylinregion.geometry.slice import Slice
from pylinregion.lowering.stages import Stages
from pylinregion.regions.certificate import Certificate


@dataclass(frozen=True, eq=False)
class Cells(Mesh):
    """The cells of a partition: a mesh, with what the network does there.

    Attributes:
        edge_neuron: See :attr:`RegionSet.edge_neuron`.
        patterns: See :attr:`RegionSet.patterns`.
    """

    edge_neuron: NDArray[np.int32]
    patterns: Patterns


@dataclass(frozen=True, eq=False, repr=False)
class RegionSet:
    """Cells with patterns and sizes; :class:`pylinregion.Partition` says what the attributes are."""

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
    def patterns(self) -> Patterns:
        """``[R, bytes]``, unique rows: bit ``k % 8`` of byte ``k // 8`` is 1 where breakpoint k is exceeded.

        Breakpoints are counted layer after layer, neuron after neuron; a ReLU has one, so that k is its number. A
        maximum has a bit for each of its candidates instead, which is 1 for the winner alone. What is made continuous
        of comparisons may have bits of no neuron behind theirs (``sign(z) * relu(|z| - t)``: of z = t and z = -t).

        Of convolutional networks, most of whose neurons are on one side on all of a slice, it is a
        :class:`~pylinregion.exact.pattern_table.PatternTable`: rows are asked for as of an array, and
        ``np.asarray`` gives all of them.
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
        neurons = np.unique(self._neurons.of_line[changing_lines(self.patterns, self.stages.lines)]).astype(np.int64)
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

    @cached_property
    def _neurons(self) -> Neurons:
        return Neurons.of(self.stages)

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
