"""``patterns``: which of some inputs have the same activation pattern, and how far apart their patterns are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pylinregion._util import checks, memory
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.torch_settings import full_precision
from pylinregion.capturing.capture import capture
from pylinregion.counting.count import (
    CACHE_BYTES,
    check_fits,
    in_model_dtype,
    nothing_or_part,
    smooth_by_sign,
)
from pylinregion.graph.kinks import pattern_words, rounded, scalar_kink
from pylinregion.graph.network import Network
from pylinregion.native.label_changes import label_changes
from pylinregion.native.neuron_arguments import Patterns
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_changes, sign_words
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.tally import as_rows

_FEWEST = 64  # rows of a batch, if memory allows
_BLOCK = 1 << 16  # neurons that are compared together
_POOL = 1 << 26  # bytes of patterns that are looked at together


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
    """What :func:`patterns` found at ``B`` inputs: ``n`` different patterns, numbered as they come up.

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


@plain_torch()
def patterns(
    model: nn.Module | torch.export.ExportedProgram | Network,
    x: Tensor,
    *,
    layers: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    progress: bool = False,
) -> ActivationPatterns:
    """Tell which inputs have the same activation pattern: that is, how many linear regions some inputs lie in.

    The pattern of an input is the piece that every neuron is on, by the conventions of :func:`count_regions` in eval
    mode and the arithmetic of ``dtype``: a ReLU at exactly 0 is off, a neuron with two breakpoints has three pieces, a
    max-pool window is on its winner, smooth activations are on or off by the sign of their pre-activation. Patterns are
    the same only if all their bits are.

    Scores of networks without training rest on it: how many regions some inputs lie in (TE-NAS), and, with
    :meth:`ActivationPatterns.hamming`, ``N - hamming`` as the kernel of binary codes (NASWOT).

    Args:
        model, layers: As for :func:`count_regions`; None: all layers.
        x: ``[B, *input_shape]``, on the model's device, of its dtype unless ``dtype`` is given. ``B`` may be 0.
        dtype: Compute in this dtype; None: that of ``x``.
        batch_size: Inputs per batch, at most; None: sized for the cache and the memory budget.
        memory_budget: Bytes that a batch may take; None: as for :func:`count_regions`. The different patterns are kept
            besides, a bit or two a neuron.
        progress: Show a bar.

    Returns:
        The patterns, on the device of ``x``.

    Raises:
        ValueError: An argument has a wrong value, shape or device, or a pre-activation is NaN or infinite.
        TypeError: An argument has a wrong type or dtype.
        UnsupportedModelError: The model cannot be counted without guessing; the message says why.

    Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
        Perspective", ICLR 2021 (arXiv 2102.11535), section 3.1.2; Mellor, Turner, Storkey, Crowley, "Neural
        Architecture Search without Training", ICML 2021 (arXiv 2006.04647), section 3.

    >>> import torch, pylinregion as plr
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.eye(2)), net[0].bias.zero_()
    >>> found = plr.patterns(net, torch.tensor([[1.0, 1.0], [2.0, -1.0], [3.0, 1.0]]))
    >>> found.n_patterns, found.index.tolist(), found.to_bits().int().tolist(), found.hamming().tolist()
    (2, [0, 1, 0], [[1, 1], [1, 0]], [[0, 1], [1, 0]])
    """
    checks.floating_tensor("x", x)
    if x.dim() < 1:
        raise ValueError("x must be [B, *input_shape], got a tensor without dimensions")
    if dtype is not None and dtype not in checks.FLOATS:
        raise TypeError(f"dtype must be float32, float64, bfloat16 or float16, got {dtype}")
    for name, number in (("batch_size", batch_size), ("memory_budget", memory_budget)):
        if number is not None:
            checks.positive_integer(name, number)
    x = x.detach()
    example = in_model_dtype(model, x, dtype)
    if isinstance(model, nn.Module):
        checks.fits_module("x", example, model)
    checks.finite("x", x)
    network = capture(model, example)
    check_fits(network, x, dtype)
    counted = checks.chosen_layers(layers, network.layer_names)
    if not network.layers:
        warnings.warn(f"{nothing_or_part(network)}: all inputs have the same pattern", stacklevel=3)  # past plain_torch
    with torch.inference_mode(False), torch.no_grad(), full_precision():
        network.check_parameters()
        return _Search(network, x, dtype or x.dtype, counted).run(batch_size, memory_budget, progress)


