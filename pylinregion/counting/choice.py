"""Which way points are counted: at every vertex, or by displacements where that takes less."""

from __future__ import annotations

from pylinregion.counting.ambiguity import AmbiguityEstimate
from pylinregion.counting.batch_counts import BatchCounts
from pylinregion.counting.batches import planned
from pylinregion.counting.displacements import Displacements, displacements_of
from pylinregion.counting.every_vertex import EveryVertex
from pylinregion.counting.request import CountRequest
from pylinregion.counting.vertex_evaluator import VertexEvaluator

_TRIED = 16  # points by which displacements are judged


def choose(request: CountRequest, threads: int) -> tuple[EveryVertex | Displacements, BatchCounts | None]:
    """The way for a request, and what has been found around its first points where they were needed to choose.

    The costs of both ways are from measurements, and no clock runs: the same request is always counted the same way.

    Args:
        request: What is counted.
        threads: CPU threads.

    Raises:
        ValueError: Displacements are asked for where there are none.
    """
    options = request.options
    at = VertexEvaluator(request, request.x.dtype)
    wanted = options.displacement
    if wanted is None:
        wanted = not request.x.is_cuda  # on a GPU they have not been measured yet
    way = displacements_of(request, at) if wanted and not request.own_frames else None
    if way is None:
        if options.displacement:
            raise ValueError(
                "displacement must not be True here: that needs a network in float32 or float64 that ends in linear "
                "layers and ReLU, LeakyReLU, PReLU or abs in turn, all counted, and one frame for all points"
            )
        return _every_vertex(request, at), None
    if options.displacement or (options.estimate_ambiguous and way.proven) or len(request.x) == 0:
        return way, None
    plan = planned(way.needs, len(request.x), request.x.device, threads, options.batch_size, options.memory_budget)
    found, pays = way.tried(slice(0, min(len(request.x), _TRIED, plan.batch)))
    # Where numbers overflow, all is counted again, so that what is refused is named as if nothing had been tried.
    return (way if pays else _every_vertex(request, at)), None if bool(found.nonfinite.any()) else found


def _every_vertex(request: CountRequest, at: VertexEvaluator) -> EveryVertex:
    return EveryVertex(request, at, AmbiguityEstimate(request) if request.options.estimate_ambiguous else None)
