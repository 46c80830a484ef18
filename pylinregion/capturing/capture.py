"""From an ``nn.Module`` to a :class:`~pylinregion.graph.network.Network`, once for every state of the module.

The model is traced (:mod:`~pylinregion.capturing.tracing`), its operators are classified
(:mod:`~pylinregion.capturing.classify`), and the result is checked against the model on fresh inputs
(:mod:`~pylinregion.capturing.selfcheck`). Before a network is used again, the model is asked whether it still runs the
same operators (:mod:`~pylinregion.capturing.operations`).
"""

from __future__ import annotations

import contextlib
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
from pylinregion.caller.isolation import beside, isolated, ordinary_tensors
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.reachable import FORWARD_HOOKS
from pylinregion.caller.torch_settings import at_forks, interruptible, own_operators, silent, traceable
from pylinregion.caller.twin import NoTwin, Twin
from pylinregion.caller.wrappers import unwrap
from pylinregion.capturing import classify, guards, operations, patches, selfcheck, tracing
from pylinregion.capturing.branches import Noting
from pylinregion.capturing.fingerprint import Fingerprint, fingerprint
from pylinregion.graph.network import Network
from pylinregion.graph.source import place_in_users_code
from pylinregion.views.free_input import needed_inputs
from pylinregion.views.model_view import innermost, reference

_ROWS = 2  # with which a model is asked
_CALLS = {nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__}

_lock = threading.RLock()  # tracers set much of the process
at_forks(_lock, patches.compilation_in_child)
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
        itself: Whether the module is run itself, for its twin is not like it.
        copied: Whether its twin has tensors of its own, for it writes to them.
    """

    module: Callable[[], nn.Module | None]
    rows: Tensor
    parts: Fingerprint
    items: bool
    transcript: operations.Transcript | None
    itself: bool
    copied: bool

    @staticmethod
    def of(network: Network, module: nn.Module, rows: Tensor, made: _Made) -> _Origin:
        """A module as it is."""
        items = any(node.op_name in ("item", "_local_scalar_dense") for node in network.nodes)
        origin = _Origin(reference(module), rows, fingerprint(module), items, None, made.itself, made.writes)
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
        """Let one of :mod:`pylinregion.capturing.operations` look at the module's twin while that runs."""
        with contextlib.ExitStack() as scope:
            if self.itself:
                _check_not_running(module)
                scope.enter_context(isolated(module))
                runs = module
            else:
                runs = scope.enter_context(beside(module, values=self.copied)).module
            scope.enter_context(own_operators())
            scope.enter_context(torch.no_grad())
            tensors = [
                tensor
                for part in runs.modules()
                for own in (part._parameters, part._buffers)
                for tensor in own.values()
                if tensor is not None
            ]
            return look(runs, self.rows.clone(), tensors, network.state.values(), self.items)


