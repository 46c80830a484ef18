"""Exact slices of convolutional networks: ``python bench/convolutional.py``. Regions a second, proven.

Beside what any way that goes from region to region must do at least: a plain torch pass in float64 through the network
with the three columns of every region's affine map (u, v and the point), batches of 32 regions, no decisions and no
polygons. Of small slices around many points, beside one float64 pass with as many vectors as the fold has columns. CPU
time on one thread; each slice in a process of its own, whose peak memory is told. How many times less wall time two
threads take is told of slices that take long, by medians, where there are two cores.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any

import harness
import numpy as np
import torch
from architectures import PreActResNet18, settled
from tables import markdown
from torch import Tensor, nn

import pylinregion as plr
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.lower import stages_of

AT_ONCE = 32  # regions
REPEATS = 3  # of one and two threads
WORTH_TWO = 0.5  # seconds
SMALL = ("cnn", 4, 8, 0.5, 1)
WORK = [
    ("cnn", 32, 32, 0.05, 1),
    ("cnn", 32, 32, 0.5, 1),
    ("resnet18", 16, 32, 0.005, 1),
    ("resnet18", 16, 32, 0.05, 1),
    ("resnet18", 16, 32, 0.5, 1),
    ("resnet18", 16, 32, 0.005, 64),
    ("resnet18", 64, 32, 0.001, 1),
]
GOALS = {("cnn", 0.5, 1): 200_000, ("resnet18", 0.5, 1): 100_000}


def network(name: str, width: int, side: int) -> nn.Module:
    torch.manual_seed(0)
    if name == "resnet18":
        return settled(PreActResNet18(width), torch.zeros(32, 3, side, side))
    layers: list[nn.Module] = []
    channels = 3
    for factor in (1, 2, 2, 4, 4):
        layers += [nn.Conv2d(channels, factor * width, 3, 1 if factor < 4 else 2, padding=1), nn.ReLU()]
        channels = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)).eval()


def vectors_a_second(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Float64 passes a second of a batch of three columns for each of some regions."""
    wide = model.double()
    batch = torch.rand(3 * AT_ONCE, *shape, dtype=torch.float64)
    with torch.no_grad():
        wide(batch)
        times = sorted(harness.cpu_seconds(lambda: wide(batch)) for _ in range(3))
    return len(batch) / times[1]


def two_threads(count: harness.Run) -> float | None:
    """How many times less a count takes on two than on one, in turns; None: there is one core."""
    if len(os.sched_getaffinity(0)) < 2:
        return None
    times: dict[int, list[float]] = {1: [], 2: []}
    for threads in (1, 2) * REPEATS:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        count()
        times[threads].append(time.perf_counter() - start)
    harness.one_thread()
    return float(np.median(times[1]) / np.median(times[2]))


def columns_of(model: nn.Module, x: Tensor, radius: float) -> int:
    """How many vectors a fold pushes through the network: three for each slice, and those of neurons on both sides."""
    stages = stages_of(plr.capture(model, x[:2] if len(x) > 1 else x.repeat(2, 1, 1, 1)))
    frame = plr.random_frame(tuple(x.shape[1:]), 2, seed=0).double().flatten(1).numpy()
    cross = radius * torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    found = 0
    for point in x.double().flatten(1).numpy():
        slices = Slices(frame[:1], frame[1:], point[None], cross.numpy()[None])
        found += 3 + int(SliceFolder(stages).fold(slices).begin[-1])
    return found


def measure(name: str, width: int, side: int, radius: float, points: int) -> dict[str, Any]:
    harness.one_thread()
    model = network(name, width, side)
    x = torch.rand(points, 3, side, side, generator=torch.Generator().manual_seed(1))
    frame = plr.random_frame((3, side, side), 2, seed=0)
    captured = plr.capture(model, x[:1].repeat(2, 1, 1, 1))
    start = time.process_time()
    counts = plr.count_regions(captured, x, radius, "slice", frame=frame)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    regions = int(counts.regions.sum())
    vectors = vectors_a_second(network(name, width, side), (3, side, side))
    row = {"network": name, "width": width, "side": side, "radius": radius, "points": points, "regions": regions}
    row |= {"seconds": seconds, "MiB": peak, "regions a second": regions / seconds}
    row["times a plain pass"] = row["regions a second"] / (vectors / 3)
    if points > 1:
        row["of the columns' passes"] = seconds / (columns_of(model, x, radius) / vectors)
    if seconds > WORTH_TWO:
        row["on two threads"] = two_threads(lambda: plr.count_regions(captured, x, radius, "slice", frame=frame))
    row["goal"] = GOALS.get((name, radius, points))
    return row


def table(rows: list[dict[str, Any]]) -> str:
    head = ["network", "r", "points", "regions", "seconds", "MiB", "regions/s", "plain pass", "columns"]
    head += ["2 threads", "goal"]

    def cells(row: dict[str, Any]) -> list[str]:
        columns, threads = row.get("of the columns' passes"), row.get("on two threads")
        return [
            f"{row['network']} w{row['width']} {row['side']}",
            f"{row['radius']:g}",
            str(row["points"]),
            str(row["regions"]),
            f"{row['seconds']:.2f}",
            f"{row['MiB']:.0f}",
            f"{row['regions a second']:.0f}",
            f"{row['times a plain pass']:.0f} x",
            "-" if columns is None else f"{columns:.1f} x",
            "-" if threads is None else f"{threads:.2f} x",
            "-" if row["goal"] is None else str(row["goal"]),
        ]

    return markdown(head, map(cells, rows))


def main(given: list[str] | None = None) -> int:
    return harness.each_in_a_process(given, __doc__, "convolutional", WORK, SMALL, measure, table)


if __name__ == "__main__":
    raise SystemExit(main())
