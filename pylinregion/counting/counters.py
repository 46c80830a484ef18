"""The counters of one batch of points: what the kinks of a network report to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pylinregion.counting.chain import Chain
from pylinregion.counting.chain_match import OUTPUT_NUMBER
from pylinregion.graph.kinks import pattern_words, rounded
from pylinregion.graph.network import Network, Node
from pylinregion.native.dense_chain import ChainCounts
from pylinregion.native.distinct_patterns import distinct_patterns
from pylinregion.native.label_changes import label_changes
from pylinregion.native.neuron_arguments import Patterns
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_changes, sign_changes_split, sign_words
from pylinregion.runtime.program import Program
from pylinregion.runtime.rows import as_rows, from_rows
from pylinregion.runtime.vertices import Split
from pylinregion.runtime.workspace import Workspace


@dataclass(frozen=True)
class Site:
    """Where and how one layer is counted.

    Attributes:
        column: Its column of the counts.
        node: The node that has the shape of its output.
        offset: Its first word in the patterns.
        in_place: Its activations may overwrite its pre-activations.
        unused: Nobody reads its activations.
        slot: Where in the workspace its activations go, if its pre-activations come as a split.
    """

    column: int
    node: Node
    offset: int
    in_place: bool
    unused: bool
    slot: int = -1


@dataclass(frozen=True)
class Sites:
    """Those of the counted layers.

    Attributes:
        by_number: By layer; the output's number is :data:`pylinregion.counting.chain_match.OUTPUT_NUMBER`.
        words: Of a pattern, 64 bits each.
    """

    by_number: dict[int, Site]
    words: int

    @classmethod
    def of(
        cls, network: Network, counted: tuple[int, ...], program: Program, output: bool, chained: tuple[int, ...] = ()
    ) -> Sites:
        """The sites of layers, and of the output, in a program. Those that a chain counts share one word."""
        found: dict[int, Site] = {}
        words = 0
        for column, number in enumerate(counted):
            layer = network.layers[number]
            node = network.nodes[layer.node]
            shaped = network.shaped(layer.node)
            in_place, unused = number in program.in_place, number in program.unused
            found[number] = Site(column, shaped, words, in_place, unused, program.slots.get(layer.node, -1))
            words += 0 if number in chained else pattern_words(node, layer.units)
        if output:
            node = network.nodes[network.outputs[0]]
            found[OUTPUT_NUMBER] = Site(len(counted), node, words, False, True)
            words += 0 if OUTPUT_NUMBER in chained else sign_words(node.units)
        return cls(found, words + bool(chained))


class Tally:
    """The counts of ``points`` points with ``vertices`` vertices each.

    Attributes:
        changes: ``[points, L]`` int64.
        nonfinite: ``[L, points]`` uint8, 1 where a pre-activation is NaN or infinite.
        words: ``[points, vertices, W]`` int64, the patterns.
    """

    def __init__(
        self, sites: Sites, points: int, vertices: int, device: torch.device, workspace: Workspace, threads: int
    ) -> None:
        self.sites, self.workspace = sites, workspace
        self.points, self.vertices, self.threads = points, vertices, threads
        layers = len(sites.by_number)
        self.changes = torch.zeros(points, layers, dtype=torch.int64, device=device)
        self.nonfinite = torch.zeros(layers, points, dtype=torch.uint8, device=device)
        self.words = workspace.take("words", (points, vertices, sites.words), torch.int64, device)
        self.chain: ChainCounts | None = None  # of a chain, once it is counted

    def counter(self, number: int) -> SiteCounter:
        """Where a layer reports to."""
        return SiteCounter(self, self.sites.by_number[number])

    def regions(self) -> Tensor:
        """``[points]`` int64: different patterns among the vertices."""
        if self.chain is not None and self.words.shape[2] == 1 and self.chain.changes.shape == self.changes.shape:
            return self.words.amax(dim=(1, 2)) + 1  # a chain of all layers numbers the patterns of each point from 0
        return distinct_patterns(self.words, self.threads)


class SiteCounter:
    """A :class:`pylinregion.runtime.kink_evaluators.Counter` that counts one layer with the kernels."""

    def __init__(self, tally: Tally, site: Site) -> None:
        self._tally, self._site = tally, site

    def signs(self, z: Any, kink: ScalarKink) -> Any:
        """Count, and activate if the kernel does it and somebody wants it."""
        tally, site = self._tally, self._site
        into = (
            tally.changes[:, site.column],
            tally.nonfinite[site.column],
            Patterns(tally.words, site.offset),
        )
        if isinstance(z, Split):
            kink = rounded(kink, z.centre.dtype)
            out = None if site.unused else self._first_activations(z.centre)
            sign_changes_split(z.centre, z.directions, z.radius, kink, *into, out, tally.threads)
            return z if out is None else out
        rows = as_rows(z, site.node)
        kink = rounded(kink, rows.dtype)
        activates = kink.activation == "relu" or (kink.activation != "none" and rows.dtype.itemsize > 2)
        if site.unused or not activates:
            sign_changes(rows, tally.vertices, kink, *into, None, tally.threads)
            return z if site.unused else None
        own = site.in_place or rows.data_ptr() != z.data_ptr()
        out = rows if own else torch.empty_like(rows)
        sign_changes(rows, tally.vertices, kink, *into, out, tally.threads)
        return from_rows(out, z, site.node)

    def _first_activations(self, centre: Tensor) -> Tensor:
        return self._tally.workspace.take_rows(self._site.slot, self._tally.points * self._tally.vertices, centre)

    def labels(self, labels: Tensor) -> None:
        """Count labels."""
        tally, site = self._tally, self._site
        patterns = Patterns(tally.words, site.offset)
        rows = as_rows(labels, site.node)
        label_changes(rows, tally.vertices, tally.changes[:, site.column], patterns, tally.threads)

    def chain(self, chain: Chain, value: Any) -> None:
        """Count the layers of a chain, of which this is the first, at a value in front of them."""
        tally, first = self._tally, self._site
        columns = slice(first.column, first.column + len(chain.numbers))
        tally.chain = ChainCounts(
            changes=tally.changes[:, columns],
            ambiguous=torch.empty(tally.points, dtype=torch.int64, device=tally.changes.device),
            classes=tally.words[:, :, first.offset],
            work=torch.zeros(tally.points, dtype=torch.int64, device=tally.changes.device),
            nonfinite=tally.nonfinite[columns],
        )
        chain.count(value, tally.chain, tally.threads)
