"""Forward-mode differentiation by several threads, and inside of a caller's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd import forward_ad


class _Level:
    """The level of forward-mode differentiation; torch has one for the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._opened: Any = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Callable[[], bool]]:
        """Open it, unless it is: several threads may use it, each tensors of its own.

        Yields:
            Whether it is still the same one. If not, a caller who had opened it has closed it, and what was made in it
            has lost its derivatives.
        """
        with self._lock:
            if self._users == 0:
                self._opened = forward_ad.dual_level()
                try:
                    self._opened.__enter__()
                except RuntimeError:  # somebody else has
                    self._opened = None
            self._users += 1
        try:
            zero = torch.zeros((), dtype=torch.float64, device="cpu")
            witness = forward_ad.make_dual(zero, zero + 1, level=0)  # type: ignore[no-untyped-call]
            yield lambda: forward_ad.unpack_dual(witness, level=0).tangent is not None  # type: ignore[no-untyped-call]
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and self._opened is not None:
                    self._opened.__exit__(None, None, None)


_level = _Level()


def pushed_forward(
    function: Callable[[torch.Tensor], list[torch.Tensor]], x: torch.Tensor, tangents: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Values of a function, and their derivatives along directions.

    Args:
        function: Of a tensor.
        x: Where.
        tangents: Like ``x``: the directions.

    Returns:
        The values and their derivatives, 0 where a value does not depend on ``x``.
    """
    while True:
        with _level() as is_open:
            dual = forward_ad.make_dual(x, tangents, level=0)  # type: ignore[no-untyped-call]
            pairs = [forward_ad.unpack_dual(value, level=0) for value in function(dual)]  # type: ignore[no-untyped-call]
            found = [(value, torch.zeros_like(value) if tangent is None else tangent) for value, tangent in pairs]
            if is_open():
                return found
