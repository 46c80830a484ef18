"""``trace``: the exact regions that segments run through; :class:`Trace` is what is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pylinregion._util import checks
from pylinregion._util.arrays import Array
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.capturing.capture import capture_for_shape
from pylinregion.exact.device_check import walks_on
from pylinregion.exact.neurons import Neuron, Neurons, up_to
from pylinregion.exact.segment_fold import tracer_of
from pylinregion.graph.network import Network
from pylinregion.lowering.lower import stages_of
from pylinregion.regions.certificate import Certificate

DEFINITION = (
    "activation regions of the segment: the open intervals, as long as can be, on which every neuron stays on one "
    "piece of its activation"
)


@plain_torch()
def trace(
    model: nn.Module | torch.export.ExportedProgram | Network,
    start: Any,
    end: Any,
    *,
    slopes: bool = True,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Trace:
    """Find the regions that segments run through, exactly.

    The segment is ``x(t) = (1 - t) start + t end`` for t from 0 to 1, and the network is the real-arithmetic function
    of the model's parameters, in eval mode. Every decision on the way is proven: by float64 with a bound of its
    rounding errors, else by integers. A neuron that only touches a kink of its activation does not change there. Where
    a segment runs along a kink, the neuron is on the lower piece: a ReLU that is 0 is off.

    Args:
        model: An ``nn.Module``, a network from :func:`capture`, or an ``ExportedProgram``.
        start, end: ``[B, *input_shape]``, or ``[*input_shape]`` for one segment (where the model takes that for no
            batch). Tensors or arrays of any floating dtype; they are converted to float64 exactly. Where they are equal
            there is one region.
        slopes: Also find what the outputs are on each region; without is faster.
        threads: CPU threads; None: ``torch.get_num_threads()``. The result is the same for any number.
        device: As for :func:`partition`. Networks of small dense layers are followed on the CPU.
        progress: Show a bar.

    Returns:
        The breakpoints of all segments.

    Raises:
        ValueError: An argument has a wrong shape or value; start and end are not finite.
        TypeError: An argument has a wrong type.
        UnsupportedModelError: The model is not piecewise affine or not covered; the message says why.

    >>> import torch, pylinregion as plr
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> with torch.no_grad():
    ...     _ = [p.fill_(1.0) for p in net.parameters()], net[0].bias.copy_(torch.tensor([0.0, 1.0]))
    >>> line = plr.trace(net, [[-2.0]], [[2.0]])
    >>> line.t.tolist(), line.neurons.tolist(), line.n_regions.tolist()
    ([0.25, 0.5], [1, 0], [3])
    >>> line.slopes[:, 0].tolist()  # with respect to t
    [0.0, 4.0, 8.0]
    """
    ends = {name: checks.exact_doubles(name, value) for name, value in (("start", start), ("end", end))}
    if ends["end"].shape != ends["start"].shape:
        shapes = [list(each.shape) for each in ends.values()]
        raise ValueError(f"end must have the shape of start, {shapes[0]}, got {shapes[1]}")
    if not ends["start"].dim():
        raise ValueError("start must be [B, *input_shape] or [*input_shape], got a single number")
    checks.switches(slopes=slopes, progress=progress)
    threads = checks.threads(threads)
    network, points = _captured(model, ends["start"])
    network = network.at_one_time()
    starts, stops = (each.reshape(points, math.prod(network.input_shape)).numpy() for each in ends.values())
    stages = up_to(stages_of(network), len(network.layers))
    tracer = tracer_of(stages, [starts, stops], walks_on(device, network.device))
    with tqdm(total=points, unit="segment", disable=not progress) as bar:
        found = tracer.trace(
            starts,
            stops,
            maps=slopes,
            threads=threads,
            report=(lambda done: bar.update(done - bar.n)) if progress else None,
        )
        bar.update(points - bar.n)
    neurons = Neurons.of(stages)
    offsets, changed = _neurons(found.change_offsets, neurons.of_line[found.changes])
    if found.maps is not None and not np.isfinite(found.maps).all():
        raise UnsupportedModelError("the outputs of this model overflow float64 on these segments: pass slopes=False")
    return Trace(
        offsets=found.offsets,
        t=found.t,
        neuron_offsets=offsets,
        neurons=changed,
        maps=found.maps,
        layers=stages.layers,
        certificate=Certificate(found.filter, found.exact, found.zeros, DEFINITION),
        numbering=neurons,
    )


def _neurons(offsets: NDArray[np.int64], neurons: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The neurons of lines that change, each once at a breakpoint: of a maximum two lines change."""
    breakpoint_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    new = np.ones(len(neurons), dtype=bool)
    new[1:] = (neurons[1:] != neurons[:-1]) | (breakpoint_of[1:] != breakpoint_of[:-1])
    new &= neurons >= 0  # a line of no neuron changes with one that is of one
    return np.concatenate([[0], np.cumsum(np.bincount(breakpoint_of[new], minlength=len(offsets) - 1))]), neurons[new]


