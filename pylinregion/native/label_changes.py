"""Neurons whose label changes among a point's vertices: winners, truth values (``csrc/label_changes.h``)."""

from __future__ import annotations

import torch
from torch import Tensor

from pylinregion.native.addresses import address
from pylinregion.native.extension import _C, for_cuda
from pylinregion.native.neuron_arguments import Patterns, changes_address, pattern_address, points_and_neurons

_LABELS = {torch.uint8: 0, torch.bool: 0, torch.int64: 1}  # as csrc/label_changes.h numbers them


def label_words(neurons: int) -> int:
    """64-bit words that :func:`label_changes` writes for one vertex."""
    return (neurons + 1) // 2


def label_changes(
    labels: Tensor, vertices: int, changes: Tensor, patterns: Patterns | None = None, threads: int = 1
) -> None:
    """Count the neurons whose label (a max-pool winner, a truth value) differs among a point's vertices.

    Args:
        labels: ``[B * V, ...]`` int64 (within 32 bits), uint8 or bool, row dense.
        vertices, changes, threads: As for :func:`pylinregion.native.sign_changes.sign_changes`.
        patterns: Where to write the labels, ``label_words(N)`` words a vertex, or None.

    Raises:
        ValueError: An argument is not as above.
    """
    points, neurons = points_and_neurons("labels", labels, vertices)
    if labels.dtype not in _LABELS:
        raise ValueError(f"labels must be int64, uint8 or bool, got {labels.dtype}")
    patterns_at, row_words = pattern_address(patterns, points, vertices, label_words(neurons), labels.device)
    arguments = (
        _LABELS[labels.dtype],
        address("labels", labels, labels.device, *_LABELS),
        points,
        vertices,
        neurons,
        patterns_at,
        row_words,
        *changes_address(changes, points, labels.device),
    )
    if labels.is_cuda:
        with torch.cuda.device(labels.device):
            for_cuda("label_changes_cuda")(*arguments, torch.cuda.current_stream().cuda_stream)
    else:
        _C.label_changes_cpu(*arguments, threads)
