"""``count_regions``: arguments in, counts out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.processes import ALONE, Ranks
from pylinregion.caller.torch_settings import one_thread
from pylinregion.counting.at_vertices import count_at_vertices
from pylinregion.counting.counts import RegionCounts
from pylinregion.counting.definitions import nothing_or_part
from pylinregion.counting.exact_count import count_exactly
from pylinregion.counting.request import CountOptions, checked_request
from pylinregion.graph.network import Network


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
    and on the frame, and batch norms are fused into the layers before them, so that pre-activations may differ from
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
        memory_budget: Bytes that the batches in flight may take; None: environment variable
            ``PYLINREGION_MEMORY_BUDGET``, else 512 MiB (CUDA: half of the free memory). A batch is at least one point.
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

    Source: Humayun, Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why", ICML 2024 (arXiv 2402.15555),
        section 2.2; the reported number is the sum over layers, averaged over points (``counts.mean()``).

    >>> import torch, pylinregion as plr
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), net[0].bias.zero_()
    >>> plr.count_regions(net, torch.tensor([[0.0, 0.0], [5.0, 5.0]]), 0.1, n_directions=2).total
    tensor([3, 0])
    """
    options = CountOptions(include_output, estimate_ambiguous, dtype, batch_size, memory_budget, progress, displacement)
    # The preparations on one thread: torch's own threads would go on spinning on the cores that the batches need.
    with one_thread() as threads:
        request = checked_request(
            model,
            x,
            radius,
            method,
            n_directions=n_directions,
            frame=frame,
            seed=seed,
            layers=layers,
            options=options,
        )
        if method != "vertices":
            return count_exactly(request, threads, _ranks)
        counts = count_at_vertices(request, threads, _ranks)
    network = request.network
    if not network.layers and network.uncounted and not include_output:
        warnings.warn(
            f"{nothing_or_part(network)}; local complexity is 0 whatever it computes", stacklevel=3
        )  # past plain_torch
    return counts
