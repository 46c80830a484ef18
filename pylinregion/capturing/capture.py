"""From an ``nn.Module`` to a :class:`~pylinregion.graph.network.Network`, once for every state of the module.

The model is traced (:mod:`~pylinregion.capturing.tracing`), its operators are classified
(:mod:`~pylinregion.capturing.classify`), and the result is checked against the model on fresh inputs
(:mod:`~pylinregion.capturing.selfcheck`). Before a network is used again, the model is asked whether it still runs the
same operators (:mod:`~pylinregion.capturing.operations`).
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion._util.errors import PylinregionError, UnsupportedModelError
from pylinregion.caller.isolation import isolated, ordinary_tensors
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.torch_settings import interruptible, own_operators, silent, traceable
from pylinregion.caller.wrappers import unwrap
from pylinregion.capturing import classify, guards, operations, selfcheck, tracing
from pylinregion.capturing.branches import Noting
from pylinregion.capturing.fingerprint import Fingerprint, fingerprint
from pylinregion.graph.network import Network
from pylinregion.graph.source import place_in_users_code
from pylinregion.views.free_input import needed_inputs
from pylinregion.views.model_view import innermost, reference

_ROWS = 2  # with which a model is asked
_CALLS = {nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__}

_lock = threading.RLock()  # tracers set much of the process
_cache: weakref.WeakKeyDictionary[nn.Module, dict[Any, Network]] = weakref.WeakKeyDictionary()
_origins: weakref.WeakKeyDictionary[Network, _Origin] = weakref.WeakKeyDictionary()


@dataclass
class _Origin:
    """What a network was captured from.

    Attributes:
        module: Gives the model while it lives.
        rows: ``[2, *input_shape]``, some of the points it was captured with.
        parts: How it is put together.
        items: Whether the network takes numbers out of tensors itself.
        transcript: What it runs; None if its parts say all.
    """

    module: Callable[[], nn.Module | None]
    rows: Tensor
    parts: Fingerprint
    items: bool
    transcript: operations.Transcript | None

    @staticmethod
    def of(network: Network, module: nn.Module, rows: Tensor) -> _Origin:
        """A module as it is."""
        items = any(node.op_name in ("item", "_local_scalar_dense") for node in network.nodes)
        origin = _Origin(reference(module), rows, fingerprint(module), items, None)
        # Needed or not: it finds what the tracer left behind.
        transcript = origin._run(operations.transcript, network, module)
        if not origin.parts.complete:
            origin.transcript = transcript
        return origin

    def holds(self, network: Network) -> bool:
        """Whether the module, while it lives, computes what the network does."""
        module = self.module()
        if module is None:
            return True
        if fingerprint(module) != self.parts:
            return False
        if self.transcript is None:
            return True
        try:
            if self._run(functools.partial(operations.repeats, self.transcript), network, module):
                return True
        except Exception:  # whatever the model raises: it did not before
            return False
        with traceable():  # with values that it checks for, the model goes another way here: a count says so itself
            return selfcheck.not_finite(network, self.rows) is not None

    def _run(self, look: Callable[..., Any], network: Network, module: nn.Module) -> Any:
        """Let one of :mod:`pylinregion.capturing.operations` look at the module while it runs."""
        tensors = [
            tensor
            for part in module.modules()
            for own in (part._parameters, part._buffers)
            for tensor in own.values()
            if tensor is not None
        ]
        with isolated(module, beside_training=True), own_operators():
            return look(module, self.rows.clone(), tensors, network.state.values(), self.items)


@plain_torch()
def capture(model: nn.Module | torch.export.ExportedProgram | Network, example: Tensor) -> Network:
    """Capture the operators of a model, once, for points like ``example``.

    The network is the model in eval mode: the mode is switched while it is captured and restored afterwards. It shares
    storage with the live model, so counts made with it are those of the current weights. All else that the forward pass
    reads (``self.alpha``) is fixed at its value. Whenever a capture is used again, the model runs once on two points
    (its hooks are called), and if it runs other operators than before, or the same with other numbers,
    :func:`pylinregion.count_regions` given the module captures again; given the network it raises.

    What the forward pass and hooks write to in Python or to tensors is put back. Captures in several threads wait for
    each other. While one thread captures a model for the first time, no other may run it.

    Args:
        model: A module that takes one tensor (:func:`pylinregion.fix` makes one of a module of several inputs), also
            wrapped by ``torch.compile`` or data-parallel wrappers; an ``ExportedProgram`` whose batch dimension is
            dynamic; or a network (returned as it is).
        example: ``[B, *input_shape]``, of the model's dtype, on its device; ``B`` may be 0: some points are drawn
            then. Values are used to trace and to check the trace only.

    Returns:
        The network.

    Raises:
        UnsupportedModelError: An operator is not in the table, the model depends on chance, on the batch or branches on
            data, or the captured network does not reproduce the model. The message names operator, module and line.
            Or ``model`` is a network whose module has changed in more than the values of its tensors.
        PylinregionError: Another thread runs the model, which is not captured yet.
        ValueError: ``example`` has no batch dimension.
        TypeError: ``model`` or ``example`` is of another type, or the model returns no tensor.
    """
    if isinstance(model, Network):
        _follow(model)
        return model
    checks.floating_tensor("example", example)
    if example.dim() < 1:
        raise ValueError("example must be [B, *input_shape], got a tensor without dimensions")
    if isinstance(model, torch.export.ExportedProgram):
        with _lock, interruptible(), silent(), traceable():
            return _from_exported(model, tracing.example_rows(example))
    module = unwrap(model)
    with _lock:
        captured = _cache.setdefault(module, {})
        key = (tuple(example.shape[1:]), example.dtype, example.device)
        if (network := captured.get(key)) is not None and _origins[network].holds(network):
            network.rebind()
            if guards.broken(network) is None:
                return network
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise UnsupportedModelError(
                "a TorchScript module cannot be captured: give the module that it was made from"
            )
        _check_not_running(module)
        with torch.inference_mode(False):
            rows = tracing.example_rows(example)
        with interruptible(), silent(), isolated(module), ordinary_tensors(module), traceable():
            network = _from_module(module, rows)
        network.rebind()
        # Afterwards: a lazy module has its shapes only then, and what was not put back shows.
        _origins[network] = _Origin.of(network, module, rows[:_ROWS])
        captured[key] = network
        return network


def capture_for_shape(model: nn.Module | torch.export.ExportedProgram | Network, shape: Sequence[int]) -> Network:
    """:func:`capture` for those who look at the function and not at points of their own: for points of a shape.

    Some are drawn, in the dtype and on the device that the model has. Who evaluates a network at the caller's points
    captures with these: what a model does where its input never is (logarithms of less than 0) checks nothing.

    Raises:
        UnsupportedModelError, PylinregionError, ValueError, TypeError: As :func:`capture`.
    """
    if isinstance(model, Network):
        _follow(model)
        return model
    dtype, device = _dtype_and_device(model)
    return capture(model, torch.empty(0, *shape, dtype=dtype, device=device))


def _follow(network: Network) -> None:
    """Let a network read the tensors that its module has now.

    Raises:
        UnsupportedModelError: The module is not the one that was captured.
    """
    network.rebind()
    guards.check(network)
    origin = _origins.get(network)
    if origin is None:
        return
    with _lock:
        if not origin.holds(network):
            raise UnsupportedModelError(
                "the model has changed in more than the values of its tensors since the network was captured: "
                "capture the model again"
            )


def _check_not_running(module: nn.Module) -> None:
    """No other thread is in a forward pass of the module, which would be traced along with it.

    Raises:
        PylinregionError: One is.
    """
    parts = set(module.modules())
    for thread, top in sys._current_frames().items():
        frame: Any = top if thread != threading.get_ident() else None
        while frame is not None:
            if frame.f_code in _CALLS and frame.f_locals.get("self") in parts:
                raise PylinregionError(
                    "another thread runs the model, which is not captured yet: capture it before that thread begins, "
                    "with pylinregion.capture(model, x)"
                )
            frame = frame.f_back


def _dtype_and_device(model: Any) -> tuple[torch.dtype, torch.device]:
    """Those of the points that a model takes: its parameters' and buffers', or its example input's.

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
    return (torch.get_default_dtype(), torch.device("cpu")) if given is None else (given.dtype, given.device)


