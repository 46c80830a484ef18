"""What a model is to each counting method: every kink with its place in the source, or the reason for refusal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.capturing.capture import capture
from pylinregion.counting.estimate import Estimate, estimate
from pylinregion.graph.network import Network
from pylinregion.lowering.lower import refusal

EXACT = ("axes", "slice", "partition", "trace")


@dataclass(frozen=True)
class Row:
    """One operator of the table.

    Attributes:
        layer: The layer's name as ``count_regions`` uses it; for kind "other" the module path.
        op: The operator.
        kind: ``"kink"``, ``"smooth"`` or ``"other"`` (runs at the vertices, not counted, and ends exact methods, as
            softmax, a sine, a product of two values).
        breakpoints: Where it bends: numbers, ``"sign"`` for smooth activations, ``"winner"`` for max-pools.
        units: Neurons per point; 0 for kind "other".
        line: ``file:line: code``.
    """

    layer: str
    op: str
    kind: str
    breakpoints: str
    units: int
    line: str


@dataclass(frozen=True)
class Explanation:
    """The answer of :func:`explain`; ``print`` it for a table.

    Attributes:
        rows: The operators that matter, in the order of computation.
        coverage: For each method None if it covers the model, else the reason why not; ``"partition"`` and ``"trace"``
            are the functions of these names.
        captured_by: The mechanism that captured the model, "" if none did.
        estimate: What an exact count with the radius would take; None without one, or if the exact methods do not cover
            the model.
    """

    rows: tuple[Row, ...]
    coverage: dict[str, str | None]
    captured_by: str
    estimate: Estimate | None = None

    @property
    def units(self) -> int:
        """Neurons that are counted, all layers together."""
        return sum(row.units for row in self.rows)

    def __str__(self) -> str:
        lines = []
        if self.rows:
            head = ("layer", "op", "kind", "breakpoints", "units", "source")
            cells = [
                (row.layer, row.op, row.kind, row.breakpoints, str(row.units) if row.units else "-", row.line)
                for row in self.rows
            ]
            widths = [max(len(row[i]) for row in [head, *cells]) for i in range(6)]
            for row in [head, *cells]:
                padded = [
                    cell.rjust(width) if i == 4 else cell.ljust(width)
                    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
                ]
                lines.append("  ".join(padded).rstrip())
            lines.insert(1, "-" * max(len(line) for line in lines))
        if self.captured_by:
            counted = sum(row.kind != "other" for row in self.rows)
            neurons, layers = "neuron" + "s" * (self.units != 1), "layer" + "s" * (counted != 1)
            lines.append(f"{self.units} {neurons} in {counted} {layers}; captured by {self.captured_by}")
            if not counted and self.rows:
                lines.append("nothing of this model is counted: none of its non-linear operators is one that is")
            elif not counted:
                lines.append("the model is affine: it has no neurons")
        verdicts: dict[str, list[str]] = {}
        for method, reason in self.coverage.items():
            verdicts.setdefault("covered" if reason is None else f"not covered. {reason}", []).append(method)
        lines += [f"{', '.join(methods)}: {verdict}" for verdict, methods in verdicts.items()]
        if self.estimate is not None:
            lines.append(str(self.estimate))
        return "\n".join(lines)


@plain_torch()
def explain(
    model: nn.Module | torch.export.ExportedProgram | Network, x: Tensor, radius: float | Tensor | None = None
) -> Explanation:
    """Say what would be counted in a model, which methods cover it, and what an exact count would take.

    Args:
        model: As for :func:`pylinregion.count_regions`.
        x: ``[B, *input_shape]``, as for ``count_regions``.
        radius: Of the neighbourhoods that are to be counted, a number or ``[B]`` numbers: slices around a few of the
            points are tried, which takes seconds, for :attr:`Explanation.estimate`.

    Returns:
        A table of every kink, smooth activation and other operator, and for each method whether it covers the model:
        ``"vertices"``, the exact ones ``"axes"`` and ``"slice"``, and the functions ``"partition"`` and ``"trace"``. A
        model that cannot be captured gives an empty table and the reason; it does not raise.

    Raises:
        TypeError, ValueError: ``model``, ``x`` or ``radius`` is not as above.
    """
    radii = None if radius is None else checks.radii(radius, len(x), x.device)
    try:
        network = capture(model, x)
    except UnsupportedModelError as error:
        return Explanation((), dict.fromkeys(("vertices", *EXACT), str(error)), "")
    layers = {layer.node: layer for layer in network.layers}
    rows = []
    for index, node in enumerate(network.nodes):
        if index in layers:
            layer = layers[index]
            rows.append(Row(layer.name, layer.op_name, layer.kind.value, layer.breakpoints, layer.units, layer.line))
        elif network.bends_uncounted(index):
            rows.append(Row(node.path or node.op_name, node.op_name, "other", "", 0, node.line))
    coverage: dict[str, str | None] = {"vertices": None, **dict.fromkeys(EXACT, refusal(network))}
    taken = None
    if radii is not None and coverage["slice"] is None and len(x):
        try:
            taken = estimate(network, x, radii)
        except UnsupportedModelError as error:  # weights of a scale that exact methods do not cover
            coverage |= dict.fromkeys(EXACT, str(error))
    return Explanation(tuple(rows), coverage, network.method, taken)
