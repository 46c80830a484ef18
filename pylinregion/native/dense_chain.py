"""Chains of dense layers, counted by how far the vertices are from the points (``csrc/displacement/chain.h``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pylinregion.native.addresses import DTYPES, address, device_of
from pylinregion.native.extension import _C, for_cuda


@dataclass(frozen=True)
class ChainLayer:
    """An affine map and the kinks on it.

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

    def to_kernel(self, dtype: torch.dtype, device: torch.device) -> _C.ChainLayer:
        """The layer as the kernel takes it, for displacements of this dtype.

        Raises:
            ValueError: A tensor is not as above, or elsewhere.
        """
        inputs, neurons, double = self.inputs, self.neurons, torch.float64
        return _C.ChainLayer(
            inputs=inputs,
            neurons=neurons,
            weight=_at("weight", self.weight, device, dtype, neurons, inputs),
            exact=_at("exact", self.exact, device, double, neurons, inputs),
            bias_size=_at("bias_size", self.bias_size, device, double, neurons),
            row_norm=_at("row_norm", self.row_norm, device, double, neurons),
            slope=_at("slope", self.slope, device, double, neurons),
            column_square=_at("column_square", self.column_square, device, double, inputs),
            frobenius=self.frobenius,
            spectral=self.spectral,
            bias_norm=self.bias_norm,
            steepest=self.steepest,
        )


class DenseChain:
    """A chain of dense layers and a frame.

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
        self.device = device_of("row_norm", layers[0].row_norm)
        self._kept = directions, direction_size  # as the tensors of the layers: addresses keep nothing alive
        for number, layer in enumerate(layers):
            if (layer.weight is None or layer.exact is None) and (number or not self.split):
                raise ValueError(f"weight of layer {number} must be a tensor, got None")
        first, double = layers[0].neurons, torch.float64
        self.compiled = _C.DenseChain(
            dtype=DTYPES[dtype],
            layers=[layer.to_kernel(dtype, self.device) for layer in layers],
            pairs=pairs,
            directions=_at("directions", directions, self.device, double, first, -(-pairs // 16) * 16),
            direction_size=_at("direction_size", direction_size, self.device, double, first),
            direction_norm=direction_norm,
        )


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

    def to_kernel(self, chain: DenseChain, n: int) -> _C.ChainPoints:
        """The points as the kernel takes them.

        Raises:
            ValueError: A tensor is not as above, or not on the chain's device.
        """
        count, device, double = len(chain.layers), chain.device, torch.float64
        if len(self.centres) != count or len(self.norms) != count:
            raise ValueError(f"centres and norms must be {count}, got {len(self.centres)} and {len(self.norms)}")
        given = self.vertices is not None and self.base is not None
        if chain.split != (self.radius is not None) or chain.split == given:
            raise ValueError("a split must have radius, another chain vertices and base")
        inputs = chain.layers[0].inputs
        layers = zip(self.centres, chain.layers, strict=True)
        return _C.ChainPoints(
            n=n,
            centres=[_at("centre", z, device, double, n, layer.neurons) for z, layer in layers],
            norms=[_at("norm", norm, device, double, n) for norm in self.norms],
            radius=_at("radius", self.radius, device, double, n),
            vertices=_at("vertices", self.vertices, device, chain.dtype, n * 2 * chain.pairs, inputs),
            base=_at("base", self.base, device, double, n, inputs),
        )


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

    def to_kernel(self, chain: DenseChain, n: int) -> _C.ChainCounts:
        """The places as the kernel takes them.

        Raises:
            ValueError: A tensor is not as above, or not on the chain's device.
        """
        layers, vertices, device = len(chain.layers), 2 * chain.pairs, chain.device
        changes, classes = self.changes, self.classes
        if changes.shape != (n, layers) or (n and layers > 1 and changes.stride(1) != 1):
            raise ValueError(f"changes must be [{n}, {layers}], got {list(changes.shape)}, strides {changes.stride()}")
        if classes.shape != (n, vertices) or (n > 1 and classes.stride(0) != vertices * classes.stride(1)):
            raise ValueError(
                f"classes must be [{n}, {vertices}], got {list(classes.shape)} with strides {classes.stride()}"
            )
        return _C.ChainCounts(
            changes=address("changes", changes, device, torch.int64),
            changes_stride=changes.stride(0),
            ambiguous=_at("ambiguous", self.ambiguous, device, torch.int64, n),
            classes=address("classes", classes, device, torch.int64),
            classes_stride=classes.stride(1),
            work=_at("work", self.work, device, torch.int64, n),
            nonfinite=_at("nonfinite", self.nonfinite, device, torch.uint8, layers, n),
        )


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
    n = len(counts.ambiguous)
    where, into = points.to_kernel(chain, n), counts.to_kernel(chain, n)
    if chain.device.type == "cpu":
        chain.compiled.count_cpu(where, into, threads=threads)
        return
    count = for_cuda("count_cuda", chain.compiled)
    with torch.cuda.device(chain.device):
        scratch = torch.empty(chain.compiled.scratch_cuda(n), dtype=torch.uint8, device=chain.device)
        count(where, into, scratch=scratch.data_ptr(), stream=torch.cuda.current_stream().cuda_stream)


def _at(name: str, tensor: Tensor | None, device: torch.device, dtype: torch.dtype, *shape: int) -> int:
    """The address of a contiguous tensor of this shape; 0 for none."""
    return 0 if tensor is None else address(name, tensor, device, dtype, shape=shape)
