"""What Tan and Huang do to training so that it generalises sooner: noise on the inputs, and a penalty.

Source: Tan, Huang, "Understanding Grokking Through A Robustness Viewpoint" (arXiv 2311.06597). Both are pieces for any
training loop:

    noise = GaussianNoise(0.06, 0.03)
    loss = criterion(model(noise(x, train_accuracy)), y)
    loss = loss + commutative_penalty(model(x), model(swapped(x)))
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianNoise:
    """Noise on inputs or embeddings that gets less as the training set is learned.

    ``x + d`` with ``d ~ N(0, sigma^2 I)`` and ``sigma = max(l1 (1 - train accuracy), l2)``. The paper takes
    (0.06, 0.03) for MNIST's pixels and (0.5, 0.4) for the token embeddings of modular addition.

    Attributes:
        l1: The noise where nothing is learned yet, at least 0.
        l2: The noise that stays, at least 0.

    >>> GaussianNoise(0.5, 0.4).sigma(train_accuracy=0.1), GaussianNoise(0.5, 0.4).sigma(train_accuracy=0.9)
    (0.45, 0.4)
    """

    l1: float
    l2: float

    def __post_init__(self) -> None:
        for name, value in (("l1", self.l1), ("l2", self.l2)):
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"{name} must be a number, got {type(value).__name__}")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0, got {value}")

    def sigma(self, train_accuracy: float) -> float:
        """The standard deviation.

        Args:
            train_accuracy: Between 0 and 1.

        Raises:
            ValueError: It is not.
        """
        if not 0 <= train_accuracy <= 1:
            raise ValueError(f"train_accuracy must be between 0 and 1, got {train_accuracy}")
        return max(self.l1 * (1 - train_accuracy), self.l2)

    def __call__(self, x: Tensor, train_accuracy: float, generator: torch.Generator | None = None) -> Tensor:
        """Noisy points.

        Args:
            x: Of any shape and floating dtype; gradients pass.
            train_accuracy: Between 0 and 1.
            generator: Of the noise, on any device; None: torch's own of the device of ``x``.

        Returns:
            A tensor like ``x``.
        """
        device = x.device if generator is None else generator.device
        noise = torch.randn(x.shape, dtype=x.dtype, device=device, generator=generator)
        return x + self.sigma(train_accuracy) * noise.to(x.device)


def swapped(pairs: Tensor) -> Tensor:
    """``(b, a, ...)`` for ``(a, b, ...)``.

    Args:
        pairs: ``[n, at least 2, ...]`` of any dtype: entries 0 and 1 of dimension 1 are exchanged, others stay.

    Raises:
        ValueError: The shape is another.

    >>> swapped(torch.tensor([[1, 2, 9], [3, 4, 9]])).tolist()
    [[2, 1, 9], [4, 3, 9]]
    """
    if pairs.dim() < 2 or pairs.shape[1] < 2:
        raise ValueError(f"pairs must be [n, at least 2, ...], got {list(pairs.shape)}")
    return torch.cat([pairs[:, 1:2], pairs[:, 0:1], pairs[:, 2:]], dim=1)


def commutative_penalty(logits: Tensor, swapped_logits: Tensor, weight: float = 100.0) -> Tensor:
    """``weight * MSE(logits(a, b), logits(b, a))``, to add to the loss.

    Args:
        logits: ``[n, classes]`` of the pairs.
        swapped_logits: ``[n, classes]`` of the swapped pairs, in the same order.
        weight: 100 in the paper.

    Returns:
        A scalar. Gradients pass to both.

    Raises:
        ValueError: The shapes differ.

    >>> float(commutative_penalty(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])))
    50.0
    """
    if logits.shape != swapped_logits.shape:
        raise ValueError(
            f"swapped_logits must have the shape of logits, {list(logits.shape)}, got {list(swapped_logits.shape)}"
        )
    return weight * torch.nn.functional.mse_loss(logits, swapped_logits)
