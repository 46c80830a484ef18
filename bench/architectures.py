"""The networks of the benchmarks, written for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(hidden: int, width: int = 200, inputs: int = 784, outputs: int = 10) -> nn.Sequential:
    """A ReLU MLP with ``hidden`` layers of ``width`` neurons, the papers' architecture."""
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.ReLU()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class PreActBlock(nn.Module):
    """A pre-activation residual block (He et al., ECCV 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs) if norm else nn.Identity()
        self.relu1 = nn.ReLU()  # modules, so that forward hooks can see them
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=not norm)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.relu2(self.bn2(self.conv1(active)))) + skip


class PreActResNet18(nn.Module):
    """PreAct-ResNet18 for 32x32 images, first width ``width``: 16 ReLU layers."""

    def __init__(self, width: int = 16, norm: bool = True, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        blocks = []
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width, 8 * width)):
            for block in range(2):
                blocks.append(PreActBlock(inputs, outputs, 2 if stage and not block else 1, norm))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.head(functional.avg_pool2d(x, 4).flatten(1))


def settled(model: nn.Module, example: Tensor, batches: int = 10) -> nn.Module:
    """The model in eval mode, its batch-norm statistics taken from batches like ``example``."""
    model.train()
    with torch.no_grad():
        for _ in range(batches):
            model(torch.randn_like(example))
    return model.eval()
