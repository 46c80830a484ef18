"""The linear part of affine operators.

Forward-mode differentiation would give it too. But its level is one for the whole process, so that threads exclude each
other, it is off inside ``torch.inference_mode``, and it takes ``detach`` for a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def differentiable(tensor: Tensor) -> Tensor:
    """A constant for :func:`linear_part`: torch takes no derivatives with tensors made in ``torch.inference_mode``."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def linear_part(function: Callable[[dict[int, Any]], Any], directions: dict[int, Any]) -> Any:
    """The linear part of an affine function of some values, at directions.

    A function that is 0 at 0 is its own linear part: that holds for all operators but those with an additive constant,
    which are differentiated twice, backwards: ``J v`` is the derivative by ``w`` of ``w^T J v``.

    Args:
        function: Gives a tensor, or a sequence of some.
        directions: Of each value.

    Returns:
        What it makes of the directions, like what it gives.
    """
    zeros = {index: _each(torch.zeros_like, value) for index, value in directions.items()}
    constant = function(zeros)
    if not any(bool(part.any()) for part in _tensors(constant)):
        return function(directions)
    with torch.enable_grad():
        leaves = {index: _each(lambda zero: zero.clone().requires_grad_(), value) for index, value in zeros.items()}
        out = function(leaves)
        ends = [part for part in _tensors(out) if part.requires_grad]
        weights = [torch.zeros_like(end, requires_grad=True) for end in ends]
        starts = [leaf for value in leaves.values() for leaf in _tensors(value)]
        moves: Any = [move for value in directions.values() for move in _tensors(value)]
        gradients = torch.autograd.grad(ends, starts, weights, create_graph=True, allow_unused=True) if ends else ()
        pairs = [(g, move) for g, move in zip(gradients, moves, strict=False) if g is not None and g.requires_grad]
        images: Any = [None] * len(ends)
        if pairs:
            outputs, moves = zip(*pairs, strict=True)
            images = torch.autograd.grad(outputs, weights, moves, allow_unused=True)
    image = iter(images)

    def taken(part: Tensor) -> Tensor:
        found = next(image) if part.requires_grad else None
        return torch.zeros_like(part) if found is None else found

    return _each(lambda part: taken(part).detach(), out)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those of a tensor or a sequence of some."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _each(change: Callable[[Tensor], Any], value: Any) -> Any:
    """A tensor, or a sequence of some, with each changed."""
    if isinstance(value, (tuple, list)):
        return tuple(_each(change, part) for part in value)
    return change(value) if isinstance(value, Tensor) else value
