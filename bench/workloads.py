"""The networks, points and settings that are measured."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import architectures
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Goals:
    """What to reach, at most; None: no goal is set.

    Attributes:
        bare: Of the time of the bare forward pass.
        bare_far: The same at radii of 0.5 and more, if it is another.
        hooks: Of the time of the hooks version.
        megabytes: Peak memory of one count.
    """

    bare: float | None = None
    bare_far: float | None = None
    hooks: float | None = None
    megabytes: float | None = None

    def bare_at(self, radius: float) -> float | None:
        """Of the time of the bare forward pass, around points at this radius."""
        return self.bare if radius < 0.5 or self.bare_far is None else self.bare_far


@dataclass(frozen=True, eq=False)
class Workload:
    """One network and the points around which it is counted.

    Attributes:
        key: The architecture: what the speed of a plain forward pass depends on.
        weights: ``"random"`` or ``"trained"``.
        model: In eval mode, float32, on the CPU.
        points: ``[B, *shape]`` float32, on the CPU.
        directions: ``P``.
        radii: The radii.
        dtypes: The dtypes to count in.
        layouts: Memory layouts for the baselines; the first is the one that the goal is set for.
        batches: Batch sizes, in points, among which each baseline finds its best.
        goals: What to reach.
    """

    key: str
    weights: str
    model: nn.Module
    points: Tensor
    directions: int
    radii: tuple[float, ...]
    dtypes: tuple[torch.dtype, ...]
    layouts: tuple[str, ...]
    batches: tuple[int, ...]
    goals: Goals

    @property
    def title(self) -> str:
        return f"{self.key}, {self.weights}"

    @functools.cache  # noqa: B019 -- a workload lives as long as the process, and a model is captured once
    def placed(self, dtype: torch.dtype, device: str, layout: str = "contiguous") -> nn.Module:
        """A copy of the model; the same one each time."""
        model = copy.deepcopy(self.model).to(device=device, dtype=dtype)
        return model.to(memory_format=torch.channels_last) if layout == "channels_last" else model


@dataclass(frozen=True)
class Sizes:
    """How large everything is; ``goals`` tells whether the goals are meant for it."""

    mlp_points: int = 1000
    mlp_width: int = 200
    mlp_directions: int = 25
    mlp_radii: tuple[float, ...] = (0.005, 0.05, 0.5)
    mlp_batches: tuple[int, ...] = (4, 8, 16, 32, 64, 250, 1000)
    train_steps: int = 500
    least_accuracy: float = 0.95
    resnet_points: int = 64
    resnet_width: int = 16
    resnet_settled_on: int = 32
    resnet_directions: int = 20
    resnet_radii: tuple[float, ...] = (0.005, 0.05)
    resnet_batches: tuple[int, ...] = (1, 2, 4, 16)
    chain_widths: tuple[int, ...] = (50, 100, 200, 500, 1000, 2000)
    chain_depths: tuple[int, ...] = (2, 3, 4, 6, 8, 12)
    chain_radii: tuple[float, ...] = (0.05, 0.5)
    chain_all_radii: tuple[float, ...] = (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
    chain_directions: tuple[int, ...] = (4, 8, 16, 25, 100)
    goals: bool = True


FULL = Sizes()
SMOKE = Sizes(
    mlp_points=12,
    mlp_width=16,
    mlp_directions=3,
    mlp_radii=(5.0,),
    mlp_batches=(5, 12),
    train_steps=4,
    least_accuracy=0.0,
    resnet_points=2,
    resnet_width=2,
    resnet_settled_on=2,
    resnet_directions=2,
    resnet_radii=(0.5,),
    resnet_batches=(1, 2),
    chain_widths=(8, 16),
    chain_depths=(2,),
    chain_radii=(0.5,),
    chain_all_radii=(0.05, 5.0),
    chain_directions=(4, 5),
    goals=False,
)

MLPS = {"mlp3": 3, "mlp5": 5}
RESNETS = {"resnet": False, "resnet-bn": True}
_MLP_GOALS = {3: Goals(bare=0.1, bare_far=0.15, hooks=1 / 25), 5: Goals(bare=0.15, hooks=1 / 3.5)}
_RESNET_GOALS = Goals(bare=1.0, megabytes=100.0)


def mlp_workload(hidden: int, sizes: Sizes, images: Tensor, model: nn.Module | None = None) -> Workload:
    """An MLP around the first images; with random weights unless a trained model is given."""
    torch.manual_seed(hidden)
    fresh = architectures.mlp(hidden, sizes.mlp_width)
    return Workload(
        key=f"MLP 784-{sizes.mlp_width}x{hidden}-10",
        weights="random" if model is None else "trained",
        model=(model or fresh).eval(),
        points=images[: sizes.mlp_points],
        directions=sizes.mlp_directions,
        radii=sizes.mlp_radii,
        dtypes=(torch.float32, torch.float64),
        layouts=("contiguous",),
        batches=usable_batches(sizes.mlp_batches, sizes.mlp_points),
        goals=_MLP_GOALS[hidden] if sizes.goals else Goals(),
    )


def resnet_workload(norm: bool, sizes: Sizes) -> Workload:
    """A PreAct-ResNet18 with random weights around Gaussian images, its batch norms settled on such."""
    torch.manual_seed(0)
    points = torch.randn(sizes.resnet_points, 3, 32, 32)
    images = torch.empty(sizes.resnet_settled_on, 3, 32, 32)
    model = architectures.settled(architectures.PreActResNet18(sizes.resnet_width, norm), images)
    return Workload(
        key=f"PreAct-ResNet18 width {sizes.resnet_width} {'with' if norm else 'without'} batch-norm",
        weights="random",
        model=model,
        points=points,
        directions=sizes.resnet_directions,
        radii=sizes.resnet_radii,
        dtypes=(torch.float32,),
        layouts=("channels_last", "contiguous"),
        batches=usable_batches(sizes.resnet_batches, sizes.resnet_points),
        goals=_RESNET_GOALS if sizes.goals else Goals(),
    )


def usable_batches(batches: tuple[int, ...], points: int) -> tuple[int, ...]:
    """The batch sizes that are no larger than the number of points."""
    return tuple(size for size in batches if size <= points) or (points,)


def images_and_labels(path: Path | None) -> tuple[Tensor, Tensor, str]:
    """``[N, 784]`` float32 in [0, 1], labels, and where they come from.

    From an npz file with ``images`` (uint8 ``[N, 28, 28]``) and ``labels``, else scikit-learn's digits scaled up, else
    ten prototypes with noise.
    """
    if path is not None:
        with np.load(path) as arrays:
            images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        return images.flatten(1).float() / 255, labels.long(), path.name
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        return *_prototypes_with_noise(), "ten prototypes with noise"
    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    large = functional.interpolate(small, (28, 28), mode="bilinear", align_corners=False)
    return large.flatten(1), torch.from_numpy(digits.target).long(), "scikit-learn's digits, scaled up to 28x28"


def _prototypes_with_noise(count: int = 1800) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(10, 784, generator=generator)
    labels = torch.arange(count) % 10
    noise = 0.2 * torch.randn(count, 784, generator=generator)
    return (prototypes[labels] + noise).clamp(0, 1), labels


def trained_mlp(hidden: int, sizes: Sizes, images: Tensor, labels: Tensor) -> nn.Sequential:
    """An MLP trained on the images with Adam.

    Raises:
        RuntimeError: It has not learnt them: it would not be the kind of network that is to be measured.
    """
    torch.manual_seed(hidden)
    model = architectures.mlp(hidden, sizes.mlp_width)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(sizes.train_steps):
        batch = torch.randint(len(images), (256,))
        loss = functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = float((model(images).argmax(dim=1) == labels).double().mean())
    if accuracy < sizes.least_accuracy:
        raise RuntimeError(f"the trained MLP has accuracy {accuracy:.3f}, less than {sizes.least_accuracy}")
    return model.requires_grad_(False)
