"""Partitions: the regions of a network on a slice, and what can be made of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import nn

from pylinregion._util import checks
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.regions import export, storage
from pylinregion.regions.affine_regions import AffineRegions
from pylinregion.regions.plot import plot
from pylinregion.regions.statistics import statistics
from pylinregion.regions.verify import verify

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Partition(AffineRegions):
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

    def adjacency(self) -> Any:
        """Which regions share an edge.

        Returns:
            ``[R, R]`` boolean ``scipy.sparse.csr_array``, symmetric.

        Raises:
            ModuleNotFoundError: scipy is not installed (``pip install "pylinregion[graph]"``).
        """
        return export.adjacency(self)

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
        checks.switches(boundary=boundary)
        return plot(self, ax, color, boundary, points)


def load(path: str | os.PathLike[str]) -> Partition:
    """Read a partition that :meth:`Partition.save` wrote. Nothing in the file is run.

    Args:
        path: The file.

    Returns:
        The partition, with all that it had.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a partition, or one of another version, or it is damaged: an array is missing, is not of
            its dtype or shape, has NaN or infinite entries, does not fit the others, or is another than was saved; the
            message names it. Or its arrays take more than the memory budget (``PYLINREGION_MEMORY_BUDGET``, else half
            of what is free). A file of version 1 has no checksums: its partition is verified
            (:meth:`Partition.verify`).
    """
    found = storage.read(path)
    return Partition(**{each.name: getattr(found, each.name) for each in fields(found)})
