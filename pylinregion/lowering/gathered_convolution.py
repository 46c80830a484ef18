"""Convolutions as products of matrices of what their windows hold: on a device, where the extension has no kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion._util.tensors import Stored

NOTHING = -1  # a place beside what is convolved


@dataclass(frozen=True, eq=False)
class Gathered:
    """One direction of a convolution: each target is a sum over what its kernel finds.

    Attributes:
        weight: ``[groups, out channels, in channels, kernel]``.
        sources: Places of a channel that it takes.
        index: ``[targets, kernel]``: the place of the source that each entry of the kernel meets, or ``NOTHING``.
        back: ``[sources, kernel]``: the same the other way: the target in which each source meets it.
    """

    weight: Array
    sources: int
    index: Int64s
    back: Int64s

    @classmethod
    def forwards(cls, weight: Array, groups: int, windows: Int64s, sources: int) -> Gathered:
        """The convolution itself.

        Args:
            weight: ``[out channels, in channels / groups, *kernel]``.
            groups: Of channels.
            windows: ``[windows, kernel]``: see ``Convolution.windows``.
            sources: Places of a channel of the source.
        """
        back = np.full((sources, windows.shape[1]), NOTHING)
        window, entry = np.nonzero(windows != NOTHING)
        back[windows[window, entry], entry] = window  # no other window has that entry there
        matrices = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return cls(np.ascontiguousarray(matrices), sources, windows, back)

    @property
    def transposed(self) -> Gathered:
        """The other direction."""
        return Gathered(np.ascontiguousarray(self.weight.swapaxes(1, 2)), len(self.index), self.back, self.index)

    @cached_property
    def _stored(self) -> tuple[Stored, Stored]:
        """The matrices ``[groups, out, in * kernel]``; the index ``[kernel, targets]``, with a place for nothing."""
        groups, out = self.weight.shape[:2]
        index = np.where(self.index == NOTHING, self.sources, self.index)
        return Stored(self.weight.reshape(groups, out, -1)), Stored(np.ascontiguousarray(index.T))

    @cached_property
    def _is_in_place(self) -> bool:
        """Whether targets are where their sources are, each with one."""
        return self.index.shape == (self.sources, 1) and bool((self.index[:, 0] == np.arange(self.sources)).all())

    @property
    def size(self) -> int:
        """Numbers that a vector takes on the way."""
        groups, out, given, kernel = self.weight.shape
        return int(groups * max(out, given * kernel) * len(self.index))

    def times(self, x: Tensor) -> Tensor:
        """``[n, groups * out channels * targets]`` of vectors ``[n, groups * in channels * sources]``."""
        groups, _, given, kernel = self.weight.shape
        matrices, index = (each.beside(x) for each in self._stored)
        channels = x.reshape(len(x), groups, given, self.sources)
        if not self._is_in_place:
            nothing = channels.new_zeros(*channels.shape[:-1], 1)
            channels = torch.cat([channels, nothing], dim=-1)[..., index]
        held = channels.reshape(len(x), groups, given * kernel, len(self.index))
        out: Tensor = torch.matmul(matrices, held)
        return out.flatten(1)

    def add_images(self, out: Tensor, units: Tensor, factors: Tensor) -> None:
        """Add the images of units ``[n]``, each times a factor, to ``[n, groups * out channels * targets]``."""
        groups, channels, given, kernel = self.weight.shape
        place, channel = units % self.sources, units // self.sources
        group, own = channel // given, channel % given
        targets = self._targets.beside(out)[place]  # [n, kernel]: no two that are met are the same
        numbers = self._stored[0].beside(out).view(groups, channels, given, kernel)
        much = numbers[group, :, own] * (factors[:, None] * (targets != NOTHING))[:, None]
        to = group[:, None] * channels + torch.arange(channels, device=units.device)  # [n, out channels]
        where = to[:, :, None] * len(self.index) + targets.clamp(min=0)[:, None]
        out.scatter_add_(1, where.flatten(1), much.flatten(1))

    @cached_property
    def _targets(self) -> Stored:
        return Stored(self.back)
