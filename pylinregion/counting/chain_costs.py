"""What it takes to count a chain of dense layers, and to evaluate it at all vertices instead."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pylinregion.counting.chain_match import Found
from pylinregion.native.simd import simd

FEWEST_PAIRS = 4  # with fewer, vectors stay empty
_VECTOR_BYTES = {"avx512": 64, "avx2": 32, "neon": 16, "portable": 8}


@dataclass(frozen=True)
class Costs:
    """What it takes to count a chain around a point, in bytes of numbers that are multiplied: 3 to 5 ps each.

    What other work is worth in these was measured.

    Attributes:
        pairs: ``P``.
        itemsize: Bytes of a number.
        products: Multiplications at a vertex, behind the first layer of a split.
        first: Of the first layer of a split; 0 of another chain.
        inputs: What the first layer takes.
        neurons: Of all layers.
        layers: How many layers there are.
    """

    pairs: int
    itemsize: int
    products: int
    first: int
    inputs: int
    neurons: int
    layers: int

    @classmethod
    def of(cls, found: Found, dtype: torch.dtype, pairs: int, prefix: Tensor | None) -> Costs:
        """Those of a chain; ``prefix`` is the weight of the linear layer in front of a split."""
        weights = [link.weight for link in found.links if link.weight is not None]
        products, neurons = sum(weight.numel() for weight in weights), sum(len(weight) for weight in weights)
        if prefix is None:
            return cls(pairs, dtype.itemsize, products, 0, weights[0].shape[1], neurons, len(weights))
        inputs, first = prefix.shape[1], prefix.numel()
        return cls(pairs, dtype.itemsize, products, first, inputs, neurons + len(prefix), len(weights) + 1)

    @property
    def every_vertex(self) -> float:
        """Evaluating all vertices."""
        each = self.itemsize * (self.products + 20 * self.neurons) + 16_000 * self.layers
        return 2 * self.pairs * each + self.itemsize * self.first

    def displacements(self, share: float) -> float:
        """Counting by displacements that multiply this share of the products at all vertices."""
        vertices = 2 * self.pairs * self.itemsize
        given = 0 if self.first else 2 * vertices * self.inputs
        return 1.3 * share * vertices * self.products + 8 * (self.products + self.first) + 5500 * self.neurons + given

    @property
    def setting_up(self) -> float:
        """The weights once more in float64, for all points together."""
        return 2e8 + 2000 * (self.products + self.first)

    def share(self, changing: float) -> float:
        """The share that is to be expected where this share of the first layer's neurons change.

        Panels have the columns of the neurons that are on, in whole vectors, and rows are as good as all looked at long
        before all neurons change, for they are judged by their norms. Fitted to 55 counts of random and trained
        networks, widths 50 and 200, P = 8 and 25.
        """
        lanes = max(1, _VECTOR_BYTES[simd()] // self.itemsize)
        padding = -(-self.pairs // lanes) * lanes / self.pairs
        width = self.neurons / self.layers
        return padding * (0.5 + 0.5 * changing) * min(1.0, 0.1 + 0.4 * changing * math.sqrt(width))

    def promise(self, changing: float, points: int) -> bool:
        """Whether displacements are to be expected to take less, around so many points, setting up included."""
        if self.pairs < FEWEST_PAIRS or points == 0:
            return False
        return self.displacements(self.share(changing)) + self.setting_up / points < self.every_vertex

    def pay(self, share: float, again: float) -> bool:
        """Whether displacements take less that multiply this share, if so many of the points are counted twice."""
        taken = self.displacements(share) + self.every_vertex * again
        return self.pairs >= FEWEST_PAIRS and taken < self.every_vertex
