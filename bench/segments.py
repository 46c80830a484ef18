"""Exact segments of convolutional networks: ``python bench/segments.py``. Breakpoints a second, proven, with the maps.

Beside what a walk from breakpoint to breakpoint must do at least: a plain torch pass in float64 through the network
with the two columns of every region's affine map, batches of 32 regions, no decisions. Arms around a point (P = 25)
beside one such pass with the two columns of each arm. CPU time on one thread; each in a process of its own, whose peak
memory is told.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import harness
import torch
from convolutional import network, vectors_a_second
from tables import markdown

import pylinregion as plr

DIRECTIONS = 25
SMALL = ("cnn", 4, 8, "segment", 1.0)
WORK = [
    ("cnn", 32, 32, "segment", 1.0),
    ("resnet18", 16, 32, "segment", 1.0),
    ("resnet18", 16, 32, "segment", 10.0),
    ("resnet18", 16, 32, "arms", 0.005),
    ("resnet18", 16, 32, "arms", 0.05),
]


def measure(name: str, width: int, side: int, kind: str, length: float) -> dict[str, Any]:
    """A segment of a length between two images, or the arms around one."""
    harness.one_thread()
    x, y = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    captured = plr.capture(network(name, width, side), x.float().repeat(2, 1, 1, 1))
    start = time.process_time()
    if kind == "segment":
        line = plr.trace(captured, x, x + length / (y - x).norm() * (y - x))
        regions, columns = int(line.n_regions[0]), 2 * int(line.n_regions[0])
    else:
        counts = plr.count_regions(captured, x.float(), length, "axes", n_directions=DIRECTIONS)
        regions, columns = int(counts.regions[0]), 2 * DIRECTIONS
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    passes = columns / vectors_a_second(network(name, width, side), (3, side, side))
    row = {"network": name, "width": width, "side": side, "kind": kind, "length": length, "regions": regions}
    return row | {"seconds": seconds, "MiB": peak, "of plain passes": seconds / passes}


def table(rows: list[dict[str, Any]]) -> str:
    """A row for each."""
    cells = [
        [
            f"{row['network']} w{row['width']} {row['side']}",
            f"{row['kind']} {row['length']:g}",
            str(row["regions"]),
            f"{row['seconds']:.2f}",
            f"{row['MiB']:.0f}",
            f"{row['regions'] / row['seconds']:.0f}",
            f"{row['of plain passes']:.2f} x",
        ]
        for row in rows
    ]
    return markdown(["network", "length or r", "regions", "seconds", "MiB", "regions/s", "of plain passes"], cells)


def main(given: list[str] | None = None) -> int:
    """Measure each in a process of its own."""
    return harness.each_in_a_process(given, __doc__, "segments_of_convolutions", WORK, SMALL, measure, table)


if __name__ == "__main__":
    raise SystemExit(main())
