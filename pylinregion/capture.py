"""From an ``nn.Module`` to a :class:`~pylinregion.network.Network`, once for every state of the module.

The model is traced (:mod:`pylinregion.tracing`), its operators are classified (:mod:`pylinregion.classify`), and the
result is checked against the model on fresh inputs (:mod:`pylinregion.selfcheck`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion import _checks, classify, guards, selfcheck, tracing
from pylinregion.branches import Noting
from pylinregion.errors import UnsupportedModelError
from pylinregion.fingerprint import fingerprint
from pylinregion.module_state import evaluation_mode, undisturbed, unwrap
from pylinregion.network import Network
from pylinregion.surroundings import plain_torch
from pylinregion.torch_state import quiet, traceable

_cache: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[Any, Network]]] = weakref.WeakKeyDictionary()


@plain_torch()
def capture(model: nn.Module | torch.export.ExportedProgram | Network, example: Tensor) -> Network:
    """Capture the operators of a model, once, for points like ``example``.

    The network is the model in eval mode: the mode is switched while it is captured and restored afterwards. It shares
    storage with the live model, so counts made with it are those of the current weights. Plain Python attributes that
    the forward pass reads (``self.alpha``) are fixed at their value; :func:`pylinregion.count_regions` given the module
    captures again when one changes.

    Args:
        model: A module that takes one tensor; also one wrapped by ``torch.compile`` or data-parallel wrappers, an
            ``ExportedProgram`` whose batch dimension is dynamic, or a network (returned as it is).
        example: ``[B, *input_shape]``, of the model's dtype, on its device; ``B`` may be 0. Its values are used to
            trace and to check the trace only.

    Returns:
        The network.

    Raises:
        UnsupportedModelError: An operator is not in the table, the model depends on chance, on the batch or branches on
            data, or the captured network does not reproduce the model. The message names operator, module and line.
        ValueError: ``example`` has no batch dimension.
        TypeError: ``model`` or ``example`` is of another type, or the model returns no tensor.
    """
    if isinstance(model, Network):
        model.rebind()
        guards.check(model)
        return model
    _checks.floating_tensor("example", example)
    if example.dim() < 1:
        raise ValueError("example must be [B, *input_shape], got a tensor without dimensions")
    if isinstance(model, torch.export.ExportedProgram):
        with torch.inference_mode(False), quiet(), traceable():
            return _from_exported(model, tracing.example_rows(example))
    module = unwrap(model)
    key = (tuple(example.shape[1:]), example.dtype, example.device)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise UnsupportedModelError("a TorchScript module cannot be captured: give the module that it was made from")
    captured = _cache.setdefault(module, {})
    if key in captured and captured[key][0] == fingerprint(module):
        network = captured[key][1]
        network.rebind()
        if guards.broken(network) is None:
            return network
    with torch.inference_mode(False), quiet(), evaluation_mode(module), undisturbed(module), traceable():
        network = _from_module(module, tracing.example_rows(example))
    captured[key] = (fingerprint(module), network)  # afterwards: a lazy module has its shapes only then
    return network


def in_model_dtype(model: nn.Module | torch.export.ExportedProgram, point: Tensor) -> Tensor:
    """A point in the dtype and on the device that the model's parameters have, or its example input.

    Raises:
        TypeError: ``model`` is of another type.
    """
    if isinstance(model, torch.export.ExportedProgram):
        names = model.graph_signature.user_inputs
        inputs = [node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder" and node.name in names]
        given: Any = next((value for value in inputs if isinstance(value, Tensor)), None)
    elif isinstance(model, nn.Module):
        given = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), None)
    else:
        raise TypeError(
            f"model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got {type(model).__name__}"
        )
    if given is None:
        return point.to("cpu", torch.get_default_dtype())
    return point.to(given.device, given.dtype)


def _from_module(module: nn.Module, example: Tensor) -> Network:
    try:
        with Noting(module) as noted:
            output = module(example)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the model raises; the tracers would say it less clearly
        points = f"x must be points the model takes, got [B, {', '.join(map(str, example.shape[1:]))}]"
        raise ValueError(f"{points} {example.dtype}, and the model raised {type(error).__name__}: {error}") from error
    tracing.output_tensors(output)
    reasons: list[BaseException] = []
    for attempt in tracing.attempts(module, example, noted.asked):
        try:
            network = classify.build(attempt(), example)
            selfcheck.same_function(network, module, example)
        except tracing.FinalRefusal as error:
            raise UnsupportedModelError(str(error)) from None
        except UnsupportedModelError as error:
            reasons.append(error)
        except Exception as error:  # tracers fail in many ways; the reason is kept
            reasons.append(error)
        else:
            network.module = weakref.ref(module)
            return network
    ours = next((error for error in reasons if isinstance(error, UnsupportedModelError)), None)
    if ours is not None:
        raise ours
    raise UnsupportedModelError(tracing.failure(reasons[0], module)) from reasons[0]


def _from_exported(program: torch.export.ExportedProgram, example: Tensor) -> Network:
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        wanted = [size if isinstance(size, int) else "any" for size in inputs[0].shape[1:]]
        given = list(example.shape[1:])
        if len(given) != len(wanted) or any(w not in (g, "any") for g, w in zip(given, wanted, strict=True)):
            sizes = ", ".join(map(str, wanted))
            raise ValueError(
                f"x must be [B, {sizes}], as the program was exported, got [B, {', '.join(map(str, given))}]"
            )
        if example.dtype != inputs[0].dtype:
            raise TypeError(f"x must be {inputs[0].dtype}, as the program was exported, got {example.dtype}")
    try:
        network = classify.build(tracing.program_trace(program, "ExportedProgram"), example)
        selfcheck.same_function(network, _of_any_size(program.module()), example)
    except tracing.FinalRefusal as error:
        raise UnsupportedModelError(str(error)) from None
    return network


def _of_any_size(module: nn.Module) -> Callable[[Tensor], Any]:
    """The module of a program; torch's checks of the sizes that it was exported for are refusals."""

    def run(x: Tensor) -> Any:
        try:
            return module(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            raise UnsupportedModelError(
                f"the program does not take {len(x)} points, and must take any number of them: {error}"
            ) from error

    return run
