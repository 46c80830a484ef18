"""Sizes, shapes and slopes of regions in numbers: of all, and of those near the decision boundary and far from it."""

from __future__ import annotations

import math

import numpy as np

from pylinregion._util import checks
from pylinregion._util.arrays import Array
from pylinregion.geometry.nearness import shares_within
from pylinregion.regions.affine_regions import AffineRegions

Table = dict[str, dict[str, float]]


def statistics(part: AffineRegions, distance: float | None) -> Table:
    """See :meth:`pylinregion.Partition.statistics`."""
    if distance is not None:
        distance = checks.positive_number("distance", distance)
    mean, deviation = part.corner_distances()
    columns = {
        "area": part.areas(),
        "perimeter": part.perimeters(),
        "inradius": part.inradii(),
        "eccentricity": part.eccentricities(),
        "centrality": mean,
        "centrality_within": deviation,
        "corners": np.diff(part.offsets).astype(np.float64),
        "neighbours": part.degrees().astype(np.float64),
        "slope": part.slope_norms(),
    }
    groups = {"all": np.ones(part.n_regions)}
    if part.whole:
        if distance is None:
            distance = math.sqrt(float(columns["area"].sum()) / part.n_regions)
        near = shares_within(part.mesh, part.decision_boundary().segments, distance)
        groups |= {"near_boundary": near, "far_from_boundary": 1 - near}
    return {name: _row(columns, shares) for name, shares in groups.items()}


def _row(columns: dict[str, Array], shares: Array) -> dict[str, float]:
    """Of regions of which such a share counts."""
    regions = float(shares.sum())
    area = float((columns["area"] * shares).sum())
    row: dict[str, float] = {
        "regions": regions,
        "total_area": area,
        "regions_per_area": regions / area if area else float("nan"),
        "total_corners": float((columns["corners"] * shares).sum()),
    }
    counted = shares > 0  # an infinite eccentricity counts where it is
    for name, values in columns.items():
        some, weights = values[counted], shares[counted] / regions if regions else shares[counted]
        with np.errstate(invalid="ignore"):
            mean = float((some * weights).sum()) if regions else float("nan")
            row[f"{name}_mean"] = mean
            row[f"{name}_std"] = float(np.sqrt(((some - mean) ** 2 * weights).sum())) if regions else float("nan")
    return row