class _Search:
    """One call: the inputs' patterns, batch by batch, and what is known of the different ones."""

    def __init__(self, network: Network, x: Tensor, dtype: torch.dtype, counted: tuple[int, ...]) -> None:
        self.network, self.x, self.counted = network, x, counted
        self.evaluator = Evaluator(network, dtype, counted, outputs=False, split=False)
        self.codings: list[Coding] = []
        self.width = 0
        for number in counted:
            layer = network.layers[number]
            node = network.nodes[layer.node]
            kink = scalar_kink(node)
            pair = node.op is not None and node.op.kink == "pair"
            planes = int(pair) if kink is None else len(kink.breakpoints)
            self.codings.append(Coding(layer.name, layer.units, self.width, planes))
            self.width += pattern_words(node, layer.units)

    def run(self, batch_size: int | None, memory_budget: int | None, progress: bool) -> ActivationPatterns:
        """All inputs."""
        batch = self._batch(batch_size, memory.batch_budget(memory_budget, self.x.device))
        different = _Different(self.width, self.x.device)
        with tqdm(total=len(self.x), unit="input", disable=not progress) as bar:
            for begin in range(0, len(self.x), batch):
                end = min(begin + batch, len(self.x))
                different.add(self._words(begin, end))
                bar.update(end - begin)
        words, index = different.found()
        definition = "the pieces that all neurons of these layers are on" + smooth_by_sign(self.network, self.counted)
        return ActivationPatterns(index, words, tuple(self.codings), definition)

    def _batch(self, batch_size: int | None, memory_budget: int) -> int:
        peak, largest = self.evaluator.body.bytes_per_row(self.evaluator.dtype)
        affordable = max(1, memory_budget // (peak + 8 * self.width + 1))
        if batch_size is None:
            batch_size = max(_FEWEST, CACHE_BYTES["cuda" if self.x.is_cuda else "cpu"] // (largest + 1))
        return min(batch_size, affordable)

    def _words(self, begin: int, end: int) -> Tensor:
        """``[end - begin, W]``."""
        x = self.x[begin:end].to(self.evaluator.dtype)
        words = torch.empty(len(x), 1, self.width, dtype=torch.int64, device=x.device)
        nonfinite = torch.zeros(len(self.counted), len(x), dtype=torch.uint8, device=x.device)
        columns = {number: column for column, number in enumerate(self.counted)}

        def writer(number: int) -> _Writer:
            column = columns[number]
            shaped = self.network.shaped(self.network.layers[number].node)
            return _Writer(shaped, Patterns(words, self.codings[column].word), nonfinite[column])

        values = [x] if self.evaluator.frontier else []  # of no neurons nothing is computed
        self.evaluator.run(values, len(x), writer, threads=torch.get_num_threads())
        if bool(nonfinite.any()):
            column, row = nonfinite.nonzero()[0].tolist()
            raise ValueError(
                f"the pre-activations of layer {self.codings[column].name!r} are NaN or infinite at input "
                f"{begin + row} of x: {x.dtype} overflows there"
            )
        return words.squeeze(1)


@dataclass(frozen=True)
class _Writer:
    """A :class:`pylinregion.graph.kinks.Counter` that writes the pieces of one layer, neurons in row-major order."""

    node: Any
    into: Patterns
    nonfinite: Tensor

    def signs(self, z: Any, kink: ScalarKink) -> None:
        """Write bits; the activation is left to torch."""
        rows = as_rows(z, self.node).contiguous()
        ignored = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        kink = rounded(kink, rows.dtype)
        sign_changes(rows, 1, kink, ignored, self.nonfinite, self.into, None, torch.get_num_threads())

    def labels(self, labels: Tensor) -> None:
        """Write numbers."""
        rows = as_rows(labels, self.node).contiguous()
        ignored = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        label_changes(rows, 1, ignored, self.into, torch.get_num_threads())


class _Different:
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
