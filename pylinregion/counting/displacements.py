"""Counting the dense layers that a network ends in by how far the vertices are from the points."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from pylinregion.counting.ambiguity import AmbiguityEstimate
from pylinregion.counting.batch_counts import BatchCounts, number_of
from pylinregion.counting.batches import Needs, cached
from pylinregion.counting.chain import Chain, SplitPoints
from pylinregion.counting.chain_costs import Costs
from pylinregion.counting.chain_match import Found, find_chain
from pylinregion.counting.counters import SiteCounter, Sites, Tally
from pylinregion.counting.every_vertex import EveryVertex
from pylinregion.counting.request import CountRequest
from pylinregion.counting.vertex_evaluator import VertexEvaluator
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.program_step import Context, Step
from pylinregion.runtime.workspace import Workspace

_LOOKED_AT = 16  # points by which it is guessed how many neurons change
_TOGETHER = 256  # points of which a chain's centres are computed together


class Displacements:
    """The chain of dense layers that a network ends in is counted by displacements, what is in front at the vertices.

    Where a sign stays unproven, the point is counted at its vertices: of exact ties too, what is counted must not
    depend on the way.

    Args:
        request: What is counted.
        at: The network at the vertices.
        found: Its chain.

    Attributes:
        proven: Whether all signs are those of the chain, which is all of the network behind its first linear layer.
        needs: What a point needs.
    """

    def __init__(self, request: CountRequest, at: VertexEvaluator, found: Found) -> None:
        self._request, self._at = request, at
        self.proven = found.split
        self._centres = at.evaluator
        prefix = directions = None
        if found.split:
            self._centres = _in_float64(request, at)
            prefix = self._centres.linear_prefix
            frame = request.frame.to(request.x.dtype).to(torch.float64)
            (directions,) = self._centres.prefix_directions(frame)
        self._chain = Chain(found, request.x.dtype, len(request.x), request.pairs, prefix, directions)
        output, body = request.options.include_output, at.evaluator.body
        self._body = body.ending_in(_step(self._chain, found, body.given), found.steps)
        self._sites = Sites.of(request.network, request.counted, self._body, output, self._chain.numbers)
        estimates = request.options.estimate_ambiguous and not self.proven
        self._estimate = AmbiguityEstimate(request) if estimates else None
        peak, largest = self._body.bytes_per_row(request.x.dtype)
        memory = request.vertices * (peak + 8 * self._sites.words) + 1
        self.needs = Needs(memory, request.vertices * largest, _TOGETHER if found.split else None)

    def count(self, rows: slice, workspace: Workspace, threads: int) -> BatchCounts:
        """Count around the points of these rows, in this memory, with so many CPU threads."""
        return self._counts(rows, self._tally(rows, workspace, threads), workspace, threads)

    def tried(self, rows: slice) -> tuple[BatchCounts, bool]:
        """The same, and whether going on like this takes less than evaluating all vertices."""
        workspace = Workspace()
        tally = self._tally(rows, workspace, 1)
        counts = self._counts(rows, tally, workspace, 1)
        assert tally.chain is not None
        return counts, self._chain.pays(tally.chain.work, tally.chain.ambiguous)

    def _tally(self, rows: slice, workspace: Workspace, threads: int) -> Tally:
        request, points = self._request, number_of(rows)
        tally = Tally(self._sites, points, request.vertices, request.x.device, workspace, threads)
        start: list[Any] = [self._split(rows, workspace)] if self.proven else self._at.start(rows)
        given = dict(zip(self._at.evaluator.frontier, start, strict=True))
        self._body.run(given, points * request.vertices, tally.counter, workspace, threads)
        return tally

    def _split(self, rows: slice, workspace: Workspace) -> SplitPoints:
        """What the chain starts from if it starts at the first pre-activations."""
        x = self._request.x[rows]
        if x.dtype != torch.float64:
            x = workspace.take("points", tuple(x.shape), torch.float64, x.device).copy_(x)
        return SplitPoints(self._centres.prefix(x)[0], self._request.radii[rows], x.flatten(1).norm(dim=1))

    def _counts(self, rows: slice, tally: Tally, workspace: Workspace, threads: int) -> BatchCounts:
        assert tally.chain is not None
        unproven = tally.chain.ambiguous
        regions = tally.regions()  # before the memory of the patterns is taken for others
        counts = BatchCounts(tally.changes, regions, tally.nonfinite, self._ambiguous(rows, unproven))
        if bool(unproven.any()):
            together = max(1, cached(self._every_vertex.needs.largest, self._request.x.device))
            for some in torch.split(unproven.nonzero().flatten(), together):
                counts.put(some, self._every_vertex.count(rows.start + some, workspace, threads))
        return counts

    def _ambiguous(self, rows: slice, unproven: Tensor) -> Tensor | None:
        if self._estimate is not None:
            return self._estimate.signs(rows)
        return unproven if self._request.options.estimate_ambiguous else None

    @functools.cached_property
    def _every_vertex(self) -> EveryVertex:
        return EveryVertex(self._request, self._at)


def _in_float64(request: CountRequest, at: VertexEvaluator) -> Evaluator:
    """The network in float64, for the first pre-activations of a chain: the rest of it does not run."""
    if request.x.dtype == torch.float64:
        return at.evaluator
    output = request.options.include_output
    return Evaluator(request.network, torch.float64, request.counted, outputs=output, split=True, pack=False)


def _step(chain: Chain, found: Found, given: frozenset[int]) -> Step:
    """The step of a program that counts a chain."""

    def run(context: Context) -> None:
        assert context.counter_of is not None
        counter = context.counter_of(chain.numbers[0])
        assert isinstance(counter, SiteCounter)
        counter.chain(chain, context.values[found.start])

    form = () if found.split or found.start not in given else (found.start,)
    return Step(found.last, run, form=form)


def displacements_of(request: CountRequest, at: VertexEvaluator) -> Displacements | None:
    """The way by displacements; None where there is none, or where it does not promise to take less."""
    options, dtype, evaluator = request.options, request.x.dtype, at.evaluator
    if dtype not in (torch.float32, torch.float64) or request.x.device.type not in ("cpu", "cuda"):
        return None
    found = find_chain(evaluator.body)
    if found is None:
        return None
    prefix = None
    if found.split:
        prefix = evaluator.linear_prefix
        if evaluator.frontier != [found.start] or prefix is None:
            return None
    # What a chain proves needs no estimate, which takes far longer.
    if options.displacement is None and not options.estimate_ambiguous:
        costs, points = Costs.of(found, dtype, request.pairs, None if prefix is None else prefix[0]), len(request.x)
        if not costs.promise(0.0, points):
            return None
        if found.split and not costs.promise(share_that_changes(request, evaluator), points):
            return None
    return Displacements(request, at, found)


def share_that_changes(request: CountRequest, evaluator: Evaluator) -> float:
    """The share of the first layer's neurons that change around some points, about."""
    dtype = evaluator.dtype
    x, radii, frame = request.x[:_LOOKED_AT].to(dtype), request.radii[:_LOOKED_AT], request.frame.to(dtype)
    z, of_frame, of_zero = (evaluator.prefix(each)[0] for each in (x, frame, frame[:1] * 0))
    reach = (of_frame - of_zero).abs().amax(dim=0) * radii.to(dtype).view(-1, *[1] * (z.dim() - 1))
    return float((z.abs() <= reach).double().mean())