def _captured(model: nn.Module | torch.export.ExportedProgram | Network, points: Tensor) -> tuple[Network, int]:
    """The network, and how many points these are: 1 for a point without a batch dimension."""
    shapes = [points.shape[1:], points.shape] if points.dim() else [points.shape]  # of one point: a batch goes first
    if isinstance(model, Network):
        if model.input_shape not in [tuple(shape) for shape in shapes]:
            sizes = ", ".join(map(str, model.input_shape))
            raise ValueError(
                f"start must be [B, {sizes}] or [{sizes}], as the network was captured, got {list(points.shape)}"
            )
        network = capture_for_shape(model, model.input_shape)
        return network, 1 if len(network.input_shape) == points.dim() else len(points)
    reasons: list[ValueError | UnsupportedModelError] = []
    for shape in shapes:
        try:
            network = capture_for_shape(model, shape)
        except (ValueError, UnsupportedModelError) as error:
            reasons.append(error)
        else:
            return network, 1 if len(shape) == points.dim() else len(points)
    for reason in reasons:
        if isinstance(reason, UnsupportedModelError):
            raise reason
    raise ValueError(
        f"start must be [B, *input_shape] or [*input_shape], got {list(points.shape)}: {reasons[0]}"
    ) from reasons[0]


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The regions of ``B`` segments: ``N`` breakpoints, and ``N + B`` regions between them.

    Everything of all segments lies one after another. Segment ``b`` has the breakpoints
    ``t[offsets[b]:offsets[b + 1]]`` and the regions ``region_offsets[b]:region_offsets[b + 1]``, one more. A neuron is
    a number from 0 up, layer after layer. The arrays are read-only.

    Attributes:
        offsets: ``[B + 1]`` int64.
        t: ``[N]`` float64, in (0, 1), ascending on each segment: where neurons change. Which do and in which order is
            exact; the places are rounded, right to 1e-6, proven, and to 1e-10, by an estimate (usually to the last
            bits). Two may be equal, though the breakpoints are not the same.
        neuron_offsets: ``[N + 1]`` int64: ``neurons[neuron_offsets[i]:neuron_offsets[i + 1]]`` change at breakpoint i.
        neurons: int32: one for most breakpoints, several where they change at the very same point.
        maps: ``[N + B, K, 2]`` float64: output k is ``maps[r, k, 0] * t + maps[r, k, 1]`` on region r, rounded; None if
            they were not asked for. The K outputs are those of one point, flattened.
        layers: The names of the layers.
        certificate: How the decisions were taken.
        numbering: Which neuron is which.
    """

    offsets: NDArray[np.int64]
    t: Array
    neuron_offsets: NDArray[np.int64]
    neurons: NDArray[np.int32]
    maps: Array | None
    layers: tuple[str, ...]
    certificate: Certificate
    numbering: Neurons = field(repr=False)

    def __post_init__(self) -> None:
        for array in (self.offsets, self.t, self.neuron_offsets, self.neurons, self.maps):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_regions(self) -> NDArray[np.int64]:
        """``[B]`` int64: the regions of each segment."""
        return np.diff(self.offsets) + 1

    @property
    def definition(self) -> str:
        """What is counted, in a sentence."""
        return self.certificate.definition

    @cached_property
    def region_offsets(self) -> NDArray[np.int64]:
        """``[B + 1]`` int64: where each segment's regions begin."""
        return self.offsets + np.arange(len(self.offsets))

    @property
    def layer(self) -> NDArray[np.int16]:
        """The layer of each entry of :attr:`neurons`, as a place in :attr:`layers`."""
        return self.numbering.layer[self.neurons]

    @property
    def unit(self) -> NDArray[np.int64]:
        """The place of each entry of :attr:`neurons` in its layer."""
        return self.neurons - self.numbering.first[self.layer]

    @property
    def slopes(self) -> Array:
        """``[N + B, K]``: the derivative of the outputs by t on each region.

        Computed in float64. They are sums of the changes along the segment where the rounding of these is estimated to
        be below 1e-9 of the region's largest slope (each output in units of its weights' norm); else they come from the
        region's pattern alone, as :meth:`Partition.affine_maps` does it. So a region is not the worse for a steeper one
        before it.

        Raises:
            ValueError: They were not asked for.
        """
        return self._maps()[:, :, 0]

    @property
    def intercepts(self) -> Array:
        """``[N + B, K]``: what the outputs of each region would be at t = 0; as good as :attr:`slopes` are.

        Raises:
            ValueError: They were not asked for.
        """
        return self._maps()[:, :, 1]

    def _maps(self) -> Array:
        if self.maps is None:
            raise ValueError("this trace has no slopes: call trace(..., slopes=True)")
        return self.maps

    def neuron(self, number: int) -> Neuron:
        """The layer of a neuron, and its place there."""
        return self.numbering.named(number)

    def segment(self, b: int) -> tuple[Array, list[list[Neuron]]]:
        """The breakpoints of segment ``b``, and the neurons that change at each.

        Raises:
            ValueError: There is no such segment.
        """
        if not 0 <= b < len(self):
            raise ValueError(f"b must be from 0 to {len(self) - 1}, got {b}")
        begin, end = self.offsets[b], self.offsets[b + 1]
        bounds = self.neuron_offsets[begin : end + 1]
        changes = [
            [self.neuron(number) for number in self.neurons[low:high].tolist()]
            for low, high in pairwise(bounds.tolist())
        ]
        return self.t[begin:end], changes

    def __repr__(self) -> str:
        count, regions = len(self), int(self.region_offsets[-1])
        average = f", {regions / count:.4g} on average" if count > 1 else ""
        return "\n".join(
            [
                f"Trace of {count} segment{'s' * (count != 1)}: {regions} region{'s' * (regions != 1)}{average}",
                f"  {self.certificate}",
                f"  {self.definition}",
            ]
        )
