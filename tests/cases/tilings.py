"""Tilings that are forced on a slice."""

import numpy as np
import torch
from torch import nn

from pylinregion.exact import tile_walks, tiled_slice
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.slice_walks import How
from pylinregion.exact.walks_on_threads import SharedReport
from pylinregion.geometry import tiles
from pylinregion.geometry.tiles import Tiling

GRIDS = [(1, 1), (2, 1), (3, 5)]


def force(monkeypatch, columns, rows, natural=False):
    """Cut slices into a grid, first (``natural``) where lines of small numbers are; gives the draws as they come."""
    draws = []

    class Forced(Tiling):
        def __init__(self, polygon, lengths, draw):
            super().__init__(polygon, lengths, draw)
            draws.append(draw)
            monkeypatch.setattr(tiles, "_SHIFT", 0.0 if natural and draw == 0 else 0.1)

        def squares(self, count):
            return self.grid(columns, rows)

    monkeypatch.setattr(tile_walks, "Tiling", Forced)
    monkeypatch.setattr(tiled_slice, "tiles_a_side", lambda *arguments: 0)
    return draws


def slices_of(plane, corners):
    """One slice."""
    u, v, origin = (np.ascontiguousarray(column)[None] for column in plane.T)
    return Slices(u, v, origin, np.ascontiguousarray(corners)[None])


def counted_in_tiles(many, slice_, *, threads=1, force_exact=False, max_regions=-1, max_bytes=None, report=None):
    """The counts of a slice that is known not to fit."""
    how = How(threads, force_exact, max_regions, max_bytes, SharedReport(report))
    return tiled_slice.count_in_tiles(many._walks, slice_, how)


def residual_net(seed=0):
    """Of inputs ``[1, 12, 12]``, which are too large for matrices."""
    torch.manual_seed(seed)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.second, self.pool, self.head = nn.Conv2d(4, 2, 3), nn.MaxPool2d(2), nn.Linear(50, 2)

        def forward(self, x):
            h = self.stem(x).relu()
            h = self.second(h + self.first(h).relu()).relu()
            return self.head(self.pool(h).flatten(1))

    return Net().double().eval()
