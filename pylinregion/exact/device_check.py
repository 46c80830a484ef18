"""Whether a device walks as the CPU does: asked once for each, before it is trusted with a result."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from pylinregion._util.arrays import Array
from pylinregion.capturing.capture import capture
from pylinregion.exact.slice_engine import Engine
from pylinregion.exact.walk_device import WalkDevice, called, checked_device, cuda_walks
from pylinregion.lowering.lower import stages_of
from pylinregion.native.simd import simd

_BOX = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
_TRUSTED: set[int] = set()  # CUDA devices that walk as the CPU does
_WHATEVER_ROUNDS = ("regions", "patterns")  # what is equal without fused multiply-adds, too


def walks_on(device: Any, of_model: torch.device) -> WalkDevice | None:
    """The device on which walks are asked for; None: the CPU.

    Args:
        device, of_model: As of :func:`~pylinregion.exact.walk_device.checked_device`.

    Raises:
        ValueError, TypeError: Likewise.
        RuntimeError: It was asked for by name, and does not find what the CPU finds. Where the model is on it, that is
            a warning, and the CPU walks.
    """
    where = checked_device(device, of_model)
    if where.type == "cpu":
        return None
    index = where.index if where.index is not None else torch.cuda.current_device()
    problem = None if index in _TRUSTED else problem_of(cuda_walks(index))
    if problem is None:
        _TRUSTED.add(index)
        return cuda_walks(index)
    if device is not None:
        raise RuntimeError(f"cuda:{index} {problem}. Pass device='cpu'")
    warnings.warn(f"cuda:{index} {problem}: the CPU walks along slices", RuntimeWarning, 3)
    return None


def problem_of(device: WalkDevice) -> str | None:
    """What a device finds wrong of two small networks, one with many ties and one with a maximum; None: nothing."""
    try:
        for number, model in enumerate(_models()):
            engine = Engine(stages_of(capture(model, torch.zeros(1, 2, dtype=torch.float64))), np.eye(2, 3), _BOX)
            asked = (engine.core.enumerate, True, 1, 0, 1, False, -1, -1, -1, None)
            if what := _difference(called(None, *asked), device.walk(*asked)):
                return f"does not walk as the CPU does: {what} of network {number} differ; please report this"
    except Exception as error:  # whatever breaks
        return f"cannot walk along slices: {type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _models() -> tuple[nn.Module, nn.Module]:
    rng = np.random.default_rng(0)
    tied = _mlp([rng.integers(-2, 3, shape).astype(float) for shape in ((8, 2), (8, 8), (2, 8))])
    generic = _mlp([rng.standard_normal(shape) for shape in ((16, 2), (16, 16), (16, 16))])
    return tied, nn.Sequential(generic, nn.Unflatten(1, (1, 16)), nn.MaxPool1d(4), nn.Flatten(), nn.ReLU())


def _mlp(weights: list[Array]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight in weights:
        rows, width = weight.shape
        linear = nn.Linear(width, rows, dtype=torch.float64, device="meta").to_empty(device="cpu")  # draws no numbers
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight)), linear.bias.fill_(0.25 * (len(layers) > 0))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _difference(found: dict[str, Any], again: dict[str, Any]) -> str | None:
    compared = _WHATEVER_ROUNDS if simd() == "portable" else found
    return next((name for name in compared if not np.array_equal(found[name], again[name])), None)
