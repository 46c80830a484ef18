"""Tracers of torch patch the whole process while they trace: here, for the thread that traces alone.

They put functions of their own in the place of ``nn.Module.__call__``, of ``max`` and of others, and set flags that
torch's code asks. Other threads would run into the tracer, or go other ways.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import inspect
import math
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.fx._symbolic_trace as symbolic_trace

_FLAGS = {"_is_compiling_flag": "is_compiling", "_is_exporting_flag": "is_exporting"}  # and who tells of them


def no_compilation() -> contextlib.AbstractContextManager[Any]:
    """Inside, what other threads compile, which is to trace as well, waits.

    All that traces is imported before: packages that torch brings (``filelock``) let an import wait for a fork that has
    begun, which waits for captures.
    """
    import torch._dynamo.convert_frame
    import torch._dynamo.eval_frame
    import torch._export.non_strict_utils
    import torch.export._trace

    lock: contextlib.AbstractContextManager[Any] = torch._dynamo.convert_frame.compile_lock
    return lock


def compilation_in_child() -> None:
    """In a process that was forked: let go what a thread held that is not there, and had ended its capture by then."""
    compiler = sys.modules.get("torch._dynamo.convert_frame")
    lock = getattr(compiler, "compile_lock", None)
    if lock is not None and not lock._is_owned():
        lock._at_fork_reinit()


@contextlib.contextmanager
def of_one_thread() -> Iterator[None]:
    """Inside, what tracers patch and set is so for the thread that traces, whichever that is."""
    import torch._dynamo.eval_frame
    import torch.export._trace

    trace = inspect.unwrap(symbolic_trace.Tracer.trace)  # torch.compile wraps it, so as not to compile it
    private = types.FunctionType(
        trace.__code__, {**trace.__globals__}, trace.__name__, trace.__defaults__
    )  # for a flag
    places = torch.export._trace, torch._dynamo.eval_frame
    with contextlib.ExitStack() as scope:
        scope.enter_context(_put(symbolic_trace.Tracer, "trace", private))
        scope.enter_context(_put(symbolic_trace, "_Patcher", _Patcher))
        for place in places:
            for name, own in (("_compiling_state_context", _compiling), ("_override_builtin_ops", _builtins)):
                if hasattr(place, name):
                    scope.enter_context(_put(place, name, own))
        yield


class _Patcher(symbolic_trace._Patcher):
    """That of ``torch.fx``; what it patches is what it was for other threads."""

    def patch(self, frame_dict: dict[str, Any], name: str, new_fn: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """Put a function in the place of a global one."""
        before = frame_dict.get(name, getattr(builtins, name, None))
        super().patch(frame_dict, name, _here(new_fn, before), *args, **kw)

    def patch_method(self, cls: type, name: str, new_fn: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """Put a function in the place of a method."""
        super().patch_method(cls, name, _here(new_fn, getattr(cls, name)), *args, **kw)


def _here(new: Callable[..., Any], before: Any) -> Callable[..., Any]:
    """A function that is the new one in this thread, and in others what was there before."""
    thread = threading.get_ident()

    @functools.wraps(new)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == thread else before)(*args, **kwargs)

    return either


class _Here:
    """True in the thread that made it; in others what was there before."""

    def __init__(self, before: Any) -> None:
        self._thread, self._before = threading.get_ident(), before

    def __bool__(self) -> bool:
        return threading.get_ident() == self._thread or bool(self._before)


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """``torch.compiler`` says that this thread compiles and exports."""
    with contextlib.ExitStack() as scope:
        for flag, function in _FLAGS.items():
            if hasattr(torch.compiler, flag):
                scope.enter_context(_put(torch.compiler, flag, _Here(getattr(torch.compiler, flag))))
                scope.enter_context(_put(torch.compiler, function, _as_bool(getattr(torch.compiler, function))))
        yield


def _as_bool(function: Callable[[], Any]) -> Callable[[], bool]:
    @functools.wraps(function)
    def called() -> bool:
        return bool(function())

    return called


@contextlib.contextmanager
def _builtins() -> Iterator[None]:
    """What ``torch.export`` makes of Python's ``max``, ``min`` and ``math.pow``, which are to take its symbols."""
    theirs = torch._export.non_strict_utils._override_builtin_ops.__wrapped__  # type: ignore[attr-defined]
    spaces = [(real, types.SimpleNamespace(**vars(real))) for real in (builtins, math)]
    private = types.FunctionType(
        theirs.__code__, {**theirs.__globals__, "builtins": spaces[0][1], "math": spaces[1][1]}, theirs.__name__
    )
    with contextlib.contextmanager(private)(), contextlib.ExitStack() as scope:
        for real, copy in spaces:
            for name, new in vars(copy).items():
                if new is not (before := getattr(real, name)):
                    scope.enter_context(_put(real, name, _here(new, before)))
        yield


@contextlib.contextmanager
def _put(place: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute has another value inside."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)
