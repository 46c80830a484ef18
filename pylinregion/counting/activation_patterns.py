"""The result of ``patterns``. Plain data: nothing here knows how it was made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pylinregion.native.sign_changes import sign_words

_BLOCK = 1 << 16  # neurons that are compared together


@dataclass(frozen=True)
class Coding:
    """Where and how the pieces of a layer are in a pattern.

    Attributes:
        name: The layer.
        units: Its neurons, ``N``.
        word: Its first word.
        planes: 1 or 2: as many bits a neuron as it has breakpoints: bit ``n % 64`` of word ``word + n // 64`` is on if
            breakpoint 1 lies below the pre-activation of neuron ``n``, and the same ``(N + 63) // 64`` words later for
            breakpoint 2. 0: a number, the winner or the side of a comparison, in 32 bits, two in a word, the lower half
            first.
    """

    name: str
    units: int
    word: int
    planes: int


@dataclass(frozen=True, eq=False)
class ActivationPatterns:
    """What :func:`pylinregion.patterns` found at ``B`` inputs: ``n`` different patterns, numbered as they come up.

    Attributes:
        index: ``[B]`` int64: the pattern of each input.
        words: ``[n, W]`` int64: the patterns, bits side by side as ``codings`` says; a layer's neurons are in row-major
            order of its output for one input, and what no neuron takes is 0.
        codings: The layers, in the network's order.
        definition: What a pattern is, in a sentence.
    """

    index: Tensor
    words: Tensor
    codings: tuple[Coding, ...]
    definition: str

    @property
    def n_patterns(self) -> int:
        """How many there are."""
        return len(self.words)

    @property
    def counts(self) -> Tensor:
        """``[n]`` int64: inputs that have each pattern."""
        return torch.bincount(self.index, minlength=self.n_patterns)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(coding.name for coding in self.codings)

    def pieces(self, layer: str) -> Tensor:
        """``[n, N]`` int64: the piece that each neuron of a layer is on.

        That is how many breakpoints lie below its pre-activation (for a ReLU 1 if it is on, else 0); for max-pools the
        place of the winner in the plane, for comparisons 1 where they are true.

        Raises:
            ValueError: There is no layer of that name.
        """
        found = next((coding for coding in self.codings if coding.name == layer), None)
        if found is None:
            raise ValueError(f"layer must be among {', '.join(map(repr, self.layers)) or '(none)'}, got {layer!r}")
        return self._pieces(found, 0, found.units)

    def to_bits(self) -> Tensor:
        """``[n, bits]`` bool: the patterns as binary codes, of all layers whose neurons have breakpoints.

        Layer after layer; within one, all neurons' bits for the first breakpoint, then, of layers with two, those for
        the second. Max-pools and other numbers are left out: :meth:`pieces` has them.
        """
        parts = [self.words.new_zeros(self.n_patterns, 0, dtype=torch.bool)]
        for coding in self.codings:
            parts += [self._plane(coding, plane, 0, coding.units) for plane in range(coding.planes)]
        return torch.cat(parts, dim=1)

    def hamming(self) -> Tensor:
        """``[n, n]`` int64: how many neurons are on different pieces in two patterns, all layers together.

        For ReLU networks it is the Hamming distance of the binary codes. Of inputs: ``found.hamming()[found.index][:,
        found.index]``.
        """
        total = torch.zeros(self.n_patterns, self.n_patterns, dtype=torch.int64, device=self.words.device)
        for coding in self.codings:
            for start in range(0, coding.units, _BLOCK):
                end = min(start + _BLOCK, coding.units)
                pieces = self._pieces(coding, start, end)
                if coding.planes:
                    total += end - start  # less those that agree; sums of less than 2^24 ones are exact
                    for piece in range(coding.planes + 1):
                        there = (pieces == piece).to(torch.float32)
                        total -= (there @ there.T).to(torch.int64)
                else:
                    for row in range(self.n_patterns):
                        total[row] += (pieces != pieces[row]).sum(dim=1)
        return total

    def _pieces(self, coding: Coding, start: int, end: int) -> Tensor:
        if not coding.planes:
            words = self.words[:, coding.word + start // 2 : coding.word + (end + 1) // 2]
            halves = torch.stack([words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF], dim=2).flatten(1)
            return halves[:, start % 2 : start % 2 + end - start]
        planes = [self._plane(coding, plane, start, end) for plane in range(coding.planes)]
        return torch.stack(planes).sum(dim=0)

    def _plane(self, coding: Coding, plane: int, start: int, end: int) -> Tensor:
        """``[n, end - start]`` bool; ``start`` is a multiple of 64."""
        first = coding.word + plane * sign_words(coding.units)
        words = self.words[:, first + start // 64 : first + (end + 63) // 64]
        shifts = torch.arange(64, device=words.device)
        bits = ((words.unsqueeze(2) >> shifts) & 1).flatten(1)
        return bits[:, : end - start].bool()

    def __repr__(self) -> str:
        neurons, layers = sum(coding.units for coding in self.codings), len(self.codings)
        found = f"{self.n_patterns} different ones at {len(self.index)} inputs"
        return f"ActivationPatterns: {found}, {neurons} neurons in {layers} layers\n  {self.definition}"
