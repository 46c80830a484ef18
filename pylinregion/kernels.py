"""The compiled kernels, and the only module that knows them.

Every function takes torch tensors, passes their addresses to ``_C`` and returns when the work is done (CPU) or
queued on the current stream (CUDA). ``pylinregion.reference`` has the NumPy twin of each.

Shapes: ``B`` points, ``V`` vertices a point, ``N`` neurons of a kink, ``W`` 64-bit words of a pattern. Pre-activations
come as ``[B * V, ...]`` with the vertices of a point next to each other, dense, in any layout in which a vertex is one
block of memory (contiguous or channels_last).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

try:
    from pylinregion import _C
except ImportError as error:
    raise ImportError(
        f"the compiled extension of pylinregion cannot be imported from {Path(__file__).parent}: {error}. If that is a "
        "checkout, install it in place (pip install -e .), or run Python in another folder after pip install ."
    ) from error

__all__ = [
    "DenseChain",
    "MeshOfParts",
    "PackedLinear",
    "Patterns",
    "ScalarKink",
    "SliceProblem",
    "TraceProblem",
    "count_chain",
    "cuda_architectures",
    "cuda_built",
    "distinct_patterns",
    "dtype_code",
    "is_row_dense",
    "label_changes",
    "label_words",
    "most_folds",
    "row_dense",
    "sign_changes",
    "sign_changes_split",
    "sign_words",
    "simd",
    "simd_sets",
    "use_simd",
]

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_LABELS = {torch.uint8: 0, torch.bool: 0, torch.int64: 1}
_ACTIVATIONS = {"none": 0, "relu": 1, "leaky_relu": 2, "clamp": 3}

DenseChain = _C.DenseChain  # see pylinregion.displacement
MeshOfParts = _C.MeshOfParts  # see pylinregion.engine
SliceProblem = _C.SliceProblem  # see pylinregion.engine
TraceProblem = _C.TraceProblem  # see pylinregion.tracer
cuda_built: bool = _C.cuda_built
cuda_architectures: str = _C.cuda_architectures


@dataclass(frozen=True)
class ScalarKink:
    """An elementwise kink with one or two scalar breakpoints.

    A neuron is on piece ``k`` if ``k`` breakpoints lie strictly below its pre-activation, so at a breakpoint it is on
    the lower piece: a ReLU at exactly 0 is off.

    Attributes:
        breakpoints: One or two numbers, ascending, exact in the dtype of the data.
        activation: What to write besides counting: ``"none"`` (nothing), ``"relu"``, ``"leaky_relu"`` with ``slope``,
            ``"clamp"`` to ``[low, high]``. For 16-bit floats only ``"none"`` and ``"relu"``.
        slope, low, high: Parameters of the activation.
    """

    breakpoints: tuple[float, ...] = (0.0,)
    activation: Literal["none", "relu", "leaky_relu", "clamp"] = "none"
    slope: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if len(self.breakpoints) not in (1, 2) or list(self.breakpoints) != sorted(self.breakpoints):
            raise ValueError(f"breakpoints must be one or two ascending numbers, got {self.breakpoints}")

    @property
    def _arguments(self) -> tuple[int, int, float, float, float, float, float]:
        first, last = self.breakpoints[0], self.breakpoints[-1]
        code = _ACTIVATIONS[self.activation]
        return (code, len(self.breakpoints), first, last, self.slope, self.low, self.high)


@dataclass(frozen=True)
class Patterns:
    """Where a kernel writes its neurons' part of the patterns.

    Attributes:
        words: ``[B, V, W]`` int64, contiguous: the bits of all layers of a vertex side by side.
        offset: The first word of this layer.
    """

    words: Tensor
    offset: int = 0


def sign_words(neurons: int, breakpoints: int = 1) -> int:
    """64-bit words that :func:`sign_changes` writes for one vertex."""
    return breakpoints * ((neurons + 63) // 64)


def label_words(neurons: int) -> int:
    """64-bit words that :func:`label_changes` writes for one vertex."""
    return (neurons + 1) // 2


def is_row_dense(z: Tensor) -> bool:
    """Whether each ``z[i]`` is one block of memory, the blocks follow each other, and all have the same order."""
    if z.is_contiguous():
        return True
    if z.dim() == 4:
        return z.is_contiguous(memory_format=torch.channels_last)
    return z.dim() == 5 and z.is_contiguous(memory_format=torch.channels_last_3d)


def row_dense(z: Tensor) -> Tensor:
    """``z``, or a contiguous copy where its layout is none that the kernels take."""
    return z if is_row_dense(z) else z.contiguous()


def sign_changes(
    z: Tensor,
    vertices: int,
    kink: ScalarKink,
    changes: Tensor,
    nonfinite: Tensor,
    patterns: Patterns | None = None,
    out: Tensor | None = None,
    threads: int = 1,
) -> None:
    """Count the neurons whose piece differs among a point's vertices, and apply the activation, in one pass.

    Args:
        z: ``[B * V, ...]`` float32, float64, bfloat16 or float16, row dense (see the module).
        vertices: ``V``.
        kink: Breakpoints and activation.
        changes: ``[B]`` int64, any stride; the counts are added to it.
        nonfinite: ``[B]`` uint8, contiguous; set to 1 where a pre-activation is NaN or infinite.
        patterns: Where to write the pieces, ``sign_words(N, breakpoints)`` words a vertex, or None.
        out: Like ``z``, same layout, may be ``z`` itself: the activations. None writes none.
        threads: CPU threads.

    Raises:
        ValueError: An argument is not as above.
    """
    points, neurons = _points_and_neurons("z", z, vertices)
    _check_activation(kink, z.dtype, out)
    if out is not None and (out.shape != z.shape or out.stride() != z.stride() or out.dtype != z.dtype):
        raise ValueError(f"out must be like z, got shape {list(out.shape)}, strides {out.stride()}, {out.dtype}")
    _launch_signs(
        z, (z.data_ptr(), 0, 0, 0), points, vertices, neurons, kink, changes, nonfinite, patterns, out, threads
    )


def sign_changes_split(
    centre: Tensor,
    directions: Tensor,
    radius: Tensor,
    kink: ScalarKink,
    changes: Tensor,
    nonfinite: Tensor,
    patterns: Patterns | None = None,
    out: Tensor | None = None,
    threads: int = 1,
) -> None:
    """:func:`sign_changes` at ``z[b, p] = centre[b] + radius[b] * directions[p]`` and ``z[b, P + p]`` with minus.

    The pre-activations are never stored.

    Args:
        centre: ``[B, ...]`` float32 or float64, row dense.
        directions: ``[P, ...]`` like ``centre``, in the same layout.
        radius: ``[B]`` float64, on the device of ``centre``; rounded to its dtype before it is used.
        kink, changes, nonfinite, patterns, threads: As for :func:`sign_changes`; ``V`` is ``2 P``.
        out: ``[B * 2P, ...]`` in the layout of ``centre``, or None.

    Raises:
        ValueError: An argument is not as above.
    """
    vertices = 2 * directions.shape[0]
    points, neurons = _points_and_neurons("centre", centre, 1)
    if centre.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"centre must be float32 or float64, got {centre.dtype}")
    same = directions.shape[1:] == centre.shape[1:] and directions.dtype == centre.dtype and is_row_dense(directions)
    if not same or directions.stride()[1:] != centre.stride()[1:]:
        raise ValueError(
            f"directions must be like centre ({list(centre.shape)[1:]}, {centre.dtype}, same layout), "
            f"got {list(directions.shape)[1:]}, {directions.dtype}"
        )
    if radius.shape != (points,) or radius.dtype != torch.float64 or not radius.is_contiguous():
        raise ValueError(f"radius must be contiguous [{points}] float64, got {list(radius.shape)} {radius.dtype}")
    _check_activation(kink, centre.dtype, out)
    if out is not None and (
        out.shape != (points * vertices, *centre.shape[1:])
        or out.stride()[1:] != centre.stride()[1:]
        or out.dtype != centre.dtype
        or not is_row_dense(out)
    ):
        raise ValueError(f"out must be [{points * vertices}, ...] in the layout of centre, got {list(out.shape)}")
    addresses = (0, centre.data_ptr(), directions.data_ptr(), radius.data_ptr())
    _launch_signs(centre, addresses, points, vertices, neurons, kink, changes, nonfinite, patterns, out, threads)


def label_changes(
    labels: Tensor, vertices: int, changes: Tensor, patterns: Patterns | None = None, threads: int = 1
) -> None:
    """Count the neurons whose label (a max-pool winner, a truth value) differs among a point's vertices.

    Args:
        labels: ``[B * V, ...]`` int64 (within 32 bits), uint8 or bool, row dense.
        vertices, changes, threads: As for :func:`sign_changes`.
        patterns: Where to write the labels, ``label_words(N)`` words a vertex, or None.

    Raises:
        ValueError: An argument is not as above.
    """
    points, neurons = _points_and_neurons("labels", labels, vertices)
    if labels.dtype not in _LABELS:
        raise ValueError(f"labels must be int64, uint8 or bool, got {labels.dtype}")
    address, row_words = _pattern_address(patterns, points, vertices, label_words(neurons))
    head = (_LABELS[labels.dtype], labels.data_ptr(), points, vertices, neurons, address, row_words)
    tail = (changes.data_ptr(), _changes_stride(changes, points))
    if labels.is_cuda:
        with torch.cuda.device(labels.device):
            _cuda("label_changes_cuda")(*head, *tail, torch.cuda.current_stream().cuda_stream)
    else:
        _C.label_changes_cpu(*head, *tail, threads)


def distinct_patterns(words: Tensor, threads: int = 1, *, weak_hash: bool = False) -> Tensor:
    """How many different rows each point has.

    Rows are compared by a 128-bit hash; rows of equal hash are compared bit by bit, so the answer is exact.

    Args:
        words: ``[B, V, W]`` int64, contiguous.
        threads: CPU threads.
        weak_hash: Give all rows one hash (a test of the comparison by bits).

    Returns:
        ``[B]`` int64 on the device of ``words``.

    Raises:
        ValueError: ``words`` is not as above.
    """
    if words.dim() != 3 or words.dtype != torch.int64 or not words.is_contiguous():
        raise ValueError(f"words must be contiguous [B, V, W] int64, got {list(words.shape)} {words.dtype}")
    points, vertices, n_words = words.shape
    distinct = torch.zeros(points, dtype=torch.int64, device=words.device)
    if points == 0:
        return distinct
    arguments = (words.data_ptr(), points, vertices, n_words, distinct.data_ptr(), weak_hash)
    if words.is_cuda:
        hashes = torch.empty(2 * points * vertices, dtype=torch.int64, device=words.device)
        with torch.cuda.device(words.device):
            stream = torch.cuda.current_stream().cuda_stream
            _cuda("distinct_patterns_cuda")(*arguments, hashes.data_ptr(), stream)
    else:
        _C.distinct_patterns_cpu(*arguments, threads)
    return distinct


def count_chain(chain: Any, arguments: tuple[Any, ...], device: torch.device, threads: int = 1) -> None:
    """Count a chain of dense layers around points.

    Args:
        chain: A :data:`DenseChain`, all of whose tensors are on ``device``.
        arguments: Those of ``DenseChain.count_cpu`` but the last, on ``device`` too.
        device: The CPU or a CUDA device.
        threads: CPU threads.

    Raises:
        RuntimeError: ``device`` is one that this build cannot count on.
    """
    if device.type == "cpu":
        chain.count_cpu(*arguments, threads)
        return
    count = _cuda("count_cuda", chain)
    with torch.cuda.device(device):
        scratch = torch.empty(chain.scratch_cuda(arguments[0]), dtype=torch.uint8, device=device)
        count(*arguments, scratch.data_ptr(), torch.cuda.current_stream().cuda_stream)


def dtype_code(dtype: torch.dtype) -> int:
    """The number of a dtype in ``_C``."""
    return _DTYPES[dtype]


class PackedLinear:
    """A linear layer ``y = x W^T + b`` with its weights packed for the CPU's vectors.

    For batches that fit the cache it is about twice as fast as a BLAS that does not use the widest vectors. Sums run
    over the inputs in order, with fused multiply-adds.

    Args:
        weight: ``[out, in]`` float32 or float64 on the CPU, ``in`` and ``out`` at least 1.
        bias: ``[out]`` like ``weight``, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self._code = _DTYPES[weight.dtype]
        size = _C.packed_size(self._code, self.in_features, self.out_features)
        self._packed = torch.empty(size, dtype=weight.dtype, device=weight.device)
        weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
        _C.pack_linear(
            self._code,
            weight.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            self.in_features,
            self.out_features,
            self._packed.data_ptr(),
        )

    @staticmethod
    def takes(dtype: torch.dtype, device: torch.device) -> bool:
        """Whether this machine has the kernel for tensors of that dtype and device."""
        return dtype in (torch.float32, torch.float64) and device.type == "cpu" and _C.simd() != "portable"

    def __call__(self, x: Tensor, out: Tensor | None = None, threads: int = 1) -> Tensor:
        """Apply the layer.

        Args:
            x: ``[..., in]`` of the weights' dtype, any strides.
            out: ``[rows, out]`` contiguous memory for the result, not overlapping ``x``; None allocates it.
            threads: CPU threads.

        Returns:
            ``[..., out]``.

        Raises:
            ValueError: ``x`` does not fit.
        """
        if x.dim() < 1 or x.shape[-1] != self.in_features or x.dtype != self.dtype or x.is_cuda:
            raise ValueError(
                f"x must be [..., {self.in_features}] {self.dtype} on the CPU, got {list(x.shape)} {x.dtype} {x.device}"
            )
        x = x.contiguous()
        rows = x.numel() // self.in_features
        if out is None:
            out = torch.empty(rows, self.out_features, dtype=self.dtype, device=x.device)
        elif out.shape != (rows, self.out_features) or out.dtype != self.dtype or not out.is_contiguous():
            raise ValueError(
                f"out must be contiguous [{rows}, {self.out_features}] {self.dtype}, got {list(out.shape)}"
            )
        _C.linear_cpu(
            self._code,
            x.data_ptr(),
            rows,
            self.in_features,
            self.out_features,
            self._packed.data_ptr(),
            out.data_ptr(),
            threads,
        )
        return out if x.dim() == 2 else out.view(*x.shape[:-1], self.out_features)


