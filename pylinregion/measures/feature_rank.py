"""The numerical rank of features, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pylinregion._util.checks import positive_integer, switches
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.graph.network import OUTPUT
from pylinregion.measures import _arguments
from pylinregion.measures._captured import AnyModel, captured, elementwise_layers, output_node
from pylinregion.measures._network_function import NetworkFunction, undifferentiated

THRESHOLDS = ("code", "text")


@plain_torch()
def feature_ranks(
    model: AnyModel, x: Tensor, *, threshold: str = "code", include_output: bool = False, batch_size: int = 256
) -> dict[str, int]:
    """The rank of the covariance of each layer's pre-activations over the points.

    It is the number of singular values above ``s e sigma_max``, with ``e = 2^-52``, the largest singular value
    ``sigma_max``, and ``s = d`` for ``threshold="code"``, ``s = max(n, d)`` for ``"text"``; n points, d neurons. The
    covariance is that of the centred features, so that ranks are n - 1 at most.

    Args:
        model: A module, network or exported program; captured, and evaluated in float64, whatever its dtype.
        x: ``[n, *input_shape]``, at least 2, on the model's device and of its dtype.
        threshold: ``"code"`` or ``"text"``.
        include_output: Whether the model's output is one more layer, ``"output"``.
        batch_size: Points at a time. What is kept of a layer is its covariance, ``[d, d]``, or, for n < d, its
            features, ``[n, d]``.

    Returns:
        The ranks, by the names that :func:`pylinregion.explain` gives the layers, in their order. Only elementwise
        activations have pre-activations: max-pools and comparisons are not among them.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, there are no layers, or a pre-activation is NaN or
            infinite.
        UnsupportedModelError: The model cannot be captured.

    Source: Fan, Pascanu, Jaggi (arXiv 2405.19454), on the outputs of linear layers and the full test set, in float64.
        Their text: threshold max(n, d) times machine epsilon, which is the default of ``torch.linalg.matrix_rank`` and
        there relative to ``sigma_max``, as here. Their code: ``matrix_rank(torch.cov(rep.T))``, whose matrix is d by d.

    >>> model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 8), torch.nn.ReLU())
    >>> x = torch.cat([torch.eye(5), -torch.eye(5)])
    >>> feature_ranks(model, x)["1"]
    3
    """
    _arguments.one_of("threshold", threshold, THRESHOLDS)
    switches(include_output=include_output)
    batch_size = positive_integer("batch_size", batch_size)
    network = captured(model, x, at_least=2)
    nodes = elementwise_layers(network)
    if include_output:
        nodes[OUTPUT] = output_node(network)
    function = NetworkFunction(network, list(nodes.values()))
    with undifferentiated():
        sums = [sum(part) for part in zip(*_batch_sums(function, x, batch_size), strict=True)]
        means = [total / len(x) for total in sums]
        for name, mean in zip(nodes, means, strict=True):
            if not bool(torch.isfinite(mean).all()):
                raise ValueError(f"the pre-activations of layer {name!r} add up to infinity over x")
        covariances = [
            torch.zeros(len(m), len(m), dtype=m.dtype, device=m.device) if len(m) <= len(x) else None for m in means
        ]
        kept: list[list[Tensor]] = [[] for _ in means]
        for values in function.batches(x, batch_size):  # a second time: one pass would lose digits to the mean
            for number, (value, mean) in enumerate(zip(values, means, strict=True)):
                centred = value - mean
                covariance = covariances[number]
                if covariance is None:
                    kept[number].append(centred)
                else:
                    covariance.addmm_(centred.T, centred)
        return {
            name: _rank(covariances[number], kept[number], len(x), len(means[number]), threshold)
            for number, name in enumerate(nodes)
        }


def _batch_sums(function: NetworkFunction, x: Tensor, batch_size: int) -> list[list[Tensor]]:
    return [[value.sum(dim=0) for value in values] for values in function.batches(x, batch_size)]


def _rank(covariance: Tensor | None, kept: list[Tensor], n: int, d: int, threshold: str) -> int:
    """Of a covariance times n - 1, or of features: their Gram matrix has the same singular values but for zeros."""
    if covariance is None:
        features = torch.cat(kept)
        covariance = features @ features.T
    if covariance.numel() == 0:
        return 0
    singular = torch.linalg.eigvalsh(covariance).abs()
    size = d if threshold == "code" else max(n, d)
    return int((singular > size * torch.finfo(torch.float64).eps * singular.max()).sum())


def tunnel_length(ranks: Mapping[str, int], below: int = 300) -> int:
    """How many layers have a rank below a limit.

    Args:
        ranks: What :func:`feature_ranks` gives.
        below: The limit; 300 suits layers of 400 neurons.

    Returns:
        The number of layers.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: ``below`` is not at least 1, or there are no layers.

    Source: Fan, Pascanu, Jaggi (arXiv 2405.19454): layers of width 400 with rank below 300.

    >>> tunnel_length({"1": 400, "3": 300, "5": 120, "7": 47})
    2
    """
    if not isinstance(ranks, Mapping):
        raise TypeError(f"ranks must be a mapping from layers to ranks, got {type(ranks).__name__}")
    if not ranks:
        raise ValueError("ranks must have at least 1 layer, got none")
    below = positive_integer("below", below)
    return sum(rank < below for rank in ranks.values())
