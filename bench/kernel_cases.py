"""The kernels beside what torch offers for the same work, for ``bench_kernels.py`` and ``main.py --only kernels``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from harness import Clock, calls_for, compared, medians, repeated
from torch import Tensor
from torch.nn import functional

from pylinregion.native.distinct_patterns import distinct_patterns
from pylinregion.native.label_changes import label_changes, label_words
from pylinregion.native.neuron_arguments import Patterns
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_changes, sign_changes_split, sign_words

OURS = "pylinregion"
BASELINES = {
    "sign_changes": ("torch relu_", "torch relu_, amax, amin"),
    "sign_changes_split": ("torch add, relu_, amax, amin",),
    "label_changes": ("torch compare, any, sum",),
    "distinct_patterns": ("torch.unique, point by point",),
    "PackedLinear": ("torch linear", "torch addmm, out="),
}
# "batch": about as many points as count_regions takes at a time, so that they stay in the cache; "memory": many more.
COPY_SHARE_GOAL = 0.7
_POINTS = {
    ("cpu", "MLP layer"): {"smoke": 2, "batch": 26, "memory": 4000},
    ("cpu", "conv layer"): {"smoke": 1, "batch": 2, "memory": 64},
    ("cuda", "MLP layer"): {"smoke": 2, "batch": 838, "memory": 8192},
    ("cuda", "conv layer"): {"smoke": 1, "batch": 12, "memory": 128},
}
_RELU = ScalarKink((0.0,), "relu")
_MLP_LAYER = (50, (200,))  # vertices of a point and neurons of a layer: the MLPs
_CONV_LAYER = (40, (16, 32, 32))  # PreAct-ResNet18 of width 16, its first layers
_COPIED_BYTES = {("cpu", False): 1 << 28, ("cuda", False): 1 << 30, ("cpu", True): 1 << 20, ("cuda", True): 1 << 20}
_UNIQUE_POINTS = 200  # at most: torch.unique takes them in a loop
_LINEAR_POINTS = 1000  # at most: products take long


@dataclass(frozen=True)
class Case:
    """One kernel on one input.

    Attributes:
        kernel: The kernel.
        work: On what.
        device, dtype, size: Where and how large.
        runs: By contender, the first is ours.
        check: Compares the results of all contenders; raises AssertionError.
        bytes_moved: What the kernel has to read and write; None where computing is the work.
    """

    kernel: str
    work: str
    device: str
    dtype: torch.dtype
    size: str
    runs: dict[str, Callable[[], Any]]
    check: Callable[[], None]
    bytes_moved: int | None = None

    @property
    def title(self) -> str:
        return f"{self.kernel}, {self.work}, {str(self.dtype).removeprefix('torch.')}, {self.size}"


def case_arguments(device: str, sizes: tuple[str, ...]) -> Iterator[tuple[str, str, str, torch.dtype, str]]:
    """All cases of a device: kernel, work, device, dtype, size."""
    floats = (torch.float32, torch.float64)
    for size in sizes:
        for work in ("MLP layer", "conv layer"):
            yield from (("sign_changes", work, device, dtype, size) for dtype in floats)
        yield from (("sign_changes_split", "MLP layer", device, dtype, size) for dtype in floats)
        yield "label_changes", "conv layer", device, torch.int64, size
        yield "distinct_patterns", "MLP layer", device, torch.int64, size
        if device == "cpu":
            for work in ("200 to 200", "784 to 200"):
                taken = [dtype for dtype in floats if PackedLinear.takes(dtype, torch.device(device))]
                yield from (("PackedLinear", work, device, dtype, size) for dtype in taken)


def case(kernel: str, work: str, device: str, dtype: torch.dtype, size: str) -> Case:
    """Build one of :func:`case_arguments`, and check that all contenders find the same."""
    make = {
        "sign_changes": _signs,
        "sign_changes_split": _split,
        "label_changes": _labels,
        "distinct_patterns": _distinct,
        "PackedLinear": _linear,
    }
    built = make[kernel](work, device, dtype, size)
    assert tuple(built.runs) == (OURS, *BASELINES[kernel])
    built.check()
    return built


def copy_bandwidth(device: str, clock: Clock, size: str = "memory") -> float:
    """Bytes a second that a copy of a large tensor reads and writes."""
    source = torch.zeros(_COPIED_BYTES[device, size == "smoke"], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    calls = 5
    seconds = medians({"copy": repeated(lambda: target.copy_(source), calls)}, 7, clock)["copy"] / calls
    return 2 * len(source) / seconds


def records(case: Case, clock: Clock, repeats: int, least_seconds: float, copied: float) -> list[dict[str, Any]]:
    """A case's kernel beside each baseline, with the bytes it moves a second and their share of a copy's.

    Args:
        case: The case.
        clock: The clock.
        repeats: Of all contenders in turn.
        least_seconds: How long a repetition of one contender takes at least: short ones are called many times.
        copied: Bytes a second that a copy moves.
    """
    calls = {name: calls_for(run, clock, least_seconds) for name, run in case.runs.items()}
    runs = {name: repeated(run, calls[name]) for name, run in case.runs.items()}
    seconds = {name: total / calls[name] for name, total in medians(runs, repeats, clock).items()}
    ours = seconds.pop(OURS)
    setting = {
        "kernel": case.kernel,
        "work": case.work,
        "dtype": str(case.dtype).removeprefix("torch."),
        "size": case.size,
        "device": case.device,
        "threads": torch.get_num_threads(),
    }
    rate = None if case.bytes_moved is None else case.bytes_moved / ours
    aimed = case.device == "cuda" and case.kernel == "sign_changes" and case.size == "memory"
    moved = {
        "bytes_moved": case.bytes_moved,
        "gigabytes_per_second": None if rate is None else rate / 1e9,
        "copy_gigabytes_per_second": copied / 1e9,
        "share_of_copy": rate / copied if rate is not None and case.size == "memory" else None,
        "share_goal": COPY_SHARE_GOAL if aimed else None,
    }
    return [{**compared(OURS, setting, name, ours, t, None).as_json(), **moved} for name, t in seconds.items()]


class _Counts:
    """Where the kernels write."""

    def __init__(self, points: int, vertices: int, words: int, device: str) -> None:
        self.changes = torch.zeros(points, dtype=torch.int64, device=device)
        self.nonfinite = torch.zeros(points, dtype=torch.uint8, device=device)
        self.words = torch.zeros(points, vertices, words, dtype=torch.int64, device=device)

    @property
    def into(self) -> tuple[Tensor, Tensor, Patterns]:
        return self.changes, self.nonfinite, Patterns(self.words)

    def fresh(self, run: Callable[[], Any]) -> Tensor:
        """What one run adds."""
        self.changes.zero_()
        run()
        return self.changes.clone()


def _sizes(work: str, device: str, size: str) -> tuple[int, int, tuple[int, ...]]:
    vertices, shape = _MLP_LAYER if work == "MLP layer" else _CONV_LAYER
    return _POINTS[device, work][size], vertices, shape


def _preactivations(points: int, vertices: int, shape: tuple[int, ...], device: str, dtype: torch.dtype) -> Tensor:
    """``[B * V, *shape]``: close together at the vertices of a point, so that few neurons change."""
    generator = torch.Generator(device).manual_seed(0)
    centre = torch.randn(points, 1, *shape, generator=generator, device=device, dtype=dtype)
    z = torch.randn(points, vertices, *shape, generator=generator, device=device, dtype=dtype)
    return z.mul_(0.01).add_(centre).flatten(0, 1)


def _torch_changes(z: Tensor, points: int) -> Tensor:
    """The count by a largest and a smallest value."""
    grouped = z.view(points, len(z) // points, -1)
    return ((grouped.amax(dim=1) > 0) & (grouped.amin(dim=1) <= 0)).sum(dim=1)


def _signs(work: str, device: str, dtype: torch.dtype, size: str) -> Case:
    """Pre-activations to counts, patterns and, in place, activations; doing it again finds the same signs."""
    points, vertices, shape = _sizes(work, device, size)
    z = _preactivations(points, vertices, shape, device, dtype)
    counts = _Counts(points, vertices, sign_words(z[0].numel()), device)
    own, other = z.clone(), z.clone()
    threads = torch.get_num_threads()

    def ours() -> None:
        sign_changes(own, vertices, _RELU, *counts.into, own, threads)

    def theirs() -> Tensor:
        torch.relu_(other)
        return _torch_changes(other, points)

    def check() -> None:
        own.copy_(z)
        assert torch.equal(counts.fresh(ours), _torch_changes(z, points))
        assert torch.equal(own, z.relu())
        other.copy_(z)
        assert torch.equal(theirs(), counts.changes)

    runs = {OURS: ours, "torch relu_": lambda: torch.relu_(other), "torch relu_, amax, amin": theirs}
    moved = 2 * z.numel() * z.itemsize + 8 * counts.words.numel()
    return Case("sign_changes", work, device, dtype, size, runs, check, moved)


def _split(work: str, device: str, dtype: torch.dtype, size: str) -> Case:
    """Points and directions to counts, patterns and activations at the vertices."""
    points, vertices, shape = _sizes(work, device, size)
    half = vertices // 2
    generator = torch.Generator(device).manual_seed(0)
    centre = torch.randn(points, *shape, generator=generator, device=device, dtype=dtype)
    directions = torch.randn(half, *shape, generator=generator, device=device, dtype=dtype)
    radius = torch.full((points,), 2.0**-6, dtype=torch.float64, device=device)  # its products are exact
    counts = _Counts(points, vertices, sign_words(centre[0].numel()), device)
    own = torch.empty(points * vertices, *shape, device=device, dtype=dtype)
    other = torch.empty_like(own)
    threads = torch.get_num_threads()

    def ours() -> None:
        sign_changes_split(centre, directions, radius, _RELU, *counts.into, own, threads)

    def theirs() -> Tensor:
        offset, sides = directions * 2.0**-6, other.unflatten(0, (points, 2, half))
        torch.add(centre.unsqueeze(1), offset, out=sides[:, 0])
        torch.sub(centre.unsqueeze(1), offset, out=sides[:, 1])
        torch.relu_(other)
        return _torch_changes(other, points)

    def check() -> None:
        assert torch.equal(counts.fresh(ours), theirs())
        assert torch.equal(own, other)

    moved = (centre.numel() + directions.numel() + own.numel()) * own.itemsize + 8 * counts.words.numel()
    runs = {OURS: ours, "torch add, relu_, amax, amin": theirs}
    return Case("sign_changes_split", work, device, dtype, size, runs, check, moved)


def _labels(work: str, device: str, dtype: torch.dtype, size: str) -> Case:
    """The winners of 2x2 max-pooling windows to counts and patterns."""
    points, vertices, shape = _sizes(work, device, size)
    z = _preactivations(points, vertices, shape, device, torch.float32)
    winners = functional.max_pool2d(z, 2, return_indices=True)[1]
    counts = _Counts(points, vertices, label_words(winners[0].numel()), device)
    threads = torch.get_num_threads()

    def ours() -> None:
        label_changes(winners, vertices, counts.changes, Patterns(counts.words), threads)

    def theirs() -> Tensor:
        grouped = winners.view(points, vertices, -1)
        return (grouped != grouped[:, :1]).any(dim=1).sum(dim=1)

    def check() -> None:
        assert torch.equal(counts.fresh(ours), theirs())

    moved = winners.numel() * winners.itemsize + 8 * counts.words.numel()
    runs = {OURS: ours, "torch compare, any, sum": theirs}
    return Case("label_changes", work, device, dtype, size, runs, check, moved)


def _distinct(work: str, device: str, dtype: torch.dtype, size: str) -> Case:
    """The patterns of three layers of 200 neurons to the number of different ones around each point."""
    points, vertices, _ = _sizes(work, device, size)
    points = min(points, _UNIQUE_POINTS)
    generator = torch.Generator(device).manual_seed(0)
    few = torch.randint(0, 1 << 62, (points, 8, 12), generator=generator, device=device)
    which = torch.randint(0, 8, (points, vertices), generator=generator, device=device)
    words = few.gather(1, which.unsqueeze(2).expand(points, vertices, 12)).contiguous()
    threads = torch.get_num_threads()

    def ours() -> Tensor:
        return distinct_patterns(words, threads)

    def theirs() -> Tensor:
        return torch.tensor([len(torch.unique(rows, dim=0)) for rows in words], device=device)

    def check() -> None:
        assert torch.equal(ours(), theirs())

    runs = {OURS: ours, "torch.unique, point by point": theirs}
    return Case("distinct_patterns", work, device, dtype, size, runs, check, 8 * words.numel())


def _linear(work: str, device: str, dtype: torch.dtype, size: str) -> Case:
    """A linear layer on a batch of vertices."""
    inputs, outputs = (int(number) for number in work.split(" to "))
    points, vertices, _ = _sizes("MLP layer", device, size)
    points = min(points, _LINEAR_POINTS)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(points * vertices, inputs, generator=generator, dtype=dtype)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=dtype)
    bias = torch.randn(outputs, generator=generator, dtype=dtype)
    packed = PackedLinear(weight, bias)
    own, other = torch.empty(len(x), outputs, dtype=dtype), torch.empty(len(x), outputs, dtype=dtype)
    threads = torch.get_num_threads()

    def ours() -> Tensor:
        return packed(x, own, threads)

    def theirs() -> Tensor:
        return functional.linear(x, weight, bias)

    def in_place() -> Tensor:
        return torch.addmm(bias, x, weight.T, out=other)

    def check() -> None:
        # Sums of products in different orders: each differs from the exact one by at most inputs roundings of the sum
        # of the products' sizes.
        bound = inputs * torch.finfo(dtype).eps * functional.linear(x.abs(), weight.abs(), bias.abs())
        for run in (theirs, in_place):
            assert bool(((ours() - run()).abs() <= 2 * bound).all())

    runs = {OURS: ours, "torch linear": theirs, "torch addmm, out=": in_place}
    return Case("PackedLinear", work, device, dtype, size, runs, check)
