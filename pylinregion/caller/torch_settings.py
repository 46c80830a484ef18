"""Switches of torch and of the process that are set for a while and put back.

Threads may have them set side by side: the first sets a switch, the last puts it back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch.nn.utils import parametrize

_PRECISIONS = (  # torch's settings of float32 precision, each with the one that it follows where it was not set
    (("generic", "all"), None),
    *(((backend, "all"), ("generic", "all")) for backend in ("cuda", "mkldnn")),
    *((("cuda", operator), ("cuda", "all")) for operator in ("matmul", "conv", "rnn")),
    *((("mkldnn", operator), ("mkldnn", "all")) for operator in ("matmul", "conv")),
)


def at_forks(lock: Any, in_child: Callable[[], None] = lambda: None) -> None:
    """Let a process be forked only while no other thread has a lock, which the child would wait for for ever.

    Args:
        lock: The lock.
        in_child: What the child does first.
    """

    def begin() -> None:
        try:
            in_child()
        finally:
            lock.release()

    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=begin)


class Switch:
    """A setting of the whole process, as a context manager that several threads may be in, each several times.

    Args:
        setting: A context manager without arguments, which sets it and puts it back.
    """

    def __init__(self, setting: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self._setting = setting
        self._lock = threading.RLock()
        self._users = 0
        self._set: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._own = threading.local()
        at_forks(self._lock, self._in_child)

    def __call__(self) -> Switch:
        """Itself: to be entered as often as one likes."""
        return self

    def __enter__(self) -> None:
        """Set it if nobody has yet."""
        with self._lock:
            if self._users == 0:
                setting = self._setting()
                setting.__enter__()
                self._set = setting
            self._users += 1
        self._own.depth = getattr(self._own, "depth", 0) + 1

    def __exit__(self, *error: object) -> None:
        """Put it back if nobody else is inside."""
        self._own.depth -= 1
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set.__exit__(None, None, None)

    @property
    def here(self) -> bool:
        """Whether this thread is inside."""
        return getattr(self._own, "depth", 0) > 0

    def _in_child(self) -> None:
        """Where a process was forked there is one thread, and those that were inside are not."""
        left, self._users = self._users > 0 and not self.here, getattr(self._own, "depth", 0)
        if left:
            self._set.__exit__(None, None, None)


class _Unheard(logging.Filter):
    """Matches the warnings of threads that are in a switch, and stops their logs and prints; others are heard."""

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self._switch = switch

    def match(self, text: str) -> bool:
        """What :mod:`warnings` asks of the expression for a message."""
        return self._switch.here

    def filter(self, record: Any) -> bool:
        """What :mod:`logging` asks."""
        return not self._switch.here


class _Stderr:
    """Standard error for the other threads."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> Any:
        """Write, unless this thread is silent."""
        return len(text) if silent.here else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@Switch
@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings."""
    entry: Any = ("ignore", _Unheard(quiet), Warning, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        lists: tuple[Any, Any] = (filters, warnings.filters)
        for found in lists:  # another list if somebody is, or was, in warnings.catch_warnings
            while entry in found:
                found.remove(entry)


@Switch
@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without torch's logs and prints about its own internals; what goes wrong is said in our errors."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]  # torch's have handlers of their own
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    unheard, stderr = _Unheard(silent), _Stderr(sys.stderr)
    for handler in handlers:
        handler.addFilter(unheard)
    sys.stderr = stderr
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(unheard)
        if sys.stderr is stderr:
            sys.stderr = stderr.stream


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """An interrupt is raised at the end, at the latest, whatever the code inside makes of it.

    Tracers run much code where Python cannot raise (callbacks, ``__del__``), or where everything is caught. Nothing
    changes in threads, which get no interrupts, and where the caller has a handler of its own.
    """
    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return
    came: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        came.append(number)
        usual(number, frame)

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    except Exception as error:
        if came:  # what it became
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        raise KeyboardInterrupt


class _Threads:
    """How many threads torch's operators take."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._before = 0, 1
        self._own = threading.local()
        at_forks(self._lock, self._in_child)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[int]:
        """One; gives the number that was set, which is restored afterwards."""
        with self._lock:
            own = torch.get_num_threads()
            if self._users == 0:
                self._before = own
            depth = getattr(self._own, "depth", 0)
            beside = own == 1 and depth == 0  # a thread that begins meanwhile finds the 1 that is set here
            n_threads = self._before if beside else own
            self._users, self._own.depth = self._users + 1, depth + 1
            torch.set_num_threads(1)
        try:
            yield n_threads
        finally:
            with self._lock:
                self._users, self._own.depth = self._users - 1, depth
                torch.set_num_threads(n_threads)

    def _in_child(self) -> None:
        self._users = getattr(self._own, "depth", 0)


