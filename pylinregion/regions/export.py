"""Partitions as graphs and maps of other packages."""

from __future__ import annotations

from typing import Any

import numpy as np

from pylinregion._util.optional import optional
from pylinregion.regions.affine_regions import AffineRegions


def adjacency(part: AffineRegions) -> Any:
    """See :meth:`pylinregion.Partition.adjacency`."""
    sparse = optional("scipy.sparse", "adjacency()", "graph")
    pairs = part.edge_cells[part.mesh.inner()]
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    ones = np.ones(len(rows), dtype=bool)
    return sparse.csr_array((ones, (rows, columns)), shape=(part.n_regions, part.n_regions))


def to_networkx(part: AffineRegions) -> Any:
    """See :meth:`pylinregion.Partition.to_networkx`."""
    networkx = optional("networkx", "to_networkx()", "graph")
    graph = networkx.Graph()
    areas, centroids = part.areas().tolist(), part.centroids().tolist()
    graph.add_nodes_from((r, {"area": areas[r], "centroid": tuple(centroids[r])}) for r in range(part.n_regions))
    inner = np.flatnonzero(part.mesh.inner())
    lengths = np.linalg.norm(np.diff(part.vertices[part.edges[inner]], axis=1)[:, 0], axis=1).tolist()
    neurons = part.edge_neuron[inner].tolist()
    for (p, q), neuron, length in zip(part.edge_cells[inner].tolist(), neurons, lengths, strict=True):
        name = part.neuron(neuron)
        graph.add_edge(p, q, neuron=neuron, layer=name.layer, unit=name.unit, length=length)
    return graph


def to_geojson(part: AffineRegions) -> dict[str, Any]:
    """See :meth:`pylinregion.Partition.to_geojson`."""
    areas, slopes = part.areas().tolist(), part.slope_norms().tolist()
    features = []
    for r in range(part.n_regions):
        ring = part.polygon(r).tolist()
        features.append(
            {
                "type": "Feature",
                "id": r,
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {"region": r, "area": areas[r], "slope": slopes[r]},
            }
        )
    return {"type": "FeatureCollection", "features": features}
