"""The compiled kernels, and the only module that knows them.

Every function takes torch tensors, passes their addresses to ``_C`` and returns when the work is done (CPU) or
queued on the current stream (CUDA). :func:`_address` is the only way there: it lets no tensor pass that is on another
device than the call, of another dtype or size, or has no memory. ``pylinregion.reference`` has the NumPy twin of each.

Shapes: ``B`` points, ``V`` vertices a point, ``N`` neurons of a kink, ``W`` 64-bit words of a pattern. Pre-activations
come as ``[B * V, ...]`` with the vertices of a point next to each other, dense, in any layout in which a vertex is one
block of memory (contiguous or channels_last).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

try:
    from pylinregion.native import _C
except ImportError as error:
    raise ImportError(
        f"the compiled extension of pylinregion cannot be imported from {Path(__file__).parent}: {error}. If that is a "
        "checkout, install it in place (pip install -e .), or run Python in another folder after pip install ."
    ) from error

__all__ = [
    "ChainCounts",
    "ChainLayer",
    "ChainPoints",
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
    "slice_points",
    "use_simd",
]

_CPU = torch.device("cpu")
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_LABELS = {torch.uint8: 0, torch.bool: 0, torch.int64: 1}
_ACTIVATIONS = {"none": 0, "relu": 1, "leaky_relu": 2, "clamp": 3}

MeshOfParts = _C.MeshOfParts  # see pylinregion.exact.slice_engine
SliceProblem = _C.SliceProblem  # see pylinregion.exact.slice_engine
TraceProblem = _C.TraceProblem  # see pylinregion.exact.segment_engine
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


def slice_points(**network: Any) -> _C.SlicePoints:
    """The signs of lines at points of a slice, in integers: see :mod:`pylinregion.exact.signs`."""
    return _C.SlicePoints(**network)


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
    addresses = (_address("z", z, z.device, *_DTYPES), 0, 0, 0)
    _launch_signs(z, addresses, points, vertices, neurons, kink, changes, nonfinite, patterns, out, threads)


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
    device = centre.device
    addresses = (
        0,
        _address("centre", centre, device, centre.dtype),
        _address("directions", directions, device, centre.dtype),
        _address("radius", radius, device, torch.float64),
    )
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
    address, row_words = _pattern_address(patterns, points, vertices, label_words(neurons), labels.device)
    head = (_LABELS[labels.dtype], _address("labels", labels, labels.device, *_LABELS), points, vertices, neurons)
    tail = (address, row_words, *_changes_address(changes, points, labels.device))
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
    distinct = torch.zeros(points, dtype=torch.int64, device=_device("words", words))
    if points == 0:
        return distinct
    address = _address("words", words, words.device, torch.int64)
    arguments = (address, points, vertices, n_words, distinct.data_ptr(), weak_hash)
    if words.is_cuda:
        hashes = torch.empty(2 * points * vertices, dtype=torch.int64, device=words.device)
        with torch.cuda.device(words.device):
            stream = torch.cuda.current_stream().cuda_stream
            _cuda("distinct_patterns_cuda")(*arguments, hashes.data_ptr(), stream)
    else:
        _C.distinct_patterns_cpu(*arguments, threads)
    return distinct


@dataclass(frozen=True)
class ChainLayer:
    """An affine map and the kinks on it, as ``csrc/displacement/chain.h`` takes them.

    Attributes:
        inputs, neurons: The sizes of the map.
        weight: ``[neurons, inputs]`` in the dtype of the displacements, None in the first layer of a split.
        exact: The same in float64.
        bias_size, row_norm: ``[neurons]`` float64: absolute values of the biases, and bounds of the rows' norms.
        slope: ``[neurons]`` float64: what a neuron is multiplied by below 0; None: by 0.
        column_square: ``[inputs]`` float64: bounds of the squares of the columns' norms.
        frobenius, spectral, bias_norm, steepest: Bounds of these norms, of the slopes and 1.
    """

    inputs: int
    neurons: int
    weight: Tensor | None
    exact: Tensor | None
    bias_size: Tensor
    row_norm: Tensor
    slope: Tensor | None
    column_square: Tensor
    frobenius: float
    spectral: float
    bias_norm: float
    steepest: float


class DenseChain:
    """A chain of dense layers and a frame, see :mod:`pylinregion.runtime.dense_chain`.

    Args:
        dtype: Of the displacements: float32 or float64.
        layers: Its layers.
        pairs: ``P``.
        directions: Of a split: ``[neurons, P up to a multiple of 16]`` float64, what the first layer makes of the
            frame, with zeros behind; else None.
        direction_size: ``[neurons]`` float64: the largest absolute values of its rows; else None.
        direction_norm: A bound of the 2-norms of its columns.

    Raises:
        ValueError: A tensor is not as above, or not on the device of the others.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        layers: Sequence[ChainLayer],
        pairs: int,
        directions: Tensor | None,
        direction_size: Tensor | None,
        direction_norm: float,
    ) -> None:
        if not layers or pairs < 1 or dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"a chain must have layers, pairs and float32 or float64, got {len(layers)}, {pairs}, {dtype}"
            )
        self.dtype, self.layers, self.pairs, self.split = dtype, tuple(layers), pairs, directions is not None
        self.device = _device("row_norm", layers[0].row_norm)
        self._kept = directions, direction_size  # as the tensors of the layers: addresses keep nothing alive
        first, double = layers[0].neurons, torch.float64

        def at(name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype = double) -> int:
            return 0 if tensor is None else _address(name, tensor, self.device, dtype, shape=shape)

        tuples = []
        for number, layer in enumerate(layers):
            if (layer.weight is None or layer.exact is None) and (number or not self.split):
                raise ValueError(f"weight of layer {number} must be a tensor, got None")
            sizes = layer.inputs, layer.neurons
            whole = (layer.neurons, layer.inputs)
            tuples.append(
                (
                    *sizes,
                    at("weight", layer.weight, whole, dtype),
                    at("exact", layer.exact, whole),
                    at("bias_size", layer.bias_size, sizes[1:]),
                    at("row_norm", layer.row_norm, sizes[1:]),
                    at("slope", layer.slope, sizes[1:]),
                    layer.frobenius,
                    layer.spectral,
                    layer.bias_norm,
                    layer.steepest,
                    at("column_square", layer.column_square, sizes[:1]),
                )
            )
        frame = at("directions", directions, (first, -(-pairs // 16) * 16))
        size = at("direction_size", direction_size, (first,))
        self.compiled = _C.DenseChain(_DTYPES[dtype], tuples, pairs, frame, size, direction_norm)


@dataclass(frozen=True)
class ChainPoints:
    """Where a chain is counted.

    Attributes:
        centres: For each layer ``[n, neurons]`` float64: pre-activations at the points.
        norms: For each layer ``[n]`` float64: bounds of the 2-norm of what it takes; of a split's first: of the points.
        radius: ``[n]`` float64, of a split.
        vertices: Of another chain: ``[n * 2P, inputs]`` in its dtype, all plus, then all minus for each point.
        base: ``[n, inputs]`` float64: what the first layer takes at the centres of these.
    """

    centres: Sequence[Tensor]
    norms: Sequence[Tensor]
    radius: Tensor | None = None
    vertices: Tensor | None = None
    base: Tensor | None = None


@dataclass(frozen=True)
class ChainCounts:
    """Where the counts of a chain go.

    Attributes:
        changes: ``[n, layers]`` int64, rows of any stride: overwritten.
        ambiguous, work: ``[n]`` int64: the signs that are not proven, and the bytes that were multiplied.
        classes: ``[n, 2P]`` int64, of any stride by vertex: numbers of the patterns.
        nonfinite: ``[layers, n]`` uint8: set to 1 where a pre-activation is NaN or infinite.
    """

    changes: Tensor
    ambiguous: Tensor
    classes: Tensor
    work: Tensor
    nonfinite: Tensor


def count_chain(chain: DenseChain, points: ChainPoints, counts: ChainCounts, threads: int = 1) -> None:
    """Count a chain of dense layers around points.

    Args:
        chain: The chain.
        points: Where, on its device.
        counts: Where the counts go, on its device.
        threads: CPU threads.

    Raises:
        ValueError: A tensor is not as above, or on another device.
        RuntimeError: The device is one that this build cannot count on.
    """
    device, n, layers, vertices = chain.device, len(counts.ambiguous), len(chain.layers), 2 * chain.pairs
    double, inputs = torch.float64, chain.layers[0].inputs
    if len(points.centres) != layers or len(points.norms) != layers:
        raise ValueError(f"centres and norms must be {layers}, got {len(points.centres)} and {len(points.norms)}")
    if chain.split != (points.radius is not None) or chain.split == (
        points.vertices is not None and points.base is not None
    ):
        raise ValueError("a split must have radius, another chain vertices and base")

    def at(name: str, tensor: Tensor | None, dtype: torch.dtype, *shape: int) -> int:
        return 0 if tensor is None else _address(name, tensor, device, dtype, shape=shape)

    changes, classes = counts.changes, counts.classes
    if changes.shape != (n, layers) or (n and layers > 1 and changes.stride(1) != 1):
        raise ValueError(f"changes must be [{n}, {layers}], got {list(changes.shape)}, strides {changes.stride()}")
    if classes.shape != (n, vertices) or (n > 1 and classes.stride(0) != vertices * classes.stride(1)):
        raise ValueError(
            f"classes must be [{n}, {vertices}], got {list(classes.shape)} with strides {classes.stride()}"
        )
    arguments = (
        n,
        [at("centre", z, double, n, layer.neurons) for z, layer in zip(points.centres, chain.layers, strict=True)],
        [at("norm", norm, double, n) for norm in points.norms],
        at("radius", points.radius, double, n),
        at("vertices", points.vertices, chain.dtype, n * vertices, inputs),
        at("base", points.base, double, n, inputs),
        _address("changes", changes, device, torch.int64),
        changes.stride(0),
        at("ambiguous", counts.ambiguous, torch.int64, n),
        _address("classes", classes, device, torch.int64),
        classes.stride(1),
        at("work", counts.work, torch.int64, n),
        at("nonfinite", counts.nonfinite, torch.uint8, layers, n),
    )
    if device.type == "cpu":
        chain.compiled.count_cpu(*arguments, threads)
        return
    count = _cuda("count_cuda", chain.compiled)
    with torch.cuda.device(device):
        scratch = torch.empty(chain.compiled.scratch_cuda(n), dtype=torch.uint8, device=device)
        count(*arguments, scratch.data_ptr(), torch.cuda.current_stream().cuda_stream)


class PackedLinear:
    """A linear layer ``y = x W^T + b`` with its weights packed for the CPU's vectors.

    For batches that fit the cache it is about twice as fast as a BLAS that does not use the widest vectors. Sums run
    over the inputs in order, with fused multiply-adds.

    Args:
        weight: ``[out, in]`` float32 or float64 on the CPU, ``in`` and ``out`` at least 1.
        bias: ``[out]`` like ``weight``, or None.

    Raises:
        ValueError: One of them is not as above.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        if weight.dim() != 2 or not weight.numel():
            raise ValueError(f"weight must be [out, in], both at least 1, got {list(weight.shape)}")
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
        floats = torch.float32, torch.float64
        address = _address("weight", weight, _CPU, *floats)
        bias_at = 0 if bias is None else _address("bias", bias, _CPU, self.dtype, shape=(self.out_features,))
        self._code = _DTYPES[weight.dtype]
        size = _C.packed_size(self._code, self.in_features, self.out_features)
        self._packed = torch.empty(size, dtype=weight.dtype, device=_CPU)
        _C.pack_linear(
            self._code,
            address,
            bias_at,
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
        if x.dim() < 1 or x.shape[-1] != self.in_features or x.dtype != self.dtype or x.device != _CPU:
            raise ValueError(
                f"x must be [..., {self.in_features}] {self.dtype} on the CPU, got {list(x.shape)} {x.dtype} {x.device}"
            )
        x = x.contiguous()
        rows = x.numel() // self.in_features
        if out is None:
            out = torch.empty(rows, self.out_features, dtype=self.dtype, device=_CPU)
        elif out.shape != (rows, self.out_features) or out.dtype != self.dtype or not out.is_contiguous():
            raise ValueError(
                f"out must be contiguous [{rows}, {self.out_features}] {self.dtype}, got {list(out.shape)}"
            )
        _C.linear_cpu(
            self._code,
            _address("x", x, _CPU, self.dtype),
            rows,
            self.in_features,
            self.out_features,
            self._packed.data_ptr(),
            _address("out", out, _CPU, self.dtype),
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


def _device(name: str, tensor: Tensor) -> torch.device:
    """The device of a tensor that others must be on: one that has kernels."""
    if tensor.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} must be on the CPU or a CUDA device, got {tensor.device}")
    return tensor.device


def _address(
    name: str, tensor: Tensor, device: torch.device, *dtypes: torch.dtype, shape: tuple[int, ...] | None = None
) -> int:
    """Where a tensor's numbers are, for ``_C``.

    Args:
        name: For messages.
        tensor: The tensor.
        device: Where it must be: the CPU or a CUDA device.
        dtypes: What it may be of.
        shape: What it must be, contiguous; None: the caller sees to that.

    Raises:
        ValueError: It is not that, or has no memory.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.device != device or _device(name, tensor) != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")
    if tensor.dtype not in dtypes:
        *some, last = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        wanted = f"{', '.join(some)} or {last}" if some else last
        raise ValueError(f"{name} must be {wanted}, got {tensor.dtype}")
    if shape is not None and (tensor.shape != shape or not tensor.is_contiguous()):
        raise ValueError(
            f"{name} must be contiguous {list(shape)}, got {list(tensor.shape)} with strides {tensor.stride()}"
        )
    try:
        address = 0 if isinstance(tensor, FakeTensor) else tensor.data_ptr()
    except RuntimeError:  # it stands for others
        address = 0
    if not address and tensor.numel():
        raise ValueError(f"{name} must have memory of its own, got {type(tensor).__name__}")
    return address


def _changes_address(changes: Tensor, points: int, device: torch.device) -> tuple[int, int]:
    if changes.shape != (points,):
        raise ValueError(f"changes must be [{points}] int64, got {list(changes.shape)} {changes.dtype}")
    return _address("changes", changes, device, torch.int64), changes.stride(0)


def _pattern_address(
    patterns: Patterns | None, points: int, vertices: int, needed: int, device: torch.device
) -> tuple[int, int]:
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
    return _address("patterns.words", words, device, torch.int64) + 8 * patterns.offset, words.shape[2]


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
    needed = sign_words(neurons, len(kink.breakpoints))
    address, row_words = _pattern_address(patterns, points, vertices, needed, z.device)
    arguments = (
        _DTYPES[z.dtype],
        *addresses,
        points,
        vertices,
        neurons,
        *kink._arguments,
        0 if out is None else _address("out", out, z.device, z.dtype),
        address,
        row_words,
        *_changes_address(changes, points, z.device),
        _address("nonfinite", nonfinite, z.device, torch.uint8),
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
