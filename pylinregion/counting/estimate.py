"""What an exact count on slices would take: from pilots, slices of a few points that grow while they are cheap."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pylinregion._util import memory
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.neurons import up_to
from pylinregion.exact.slice_systems import Slices
from pylinregion.geometry.frames import random_frame
from pylinregion.graph.network import Network
from pylinregion.lowering.lower import stages_of

_POINTS = 3  # that are tried one by one
_TOGETHER = 64  # if that is cheap
_FIRST = 2.0**-7  # of the radius, the first pilot
_SECONDS = 2.0  # that a pilot may be expected to take
_REGIONS = 8  # of a pilot from which growth is told
_OF_A_REGION = 1e-6  # seconds that the core takes
_CORNERS = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])


@dataclass(frozen=True)
class Estimate:
    """What ``count_regions(method="slice")`` would take, about: orders of magnitude, extrapolated from pilots.

    Attributes:
        points: How many points there are. A few of them were tried.
        neurons: Of the network.
        unsettled: Of these, on one point's slice: those that are not on one piece of their activation all over it, and
            those of which the bounds do not tell.
        regions: Of one point's slice.
        bytes: What the unsettled neurons of one slice take, which is the most of what is held at a time.
        budget: What they may take.
        seconds: Of all points, on one thread of this machine.
        share: The largest share of the radius that was counted; with 1 nothing is extrapolated but from point to point.
    """

    points: int
    neurons: int
    unsettled: float
    regions: float
    bytes: int
    budget: int
    seconds: float
    share: float

    @property
    def fitting(self) -> float:
        """The share of the radius of which a slice fits the budget, about; 1 if the whole does."""
        return min(1.0, 0.9 * math.sqrt(self.budget / self.bytes))

    def __str__(self) -> str:
        tried = "" if self.share == 1 else f" (from {self.share:.2g} of the radius)"
        text = (
            f"exact count on a point's slice{tried}: about {_rounded(self.unsettled)} of {self.neurons} neurons "
            f"unsettled, {_rounded(self.regions)} regions, {_in_bytes(self.bytes)}; "
            f"{_in_seconds(self.seconds)} for {self.points} point{'s' * (self.points != 1)} on one thread"
        )
        if self.fitting == 1:
            return text
        return (
            f"{text}\nthat is more than the memory budget of {_in_bytes(self.budget)}, so it is counted in tiles, "
            f"which take longer; a slice of {_rounded(self.fitting)} of the radius would fit"
        )


@dataclass(frozen=True)
class _Pilot:
    """What was counted at a share of the radius, a point; ``first``: of those that were counted together."""

    first: int
    share: float
    unsettled: float
    regions: float
    seconds: float


def estimate(network: Network, x: Tensor, radii: Tensor, budget: int | None = None) -> Estimate:
    """Try slices around some of the points.

    Args:
        network: One that exact methods cover.
        x: ``[B, *input_shape]``, at least one point.
        radii: ``[B]`` float64.
        budget: Bytes; None: the memory budget.

    Raises:
        UnsupportedModelError: Weights that exact methods do not cover.
    """
    stages = up_to(stages_of(network), len(network.layers))
    around = _Slices(ManySlices(stages), network, x, radii)
    room = memory.budget(budget)
    found = [list(_pilots(around, number, room)) for number in _spread(len(x), _POINTS)]
    share = min(pilots[-1].share for pilots in found)
    if share == 1 and sum(pilots[-1].seconds for pilots in found) < _SECONDS / 4:  # more is counted together
        found = [[around.counted(_spread(len(x), _TOGETHER), 1.0)]]
    at_whole = [_at_whole_radius(pilots, stages.lines) for pilots in found]
    unsettled, regions, seconds = (float(np.mean(each)) for each in zip(*at_whole, strict=True))
    return Estimate(
        points=len(x),
        neurons=sum(layer.units for layer in network.layers),
        unsettled=unsettled,
        regions=regions,
        bytes=max(
            around.bytes_of(math.ceil(each[0]), pilots[-1]) for each, pilots in zip(at_whole, found, strict=True)
        ),
        budget=room,
        seconds=seconds * len(x),
        share=share,
    )


def _spread(points: int, most: int) -> list[int]:
    """Some of the points, from the first to the last."""
    return sorted({int(number) for number in np.linspace(0, points - 1, min(most, points))})


class _Slices:
    """Those of ``count_regions(method="slice")``, counted at a share of their radius."""

    def __init__(self, many: ManySlices, network: Network, x: Tensor, radii: Tensor) -> None:
        self.many, self._x, self._radii = many, x.detach().flatten(1), radii.cpu()
        self._u, self._v = random_frame(network.input_shape, 2).reshape(2, 1, -1).numpy()

    def counted(self, points: list[int], share: float) -> _Pilot:
        """Of a point, the mean over some that are counted together."""
        slices = self._slices(points, share)
        begin = time.perf_counter()
        found = self.many.count(slices)
        seconds = (time.perf_counter() - begin) / len(points)
        regions = float(found.regions[:, -1].mean()) if found.regions.shape[1] else 1.0
        return _Pilot(points[0], share, float(found.rows.mean()), regions, seconds)

    def bytes_of(self, unsettled: int, pilot: _Pilot) -> int:
        """What a fold takes that leaves so many neurons unsettled, by where a pilot leaves them."""
        return self.many.bytes_of(unsettled, self._slices([pilot.first], pilot.share))

    def _slices(self, points: list[int], share: float) -> Slices:
        centres = self._x[points].to("cpu", torch.float64).contiguous().numpy()
        corners = share * self._radii[points].numpy()[:, None, None] * _CORNERS
        return Slices(self._u, self._v, centres, corners)


def _pilots(around: _Slices, point: int, room: int) -> Iterator[_Pilot]:
    """Slices around a point, from a small one on, while the next is likely to be cheap and to fit."""
    share = _FIRST
    around.counted([point], share)  # what a first call makes ready is not timed
    while True:
        pilot = around.counted([point], share)
        yield pilot
        larger = min(1.0, 4 * share)
        unsettled, _, seconds = _grown(pilot, None, larger)
        if share == 1 or seconds > _SECONDS or around.bytes_of(math.ceil(unsettled), pilot) > room:
            return
        share = larger


def _grown(last: _Pilot, before: _Pilot | None, share: float) -> tuple[float, float, float]:
    """Unsettled neurons, regions and seconds at a larger share of the radius.

    Neurons that the slice cuts grow with its width, regions with a power of it between that and its area; the fold
    takes as many passes as there are unsettled neurons, and three.
    """
    times = share / last.share
    power = 1.5
    if before is not None and before.regions >= _REGIONS:
        power = math.log(last.regions / before.regions) / math.log(last.share / before.share)
    regions = last.regions * math.pow(times, min(max(power, 1.0), 2.0))
    unsettled = last.unsettled * times
    seconds = last.seconds * (3 + unsettled) / (3 + last.unsettled)
    return unsettled, regions, seconds + (regions - last.regions) * _OF_A_REGION


def _at_whole_radius(pilots: list[_Pilot], lines: int) -> tuple[float, float, float]:
    """Unsettled neurons, regions and seconds."""
    before = pilots[-2] if len(pilots) > 1 else None
    unsettled, regions, seconds = _grown(pilots[-1], before, 1.0)
    return min(unsettled, lines), regions, seconds


def _rounded(number: float) -> str:
    """Two digits: it is an estimate."""
    if number < 100:
        return f"{number:.2g}"
    digits = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{round(number / digits) * digits:.0f}"


def _in_bytes(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{_rounded(number)} {unit}"


def _in_seconds(number: float) -> str:
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if number >= size:
            return f"{_rounded(number / size)} {unit}"
    return f"{_rounded(1000 * number)} ms"
