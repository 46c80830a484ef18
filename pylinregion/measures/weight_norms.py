"""Norms of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pylinregion.caller.plain_torch import plain_torch
from pylinregion.measures._captured import AnyModel, captured
from pylinregion.measures._module import module_of
from pylinregion.measures._network_function import undifferentiated


@plain_torch()
def weight_norm(model: Any) -> float:
    """The 2-norm of all parameters together, weights and biases: ``sqrt(sum of their squares)``.

    Args:
        model: An ``nn.Module``. A parameter that is used twice counts once; buffers do not count.

    Returns:
        The norm.

    Raises:
        TypeError: ``model`` is no module, or a parameter is not of a real floating dtype.
        ValueError: It has no parameters.

    Source: Tan and Huang (arXiv 2311.06597), figure 1; Fan, Pascanu, Jaggi (arXiv 2405.19454), and their code.

    >>> model = torch.nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[1.0, 2.0]])), model.bias.fill_(2.0)
    >>> weight_norm(model)
    3.0
    """
    return _norm(module_of(model).parameters())


@plain_torch()
def last_layer_norm(model: AnyModel, x: Tensor) -> float:
    """The 2-norm of the parameters of the last layer, weight and bias together.

    The last layer is the module that holds the parameter that the forward pass reads last. Its parameters are those
    of this module itself that the forward pass reads.

    Args:
        model: A module, network or exported program.
        x: ``[n, *input_shape]``, to capture the model with; the values do not matter.

    Returns:
        The norm.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value or shape, or the model reads no parameters.
        UnsupportedModelError: The model cannot be captured.

    Source: Fan, Pascanu, Jaggi (arXiv 2405.19454) log it; their code takes ``mlp[-1].parameters()``, of the linear
        layer that makes the outputs.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4))
    >>> last_layer_norm(model, torch.zeros(1, 2)) == weight_norm(model[2])
    True
    """
    network = captured(model, x)
    holds: dict[int, str] = {}  # constants made of a parameter, a transposed one say, stand for it
    last = ""
    for index, node in enumerate(network.nodes):
        if node.role == "state" and node.state in network.parameters:
            holds[index] = node.state
        found = [holds[operand] for operand in node.operands if operand in holds]
        if found and node.role == "constant":
            holds[index] = found[-1]
        elif found:
            last = found[-1]
    if not last:
        raise ValueError("model must read parameters in its forward pass, this one reads none")
    module = last.rpartition(".")[0]
    names = {name for name in holds.values() if name.rpartition(".")[0] == module}
    return _norm(network.state[name] for name in sorted(names))


def _norm(parameters: Iterable[Tensor]) -> float:
    total, count = 0.0, 0
    with undifferentiated():
        for parameter in parameters:
            if not parameter.is_floating_point():
                raise TypeError(f"model must have parameters of real floating dtypes, got {parameter.dtype}")
            total += float(parameter.detach().to(torch.float64).square().sum())
            count += 1
    if count == 0:
        raise ValueError("model must have parameters, this one has none")
    return math.sqrt(total)