@plain_torch()
def capture(model: nn.Module | torch.export.ExportedProgram | Network, example: Tensor) -> Network:
    """Capture the operators of a model, once, for points like ``example``.

    The network is the model in eval mode: the mode is switched while it is captured and restored afterwards. It shares
    storage with the live model, so counts made with it are those of the current weights. All else that the forward pass
    reads (``self.alpha``) is fixed at its value. Whenever a capture is used again, the model runs once on two points
    (its hooks are called), and if it runs other operators than before, or the same with other numbers,
    :func:`pylinregion.count_regions` given the module captures again; given the network it raises.

    The model itself is not run, but its twin: new modules with tensors of their own. So another thread may train the
    model meanwhile. What the twin's forward pass and hooks write to globals and attributes of classes is put back.
    Captures in several threads wait for each other. See docs/architecture.md, "Threads".

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
        PylinregionError: Another thread runs the model, whose code reaches the model itself by a global name, or which
            has lazy parts: neither has a twin.
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
        with patches.no_compilation(), _lock, interruptible(), silent(), traceable():
            return _from_exported(model, tracing.example_rows(example))
    module = unwrap(model)
    key = (tuple(example.shape[1:]), example.dtype, example.device)
    with _lock:
        if (network := _kept(module, key)) is not None:
            return network
    with patches.no_compilation(), _lock:  # in this order: who compiles may fork, which waits for captures
        if (network := _kept(module, key)) is not None:  # another thread has captured it meanwhile
            return network
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise UnsupportedModelError(
                "a TorchScript module cannot be captured: give the module that it was made from"
            )
        with torch.inference_mode(False):
            rows = tracing.example_rows(example)
        with interruptible(), silent():
            made = _from_module(module, rows)
        network = made.network
        network.rebind()
        # Afterwards: what was not put back shows.
        _origins[network] = _Origin.of(network, module, rows[:_ROWS], made)
        _cache.setdefault(module, {})[key] = network
        return network


def _kept(module: nn.Module, key: Any) -> Network | None:
    """The network that was made of the module for such points, if it still is the module's."""
    network = _cache.get(module, {}).get(key)
    if network is None or not _origins[network].holds(network):
        return None
    network.rebind()
    return network if guards.broken(network) is None else None


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
    """No other thread is in a forward pass of the module, which is to be run and traced itself.

    Raises:
        PylinregionError: One is.
    """
    parts = set(module.modules())
    for thread, top in sys._current_frames().items():
        frame: Any = top if thread != threading.get_ident() else None
        while frame is not None:
            if frame.f_code in _CALLS and frame.f_locals.get("self") in parts:
                raise PylinregionError(
                    "another thread runs the model, which cannot be captured meanwhile, for it has lazy parts, or its "
                    "code reaches it by a global name: capture it before that thread begins, with "
                    "pylinregion.capture(model, x)"
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


class _Unlike(Exception):
    """A module's twin does not do what the module does."""


@dataclass
class _Made:
    """What comes of a module.

    Attributes:
        network: The network, with the module's own tensors.
        itself: Whether it is from the module itself, and not from its twin.
        writes: Whether the forward pass writes to tensors of the module.
    """

    network: Network
    itself: bool
    writes: bool


def _from_module(module: nn.Module, example: Tensor) -> _Made:
    """A network from a module's twin, or from the module itself if its twin cannot be like it.

    Raises:
        UnsupportedModelError, PylinregionError, ValueError, TypeError: As :func:`capture`.
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        _check_not_running(module)
        with isolated(module), traceable():
            _run_once(module, example)
    try:
        with beside(module, values=True) as twin, traceable():
            made = _network_of(twin.module, example, twin)
        live = _Live(twin)
        made.network.state = {name: live.of(tensor) for name, tensor in made.network.state.items()}
    except (NoTwin, _Unlike):
        _check_not_running(module)
        with isolated(module), ordinary_tensors(module), traceable():
            made = _network_of(module, example)
    made.network.module = weakref.ref(innermost(module))
    return made


def _of_the_users(twin: Twin) -> list[Tensor]:
    """The tensors of the user's modules that a twin has copies of, and should not look at."""
    own = {id(t) for t in (*twin.module.parameters(), *twin.module.buffers())}
    return [tensor for tensor, copy in twin.tensors if id(copy) in own and tensor.numel()]


class _Live:
    """Finds the tensor of the user's that a twin's is the twin of."""

    def __init__(self, twin: Twin) -> None:
        self._of = {id(own): tensor for tensor, own in twin.tensors}
        self._at = {own.data_ptr(): (own, tensor) for tensor, own in twin.tensors if own.numel()}

    def of(self, tensor: Tensor) -> Tensor:
        """The tensor itself if it is no twin; tracers hand out others that look at the same memory."""
        if (found := self._of.get(id(tensor))) is not None:
            return found
        own, live = self._at.get(tensor.data_ptr(), (tensor, tensor))
        same = (own.shape, own.dtype, own.stride()) == (tensor.shape, tensor.dtype, tensor.stride())
        return live if same else tensor


def _network_of(module: nn.Module, example: Tensor, twin: Twin | None = None) -> _Made:
    """A network from a module that is the user's twin, or itself."""
    noted = _run_once(module, example)
    if twin is not None and operations.reads(module, example.clone(), _of_the_users(twin)):
        raise _Unlike
    writes = operations.writes(module, example.clone())
    _check_not_rewritten(module, example)
    watched = functools.partial(operations.run, module)
    _leave_out_observers(module, example, twin)
    reasons: list[BaseException] = []
    for attempt in tracing.attempts(module, example, noted.asked):
        try:
            with patches.of_one_thread():
                traced = attempt()
            network = classify.build(traced, example)
            selfcheck.same_function(network, watched, example)
        except tracing.FinalRefusal as error:
            raise UnsupportedModelError(str(error)) from None
        except UnsupportedModelError as error:
            reasons.append(error)
        except Exception as error:  # tracers fail in many ways; the reason is kept
            reasons.append(error)
        else:
            return _Made(network, twin is None, writes)
    ours = next((error for error in reasons if isinstance(error, UnsupportedModelError)), None)
    if ours is not None:
        raise ours
    raise UnsupportedModelError(tracing.failure(reasons, module)) from reasons[0]


def _run_once(module: nn.Module, example: Tensor) -> Noting:
    """Run the module with values; gives what it asks of them.

    Raises:
        UnsupportedModelError, ValueError, TypeError: It cannot be run so, or returns no tensor.
    """
    own = innermost(module)
    try:
        noted = Noting(module)
        with noted:
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
    return noted


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


def _leave_out_observers(module: nn.Module, example: Tensor, twin: Twin | None) -> None:
    """Take away the hooks without which the model computes the same: what they keep is none of the tracers' business.

    Those of a twin are its own; :func:`pylinregion.caller.isolation.isolated` gives the module's back.
    """
    tensors = (*module.parameters(), *module.buffers())

    def same() -> bool:
        try:
            return operations.repeats(transcript, module, example.clone(), tensors)
        except Exception:  # the forward pass needs what the hook does
            return False

    hooks = [(own, key) for own in _hooks(module, twin) for key in own]
    if not hooks:
        return
    transcript = operations.transcript(module, example.clone(), tensors)
    before = [(own, dict(own)) for own in _hooks(module, twin)]
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


def _hooks(module: nn.Module, twin: Twin | None) -> Iterator[dict[int, Callable[..., Any]]]:
    yield from FORWARD_HOOKS if twin is None else twin.global_hooks
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
        with patches.of_one_thread():  # it may be traced once more, without mutations
            traced = tracing.traced_program(program, "ExportedProgram")
        network = classify.build(traced, example)
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
