"""``partition``: the exact regions of a network on a 2-D slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pylinregion._util import checks, memory
from pylinregion._util.errors import BudgetExceededError
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.torch_settings import on_threads
from pylinregion.capturing.capture import capture_for_shape
from pylinregion.exact.device_check import walks_on
from pylinregion.exact.neurons import Neurons, up_to
from pylinregion.exact.slice_engine import EngineCells, Enumeration, SliceWalk, engine_of
from pylinregion.geometry.slice import Slice
from pylinregion.graph.network import Network
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import Stages
from pylinregion.native.exact_engines import Report
from pylinregion.regions.certificate import Certificate
from pylinregion.regions.partition import Partition
from pylinregion.regions.region_set import Cells

DEFINITION = (
    "proper activation regions of the slice (definition 2 of arXiv 2505.16716, restricted to it): the sets with "
    "interior on which every neuron stays on one piece of its activation"
)

_LARGEST = 1e30  # so that the engine's allowance for underflow holds


@plain_torch()
def partition(
    model: nn.Module | torch.export.ExportedProgram | Network,
    slice_: Slice,
    *,
    cells: bool = True,
    layers: Sequence[str] | None = None,
    threads: int | None = None,
    max_regions: int | None = None,
    memory_budget: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Partition:
    """Find the regions of a network on a slice, exactly.

    The network is the real-arithmetic function of the model's parameters, in eval mode. Every decision on the way is
    proven: by float64 with a bound of its rounding errors, else by integers. At a breakpoint a neuron is on the lower
    piece, so a ReLU at exactly 0 is off; a set without interior is no region.

    Args:
        model: An ``nn.Module``, a network from :func:`capture`, or an ``ExportedProgram``.
        slice_: The slice, of the model's input shape.
        cells: Keep the cells; False: count only, which is faster and takes no memory for each region.
        layers: The first layers of the network, by name (see :func:`explain`), any number of them: the partition by
            these alone, and the outputs are then the last one's activations. None: all layers. Other choices have no
            regions: what a neuron does depends on all layers before it.
        threads: CPU threads; None: ``torch.get_num_threads()``. The result is the same for any number.
        max_regions: Stop when there are more.
        memory_budget: Bytes that finding the cells may take; None: the environment variable
            ``PYLINREGION_MEMORY_BUDGET``, else half of the memory that is free. Counting only takes
            little, and what a network of convolutions takes is kept below it by cutting the slice into tiles.
        device: Where the regions are found: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or a ``torch.device``; None: where the
            model is, or on the CPU if pylinregion was built without CUDA. The result is on the CPU, and the same:
            regions, their order and their neighbours; coordinates of a network that is not small and dense differ
            in their last bits, and so do the numbers of decisions.
        progress: Show the number of regions found so far.

    Returns:
        The partition.

    Raises:
        ValueError: An argument has a wrong value, or the slice is not of the model's input shape.
        TypeError: An argument has a wrong type.
        RuntimeError: The device that was asked for does not find what the CPU finds, or a kernel failed.
        UnsupportedModelError: The model is not piecewise affine or not covered; the message says why.
        BudgetExceededError: There are more than ``max_regions``, or their cells take more than ``memory_budget``; or so
            many neurons are on both sides on the slice that following them through the network would (to count only:
            on a small tile of it).

    >>> import torch, pylinregion as plr
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.eye(2)), net[0].bias.zero_()
    >>> part = plr.partition(net, plr.Slice.box(-1, 1))
    >>> part.n_regions, part.areas().tolist()
    (4, [1.0, 1.0, 1.0, 1.0])
    """
    checks.switches(cells=cells, progress=progress)
    ready = prepared(model, slice_, layers, threads, max_regions, memory_budget)
    walks = walks_on(device, ready.network.device)
    budget = memory.budget(memory_budget) if cells else None
    with on_threads(ready.threads), tqdm(unit=" regions", disable=not progress) as bar:
        engine = engine_of(ready.stages, slice_.plane, slice_.polygon, memory_budget, walks)
        report = (lambda regions: bar.update(regions - bar.n)) if progress else None
        found = enumerated(engine, ready.threads, cells, max_regions, budget, report)
        bar.update(found.n_regions - bar.n)
    return found_partition(ready, slice_, found)


def enumerated(
    engine: SliceWalk,
    threads: int,
    cells: bool,
    max_regions: int | None,
    budget: int | None,
    report: Report | None = None,
) -> Enumeration[EngineCells]:
    """What an engine finds on its slice.

    Args:
        engine: Of the slice.
        threads, cells, max_regions: As of :func:`partition`.
        budget: Bytes that finding the cells may take.
        report: See :meth:`SliceWalk.enumerate`.

    Raises:
        UnsupportedModelError, BudgetExceededError: As of :func:`partition`.
    """
    found = engine.enumerate(
        cells=cells,
        threads=threads,
        max_regions=max_regions,
        max_bytes=None if budget is None else budget // memory.PEAK_OF_CELLS,
        report=report,
    )
    regions = found.n_regions
    check_count(regions, max_regions)
    if found.stopped:
        raise BudgetExceededError(
            f"the cells of this slice take more than the memory budget of {budget} bytes: there are at least {regions} "
            "regions, a lower bound. Raise memory_budget, count only (cells=False), or take a smaller slice or fewer "
            "layers",
            regions,
        )
    return found


def check_count(regions: int, max_regions: int | None) -> None:
    """Raise a ``BudgetExceededError`` if there are more regions than allowed."""
    if max_regions is not None and regions > max_regions:
        raise BudgetExceededError(
            f"there are more than max_regions={max_regions} regions: at least {regions}, a lower bound. Raise "
            "max_regions (None: no limit), or take a smaller slice or fewer layers",
            regions,
        )


def check_extent(name: str, slice_: Slice) -> None:
    """Raise a ``ValueError`` for a slice so large that the bounds would not hold."""
    if (size := float(np.abs(slice_.polygon).max())) > _LARGEST:
        raise ValueError(f"{name}.polygon must have coordinates up to {_LARGEST:g} in size, got {size:g}")


@dataclass(frozen=True)
class Prepared:
    """What a partition is asked for, checked.

    Attributes:
        network: The captured model.
        stages: Of the layers that cut.
        whole: Whether these are all layers.
        threads: CPU threads.
    """

    network: Network
    stages: Stages
    whole: bool
    threads: int

    @cached_property
    def neurons(self) -> Neurons:
        """Those of the stages."""
        return Neurons.of(self.stages)


def checked_limits(threads: int | None, max_regions: int | None, memory_budget: int | None) -> int:
    """How many threads; raises for what is no limit."""
    for name, number in (("max_regions", max_regions), ("memory_budget", memory_budget)):
        if number is not None:
            checks.positive_integer(name, number)
    return checks.threads(threads)


def prepared(
    model: nn.Module | torch.export.ExportedProgram | Network,
    slice_: Slice,
    layers: Sequence[str] | None,
    threads: int | None,
    max_regions: int | None,
    memory_budget: int | None,
    name: str = "slice_",
) -> Prepared:
    """Check the arguments of :func:`partition`, and find the network's stages; ``name``: of the slice."""
    if not isinstance(slice_, Slice):
        raise TypeError(f"{name} must be a pylinregion.Slice, got {type(slice_).__name__}")
    threads = checked_limits(threads, max_regions, memory_budget)
    network = _captured(model, slice_.input_shape, name)
    network = network.at_one_time()
    count = _first_layers(layers, network.layer_names)
    stages = up_to(stages_of(network), count)
    check_extent(name, slice_)
    return Prepared(network, stages, count == len(network.layers), threads)


