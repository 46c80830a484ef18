"""``count_regions``: arguments in, a plan of batches, the network at the vertices, counts out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pylinregion._util import checks, memory
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.processes import ALONE, Ranks
from pylinregion.caller.torch_settings import full_precision, one_thread
from pylinregion.caller.workers import in_parallel
from pylinregion.capturing.capture import capture
from pylinregion.capturing.guards import unseen
from pylinregion.capturing.selfcheck import observe
from pylinregion.counting.ambiguity import ambiguous_signs
from pylinregion.counting.counts import RegionCounts
from pylinregion.counting.exact_count import EXACT_METHODS, count_exactly
from pylinregion.geometry.frames import check_frame, random_frame
from pylinregion.graph.network import OUTPUT, Network
from pylinregion.graph.operators import Kind
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.runtime.chain import OUTPUT as OUTPUT_NUMBER
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.program import Split, Workspace
from pylinregion.runtime.tally import Site, Tally, as_rows, sites

METHODS = ("vertices", *EXACT_METHODS)

# A batch is small enough for its largest activation to stay in the cache (bench/README.md has the measurements),
# and never needs more than the memory budget.
CACHE_BYTES = {"cpu": 2 << 20, "cuda": 32 << 20}
_NAMED = 5  # operators in a definition
_TRIED = 16  # points by which a chain is judged
_CHAIN_BATCH = 256  # points of which a chain's centres are computed together
_LARGEST_ADAPTIVE_BLOCK = 31 << 20


@plain_torch()
def count_regions(
    model: nn.Module | torch.export.ExportedProgram | Network,
    x: Tensor,
    radius: float | Tensor,
    method: str = "vertices",
    *,
    n_directions: int | None = None,
    frame: Tensor | None = None,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    include_output: bool = False,
    estimate_ambiguous: bool = False,
    dtype: torch.dtype | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    progress: bool = False,
    displacement: bool | None = None,
    _ranks: Ranks = ALONE,  # the monitor's: processes that share the points, and all get all counts
) -> RegionCounts:
    """Count the neurons that change their activation around each point (local complexity), and the regions met.

    Method ``"vertices"`` is the papers' approximation: a neuron is counted for ``x`` if its activation is not on the
    same piece at all vertices ``x ± r v_p`` of the neighbourhood (the centre itself is not a vertex). At a breakpoint
    a neuron is on the lower piece, so a ReLU at exactly 0 is off; a neuron with several breakpoints (ReLU6) changes if
    its piece differs; a max-pool window is a neuron and changes if its winner (the first of the largest, in row-major
    order) differs; smooth activations (GELU, SiLU, tanh ...) change with the sign of their pre-activation.

    The exact methods count the real-arithmetic function of the model's parameters, and prove every sign that they rest
    on; they cover piecewise affine networks (see :func:`explain`). ``"axes"``: a neuron is counted if it is not on one
    piece all along the ``2 P`` arms from ``x`` to ``x ± r v_p``; the regions are the different activation patterns
    along the arms (on intervals: single points, ends among them, do not count). ``"slice"``: the same on the
    two-dimensional slice with the vertices ``x ± r v_1`` and ``x ± r v_2``. For P = 2 and points in general position
    each method counts at least what the one before it does. Regions are those of all layers, whichever are reported.

    The network is counted in eval mode, whatever mode the model is in; by ``"vertices"`` in the arithmetic of ``dtype``
    (TF32 and autocast are off meanwhile). What is affine in front of the first activations is evaluated once, on ``x``
    and on the frame, and batch norms are folded into the layers before them, so that pre-activations may differ from
    those of a plain forward pass of the vertices in their last bits.

    Args:
        model: An ``nn.Module``, a network from :func:`capture`, or an ``ExportedProgram``. A module is captured on
            first use, then the capture is reused; the counts follow its weights.
        x: ``[B, *input_shape]``, on the model's device, of its dtype unless ``dtype`` is given. ``B`` may be 0.
        radius: Above 0: one number, or ``[B]`` numbers. In the units of ``x``, Euclidean.
        method: ``"vertices"``, ``"axes"`` or ``"slice"``.
        n_directions: ``P``, at most the number of input dimensions. None: 25, or all of these if there are fewer; 2 for
            ``"slice"``, which takes no other. Ignored if ``frame`` is given.
        frame: ``[P, *input_shape]`` orthonormal, one for all points, or ``[B, P, *input_shape]``, one for each
            (slower). None: drawn from ``seed``, see :func:`random_frame`.
        seed: Of the frame.
        layers: Names of the layers whose changes to report (see :func:`explain`); None: all.
        include_output: Count the sign changes of the output tensor as one more layer, ``"output"``.
        estimate_ambiguous: Also estimate how many signs rounding may have decided (twice the work and more).
        dtype: Compute in this dtype; None: that of ``x``.
        batch_size: Points per batch, at most; None: sized for the cache and the memory budget.
        memory_budget: Bytes that the batches in flight, or the cells of ``"slice"``, may take; None: environment
            variable ``PYLINREGION_MEMORY_BUDGET``, else 512 MiB (CUDA and ``"slice"``: half of the free memory). A
            batch is at least one point.
        progress: Show a bar.
        displacement: How the dense layers that a network ends in are counted: True, by how far the vertices are from
            the points, which takes a fraction of the work where few neurons change; False, at every vertex like all
            else; None: whichever takes less, and on CUDA at every vertex, since the kernel has not run on a GPU yet.
            The signs are the same but where rounding decides: False rounds in ``dtype`` throughout, True proves signs,
            in float64 what float32 leaves open, and takes the vertices of a point where one remains unproven.

    ``include_output``, ``estimate_ambiguous``, ``dtype``, ``batch_size`` and ``displacement`` belong to ``"vertices"``:
    exact methods refuse them.

    Returns:
        The counts, on the device of ``x``.

    Raises:
        ValueError: An argument has a wrong value, shape or device, does not go with the method, or a pre-activation is
            NaN or infinite.
        TypeError: An argument has a wrong type or dtype.
        UnsupportedModelError: The model cannot be counted without guessing, or not exactly; the message says why.
        BudgetExceededError: The slice around a point has more cells than ``memory_budget`` allows.

    Source: Humayun, Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why", ICML 2024 (arXiv 2402.15555),
        section 2.2; the reported number is the sum over layers, averaged over points (``counts.mean()``).

    >>> import torch, pylinregion as plr
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), net[0].bias.zero_()
    >>> plr.count_regions(net, torch.tensor([[0.0, 0.0], [5.0, 5.0]]), 0.1, n_directions=2).total
    tensor([3, 0])
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    checks.switches(include_output=include_output, estimate_ambiguous=estimate_ambiguous, progress=progress)
    checks.optional_switch("displacement", displacement)
    exact = method in EXACT_METHODS
    if exact:
        _refuse_for_exact_methods(method, include_output, estimate_ambiguous, dtype, batch_size, displacement)
    checks.floating_tensor("x", x)
    if x.dim() < 1:
        raise ValueError("x must be [B, *input_shape], got a tensor without dimensions")
    if 0 in x.shape[1:]:
        raise ValueError(f"x must have points of at least one number, got {list(x.shape)}")
    if dtype is not None and dtype not in checks.FLOATS:
        raise TypeError(f"dtype must be float32, float64, bfloat16 or float16, got {dtype}")
    x = x.detach()
    example = in_model_dtype(model, x, dtype)
    if isinstance(model, nn.Module):
        checks.fits_module("x", example, model)
    # The preparations on one thread: torch's own threads would go on spinning on the cores that the batches need.
    with one_thread() as n_threads:
        checks.finite("x", x)
        radii = checks.radii(radius, len(x), x.device)
        for name, number in (("batch_size", batch_size), ("memory_budget", memory_budget)):
            if number is not None:
                checks.positive_integer(name, number)
        network = capture(model, example)
        check_fits(network, x, dtype)
        compute = dtype or x.dtype
        counted = checks.chosen_layers(layers, network.layer_names)
        if include_output and len(network.outputs) != 1:
            raise ValueError(
                f"include_output needs a model with one output tensor, this one has {len(network.outputs)}"
            )
        each = frame is not None and check_frame(frame, network.input_shape, len(x))
        if method == "slice" and frame is not None and frame.shape[1 if each else 0] != 2:
            raise ValueError(f"frame must have 2 directions for method 'slice', got {frame.shape[1 if each else 0]}")
        if frame is None:
            if method == "slice":
                if n_directions not in (None, 2):
                    raise ValueError(f"n_directions must be 2 for method 'slice', got {n_directions}")
                n_directions = 2
            frame = random_frame(network.input_shape, n_directions, seed=seed)
        directions = frame.detach().to(x.device)
        with torch.no_grad(), full_precision():
            network.check_parameters()
            if exact:
                own = _ranks.part(len(x))
                counts = count_exactly(
                    method,
                    network,
                    x[own],
                    radii[own],
                    directions[own] if each else directions,
                    counted,
                    threads=n_threads,
                    memory_budget=memory_budget,
                    progress=progress,
                )
                return counts if _ranks.world == 1 else _whole(counts, own, len(x), _ranks)
            job = _Job(
                network,
                x.to(compute),
                radii,
                directions,
                each,
                counted,
                include_output,
                estimate_ambiguous,
                displacement=displacement,
            )
            job.run(batch_size, memory_budget, progress, n_threads, _ranks)
        names = [network.layer_names[number] for number in counted] + [OUTPUT] * include_output
        job.check_finite(names)
        if not network.layers and network.uncounted and not include_output:
            warnings.warn(
                f"{nothing_or_part(network)}; local complexity is 0 whatever it computes", stacklevel=3
            )  # past plain_torch
        return RegionCounts(
            changes=job.changes,
            regions=job.regions,
            ambiguous=job.ambiguous,
            layers=tuple(names),
            definition=_definition(network, counted, directions.shape[1 if each else 0]),
            method=method,
            uncounted=network.uncounted,
        )


