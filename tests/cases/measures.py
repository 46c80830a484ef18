"""A ReLU network in NumPy, float64, from the weights of a torch one: what the tests of measures compare with."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn


def relu_net(widths, seed=0, scale=1.0, dtype=torch.float64, bias=True):
    """Linear layers with ReLUs between them."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for inputs, outputs in pairwise(widths):
        layer = nn.Linear(inputs, outputs, dtype=dtype, bias=bias)
        with torch.no_grad():
            for parameter in layer.parameters():
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(scale * draw / inputs**0.5)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def points(n, *shape, seed=1, dtype=torch.float64):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def weights(model):
    """Weight and bias of each linear layer."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    return [
        (
            layer.weight.detach().double().numpy(),
            np.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().double().numpy(),
        )
        for layer in layers
    ]


def pre_activations(model, x):
    """Of each linear layer, the output among them: a list of ``[n, units]``."""
    found, h = [], np.asarray(x, dtype=np.float64)
    for weight, bias in weights(model):
        found.append(h @ weight.T + bias)
        h = np.maximum(found[-1], 0)
    return found


def input_jacobians(model, point):
    """Of each linear layer's output by the input, at one point: a list of ``[units, inputs]``."""
    found, jacobian = [], np.eye(len(point))
    for (weight, _), z in zip(weights(model), pre_activations(model, point[None]), strict=True):
        found.append(weight @ jacobian)
        jacobian = (z[0] > 0)[:, None] * found[-1]
    return found


def parameter_jacobian(model, point):
    """Of the outputs by all weights and biases, at one point: ``[outputs, parameters]``, layer by layer."""
    zs = pre_activations(model, point[None])
    columns = []
    back = np.eye(zs[-1].shape[1])  # of the outputs by z of the layer
    for number in reversed(range(len(zs))):
        h = point if number == 0 else np.maximum(zs[number - 1][0], 0)
        columns[:0] = [(back[:, :, None] * h).reshape(len(back), -1), back]
        back = back @ weights(model)[number][0] * (1.0 if number == 0 else (zs[number - 1][0] > 0))
    return np.concatenate(columns, axis=1)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
