"""A workload's contenders: the best batch size of each, the check of their counts, and their times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import torch
from baselines import (
    allowed_differences,
    bare_forward,
    compare_counts,
    count_with_hooks,
    laid_out,
    ready_made_vertices,
)
from harness import Record, Run, clock_for, compared, fastest, medians, progress
from peer import Published
from torch import Tensor
from workloads import Workload

import pylinregion as plr

OURS = "pylinregion"
BARE = "bare forward"
HOOKS = "hooks"
PUBLISHED = "published code"
PUBLISHED_HULLS = "published code, its vertices ready-made"


@dataclass(frozen=True)
class Setup:
    """How a contender runs: points in a batch (None: its own choice), memory layout of its images."""

    batch: int | None = None
    layout: str = "contiguous"

    @property
    def points(self) -> int:
        assert self.batch is not None
        return self.batch


@dataclass(frozen=True)
class Sweep:
    """What each setup of a contender takes, in seconds: the least of a few rounds."""

    name: str
    setting: dict[str, Any]
    seconds: dict[Setup, float]

    @property
    def best(self) -> Setup:
        return min(self.seconds, key=self.seconds.__getitem__)

    def as_json(self) -> dict[str, Any]:
        tried = [{**asdict(setup), "seconds": seconds} for setup, seconds in self.seconds.items()]
        return {"name": self.name, "setting": self.setting, "tried": tried, "best": asdict(self.best)}


@dataclass(frozen=True)
class Options:
    """How everything is measured.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        repeats: Of each contender; the median is reported.
        rounds: Of each setup when the best is looked for.
        peer: Paper A's code, or None.
    """

    device: str = "cpu"
    repeats: int = 7
    rounds: int = 2
    peer: ModuleType | None = None


@dataclass(frozen=True)
class Around:
    """What the contenders of one radius share, made before they are timed.

    Attributes:
        radius: The radius.
        rows: By memory layout: the vertices ``[B * 2P, *shape]``.
        hulls: The vertices of the published code, ``[B, 2P, *shape]``.
        expected: ``[B, layers]``: the counts of the hooks version.
        allowed: By how much others may differ from it.
    """

    radius: float
    rows: dict[str, Tensor]
    hulls: Tensor | None
    expected: Tensor
    allowed: Tensor | None


class Contest:
    """A workload in one dtype with so many threads, and all contenders on it."""

    def __init__(self, work: Workload, dtype: torch.dtype, threads: int, options: Options) -> None:
        self.work, self.options = work, options
        device = options.device
        self.models = {layout: work.placed(dtype, device, layout) for layout in {"contiguous", *work.layouts}}
        self.x = work.points.to(device=device, dtype=dtype)
        self.frame = plr.random_frame(self.x.shape[1:], work.directions).to(self.x)
        self.vertices = 2 * work.directions
        self.clock = clock_for(device, threads)
        self.published = None
        if options.peer is not None:
            self.published = Published(options.peer, self.models["contiguous"], self.x, self.vertices)
        self.setting = {
            "network": work.key,
            "dtype": str(dtype).removeprefix("torch."),
            "threads": threads,
            "device": device,
            "points": len(self.x),
            "directions": work.directions,
        }

    def around(self, radius: float, hooks: Setup) -> Around:
        """The vertices, and the counts that are right, found by the hooks version with that setup."""
        vertices = ready_made_vertices(self.x, self.frame, radius)
        return Around(
            radius,
            {layout: laid_out(vertices.flatten(0, 1), layout) for layout in self.work.layouts},
            None if self.published is None else self.published.hulls(radius),
            self.hooks(radius, hooks),
            allowed_differences(self.models[hooks.layout], vertices, hooks.points, hooks.layout),
        )

    def ours(self, radius: float, batch: int | None, displacement: bool | None = None) -> plr.RegionCounts:
        """The call that a user writes; the frame is drawn in it."""
        return plr.count_regions(
            self.models["contiguous"],
            self.x,
            radius,
            n_directions=self.work.directions,
            batch_size=batch,
            displacement=displacement,
        )

    def hooks(self, radius: float, setup: Setup) -> Tensor:
        return count_with_hooks(self.models[setup.layout], self.x, self.frame, radius, setup.points, setup.layout)

    def run(self, name: str, setup: Setup, around: Around) -> Run:
        """What is timed."""
        if name == OURS:
            return lambda: self.ours(around.radius, setup.batch)
        if name == HOOKS:
            return lambda: self.hooks(around.radius, setup)
        if name in (PUBLISHED, PUBLISHED_HULLS):
            published, hulls = self.published, around.hulls
            assert published is not None and hulls is not None
            if name == PUBLISHED:
                return lambda: published.count(around.radius, setup.points)
            return lambda: published.count_hulls(hulls, setup.points)
        model, rows = self.models[setup.layout], around.rows[setup.layout]
        return lambda: bare_forward(model, rows, setup.points * self.vertices)

    def check(self, name: str, setup: Setup, around: Around) -> int:
        """By how many neurons a contender's counts differ from those of the hooks version.

        Raises:
            WrongCountsError: By more than rounding explains.
        """
        if name == OURS:
            return compare_counts(name, self.ours(around.radius, setup.batch).changes, around.expected, around.allowed)
        if name == HOOKS:
            return compare_counts(name, self.hooks(around.radius, setup), around.expected, around.allowed)
        if name in (PUBLISHED, PUBLISHED_HULLS):
            assert self.published is not None and around.hulls is not None
            return self.published.check(name == PUBLISHED_HULLS, around.radius, around.hulls, setup.points)
        return 0  # a forward pass counts nothing

    def sweeps(self) -> dict[str, Sweep]:
        """Time every contender at every batch size, to find its best.

        Ours is timed with its own choice of batches later; the batch sizes given to it here show how good that is.
        """
        work = self.work
        setups = [Setup(batch, layout) for layout in work.layouts for batch in work.batches]
        entries = [(OURS, Setup(batch)) for batch in (None, *work.batches)]
        entries += [(bare_name(work, setup.layout), setup) for setup in setups]
        entries += [(HOOKS, setup) for setup in setups]
        if self.published is not None:
            batches = self.published.batches(work.batches)
            entries += [(name, Setup(batch)) for name in (PUBLISHED, PUBLISHED_HULLS) for batch in batches]
        around = self.around(work.radii[0], setups[0])
        for entry in entries:
            self.check(*entry, around)
        seconds = fastest({entry: self.run(*entry, around) for entry in entries}, self.options.rounds, self.clock)
        return {
            name: Sweep(name, self.setting, {setup: t for (owner, setup), t in seconds.items() if owner == name})
            for name in dict.fromkeys(name for name, _ in entries)
        }

    def records(self, radius: float, best: dict[str, Setup]) -> list[Record]:
        """Check the counts around all points, then time all contenders in turn."""
        best = {**best, OURS: Setup()}
        around = self.around(radius, best[HOOKS])
        differing = {name: self.check(name, setup, around) for name, setup in best.items() if name != HOOKS}
        runs = {name: self.run(name, setup, around) for name, setup in best.items()}
        seconds = medians(runs, self.options.repeats, self.clock)
        setting = {
            **self.setting,
            "weights": self.work.weights,
            "radius": radius,
            "local_complexity": float(around.expected.sum(dim=1).double().mean()),
            "differing_neurons": differing[OURS],
        }
        if PUBLISHED in best:
            setting["published_differing_neurons"] = max(differing[PUBLISHED], differing[PUBLISHED_HULLS])
        aims = self.work.goals
        goals = {bare_name(self.work, self.work.layouts[0]): aims.bare_at(radius), HOOKS: aims.hooks}
        ours = seconds.pop(OURS)
        return [
            compared(
                OURS,
                {**setting, "baseline_batch": best[name].batch, "baseline_layout": best[name].layout},
                name,
                ours,
                theirs,
                goals.get(name),
            )
            for name, theirs in seconds.items()
        ]


def bare_name(work: Workload, layout: str) -> str:
    """What the bare pass is called: with its layout where there are several."""
    return f"{BARE}, {layout}" if len(work.layouts) > 1 else BARE


def measure_speed(
    works: list[Workload], threads: list[int], options: Options
) -> tuple[list[Record], dict[tuple[Any, ...], dict[str, Sweep]]]:
    """All records, and the sweeps by network, dtype and threads.

    How fast a dense pass is depends neither on the weights nor on the radius, so that one sweep serves them all.
    """
    records: list[Record] = []
    sweeps: dict[tuple[Any, ...], dict[str, Sweep]] = {}
    for count in threads:
        torch.set_num_threads(count)
        for work in works:
            for dtype in work.dtypes:
                contest = Contest(work, dtype, count, options)
                key = (work.key, dtype, count)
                if key not in sweeps:
                    progress(f"{work.key}, {dtype}, {count} thread(s): looking for the best batch sizes")
                    sweeps[key] = contest.sweeps()
                best = {name: sweep.best for name, sweep in sweeps[key].items()}
                for radius in work.radii:
                    found = contest.records(radius, best)
                    records += found
                    progress(f"{work.title}, {dtype}, {count} thread(s), r = {radius:g}: {_in_short(found)}")
    return records, sweeps


def _in_short(records: list[Record]) -> str:
    beside = "; ".join(f"{record.ratio:.3g} of {record.baseline}" for record in records)
    return f"{records[0].seconds:.4g} s; {beside}"
