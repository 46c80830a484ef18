"""Walks along slices on a GPU beside the CPU: ``python bench/walks.py``. Millions of regions a second.

The same walks, from the same folds, by warps and by threads; all that is found must be equal to the bit. Wall time, in
turns, of the walks alone: what comes before them (a network as matrices, or folds, on the CPU) is a column of its own.
``--device threads`` rehearses: an extension that was built with -DPYLINREGION_ON_THREADS=ON has coroutines for warps.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple, TypeGuard

import convolutional
import harness
import numpy as np
import partitions
import torch
from tables import markdown

import pylinregion as plr
from pylinregion._util.errors import BudgetExceededError
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_engine import Engine, Enumeration, folded_engine
from pylinregion.exact.slice_systems import Slices, SliceSystems
from pylinregion.exact.slice_walks import How, SliceWalks
from pylinregion.exact.walk_device import WalkDevice
from pylinregion.exact.walks_on_threads import SharedReport
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import Stages

CROSS = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
BOX = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

Walk = Callable[[int, bool], list[Any]]  # threads, whether on the device: what was found, the regions first


class Work(NamedTuple):
    """What is walked, and how many millions of regions a second are the goal on an H100 or H200."""

    name: str
    make: Callable[[WalkDevice], Walk]
    goal: float | None
    smoke: bool = False


def captured(shape: tuple[int, ...]) -> Stages:
    return stages_of(plr.capture(partitions.generic(shape).double(), torch.zeros(1, shape[0], dtype=torch.float64)))


def found(enumeration: Enumeration[Any]) -> list[Any]:
    numbers = [enumeration.n_regions, enumeration.filter, enumeration.exact, enumeration.zeros, enumeration.folds]
    cells = enumeration.cells
    if cells is None:
        return numbers
    arrays = [getattr(cells, each.name) for each in fields(cells)]
    return numbers + [np.asarray(array) for array in arrays]


def folded(systems: SliceSystems | BudgetExceededError) -> TypeGuard[SliceSystems]:
    if isinstance(systems, BudgetExceededError):
        raise systems
    return True


def one_slice(stages: Stages, plane: Any, corners: Any, cells: bool) -> Callable[[WalkDevice], Walk]:
    def make(device: WalkDevice) -> Walk:
        build = Engine if stages.are_one_system else folded_engine
        engines = {False: build(stages, plane, corners)}
        engines[True] = build(stages, plane, corners, device=device)
        return lambda threads, on: found(engines[on].enumerate(cells=cells, threads=threads))

    return make


def dense(shape: tuple[int, ...], size: float, cells: bool = False) -> Callable[[WalkDevice], Walk]:
    def make(device: WalkDevice) -> Walk:
        if shape[0] == 2:
            return one_slice(captured(shape), np.eye(2, 3), size * BOX, cells)(device)
        plane = np.random.default_rng(0).standard_normal((shape[0], 3)) / shape[0] ** 0.5
        return one_slice(captured(shape), plane, size * BOX, cells)(device)

    return make


def resnet(points: int, radius: float) -> tuple[Stages, Slices]:
    """PreAct-ResNet18 around random images."""
    model, shape = convolutional.network("resnet18", 16, 32), (3, 32, 32)
    x = torch.rand(points, *shape, generator=torch.Generator().manual_seed(1)).double().flatten(1).numpy()
    u, v = plr.random_frame(shape, 2, seed=0).double().flatten(1).numpy()[:, None]
    stages = stages_of(plr.capture(model, torch.zeros(2, *shape)))
    return stages, Slices(u, v, x, np.repeat(radius * CROSS[None], points, axis=0))


def residual(radius: float, cells: bool = False) -> Callable[[WalkDevice], Walk]:
    def make(device: WalkDevice) -> Walk:
        stages, where = resnet(1, radius)
        plane = np.concatenate([where.u, where.v, where.origins]).T
        return one_slice(stages, plane, radius * CROSS, cells)(device)

    return make


def small(points: int, radius: float, segments: bool = False) -> tuple[Stages, Slices]:
    """Small slices around random points of 784-200x3-10, or segments of a small convolutional network."""
    rng = np.random.default_rng(0)
    if segments:
        model = convolutional.network("cnn", 8, 16)
        stages, inputs = stages_of(plr.capture(model, torch.zeros(2, 3, 16, 16))), 3 * 16 * 16
    else:
        stages, inputs = captured((784, 200, 200, 200, 10)), 784
    centres = rng.random((points, inputs))
    u = rng.standard_normal((points if segments else 1, inputs))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    if segments:
        ends = np.repeat(radius * np.array([[[-1.0, 0.0], [1.0, 0.0]]]), points, axis=0)
        return stages, Slices(u, np.zeros((points, inputs)), centres, ends)
    v = rng.standard_normal((1, inputs))
    corners = np.repeat(radius * CROSS[None], points, axis=0)
    return stages, Slices(u, v / np.linalg.norm(v), centres, corners)


def around(points: int, radius: float, segments: bool = False) -> Callable[[WalkDevice], Walk]:
    def make(device: WalkDevice) -> Walk:
        stages, where = small(points, radius, segments)
        walks = {False: SliceWalks(stages), True: SliceWalks(stages, device=device)}
        parts = [(part, systems) for part, systems in ManySlices(stages).folded(where, None) if folded(systems)]

        def walk(threads: int, on: bool) -> list[Any]:
            regions, arrays = 0, []
            for part, systems in parts:
                if segments:
                    traced = walks[on].trace(systems, part, threads, False, None)
                    regions += len(traced.t) + len(part)
                    arrays += [getattr(traced, each.name) for each in fields(traced)]
                else:
                    counted = walks[on].count(systems, part, How(threads, False, -1, None, SharedReport(None)))
                    regions += int(counted["regions"][:, -1].sum())
                    arrays += counted.values()
            return [regions, *arrays]

        return walk

    return make


WORK = [
    Work("2-16x2-1, with cells", dense((2, 16, 16, 1), 1.0, cells=True), None, smoke=True),
    Work("784-200x3-10, slices around 4 points, r = 0.05", around(4, 0.05), None, smoke=True),
    Work("2-1024x3-1", dense((2, 1024, 1024, 1024, 1), 1.0), 100.0),
    Work("784-200x3-10, slices around 4000 points, r = 0.5", around(4000, 0.5), 50.0),
    Work("PreAct-ResNet18, width 16, 3x32x32, r = 0.5", residual(0.5), 5.0),
    Work("2-1024x3-1, with cells", dense((2, 1024, 1024, 1024, 1), 1.0, cells=True), 50.0),
    Work("2-256x3-1", dense((2, 256, 256, 256, 1), 1.0), None),
    Work("784-200x3-10, a square of side 60", dense((784, 200, 200, 200, 10), 30.0), None),
    Work("784-200x3-10, slices around 4000 points, r = 0.05", around(4000, 0.05), 50.0),
    Work("PreAct-ResNet18, r = 0.5, with cells", residual(0.5, cells=True), 2.5),
    Work("5 convolutions, 200 segments, length 1/2", around(200, 0.25, segments=True), None),
]


def measure(work: Work, device: WalkDevice, repeats: int, threads: list[int]) -> dict[str, Any]:
    start = time.perf_counter()
    walk = work.make(device)
    before = time.perf_counter() - start
    by_cpu, left = walk(threads[-1], False), device.left
    by_device = walk(1, True)
    for one, other in zip(by_cpu, by_device, strict=True):
        if not np.array_equal(one, other):
            raise SystemExit(f"{work.name}: the device finds {other}, the CPU {one}")
    left = device.left - left
    runs: dict[str, harness.Run] = {f"CPU, {n} threads": lambda n=n: walk(n, False) for n in threads}
    runs["device"] = lambda: walk(1, True)
    seconds = harness.medians(runs, repeats, harness.wall_seconds)
    rate = by_cpu[0] / seconds["device"] / 1e6
    return {
        "work": work.name,
        "regions": by_cpu[0],
        "before": before,
        "seconds": seconds,
        "faster": {name: seconds[name] / seconds["device"] for name in runs if name != "device"},
        "millions a second": rate,
        "left to the CPU": left,
        "goal": work.goal,
    }


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["seconds"])
    head = [
        "walk",
        "regions",
        "before it (s)",
        *(f"{name} (ms)" for name in names),
        "times faster",
        "M regions/s",
        "goal",
        "left to the CPU",
    ]
    return markdown(
        head,
        [
            [
                row["work"],
                str(row["regions"]),
                f"{row['before']:.2f}",
                *(f"{1e3 * row['seconds'][name]:.3g}" for name in names),
                " / ".join(f"{times:.3g}" for times in row["faster"].values()),
                f"{row['millions a second']:.3g}",
                "-" if row["goal"] is None else f"{row['goal']:g}",
                str(row["left to the CPU"]),
            ]
            for row in rows
        ],
    )


def main(given: list[str] | None = None) -> int:
    parser = harness.parser(__doc__, "every walk")
    parser.add_argument("--device", choices=("cuda", "threads"), default="cuda")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no more walks after so many")
    parser.set_defaults(repeats=3)
    chosen = parser.parse_args(given)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    # Folds of the CPU are walked, in the same system for both: bench/folds.py has those of the device.
    current = (lambda: torch.cuda.device(0)) if chosen.device == "cuda" else contextlib.nullcontext
    device = WalkDevice(chosen.device, current)
    harness.one_thread()
    threads = sorted({1, len(os.sched_getaffinity(0))})
    start, rows = time.perf_counter(), []
    for work in WORK:
        if work.smoke != chosen.smoke or time.perf_counter() - start > chosen.seconds:
            continue
        harness.progress(work.name)
        rows.append(measure(work, device, 1 if chosen.smoke else chosen.repeats, threads))
        print(f"\n{table(rows)}", flush=True)  # all so far, for a run that is cut off
    harness.write({"walks": rows, "on": chosen.device}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
