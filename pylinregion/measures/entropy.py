"""Entropy and mutual information of features, from the eigenvalues of their Gram matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pylinregion._util.checks import positive_integer
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.graph.network import OUTPUT
from pylinregion.measures import _arguments
from pylinregion.measures._captured import AnyModel, captured, elementwise_layers, output_node
from pylinregion.measures._network_function import NetworkFunction
from pylinregion.measures._points import gaussian


@plain_torch()
def matrix_entropy(features: Tensor, alpha: float = 1) -> float:
    """The matrix-based Rényi entropy of features, in nats.

    ``R_ij = <z_i, z_j> / (|z_i| |z_j|)`` is the Gram matrix of the rows, each divided by its 2-norm. Then
    ``H_alpha = log(tr((R / n)^alpha)) / (1 - alpha)`` and, for ``alpha = 1``, ``H_1 = -tr((R / n) log(R / n))``. It is
    0 if all rows have one direction, and ``log n`` if they are orthogonal.

    Args:
        features: ``[n, d]``, no row 0.
        alpha: Above 0.

    Returns:
        The entropy.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: ``features`` has another shape, a row of zeros or is not finite; ``alpha`` is not above 0.

    Source: Tan and Huang (arXiv 2311.06597), definition 2.1; ``alpha`` is 1 there unless said. The entropy is that of
        Sanchez Giraldo, Rao, Principe (arXiv 1211.2459).

    >>> matrix_entropy(torch.eye(4)) == math.log(4)
    True
    >>> matrix_entropy(torch.ones(4, 3)) < 1e-12
    True
    """
    z = _directions("features", features)
    alpha = _arguments.real("alpha", alpha, above=0.0)
    # Singular values of Z / sqrt(n), squared: more exact than eigenvalues of Z Z^T / n, and there may be fewer.
    return _entropy(_nonzero(torch.linalg.svdvals(z / math.sqrt(len(z))), max(z.shape)).square(), alpha)


@plain_torch()
def matrix_mutual_information(a: Tensor, b: Tensor, alpha: float = 1) -> float:
    """The mutual information of two sets of features of the same points: ``H(R_a) + H(R_b) - H(R_a * R_b)``, in nats.

    ``R_a`` and ``R_b`` are the Gram matrices of :func:`matrix_entropy`, and ``*`` is the entrywise product.

    Args:
        a, b: ``[n, d_a]`` and ``[n, d_b]``, row by row of the same points, on one device; no row 0.
        alpha: Above 0.

    Returns:
        The mutual information.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong shape, a row of zeros, is not finite, or ``alpha`` is not above 0.

    Source: Tan and Huang (arXiv 2311.06597) define it "from matrix entropy"; their formula was NOT FOUND. This is the
        standard one, of Sanchez Giraldo, Rao, Principe (arXiv 1211.2459).

    >>> z = torch.eye(4)
    >>> abs(matrix_mutual_information(z, z) - math.log(4)) < 1e-12
    True
    >>> abs(matrix_mutual_information(z, torch.ones(4, 2))) < 1e-12
    True
    """
    first, second = _directions("a", a), _directions("b", b)
    if len(first) != len(second):
        raise ValueError(f"b must have as many rows as a, {len(first)}, got {len(second)}")
    if first.device != second.device:
        raise ValueError(f"b must be on the device of a, {first.device}, got {second.device}")
    alpha = _arguments.real("alpha", alpha, above=0.0)
    joint = (first @ first.T) * (second @ second.T) / len(first)
    both = _entropy(_nonzero(torch.linalg.eigvalsh(joint), len(joint)), alpha)
    return matrix_entropy(first, alpha) + matrix_entropy(second, alpha) - both


def _directions(name: str, value: Tensor) -> Tensor:
    z = _arguments.features(name, value)
    z = z / z.abs().amax(dim=1, keepdim=True)  # so that squares neither overflow nor vanish; 0 / 0 is found below
    norms = z.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()):
        row = int((~torch.isfinite(norms)).nonzero()[0, 0])
        raise ValueError(f"{name} must have no row of zeros, which has no direction, got one at row {row}")
    directions: Tensor = z / norms
    return directions


def _nonzero(values: Tensor, size: int) -> Tensor:
    """Without what is 0 but for rounding: for a small ``alpha`` many such values would weigh in."""
    return values[values > size * torch.finfo(torch.float64).eps * values.max()]


def _entropy(p: Tensor, alpha: float) -> float:
    if alpha == 1:
        return float(-(p * p.log()).sum())
    return float(torch.logsumexp(alpha * p.log(), dim=0)) / (1 - alpha)


@dataclass(frozen=True)
class PerturbedInformation:
    """What :func:`perturbed_information` finds, in nats.

    Attributes:
        mutual_information: Of the two features at the points themselves.
        entropy: Of the output-side features at the points themselves.
        pmi: The mutual information at the perturbed points.
        pe: The entropy at the perturbed points.
    """

    mutual_information: float
    entropy: float
    pmi: float
    pe: float

    @property
    def mid(self) -> float:
        """Mutual information difference: perturbed less unperturbed."""
        return self.pmi - self.mutual_information

    @property
    def ed(self) -> float:
        """Entropy difference: perturbed less unperturbed."""
        return self.pe - self.entropy


@plain_torch()
def perturbed_information(
    model: AnyModel,
    x: Tensor,
    sigma: float,
    *,
    alpha: float = 1,
    first: str | None = None,
    last: str = OUTPUT,
    seed: int = 0,
    batch_size: int = 200,
) -> PerturbedInformation:
    """PMI, PE, MID and ED of a model: entropies of its features under Gaussian noise on the input.

    With ``z1`` the input-side and ``z2`` the output-side features, ``PMI = I(z1; z2)`` and ``PE = H(z2)`` at ``x + d``,
    ``d ~ N(0, sigma^2 I)``, one draw; ``MID`` and ``ED`` are what ``I`` and ``H`` are there less what they are at
    ``x``. All are computed batch by batch and averaged over batches. A Gram matrix of n points has entropy ``log n``
    at most: results for different ``batch_size`` are not comparable.

    Args:
        model: A module, network or exported program; captured, and evaluated in float64.
        x: ``[n, *input_shape]``, on the model's device and of its dtype; the papers take training points.
        sigma: Above 0, in the units of ``x``.
        alpha: Of the entropies, above 0.
        first: The layer whose pre-activations are ``z1``; None: the first one that has any.
        last: The layer whose pre-activations are ``z2``; ``"output"``: the model's output.
        seed: Of the noise.
        batch_size: Points of a batch, at most. Points are cut, in order, into as few batches as that allows, whose
            sizes differ by one at most.

    Returns:
        The four, and what they are without noise.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, the model has several outputs or no such layer, or
            the features of a point are all 0.
        UnsupportedModelError: The model cannot be captured.

    Source: Tan and Huang (arXiv 2311.06597): sigma 0.1 for MNIST (batches of 200), 0.4 for modular addition (on token
        embeddings: give the model without its embedding). NOT FOUND: which layer ``z2`` is (here the logits), and sign
        or absolute value of MID and ED (here signed).

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    >>> found = perturbed_information(model, torch.rand(50, 3), 0.1)
    >>> 0 < found.pe < math.log(50) and found.ed == found.pe - found.entropy
    True
    """
    network = captured(model, x)
    sigma = _arguments.real("sigma", sigma, above=0.0)
    alpha = _arguments.real("alpha", alpha, above=0.0)
    batch_size = positive_integer("batch_size", batch_size)
    layers = elementwise_layers(network)
    for name, value, allowed in (("first", first, list(layers)), ("last", last, [*layers, OUTPUT])):
        if value is not None:
            _arguments.one_of(name, value, tuple(allowed))
    nodes = [
        next(iter(layers.values())) if first is None else layers[first],
        output_node(network) if last == OUTPUT else layers[last],
    ]
    function = NetworkFunction(network, nodes)
    noisy = x.to(torch.float64) + gaussian(x, sigma, seed)
    pieces = -(-len(x) // batch_size)
    sums = [0.0] * 4
    for parts in zip(x.tensor_split(pieces), noisy.tensor_split(pieces), strict=True):
        for place, part in zip((0, 2), parts, strict=True):
            z1, z2 = next(function.batches(part, len(part)))
            sums[place] += matrix_mutual_information(z1, z2, alpha)
            sums[place + 1] += matrix_entropy(z2, alpha)
    return PerturbedInformation(*(total / pieces for total in sums))
