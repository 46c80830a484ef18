"""Local complexity as a density, local rank, and total variation: measures of the input Jacobian of each layer."""

from __future__ import annotations

import torch
from torch import Tensor

from pylinregion._util.checks import positive_integer
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.graph.kinks import bound_arguments
from pylinregion.graph.network import OUTPUT, Network, Ref
from pylinregion.measures import _arguments
from pylinregion.measures._captured import AnyModel, captured, elementwise_layers, output_node
from pylinregion.measures._network_function import NetworkFunction, undifferentiated
from pylinregion.measures._points import batches_of

BIASES = ("coded", "trained")


@plain_torch()
def density_local_complexity(
    model: AnyModel, x: Tensor, *, sigma: float = 0.01, bias: str = "coded", seed: int = 0, batch_size: int = 32
) -> float:
    """Local complexity as the density of linear regions: ``mean_x sum_i exp(-u_i^2 / (2 sigma^2)) |grad_x z_i(x)|``.

    The sum is over the neurons of all layers with pre-activations ``z_i = w_i h + b_i``; the output is none of them.

    - ``bias="coded"``, as in the paper's code: all of it of a copy of the network whose biases are ``b_i + d_i``, with
      one draw ``d_i ~ N(0, sigma^2)`` for each bias, and ``u_i = z_i - (b_i + d_i) = w_i h``. So neither the trained
      bias nor the noise of a neuron is in its own ``u_i``: both act on the layers behind it alone, through ``h``.
    - ``bias="trained"``: ``u_i = z_i``. Times ``1 / (sqrt(2 pi) sigma)`` this is the expected density, at x, of the
      points where a neuron bends if noise ``N(0, sigma^2)`` is added to its bias. Nothing is drawn.

    Neither has the factor ``1 / (sqrt(2 pi) sigma)``, which the code leaves out.

    Args:
        model: A module, network or exported program; captured, and differentiated in float64.
        x: ``[n, *input_shape]``, on the model's device and of its dtype.
        sigma: Above 0, in the units of the pre-activations.
        bias: ``"coded"``, for linear layers and convolutions right in front of their activations, or ``"trained"``. A
            layer without biases has no noise; a bias that several layers share has one draw.
        seed: Of the draw.
        batch_size: Points at a time.

    Returns:
        The density.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or there are no layers.
        UnsupportedModelError: The model cannot be captured, or neurons have no bias of their own (``"coded"``).

    Source: Patel and Montufar (arXiv 2412.18283) and their code, sigma 0.01. Their printed definition was NOT FOUND.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
    >>> density_local_complexity(model, torch.zeros(1, 2), bias="trained")
    5.0
    """
    _arguments.one_of("bias", bias, BIASES)
    sigma = _arguments.real("sigma", sigma, above=0.0)
    batch_size = positive_integer("batch_size", batch_size)
    generator = _arguments.generator(seed)
    network = captured(model, x)
    nodes = list(elementwise_layers(network).values())
    function = NetworkFunction(network, nodes)
    shifts = [torch.zeros((), dtype=torch.float64, device=x.device)] * len(nodes)
    noisy: dict[str, Tensor] = {}
    if bias == "coded":
        names = [_name_of_bias(network, node) for node in nodes]
        own = {id(function.state[name]): name for name in reversed(names) if name}  # a tensor may have several
        with undifferentiated():
            for name in reversed(own.values()):
                trained = function.state[name]
                draw = torch.randn(trained.shape, generator=generator, dtype=torch.float64, device="cpu")
                noisy[name] = trained + sigma * draw.to(x.device)
            biases = [noisy[own[id(function.state[name])]] if name else None for name in names]
            shifts = [_of_neurons(network, node, each) for node, each in zip(nodes, biases, strict=True)]
    total = 0.0
    for points in batches_of(x, batch_size):
        for z, norms, shift in zip(*function.gradient_norms(points, noisy), shifts, strict=True):
            total += float((torch.exp(-((z - shift) ** 2) / (2 * sigma**2)) * norms).sum())
    return total / len(x)


_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
_BIAS = {"linear": ("bias", -1), "addmm": ("self", -1), **dict.fromkeys(_CONVOLUTIONS, ("bias", 1))}  # argument, axis