def _from_module(module: nn.Module, example: Tensor) -> Network:
    own = innermost(module)
    try:
        with Noting(module) as noted:
            output = operations.run(module, example.clone())
    except (torch.OutOfMemoryError, PylinregionError):
        raise
    except Exception as error:  # whatever the model raises; the tracers would say it less clearly
        if _needs_gradients(module, example):
            at = place_in_users_code(error, own)
            raise UnsupportedModelError(f"the model takes gradients in its forward pass{at}") from error
        needed = needed_inputs(module)
        if len(needed) > 1:
            names = ", ".join(map(repr, needed))
            raise ValueError(
                f"the model must take one tensor, and needs {len(needed)} inputs, {names}: plr.fix holds all but one"
            ) from error
        points = f"x must be points the model takes, got [B, {', '.join(map(str, example.shape[1:]))}]"
        raise ValueError(f"{points} {example.dtype}, and the model raised {type(error).__name__}: {error}") from error
    tracing.output_tensors(output)
    _check_not_rewritten(module, example)
    watched = functools.partial(operations.run, module)
    _leave_out_observers(module, example)
    reasons: list[BaseException] = []
    for attempt in tracing.attempts(module, example, noted.asked):
        try:
            network = classify.build(attempt(), example)
            selfcheck.same_function(network, watched, example)
        except tracing.FinalRefusal as error:
            raise UnsupportedModelError(str(error)) from None
        except UnsupportedModelError as error:
            reasons.append(error)
        except Exception as error:  # tracers fail in many ways; the reason is kept
            reasons.append(error)
        else:
            network.module = weakref.ref(own)
            return network
    ours = next((error for error in reasons if isinstance(error, UnsupportedModelError)), None)
    if ours is not None:
        raise ours
    raise UnsupportedModelError(tracing.failure(reasons, module)) from reasons[0]


