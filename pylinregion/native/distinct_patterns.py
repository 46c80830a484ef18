"""How many patterns are different (``csrc/distinct_patterns.h``)."""

from __future__ import annotations

import torch
from torch import Tensor

from pylinregion.native.addresses import address, device_of
from pylinregion.native.extension import _C, for_cuda


def distinct_patterns(words: Tensor, threads: int = 1, *, weak_hash: bool = False) -> Tensor:
    """How many different rows each point has.

    Rows are compared by a 128-bit hash; rows of equal hash are compared bit by bit, so the answer is exact.

    Args:
        words: ``[B, V, W]`` int64, contiguous.
        threads: CPU threads.
        weak_hash: Give all rows one hash (a test of the comparison by bits).

    Returns:
        ``[B]`` int64 on the device of ``words``.

    Raises:
        ValueError: ``words`` is not as above.
    """
    if words.dim() != 3 or words.dtype != torch.int64 or not words.is_contiguous():
        raise ValueError(f"words must be contiguous [B, V, W] int64, got {list(words.shape)} {words.dtype}")
    points, vertices, n_words = words.shape
    distinct = torch.zeros(points, dtype=torch.int64, device=device_of("words", words))
    if points == 0:
        return distinct
    words_at = address("words", words, words.device, torch.int64)
    arguments = (words_at, points, vertices, n_words, distinct.data_ptr(), weak_hash)
    if words.is_cuda:
        hashes = torch.empty(2 * points * vertices, dtype=torch.int64, device=words.device)
        with torch.cuda.device(words.device):
            stream = torch.cuda.current_stream().cuda_stream
            for_cuda("distinct_patterns_cuda")(*arguments, hashes.data_ptr(), stream)
    else:
        _C.distinct_patterns_cpu(*arguments, threads)
    return distinct
