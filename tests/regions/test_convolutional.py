"""Convolutional, residual and pooled networks on slices, layer by layer in fractions: every answer must be the same."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.layered import Concat, Graph, array, check_around, check_layers, check_trace, layers_of
from cases.operator_calls import CALLS, COVERED
from cases.operator_layers import AFFINE, KINKS, affine_layers
from cases.parts import SCALE, some
from cases.random_layers import IN_FLOAT64, NUMBERS, compare, filled, small_slice
from pylinregion.reference import layers
from pylinregion.reference.rational import Pieces

AFFINE_TOGETHER, KINKS_TOGETHER = 10, 2


class Table(nn.Module):
    """Some operators of the same eight values, which a convolution makes of an image, and dense layers behind them."""

    def __init__(self, names, rectified):
        super().__init__()
        self.names, self.rectified = names, rectified
        self.first = nn.Conv2d(1, 2, 3)
        width = sum(each[0].numel() for each in self.outputs(torch.zeros(1, 8).double()))
        self.hidden, self.last = nn.Linear(width, 3), nn.Linear(3, 2)
        self.double()

    def outputs(self, z):
        found = [CALLS[name](z) for name in self.names]
        found = [part for each in found for part in (each if isinstance(each, (list, tuple)) else [each])]
        return [each.double().reshape(z.shape[0], -1) for each in found]

    def forward(self, x):
        z = self.first(x).flatten(1)
        z = z.relu() if self.rectified else z
        return self.last(self.hidden(torch.cat(self.outputs(z), 1)).relu())

    def layers(self):
        """The same for the reference; what is added for each operator is ``cases/operator_layers.py``."""
        net = layers.Layers((1, 4, 4))
        net.add(layers.Convolution(array(self.first.weight), array(self.first.bias)))
        z = net.add(layers.Places(np.arange(8)))
        z = net.add(layers.Kink(Pieces.relu())) if self.rectified else z
        found = []
        for name in self.names:
            found += [KINKS[name](net, z)] if name in KINKS else affine_layers(net, z, name)
        flat = [net.add(layers.Places(np.arange(int(np.prod(net.shapes[each + 1])))), each) for each in found]
        net.add(layers.Join(), *flat)
        net.add(layers.Dense(array(self.hidden.weight), array(self.hidden.bias)))
        net.add(layers.Kink(Pieces.relu()))
        net.add(layers.Dense(array(self.last.weight), array(self.last.bias)))
        return net


def groups(names, size):
    return [names[begin : begin + size] for begin in range(0, len(names), size)]


def check_table(names, rectified, seed, size):
    torch.manual_seed(seed)
    model = Table(names, rectified)
    if seed % 2:  # many ties
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randint(-3, 4, parameter.shape) / 2)
    u, v, origin = torch.randn(3, 1, 4, 4) if seed % 2 == 0 else torch.randint(-1, 2, (3, 1, 4, 4)).double()
    slice_ = plr.Slice(origin / 2, u, v, size * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))
    check_layers(model, slice_, model.layers())


def test_every_operator_has_layers():
    assert set(AFFINE) | set(KINKS) == set(COVERED)


@pytest.mark.turns(3)
@pytest.mark.part(24, of="seed")
@pytest.mark.parametrize("names", groups(AFFINE, AFFINE_TOGETHER), ids=lambda names: names[0])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_affine_operator(names, seed):
    check_table(names, True, seed, 0.5)


@pytest.mark.part(24, of="seed")
@pytest.mark.parametrize("names", groups(list(KINKS), KINKS_TOGETHER), ids=lambda names: names[0])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_kink(names, seed):
    check_table(names, seed == 0, seed, 0.25)


# ---- networks by name


class PreActivation(nn.Module):
    """A residual block with its norms in front, and a convolution beside it where it strides."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x):
        h = torch.relu(self.norms[0](x))
        beside = x if self.shortcut is None else self.shortcut(h)
        return self.second(torch.relu(self.norms[1](self.first(h)))) + beside


class DenselyConnected(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(inputs), nn.BatchNorm2d(inputs + growth)])
        self.first = nn.Conv2d(inputs, growth, 3, 1, 1)
        self.second = nn.Conv2d(inputs + growth, growth, 3, 1, 1)

    def forward(self, x):
        x = torch.cat([x, self.first(torch.relu(self.norms[0](x)))], 1)
        return torch.cat([x, self.second(torch.relu(self.norms[1](x)))], 1)


class UNet(nn.Module):
    """Down, up again, and what was before beside it."""

    def __init__(self):
        super().__init__()
        self.before, self.below = nn.Conv2d(3, 2, 3, 1, 1), nn.Conv2d(2, 4, 3, 1, 1)
        self.down, self.up = nn.MaxPool2d(2), nn.ConvTranspose2d(4, 2, 2, 2)
        self.after, self.last = nn.Conv2d(4, 1, 3, 1, 1), nn.Linear(64, 2)

    def forward(self, x):
        x = self.before(x).relu()
        y = self.up(self.below(self.down(x)).relu())
        return self.last(self.after(torch.cat([x, y], 1)).relu().flatten(1))


