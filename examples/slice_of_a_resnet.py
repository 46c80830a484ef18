"""The regions of a residual network on a slice through three images, exactly.

A pre-activation ResNet18 (https://arxiv.org/abs/1603.05027) of random weights, its batch norms settled on images like
those of the slice: three blurred random images of the size of CIFAR's. The slice is a small window of their plane.

Run: python examples/slice_of_a_resnet.py [PNG [WINDOW [WIDTH]]]      (some seconds)
"""

import sys

import matplotlib
import torch
from torch import Tensor, nn

import pylinregion as plr
from pylinregion.experiments.models import PreActResNet18

matplotlib.use("agg")


def images(count: int) -> Tensor:
    """``[count, 3, 32, 32]`` in [0, 1]: smooth random ones."""
    coarse = torch.rand(count, 3, 8, 8)
    return nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)


def main(path: str = "slice_of_a_resnet.png", window: str = "0.002", width: str = "16") -> None:
    """Find the regions of a window, so much of the way from one image to the others, and draw them."""
    torch.manual_seed(0)
    model = PreActResNet18(3, int(width), 10, nn.ReLU, batch_norm=True)
    model.train()
    with torch.no_grad():
        for _ in range(10):
            model(images(32))
    model.eval()
    a, b, c = images(3)
    where = plr.Slice.through(a, a + float(window) * (b - a), a + float(window) * (c - a))
    part = plr.partition(model, where)
    print(part)
    axes = part.plot(color="area", boundary=False)
    axes.figure.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:])
