"""Method ``"vertices"``: a way is chosen, points are counted batch by batch, and results put together."""

from __future__ import annotations

from tqdm import tqdm

from pylinregion.caller.processes import Ranks
from pylinregion.counting.batch_counts import BatchCounts, number_of
from pylinregion.counting.batches import count_batches, planned
from pylinregion.counting.choice import choose
from pylinregion.counting.counts import RegionCounts
from pylinregion.counting.definitions import definition_at_vertices
from pylinregion.counting.request import CountRequest
from pylinregion.runtime.workspace import Workspace


def count_at_vertices(request: CountRequest, threads: int, ranks: Ranks) -> RegionCounts:
    """Count by method ``"vertices"``: each process some of the batches of one, so that all bits are those of one.

    Raises:
        ValueError: Displacements are asked for where there are none, or numbers are NaN or infinite.
    """
    x, options = request.x, request.options
    way, first = choose(request, threads)
    layers, unseen, estimated = len(request.layer_names), len(request.unseen), options.estimate_ambiguous
    counts = BatchCounts.zeros(len(x), layers, unseen, estimated, x.device)
    # What was tried is process 0's. The others may have tried other points, where memory or processor are not the same.
    done = ranks.agreed(0 if first is None else len(first.regions))
    tried = 0 if ranks.rank else done
    if first is not None and not ranks.rank:
        counts.put(slice(0, done), first)
    plan = planned(way.needs, len(x) - done, x.device, threads, options.batch_size, options.memory_budget)
    batch = ranks.agreed(plan.batch)  # it may depend on what memory is free
    own = ranks.own([slice(start, min(start + batch, len(x))) for start in range(done, len(x), batch)])

    def count(points: slice, workspace: Workspace, threads: int) -> None:
        counts.put(points, way.count(points, workspace, threads))

    points = sum(map(number_of, own))
    with tqdm(total=tried + points, unit="point", disable=not options.progress) as bar:
        bar.update(tried)
        count_batches(count, own, plan.workers, threads, bar.update)
    counts = counts.summed(ranks)
    _check_finite(request, counts)
    return RegionCounts(
        changes=counts.changes,
        regions=counts.regions,
        ambiguous=counts.ambiguous,
        layers=request.layer_names,
        definition=definition_at_vertices(request.network, request.counted, request.vertices),
        method=request.method,
        uncounted=request.network.uncounted,
    )


def _check_finite(request: CountRequest, counts: BatchCounts) -> None:
    """Refuse results that rest on NaN or infinity."""
    bad = counts.nonfinite.nonzero()
    if not len(bad):
        return
    row, point = bad[0].tolist()
    names = request.layer_names
    if row >= len(names):
        raise ValueError(
            f"around point {point} of x a value is NaN or infinite, for which the model goes another way"
            f"{list(request.unseen.values())[row - len(names)]}"
        )
    raise ValueError(
        f"the pre-activations of layer {names[row]!r} are NaN or infinite around point {point} of x: "
        f"{request.x.dtype} overflows there"
    )