def _needs_gradients(module: nn.Module, example: Tensor) -> bool:
    """Whether a forward pass that failed without gradients runs with them."""
    try:
        with torch.enable_grad():
            operations.run(module, example.clone())
    except Exception:  # it failed before
        return False
    return True


def _check_not_rewritten(module: nn.Module, example: Tensor) -> None:
    """The outputs do not depend on what the forward pass itself has written to the model's tensors, or to others.

    Raises:
        UnsupportedModelError: They do.
    """
    own = innermost(module)
    names = {
        tensor.data_ptr(): f"'{name}' of the model" for name, tensor in (*own.named_parameters(), *own.named_buffers())
    }
    written = [
        names.get(t.data_ptr(), "a tensor that was there before")
        for t in operations.overwritten(module, example.clone())
    ]
    written += [
        f"'{name}' of the model" for name, parameter in own.named_parameters() if parameter.data_ptr() not in names
    ]
    if written:
        raise UnsupportedModelError(f"the forward pass changes {written[0]}, and what it returns depends on that")


def _leave_out_observers(module: nn.Module, example: Tensor) -> None:
    """Take away the hooks without which the model computes the same: what they keep is none of the tracers' business.

    :func:`pylinregion.caller.isolation.isolated` gives them back.
    """
    tensors = (*module.parameters(), *module.buffers())

    def same() -> bool:
        try:
            return operations.repeats(transcript, module, example.clone(), tensors)
        except Exception:  # the forward pass needs what the hook does
            return False

    hooks = [(own, key) for own in _hooks(module) for key in own]
    if not hooks:
        return
    transcript = operations.transcript(module, example.clone(), tensors)
    before = [(own, dict(own)) for own in _hooks(module)]
    for own, key in hooks:
        del own[key]
    if same():
        return
    for own, content in before:
        own.update(content)
    for own, key in hooks:
        content = dict(own)
        del own[key]
        if not same():
            own.clear()
            own.update(content)  # in the order that they had


def _hooks(module: nn.Module) -> Iterator[dict[int, Callable[..., Any]]]:
    yield from (nn.modules.module._global_forward_pre_hooks, nn.modules.module._global_forward_hooks)
    for part in module.modules():
        yield from (part._forward_pre_hooks, part._forward_hooks)


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
        network = classify.build(tracing.traced_program(program, "ExportedProgram"), example)
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
