"""The user's module in the state in which it is looked at, and left as it was."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pylinregion.caller.reachable import Contents
from pylinregion.caller.torch_settings import Switch, computed_parametrizations, eager, full_precision


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each submodule gets its own flag back."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        _evaluate(module)
        yield
    finally:
        for part, training in flags:
            part.training = training


def _evaluate(module: nn.Module) -> None:
    """``module.eval()``; exported modules, which refuse it, are in the mode of their graph."""
    try:
        module.eval()
    except NotImplementedError:
        module.training = False
        for part in module.children():
            _evaluate(part)


@Switch
@contextlib.contextmanager
def _seen_in_eval_mode() -> Iterator[None]:
    def training(module: nn.Module) -> bool:
        try:
            return bool(vars(module)["training"]) and not _seen_in_eval_mode.here
        except KeyError:
            raise AttributeError("training") from None

    def assign(module: nn.Module, mode: bool) -> None:
        vars(module)["training"] = mode

    nn.Module.training = property(training, assign)  # type: ignore[assignment]
    try:
        yield
    finally:
        del nn.Module.training


def evaluating(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Eval mode for this thread alone, so that another one may train the module meanwhile.

    Where there is another one, the flags are left as they are, and are read as False here. If a part has an ``eval`` or
    ``train`` of its own, that is called, as in :func:`evaluation_mode`.
    """
    own = any(
        type(part).train is not nn.Module.train
        or type(part).eval is not nn.Module.eval
        or not {"train", "eval"}.isdisjoint(vars(part))
        for part in module.modules()
    )
    if own:
        return evaluation_mode(module)
    if len(sys._current_frames()) > 1:
        return _seen_in_eval_mode()
    return _not_training(module)  # a change of nn.Module makes Python look up anew what it has cached of all modules


@contextlib.contextmanager
def _not_training(module: nn.Module) -> Iterator[None]:
    training = [vars(part) for part in module.modules() if vars(part).get("training")]
    for attributes in training:
        attributes["training"] = False
    try:
        yield
    finally:
        for attributes in training:
            attributes["training"] = True


@contextlib.contextmanager
def set_aside(module: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Training stands still meanwhile: what is done inside to modes, state, gradients and chance is undone.

    Inside, the module is in eval mode and not compiled, autograd is on, autocast and TF32 are off. State is what the
    module's code can write to: buffers, attributes, and all that :mod:`pylinregion.caller.reachable` finds.

    Args:
        module: The module.
        seed: Where the random generators of torch, NumPy and Python start from; None: where they are.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        eager(),
        computed_parametrizations(),
        undone(module, values=True),
        evaluation_mode(module),
        _gradients(module),
        _chance(module, seed),
    ):
        yield


@contextlib.contextmanager
def undone(module: nn.Module, values: bool) -> Iterator[None]:
    """What the module's code writes to in Python is undone, and with ``values`` what it writes to plain tensors."""
    contents = Contents(module, values)
    try:
        yield
    finally:
        contents.put_back()


@contextlib.contextmanager
def _gradients(module: nn.Module) -> Iterator[None]:
    """No gradients inside; afterwards the same tensors as before are there."""
    kept = [(parameter, parameter.grad) for parameter in module.parameters() if not nn.parameter.is_lazy(parameter)]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@contextlib.contextmanager
def _chance(module: nn.Module, seed: int | None) -> Iterator[None]:
    """Seeded inside; afterwards the generators are where they were."""
    tensors = (*module.parameters(), *module.buffers())
    devices = sorted({tensor.device.index for tensor in tensors if tensor.is_cuda})
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices):
        if seed is not None:
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


@contextlib.contextmanager
def ordinary_tensors(module: nn.Module) -> Iterator[None]:
    """A module with copies in place of its tensors that were made in ``torch.inference_mode``.

    Torch takes operators on such tensors apart when it traces them, and differentiates none.
    """
    copies: dict[int, Any] = {}  # by tensor: tied ones stay one
    own: list[tuple[dict[str, Any], str, Tensor]] = []
    for part in module.modules():
        stores: Any = (part._parameters, part._buffers)
        own += [
            (store, name, tensor) for store in stores for name, tensor in store.items() if _of_inference_mode(tensor)
        ]
    for _, _, tensor in own:
        if id(tensor) not in copies:
            values = tensor.detach().clone()
            parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(values, tensor.requires_grad) if parameter else values
    try:
        for store, name, tensor in own:
            store[name] = copies[id(tensor)]
        yield
    finally:
        for store, name, tensor in own:
            store[name] = tensor


def _of_inference_mode(tensor: Tensor | None) -> bool:
    return tensor is not None and not nn.parameter.is_lazy(tensor) and tensor.is_inference()
