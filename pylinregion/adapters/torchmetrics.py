"""Local complexity as a metric of torchmetrics.

>>> from pylinregion.adapters.torchmetrics import LocalComplexity
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pylinregion._util.optional import optional
from pylinregion.caller.wrappers import unwrap
from pylinregion.counting.count import count_regions

_torchmetrics: Any = optional("torchmetrics", "LocalComplexity", "torchmetrics")


class _Live:
    """A model that is not the metric's own: not among its submodules, and not copied with it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __deepcopy__(self, memo: Any) -> _Live:
        return self


class LocalComplexity(_torchmetrics.Metric):  # type: ignore[misc]
    """The mean local complexity of all points that it was updated with.

    Its state is two numbers, which are summed over processes. Points are counted with the weights that the model has at
    their ``update``.

    Args:
        model: The module, as :func:`pylinregion.count_regions` takes it; copies of the metric share it.
        radius: Of the neighbourhoods.
        settings: Further ones of :func:`pylinregion.count_regions`.
        kwargs: Of ``torchmetrics.Metric``, by name.

    Raises:
        ModuleNotFoundError: On import of this module: torchmetrics is not installed
            (``pip install "pylinregion[torchmetrics]"``).
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(
        self, model: nn.Module, radius: float, *, settings: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._live = _Live(unwrap(model))
        self._settings = {"radius": radius, **(settings or {})}
        self.add_state("total", default=torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("points", default=torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, x: Tensor) -> None:
        """Count around points ``[B, *input_shape]``."""
        self.total += count_regions(self._live.model, x, **self._settings).total.sum()
        self.points += len(x)

    def compute(self) -> Tensor:
        """The mean, float64; NaN for no points."""
        mean: Tensor = self.total.double() / self.points
        return mean
