"""``partitions``: the exact regions of a network on many slices, one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pylinregion._util import checks, memory
from pylinregion._util.errors import BudgetExceededError, UnsupportedModelError
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.exact.device_check import walks_on
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_engine import EngineCells, Enumeration, SliceWalk, engines_of
from pylinregion.exact.slice_systems import Slices
from pylinregion.geometry.slice import Slice
from pylinregion.graph.network import Network
from pylinregion.regions.enumeration import (
    Prepared,
    check_count,
    check_extent,
    checked_limits,
    enumerated,
    found_partition,
    prepared,
)
from pylinregion.regions.partition import Partition

Found = Enumeration[EngineCells]
_AT_ONCE = 256  # slices that are folded together, at most
_NUMBERS_AT_ONCE = 1 << 22  # of their origins


@plain_torch()
def partitions(
    model: nn.Module | torch.export.ExportedProgram | Network,
    slices: Iterable[Slice],
    *,
    cells: bool = True,
    layers: Sequence[str] | None = None,
    threads: int | None = None,
    max_regions: int | None = None,
    memory_budget: int | None = None,
    device: str | torch.device | None = None,
) -> Iterator[Partition]:
    """Find the regions of a network on many slices, exactly: what :func:`partition` finds on each.

    The model is captured once, and folded over many slices at a time, which takes a small part of the time where each
    has few regions. All arguments are checked at once; what is found comes one by one, as it is asked for, so that of
    the cells no more than those of one slice are kept here. All that is decided is what :func:`partition` tells, in its
    order; coordinates may differ from its in the last bits, for sums are taken in another order, and the certificate
    counts the decisions that were taken here.

    Args:
        model: As for :func:`partition`. What is done to it before the last partition has come does not matter.
        slices: The slices, all of the model's input shape.
        cells: Keep the cells of each; False: count only.
        layers, threads, memory_budget: As for :func:`partition`.
        max_regions: Stop when a slice has more.
        device: As for :func:`partition`.

    Returns:
        An iterator over partitions, in the order of the slices.

    Raises:
        ValueError: An argument has a wrong value, or a slice is not of the model's input shape.
        TypeError: An argument has a wrong type.
        UnsupportedModelError: The model is not piecewise affine or not covered; the message says why. From the
            iterator: not on this slice, whose numbers are too large.
        BudgetExceededError: From the iterator: a slice has more than ``max_regions``, or its cells take more than
            ``memory_budget``, or following the network on it does. These messages name the slice; those before it have
            come.

    >>> import torch, pylinregion as plr
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.eye(2)), net[0].bias.zero_()
    >>> [part.n_regions for part in plr.partitions(net, [plr.Slice.box(-1, 1), plr.Slice.box(1, 2)], cells=False)]
    [4, 1]
    """
    checks.switches(cells=cells)
    checked_limits(threads, max_regions, memory_budget)
    given = _checked(slices)
    if not given:
        return iter(())
    ready = prepared(model, given[0], layers, threads, max_regions, memory_budget, "slices[0]")
    for number, each in enumerate(given):
        if each.input_shape != given[0].input_shape:
            raise ValueError(
                f"slices must be of one shape: slices[{number}] is of {list(each.input_shape)}, and slices[0] of "
                f"{list(given[0].input_shape)}"
            )
        check_extent(f"slices[{number}]", each)
    many = ManySlices(ready.stages, _are_central(ready, given), walks_on(device, ready.network.device))
    look = (_with_cells if cells else _counted)(ready, many, max_regions, memory_budget)
    return _one_by_one(ready, given, look)


def _with_cells(
    ready: Prepared, many: ManySlices, max_regions: int | None, memory_budget: int | None
) -> Callable[[Slices], Iterator[Found]]:
    budget = memory.budget(memory_budget)

    def found_by(engine: SliceWalk) -> Found:
        found = enumerated(engine, ready.threads, True, max_regions, budget)
        if ready.stages.are_one_system and found.cells is not None:  # whose patterns are an array
            cells = replace(found.cells, patterns=np.asarray(found.cells.patterns))
            found = replace(found, cells=cells)
        return found

    def look(together: Slices) -> Iterator[Found]:
        many.check_scale(together)
        return map(found_by, engines_of(many, together, memory_budget))

    return look


def _counted(
    ready: Prepared, many: ManySlices, max_regions: int | None, memory_budget: int | None
) -> Callable[[Slices], Iterator[Found]]:
    def counts(regions: list[int], decisions: list[int]) -> Found:
        check_count(max(regions, default=1), max_regions)
        filtered, exact, zeros, folds = decisions
        return Enumeration(regions, False, filtered, exact, zeros, None, folds)

    def look(together: Slices) -> Iterator[Found]:
        found = many.count(together, threads=ready.threads, max_regions=max_regions, max_bytes=memory_budget)
        return map(counts, found.regions.tolist(), found.decisions.tolist())

    return look


def _one_by_one(ready: Prepared, slices: list[Slice], look: Callable[[Slices], Iterator[Found]]) -> Iterator[Partition]:
    """The partitions of slices, in their order; ``look``: at some slices together, what is found on each."""
    waiting = _batches(slices)
    while waiting:
        batch = waiting.pop()
        try:
            with plain_torch(), _named(batch[0]):
                found = {corners: look(together) for corners, together in _together(slices, batch)}
        except (BudgetExceededError, UnsupportedModelError):
            if len(batch) == 1:
                raise
            # One of them is refused: those before it come.
            waiting += [range(number, number + 1) for number in reversed(batch)]
            continue
        for number in batch:
            with plain_torch(), _named(number):
                own = next(found[len(slices[number].polygon)])
            yield found_partition(ready, slices[number], own)


@contextlib.contextmanager
def _named(number: int) -> Iterator[None]:
    """What is refused in here is that slice."""
    try:
        yield
    except BudgetExceededError as error:
        raise BudgetExceededError(f"slices[{number}]: {error}", error.n_regions) from None
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"slices[{number}]: {error}") from None


def _are_central(ready: Prepared, slices: list[Slice]) -> bool:
    """Whether all lines pass through s = t = 0 on each."""
    return ready.stages.pass_through_zero and not any(bool(each.origin.any()) for each in slices)


def _batches(slices: list[Slice]) -> list[range]:
    """The numbers of slices that are folded together, as many as are; the last first."""
    most = max(1, min(_AT_ONCE, _NUMBERS_AT_ONCE // max(1, slices[0].origin.numel())))
    return [range(begin, min(begin + most, len(slices))) for begin in reversed(range(0, len(slices), most))]


def _together(slices: list[Slice], batch: range) -> Iterator[tuple[int, Slices]]:
    """The slices of a batch in their order, for each number of corners that they have."""
    numbers: dict[int, list[int]] = {}
    for number in batch:
        numbers.setdefault(len(slices[number].polygon), []).append(number)
    for corners, own in numbers.items():
        planes = np.stack([slices[number].plane for number in own])
        u, v, origins = (np.ascontiguousarray(planes[:, :, k]) for k in range(3))
        shared = bool((planes[:, :, :2] == planes[0, :, :2]).all())
        polygons = np.stack([slices[number].polygon for number in own])
        yield corners, Slices(u[:1] if shared else u, v[:1] if shared else v, origins, polygons)


def _checked(slices: Iterable[Slice]) -> list[Slice]:
    if isinstance(slices, Slice) or not isinstance(slices, Iterable):
        raise TypeError(f"slices must be a list of pylinregion.Slice, got {type(slices).__name__}")
    given = list(slices)
    for number, each in enumerate(given):
        if not isinstance(each, Slice):
            raise TypeError(f"slices[{number}] must be a pylinregion.Slice, got {type(each).__name__}")
    return given
