"""Folds over slices by torch's operators on a GPU beside the CPU's: ``python bench/folds.py``.

Wall time, in turns, of folds alone; slices are then counted by the CPU from both, with the same regions.
``--device cpu`` runs the operators on the CPU, where the core folds chains of dense layers otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import harness
import numpy as np
import torch
import walks
from tables import markdown

from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.slice_walks import How
from pylinregion.exact.walk_device import WalkDevice
from pylinregion.exact.walks_on_threads import SharedReport
from pylinregion.lowering.stages import Stages


class Work(NamedTuple):
    """What is folded."""

    name: str
    make: Callable[[], tuple[Stages, Slices]]
    smoke: bool = False


WORK = [
    Work("784-200x3-10, 20 slices, r = 0.05", lambda: walks.small(20, 0.05), smoke=True),
    Work("784-200x3-10, 4000 slices, r = 0.5", lambda: walks.small(4000, 0.5)),
    Work("PreAct-ResNet18, width 16, 3x32x32, one slice, r = 0.5", lambda: walks.resnet(1, 0.5)),
    Work("784-200x3-10, 4000 slices, r = 0.05", lambda: walks.small(4000, 0.05)),
    Work("PreAct-ResNet18, 20 slices, r = 0.02", lambda: walks.resnet(20, 0.02)),
]

Parts = list[tuple[Slices, SliceSystems]]


def folded(many: ManySlices, slices: Slices) -> Parts:
    return [(part, systems) for part, systems in many.folded(slices, None) if walks.folded(systems)]


def regions(many: ManySlices, parts: Parts) -> int:
    how = How(1, False, -1, None, SharedReport(None))
    return sum(int(many._walks.count(systems, part, how)["regions"][:, -1].sum()) for part, systems in parts)


def measure(work: Work, device: torch.device, repeats: int) -> dict[str, Any]:
    stages, slices = work.make()
    on_cpu = ManySlices(stages)
    elsewhere = ManySlices(stages, device=WalkDevice("folds", contextlib.nullcontext, device))
    elsewhere._walks.folder._dense = None  # the core's, of chains
    parts = folded(on_cpu, slices), folded(elsewhere, slices)
    counts = [regions(on_cpu, each) for each in parts]
    if counts[0] != counts[1]:
        raise SystemExit(f"{work.name}: folds of the device leave {counts[1]} regions, the CPU's {counts[0]}")
    runs: dict[str, harness.Run] = {
        "CPU": lambda: folded(on_cpu, slices),
        "device": lambda: folded(elsewhere, slices),
    }
    seconds = harness.medians(runs, repeats, harness.wall_seconds)
    lines = [int(np.sum([systems.begin[-1] for _, systems in each])) for each in parts]
    return {"work": work.name, "regions": counts[0], "lines": lines, "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> str:
    head = ["fold", "regions", "lines left, CPU and device", "CPU (ms)", "device (ms)", "times faster", "M regions/s"]
    return markdown(
        head,
        [
            [
                row["work"],
                str(row["regions"]),
                " / ".join(map(str, row["lines"])),
                *(f"{1e3 * each:.3g}" for each in row["seconds"].values()),
                f"{row['seconds']['CPU'] / row['seconds']['device']:.3g}",
                f"{row['regions'] / row['seconds']['device'] / 1e6:.3g}",
            ]
            for row in rows
        ],
    )


def main(given: list[str] | None = None) -> int:
    parser = harness.parser(__doc__, "every fold")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.set_defaults(repeats=3)
    chosen = parser.parse_args(given)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    harness.one_thread()
    rows = []
    for work in WORK:
        if work.smoke == chosen.smoke:
            harness.progress(work.name)
            rows.append(measure(work, torch.device(chosen.device), 1 if chosen.smoke else chosen.repeats))
            print(f"\n{table(rows)}", flush=True)  # all so far, for a run that is cut off
    harness.write({"folds": rows, "on": chosen.device}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
