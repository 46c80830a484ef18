"""The captured network against the model it was captured from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pylinregion.errors import UnsupportedModelError
from pylinregion.kernels import ScalarKink
from pylinregion.network import Network
from pylinregion.program import Evaluator
from pylinregion.tally import as_rows

_ROWS = 5  # another number than the rows of the trace, so that a batch size that was baked in shows


def same_function(network: Network, model: Callable[[Tensor], Any], example: Tensor) -> None:
    """Compare outputs on fresh inputs, and check that no point of a batch influences another.

    Rounding may differ where the model takes a fused path, so outputs may differ in the second half of their digits.

    Raises:
        UnsupportedModelError: They differ, or points are mixed.
    """
    from pylinregion.capture import output_tensors

    x = fresh_inputs(example)
    evaluator = Evaluator(network, network.dtype, range(len(network.layers)), outputs=True, split=False)
    captured, observed = observe(evaluator, [x], len(x))
    expected = [value for value in output_tensors(model(x)) if value.is_floating_point()]
    captured = [value for value in captured if value.is_floating_point()]
    if len(captured) != len(expected) or not all(map(_close, captured, expected)):
        raise UnsupportedModelError(
            "the captured network does not reproduce the model on fresh inputs: its forward pass depends on something "
            "besides its input and its tensors, or on the values it was traced with"
        )
    moved = x.clone()
    moved[1] = fresh_inputs(x[:1], seed=1)[0]
    _, again = observe(evaluator, [moved], len(moved))
    others = [row for row in range(_ROWS) if row != 1]
    for number, layer in enumerate(network.layers):
        if not all(_close(a[others], b[others]) for a, b in zip(observed[number], again[number], strict=True)):
            raise UnsupportedModelError(f"{layer.name} ({layer.op_name} at {layer.line}) mixes the points of a batch")


def fresh_inputs(example: Tensor, seed: int = 0) -> Tensor:
    """``[5, *input_shape]`` near the example's points and elsewhere; torch's random state is left alone."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(_ROWS, *example.shape[1:], generator=generator, dtype=torch.float64)
    base = example.detach().double().cpu()[torch.arange(_ROWS) % len(example)]
    spread = float(base.std()) if base.numel() > 1 else 0.0
    return (base + noise * (0.1 * spread or 1.0)).to(example.device, example.dtype)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    tolerance = torch.finfo(torch.float32).eps ** 0.5
    scale = float(b[b.isfinite()].abs().max()) if bool(b.isfinite().any()) else 0.0
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def observe(evaluator: Evaluator, values: list[Tensor], rows: int) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
    """Run on ``rows`` vertices: the outputs, and what each layer reports, rows first."""
    seen: dict[int, list[Tensor]] = {}

    def observer(number: int) -> Observer:
        return Observer(evaluator.network, number, seen.setdefault(number, []))

    return evaluator.run(values, rows, observer), seen


class Observer:
    """A :class:`pylinregion.kinks.Counter` that keeps what a layer reports."""

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