NETWORKS = {  # of images [3, 8, 8], unless a shape is given
    "residual": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), PreActivation(4, 4, 1), PreActivation(4, 4, 2),
        nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ),
    "dense": lambda: nn.Sequential(
        nn.Conv2d(3, 2, 3, 2, 1), DenselyConnected(2, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2),
    ),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 2, padding=1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.LeakyReLU(0.1), nn.MaxPool2d(2, 1), nn.Flatten(),
        nn.Linear(16, 2),
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 4, 3, 2, 1, groups=4), nn.BatchNorm2d(4),
        nn.ReLU6(), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.Linear(48, 2),
    ),
    "u-net": UNet,
    "decoder": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Unflatten(1, (2, 2, 2)),
        nn.ConvTranspose2d(2, 4, 3, 2, 1, output_padding=1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3, 2),
    ),
    "dilated": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(3, 3, 3, 4, 2, dilation=2), nn.ReLU(), nn.ReplicationPad1d(1),
        nn.Conv1d(3, 2, 2, dilation=4), nn.MaxPool1d(3, 2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(10, 2),
    ),
    "three dimensions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, 2, (1, 2, 2)), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(2, 2, 1, groups=2), nn.BatchNorm3d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1),
    ),
}  # fmt: skip


@pytest.mark.turns(3)
@pytest.mark.part(48)
@pytest.mark.parametrize("name, numbers", list(product(NETWORKS, NUMBERS)))
def test_networks(name, numbers):
    rng = np.random.default_rng([list(NETWORKS).index(name), NUMBERS.index(numbers)])
    model = NETWORKS[name]().to(torch.float64 if numbers in IN_FLOAT64 else torch.float32)
    filled(model, numbers, rng)
    net = layers_of(model, (3, 8, 8))
    if numbers in ("grid", "zero bias", "small integers"):  # lines through the middle, along edges, on top of others
        origin, u, v = rng.integers(-1, 2, (3, 3, 8, 8)) / 2
    else:
        origin, u, v = rng.standard_normal((3, 3, 8, 8))
    polygon = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    slice_, _ = small_slice(model, origin, u, v, polygon, most=24)
    check_layers(model, slice_, net, coordinates=numbers not in ("wild", "nearly tied"))
    check_trace(model, net, *slice_.points(slice_.polygon[1:3]).numpy())


@pytest.mark.turns(3)
@pytest.mark.parametrize("seed", some(range(315 * SCALE), 105, "layers"))
def test_random_networks(seed):
    """Some of those of ``python bench/check_exact.py --layers``."""
    compare(seed)


def test_a_trained_network():
    """On images of two classes, around one of them and through three."""
    torch.manual_seed(0)
    classes = torch.arange(64) % 2
    pattern = torch.stack([torch.ones(8, 8).triu(), torch.eye(8).flip(0)])
    images = pattern[classes][:, None] + 0.3 * torch.randn(64, 1, 8, 8)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(4, 4, 2), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images), classes)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    assert loss < 0.1
    net = layers_of(model.eval(), (1, 8, 8))
    x, y, z = images[:3].double()
    slice_, _ = small_slice(model, x, y - x, z - x, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    part, _ = check_layers(model, slice_, net)
    assert part.n_regions > 9
    unit = plr.Slice.around(images[0], 1.0)
    around, radius = small_slice(model, unit.origin, unit.u, unit.v, unit.polygon)
    part, oracle = check_layers(model, around, net)
    assert part.n_regions > 9
    check_around(model, around, radius, oracle)


# ---- what the function is


def checkerboard(*parts):
    """How many regions hard tanhs of what these make have, each of the one input of each of two places."""
    count = len(parts)
    behind = [Concat(), nn.Hardtanh(), nn.Flatten(), nn.Linear(8 * count, 1).double()]
    sources = [*[(-1,)] * count, tuple(range(count)), *((count + k,) for k in range(3))]
    model = Graph([*parts, *behind], sources).eval()
    u, v = torch.eye(2).reshape(2, 1, 2).expand(2, 4, 2)
    slice_ = plr.Slice(torch.zeros(4, 2), u, v, 4 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))
    return check_layers(model, slice_)[0].n_regions


@pytest.mark.parametrize("seed", some(range(6), 6, "norms"))
def test_a_batch_norm_is_its_scale_and_shift_in_float64(seed):
    """A convolution that scales and shifts so has the same lines, to the last bit; with one bit off it has others."""
    torch.manual_seed(seed)
    norm, same, other = nn.BatchNorm1d(4), *(nn.Conv1d(4, 4, 1, groups=4) for _ in range(2))
    norm, same, other = norm.double().eval(), same.double(), other.double()
    for name in ("weight", "bias", "running_mean"):
        nn.init.uniform_(getattr(norm, name), 0.25, 0.75)
    nn.init.uniform_(norm.running_var, 0.25, 2)
    with torch.no_grad():
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        for part, factor in ((same, scale), (other, scale.nextafter(2 * scale))):
            part.weight.copy_(factor.reshape(4, 1, 1)), part.bias.copy_(norm(torch.zeros(1, 4).double())[0])
    alone = checkerboard(norm)
    assert checkerboard(norm, same) == alone > 4
    assert checkerboard(norm, other) > alone


@pytest.mark.parametrize("size", some([3, 5, 6, 7], 4, "average pools"))
def test_an_average_pool_is_its_factor_in_float64(size):
    pool, same, other = nn.AvgPool1d(size), *(nn.Conv1d(4, 4, size, size, groups=4, bias=False) for _ in range(2))
    for part, factor in ((same.double(), 1 / size), (other.double(), np.nextafter(1 / size, 1))):
        nn.init.constant_(part.weight, factor)
    pool, same, other = (nn.Sequential(nn.Upsample(scale_factor=size), part) for part in (pool, same, other))
    assert checkerboard(pool, same) == checkerboard(pool) == 9
    assert checkerboard(pool, other) == 25
