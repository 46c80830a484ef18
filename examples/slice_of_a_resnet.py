"""The regions of a residual network on the slice through three images of CIFAR's size, exactly.

The network has torchvision's blocks (7x7 convolution, batch norm, max-pool, basic blocks, global average pool) and few
channels. It is trained on scikit-learn's digits, drawn large in random colours. On the left the classes on the whole
slice through a 2, a 3 and a 6, with the decision boundary; on the right the regions in the middle of
it, the same network on a smaller slice.

Run: python examples/slice_of_a_resnet.py [PICTURE [CHANNELS [EPOCHS]]] (needs scikit-learn and matplotlib; 15 seconds)
"""

import sys

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import pylinregion as plr

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle


class BasicBlock(nn.Module):
    """Two convolutions beside a short cut (https://arxiv.org/abs/1512.03385, figure 5, left)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.short_cut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Of maps ``[B, before, height, width]``."""
        return self.relu(self.convolutions(x) + self.short_cut(x))


def resnet(channels: int) -> nn.Module:
    """Of images ``[B, 3, 32, 32]`` to 10 classes."""
    stem = nn.Conv2d(3, channels, 7, 4, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    blocks = BasicBlock(channels, channels, 1), BasicBlock(channels, 2 * channels, 2)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * channels, 10))


def coloured(digits: Tensor) -> Tensor:
    """``[B, 3, 32, 32]`` of ``[B, 64]``: dark ink on light paper, each in its own colours."""
    strength = functional.interpolate(digits.reshape(-1, 1, 8, 8), (32, 32), mode="bicubic").clamp(0, 1)
    ink, paper = 0.4 * torch.rand(2, len(digits), 3, 1, 1)
    return (1 - paper) + (ink - (1 - paper)) * strength


def trained(channels: int, epochs: int, digits: Tensor, labels: Tensor) -> nn.Module:
    """A network that has seen the first 1500 digits, in new colours each time."""
    model = resnet(channels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=epochs * 30)
    for _ in range(epochs):
        for batch in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(coloured(digits[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main(path: str = "slice_of_a_resnet.png", channels: str = "4", epochs: str = "30") -> None:
    """Find the regions, check them with the network, and draw them."""
    torch.manual_seed(0)
    digits, labels = (torch.tensor(found, dtype=torch.float32) for found in load_digits(return_X_y=True))
    digits, labels = digits / 16, labels.long()
    model = trained(int(channels), int(epochs), digits, labels)
    x = coloured(digits)
    accuracy = (model(x[1500:]).argmax(1) == labels[1500:]).float().mean()
    print(f"{accuracy:.1%} of unseen digits right\n")

    images = x[[int((labels == k).nonzero()[0]) for k in (2, 3, 6)]]  # the first of each
    whole = plr.partition(model, plr.Slice.through(*images, margin=0.25))
    print(whole, "\n")
    whole.verify(model)

    st = whole.slice.coordinates(images).st
    side = np.ptp(whole.slice.polygon[:, 1]) / 5
    low = st.mean(axis=0) - side / 2
    square = low + side * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    near = plr.partition(model, plr.Slice(whole.slice.origin, whole.slice.u, whole.slice.v, square))
    print(near)

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12.6, 4.4), width_ratios=(1.6, 1), layout="constrained")
    whole.plot(left, color="class")
    left.set_title(f"The class on {whole.n_regions} linear regions", loc="left")
    left.add_patch(Rectangle(low, side, side, fill=False, linewidth=1.5, zorder=7))
    for image, place in zip(images, st, strict=True):
        thumbnail = OffsetImage(image.permute(1, 2, 0), zoom=1.2)
        left.add_artist(AnnotationBbox(thumbnail, place, pad=0.15, bboxprops={"edgecolor": "black"}, zorder=6))
    near.plot(right, color="slope")
    right.set_title(f"{near.n_regions} in the middle, by their slope", loc="left")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:])
