"""The counters of one batch of points: what the kinks of a network report to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pylinregion.graph.kinks import pattern_words, rounded
from pylinregion.graph.network import Network, Node
from pylinregion.native.addresses import row_dense
from pylinregion.native.distinct_patterns import distinct_patterns
from pylinregion.native.label_changes import label_changes
from pylinregion.native.neuron_arguments import Patterns
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_changes, sign_changes_split, sign_words
from pylinregion.runtime.chain import Chain
from pylinregion.runtime.program import Program, Split, Workspace


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


def sites(
    network: Network, counted: tuple[int, ...], program: Program, output: bool, chain: Chain | None = None
) -> tuple[dict[int, Site], int]:
    """The sites of the counted layers by layer number (the output's number is -1), and the words of a pattern.

    The layers of a chain share one word.
    """
    found: dict[int, Site] = {}
    words = 0
    chained = chain.numbers if chain is not None else ()
    for column, number in enumerate(counted):
        layer = network.layers[number]
        node = network.nodes[layer.node]
        shaped = network.shaped(layer.node)
        in_place, unused = number in program.in_place, number in program.unused
        found[number] = Site(column, shaped, words, in_place, unused, program.slots.get(layer.node, -1))
        words += 0 if number in chained else pattern_words(node, layer.units)
    if output:
        node = network.nodes[network.outputs[0]]
        found[-1] = Site(len(counted), node, words, False, True)
        words += 0 if -1 in chained else sign_words(node.units)
    return found, words + bool(chained)


class Tally:
    """The counts of ``points`` points with ``vertices`` vertices each.

    Attributes:
        changes: ``[points, L]`` int64.
        nonfinite: ``[L, points]`` uint8, 1 where a pre-activation is NaN or infinite.
        words: ``[points, vertices, W]`` int64, the patterns.
    """

    def __init__(
        self,
        sites: dict[int, Site],
        words: int,
        points: int,
        vertices: int,
        device: torch.device,
        workspace: Workspace,
        threads: int,
    ) -> None:
        self.sites, self.workspace = sites, workspace
        self.points, self.vertices, self.threads = points, vertices, threads
        self.changes = torch.zeros(points, len(sites), dtype=torch.int64, device=device)
        self.nonfinite = torch.zeros(len(sites), points, dtype=torch.uint8, device=device)
        self.words = workspace.take("words", (points, vertices, words), torch.int64, device)
        self.numbered = False  # the words number the patterns of each point from 0
        self.ambiguous: Tensor | None = None  # [points] int64, of a chain

    def counter(self, number: int) -> SiteCounter:
        """Where layer ``number`` reports to; -1 is the output."""
        return SiteCounter(self, self.sites[number])

    def regions(self) -> Tensor:
        """``[points]`` int64: different patterns among the vertices."""
        if self.numbered:
            return self.words.amax(dim=(1, 2)) + 1
        return distinct_patterns(self.words, self.threads)


class SiteCounter:
    """A :class:`pylinregion.graph.kinks.Counter` that counts one layer with the kernels."""

    def __init__(self, tally: Tally, site: Site) -> None:
        self.tally, self.site = tally, site

    def signs(self, z: Any, kink: ScalarKink) -> Any:
        """Count, and activate if the kernel does it and somebody wants it."""
        tally, site = self.tally, self.site
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
        fused = kink.activation == "relu" or (kink.activation != "none" and rows.dtype.itemsize > 2)
        if site.unused or not fused:
            sign_changes(rows, tally.vertices, kink, *into, None, tally.threads)
            return z if site.unused else None
        own = site.in_place or rows.data_ptr() != z.data_ptr()
        out = rows if own else torch.empty_like(rows)
        sign_changes(rows, tally.vertices, kink, *into, out, tally.threads)
        return from_rows(out, z, site.node)

    def chain(self, chain: Chain, value: Any) -> None:
        """Count the layers of a chain, of which this is the first, at a value in front of them."""
        tally, first = self.tally, self.site.column
        tally.ambiguous = torch.empty(tally.points, dtype=torch.int64, device=tally.changes.device)
        tally.numbered = tally.words.shape[2] == 1 and len(chain.numbers) == len(tally.sites)
        chain.count(
            value,
            tally.changes[:, first : first + len(chain.numbers)],
            tally.ambiguous,
            tally.nonfinite[first : first + len(chain.numbers)],
            tally.words[:, :, self.site.offset],
            tally.threads,
        )

    def _first_activations(self, centre: Tensor) -> Tensor:
        return self.tally.workspace.take_rows(self.site.slot, self.tally.points * self.tally.vertices, centre)

    def labels(self, labels: Tensor) -> None:
        """Count labels."""
        tally, site = self.tally, self.site
        patterns = Patterns(tally.words, site.offset)
        rows = as_rows(labels, site.node)
        label_changes(rows, tally.vertices, tally.changes[:, site.column], patterns, tally.threads)


def as_rows(value: Tensor, node: Node) -> Tensor:
    """A value with the batch first and one entry a row of it, row dense; a view where that is possible."""
    if node.batch_dim == 0 and node.batch_factor == 1:
        return row_dense(value)
    first = value.movedim(node.batch_dim, 0).contiguous()
    return first.view(len(first) // node.batch_factor, -1)


def from_rows(rows: Tensor, like: Tensor, node: Node) -> Tensor:
    """The inverse of :func:`as_rows`."""
    if node.batch_dim == 0 and node.batch_factor == 1:
        return rows
    return rows.view(like.movedim(node.batch_dim, 0).shape).movedim(0, node.batch_dim)
