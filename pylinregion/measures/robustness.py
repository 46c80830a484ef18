"""How a classifier stands up to small changes of its inputs: the worst ones, and random ones."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylinregion._util.checks import positive_integer, switches
from pylinregion.caller.isolation import isolated, ordinary_tensors
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.measures import _arguments
from pylinregion.measures._captured import AnyModel, captured, output_node
from pylinregion.measures._module import logits, module_of
from pylinregion.measures._network_function import NetworkFunction, differentiated
from pylinregion.measures._points import gaussian

LOSSES = ("cross_entropy", "margin")


@dataclass(frozen=True)
class RobustAccuracy:
    """What :func:`robust_accuracy` finds.

    Tensors are on the CPU.

    Attributes:
        eps: ``[E]`` float64, the radii.
        accuracy: ``[E]`` float64, the share of points that are still classified as labelled after the attack.
        zero_gradients: ``[E]`` float64: of all gradients that the attack took, the share that was 0 in every entry, so
            that the attack stood still. Near 1, the accuracy says nothing about the model.
        clean: The accuracy on the points themselves.
    """

    eps: Tensor
    accuracy: Tensor
    zero_gradients: Tensor
    clean: float


@plain_torch()
def robust_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Sequence[float],
    *,
    low: float | None,
    high: float | None,
    alpha: float = 4 / 255,
    steps: int = 10,
    random_start: bool = True,
    loss: str = "cross_entropy",
    seed: int = 0,
    batch_size: int = 256,
) -> RobustAccuracy:
    """Accuracy under untargeted l-infinity projected gradient ascent (PGD) on the loss.

    From ``x_0 = x``, or uniformly random in the box ``|x_0 - x| <= eps``, clamped to ``[low, high]``, each step takes
    ``x_t + alpha sign(grad loss(x_t))``, clamps it to ``|x_{t+1} - x| <= eps`` and then to ``[low, high]``. The point
    counts if the model is right at the last of them.

    The model is evaluated in its own dtype, eval mode and full precision, as the papers do. Where it is very sure, the
    gradient of the cross-entropy is exactly 0 in this dtype, and the attack fails without the model being robust:
    compare :attr:`RobustAccuracy.zero_gradients`, try ``loss="margin"``, or a float64 copy of the model. ``alpha``
    times ``steps`` bounds how far the attack gets: a larger ``eps`` changes little but the random start.

    Args:
        model: A classifier that returns logits ``[n, classes]``; also one that :func:`pylinregion.capture` refuses.
        x: ``[n, *input_shape]``, on the model's device and of its dtype.
        y: ``[n]`` int64.
        eps: One radius or several, at least 0, in the units of ``x``.
        low, high: The data's domain, e.g. 0 and 1; None where it is unbounded. All of ``x`` is inside.
        alpha: Step size, above 0.
        steps: Steps of each attack, at least 1.
        random_start: Whether to start at a random point.
        loss: ``"cross_entropy"``, or ``"margin"``: the largest other logit less that of the label.
        seed: Of the random start; the draws of all radii are one, scaled.
        batch_size: Points at a time. The random start does not depend on it.

    Returns:
        The accuracies.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or the model returns something else than logits.

    Source: Humayun, Balestriero, Baraniuk (arXiv 2402.15555): eps 0.03 to 0.20 on test points, alpha 0.0156 (4/255), 10
        steps (100 for MNIST), random start, on the cross-entropy; the attack is that of Madry et al. (arXiv
        1706.06083). The margin loss is that of Carlini and Wagner (arXiv 1608.04644).

    >>> model = nn.Linear(1, 2, dtype=torch.float64)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[-1.0], [1.0]])), model.bias.zero_()
    >>> x = torch.tensor([[-0.5], [0.1], [0.3]], dtype=torch.float64)  # class 1 where x > 0
    >>> robust_accuracy(model, x, torch.tensor([0, 1, 1]), [0.0, 0.2, 0.4], low=-1, high=1, alpha=0.1).accuracy
    tensor([1.0000, 0.6667, 0.3333], dtype=torch.float64)
    """
    _arguments.points("x", x)
    _arguments.fits("x", x, model)
    _arguments.labels("y", y, "x", x)
    several = [eps] if isinstance(eps, numbers.Real) else eps
    if isinstance(several, (str, Tensor)) or not isinstance(several, Sequence) or not several:
        raise TypeError(f"eps must be a number or a list of numbers, got {type(eps).__name__}")
    radii = [_arguments.real("eps", radius, at_least=0.0) for radius in several]
    bottom = None if low is None else _arguments.real("low", low)
    top = None if high is None else _arguments.real("high", high)
    alpha = _arguments.real("alpha", alpha, above=0.0)
    switches(random_start=random_start)
    steps, batch_size = positive_integer("steps", steps), positive_integer("batch_size", batch_size)
    _arguments.one_of("loss", loss, LOSSES)
    if (bottom is not None and bool((x < bottom).any())) or (top is not None and bool((x > top).any())):
        raise ValueError(f"x must be inside [{low}, {high}], got {float(x.min()):g} to {float(x.max()):g}")
    generator = _arguments.generator(seed)
    start = None
    if random_start:
        start = torch.rand(x.shape, generator=generator, dtype=torch.float64, device="cpu").mul_(2).sub_(1)
    clean, right, still = 0, [0] * len(radii), [0] * len(radii)
    module = module_of(model)
    with isolated(module), ordinary_tensors(module), differentiated():
        for begin in range(0, len(x), batch_size):
            rows = slice(begin, begin + batch_size)
            points, own = x[rows].detach().clone(), y[rows].clone()
            offset = torch.zeros_like(points) if start is None else start[rows].to(points.device)
            with torch.no_grad():
                out = logits(module, points)
            _arguments.labels("y", own, "x", points, out.shape[1])
            clean += int((out.argmax(1) == own).sum())
            for number, radius in enumerate(radii):
                moved = _into((points + radius * offset).to(points.dtype), points, radius, bottom, top)
                for _ in range(steps):
                    gradient = _gradient(module, moved, own, loss)
                    still[number] += int((gradient == 0).flatten(1).all(dim=1).sum())
                    moved = _into(moved + alpha * gradient.sign(), points, radius, bottom, top)
                with torch.no_grad():
                    right[number] += int((logits(module, moved).argmax(1) == own).sum())
    return RobustAccuracy(
        eps=torch.tensor(radii, dtype=torch.float64, device="cpu"),
        accuracy=torch.tensor(right, dtype=torch.float64, device="cpu") / len(x),
        zero_gradients=torch.tensor(still, dtype=torch.float64, device="cpu") / (steps * len(x)),
        clean=clean / len(x),
    )


def _into(moved: Tensor, points: Tensor, radius: float, low: float | None, high: float | None) -> Tensor:
    """Projected to the box around the points, and to the domain."""
    moved = points + (moved - points).clamp(-radius, radius)
    return moved if low is None and high is None else moved.clamp(low, high)


def _gradient(module: nn.Module, points: Tensor, y: Tensor, loss: str) -> Tensor:
    """By the input; the loss is a sum, so that no point's gradient is scaled down by the others."""
    points = points.detach().requires_grad_()
    out = logits(module, points)
    if loss == "cross_entropy":
        total = F.cross_entropy(out, y, reduction="sum")
    else:
        label = F.one_hot(y, out.shape[1]).bool()
        total = (out.masked_fill(label, -torch.inf).amax(dim=1) - out[label]).sum()
    if not total.requires_grad:
        raise ValueError("model must be differentiable by its input: its output does not depend on it by gradients")
    (gradient,) = torch.autograd.grad(total, points)
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError("model must have finite input gradients, got NaN or infinity")
    return gradient