def _refuse_for_exact_methods(
    method: str,
    include_output: bool,
    estimate_ambiguous: bool,
    dtype: torch.dtype | None,
    batch_size: int | None,
    displacement: bool | None,
) -> None:
    """Refuse what has no meaning where nothing is rounded and points are not batched."""
    reasons = {
        "include_output": (include_output, "it counts where neurons bend, and the output does not"),
        "estimate_ambiguous": (estimate_ambiguous, "all its signs are proven, and its counts say 0 are ambiguous"),
        "dtype": (dtype is not None, "it counts the real function of the parameters, whatever their dtype"),
        "batch_size": (batch_size is not None, "it has no batches"),
        "displacement": (displacement is not None, "it has no vertices"),
    }
    for name, (given, why) in reasons.items():
        if given:
            raise ValueError(f"{name} must not be given for method {method!r}: {why}")


def _whole(counts: RegionCounts, own: slice, points: int, ranks: Ranks) -> RegionCounts:
    """Exact counts of all points, from those that each process has of its own."""
    changes = counts.changes.new_zeros(points, len(counts.layers))
    regions = counts.regions.new_zeros(points)
    changes[own], regions[own] = counts.changes, counts.regions
    changes, regions = ranks.summed(changes, regions)
    return dataclasses.replace(counts, changes=changes, regions=regions, ambiguous=torch.zeros_like(regions))


