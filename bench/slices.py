"""Exact slices around many points: ``python bench/slices.py``. Microseconds a point.

``count_regions(method="slice")`` beside an engine for each point, with the whole network as its system, and beside the
vertices of 25 directions, which count something else. Before they are timed, slices and engines must agree on every
count. CPU time on one thread, the median of the repeats, in turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
import workloads
from architectures import mlp
from tables import markdown
from torch import Tensor

import pylinregion as plr
from pylinregion.exact.neurons import up_to
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.lower import stages_of

CROSS = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
RADII = (0.005, 0.05, 0.5)
ENGINES = 50  # points that are given to engines of their own
GOALS = {0.05: 60.0, 0.5: 200.0}  # microseconds a point


def one_engine_each(network: plr.Network, x: Tensor, radius: float, frame: Tensor) -> list[int]:
    stages = up_to(stages_of(network), len(network.layers))
    u, v = frame.double().numpy()
    counts = []
    for centre in x.double().numpy():
        engine = Engine(stages, np.stack([u, v, centre], axis=1), radius * CROSS)
        counts.append(len(engine.enumerate(cells=True).cells.patterns))
    return counts


def measure(hidden: int, radius: float, x: Tensor, repeats: int) -> dict[str, Any]:
    torch.manual_seed(hidden)
    network = plr.capture(mlp(hidden), x[:2])
    frame = plr.random_frame(tuple(x.shape[1:]), 2, seed=0)
    few = x[:ENGINES]
    exact = plr.count_regions(network, x, radius, "slice", frame=frame)
    if exact.regions[:ENGINES].tolist() != one_engine_each(network, few, radius, frame):
        raise SystemExit(f"wrong counts at radius {radius}")
    contenders = {
        "slices": lambda: plr.count_regions(network, x, radius, "slice", frame=frame),
        "one engine each": lambda: one_engine_each(network, few, radius, frame),
        "vertices, P = 25": lambda: plr.count_regions(network, x, radius, n_directions=25),
    }
    seconds = harness.interleaved(contenders, repeats, harness.cpu_seconds)
    points = {"slices": len(x), "one engine each": len(few), "vertices, P = 25": len(x)}
    each = {name: 1e6 * float(np.median(times)) / points[name] for name, times in seconds.items()}
    return {
        "network": f"784-200x{hidden}-10",
        "radius": radius,
        "points": len(x),
        "regions": float(exact.regions.double().mean()),
        "microseconds": each,
        "faster": each["one engine each"] / each["slices"],
        "goal": GOALS.get(radius) if hidden == 3 else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["microseconds"])
    head = ["network", "r", "regions a point", *(f"{name} (us)" for name in names), "times faster", "goal (us)"]
    return markdown(
        head,
        [
            [
                row["network"],
                f"{row['radius']:g}",
                f"{row['regions']:.1f}",
                *(f"{row['microseconds'][name]:.0f}" for name in names),
                f"{row['faster']:.1f}",
                "-" if row["goal"] is None else f"{row['goal']:.0f}",
            ]
            for row in rows
        ],
    )


def main(given: list[str] | None = None) -> int:
    parser = harness.parser(__doc__, "every contender")
    parser.add_argument("--points", type=int, default=1000, help="default: 1000")
    parser.add_argument("--mnist", type=Path, metavar="NPZ", help="images to count around: images, labels")
    chosen = parser.parse_args(given)
    harness.one_thread()
    images, *_ = workloads.images_and_labels(chosen.mnist)
    x = images[: 6 if chosen.smoke else chosen.points]
    rows = []
    for hidden in (3,) if chosen.smoke else (3, 5):
        for radius in RADII:
            harness.progress(f"784-200x{hidden}-10, radius {radius}")
            rows.append(measure(hidden, radius, x, 1 if chosen.smoke else chosen.repeats))
    print(f"\n{table(rows)}")
    harness.write({"slices": rows}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