def _name_of_bias(network: Network, index: int) -> str:
    """The bias of the linear layer or convolution that makes pre-activations; empty if it has none."""
    node = network.nodes[index]
    given: object = None
    if node.op_name in _BIAS and node.batch_dim == 0 and node.batch_factor == 1:
        given = bound_arguments(node)[_BIAS[node.op_name][0]]
    state = network.nodes[given.index].state if isinstance(given, Ref) else ""
    if node.op_name not in _BIAS or node.shape is None or (given is not None and not state):
        raise UnsupportedModelError(
            f"{node.where} makes pre-activations and is no linear layer or convolution with a bias of its own, which "
            "bias='coded' needs; take bias='trained'"
        )
    return state


def _of_neurons(network: Network, index: int, bias: Tensor | None) -> Tensor:
    """``[units]``: what each neuron of a layer has of the layer's bias."""
    node = network.nodes[index]
    assert node.shape is not None
    if bias is None:
        return torch.zeros(node.units, dtype=torch.float64, device=network.device)
    shape = [size for axis, size in enumerate(node.shape) if axis != 0]
    wide = bias if _BIAS[node.op_name][1] == -1 else bias.view(-1, *[1] * (len(shape) - 1))
    return wide.expand(shape).reshape(-1)


@plain_torch()
def local_rank(
    model: AnyModel, x: Tensor, *, tolerance: float = 0.01, layers: list[str] | None = None, batch_size: int = 32
) -> dict[str, float]:
    """The mean rank, over points, of the input Jacobian ``dz_l/dx`` of each layer's pre-activations.

    A rank is the number of singular values above ``tolerance``, an absolute bound.

    Args:
        model: A module, network or exported program; captured, and differentiated in float64.
        x: ``[n, *input_shape]``, on the model's device and of its dtype.
        tolerance: At least 0.
        layers: Names of layers, see :func:`pylinregion.explain`; None: all that have pre-activations.
        batch_size: Points at a time; their Jacobians, ``[units, inputs]`` each, are kept together.

    Returns:
        The mean ranks by layer, in the network's order.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or there are no layers.
        UnsupportedModelError: The model cannot be captured.

    Source: Patel and Montufar (arXiv 2412.18283) and their code, absolute tolerance 0.01.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 5), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.eye(3, 4)), model[0].bias.zero_()
    >>> local_rank(model, torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]))
    {'1': 3.0, '3': 1.5}
    """
    tolerance = _arguments.real("tolerance", tolerance, at_least=0.0)
    batch_size = positive_integer("batch_size", batch_size)
    network = captured(model, x)
    nodes = elementwise_layers(network, layers)
    totals = dict.fromkeys(nodes, 0)
    function = NetworkFunction(network, list(nodes.values()))
    for points in batches_of(x, batch_size):
        for name, jacobians in zip(nodes, function.jacobians(points), strict=True):
            totals[name] += int((torch.linalg.svdvals(jacobians) > tolerance).sum())
    return {name: total / len(x) for name, total in totals.items()}


@plain_torch()
def total_variation(model: AnyModel, x: Tensor, *, layer: str | None = None, batch_size: int = 32) -> float:
    """The mean Frobenius norm, over points, of the input Jacobian of one layer.

    Over points drawn from a density this estimates the total variation of what the layer computes.

    Args:
        model: A module, network or exported program; captured, and differentiated in float64.
        x: ``[n, *input_shape]``, on the model's device and of its dtype.
        layer: The layer whose pre-activations are differentiated; ``"output"``: the model's output, which is the total
            variation of the model; None: the last layer that has pre-activations, as in the paper's code.
        batch_size: Points at a time.

    Returns:
        The mean norm.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or there is no such layer.
        UnsupportedModelError: The model cannot be captured.

    Source: Patel and Montufar (arXiv 2412.18283), text and code. Whether the code takes the last hidden layer before or
        after its activation was NOT FOUND; here it is before, as for the local rank.

    >>> model = torch.nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    >>> total_variation(model, torch.randn(7, 2), layer="output")
    5.0
    """
    batch_size = positive_integer("batch_size", batch_size)
    network = captured(model, x)
    if layer == OUTPUT:
        node = output_node(network)
    else:
        nodes = elementwise_layers(network)
        if layer is not None:
            _arguments.one_of("layer", layer, (*nodes, OUTPUT))
        node = nodes[layer or list(nodes)[-1]]
    function = NetworkFunction(network, [node])
    total = 0.0
    for points in batches_of(x, batch_size):
        _, (norms,) = function.gradient_norms(points)
        total += float(norms.square().sum(dim=1).sqrt().sum())
    return total / len(x)
