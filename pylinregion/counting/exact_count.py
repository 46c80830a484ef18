"""The exact methods of ``count_regions``: along the arms around each point, and on the slice that two of them span."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pylinregion._util.arrays import Array, Int64s
from pylinregion.caller.processes import Ranks
from pylinregion.caller.workers import in_parallel
from pylinregion.counting.counts import RegionCounts
from pylinregion.counting.request import CountRequest
from pylinregion.exact.arms import ArmsAround, star_of
from pylinregion.exact.breakpoints import Breakpoints
from pylinregion.exact.device_check import walks_on
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.neurons import up_to
from pylinregion.exact.segment_engine import SegmentTracer
from pylinregion.exact.segment_fold import tracer_of
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.walk_device import WalkDevice
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import Stages
from pylinregion.native.exact_engines import Report

_AT_ONCE = 64  # points whose arms are traced together, at most
_SLICES_AT_ONCE = 256  # slices that are folded together, at most
_SLICES_ON_DEVICE = 4096  # likewise, where they are walked along by one launch
_NAMES_AT_ONCE = 2**22  # lines of all their arms, of 8 bytes


def count_exactly(request: CountRequest, threads: int, ranks: Ranks) -> RegionCounts:
    """Count by method ``"axes"`` or ``"slice"``: each process some of the points.

    Raises:
        UnsupportedModelError: The model is not covered.
    """
    own = ranks.part(len(request.x))
    changes, regions = _counted(request.part(own), threads)
    whole = [found.new_zeros(len(request.x), *found.shape[1:]) for found in (changes, regions)]
    whole[0][own], whole[1][own] = changes, regions
    changes, regions = (found.to(request.x.device) for found in ranks.summed(*whole))
    return RegionCounts(
        changes=changes,
        regions=regions,
        ambiguous=torch.zeros_like(regions),
        layers=request.layer_names,
        definition=_definition(request.method, request.pairs)
        + "; the network is affine: it has no neurons" * (not request.network.layers),
        method=request.method,
    )


def _counted(request: CountRequest, threads: int) -> tuple[Tensor, Tensor]:
    """``[B, layers]`` and ``[B]`` on the CPU."""
    network, x = request.network, request.x
    stages = up_to(stages_of(network), len(network.layers))
    centres = x.to("cpu", torch.float64).reshape(len(x), math.prod(network.input_shape)).numpy()
    lead = request.frame.shape[: 2 if request.own_frames else 1]
    directions = request.frame.to("cpu", torch.float64).reshape(*lead, centres.shape[1]).numpy()
    radii, progress = request.radii.cpu().numpy(), request.options.progress
    if request.method == "axes":
        by_stage, regions = _axes(stages, centres, radii, directions, threads, progress)
    else:
        device = walks_on(None, network.device)
        by_stage, regions = _slices(stages, centres, radii, directions, threads, progress, device)
    place = {stage.layer: number for number, stage in enumerate(stages.stages)}
    changes = by_stage[:, [place[layer] for layer in request.counted]]
    return torch.from_numpy(np.ascontiguousarray(changes)), torch.from_numpy(regions)


def _definition(method: str, n_directions: int) -> str:
    if method == "axes":
        return (
            f"neurons that are not on one piece of their activation all along the {2 * n_directions} arms from x to "
            "x ± r v_p; regions: different activation patterns (of all layers) along these arms; exact"
        )
    return (
        "neurons that are not on one piece of their activation all over the slice with the vertices x ± r v_1, "
        "x ± r v_2; regions: proper activation regions (of all layers) of this slice; exact"
    )


def _axes(
    stages: Stages, centres: Array, radii: Array, directions: Array, threads: int, progress: bool
) -> tuple[Int64s, Int64s]:
    """``[B, stages]`` and ``[B]``."""
    arms = ArmsAround.of(stages)
    traced = _TracedArms(stages, centres, radii, directions)
    changes = np.zeros((len(centres), len(stages.stages)), dtype=np.int64)
    regions = np.ones(len(centres), dtype=np.int64)

    def count(here: slice, threads_of_it: int, report: Report) -> None:
        own = directions[here] if directions.ndim == 3 else directions
        found = None if arms is None else arms.count(star_of(centres[here], own, radii[here]), report=report)
        if found is None:
            changed, regions[here] = traced.count(here, threads if arms is None else threads_of_it, report)
        else:
            changed = np.unpackbits(found.changes, axis=1, count=stages.lines, bitorder="little").view(bool)
            regions[here] = found.regions
        changes[here] = _neurons_of_stages(stages, changed)

    if arms is None:
        _in_parts(count, len(centres), traced.at_once, 1, progress)
    else:
        _in_parts(count, len(centres), arms.at_once, threads, progress)
    return changes, regions


class _TracedArms:
    """Arms that are traced one by one.

    Args:
        stages: The network.
        centres, radii, directions: Of all points.
    """

    def __init__(self, stages: Stages, centres: Array, radii: Array, directions: Array) -> None:
        self._stages, self._centres, self._radii, self._directions = stages, centres, radii, directions
        self._n_directions = directions.shape[-2]
        self.at_once = max(1, min(_AT_ONCE, _NAMES_AT_ONCE // (self._n_directions * max(1, stages.lines))))
        self._lock = threading.Lock()

    @cached_property
    def _tracer(self) -> SegmentTracer:
        reach = np.abs(self._centres).max(initial=0.0) + self._radii * np.abs(self._directions).max(initial=0.0)
        return tracer_of(self._stages, [self._centres, self._directions, reach])

    @cached_property
    def _names(self) -> NDArray[np.uint64]:
        return np.random.default_rng(0).integers(2**64, size=(self._stages.lines, 2), dtype=np.uint64)

    def count(self, which: slice, threads: int, report: Report) -> tuple[NDArray[np.bool_], Int64s]:
        """``[n, lines]``: which lines change; ``[n]``: how many patterns there are, on all arms of each point."""
        with self._lock:
            tracer, names = self._tracer, self._names
        own, n_directions = self._directions.ndim == 3, self._n_directions
        changed, regions = [], []
        for begin in range(which.start, which.stop, self.at_once):
            here = slice(begin, min(begin + self.at_once, which.stop))
            n = here.stop - begin
            found = tracer.trace(
                self._centres[here],
                self._directions[here].reshape(n * n_directions, -1) if own else self._directions,
                pairs=np.stack(
                    [
                        np.repeat(np.arange(n), n_directions),
                        np.arange(n * n_directions) if own else np.tile(np.arange(n_directions), n),
                    ],
                    axis=1,
                ),
                radii=np.repeat(self._radii[here], n_directions),
                maps=False,
                starts=True,
                threads=threads,
                report=report,
            )
            changed.append(_changed_lines(found, n, n_directions, self._stages.lines))
            regions.append(_different_patterns(found, n, n_directions, names))
        return np.concatenate(changed), np.concatenate(regions)


def _changed_lines(found: Breakpoints, n: int, n_directions: int, lines: int) -> NDArray[np.bool_]:
    """``[n, lines]``: which lines change on an arm, or from one arm's first region to another's."""
    assert found.starts is not None
    starts = found.starts.reshape(n, n_directions, -1)
    bits = np.bitwise_or.reduce(starts, axis=1) ^ np.bitwise_and.reduce(starts, axis=1)
    changed = np.unpackbits(bits, axis=1, count=lines, bitorder="little").astype(bool)
    per_segment = np.diff(found.change_offsets[found.offsets])
    changed[np.repeat(np.arange(len(per_segment)) // n_directions, per_segment), found.changes] = True
    return changed


def _different_patterns(found: Breakpoints, n: int, n_directions: int, names: NDArray[np.uint64]) -> Int64s:
    """``[n]``: how many patterns there are on the arms of each point.

    Patterns are told apart by 128 bits, the exclusive or of the random names of the lines that are not as at the start
    of the point's first arm.
    """
    assert found.starts is not None
    offsets, counts = found.offsets, np.diff(found.change_offsets)
    first = offsets[:-1] + np.arange(len(offsets) - 1)  # of each segment's regions
    steps = np.zeros((int(offsets[-1]) + len(first), 2), dtype=np.uint64)
    starts = found.starts.reshape(n, n_directions, -1)
    apart = (starts ^ starts[:, :1]).reshape(len(first), -1)
    bits = np.unpackbits(apart, axis=1, count=len(names), bitorder="little")
    segment, line = np.divmod(np.flatnonzero(bits.view(bool)), max(1, len(names)))
    for half in range(2):
        start = np.zeros(len(first), dtype=np.uint64)
        np.bitwise_xor.at(start, segment, names[line, half])
        flips = names[found.changes, half]
        at_breakpoint = np.bitwise_xor.reduceat(flips, found.change_offsets[:-1]) if len(counts) else flips
        inner = np.ones(len(steps), dtype=bool)
        inner[first] = False
        steps[inner, half] = at_breakpoint
        steps[first, half] = start
        running = np.bitwise_xor.accumulate(steps[:, half])
        before = np.concatenate([np.zeros(1, np.uint64), running])[first]
        steps[:, half] = running ^ np.repeat(before, np.diff(offsets) + 1)
    point = np.repeat(np.arange(len(first)) // n_directions, np.diff(offsets) + 1)
    order = np.lexsort((steps[:, 1], steps[:, 0], point))
    ordered, owner = steps[order], point[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1) | (owner[1:] != owner[:-1])
    return np.bincount(owner[new], minlength=n)


def _slices(
    stages: Stages,
    centres: Array,
    radii: Array,
    directions: Array,
    threads: int,
    progress: bool,
    device: WalkDevice | None,
) -> tuple[Int64s, Int64s]:
    """``[B, stages]`` and ``[B]``."""
    many = ManySlices(stages, device=device)
    u, v = np.moveaxis(directions, -2, 0) if directions.ndim == 3 else directions[:, None]
    cross = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    slices = Slices(np.ascontiguousarray(u), np.ascontiguousarray(v), centres, radii[:, None, None] * cross)
    changes = np.zeros((len(centres), len(stages.stages)), dtype=np.int64)
    regions = np.ones(len(centres), dtype=np.int64)

    def count(here: slice, threads_of_it: int, report: Report) -> None:
        found = many.count(slices.part(here), threads=threads_of_it, report=report)
        if found.regions.shape[1]:
            regions[here] = found.regions[:, -1]
        lines = np.unpackbits(found.changes, axis=1, count=stages.lines, bitorder="little")
        changes[here] = _neurons_of_stages(stages, lines.view(bool))

    if device is None:
        _in_parts(count, len(centres), _SLICES_AT_ONCE, threads, progress)
    else:
        _in_parts(count, len(centres), _SLICES_ON_DEVICE, threads, progress, workers=1)
    return changes, regions


def _in_parts(
    count: Callable[[slice, int, Report], None],
    points: int,
    at_once: int,
    threads: int,
    progress: bool,
    workers: int | None = None,
) -> None:
    """Count some points at a time: ``count`` is told which, how many threads it has, and whom to report to."""
    workers = max(1, min(threads, points)) if workers is None else workers
    stop = threading.Event()

    def report(found: int) -> None:
        if stop.is_set():
            raise _StoppedError

    def counted(here: slice) -> int:
        count(here, threads if workers == 1 else 1, report)
        return int(here.stop - here.start)

    size = max(1, min(at_once, -(-points // workers)))
    parts = [slice(begin, min(begin + size, points)) for begin in range(0, points, size)]
    with tqdm(total=points, unit="point", disable=not progress) as bar:
        if workers == 1:
            for part in parts:
                bar.update(counted(part))
            return
        # After an error or an interrupt those that run hear of it at their next report.
        in_parallel(parts, counted, workers, bar.update, stop=stop.set)


def _neurons_of_stages(stages: Stages, changed: NDArray[np.bool_]) -> Int64s:
    """``[n, stages]``: how many neurons have a line that changes, of ``[n, lines]``."""
    counts = np.zeros((len(changed), len(stages.stages)), dtype=np.int64)
    for number, (stage, first) in enumerate(zip(stages.stages, stages.first_lines, strict=False)):
        units = stage.units
        if not units.lines:
            continue
        lines = changed[:, first : first + units.lines]
        begin = np.flatnonzero(np.diff(units.neuron_of_line, prepend=-1))  # the first line of each neuron
        neurons = lines if len(begin) == units.lines else np.logical_or.reduceat(lines, begin, axis=1)
        counts[:, number] = np.count_nonzero(neurons, axis=1)
    return counts


class _StoppedError(Exception):
    """Ends an enumeration that nobody waits for any more."""