most_folds: int = _C.most_folds  # of the slice engine, one below the other


def simd() -> str:
    """The instruction set of the CPU kernels: ``"avx512"``, ``"avx2"``, ``"neon"`` or ``"portable"``."""
    return _C.simd()


def simd_sets() -> list[str]:
    """Those that this machine has, the best first."""
    return [name for name in ("avx512", "avx2", "neon", "portable") if _C.has_simd(name)]


@contextmanager
def use_simd(name: str) -> Iterator[None]:
    """Use a lesser instruction set for a while.

    Raises:
        ValueError: This machine has none of that name.
    """
    before = _C.simd()
    _C.set_simd(name)
    try:
        yield
    finally:
        _C.set_simd(before)


def _points_and_neurons(name: str, z: Tensor, vertices: int) -> tuple[int, int]:
    if z.dim() < 1 or vertices < 1 or z.shape[0] % vertices:
        raise ValueError(f"{name} must be [B * {vertices}, ...], got {list(z.shape)}")
    if not is_row_dense(z):
        raise ValueError(f"{name} must be contiguous or channels_last, got strides {z.stride()}")
    if z.dtype not in _DTYPES and z.dtype not in _LABELS:
        raise ValueError(f"{name} must be a floating point tensor, got {z.dtype}")
    return z.shape[0] // vertices, math.prod(z.shape[1:])


