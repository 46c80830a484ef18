"""What a network does on its regions: affine maps, classes, and the region that holds a point."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.exact.decision import Decision, DecisionBoundary, decide
from pylinregion.exact.near_edges import hold, winners
from pylinregion.exact.pattern_table import Patterns, part_of
from pylinregion.exact.proven_maps import affine_maps, jacobians, most_off
from pylinregion.exact.residues import equal_maps
from pylinregion.geometry.point_location import Locator
from pylinregion.geometry.slice import coordinates_of
from pylinregion.regions.region_set import RegionSet

_POINTS = 1 << 13  # near sides, at a time
_REGIONS = 1 << 16  # likewise


@dataclass(frozen=True, eq=False, repr=False)
class AffineRegions(RegionSet):
    """Regions with the network's function on each."""

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
        """The first region that holds each point."""
        point, region = self._locator.near(st)
        order = np.lexsort((region, point))
        point, region = point[order], region[order]
        holds = hold(self.stages, self.slice, st, point, part_of(self.patterns, region))
        result = np.full(len(st), -1, dtype=np.int64)
        held, first = np.unique(point[holds], return_index=True)
        result[held] = region[holds][first]
        return result

    def _won(self, st: Array) -> NDArray[np.int64]:
        """The class at each point."""
        regions, place = np.unique(self._held(st), return_inverse=True)
        patterns = part_of(self.patterns, regions)
        maps = self._maps(patterns)
        off = most_off(maps, self._extents)[place]
        values = (maps[place] * np.concatenate([st, np.ones((len(st), 1))], axis=1)[:, None]).sum(axis=2)
        return winners(self.stages, self.slice, st, part_of(patterns, place), values - off, values + off)

    def _maps(self, patterns: Patterns) -> Array:
        return affine_maps(self.stages, self.slice.plane, self._extents, patterns)

    @cached_property
    def _extents(self) -> Array:
        return np.asarray(np.abs(self.slice.polygon).max(axis=0))


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
