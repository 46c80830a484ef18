"""Switches of torch that are set for a while and put back."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

_PRECISIONS = (  # torch's settings of float32 precision, each with the one that it follows where it was not set
    (("generic", "all"), None),
    *(((backend, "all"), ("generic", "all")) for backend in ("cuda", "mkldnn")),
    *((("cuda", operator), ("cuda", "all")) for operator in ("matmul", "conv", "rnn")),
    *((("mkldnn", operator), ("mkldnn", "all")) for operator in ("matmul", "conv")),
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings, logs and prints about its own internals; what goes wrong is said in our errors."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch's loggers have levels and handlers of their own
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def one_thread() -> Iterator[int]:
    """Torch's operators on one thread; gives the number that was set, which is restored afterwards."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield n_threads
    finally:
        torch.set_num_threads(n_threads)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No TF32, no bfloat16 inside float32 products, no autocast; everything is restored afterwards.

    Torch's older switch of TF32 in cuDNN is off too: ``torch.export`` reads it, which raises where it and the newer
    settings differ.
    """
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
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
    for key, _ in _PRECISIONS:
        setter(*key, "ieee")
    try:
        older = torch._C._get_cudnn_allow_tf32()
    except RuntimeError:  # it differs from all the newer ones
        older = True
    torch._C._set_cudnn_allow_tf32(False)

    def restore() -> None:
        torch._C._set_cudnn_allow_tf32(older)  # sets newer ones as well
        for key, value, followed in before:
            setter(*key, "none" if value == followed else value)

    return restore


def _set_legacy() -> Callable[[], None]:
    matmul = torch.get_float32_matmul_precision()
    conv = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False

    def restore() -> None:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = conv

    return restore


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """In full precision, without gradients, compiled parts, and the fused attention path that hides a ReLU.

    Distributions do not check their arguments meanwhile, as under ``python -O``: that branches on values.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    validates = torch.distributions.Distribution._validate_args
    torch.backends.mha.set_fastpath_enabled(False)
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with torch.no_grad(), full_precision(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        torch.distributions.Distribution.set_default_validate_args(validates)
