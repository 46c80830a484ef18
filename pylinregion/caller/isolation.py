"""The one scope in which a user's module is run: :func:`isolated`. It is in eval mode there, and left as it was.

Everything that runs the module itself does so inside: captures and the question whether they still hold, measures that
attack the module, verification, and all that a monitor measures between two steps of training.
"""

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
def isolated(module: nn.Module, *, seed: int | None = None, beside_training: bool = False) -> Iterator[None]:
    """Eval mode, and what is done inside to modes, state, gradients and chance is undone.

    Inside, the module is not compiled, autograd is on, autocast and TF32 are off. State is what the module's code can
    write to: buffers, attributes, and all that :mod:`pylinregion.caller.reachable` finds.

    Args:
        module: The module.
        seed: Where the random generators of torch, NumPy and Python start from; None: where they are.
        beside_training: Another thread may train the module meanwhile. Eval mode is this thread's alone, and what is
            undone is what is written to in Python. Values of tensors, gradients, generators and the switches of torch
            are left alone: they are the training's, and what is run sees to them itself
            (:func:`pylinregion.capturing.operations.run`).
    """
    with contextlib.ExitStack() as scope:
        if beside_training:
            scope.enter_context(_undone(module, values=False))
            scope.enter_context(_evaluated_here(module))
        else:
            scope.enter_context(_plain_autograd())
            scope.enter_context(_undone(module, values=True))
            scope.enter_context(_evaluated(module))
            scope.enter_context(_without_gradients(module))
            scope.enter_context(_chance(module, seed))
        yield


@contextlib.contextmanager
def _plain_autograd() -> Iterator[None]:
    """Autograd is on; nothing is compiled, cached or rounded otherwise than the model's code says."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        eager(),
        computed_parametrizations(),
    ):
        yield


@contextlib.contextmanager
def _undone(module: nn.Module, *, values: bool) -> Iterator[None]:
    """What the module's code writes to in Python is undone, and with ``values`` what it writes to plain tensors."""
    contents = Contents(module, values)
    try:
        yield
    finally:
        contents.put_back()


@contextlib.contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """Eval mode; each submodule gets its own flag back."""
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


def _evaluated_here(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Eval mode for this thread alone.

    Where there is another one, the flags are left as they are, and are read as False here. If a part has an ``eval`` or
    ``train`` of its own, that is called, as in :func:`_evaluated`.
    """
    own = any(
        type(part).train is not nn.Module.train
        or type(part).eval is not nn.Module.eval
        or not {"train", "eval"}.isdisjoint(vars(part))
        for part in module.modules()
    )
    if own:
        return _evaluated(module)
    if len(sys._current_frames()) > 1:
        return _seen_in_eval_mode()
    return _not_training(module)  # a change of nn.Module makes Python look up anew what it has cached of all modules


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
def _without_gradients(module: nn.Module) -> Iterator[None]:
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
