"""A chain of dense layers, counted by how far the vertices are from the points (``csrc/displacement``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pylinregion._util.rounding import spectral_norm
from pylinregion.counting.chain_costs import Costs
from pylinregion.counting.chain_match import Found, Link
from pylinregion.native.dense_chain import ChainCounts, ChainLayer, ChainPoints, DenseChain, count_chain
from pylinregion.native.packed_linear import PackedLinear

_UP = 1 + 1e-9  # the rounding of norms


@dataclass(frozen=True)
class SplitPoints:
    """What a chain that starts at a split takes of ``b`` points.

    Attributes:
        centre: ``[b, neurons]`` float64: the first pre-activations.
        radius, norm: ``[b]`` float64: of the neighbourhoods, and the 2-norm of the points.
    """

    centre: Tensor
    radius: Tensor
    norm: Tensor


class Chain:
    """A chain with its weights, ready to count.

    Args:
        found: The chain.
        dtype: Of the displacements: float32 or float64.
        points: How many there will be, about: bounds are made tighter for many.
        pairs: ``P``.
        prefix: Of a split: the weight and bias of the linear layer that its first pre-activations come from.
        directions: Of a split: ``[P, neurons]`` float64, what this layer makes of the frame.
    """

    def __init__(
        self,
        found: Found,
        dtype: torch.dtype,
        points: int,
        pairs: int,
        prefix: tuple[Tensor, Tensor | None] | None = None,
        directions: Tensor | None = None,
    ) -> None:
        self.numbers, self.dtype, self.pairs = found.numbers, dtype, pairs
        self._layers = [
            _Layer(link, dtype, prefix if k == 0 and found.split else None, self._worth_norms(k, found.links, points))
            for k, link in enumerate(found.links)
        ]
        self._costs = Costs.of(found, dtype, pairs, None if prefix is None else prefix[0])
        layers = [layer.to_kernel(dtype) for layer in self._layers]
        if directions is None:
            self._compiled = DenseChain(dtype, layers, pairs, None, None, 0.0)
        else:
            rows = functional.pad(directions.T, (0, -pairs % 16)).contiguous()
            largest = float(rows.norm(dim=0).amax()) * _UP
            self._compiled = DenseChain(dtype, layers, pairs, rows, rows.abs().amax(dim=1), largest)

    def _worth_norms(self, k: int, links: tuple[Link, ...], points: int) -> bool:
        """Whether a layer's spectral norm, some products of matrices, costs little beside the points and is needed.

        Float64 needs none, and no error goes on behind the last layer.
        """
        weight = links[k].weight
        return self.dtype == torch.float32 and weight is not None and len(weight) <= points and k + 1 < len(links)

    def count(self, value: SplitPoints | Tensor, into: ChainCounts, threads: int) -> None:
        """Count around ``b`` points.

        Args:
            value: Of a split; else ``[b * 2P, inputs]`` vertices, all plus, then all minus for each point.
            into: Where the counts go.
            threads: CPU threads.
        """
        points = self._points_of_split(value) if isinstance(value, SplitPoints) else self._points_of(value, threads)
        centres, norms = [*points.centres], [*points.norms]
        for before, layer in zip(self._layers, self._layers[1:], strict=False):
            activations = before.activate(centres[-1])
            norms.append(activations.norm(dim=1) * _UP)
            centres.append(layer.apply(activations, threads))
        everywhere = ChainPoints(centres, norms, points.radius, points.vertices, points.base)
        count_chain(self._compiled, everywhere, into, threads)

    def _points_of_split(self, value: SplitPoints) -> ChainPoints:
        """The points at the first layer, whose pre-activations are there."""
        return ChainPoints([value.centre.contiguous()], [value.norm * _UP], radius=value.radius.contiguous())

    def _points_of(self, value: Tensor, threads: int) -> ChainPoints:
        """The points at the first layer: in the middle of their vertices."""
        vertices = value.contiguous()
        base = vertices.view(len(vertices) // (2 * self.pairs), 2 * self.pairs, -1).mean(dim=1, dtype=torch.float64)
        centre = self._layers[0].apply(base, threads)
        return ChainPoints([centre], [base.norm(dim=1) * _UP], vertices=vertices, base=base)

    def share(self, work: Tensor) -> float:
        """What was multiplied at points, ``[b]`` bytes, as a share of the multiplications at all vertices."""
        products = self._costs.products * self.dtype.itemsize
        return float(work.sum()) / max(1, len(work) * 2 * self.pairs * products)

    def pays(self, work: Tensor, unproven: Tensor) -> bool:
        """Whether going on takes less than evaluating vertices, if all points are like those that were counted.

        Args:
            work: ``[b]``: the bytes that were multiplied.
            unproven: ``[b]``: the signs that were not proven.
        """
        again = float((unproven > 0).double().mean()) if len(unproven) else 0.0
        return self._costs.pay(self.share(work), again)


class _Layer:
    """A link in float64 and in the dtype of the displacements, with its bounds."""

    def __init__(
        self, link: Link, dtype: torch.dtype, prefix: tuple[Tensor, Tensor | None] | None, tight: bool
    ) -> None:
        self._exact = None if link.weight is None else link.weight.double().contiguous()
        self._bias = None if link.bias is None else link.bias.double().contiguous()
        matrix, bias = (self._exact, self._bias) if prefix is None else prefix
        if matrix is None:
            raise ValueError("prefix must be given for a chain that starts at a split")
        self._packed = None
        if self._exact is not None and PackedLinear.takes(torch.float64, self._exact.device):
            self._packed = PackedLinear(self._exact, self._bias)
        matrix = matrix.double()
        self._slope: Tensor | None = None
        if isinstance(link.slope, Tensor) or link.slope != 0:
            slope = torch.as_tensor(link.slope, dtype=torch.float64, device=matrix.device)
            slope = slope.reshape(-1).to(dtype).double()
            self._slope = slope.expand(len(matrix)).contiguous()
        self._matrix, self._tight = matrix, tight
        self._bias_size = matrix.new_zeros(len(matrix)) if bias is None else bias.double().abs()

    def to_kernel(self, dtype: torch.dtype) -> ChainLayer:
        """The layer as the kernel takes it."""
        matrix = self._matrix
        neurons, inputs = matrix.shape
        row_norm = matrix.norm(dim=1) * _UP
        lost = row_norm > 0  # squares that underflow; nothing in a row of zeros alone
        if not bool(lost.all()):
            lost = (matrix != 0).any(dim=1)
        row_norm += 1e-150 * lost.double()
        frobenius = float(matrix.norm()) * _UP + 1e-150
        return ChainLayer(
            inputs=inputs,
            neurons=neurons,
            weight=None if self._exact is None else self._exact.to(dtype),
            exact=self._exact,
            bias_size=self._bias_size,
            row_norm=row_norm,
            slope=self._slope,
            column_square=matrix.square().sum(dim=0) * _UP + 1e-300,
            frobenius=frobenius,
            spectral=spectral_norm(matrix.cpu().numpy(), dtype=torch.float32) if self._tight else frobenius,
            bias_norm=float(self._bias_size.norm()) * _UP,
            steepest=max(1.0, 0.0 if self._slope is None else float(self._slope.abs().max())),
        )

    def apply(self, x: Tensor, threads: int) -> Tensor:
        """``[b, neurons]`` float64: the pre-activations of what it takes."""
        if self._packed is not None:
            return self._packed(x, None, threads)
        assert self._exact is not None
        return functional.linear(x, self._exact, self._bias)

    def activate(self, z: Tensor) -> Tensor:
        """``[b, neurons]`` float64: the neurons' values."""
        if self._slope is None:
            return functional.relu(z)
        return torch.where(z > 0, z, z * self._slope)
