"""``patterns``: which of some inputs have the same activation pattern."""

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
from pylinregion.capturing.capture import capture
from pylinregion.counting.activation_patterns import ActivationPatterns, Coding
from pylinregion.counting.batches import cached
from pylinregion.counting.definitions import nothing_or_part, smooth_by_sign
from pylinregion.counting.different_rows import DifferentRows
from pylinregion.graph.kinks import pattern_words, rounded, scalar_kink
from pylinregion.graph.network import Network
from pylinregion.native.label_changes import label_changes
from pylinregion.native.neuron_arguments import Patterns
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_changes
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.rows import as_rows

_FEWEST = 64  # rows of a batch, if memory allows


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
    example = checks.points("x", x, model, dtype)
    for name, number in (("batch_size", batch_size), ("memory_budget", memory_budget)):
        if number is not None:
            checks.positive_integer(name, number)
    x = x.detach()
    network = capture(model, example)
    network.check_takes("x", x, "B", any_dtype=dtype is not None, hint="; or pass dtype=")
    counted = checks.chosen_layers(layers, network.layer_names)
    if not network.layers:
        warnings.warn(f"{nothing_or_part(network)}: all inputs have the same pattern", stacklevel=3)  # past plain_torch
    network = network.at_one_time()
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
        different = DifferentRows(self.width, self.x.device)
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
            batch_size = max(_FEWEST, cached(largest, self.x.device))
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
    """A :class:`pylinregion.runtime.kink_evaluators.Counter` that writes the pieces of one layer.

    Its neurons are in row-major order.
    """

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
