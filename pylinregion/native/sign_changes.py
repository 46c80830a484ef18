"""Neurons that change their side among a point's vertices, and their activations (``csrc/sign_changes.h``).

:mod:`pylinregion.native.neuron_arguments` says what the letters of shapes stand for. On the CPU the work is done when a
function returns; on a GPU it is queued on the current stream.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pylinregion.native.addresses import DTYPES, address, is_row_dense
from pylinregion.native.extension import _C, for_cuda
from pylinregion.native.neuron_arguments import Patterns, changes_address, pattern_address, points_and_neurons
from pylinregion.native.scalar_kink import ScalarKink


def sign_words(neurons: int, breakpoints: int = 1) -> int:
    """64-bit words that :func:`sign_changes` writes for one vertex."""
    return breakpoints * ((neurons + 63) // 64)


def sign_changes(
    z: Tensor,
    vertices: int,
    kink: ScalarKink,
    changes: Tensor,
    nonfinite: Tensor,
    patterns: Patterns | None = None,
    out: Tensor | None = None,
    threads: int = 1,
) -> None:
    """Count the neurons whose piece differs among a point's vertices, and apply the activation, in one pass.

    Args:
        z: ``[B * V, ...]`` float32, float64, bfloat16 or float16, row dense.
        vertices: ``V``.
        kink: Breakpoints and activation.
        changes: ``[B]`` int64, any stride; the counts are added to it.
        nonfinite: ``[B]`` uint8, contiguous; set to 1 where a pre-activation is NaN or infinite.
        patterns: Where to write the pieces, ``sign_words(N, breakpoints)`` words a vertex, or None.
        out: Like ``z``, same layout, may be ``z`` itself: the activations. None writes none.
        threads: CPU threads.

    Raises:
        ValueError: An argument is not as above.
    """
    points, neurons = points_and_neurons("z", z, vertices)
    _check_activation(kink, z.dtype, out)
    if out is not None and (out.shape != z.shape or out.stride() != z.stride() or out.dtype != z.dtype):
        raise ValueError(f"out must be like z, got shape {list(out.shape)}, strides {out.stride()}, {out.dtype}")
    operand = _Operand(dense=address("z", z, z.device, *DTYPES))
    _launch(z, operand, (points, vertices, neurons), kink, changes, nonfinite, patterns, out, threads)


def sign_changes_split(
    centre: Tensor,
    directions: Tensor,
    radius: Tensor,
    kink: ScalarKink,
    changes: Tensor,
    nonfinite: Tensor,
    patterns: Patterns | None = None,
    out: Tensor | None = None,
    threads: int = 1,
) -> None:
    """:func:`sign_changes` at ``z[b, p] = centre[b] + radius[b] * directions[p]`` and ``z[b, P + p]`` with minus.

    The pre-activations are never stored.

    Args:
        centre: ``[B, ...]`` float32 or float64, row dense.
        directions: ``[P, ...]`` like ``centre``, in the same layout.
        radius: ``[B]`` float64, on the device of ``centre``; rounded to its dtype before it is used.
        kink, changes, nonfinite, patterns, threads: As for :func:`sign_changes`; ``V`` is ``2 P``.
        out: ``[B * 2P, ...]`` in the layout of ``centre``, or None.

    Raises:
        ValueError: An argument is not as above.
    """
    vertices = 2 * directions.shape[0]
    points, neurons = points_and_neurons("centre", centre, 1)
    _check_split(centre, directions, radius)
    _check_activation(kink, centre.dtype, out)
    if out is not None and (
        out.shape != (points * vertices, *centre.shape[1:])
        or out.stride()[1:] != centre.stride()[1:]
        or out.dtype != centre.dtype
        or not is_row_dense(out)
    ):
        raise ValueError(f"out must be [{points * vertices}, ...] in the layout of centre, got {list(out.shape)}")
    device = centre.device
    operand = _Operand(
        centre=address("centre", centre, device, centre.dtype),
        directions=address("directions", directions, device, centre.dtype),
        radius=address("radius", radius, device, torch.float64),
    )
    _launch(centre, operand, (points, vertices, neurons), kink, changes, nonfinite, patterns, out, threads)


class _Operand(NamedTuple):
    """The addresses of pre-activations: of all of them, or of those they are made of."""

    dense: int = 0
    centre: int = 0
    directions: int = 0
    radius: int = 0


def _check_split(centre: Tensor, directions: Tensor, radius: Tensor) -> None:
    if centre.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"centre must be float32 or float64, got {centre.dtype}")
    same = directions.shape[1:] == centre.shape[1:] and directions.dtype == centre.dtype and is_row_dense(directions)
    if not same or directions.stride()[1:] != centre.stride()[1:]:
        raise ValueError(
            f"directions must be like centre ({list(centre.shape)[1:]}, {centre.dtype}, same layout), "
            f"got {list(directions.shape)[1:]}, {directions.dtype}"
        )
    if radius.shape != (len(centre),) or radius.dtype != torch.float64 or not radius.is_contiguous():
        raise ValueError(f"radius must be contiguous [{len(centre)}] float64, got {list(radius.shape)} {radius.dtype}")


def _check_activation(kink: ScalarKink, dtype: torch.dtype, out: Tensor | None) -> None:
    if out is not None and dtype.itemsize == 2 and kink.activation not in ("none", "relu"):
        raise ValueError(f"activation {kink.activation!r} is not offered for {dtype}; pass out=None and apply it")


def _launch(
    z: Tensor,
    operand: _Operand,
    sizes: tuple[int, int, int],
    kink: ScalarKink,
    changes: Tensor,
    nonfinite: Tensor,
    patterns: Patterns | None,
    out: Tensor | None,
    threads: int,
) -> None:
    """Count; ``z`` is of the operand's dtype and device, ``sizes`` are ``B``, ``V`` and ``N``."""
    points, vertices, neurons = sizes
    if nonfinite.shape != (points,) or nonfinite.dtype != torch.uint8 or not nonfinite.is_contiguous():
        raise ValueError(f"nonfinite must be contiguous [{points}] uint8, got {list(nonfinite.shape)}")
    needed = sign_words(neurons, len(kink.breakpoints))
    patterns_at, row_words = pattern_address(patterns, points, vertices, needed, z.device)
    arguments = (  # by place, as _C.pyi names them: names would take 6 us more a call
        DTYPES[z.dtype],
        *operand,
        *sizes,
        *kink.to_kernel(),
        0 if out is None else address("out", out, z.device, z.dtype),
        patterns_at,
        row_words,
        *changes_address(changes, points, z.device),
        address("nonfinite", nonfinite, z.device, torch.uint8),
    )
    if z.is_cuda:
        with torch.cuda.device(z.device):  # launch on the tensors' device and on torch's stream
            for_cuda("sign_changes_cuda")(*arguments, torch.cuda.current_stream().cuda_stream)
    else:
        _C.sign_changes_cpu(*arguments, threads)