one_thread = _Threads()


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many for torch's operators, which are as many as before afterwards."""
    with one_thread():
        torch.set_num_threads(count)
        yield


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No TF32, no bfloat16 inside float32 products, no autocast; everything is restored afterwards.

    Torch's older switch of TF32 in cuDNN is off too: ``torch.export`` reads it, which raises where it and the newer
    settings differ.
    """
    with contextlib.ExitStack() as off:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                off.enter_context(torch.autocast(device, enabled=False))
        off.enter_context(_ieee())
        yield


@Switch
@contextlib.contextmanager
def _ieee() -> Iterator[None]:
    getter = getattr(torch._C, "_get_fp32_precision_getter", None)
    setter = getattr(torch._C, "_set_fp32_precision_setter", None)
    restore = _set_legacy() if getter is None or setter is None else _set_by_operator(getter, setter)
    try:
        yield
    finally:
        restore()


def _set_by_operator(getter: Any, setter: Any) -> Callable[[], None]:
    """Torch >= 2.9: a setting per backend and operator, which follows the backend's, and that the generic one."""
    before = [(key, getter(*key), followed and getter(*followed)) for key, followed in _PRECISIONS]
    older = _older_switch()
    for key, _ in _PRECISIONS:
        setter(*key, "ieee")
    if older is None:
        older = _older_switch() is not False  # on, if it still differs
    torch._C._set_cudnn_allow_tf32(False)

    def restore() -> None:
        torch._C._set_cudnn_allow_tf32(older)  # sets newer ones as well
        for key, value, followed in before:
            setter(*key, "none" if value == followed else value)

    return restore


def _older_switch() -> bool | None:
    """Torch's older switch of TF32 in cuDNN; None if it differs from the newer settings, which torch refuses."""
    try:
        return bool(torch._C._get_cudnn_allow_tf32())
    except RuntimeError:
        return None


def _set_legacy() -> Callable[[], None]:
    matmul = torch.get_float32_matmul_precision()
    conv = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False

    def restore() -> None:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = conv

    return restore


@Switch
def eager() -> Any:
    """Without compiled code."""
    return torch.compiler.set_stance("force_eager")


class _Elsewhere:
    """A switch of torch's: off in threads that are inside, as it was in others."""

    def __init__(self, switch: Switch, before: Any) -> None:
        self._switch, self._before = switch, before

    def __bool__(self) -> bool:
        return bool(self._before) and not self._switch.here


@Switch
@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused path of attention, which hides a ReLU."""
    before: Any = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(_Elsewhere(plain_attention, before))  # type: ignore[arg-type]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@Switch
@contextlib.contextmanager
def computed_parametrizations() -> Iterator[None]:
    """``parametrize.cached()`` neither gives what it has nor keeps what is computed."""
    users = parametrize._cache_enabled
    parametrize._cache_enabled -= users
    try:
        yield
    finally:
        parametrize._cache_enabled += users


@Switch
@contextlib.contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Distributions do not check their arguments, as under ``python -O``: that branches on values."""
    kind: Any = torch.distributions.Distribution
    before = kind._validate_args
    kind._validate_args = _Elsewhere(unchecked_distributions, before)
    try:
        yield
    finally:
        kind._validate_args = before


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """As a model is traced: its own operators, in full precision, without gradients."""
    with torch.inference_mode(False), torch.no_grad(), full_precision(), own_operators():
        yield


@contextlib.contextmanager
def own_operators() -> Iterator[None]:
    """The operators that a model's code names, without warnings."""
    with quiet(), eager(), plain_attention(), computed_parametrizations(), unchecked_distributions():
        yield
