"""How points are cut into batches, and how batches are counted: in turn, or side by side on threads.

A batch is so small that its activations stay in the cache. On the CPU each thread counts batches of its own, with one
thread per operator: no thread waits for another.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pylinregion._util import memory
from pylinregion.caller.workers import in_parallel
from pylinregion.counting.batch_counts import number_of
from pylinregion.runtime.workspace import Workspace

# A batch is small enough for its largest activation to stay in the cache (bench/README.md has the measurements),
# and never needs more than the memory budget.
CACHE_BYTES = {"cpu": 2 << 20, "cuda": 32 << 20}
_LARGEST_ADAPTIVE_BLOCK = 31 << 20

CountBatch = Callable[[slice, Workspace, int], None]  # points, memory to count them in, threads


@dataclass(frozen=True)
class Needs:
    """What a way of counting needs for a point.

    Attributes:
        memory: Bytes, at most.
        largest: Bytes of its largest value, which is to stay in the cache.
        fewest: Points that are better counted together than in the cache; None: there is no such number.
    """

    memory: int
    largest: int
    fewest: int | None = None


@dataclass(frozen=True)
class Plan:
    """How the points are cut into batches.

    Attributes:
        batch: Points of each.
        workers: Threads that count batches side by side; 1: they are counted in turn, by all threads together.
    """

    batch: int
    workers: int


def planned(
    needs: Needs, points: int, device: torch.device, threads: int, batch_size: int | None, memory_budget: int | None
) -> Plan:
    """The plan for so many points.

    Args:
        needs: What they need.
        points: How many there are.
        device: Where they are.
        threads: CPU threads.
        batch_size, memory_budget: See :func:`pylinregion.count_regions`.
    """
    threads = 1 if device.type == "cuda" else threads
    affordable = max(1, memory.batch_budget(memory_budget, device) // (needs.memory * threads))
    if batch_size is None:
        fewest = needs.fewest or (2 if threads == 1 else 1)  # a large network's activations are past the cache anyway
        batch_size = min(max(fewest, cached(needs.largest, device)), affordable)
    # Every worker gets as much; with a single batch, torch's own threads share the work instead.
    if threads > 1:
        batches = -(-points // (batch_size * threads)) * threads
        batch_size = -(-points // max(1, batches))
    batch_size = max(1, batch_size)
    batches = -(-points // batch_size)
    return Plan(batch_size, min(threads, batches) if threads > 1 and batches > 1 else 1)


def cached(largest: int, device: torch.device) -> int:
    """How many points' largest values, of so many bytes, stay in the cache."""
    return CACHE_BYTES["cuda" if device.type == "cuda" else "cpu"] // (largest + 1)


def count_batches(
    count: CountBatch, batches: Sequence[slice], workers: int, threads: int, done: Callable[[int], object]
) -> None:
    """Count some batches.

    Args:
        count: Counts one.
        batches: The points of each.
        workers: See :class:`Plan`.
        threads: CPU threads.
        done: Told how many points of each have been counted.
    """
    if workers > 1:
        _side_by_side(count, batches, workers, done)
    else:
        _in_turn(count, batches, threads, done)


def _side_by_side(count: CountBatch, batches: Sequence[slice], workers: int, done: Callable[[int], object]) -> None:
    # glibc returns the top of a thread's heap to the system after each batch, and the next batch faults it in again,
    # unless it has seen a larger block freed: it then takes such blocks for usual. Nothing of this one is touched.
    torch.empty(_LARGEST_ADAPTIVE_BLOCK, dtype=torch.uint8, device="cpu")
    own = threading.local()

    def count_alone(points: slice) -> int:
        count(points, own.workspace, 1)
        return number_of(points)

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        """A thread that counts batches by itself: no operator is cut up, and no thread waits for another.

        torch's own threads would meet at every operator of a batch, which is small on purpose.
        """
        torch.set_num_threads(1)  # what a new thread has is up to its OpenMP library
        own.workspace = Workspace()
        try:
            with torch.no_grad():
                yield
        finally:
            vars(own).clear()  # here, not when the thread ends: see pylinregion.caller.workers

    in_parallel(batches, count_alone, workers, done, alone)


def _in_turn(count: CountBatch, batches: Sequence[slice], threads: int, done: Callable[[int], object]) -> None:
    """One batch after the other; when the device is out of memory, batches are halved for good."""
    torch.set_num_threads(threads)
    workspace, most = Workspace(), None
    for batch in batches:
        begin = batch.start
        while begin < batch.stop:
            end = batch.stop if most is None else min(batch.stop, begin + most)
            try:
                count(slice(begin, end), workspace, threads)
            except torch.OutOfMemoryError:
                if end - begin == 1:
                    raise
                torch.cuda.empty_cache()
                if most is None:
                    warnings.warn(
                        f"out of memory with {end - begin} points in a batch: going on with half of it "
                        f"(batch_size, memory_budget or {memory.BUDGET_VARIABLE} set a smaller one from the start)",
                        ResourceWarning,
                        stacklevel=6,
                    )
                most = (end - begin) // 2
            else:
                begin = end
        done(number_of(batch))
