"""What the layers of a network report, kept instead of counted."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pylinregion.graph.network import Network
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.rows import as_rows


def observe(evaluator: Evaluator, values: list[Tensor], rows: int) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
    """Run on ``rows`` vertices: the outputs, and what each layer reports, rows first."""
    seen: dict[int, list[Tensor]] = {}

    def observer(number: int) -> Observer:
        return Observer(evaluator.network, number, seen.setdefault(number, []))

    return evaluator.run(values, rows, observer), seen


class Observer:
    """A :class:`pylinregion.runtime.kink_evaluators.Counter` that keeps what a layer reports."""

    def __init__(self, network: Network, number: int, seen: list[Tensor]) -> None:
        self.node = network.shaped(network.layers[number].node)
        self.seen = seen

    def signs(self, z: Any, kink: ScalarKink) -> None:
        """Keep the pre-activations, less each breakpoint."""
        rows = as_rows(z, self.node)
        self.seen.extend(rows.double() - value for value in kink.breakpoints)

    def labels(self, labels: Tensor) -> None:
        """Keep the labels."""
        self.seen.append(as_rows(labels, self.node).clone())
