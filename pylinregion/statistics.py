"""Sizes, shapes and slopes of regions in numbers: of all, and of those near the decision boundary and far from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pylinregion.mesh import Array

if TYPE_CHECKING:
    from pylinregion.regions import Partition

Table = dict[str, dict[str, float]]


def statistics(part: Partition) -> Table:
    """See :meth:`pylinregion.Partition.statistics`."""
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
    groups: dict[str, NDArray[np.bool_]] = {"all": np.ones(part.n_regions, dtype=bool)}
    if part.whole:
        near = np.zeros(part.n_regions, dtype=bool)
        near[part.decision_boundary().cells] = True
        groups |= {"near_boundary": near, "far_from_boundary": ~near}
    return {name: _row(columns, chosen) for name, chosen in groups.items()}


def _row(columns: dict[str, Array], chosen: NDArray[np.bool_]) -> dict[str, float]:
    regions = int(chosen.sum())
    area = float(columns["area"][chosen].sum())
    row: dict[str, float] = {
        "regions": regions,
        "total_area": area,
        "regions_per_area": regions / area if area else float("nan"),
        "total_corners": int(columns["corners"][chosen].sum()),
    }
    for name, values in columns.items():
        some = values[chosen]
        row[f"{name}_mean"] = float(some.mean()) if regions else float("nan")
        row[f"{name}_std"] = float(some.std()) if regions else float("nan")
    return row
