"""Networks of many kinds, written as their papers have them, at any size; and how many regions each has around a point.

Every one of them is piecewise linear, so exact methods cover it. What is left out of the papers' networks is what is
not: the sigmoid or tanh behind the last layer, and the transforms of PointNet, which multiply two values.

Run: python examples/networks.py [NAME ...]      (half a minute for all; most of it is tracing the modules, once each)
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

import pylinregion as plr
from pylinregion.experiments.models import PreActResNet18


class ConvNet(nn.Sequential):
    """Five convolutions of 3 x 3, of ``width`` times 1, 2, 2, 4, 4 channels, and two dense layers."""

    def __init__(self, width: int = 32, side: int = 32, channels: int = 3, classes: int = 10) -> None:
        layers: list[nn.Module] = []
        for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2), (4, 2)):
            layers += [nn.Conv2d(channels, factor * width, 3, stride, padding=1), nn.ReLU()]
            channels, side = factor * width, -(-side // stride)
        dense = [nn.Linear(channels * side**2, 4 * width), nn.ReLU(), nn.Linear(4 * width, classes)]
        super().__init__(*layers, nn.Flatten(), *dense)


class UNet(nn.Module):
    """Ronneberger et al. (arXiv 1505.04597), but padded: down by max-pools, and up again beside what was there.

    Args:
        transposed: Up by transposed convolutions; False: by bilinear up-sampling and a convolution of 1 x 1.
    """

    def __init__(
        self, width: int = 64, depth: int = 4, channels: int = 3, classes: int = 2, *, transposed: bool = True
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(self._twice(*each) for each in pairwise([channels, *widths]))
        self.pool = nn.MaxPool2d(2)
        self.up, self.across = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(widths):
            smooth = nn.Upsample(scale_factor=2, mode="bilinear")
            by_two = nn.Sequential(smooth, nn.Conv2d(coarse, fine, 1))
            self.up.append(nn.ConvTranspose2d(coarse, fine, 2, stride=2) if transposed else by_two)
            self.across.append(self._twice(2 * fine, fine))
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _twice(inputs: int, outputs: int) -> nn.Sequential:
        first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, classes, H, W]``; H and W are multiples of ``2**depth``."""
        skipped = []
        for level, convolutions in enumerate(self.down):
            x = convolutions(x if level == 0 else self.pool(x))
            skipped.append(x)
        skipped.pop()
        for up, across in zip(reversed(self.up), reversed(self.across), strict=True):
            x = across(torch.cat([skipped.pop(), up(x)], dim=1))
        return self.head(x)


class PointNet(nn.Module):
    """Qi et al. (arXiv 1612.00593), without transforms: each point by itself, the maximum over points, dense layers."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.each = _dense([3, width, width, 2 * width, 16 * width])
        self.all = _dense([16 * width, 8 * width, 4 * width, classes])

    def forward(self, points: Tensor) -> Tensor:
        """``[B, N, 3]`` to ``[B, classes]``."""
        return self.all(self.each(points).relu().amax(dim=1))


class SignedDistance(nn.Module):
    """DeepSDF's decoder (Park et al., arXiv 1901.05103) with its code held: the input comes in again half-way."""

    def __init__(self, width: int = 512, depth: int = 8, code: int = 256) -> None:
        super().__init__()
        self.register_buffer("code", torch.randn(code))
        inputs = code + 3
        self.first = _dense([inputs, *[width] * (depth // 2 - 1), width - inputs])
        self.second = _dense([width] * (depth - depth // 2 + 1) + [1])

    def forward(self, x: Tensor) -> Tensor:
        """Places ``[B, 3]`` to distances ``[B, 1]``."""
        x = torch.cat([self.code.expand(x.shape[0], -1), x], dim=1)
        return self.second(torch.cat([self.first(x).relu(), x], dim=1))


class Critic(nn.Module):
    """The critic of TD3 (Fujimoto et al., arXiv 1802.09477): the lesser of two values of an action in a state."""

    def __init__(self, state: int = 17, action: int = 6, width: int = 256) -> None:
        super().__init__()
        self.values = nn.ModuleList(_dense([state + action, width, width, 1]) for _ in range(2))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """``[B, state]`` and ``[B, action]`` to ``[B, 1]``."""
        both = torch.cat([state, action], dim=1)
        one, other = (value(both) for value in self.values)
        return torch.minimum(one, other)


class Decoder(nn.Sequential):
    """The decoder of a variational autoencoder: a dense layer, and transposed convolutions that double the side."""

    def __init__(self, width: int = 32, latent: int = 32, channels: int = 3, doublings: int = 3) -> None:
        widths = [width << level for level in reversed(range(doublings))]
        layers: list[nn.Module] = [nn.Linear(latent, widths[0] * 16), nn.ReLU(), nn.Unflatten(1, (widths[0], 4, 4))]
        for inputs, outputs in pairwise([*widths, channels]):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers[:-1])


class Maxout(nn.Module):
    """Goodfellow et al. (arXiv 1302.4389): dense layers of which a neuron is the largest of some affine functions."""

    def __init__(self, inputs: int = 784, width: int = 240, pieces: int = 5, depth: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.pieces = pieces
        self.hidden = nn.ModuleList(nn.Linear(size, width * pieces) for size in [inputs, *[width] * (depth - 1)])
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs]`` to ``[B, classes]``."""
        for layer in self.hidden:
            x = layer(x).unflatten(1, (-1, self.pieces)).amax(dim=2)
        return self.head(x)


def _dense(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network with these random weights in eval mode, and statistics in its batch norms as if it had been trained."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
    return model.eval()


# Each small enough for a moment, and the shape of a point.
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "PreAct-ResNet18": (partial(PreActResNet18, 3, 2, 10, nn.ReLU, batch_norm=False), (3, 8, 8)),
    "PreAct-ResNet18, batch norm": (partial(PreActResNet18, 3, 2, 10, nn.ReLU, batch_norm=True), (3, 8, 8)),
    "CNN": (partial(ConvNet, 4, side=8), (3, 8, 8)),
    "U-Net": (partial(UNet, 4, depth=2), (3, 8, 8)),
    "U-Net, bilinear": (partial(UNet, 4, depth=2, transposed=False), (3, 8, 8)),
    "PointNet": (partial(PointNet, 4), (16, 3)),
    "signed distance": (partial(SignedDistance, 32, code=8), (3,)),
    "critic, of actions": (lambda: plr.fix(Critic(4, 3, 16), state=torch.randn(1, 4)), (3,)),
    "VAE decoder": (partial(Decoder, 4, latent=8), (8,)),
    "maxout": (partial(Maxout, 20, width=12, pieces=3), (20,)),
}


if __name__ == "__main__":
    for name in sys.argv[1:] or SMALL:
        make, shape = SMALL[name]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        network = plr.capture(seeded(make).double(), x[None])
        start = time.perf_counter()
        part = plr.partition(network, plr.Slice.around(x, radius=0.5))
        seconds = time.perf_counter() - start
        print(f"{name:28} {len(part.layers):3} layers, {part.n_regions:5} regions around a point, {seconds:5.2f} s")
