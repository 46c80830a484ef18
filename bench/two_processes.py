"""What a second process gains: ``python bench/two_processes.py``. The same shards by one process and by two, in turn.

Each process has one thread. Times are wall times from a barrier to the last process's end, medians: capturing and
starting processes are not in them; reading points, writing shards and waiting for each other are. ``each all`` has both
processes do all of it at once, each for itself: twice the time of one over it is what the machine gives two processes
at most. Results must be the same, or the run ends with exit code 1. Leave two cores free.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import harness
import torch
from architectures import mlp
from partitions import generic
from tables import markdown
from torch import distributed

import pylinregion as plr
from pylinregion.graph.digest import digest_of

GOAL = 1.7  # times one process, at least
_PARTS = 8  # the slice is small: each part finds its beginning anew
MODES = ("one process", "two processes", "each all")


@dataclass(frozen=True)
class Work:
    """Something that processes share.

    Attributes:
        name: What it is.
        run: Does it in a folder.
        digest: A name for what came out.
        goal: How many times as fast two processes are to be; None: none is set.
    """

    name: str
    run: Callable[[Path], Any]
    digest: Callable[[Any], str]
    goal: float | None


def works(smoke: bool) -> list[Work]:
    points, width, shard_size = (200, 16, 50) if smoke else (10_000, 200, 1000)
    torch.manual_seed(0)
    model, x = mlp(3, width), torch.rand(points, 784)
    width = 16 if smoke else 256
    small, square = generic((2, width, width, width, 1)), plr.Slice.box([-1.0, -1.0], [1.0, 1.0])
    return [
        Work(
            f"count_in_shards, {points} points, MLP {model[0].in_features}-{model[0].out_features}x3-10, r = 0.05",
            lambda folder: plr.count_in_shards(model, x, 0.05, folder, shard_size=shard_size),
            lambda found: digest_of(found.load().changes, found.load().regions),
            GOAL,
        ),
        Work(
            f"partition_in_shards, 2-{width}x3-1, {_PARTS} parts",
            lambda folder: plr.partition_in_shards(small, square, folder, parts=_PARTS),
            lambda part: "" if part is None else digest_of(part.vertices, part.offsets, part.patterns),
            None,
        ),
    ]


def worker(rank: int, orders: Connection, start: Any, smoke: bool) -> None:
    """One of two processes: does what it is told, and says how long it took and what came out."""
    harness.one_thread()
    try:
        ready = works(smoke)
        with tempfile.TemporaryDirectory() as folder:
            for number, work in enumerate(ready):
                work.run(Path(folder) / str(number))  # captures
        orders.send((0.0, ""))
        while (order := orders.recv()) is not None:
            number, mode, folder = order
            orders.send(_measured(ready[number], mode, Path(folder), rank, start))
    except Exception:
        orders.send(traceback.format_exc())


def _measured(work: Work, mode: str, folder: Path, rank: int, start: Any) -> tuple[float, str]:
    found: list[Any] = []
    place = folder / (str(rank) if mode == "each all" else "both")
    if mode == "two processes":
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    if mode != "one process":
        start.wait()
    seconds = harness.wall_seconds(lambda: found.append(work.run(place)))
    if mode == "two processes":
        distributed.destroy_process_group()
    return seconds, work.digest(found[0])


class Pair:
    """Two processes, for as long as the context lasts."""

    def __init__(self, smoke: bool) -> None:
        self._smoke = smoke

    def __enter__(self) -> Pair:
        spawning = multiprocessing.get_context("spawn")
        start = spawning.Barrier(2)
        pipes = [spawning.Pipe() for _ in range(2)]
        self._orders = [ours for ours, _ in pipes]
        self._running = [
            spawning.Process(target=worker, args=(rank, theirs, start, self._smoke), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process, (_, theirs) in zip(self._running, pipes, strict=True):
            process.start()
            theirs.close()  # so that the end of a process is the end of its pipe
        for orders in self._orders:
            self._answer(orders)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process, orders in zip(self._running, self._orders, strict=True):
            if kind is None:
                orders.send(None)
            else:
                process.kill()
            process.join()

    def run(self, number: int, mode: str) -> tuple[float, list[str]]:
        """Seconds of the slower process, and what came out of each that took part."""
        called = self._orders[: 1 if mode == "one process" else 2]
        with tempfile.TemporaryDirectory() as folder:
            for orders in called:
                orders.send((number, mode, folder))
            answers = [self._answer(orders) for orders in called]
        return max(seconds for seconds, _ in answers), [digest for _, digest in answers if digest]

    def _answer(self, orders: Connection) -> tuple[float, str]:
        try:
            answer: tuple[float, str] | str = orders.recv()
        except EOFError:
            answer = "it was killed"
        if isinstance(answer, str):
            raise SystemExit(f"a process ended: {answer}")
        return answer


def record(pair: Pair, number: int, work: Work, repeats: int) -> dict[str, Any]:
    """Everything about one work."""
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    came: set[str] = set()
    for repeat in range(repeats):
        harness.progress(f"{work.name}: {repeat + 1} of {repeats}")
        for mode in MODES:
            took, digests = pair.run(number, mode)
            seconds[mode].append(took)
            came.update(digests)
    if len(came) != 1:
        raise SystemExit(f"{work.name}: two processes have other results than one")
    one, two, each = (statistics.median(seconds[mode]) for mode in MODES)
    return {
        "work": work.name,
        "seconds": seconds,
        "medians": {"one process": one, "two processes": two, "each all": each},
        "gain": one / two,
        "ceiling": 2 * one / each,
        "goal": work.goal,
        "verdict": harness.verdict(-one / two, None if work.goal is None else -work.goal),  # at least
    }


def table(records: list[dict[str, Any]]) -> str:
    rows = [
        [
            each["work"],
            *(f"{each['medians'][mode]:.3g} s" for mode in MODES),
            f"{each['gain']:.2f}" + ("" if each["goal"] is None else f" ({each['goal']}: {each['verdict']})"),
            f"{each['ceiling']:.2f}",
        ]
        for each in records
    ]
    return markdown(["work", *MODES, "two processes, times one (goal)", "ceiling"], rows)


def main(given: list[str] | None = None) -> int:
    chosen = harness.parser(__doc__, "each work").parse_args(given)
    harness.one_thread()
    with Pair(chosen.smoke) as pair:
        repeats = 1 if chosen.smoke else chosen.repeats
        records = [record(pair, number, work, repeats) for number, work in enumerate(works(chosen.smoke))]
    print(f"\n{table(records)}")
    harness.write({"shards": records}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