def _captured(model: nn.Module | torch.export.ExportedProgram | Network, shape: tuple[int, ...], name: str) -> Network:
    if isinstance(model, Network):
        if model.input_shape != shape:
            raise ValueError(f"{name} must be of the model's input shape {list(model.input_shape)}, got {list(shape)}")
        return capture_for_shape(model, shape)
    try:
        return capture_for_shape(model, shape)
    except ValueError as error:
        raise ValueError(f"{name} must be of the model's input shape, got {list(shape)}: {error}") from error


def _first_layers(layers: Sequence[str] | None, names: tuple[str, ...]) -> int:
    chosen = checks.chosen_layers(layers, names)
    if layers is not None and (chosen != tuple(range(len(chosen))) or not chosen):
        wanted = f"[{', '.join(map(repr, names))}]"
        raise ValueError(f"layers must be the first layers of the network, one or more of {wanted}, got {list(layers)}")
    return len(chosen)


def found_partition(ready: Prepared, slice_: Slice, found: Enumeration[EngineCells]) -> Partition:
    """The partition that the engine found."""
    stages = ready.stages
    counts = iter(found.regions)
    per_layer: list[int] = []
    for stage in stages.stages:
        count = next(counts) if stage.units.lines else None
        if stage.layer >= 0:
            per_layer.append(count if count is not None else (per_layer or [1])[-1])
    return Partition(
        slice=slice_,
        layers=stages.layers,
        regions_per_layer=tuple(per_layer),
        certificate=Certificate(found.filter, found.exact, found.zeros, DEFINITION),
        stages=stages,
        whole=ready.whole,
        cells=None if found.cells is None else _cells(found.cells, ready.neurons),
    )


def _cells(found: EngineCells, neurons: Neurons) -> Cells:
    return Cells(
        vertices=found.vertices,
        offsets=found.offsets,
        indices=found.indices,
        edges=found.edges,
        edge_cells=found.edge_cells,
        edge_neuron=neurons.of_row(found.edge_rows),
        patterns=found.patterns,
    )
