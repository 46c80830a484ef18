"""Whether a model has learned that an operation commutes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pylinregion._util.checks import finite, positive_integer
from pylinregion.caller.isolation import isolated
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.measures._module import logits, module_of
from pylinregion.measures._network_function import undifferentiated


@plain_torch()
def commutativity(model: nn.Module, pairs: Tensor, swapped: Tensor | None = None, *, batch_size: int = 1024) -> float:
    """The Abelian test: the share of pairs for which ``argmax f(a, b) == argmax f(b, a)``.

    Args:
        model: Returns logits ``[n, classes]``; evaluated in its own dtype.
        pairs: ``[n, at least 2, ...]``, tokens or numbers of any dtype: entries 0 and 1 of dimension 1 are a and b,
            further ones (an "equals" token) stay. Pairs with ``a = b`` count like the others, and pass.
        swapped: The same pairs with a and b exchanged, shaped like ``pairs``, where these are laid out in another way.
            None: entries 0 and 1 are exchanged.
        batch_size: Pairs at a time.

    Returns:
        The share.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a wrong shape or is not finite, or the model returns something else than logits.

    Source: Tan and Huang (arXiv 2311.06597), on the training pairs of modular addition.

    >>> class Subtract(nn.Module):
    ...     def forward(self, pairs):
    ...         return nn.functional.one_hot((pairs[:, 0] - pairs[:, 1]) % 3, 3).float()
    >>> commutativity(Subtract(), torch.cartesian_prod(torch.arange(3), torch.arange(3))) == 3 / 9
    True
    """
    batches, count = _both_ways(model, pairs, swapped, batch_size)
    return sum(int((one.argmax(1) == other.argmax(1)).sum()) for one, other in batches) / count


@plain_torch()
def logit_commutativity(
    model: nn.Module, pairs: Tensor, swapped: Tensor | None = None, *, batch_size: int = 1024
) -> float:
    """The Abelian test on logits: the mean squared difference of ``f(a, b)`` and ``f(b, a)``, over pairs and classes.

    Args:
        model, pairs, swapped, batch_size: As for :func:`commutativity`.

    Returns:
        The difference; 0 for a model that commutes.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a wrong shape or is not finite, or the model returns something else than logits.

    Source: Tan and Huang (arXiv 2311.06597), figure 7. Which distance they plot was NOT FOUND; this is the one of their
        penalty, ``100 MSE(f(a, b), f(b, a))``, without its factor.

    >>> logit_commutativity(nn.Flatten(), torch.tensor([[1.0, 4.0], [2.0, 2.0]]))
    4.5
    """
    batches, count = _both_ways(model, pairs, swapped, batch_size)
    total, classes = 0.0, 1
    for one, other in batches:
        total += float((one.to(torch.float64) - other.to(torch.float64)).square().sum())
        classes = one.shape[1]
    return total / (count * classes)


def _both_ways(
    model: nn.Module, pairs: Tensor, swapped: Tensor | None, batch_size: int
) -> tuple[Iterator[tuple[Tensor, Tensor]], int]:
    if not isinstance(pairs, Tensor):
        raise TypeError(f"pairs must be a torch.Tensor, got {type(pairs).__name__}")
    if pairs.dim() < 2 or len(pairs) < 1 or pairs.shape[1] < 2:
        raise ValueError(f"pairs must be [n, at least 2, ...] with at least 1 pair, got {list(pairs.shape)}")
    finite("pairs", pairs)
    batch_size = positive_integer("batch_size", batch_size)
    if swapped is None:
        swapped = torch.cat([pairs[:, [1, 0]], pairs[:, 2:]], dim=1)
    elif not isinstance(swapped, Tensor):
        raise TypeError(f"swapped must be a torch.Tensor, got {type(swapped).__name__}")
    elif swapped.shape != pairs.shape or swapped.dtype != pairs.dtype or swapped.device != pairs.device:
        raise ValueError(
            f"swapped must be like pairs, {list(pairs.shape)} {pairs.dtype} on {pairs.device}, "
            f"got {list(swapped.shape)} {swapped.dtype} on {swapped.device}"
        )
    finite("swapped", swapped)
    other = swapped

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(0, len(pairs), batch_size):
            rows = slice(begin, begin + batch_size)
            module = module_of(model)
            with isolated(module), undifferentiated():
                values = logits(module, pairs[rows]), logits(module, other[rows])
            yield values

    return batches(), len(pairs)
