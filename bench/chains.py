"""Chains of dense layers, by displacements: widths and depths beside a floor, all radii, and two threads.

The floor is the multiply-adds that nobody can leave out, those of the points themselves in float64 and those of the
displacements that the bounds did not rule out, at the rate of our kernel in the same run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import harness
import torch
from baselines import bare_forward, compare_counts, count_with_hooks, near_zero, ready_made_vertices
from harness import Record, Run, compared, fastest, medians, progress
from speed import BARE, OURS, Contest, Options, Setup
from torch import Tensor, nn
from workloads import Sizes, mlp_workload

import pylinregion as plr
from pylinregion.counting.chain import Chain
from pylinregion.counting.chain_costs import FEWEST_PAIRS
from pylinregion.native.dense_chain import ChainCounts
from pylinregion.native.packed_linear import PackedLinear

GENERIC = "every vertex"
DISPLACEMENTS = "displacements"
NEVER_SLOWER = 1.0  # than every vertex, from FEWEST_PAIRS pairs on
TWO_THREADS = 1 / 1.8
DTYPES = (torch.float32, torch.float64)
_WIDE = 500  # wider networks are counted around fewer points, so that each width takes about as long

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Multiplied:
    """What a count multiplied in a chain.

    Attributes:
        kept: Whether all points were counted by displacements: if only tried, some of them were.
        share: Of the multiplications at all vertices behind the first layer.
    """

    kept: bool
    share: float


@contextlib.contextmanager
def batches_of_chains() -> Iterator[list[tuple[int, float]]]:
    """A list that takes the points and the share of every batch that a chain counts meanwhile."""
    counted = Chain.count
    found: list[tuple[int, float]] = []

    def count(self: Chain, value: Any, into: ChainCounts, threads: int) -> None:
        counted(self, value, into, threads)
        found.append((len(into.work), self.share(into.work)))

    Chain.count = count  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Chain.count = counted  # type: ignore[method-assign]


class ChainContest(Contest):
    """An MLP in one dtype on one thread: the choice of ``count_regions`` beside evaluating every vertex."""

    def __init__(
        self, width: int, depth: int, directions: int, dtype: torch.dtype, sizes: Sizes, images: Tensor
    ) -> None:
        few = max(1, int(sizes.mlp_points * min(1.0, (_WIDE / width) ** 2)))
        sizes = dataclasses.replace(sizes, mlp_width=width, mlp_directions=directions, mlp_points=few, goals=False)
        super().__init__(mlp_workload(depth, sizes, images), dtype, 1, Options())
        self.dtype = dtype
        self.setting |= {"width": width, "depth": depth, "weights": self.work.weights}

    def generic(self, radius: float) -> plr.RegionCounts:
        """Every vertex is evaluated."""
        return self.ours(radius, None, displacement=False)

    def checked(self, radius: float) -> dict[str, Any]:
        """Compare all counts with those of the hooks version.

        Returns:
            What is the same for all contenders: the radius, the local complexity, and by how many neurons ours differs.

        Raises:
            WrongCountsError: They differ by more than rounding explains.
        """
        hooks = Setup(self.work.batches[0])
        expected, allowed = self.hooks(radius, hooks), None
        if self.dtype != torch.float64:
            model = self.models["contiguous"]
            allowed = count_with_hooks(model, self.x, self.frame, radius, hooks.points, reduce=near_zero)
        differing = {
            name: compare_counts(name, self.ours(radius, None, way).changes, expected, allowed)
            for name, way in ((OURS, None), (DISPLACEMENTS, True), (GENERIC, False))
        }
        local_complexity = float(expected.sum(dim=1).double().mean())
        return {"radius": radius, "local_complexity": local_complexity, "differing_neurons": differing[OURS]}

    def multiplied(self, radius: float) -> Multiplied:
        """Which way ``count_regions`` takes, and what share displacements multiply."""
        with batches_of_chains() as tried:
            self.ours(radius, None)
        with batches_of_chains() as batches:
            self.ours(radius, None, displacement=True)
        points = sum(n for n, _ in batches)
        kept = sum(n for n, _ in tried) == len(self.x)  # else some points were tried at most
        return Multiplied(kept, sum(n * share for n, share in batches) / points)

    def bare_at_best(self) -> tuple[int, Run]:
        """The bare forward pass at its best batch size, in points. It does not depend on the radius."""
        model = self.models["contiguous"]
        rows = ready_made_vertices(self.x, self.frame, 1.0).flatten(0, 1)
        runs: dict[int, Run] = {
            batch: lambda batch=batch: bare_forward(model, rows, batch * self.vertices) for batch in self.work.batches
        }
        seconds = fastest(runs, 2, self.clock)
        best = min(seconds, key=seconds.__getitem__)
        return best, runs[best]

    def floor(self, share: float, rates: dict[torch.dtype, float]) -> float:
        """Seconds: see the top of this file."""
        layers = [m.weight.numel() for m in self.models["contiguous"].modules() if isinstance(m, nn.Linear)][:-1]
        points = len(self.x)
        centres, vertices = points * sum(layers), points * self.vertices * sum(layers[1:])
        return centres / rates[torch.float64] + share * vertices / rates[self.dtype]


def kernel(dtype: torch.dtype) -> tuple[int, Run]:
    """A layer that is in the cache, and how many multiply-adds it is."""
    rows, width, calls = 240, 192, 20
    x, weight = torch.randn(rows, width, dtype=dtype), torch.randn(width, width, dtype=dtype)
    out = torch.empty(rows, width, dtype=dtype)
    if PackedLinear.takes(dtype, x.device):
        packed = PackedLinear(weight, None)
        run: Run = lambda: packed(x, out)  # noqa: E731
    else:
        run = lambda: torch.mm(x, weight, out=out)  # noqa: E731
    return calls * rows * width * width, harness.repeated(run, calls)


def shapes(sizes: Sizes) -> list[tuple[int, int]]:
    """Width and depth of each network."""
    depths = [(sizes.mlp_width, depth) for depth in sizes.chain_depths]
    return list(dict.fromkeys([*((width, 3) for width in sizes.chain_widths), *depths]))


def by_shape(sizes: Sizes, images: Tensor, repeats: int) -> Rows:
    """Every width and depth, in both dtypes, on one thread."""
    torch.set_num_threads(1)
    found = []
    kernels = {dtype: kernel(dtype) for dtype in DTYPES}
    for width, depth in shapes(sizes):
        for dtype in DTYPES:
            contest = ChainContest(width, depth, sizes.mlp_directions, dtype, sizes, images)
            progress(f"{contest.work.key}, {dtype}: chains")
            settings = {radius: {**contest.setting, **contest.checked(radius)} for radius in sizes.chain_radii}
            batch, bare = contest.bare_at_best()
            runs: dict[Any, Run] = {BARE: bare, **{each: run for each, (_, run) in kernels.items()}}
            for radius in sizes.chain_radii:
                runs[OURS, radius] = lambda radius=radius, c=contest: c.ours(radius, None)
                runs[GENERIC, radius] = lambda radius=radius, c=contest: c.generic(radius)
            seconds = medians(runs, repeats, contest.clock)
            rates = {each: products / seconds[each] for each, (products, _) in kernels.items()}
            for radius in sizes.chain_radii:
                multiplied = contest.multiplied(radius)
                found.append(
                    {
                        "setting": settings[radius],
                        "way": DISPLACEMENTS if multiplied.kept else GENERIC,
                        "share": multiplied.share,
                        "seconds": seconds[OURS, radius],
                        "generic_seconds": seconds[GENERIC, radius],
                        "bare_seconds": seconds[BARE],
                        "bare_batch": batch,
                        "floor_seconds": contest.floor(multiplied.share, rates),
                        "kernel_rates": {str(each).removeprefix("torch."): rate for each, rate in rates.items()},
                    }
                )
    return found


def by_radius(sizes: Sizes, images: Tensor, repeats: int) -> Rows:
    """The choice of ``count_regions`` beside every vertex, at all radii and numbers of directions, on one thread."""
    torch.set_num_threads(1)
    found = []
    for dtype in DTYPES:
        for directions in sizes.chain_directions:
            contest = ChainContest(sizes.mlp_width, 3, directions, dtype, sizes, images)
            for radius in sizes.chain_all_radii:
                progress(f"{contest.work.key}, {dtype}, P = {directions}, r = {radius:g}: chains")
                way = DISPLACEMENTS if contest.multiplied(radius).kept else GENERIC
                setting = {**contest.setting, **contest.checked(radius), "way": way}
                runs: dict[str, Run] = {
                    OURS: lambda radius=radius, c=contest: c.ours(radius, None),
                    GENERIC: lambda radius=radius, c=contest: c.generic(radius),
                }
                goal = NEVER_SLOWER if sizes.goals and directions >= FEWEST_PAIRS else None
                found.append(_record(setting, GENERIC, medians(runs, repeats, contest.clock), goal))
    return found


def by_threads(sizes: Sizes, images: Tensor, repeats: int, several: list[int]) -> Rows:
    """So many threads beside one, by wall time."""
    found = []
    for threads, dtype in itertools.product(several, DTYPES):
        contest = ChainContest(sizes.mlp_width, 3, sizes.mlp_directions, dtype, sizes, images)

        def on(number: int, radius: float, contest: ChainContest = contest) -> None:
            torch.set_num_threads(number)
            contest.ours(radius, None)

        for radius in sizes.chain_radii:
            progress(f"{contest.work.key}, {dtype}, r = {radius:g}: {threads} threads beside one")
            torch.set_num_threads(threads)
            setting = {**contest.setting, **contest.checked(radius), "threads": threads}
            runs: dict[str, Run] = {
                OURS: lambda radius=radius, on=on, threads=threads: on(threads, radius),
                "one thread": lambda radius=radius, on=on: on(1, radius),
            }
            goal = TWO_THREADS if sizes.goals and threads == 2 else None
            found.append(_record(setting, "one thread", medians(runs, repeats, harness.wall_seconds), goal))
    return found


def _record(setting: dict[str, Any], baseline: str, seconds: dict[str, float], goal: float | None) -> dict[str, Any]:
    found: Record = compared(OURS, setting, baseline, seconds[OURS], seconds[baseline], goal)
    return found.as_json()
