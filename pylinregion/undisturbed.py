"""Looking at a model in the middle of its training, and leaving everything as it was."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from pylinregion.module_state import evaluation_mode, undisturbed
from pylinregion.torch_state import full_precision


@contextlib.contextmanager
def set_aside(module: nn.Module, seed: int) -> Iterator[None]:
    """Training stands still meanwhile: what is done inside to modes, buffers, gradients and chance is undone.

    Inside, the module is in eval mode and not compiled, autograd is on, autocast and TF32 are off, and the random
    generators of torch, NumPy and Python start from ``seed``.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        torch.compiler.set_stance("force_eager"),
        evaluation_mode(module),
        undisturbed(module),
        _gradients(module),
        _chance(module, seed),
    ):
        yield


@contextlib.contextmanager
def _gradients(module: nn.Module) -> Iterator[None]:
    """No gradients inside; afterwards the same tensors as before are there."""
    kept = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@contextlib.contextmanager
def _chance(module: nn.Module, seed: int) -> Iterator[None]:
    """Seeded inside; afterwards the generators are where they were."""
    devices = sorted({p.device.index for p in module.parameters() if p.is_cuda})
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every device
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
