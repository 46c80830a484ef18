"""Whether a device folds and walks as the CPU does: asked once for each, before it is trusted with a result."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import UNIT
from pylinregion.capturing.capture import capture
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_engine import Engine
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.walk_device import WalkDevice, called, checked_device, cuda_walks
from pylinregion.lowering.lower import stages_of
from pylinregion.native.simd import simd

_SIZE = 256  # of matrices
_SLICES = 20
_EMPTY: Any = {"dtype": torch.float64, "device": "meta"}  # a layer of these draws no random numbers
_Module = TypeVar("_Module", bound=nn.Module)
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
    """What a device finds wrong of three small networks, with ties, maxima and convolutions; None: nothing."""
    try:
        if not _multiplies_in_float64(device.folds):
            return "rounds products of float64 matrices by more than float64 does"
        for number, model in enumerate(_models()):
            engine = Engine(stages_of(capture(model, torch.zeros(1, 2, dtype=torch.float64))), np.eye(2, 3), _BOX)
            asked = (engine.core.enumerate, True, 1, 0, 1, False, -1, -1, -1, None)
            if what := _difference(called(None, *asked), device.walk(*asked)):
                return f"does not walk as the CPU does: {what} of network {number} differ; please report this"
        if what := _folded_difference(device):
            return f"does not fold as the CPU does: {what} differ; please report this"
    except Exception as error:  # whatever breaks
        return f"cannot walk along slices: {type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _multiplies_in_float64(where: torch.device) -> bool:
    """Whether a product of matrices is as near as sums of rounded products are, in whatever order.

    Numbers of one row are up to 2^80 apart: products that are emulated with a few integers lose the small ones.
    """
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(np.ldexp(rng.standard_normal((n, n)), rng.integers(-40, 41, (n, n)))) for n in 2 * [_SIZE])
    off = (torch.matmul(a.to(where), b.to(where)).cpu() - a @ b).abs()
    return bool((off <= 2 * (_SIZE + 8) * UNIT * (a.abs() @ b.abs())).all())


def _folded_difference(device: WalkDevice) -> str | None:
    """What differs on small slices of a convolutional network that is folded there; None: nothing."""
    rng = np.random.default_rng(1)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 6, 6)), _filled(nn.Conv2d(1, 4, 3, padding=1, **_EMPTY), rng)]
    layers += [nn.ReLU(), nn.MaxPool2d(2), _filled(nn.Conv2d(4, 4, 3, **_EMPTY), rng), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, _filled(nn.Linear(4, 8, **_EMPTY), rng), nn.ReLU())
    stages = stages_of(capture(model, torch.zeros(1, 36, dtype=torch.float64)))
    u, v, origins = (rng.standard_normal((_SLICES, 36)) for _ in range(3))
    slices = Slices(u, v, origins, np.repeat(0.2 * _BOX[None], _SLICES, axis=0))
    found, expected = (ManySlices(stages, device=each).count(slices) for each in (device, None))
    pairs = {name: (getattr(found, name), getattr(expected, name)) for name in ("regions", "changes")}
    return next((name for name, pair in pairs.items() if not np.array_equal(*pair)), None)


def _filled(module: _Module, rng: np.random.Generator) -> _Module:
    """With numbers that are not torch's."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(parameter.shape)))
    return module


def _models() -> tuple[nn.Module, nn.Module]:
    rng = np.random.default_rng(0)
    tied = _mlp([rng.integers(-2, 3, shape).astype(float) for shape in ((8, 2), (8, 8), (2, 8))])
    generic = _mlp([rng.standard_normal(shape) for shape in ((16, 2), (16, 16), (16, 16))])
    return tied, nn.Sequential(generic, nn.Unflatten(1, (1, 16)), nn.MaxPool1d(4), nn.Flatten(), nn.ReLU())


def _mlp(weights: list[Array]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight in weights:
        rows, width = weight.shape
        linear = nn.Linear(width, rows, **_EMPTY).to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight)), linear.bias.fill_(0.25 * (len(layers) > 0))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _difference(found: dict[str, Any], again: dict[str, Any]) -> str | None:
    compared = _WHATEVER_ROUNDS if simd() == "portable" else found
    return next((name for name in compared if not np.array_equal(found[name], again[name])), None)
