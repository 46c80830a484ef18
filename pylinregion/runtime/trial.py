"""A network on points of no importance, as its model is held against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from pylinregion.graph.network import Network
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.observer import observe
from pylinregion.runtime.rows import as_rows


class Trial:
    """A network on some points.

    Args:
        network: The network.
        x: ``[n, *input_shape]``, the points.
        v: The same of directions.

    Attributes:
        outputs: What it makes of the points.
        reported: By layer: what it reports.
    """

    def __init__(self, network: Network, x: Tensor, v: Tensor) -> None:
        self._network, self._x, self._v = network, x, v
        self._layers = range(len(network.layers))
        self._evaluator = Evaluator(network, network.dtype, self._layers, outputs=True, split=False)
        self.outputs, self.reported = observe(self._evaluator, [x], len(x))

    @property
    def frontier(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """The values at the end of the affine prefix: the node, what it is at x + v, at x, and its linear part at v."""
        split = Evaluator(self._network, self._network.dtype, self._layers, outputs=True, split=True)
        at_sums, centres = split.prefix(self._x + self._v), split.prefix(self._x)
        yield from zip(split.frontier, at_sums, centres, split.prefix_directions(self._v), strict=True)

    def batches(self, moved: int, to: Tensor, some: Sequence[int]) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """What the layers report, then the outputs: words for where that is, and it on three batches, rows first.

        Args:
            moved, to: The second batch is all points, with this one moved to ``[1, *input_shape]``.
            some: The third is these alone.
        """
        others = self._x.clone()
        others[moved] = to[0]
        first = self._by_name(self.outputs, self.reported)
        again, fewer = (
            self._by_name(*observe(self._evaluator, [points], len(points))) for points in (others, self._x[list(some)])
        )
        for (name, one), (_, two), (_, three) in zip(first, again, fewer, strict=True):
            yield name, one, two, three

    def _by_name(self, outputs: list[Tensor], reported: dict[int, list[Tensor]]) -> list[tuple[str, Tensor]]:
        nodes = self._network.nodes
        rows = [(nodes[layer.node].where, v) for i, layer in enumerate(self._network.layers) for v in reported[i]]
        ends = [nodes[index] for index in self._network.outputs]
        return rows + [(f"the output of {node.where}", as_rows(v, node)) for node, v in zip(ends, outputs, strict=True)]
