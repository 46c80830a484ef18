"""``count_in_shards``: the counts of more points than fit into memory, or by several processes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion._util.npz import Npz, require
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.processes import Ranks
from pylinregion.capturing.capture import capture
from pylinregion.capturing.tracing import EXAMPLE_ROWS
from pylinregion.counting.count import count_regions
from pylinregion.counting.counts import QUANTILE_99, Mean, RegionCounts
from pylinregion.graph.digest import digest_of, digest_of_network
from pylinregion.graph.network import Network
from pylinregion.sharding.store import Arrays, Shards


class Points(Protocol):
    """``B`` points that are read some at a time: a tensor, a (memory-mapped) NumPy array, whatever."""

    @property
    def shape(self) -> Any:
        """``[B, *input_shape]``."""

    def __getitem__(self, rows: slice) -> Any:
        """Some of them, as a tensor or an array."""


@dataclass(frozen=True, eq=False)
class ShardedCounts:
    """What :func:`count_in_shards` found around ``B`` points, shard by shard; only one is in memory at a time.

    Attributes:
        shards: The files.
        points: ``B``.
        layers: The names of the ``L`` layers.
        definition: What is counted, in a sentence.
        method: The method.
        uncounted: As in :class:`RegionCounts`.
    """

    shards: Shards
    points: int
    layers: tuple[str, ...]
    definition: str
    method: str
    uncounted: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[RegionCounts]:
        """The counts of one shard after the other, on the CPU, in the order of the points."""
        for number in range(self.shards.count):
            arrays = self.shards.read(number)
            ambiguous = torch.from_numpy(arrays["ambiguous"]) if "ambiguous" in arrays else None
            changes, regions = (torch.from_numpy(arrays[name]) for name in ("changes", "regions"))
            yield RegionCounts(changes, regions, ambiguous, self.layers, self.definition, self.method, self.uncounted)

    def mean(self, layer: str | None = None) -> Mean:
        """As :meth:`RegionCounts.mean`, of all points: sums of integers, so that shards do not matter."""
        if layer is not None and layer not in self.layers:
            raise ValueError(f"layer must be among {', '.join(map(repr, self.layers))}, got {layer!r}")
        total = squares = 0
        for counts in self:
            values = counts.total if layer is None else counts.changes[:, self.layers.index(layer)]
            total += int(values.sum())
            squares += int((values**2).sum())
        if not self.points:
            return Mean(math.nan, math.nan, math.nan)
        mean = total / self.points
        if self.points == 1:
            return Mean(mean, math.nan, math.nan)
        variance = (squares * self.points - total**2) / (self.points * (self.points - 1))
        reach = QUANTILE_99 * math.sqrt(variance / self.points)
        return Mean(mean, mean - reach, mean + reach)

    @plain_torch()
    def load(self) -> RegionCounts:
        """All counts in memory, on the CPU."""
        found = list(self)
        some = [counts.ambiguous for counts in found if counts.ambiguous is not None]
        return RegionCounts(
            torch.cat([counts.changes for counts in found]),
            torch.cat([counts.regions for counts in found]),
            torch.cat(some) if some else None,
            self.layers,
            self.definition,
            self.method,
            self.uncounted,
        )


@plain_torch()
def count_in_shards(
    model: nn.Module | torch.export.ExportedProgram | Network,
    points: Points,
    radius: float,
    folder: str | os.PathLike[str],
    *,
    shard_size: int = 10_000,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> ShardedCounts:
    """:func:`count_regions` for more points than fit into memory, or by several processes.

    Points are read, counted and written shard by shard. Every process of ``torch.distributed`` (``torchrun``), if that
    is initialised, calls this with the same arguments and does its share; the counts are the same for any number of
    processes that have as many threads each. A run that ended early is gone on with by the same call: shards that are
    there are kept.

    Args:
        model: As for :func:`count_regions`; its weights must be the same in all processes.
        points: ``[B, *input_shape]`` of the model's dtype, ``B`` at least 1: a tensor, a NumPy array
            (``numpy.load(path, mmap_mode="r")`` reads from the file), or whatever has a ``shape`` and gives some rows
            for a slice.
        radius: Above 0: one number.
        folder: Where the shards go: new or empty, or of the same job, and no other run's meanwhile (by ``flock``, which
            its file system must have). Processes on several machines need one that they share.
        shard_size: Points in a shard.
        device: Where the points are moved to; None: they stay on the CPU.
        progress: Show a bar of this process's shards.
        options: Other arguments of :func:`count_regions`.

    Returns:
        The counts, in every process.

    Raises:
        ValueError, TypeError: An argument is not as above, or the folder holds the shards of another job (another
            model, other points or options), or a damaged one.
        UnsupportedModelError: See :func:`count_regions`.
        PylinregionError: Another process ended before its shards were done (those that are done are kept), or another
            run works in the folder.
    """
    checks.positive_integer("shard_size", shard_size)
    checks.switches(progress=progress)
    ranks = Ranks.current()
    pieces = _Pieces(points, shard_size, device)
    if isinstance(radius, bool) or not isinstance(radius, (int, float)):
        raise TypeError(f"radius must be a number, got {type(radius).__name__}")
    example = pieces.read(0)[:EXAMPLE_ROWS]
    counting = _Counting(capture(model, example), pieces, radius, options)
    head = count_regions(counting.network, example[:0], radius, **options)  # all arguments are checked before any work
    job = counting.job(example.dtype)
    layout = _Layout(pieces.sizes, len(head.layers), head.ambiguous is not None)
    shards = Shards(folder, job, len(pieces.sizes), ranks, layout.take)
    shards.run(counting.make, counting.objection, progress)
    return ShardedCounts(shards, pieces.shape[0], head.layers, head.definition, head.method, head.uncounted)


class _Pieces:
    """The points, those of a shard at a time.

    Args:
        points: All of them.
        size: Points in a shard; in the last, what is left.
        device: Where they are moved to; None: they stay where they are.

    Attributes:
        shape: ``[B, *input_shape]``.
        size: As given.
        sizes: How many points each shard has.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, points: Points, size: int, device: torch.device | str | None) -> None:
        self.shape = [int(length) for length in points.shape]
        if not self.shape or self.shape[0] < 1:
            raise ValueError(f"points must be [B, *input_shape] with B at least 1, got {self.shape}")
        self.size, self.sizes = size, [min(size, self.shape[0] - begin) for begin in range(0, self.shape[0], size)]
        self._points, self._device = points, device

    def read(self, number: int) -> Tensor:
        """``[b, *input_shape]``: the points of a shard."""
        begin = number * self.size
        some = self._points[slice(begin, begin + self.sizes[number])]
        tensor = some if isinstance(some, Tensor) else torch.from_numpy(np.array(some))
        return tensor if self._device is None else tensor.to(self._device)


