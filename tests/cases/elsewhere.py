"""A device that this machine has: its tensors say that they are elsewhere, and are computed with here.

Within :func:`elsewhere` torch's device ``meta`` has numbers. What would be an error on a GPU is one here: an operator
on tensors of both devices (but numbers, and indices of the CPU), and an array of a tensor that was not fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

THERE = torch.device("meta")
_TAKE_BOTH = ("copy_", "_to_copy", "index", "index_put_", "_index_put_impl_")
_TELL_NUMBERS = ("_local_scalar_dense", "equal")


class Elsewhere(torch.Tensor):
    """A tensor there."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Elsewhere:
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=THERE,
        )
        found.here = here
        return found

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """An operator on such tensors."""
        return _run(operator, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.here!r})"


class _Mode(TorchDispatchMode):
    """Any operator, those that make tensors, too."""

    def __init__(self) -> None:
        super().__init__()
        self.ran = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ran += any(isinstance(each, Elsewhere) for each in tree_flatten((args, kwargs))[0])
        return _run(operator, args, kwargs or {})


@contextlib.contextmanager
def elsewhere() -> Iterator[_Mode]:
    """Numbers on ``THERE``, in this thread; ``ran`` tells how many operators had some."""
    with _Mode() as mode:
        yield mode


def _run(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operator.overloadpacket.__name__
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    there = [each for each in tensors if isinstance(each, Elsewhere)]
    mixed = there and any(each.dim() and not isinstance(each, Elsewhere) for each in tensors)
    if mixed and name not in _TAKE_BOTH:
        raise RuntimeError(f"{name}: tensors on two devices")
    if name in ("index", "index_put_", "_index_put_impl_") and not isinstance(args[0], Elsewhere) and there:
        raise RuntimeError(f"{name}: of a tensor here, by one elsewhere")
    to = kwargs.get("device")
    if to is not None:
        kwargs = {**kwargs, "device": "cpu"}
    inner, named = tree_map(lambda each: each.here if isinstance(each, Elsewhere) else each, (args, kwargs))
    out = operator(*inner, **named)
    is_there = bool(there) if to is None else torch.device(to) == THERE
    if not is_there or name in _TELL_NUMBERS:
        return out
    if name.endswith("_"):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(lambda each: Elsewhere(each) if isinstance(each, torch.Tensor) else each, out)
