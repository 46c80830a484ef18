"""The scopes in which a user's module is run. It is in eval mode there, and left as it was.

:func:`beside` runs its twin, and lets threads that train the module be: captures do so, and the question whether they
still hold. :func:`isolated` runs the module itself: measures that attack it, verification, and all that a monitor
measures between two steps of training.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pylinregion.caller.reachable import FORWARD_HOOKS, Contents
from pylinregion.caller.torch_settings import computed_parametrizations, eager, full_precision
from pylinregion.caller.twin import Twin


@contextlib.contextmanager
def isolated(module: nn.Module, *, seed: int | None = None) -> Iterator[None]:
    """Eval mode, and what is done inside to modes, state, gradients and chance is undone.

    Inside, the module is not compiled, autograd is on, autocast and TF32 are off. State is what the module's code can
    write to: buffers, attributes, and all that :mod:`pylinregion.caller.reachable` finds. No other thread may run or
    train the module meanwhile.

    Args:
        module: The module.
        seed: Where the random generators of torch, NumPy and Python start from; None: where they are.
    """
    with (
        _plain_autograd(),
        _undone((*FORWARD_HOOKS, module)),
        _evaluated(module),
        _without_gradients(module),
        _chance(module, seed),
    ):
        yield


@contextlib.contextmanager
def beside(module: nn.Module, *, values: bool) -> Iterator[Twin]:
    """A module's twin, in eval mode; what other threads do with the module goes on meanwhile.

    What the code writes to what is shared (globals, attributes of classes, caches) is undone at the end. So are draws
    of NumPy's and Python's own generators, unless there are other threads, which may have drawn, and the code names no
    such generator; who runs the twin sees to torch's (:func:`pylinregion.capturing.operations.run`).

    Args:
        module: The module.
        values: As for :class:`pylinregion.caller.twin.Twin`.

    Raises:
        NoTwin: There can be no twin.
    """
    with _plain_autograd():
        with torch.no_grad():
            twin = Twin(module, values=values)
        known = (*twin.originals(), *(own for _, own in twin.tensors))
        roots = (twin.module, *(hook for hooks in twin.global_hooks for hook in hooks.values()))
        with (
            _undone(roots, but=known) as contents,
            twin.instead_of_global_hooks(),
            _pythons_chance() if contents.draws or alone() else contextlib.nullcontext(),
        ):
            _evaluate(twin.module)
            yield twin


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
def _undone(roots: Iterable[Any], but: Iterable[Any] = ()) -> Iterator[Contents]:
    """What code writes to in Python, and to plain tensors, is undone."""
    contents = Contents(roots, True, but)
    try:
        yield contents
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
    with torch.random.fork_rng(devices), _pythons_chance():
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every device
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        yield


@contextlib.contextmanager
def _pythons_chance() -> Iterator[None]:
    """Afterwards the generators of NumPy and Python are where they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def alone() -> bool:
    """Whether this is the only thread."""
    return len(sys._current_frames()) == 1


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