def in_model_dtype(model: Any, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """``x`` in the dtype that the model takes, where the caller asked to compute in another."""
    if dtype is None or not isinstance(model, nn.Module):
        return x
    return x.to(next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype))


def check_fits(network: Network, x: Tensor, dtype: torch.dtype | None) -> None:
    """Points of the network's shape, device and dtype."""
    if tuple(x.shape[1:]) != network.input_shape:
        shape = ", ".join(map(str, network.input_shape))
        raise ValueError(f"x must be [B, {shape}], as the network was captured, got {list(x.shape)}")
    if x.device != network.device:
        raise ValueError(f"x must be on {network.device}, as the network was captured, got {x.device}")
    if dtype is None and x.dtype != network.dtype:
        raise TypeError(f"x must be {network.dtype}, as the network was captured, got {x.dtype}; or pass dtype=")


def _definition(network: Network, counted: Sequence[int], n_directions: int) -> str:
    text = (
        f"neurons whose activation differs among the {2 * n_directions} vertices x ± r v_p; "
        "regions: distinct activation patterns among these vertices"
    )
    text += smooth_by_sign(network, counted)
    return f"{text}; {words}" if (words := nothing_or_part(network)) else text


def smooth_by_sign(network: Network, counted: Sequence[int]) -> str:
    """What is to be said of smooth activations among the counted layers."""
    smooth = sorted({network.layers[n].op_name for n in counted if network.layers[n].kind is Kind.SMOOTH})
    if not smooth:
        return ""
    return f"; {', '.join(smooth)} by the sign of the pre-activation, since smooth activations have no regions"


