"""The instruction sets of the CPU kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pylinregion.native.extension import _C


def simd() -> str:
    """The instruction set of the CPU kernels: ``"avx512"``, ``"avx2"``, ``"neon"`` or ``"portable"``."""
    return _C.simd()


def simd_sets() -> list[str]:
    """Those that this machine has, the best first."""
    return [name for name in ("avx512", "avx2", "neon", "portable") if _C.has_simd(name)]


@contextmanager
def use_simd(name: str) -> Iterator[None]:
    """Use a lesser instruction set for a while.

    Raises:
        ValueError: This machine has none of that name.
    """
    before = _C.simd()
    _C.set_simd(name)
    try:
        yield
    finally:
        _C.set_simd(before)
