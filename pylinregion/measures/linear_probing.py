"""What a linear classifier makes of each layer's features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pylinregion._util.checks import positive_integer
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.measures import _arguments
from pylinregion.measures._captured import AnyModel, captured, elementwise_layers
from pylinregion.measures._network_function import NetworkFunction, differentiated
from pylinregion.measures._points import batches_of


@dataclass(frozen=True)
class ProbeAccuracy:
    """What :func:`linear_probes` finds, by layer.

    Attributes:
        test: Accuracy on the test points.
        validation: Accuracy on the training points that were held out.
    """

    test: dict[str, float]
    validation: dict[str, float]


@plain_torch()
def linear_probes(
    model: AnyModel,
    x: Tensor,
    y: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    epochs: int = 30,
    lr: float = 1e-3,
    batch_size: int = 512,
    weight_penalty: float = 1e-3,
    held_out: float = 0.2,
    seed: int = 0,
) -> ProbeAccuracy:
    """Train a linear classifier on the pre-activations of each layer, and score it on the test points.

    The classifier ``W z + b`` starts uniform in ``+-1/sqrt(d)`` and is trained by Adam on the mean cross-entropy plus
    ``weight_penalty`` times the 2-norm (not squared) of ``W``, in batches drawn anew in each epoch. The classifier
    after the last epoch is scored. All is computed in float64, one layer at a time.

    Args:
        model: A module, network or exported program; captured.
        x: ``[n, *input_shape]``, the training points, at least 2, on the model's device and of its dtype.
        y: ``[n]`` int64.
        x_test, y_test: The same of the test points.
        epochs, lr, batch_size: Of the training; ``batch_size`` is also that of the model's evaluation.
        weight_penalty: At least 0.
        held_out: The share of training points, from 0 to below 1, that is not trained on but for validation, rounded
            down. If it comes to none, their accuracy is NaN.
        seed: Of the split, the start and the batches. Each layer has the same split.

    Returns:
        The accuracies.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or there are no layers.
        UnsupportedModelError: The model cannot be captured.

    Source: Fan, Pascanu, Jaggi (arXiv 2405.19454), text and code: Adam, learning rate 1e-3, 30 epochs, batches of 512,
        penalty 1e-3, 80 and 20 %, on the outputs of linear layers. The code keeps the classifier that validates best
        too, and scores the last one.

    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    >>> x = torch.randn(400, 2)
    >>> y = (x[:, 0] > 0).long()
    >>> linear_probes(model, x, y, x, y, lr=0.1).test["1"] > 0.95
    True
    """
    network = captured(model, x, at_least=2)
    captured(model, x_test, "x_test")
    classes = 1 + max(
        int(_arguments.labels("y", y, "x", x).max()), int(_arguments.labels("y_test", y_test, "x_test", x_test).max())
    )
    epochs, batch_size = positive_integer("epochs", epochs), positive_integer("batch_size", batch_size)
    lr = _arguments.real("lr", lr, above=0.0)
    weight_penalty = _arguments.real("weight_penalty", weight_penalty, at_least=0.0)
    held_out = _arguments.real("held_out", held_out, at_least=0.0)
    if held_out >= 1:
        raise ValueError(f"held_out must be below 1, got {held_out:g}")
    seeds = _arguments.generator(seed)
    order = torch.randperm(len(x), generator=seeds, device="cpu").to(x.device)
    aside = math.floor(held_out * len(x))
    test: dict[str, float] = {}
    validation: dict[str, float] = {}
    with differentiated():  # also inside torch.inference_mode, whose tensors no optimiser takes
        labels, order = y.clone(), order.clone()
        for name, node in elementwise_layers(network).items():
            function = NetworkFunction(network, [node])
            z = torch.cat([values[0] for values in function.batches(x, batch_size)])
            train, rest = order[aside:], order[:aside]
            weight, bias = _train(z[train], labels[train], classes, epochs, lr, batch_size, weight_penalty, seeds)
            unseen = (values[0] for values in function.batches(x_test, batch_size))
            predicted = torch.cat([(values @ weight.T + bias).argmax(dim=1) for values in unseen])
            test[name] = _share(predicted == y_test)
            validation[name] = _share((z[rest] @ weight.T + bias).argmax(dim=1) == labels[rest])
    return ProbeAccuracy(test, validation)


def _train(
    z: Tensor,
    y: Tensor,
    classes: int,
    epochs: int,
    lr: float,
    batch_size: int,
    penalty: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    bound = 1 / math.sqrt(z.shape[1])
    start = torch.rand(classes, z.shape[1] + 1, generator=generator, dtype=torch.float64, device="cpu").to(z.device)
    start = (2 * start - 1) * bound
    weight, bias = start[:, :-1].clone().requires_grad_(), start[:, -1].clone().requires_grad_()
    adam = torch.optim.Adam([weight, bias], lr=lr)
    for _ in range(epochs):
        order = torch.randperm(len(z), generator=generator, device="cpu").to(z.device)
        for rows in batches_of(order, batch_size):
            adam.zero_grad()
            loss = F.cross_entropy(z[rows] @ weight.T + bias, y[rows]) + penalty * weight.norm()
            loss.backward()
            adam.step()
    return weight.detach(), bias.detach()


def _share(right: Tensor) -> float:
    return float(right.double().mean())