def nothing_or_part(network: Network) -> str:
    """What is to be said where not all of a network's non-linear operators are counted."""
    operators = network.uncounted
    if not operators:
        return "" if network.layers else "the network is affine: it has no neurons"
    named = ", ".join(operators[:_NAMED]) + f" and {len(operators) - _NAMED} more" * (len(operators) > _NAMED)
    if network.layers:
        return f"not counted: {named}"
    return f"nothing of this network is counted: it has no neurons, its non-linear operators are {named}"


@dataclass(frozen=True)
class _Way:
    """How points are counted.

    Attributes:
        evaluator: Of the network, with a chain or without.
        directions: What its prefix makes of the frame; none where each point has a frame of its own.
        sites, words: See :func:`pylinregion.runtime.tally.sites`.
    """

    evaluator: Evaluator
    directions: list[Tensor]
    sites: dict[int, Site]
    words: int


@dataclass
class _Plan:
    """How the points are cut into batches."""

    batch: int
    workers: int


class _Job:
    """One count: the evaluators, the batches, and the results as they come in."""

    def __init__(
        self,
        network: Network,
        x: Tensor,
        radii: Tensor,
        frame: Tensor,
        frame_per_point: bool,
        counted: tuple[int, ...],
        include_output: bool,
        estimate: bool,
        displacement: bool | None,
    ) -> None:
        self.network, self.x, self.radii = network, x, radii
        self.frame, self.frame_per_point = frame, frame_per_point
        self.counted, self.include_output = counted, include_output
        self.vertices = 2 * frame.shape[1 if frame_per_point else 0]
        self.own = threading.local()  # each thread's workspace
        self.unseen = unseen(network, counted, include_output)
        columns, device = len(counted) + include_output, x.device
        self.changes = torch.zeros(len(x), columns, dtype=torch.int64, device=device)
        self.nonfinite = torch.zeros(columns + len(self.unseen), len(x), dtype=torch.uint8, device=device)
        self.regions = torch.zeros(len(x), dtype=torch.int64, device=device)
        self.ambiguous = torch.zeros(len(x), dtype=torch.int64, device=device) if estimate else None
        self.estimators: list[tuple[Evaluator, list[Tensor]]] = []
        self.done = 0  # points that are counted
        self.evaluator = self._evaluator(x.dtype)
        by_itself = displacement is None and not x.is_cuda  # on a GPU it has not been measured yet
        if (displacement or by_itself) and not frame_per_point:
            ask = by_itself and not estimate  # what a chain proves needs no estimate, which takes far longer
            self.evaluator.use_chain(len(x), self.vertices // 2, self._changing_first if ask else None)
        self._use()
        if displacement and self.chain is None:
            raise ValueError(
                "displacement must not be True here: that needs a network in float32 or float64 that ends in linear "
                "layers and ReLU, LeakyReLU, PReLU or abs in turn, all counted, and one frame for all points"
            )
        proven = estimate and self._proven
        self.undecided = displacement is None and self.chain is not None and not proven
        if estimate and not self._proven:
            for each in (x.dtype, torch.float32 if x.dtype == torch.float64 else torch.float64):
                evaluator = self._evaluator(each)
                self.estimators.append((evaluator, self._directions(evaluator)))

    def _use(self) -> None:
        """Take what depends on whether the evaluator has a chain."""
        evaluator = self.evaluator
        self.chain = evaluator.chain
        self.way = self._way(evaluator)
        if self.chain is not None:
            self.chain.prepare(self.vertices // 2, self.way.directions[0] if self.chain.split else None)

    def _way(self, evaluator: Evaluator) -> _Way:
        found = sites(self.network, self.counted, evaluator.body, self.include_output, evaluator.chain)
        return _Way(evaluator, self._directions(evaluator.exact or evaluator), *found)

    @functools.cached_property
    def at_vertices(self) -> _Way:
        """Counting at all vertices, for points at which a chain leaves signs unproven."""
        return self._way(self.evaluator.without_chain())

    def _decide(self, batch: int) -> None:
        """Keep the chain if it is the faster way, going by some points. What was counted for these stays."""
        assert self.chain is not None
        self.undecided = False
        if len(self.x) == 0:
            return
        tried = min(len(self.x), _TRIED, batch)
        self._count(0, tried, 1)
        if not bool(self.nonfinite.any()):
            self.done = tried
        if not self.chain.pays():
            self.evaluator = self.evaluator.without_chain()
            self._use()

    def _changing_first(self) -> float:
        """The share of the first layer's neurons that change around some points, about."""
        evaluator, dtype = self.evaluator, self.evaluator.dtype
        x, radii = self.x[:_TRIED].to(dtype), self.radii[:_TRIED]
        frame = self.frame.to(dtype)
        z, of_frame, of_zero = (evaluator.prefix(each)[0] for each in (x, frame, frame[:1] * 0))
        reach = (of_frame - of_zero).abs().amax(dim=0) * radii.to(dtype).view(-1, *[1] * (z.dim() - 1))
        return float((z.abs() <= reach).double().mean())

    @property
    def _proven(self) -> bool:
        """Whether all signs are those of a chain."""
        return self.chain is not None and self.chain.split

    def _evaluator(self, dtype: torch.dtype) -> Evaluator:
        # oneDNN's float32 convolutions are about twice as fast on channels_last images.
        convolves = any(node.op_name in ("conv2d", "convolution") for node in self.network.nodes)
        last = convolves and dtype == torch.float32 and not self.x.is_cuda and len(self.network.input_shape) == 3
        split = not self.frame_per_point
        return Evaluator(
            self.network,
            dtype,
            self.counted,
            outputs=self.include_output,
            split=split,
            channels_last=last,
            also=self.unseen,
        )

    def _directions(self, evaluator: Evaluator) -> list[Tensor]:
        if self.frame_per_point:
            return []
        return evaluator.prefix_directions(self.frame.to(self.x.dtype).to(evaluator.dtype))

    def run(
        self, batch_size: int | None, memory_budget: int | None, progress: bool, n_threads: int, ranks: Ranks
    ) -> None:
        """Count all points: each process some of the batches, which are those of one process, so that all bits are."""
        threads = 1 if self.x.is_cuda else n_threads
        if self.undecided:
            self._decide(self._plan(batch_size, memory_budget, threads).batch)
        plan = self._plan(batch_size, memory_budget, threads)
        if ranks.rank or not self.done:  # what was tried is rank 0's, or is counted again
            for found in (self.changes, self.regions, self.nonfinite, self.ambiguous):
                if found is not None:
                    found.zero_()
        batch = ranks.agreed(plan.batch)  # it may depend on what memory is free
        ranges = [(start, min(start + batch, len(self.x))) for start in range(self.done, len(self.x), batch)]
        own = ranks.own(ranges)
        tried = 0 if ranks.rank else self.done
        with tqdm(total=tried + sum(end - begin for begin, end in own), unit="point", disable=not progress) as bar:
            bar.update(tried)
            if plan.workers == 1:
                _in_turn(own, self._halving(), n_threads, bar.update)
            else:
                # glibc returns the top of a thread's heap to the system after each batch, and the next batch faults it
                # in again, unless it has seen a larger block freed: it then takes such blocks for usual. Nothing of
                # this one is touched.
                torch.empty(_LARGEST_ADAPTIVE_BLOCK, dtype=torch.uint8, device="cpu")
                in_parallel(own, self._batch, plan.workers, bar.update, self._alone)
        self._together(ranks)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A thread that counts batches by itself: no operator is cut up, and no thread waits for another.

        torch's own threads would meet at every operator of a batch, which is small on purpose.
        """
        torch.set_num_threads(1)  # what a new thread has is up to its OpenMP library
        try:
            with torch.no_grad():
                yield
        finally:
            vars(self.own).clear()  # here, not when the thread ends: see pylinregion.caller.workers

    def _together(self, ranks: Ranks) -> None:
        """Results of all points, from those that each process has of its own, in whose place others have zeros."""
        self.changes, self.regions, self.nonfinite = ranks.summed(self.changes, self.regions, self.nonfinite)
        if self.ambiguous is not None:
            (self.ambiguous,) = ranks.summed(self.ambiguous)

    def _plan(self, batch_size: int | None, memory_budget: int | None, threads: int) -> _Plan:
        cuda, left = self.x.is_cuda, len(self.x) - self.done
        memory_budget = memory.batch_budget(memory_budget, self.x.device)
        peak, largest = self.evaluator.body.bytes_per_row(self.x.dtype)
        per_point = self.vertices * (peak + 8 * self.way.words) + 1
        affordable = max(1, memory_budget // (per_point * threads))
        if batch_size is None:
            few = 2 if threads == 1 else 1  # the activations of a large network are past the cache anyway
            if self._proven:
                few = _CHAIN_BATCH
            batch_size = max(few, CACHE_BYTES["cuda" if cuda else "cpu"] // (self.vertices * largest + 1))
            batch_size = min(batch_size, affordable)
        # Every worker gets as much; with a single batch, torch's own threads share the work instead.
        if threads > 1:
            batches = -(-left // (batch_size * threads)) * threads
            batch_size = -(-left // max(1, batches))
        batch_size = max(1, batch_size)
        batches = -(-left // batch_size)
        return _Plan(batch_size, min(threads, batches) if threads > 1 and batches > 1 else 1)

    def _halving(self) -> Callable[[int, int, int], None]:
        """Counting that, when the device is out of memory, halves the batch for good."""
        limit = [len(self.x) + 1]

        def count(begin: int, end: int, threads: int) -> None:
            while begin < end:
                stop = min(end, begin + limit[0])
                try:
                    self._count(begin, stop, threads)
                except torch.OutOfMemoryError:
                    if stop - begin == 1:
                        raise
                    torch.cuda.empty_cache()
                    if limit[0] > len(self.x):
                        warnings.warn(
                            f"out of memory with {stop - begin} points in a batch: going on with half of it "
                            f"(batch_size, memory_budget or {memory.BUDGET_VARIABLE} set a smaller one from the start)",
                            ResourceWarning,
                            stacklevel=6,
                        )
                    limit[0] = (stop - begin) // 2
                else:
                    begin = stop

        return count

    def _batch(self, points: tuple[int, int]) -> int:
        """Count the points of a batch, on this thread alone; gives their number."""
        begin, end = points
        self._count(begin, end, 1)
        return end - begin

    def _count(self, begin: int, end: int, threads: int) -> None:
        """Count the points ``[begin, end)`` and store their results."""
        if not hasattr(self.own, "workspace"):
            self.own.workspace = Workspace()
        unproven = self._count_by(self.way, slice(begin, end), threads)
        if self.ambiguous is not None:
            known = unproven if self._proven else None
            self.ambiguous[begin:end] = self._estimate(begin, end) if known is None else known
        if unproven is None or not bool(unproven.any()):
            return
        # Of exact ties too, what is counted must not depend on the way: such points are counted at their vertices.
        width = self.at_vertices.evaluator.body.bytes_per_row(self.x.dtype)[1]
        at_once = max(1, CACHE_BYTES["cuda" if self.x.is_cuda else "cpu"] // (self.vertices * width + 1))
        points = begin + unproven.nonzero().flatten()
        for first in range(0, len(points), at_once):
            self._count_by(self.at_vertices, points[first : first + at_once], threads)

    def _count_by(self, way: _Way, rows: slice | Tensor, threads: int) -> Tensor | None:
        """Count the points of these rows and store the results.

        Returns:
            How many signs of each a chain has not proven; None if there is no chain.
        """
        workspace: Workspace = self.own.workspace
        points = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        tally = Tally(way.sites, way.words, points, self.vertices, self.x.device, workspace, threads)
        values = self._frontier(way.evaluator, way.directions, rows, workspace)
        outputs = way.evaluator.run(values, points * self.vertices, tally.counter, workspace, threads)
        chain = way.evaluator.chain
        if self.include_output and (chain is None or OUTPUT_NUMBER not in chain.numbers):
            tally.counter(-1).signs(outputs[0], ScalarKink())
        self.changes[rows] = tally.changes
        self.nonfinite[: len(tally.nonfinite), rows] = tally.nonfinite
        for row, (index, value) in enumerate(zip(reversed(self.unseen), reversed(outputs), strict=False), 1):
            numbers = as_rows(value, self.network.shaped(index)).reshape(points, -1)
            self.nonfinite[-row, rows] = (~numbers.isfinite().all(dim=1)).to(torch.uint8)
        self.regions[rows] = tally.regions()
        return tally.ambiguous

    def _frontier(
        self, evaluator: Evaluator, directions: list[Tensor], rows: slice | Tensor, workspace: Workspace
    ) -> list[Any]:
        """What the evaluator starts from, for the points of these rows: splits, or the vertices themselves."""
        x, radii = self.x[rows].to(evaluator.dtype), self.radii[rows]
        if self.frame_per_point:
            return [_vertices(x, radii, self.frame[rows].to(evaluator.dtype))]
        if evaluator.exact is not None:
            return [evaluator.exact_split(x, directions[0], radii, workspace)]
        return [Split(centre, v, radii) for centre, v in zip(evaluator.prefix(x), directions, strict=True)]

    def _estimate(self, begin: int, end: int) -> Tensor:
        """The ambiguous signs of the points ``[begin, end)``."""
        seen = []
        for evaluator, directions in self.estimators:
            values = self._frontier(evaluator, directions, slice(begin, end), self.own.workspace)
            formed = [value.materialise() if isinstance(value, Split) else value for value in values]
            seen.append(observe(evaluator, formed, (end - begin) * self.vertices)[1])
        own, other = seen
        if self.x.dtype == torch.float64:
            scale = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
            return ambiguous_signs(other, own, end - begin, scale, self.x.device)
        return ambiguous_signs(own, other, end - begin, 1.0, self.x.device)

    def check_finite(self, names: Sequence[str]) -> None:
        """Refuse results that rest on NaN or infinity."""
        bad = self.nonfinite.nonzero()
        if len(bad):
            layer, point = bad[0].tolist()
            if layer >= len(names):
                place = list(self.unseen.values())[layer - len(names)]
                raise ValueError(
                    f"around point {point} of x a value is NaN or infinite, for which the model goes another way{place}"
                )
            raise ValueError(
                f"the pre-activations of layer {names[layer]!r} are NaN or infinite around point {point} of x: "
                f"{self.x.dtype} overflows there"
            )


def _vertices(x: Tensor, radii: Tensor, frames: Tensor) -> Tensor:
    """``[b, *shape]`` and ``[b, P, *shape]`` to ``[b * 2P, *shape]``, all plus, then all minus."""
    offset = frames * radii.to(x.dtype).view(-1, 1, *[1] * (x.dim() - 1))
    centre = x.unsqueeze(1)
    return torch.cat([centre + offset, centre - offset], dim=1).flatten(0, 1)


def _in_turn(
    ranges: Sequence[tuple[int, int]],
    count: Callable[[int, int, int], None],
    n_threads: int,
    done: Callable[[int], Any],
) -> None:
    torch.set_num_threads(n_threads)
    for begin, end in ranges:
        count(begin, end, n_threads)
        done(end - begin)