def _check_activation(kink: ScalarKink, dtype: torch.dtype, out: Tensor | None) -> None:
    if out is not None and dtype.itemsize == 2 and kink.activation not in ("none", "relu"):
        raise ValueError(f"activation {kink.activation!r} is not offered for {dtype}; pass out=None and apply it")


def _changes_stride(changes: Tensor, points: int) -> int:
    if changes.shape != (points,) or changes.dtype != torch.int64:
        raise ValueError(f"changes must be [{points}] int64, got {list(changes.shape)} {changes.dtype}")
    return changes.stride(0)


def _pattern_address(patterns: Patterns | None, points: int, vertices: int, needed: int) -> tuple[int, int]:
    if patterns is None:
        return 0, 0
    words = patterns.words
    if words.dtype != torch.int64 or not words.is_contiguous() or words.dim() != 3:
        raise ValueError(f"patterns.words must be contiguous [B, V, W] int64, got {list(words.shape)} {words.dtype}")
    if tuple(words.shape[:2]) != (points, vertices) or not 0 <= patterns.offset <= words.shape[2] - needed:
        raise ValueError(
            f"patterns must be [{points}, {vertices}, W] with {needed} words at offset {patterns.offset}, "
            f"got {list(words.shape)}"
        )
    return words.data_ptr() + 8 * patterns.offset, words.shape[2]