@dataclass(frozen=True)
class _Counting:
    """How shards are made.

    Attributes:
        network: The captured model.
        pieces: The points.
        radius, options: Of :func:`count_regions`.
    """

    network: Network
    pieces: _Pieces
    radius: float
    options: dict[str, Any]

    def job(self, dtype: torch.dtype) -> dict[str, Any]:
        """All that decides the counts but the points, of which every shard has a digest, and their shape and dtype."""
        return {
            "what": "count_regions",
            "network": digest_of_network(self.network),
            "points": self.pieces.shape,
            "dtype": str(dtype),
            "shard_size": self.pieces.size,
            "radius": float(self.radius),
            "options": {name: _named(value) for name, value in sorted(self.options.items())},
        }

    def make(self, number: int) -> Arrays:
        """The counts of a shard, and which points they are of."""
        x = self.pieces.read(number)
        counts = count_regions(self.network, x, self.radius, **self.options)
        tensors = {"changes": counts.changes, "regions": counts.regions, "ambiguous": counts.ambiguous}
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items() if tensor is not None}
        return arrays | {"points": np.array(digest_of(x))}

    def objection(self, number: int, arrays: Arrays) -> str | None:
        """Why a shard that is there cannot be used."""
        same = str(arrays["points"]) == digest_of(self.pieces.read(number))
        return None if same else "was made of other points"


def _named(value: Any) -> Any:
    """What stands for an option in the job."""
    if isinstance(value, (Tensor, np.ndarray)):
        return digest_of(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


@dataclass(frozen=True)
class _Layout:
    """What is in a shard.

    Attributes:
        sizes: How many points each has.
        layers: ``L``.
        estimated: Whether signs that rounding may have decided are counted too.
    """

    sizes: list[int]
    layers: int
    estimated: bool

    def take(self, number: int, archive: Npz) -> Arrays:
        """The arrays of a shard, checked."""
        points = self.sizes[number]
        shapes: dict[str, tuple[int, ...]] = {"changes": (points, self.layers), "regions": (points,)}
        if self.estimated:
            shapes["ambiguous"] = (points,)
        arrays = {name: archive.take(name, (np.int64,), shape) for name, shape in shapes.items()}
        for name, array in arrays.items():
            least = int(name == "regions")
            require((array >= least).all(), name, f"numbers from {least} up", array.min(initial=least))
        return arrays | {"points": np.array(archive.text("points"))}
