"""Paper A's published code, run from the user's own checkout.

``local_complexity.py`` of https://github.com/AhmedImtiazPrio/grok-adversarial (MIT), by the authors of "Deep Networks
Always Grok and Here is Why" (ICML 2024). Nothing of it is part of this project.

It is used as its training scripts do: hooks fill a dictionary of activations by layer name, and the counting functions
read it. The layers hooked here are the inputs of the ReLUs, those that pylinregion counts. Its frame is its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from baselines import (
    allowed_differences,
    compare_counts,
    count_ready_made,
    exact_zeros,
    stored_preactivations,
)
from torch import Tensor, nn

from pylinregion.caller.torch_settings import full_precision

FILE = "local_complexity.py"


def load(path: Path) -> ModuleType:
    """Import the published file, from itself or from the checkout that holds it.

    Raises:
        FileNotFoundError: It is not there.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"--peer must name {FILE} or the checkout that holds it; there is no {file}")
    spec = importlib.util.spec_from_file_location("published_local_complexity", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it scripts functions when it is imported, which newer torch deprecates
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _surroundings(device: str, dtype: torch.dtype) -> Iterator[None]:
    """What the published code expects around it.

    It calls ``.cuda()`` on everything, which does nothing here on the CPU; it draws its frame in the default dtype and
    seeds torch's global generator, which is put back; it asks for pinned memory, about which torch warns without CUDA.
    """
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(full_precision())  # as everybody else here
        stack.enter_context(torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        if device == "cpu":
            for owner in (Tensor, nn.Module):
                stack.enter_context(mock.patch.object(owner, "cuda", lambda self, *args, **kwargs: self))
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@dataclass(frozen=True)
class Published:
    """The published functions on one model and one set of points.

    Attributes:
        code: The module.
        model: The model, on the device and of the dtype of ``x``.
        x: ``[B, *shape]``.
        vertices: ``2 P``.
        seed: Of its frame.
    """

    code: ModuleType
    model: nn.Module
    x: Tensor
    vertices: int
    seed: int = 0

    def batches(self, candidates: tuple[int, ...]) -> tuple[int, ...]:
        """The nearest batch sizes that divide the number of points: it drops an incomplete last batch."""
        points = len(self.x)
        divisors = [size for size in range(1, points + 1) if points % size == 0]
        return tuple(sorted({min(divisors, key=lambda size: abs(size - wanted)) for wanted in candidates}))

    def hulls(self, radius: float) -> Tensor:
        """``[B, 2P, *shape]``: its vertices."""
        with self._ready(), torch.no_grad():
            drawn: Tensor = self.code.get_ortho_hull_around_samples(self.x, r=radius, n=self.vertices, seed=self.seed)
        return drawn.detach()

    def count(self, radius: float, batch: int) -> Tensor:
        """From points to counts, as its training scripts call it; a frame is drawn for each batch."""
        with self._ready(), stored_preactivations(self.model) as stored:
            counts, _ = self.code.get_intersections_for_samples(
                self.x.cpu(),  # it pins the points' memory and moves each batch
                model=self.model,
                layer_names=self._layers,
                activation_buffer=stored,
                sampler=self.code.get_ortho_hull_around_samples,
                sampler_params={"n": self.vertices, "r": radius, "seed": self.seed},
                batch_size=batch,
            )
        return counts

    def count_hulls(self, hulls: Tensor, batch: int) -> Tensor:
        """From its ready-made vertices to counts."""
        with self._ready(), stored_preactivations(self.model) as stored:
            counts, _ = self.code.get_intersections_for_hulls(
                hulls, model=self.model, layer_names=self._layers, activation_buffer=stored, batch_size=batch
            )
        return counts

    def check(self, ready_made: bool, radius: float, hulls: Tensor, batch: int) -> int:
        """Compare its counts with those of the hooks version, both on its own vertices.

        Where a pre-activation is exactly 0 the definitions differ (it takes 0 for a side of its own), so that counts of
        that point and layer are left out.

        Args:
            ready_made: Whether its counting of ready-made vertices is checked, or that of points.
            radius: The radius.
            hulls: Its vertices.
            batch: Points in a batch.

        Returns:
            By how many neurons they differ, all within rounding of 0; none in float64.

        Raises:
            WrongCountsError: They differ by more.
        """
        counts = (self.count_hulls(hulls, batch) if ready_made else self.count(radius, batch)).cpu().to(torch.int64)
        expected = count_ready_made(self.model, hulls, batch).cpu()
        clear = count_ready_made(self.model, hulls, batch, reduce=exact_zeros).cpu() == 0
        allowed = allowed_differences(self.model, hulls, batch)
        return compare_counts("the published code", counts.where(clear, expected), expected, allowed)

    @property
    def _layers(self) -> list[str]:
        return [name for name, module in self.model.named_modules() if isinstance(module, nn.ReLU)]

    def _ready(self) -> Any:
        return _surroundings(self.x.device.type, self.x.dtype)
