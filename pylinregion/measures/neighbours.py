"""How near points lie to the training points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pylinregion._util.checks import positive_integer
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.measures import _arguments


@plain_torch()
def neighbour_function(
    x: Tensor, train: Tensor, radii: float | Sequence[float] | Tensor, *, batch_size: int = 256
) -> Tensor:
    """The share of points that have a training point within r: ``P(r) = Pr(min_t |x - t|_2 <= r)``.

    Args:
        x: ``[n, *shape]``, points of the data distribution, test points say; training points among them are at
            distance 0.
        train: ``[m, *shape]``, on the device of ``x``.
        radii: ``[R]`` numbers or one, at least 0, in the units of ``x``.
        batch_size: Points at a time.

    Returns:
        ``[R]`` float64 on the CPU.

    Raises:
        TypeError: An argument has a wrong type or dtype.
        ValueError: An argument has a wrong value, shape or device.

    Source: Tan and Huang (arXiv 2311.06597), the function of their corollary 3.3.

    >>> neighbour_function(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.5]]), [0.1, 0.5, 5.0])
    tensor([0.0000, 0.6667, 1.0000], dtype=torch.float64)
    """
    _arguments.points("x", x)
    _arguments.points("train", train)
    if train.shape[1:] != x.shape[1:]:
        shape = ", ".join(map(str, x.shape[1:]))
        raise ValueError(f"train must be [m, {shape}], as x is, got {list(train.shape)}")
    if train.device != x.device:
        raise ValueError(f"train must be on the device of x, {x.device}, got {train.device}")
    wanted = radii.tolist() if isinstance(radii, Tensor) else radii
    numbers = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    limits = torch.tensor(
        [_arguments.real("radii", r, at_least=0.0) for r in numbers], dtype=torch.float64, device="cpu"
    )
    batch_size = positive_integer("batch_size", batch_size)
    points, targets = (value.detach().to(torch.float64).flatten(1) for value in (x, train))
    nearest = torch.empty(len(x), dtype=torch.float64, device="cpu")
    for begin in range(0, len(x), batch_size):
        rows = slice(begin, begin + batch_size)
        # The way over matrix products loses half of the digits of small distances.
        distances = torch.cdist(points[rows], targets, compute_mode="donot_use_mm_for_euclid_dist")
        nearest[rows] = distances.amin(dim=1).cpu()
    return (nearest[:, None] <= limits).double().mean(dim=0)
