"""The captured network against the model it was captured from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.capturing.tracing import output_tensors
from pylinregion.graph.network import Network
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.trial import Trial

_ROWS = 5  # another number than the rows of the trace, so that a batch size that was baked in shows


def same_function(network: Network, model: Callable[[Tensor], Any], example: Tensor) -> None:
    """Compare outputs on fresh inputs, and check that no point of a batch is influenced by the others.

    Rounding may differ where the model takes a fused path or a batch has another size, so such results may differ in
    the second half of their digits.

    Raises:
        UnsupportedModelError: They differ, or points are mixed.
    """
    x = fresh_inputs(example)
    trial = Trial(network, x, fresh_inputs(example, seed=2))
    dtypes = {node.dtype for node in network.nodes if node.dtype is not None and node.dtype.is_floating_point}
    loose = max(torch.finfo(dtype).eps for dtype in (torch.float32, *dtypes)) ** 0.5
    tight = 64 * torch.finfo(network.dtype).eps
    inside = [v.abs()[v.isfinite()] for values in trial.reported.values() for v in values if v.is_floating_point()]
    noise = tight * max((float(v.max()) for v in inside if v.numel()), default=0.0)  # of outputs that cancel
    for _ in range(2):  # what counts its calls may be right once
        returned = output_tensors(model(x.clone()))
        expected = [returned[place] for place in network.places]
        if not all(_close(a, b, loose, noise) for a, b in zip(trial.outputs, expected, strict=True)):
            raise UnsupportedModelError(
                "the captured network does not reproduce the model on fresh inputs: its forward pass depends on "
                "something besides its input and its tensors, or on the values it was traced with"
            )
    if (at := not_finite(network, example)) is not None:
        raise UnsupportedModelError(
            f"at points like x a value is NaN or infinite, for which the model goes another way{at}"
        )
    for index, at_sum, centre, direction in trial.frontier:
        if not _close(centre + direction, at_sum, loose, torch.finfo(network.dtype).tiny):
            network.check_parameters()  # of infinite ones the sum is NaN
            where = network.nodes[index].where
            if not all(bool(value.isfinite().all()) for value in (at_sum, centre, direction)):
                raise UnsupportedModelError(f"{where} makes NaN or infinite numbers of points like x")
            raise UnsupportedModelError(f"{where} is not affine in the input, or hides its derivative")
    others = [row for row in range(_ROWS) if row != 1]
    some = [3, 0, 4]
    for name, first, again, fewer in trial.batches(moved=1, to=fresh_inputs(x[:1], seed=1), some=some):
        # Labels of values that are equal but for rounding may differ where a batch has another size.
        same = not first.is_floating_point() or _close(fewer, first[some], loose)
        if not _close(again[others], first[others], tight) or not same:
            raise UnsupportedModelError(f"{name} mixes the points of a batch, or depends on their number or order")


def not_finite(network: Network, x: Tensor) -> str | None:
    """Where the model looks at a value that is NaN or infinite at these points; None if nowhere."""
    if not network.finite:
        return None
    looked_at = Evaluator(network, network.dtype, (), outputs=False, split=False, also=network.finite)
    values = looked_at.run([x], len(x), None)
    places = zip(values, network.finite.values(), strict=True)
    return next((at for value, at in places if not bool(value.isfinite().all())), None)


def fresh_inputs(example: Tensor, seed: int = 0) -> Tensor:
    """``[5, *input_shape]`` near the example's points and elsewhere; torch's random state is left alone."""
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(_ROWS, *example.shape[1:], generator=generator, dtype=torch.float64, device="cpu")
    base = example.detach().double().cpu()[torch.arange(_ROWS, device="cpu") % len(example)]
    spread = float(base.std()) if base.numel() > 1 else 0.0
    return (base + noise * (0.1 * spread or 1.0)).to(example.device, example.dtype)


def _close(a: Tensor, b: Tensor, tolerance: float, noise: float = 0.0) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    scale = float(b[b.isfinite()].abs().max()) if bool(b.isfinite().any()) else 0.0
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale + noise, equal_nan=True))