def _launch_signs(
    z: Tensor,
    addresses: tuple[int, int, int, int],
    points: int,
    vertices: int,
    neurons: int,
    kink: ScalarKink,
    changes: Tensor,
    nonfinite: Tensor,
    patterns: Patterns | None,
    out: Tensor | None,
    threads: int,
) -> None:
    if z.dtype not in _DTYPES:
        raise ValueError(f"pre-activations must be float32, float64, bfloat16 or float16, got {z.dtype}")
    if nonfinite.shape != (points,) or nonfinite.dtype != torch.uint8 or not nonfinite.is_contiguous():
        raise ValueError(f"nonfinite must be contiguous [{points}] uint8, got {list(nonfinite.shape)}")
    address, row_words = _pattern_address(patterns, points, vertices, sign_words(neurons, len(kink.breakpoints)))
    arguments = (
        _DTYPES[z.dtype],
        *addresses,
        points,
        vertices,
        neurons,
        *kink._arguments,
        0 if out is None else out.data_ptr(),
        address,
        row_words,
        changes.data_ptr(),
        _changes_stride(changes, points),
        nonfinite.data_ptr(),
    )
    if z.is_cuda:
        with torch.cuda.device(z.device):  # launch on the tensors' device and on torch's stream
            _cuda("sign_changes_cuda")(*arguments, torch.cuda.current_stream().cuda_stream)
    else:
        _C.sign_changes_cpu(*arguments, threads)


def _cuda(name: str, owner: Any = _C) -> Any:
    if not cuda_built:
        raise RuntimeError(
            "pylinregion was built without CUDA, so it cannot count on a GPU: reinstall it from its source folder with "
            "a CUDA toolchain (nvcc): `PYLINREGION_CUDA=1 pip install .`, or move model and x to the CPU"
        )
    return getattr(owner, name)
