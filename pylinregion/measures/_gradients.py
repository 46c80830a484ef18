"""Inner products of the gradients of a network's outputs by its parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from pylinregion.caller.torch_settings import quiet
from pylinregion.graph.network import Network, Ref
from pylinregion.measures._network_function import NetworkFunction, differentiated, undifferentiated
from pylinregion.measures._points import batches_of

_BATCH = 256
_LARGEST_JACOBIANS = 1 << 25  # numbers in the Jacobians that are formed at once


@dataclass(frozen=True)
class _Dense:
    """A linear layer on vectors, whose parameters nothing else reads."""

    node: int
    operand: int
    biased: bool
    parameters: tuple[str, ...]


def gradient_products(network: Network, output: int, x: Tensor) -> Iterator[Tensor]:
    """``J J^T`` of each point, with the Jacobian ``J`` of the outputs by all parameters, some points at a time.

    The gradient by a linear layer's weight is ``d h^T``, with that by its output ``d`` and its input ``h``: the inner
    product of two is ``(d . d')(h . h)``, and is never formed. Other parameters have their Jacobians formed.

    Args:
        network: The network.
        output: The node of its output.
        x: ``[n, *input_shape]``.

    Yields:
        ``[b, outputs, outputs]`` float64.

    Raises:
        ValueError: There are no parameters.
    """
    dense = _dense_layers(network)
    nodes = [output, *(layer.node for layer in dense), *(layer.operand for layer in dense)]
    function = NetworkFunction(network, nodes)
    names = function.parameters()
    if not names:
        raise ValueError("model must have parameters that its output depends on, this one has none")
    own = {id(function.state[name]) for layer in dense for name in layer.parameters}
    rest = {name: function.state[name] for name in names if id(function.state[name]) not in own}
    whole = NetworkFunction(network, [output])
    by_id = {name: whole.state[name] for name in rest}
    with undifferentiated():
        outputs = whole(x[:1].to(torch.float64))[0].shape[1]
    numbers = outputs * sum(tensor.numel() for tensor in rest.values())
    size = min(_BATCH, max(1, _LARGEST_JACOBIANS // numbers)) if rest else _BATCH
    for points in batches_of(x, size):
        products = _of_dense_layers(function, dense, points, outputs)
        if rest:
            products = products + _of_others(whole, by_id, points)
        yield products


def _dense_layers(network: Network) -> list[_Dense]:
    tensors = {i: id(network.state[node.state]) for i, node in enumerate(network.nodes) if node.role == "state"}
    uses = Counter(tensors[operand] for node in network.nodes for operand in node.operands if operand in tensors)
    found = []
    for index, node in enumerate(network.nodes):
        if node.op_name != "linear" or node.role != "value" or node.kwargs or not isinstance(node.args[0], Ref):
            continue
        plain = node.shape is not None and len(node.shape) == 2 and node.batch_dim == 0 and node.batch_factor == 1
        given = [argument for argument in node.args[1:] if argument is not None]
        states = [argument.index for argument in given if isinstance(argument, Ref) and argument.index in tensors]
        names = tuple(network.nodes[state].state for state in states)
        once = all(uses[tensors[state]] == 1 for state in states)
        if plain and once and len(states) == len(given) and all(name in network.parameters for name in names):
            found.append(_Dense(index, node.args[0].index, len(states) == 2, names))
    return found


def _of_dense_layers(function: NetworkFunction, dense: list[_Dense], points: Tensor, outputs: int) -> Tensor:
    with differentiated():
        inputs = points.detach().to(torch.float64, copy=True).requires_grad_()
        out, *values = function.values(inputs)
        makes, takes = values[: len(dense)], values[len(dense) :]
        out = out.reshape(len(points), -1)
        gradients = [
            torch.autograd.grad(out[:, k].sum(), makes, retain_graph=True, materialize_grads=True)
            for k in range(outputs if dense else 0)
        ]
    with undifferentiated():
        products = torch.zeros(len(points), outputs, outputs, dtype=torch.float64, device=points.device)
        for number, layer in enumerate(dense):
            slopes = torch.stack([gradient[number] for gradient in gradients], dim=1)
            scale = takes[number].square().sum(dim=1) + float(layer.biased)
            products += scale[:, None, None] * (slopes @ slopes.transpose(1, 2))
    return products


def _of_others(function: NetworkFunction, parameters: dict[str, Tensor], points: Tensor) -> Tensor:
    def outputs(tensors: dict[str, Tensor], point: Tensor) -> Tensor:
        return function(point.unsqueeze(0), tensors)[0][0]

    with undifferentiated(), quiet():  # vmap says where it has no rule of its own and is slow
        jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(parameters, points.to(torch.float64))
        flat = [jacobian.flatten(2) for jacobian in jacobians.values()]
        return torch.stack([jacobian @ jacobian.transpose(1, 2) for jacobian in flat]).sum(dim=0)
