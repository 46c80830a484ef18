"""Rows of words, of which each is kept once."""

from __future__ import annotations

import torch
from torch import Tensor

_POOL = 1 << 26  # bytes of rows that are looked at together


class DifferentRows:
    """Rows of words, of which each is kept once, in the order in which they come up."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._words = torch.empty(0, width, dtype=torch.int64, device=device)
        self._hashes = torch.empty(0, dtype=torch.int64, device=device)
        self._index: list[Tensor] = []
        self._waiting: list[Tensor] = []

    def add(self, words: Tensor) -> None:
        """More rows ``[b, W]``."""
        self._waiting.append(words)
        held = max(_POOL, self._words.nbytes)  # so that all is moved but a few times
        if sum(rows.nbytes for rows in self._waiting) >= held:
            self._merge()

    def found(self) -> tuple[Tensor, Tensor]:
        """The different rows, and the number of each row among them."""
        self._merge()
        empty = torch.empty(0, dtype=torch.int64, device=self._words.device)
        return self._words, torch.cat([empty, *self._index])

    def _merge(self) -> None:
        known = len(self._words)
        rows = torch.cat([self._words, *self._waiting])
        hashes = torch.cat([self._hashes, *map(hashed, self._waiting)])
        self._waiting = []
        groups = torch.unique(hashes, return_inverse=True)[1]
        first = _first(groups)
        again = (first != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        if any(not torch.equal(rows[some], rows[first[some]]) for some in torch.split(again, 1024)):
            first = _first(torch.unique(rows, dim=0, return_inverse=True)[1])  # two of one hash that differ
        own = first == torch.arange(len(rows), device=rows.device)
        number = own.cumsum(0) - 1
        self._words, self._hashes = rows[own], hashes[own]
        self._index.append(number[first][known:])


def _first(groups: Tensor) -> Tensor:
    """``[R]``: the first row that is in the same group."""
    places = torch.arange(len(groups), device=groups.device)
    first = torch.full_like(places, len(groups)).scatter_reduce_(0, groups, places, "amin")
    return first[groups]


def hashed(words: Tensor) -> Tensor:
    """``[R, W]`` to ``[R]`` int64: 64 bits that tell rows apart, but for chance (splitmix64 of each word, added)."""
    generator = torch.Generator("cpu").manual_seed(0)
    salt = torch.randint(-(2**63), 2**63 - 1, (words.shape[1],), generator=generator, dtype=torch.int64, device="cpu")
    z = words + salt.to(words.device)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ ((z >> shift) & (2 ** (64 - shift) - 1))) * factor
    return (z ^ ((z >> 31) & (2**33 - 1))).sum(dim=1)