@plain_torch()
def perturbation_error(model: AnyModel, x: Tensor, sigma: float, *, seed: int = 0, batch_size: int = 256) -> float:
    """Mean squared change of the output under Gaussian noise on the input: ``mean_x |f(x + d) - f(x)|^2``.

    ``d ~ N(0, sigma^2 I)``, one draw a point; ``f`` is the whole output, flattened. For small ``sigma`` this is near
    ``sigma^2`` times the mean squared Frobenius norm of the input Jacobian, the quantity that arXiv 2311.06597 bounds
    by weight norm and sharpness (its lemma 3.1).

    Args:
        model: A module, network or exported program; captured, and evaluated in float64.
        x: ``[n, *input_shape]``, on the model's device and of its dtype.
        sigma: Above 0, in the units of ``x``.
        seed: Of the noise.
        batch_size: Points at a time. The noise does not depend on it.

    Returns:
        The error.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device, or the model has several outputs.
        UnsupportedModelError: The model cannot be captured.

    Source: Tan and Huang (arXiv 2311.06597), figure 2. Their exact definition was NOT FOUND; this is the usual one.

    >>> model = nn.Linear(3, 2, dtype=torch.float64)
    >>> error = perturbation_error(model, torch.zeros(4000, 3, dtype=torch.float64), 0.1)
    >>> bool(abs(error / (0.01 * model.weight.square().sum()) - 1) < 0.1)
    True
    """
    network = captured(model, x)
    sigma = _arguments.real("sigma", sigma, above=0.0)
    batch_size = positive_integer("batch_size", batch_size)
    noisy = x.to(torch.float64) + gaussian(x, sigma, seed)
    function = NetworkFunction(network, [output_node(network)])
    pairs = zip(function.batches(x, batch_size), function.batches(noisy, batch_size), strict=True)
    return sum(float((after[0] - before[0]).square().sum()) for before, after in pairs) / len(x)
