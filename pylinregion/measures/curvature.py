"""How curved the training loss is in the parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pylinregion._util.checks import finite, positive_integer
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.measures import _arguments
from pylinregion.measures._captured import AnyModel, captured, output_node
from pylinregion.measures._gradients import gradient_products
from pylinregion.measures._network_function import NetworkFunction, differentiated, undifferentiated

LOSSES = ("squared", "cross_entropy")


@plain_torch()
def sharpness(model: AnyModel, x: Tensor, *, loss: str = "squared") -> float:
    """The trace of the Hessian of the training loss by the parameters, of the part that needs no labels.

    For the squared loss ``1/(2n) sum_i |f(x_i) - y_i|^2`` it is ``1/n sum_i |J_i|_F^2``, with the Jacobian ``J_i`` of
    the outputs at ``x_i`` by all parameters: the Gauss-Newton part. For the mean cross-entropy it is
    ``1/n sum_i tr(J_i^T (diag(p_i) - p_i p_i^T) J_i)``, with the softmax ``p_i``.

    The rest of the trace is 0 where the model interpolates (squared loss), and everywhere for a network that is affine
    in each of its parameters on every activation region: linear layers, convolutions, batch norm in eval mode and
    piecewise linear activations, no parameter used in two layers. For these it is the trace of the Hessian, at any
    labels. ``nn.MSELoss`` is ``2 / outputs`` times the squared loss used here, and so is its trace.

    Args:
        model: A module, network or exported program; captured, and differentiated in float64.
        x: ``[n, *input_shape]``, the training points, on the model's device and of its dtype.
        loss: ``"squared"`` or ``"cross_entropy"``.

    Returns:
        The trace.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or the model has several outputs or no parameters.
        UnsupportedModelError: The model cannot be captured.

    Source: Tan and Huang (arXiv 2311.06597) call ``S(W)`` the sharpness "as in Ma and Ying" (arXiv 2105.13462). The
        formula was NOT FOUND in either; a paper that builds on Ma and Ying (arXiv 2310.01770) defines sharpness as the
        trace of the Hessian of the loss at a minimum. Their bound: the mean squared norm of the input gradient is at
        most weight norm squared times sharpness over the least input norm squared.

    >>> model = torch.nn.Linear(2, 3)
    >>> sharpness(model, torch.tensor([[3.0, 4.0]]))  # each output has the gradient (3, 4) and 1 for its bias
    78.0
    """
    _arguments.one_of("loss", loss, LOSSES)
    network = captured(model, x)
    output = output_node(network)
    function = NetworkFunction(network, [output])
    total, begin = 0.0, 0
    for products in gradient_products(network, output, x):
        points = x[begin : begin + len(products)]
        begin += len(products)
        with undifferentiated():
            if loss == "cross_entropy":
                p = function(points.to(torch.float64))[0].softmax(dim=1)
                total += float(((torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) * products).sum())
            else:
                total += float(products.diagonal(dim1=1, dim2=2).sum())
    return total / len(x)


@plain_torch()
def largest_eigenvalue(
    model: AnyModel,
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "squared",
    tolerance: float = 1e-6,
    steps: int = 200,
    seed: int = 0,
    batch_size: int = 256,
) -> float:
    """The largest eigenvalue of the Hessian of the training loss by the parameters, the other usual sharpness.

    It is found by Lanczos iteration with full orthogonalisation, which keeps ``steps`` vectors as long as the
    parameters.

    Args:
        model: A module, network or exported program; captured, and differentiated in float64.
        x: ``[n, *input_shape]``, the training points, on the model's device and of its dtype.
        y: ``[n]`` int64 class numbers; for the squared loss these are one-hot targets, and floating point targets are
            taken too, ``[n, outputs]`` or of the shape of the model's output.
        loss: ``"squared"``, ``1/(2n) sum_i |f(x_i) - y_i|^2``, or ``"cross_entropy"``, the mean.
        tolerance: How far, relative to it, the result may be from an eigenvalue.
        steps: Products with the Hessian, at most.
        seed: Of the first vector.
        batch_size: Points at a time.

    Returns:
        The eigenvalue.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or the model has several outputs or no parameters.
        RuntimeError: ``steps`` were not enough.
        UnsupportedModelError: The model cannot be captured.

    Source: the standard definition, e.g. Keskar et al. (arXiv 1609.04836), Cohen et al. (arXiv 2103.00065).

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])  # the Hessian is diag(4, 16) / 2
    >>> round(largest_eigenvalue(model, x, torch.zeros(2, 1)), 6)
    8.0
    """
    _arguments.one_of("loss", loss, LOSSES)
    tolerance = _arguments.real("tolerance", tolerance, above=0.0)
    steps, batch_size = positive_integer("steps", steps), positive_integer("batch_size", batch_size)
    generator = _arguments.generator(seed)
    network = captured(model, x)
    function = NetworkFunction(network, [output_node(network)])
    parameters = _parameters(function)
    outputs = next(function.batches(x[:1], 1))[0].shape[1]
    targets = _targets(x, y, function, outputs, loss)
    sizes = [tensor.numel() for tensor in parameters.values()]

    def product(vector: Tensor) -> Tensor:
        pieces = dict(zip(parameters, torch.split(vector, sizes), strict=True))
        total = torch.zeros_like(vector)
        for begin in range(0, len(x), batch_size):
            rows = slice(begin, begin + batch_size)
            with differentiated():
                leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in parameters.items()}
                out = function(x[rows].detach().to(torch.float64, copy=True), leaves)[0]
                if loss == "squared":
                    value = 0.5 * (out - targets[rows]).square().sum()
                else:
                    value = F.cross_entropy(out, targets[rows], reduction="sum")
                tensors = list(leaves.values())
                slopes = torch.autograd.grad(value, tensors, create_graph=True, materialize_grads=True)
                along = sum((slope.flatten() * pieces[name]).sum() for slope, name in zip(slopes, leaves, strict=True))
                if isinstance(along, Tensor) and along.requires_grad:
                    curved = torch.autograd.grad(along, tensors, materialize_grads=True)
                    total += torch.cat([c.flatten() for c in curved])
        return total / len(x)

    start = torch.randn(sum(sizes), generator=generator, dtype=torch.float64, device="cpu").to(x.device)
    with undifferentiated():
        return _lanczos(product, start, tolerance, steps)


def _parameters(function: NetworkFunction) -> dict[str, Tensor]:
    parameters = {name: function.state[name] for name in function.parameters()}
    if not parameters:
        raise ValueError("model must have parameters that its output depends on, this one has none")
    return parameters


def _targets(x: Tensor, y: Tensor, function: NetworkFunction, outputs: int, loss: str) -> Tensor:
    if loss == "squared" and isinstance(y, Tensor) and y.is_floating_point():
        with undifferentiated():
            (one,) = function.values(x[:1].to(torch.float64))
        batch = function.network.nodes[function.wanted[0]].batch_dim
        shape, rows = [*one.shape], [len(x), outputs]
        shape[batch] *= len(x)
        if list(y.shape) not in (shape, rows) or y.device != x.device:
            want = f"{shape}" if shape == rows else f"{shape} or {rows}"
            raise ValueError(
                f"y must be {want} on {x.device}, as the model's output, got {list(y.shape)} on {y.device}"
            )
        finite("y", y)
        given = y.detach() if list(y.shape) == rows else y.detach().movedim(batch, 0)
        return given.reshape(rows).to(torch.float64, copy=True)
    labels = _arguments.labels("y", y, "x", x, outputs).clone()
    return F.one_hot(labels, outputs).to(torch.float64) if loss == "squared" else labels


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, steps: int) -> float:
    """The largest eigenvalue of a symmetric matrix, given its products with vectors."""
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    residual = float("inf")
    for _ in range(min(steps, len(start))):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        vectors = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that grow
            image = image - vectors.T @ (vectors @ image)
        rest = float(image.norm())
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64, device="cpu"))
        if beside:
            off = torch.tensor(beside, dtype=torch.float64, device="cpu")
            matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
        values, weights = torch.linalg.eigh(matrix)
        largest = float(values[-1])
        residual = rest * abs(float(weights[-1, -1]))
        scale = float(values.abs().max())
        if residual <= tolerance * abs(largest) or rest <= 1e-14 * scale or len(basis) == len(start):
            return largest
        beside.append(rest)
        basis.append(image / rest)
    raise RuntimeError(
        f"the largest eigenvalue did not converge in {steps} steps: {largest:g} is off by up to {residual:g}; "
        "raise steps or tolerance"
    )
