"""Every kink and smooth activation, counted against its definition at the literal vertices, in plain torch.

Weights, points and radius are multiples of 1/2, so that the first pre-activations are exact and often lie on a
breakpoint.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr

WIDTH = 24
BOUND = (torch.arange(WIDTH).double() % 7 - 3) / 2  # a bound, threshold or rival for each neuron


def halves(*shape, low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2 * low, 2 * high + 1, shape, generator=generator).double() / 2


class Net(nn.Module):
    """Linear, the activation, and a linear layer with a ReLU that shows whether the activation's values are right."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.second = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 9)
        with torch.no_grad():
            self.first.weight.copy_(halves(WIDTH, 6, low=-2, high=2, seed=1))
            self.first.bias.copy_(halves(WIDTH, low=-3, high=3, seed=2))
            self.second.weight.normal_(generator=torch.Generator().manual_seed(3))
        self.act = activation
        self.last = nn.ReLU()

    def forward(self, x):
        return self.last(self.second(self.act(self.first(x))))


def vertices(x, radius, frame):
    """``[B, 2P, *shape]``."""
    steps = radius * frame
    return torch.stack([x + sign * step for sign in (1, -1) for step in steps], dim=1)


def changes(pieces):
    """``[B, V, ...]`` pieces to ``[B]`` neurons that are not on the same piece at all vertices."""
    flat = pieces.flatten(2)
    return (flat != flat[:, :1]).any(1).sum(1)


def distinct(layers):
    """``[B]`` different patterns, each of the pieces of all layers."""
    patterns = torch.cat([pieces.flatten(2).long() for pieces in layers], dim=2)
    return torch.tensor([len(point.unique(dim=0)) for point in patterns])


def check(net, x, frame, layers, radius=0.5, names=None):
    """Count and compare with the pieces ``[B, V, ...]`` of each layer."""
    counts = plr.count_regions(net, x, radius, frame=frame)
    want = torch.stack([changes(pieces) for pieces in layers], dim=1)
    for pieces, column in zip(layers, want.T, strict=True):
        assert 0 < column.sum() < len(x) * pieces[0, 0].numel(), "the case proves little"
    assert torch.equal(counts.changes, want)
    assert torch.equal(counts.regions, distinct(layers))
    assert names is None or counts.layers == names


def below(*breakpoints):
    """The piece is the number of breakpoints strictly below the pre-activation."""
    return lambda z: sum((z > point).long() for point in breakpoints)


def half(z):
    """A rival that depends on the input too."""
    return z.flip(-1) / 2


def assigned(z):
    z[z < 0.5] = -1.0
    return z


ON = below(0.0)
ELEMENTWISE = {
    "relu": (ON, nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.relu_, lambda z: z.relu()),
    "leaky_relu": (
        *(ON, nn.LeakyReLU(0.3), nn.LeakyReLU(0.3, inplace=True), lambda z: F.leaky_relu(z, -0.5)),
        lambda z: F.leaky_relu_(z, 2.0),
    ),
    "prelu": (ON, nn.PReLU(init=0.3), nn.PReLU(WIDTH, init=-0.3), lambda z: F.prelu(z, BOUND)),
    "rrelu": (ON, nn.RReLU(), nn.RReLU(inplace=True), F.rrelu, F.rrelu_),
    "relu6": (below(0.0, 6.0), nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6),
    "hardtanh": (
        *(below(-0.5, 1.5), nn.Hardtanh(-0.5, 1.5), nn.Hardtanh(-0.5, 1.5, inplace=True)),
        *(lambda z: F.hardtanh(z, -0.5, 1.5), lambda z: F.hardtanh_(z, -0.5, 1.5)),
    ),
    "clamp both": (
        *(below(-0.5, 1.0), lambda z: z.clamp(-0.5, 1.0), lambda z: z.clamp_(-0.5, 1.0)),
        *(lambda z: torch.clip(z, -0.5, 1.0), lambda z: z.clamp(min=-0.5).clamp(max=1.0)),
    ),
    "clamp min": (
        *(below(0.5), lambda z: z.clamp(min=0.5), lambda z: z.clamp_(min=0.5), lambda z: torch.clamp_min(z, 0.5)),
        *(lambda z: z.clamp_min_(0.5), lambda z: z.clamp(0.5, float("inf"))),
    ),
    "clamp max": (
        *(below(0.5), lambda z: z.clamp(max=0.5), lambda z: z.clamp_(max=0.5), lambda z: torch.clamp_max(z, 0.5)),
        lambda z: z.clamp_max_(0.5),
    ),
    "clamp to a tensor": (
        *(below(BOUND), lambda z: z.clamp(min=BOUND), lambda z: z.clamp(max=BOUND), lambda z: z.clamp_(min=BOUND)),
        *(lambda z: torch.clamp_min(z, BOUND), lambda z: torch.clamp_max(z, BOUND)),
    ),
    "clamp to tensors": (
        *(below(BOUND, BOUND + 1), lambda z: z.clamp(BOUND, BOUND + 1), lambda z: z.clip_(BOUND, BOUND + 1)),
    ),
    "clamp to a scalar tensor": (below(0.5), lambda z: z.clamp(min=torch.tensor(0.5, dtype=torch.float64))),
    "clamp to what depends on the input": (lambda z: (z > half(z)).long(), lambda z: z.clamp(max=half(z))),
    "abs": (ON, torch.abs, abs, lambda z: z.abs_(), torch.absolute),
    "sign": (ON, torch.sign, torch.sgn, lambda z: z * z.sign(), lambda z: z.sign_()),
    "threshold": (
        *(below(0.5), nn.Threshold(0.5, -1.0), nn.Threshold(0.5, -1.0, inplace=True)),
        *(lambda z: F.threshold(z, 0.5, 2.0), lambda z: F.threshold_(z, 0.5, 2.0)),
    ),
    "hardsigmoid": (below(-3.0, 3.0), nn.Hardsigmoid(), nn.Hardsigmoid(inplace=True), F.hardsigmoid),
    "shrink": (below(-0.5, 0.5), nn.Softshrink(0.5), nn.Hardshrink(0.5), F.softshrink, F.hardshrink),
    "maximum": (
        *(lambda z: z > BOUND, lambda z: torch.maximum(z, BOUND), lambda z: torch.max(z, BOUND)),
        *(lambda z: torch.minimum(z, BOUND), lambda z: torch.min(z, BOUND), lambda z: torch.fmax(z, BOUND)),
        lambda z: torch.fmin(z, BOUND),
    ),
    "maximum of two": (lambda z: z > half(z), lambda z: torch.maximum(z, half(z)), lambda z: z.minimum(half(z))),
    "maximum from the right": (lambda z: z < BOUND, lambda z: torch.maximum(BOUND, z)),
    "greater": (
        *(lambda z: z > 0.5, lambda z: torch.where(z > 0.5, z, -2 * z), lambda z: z * (z > 0.5)),
        *(lambda z: z.masked_fill(z > 0.5, 1.0), lambda z: torch.where(z > 0.5, z, 0.0)),
        *(lambda z: z.where(z > torch.tensor(0.5), 3.0), lambda z: torch.where((z > 0.5).logical_not(), z, 1.0)),
    ),
    "greater or equal": (lambda z: z >= 0.5, lambda z: torch.where(z >= 0.5, z, 0.0), lambda z: z * z.ge(0.5).double()),
    "less": (lambda z: z < 0.5, lambda z: torch.where(z < 0.5, z, 1.0), assigned, lambda z: z.masked_fill_(z < 0.5, 2)),
    "less or equal": (lambda z: z <= 0.5, lambda z: torch.where(z <= 0.5, 0.0, z)),
    "greater than a tensor": (lambda z: z > BOUND, lambda z: torch.where(z > BOUND, z, BOUND)),
    "greater than what depends on the input": (lambda z: z > half(z), lambda z: torch.where(z > half(z), z, 0.0)),
}
SMOOTH = {
    "gelu": (nn.GELU(), nn.GELU("tanh"), F.gelu),
    "silu": (nn.SiLU(), nn.SiLU(inplace=True), F.silu),
    "tanh": (nn.Tanh(), torch.tanh, torch.tanh_),
    "sigmoid": (nn.Sigmoid(), torch.sigmoid, torch.sigmoid_),
    "elu": (nn.ELU(), nn.ELU(inplace=True), F.elu, F.elu_),
    "selu": (nn.SELU(), nn.SELU(inplace=True), F.selu, F.selu_),
    "celu": (nn.CELU(0.5), nn.CELU(0.5, inplace=True), F.celu, F.celu_),
    "softplus": (nn.Softplus(), nn.Softplus(2, 5), F.softplus),
    "mish": (nn.Mish(), nn.Mish(inplace=True), F.mish),
    "hardswish": (nn.Hardswish(), nn.Hardswish(inplace=True), F.hardswish),
    "logsigmoid": (nn.LogSigmoid(), F.logsigmoid),
}


def elementwise_cases():
    for name, (pieces, *forms) in ELEMENTWISE.items():
        for number, form in enumerate(forms):
            yield pytest.param(name, form, pieces, "kink", id=f"{name} {number}")
    for name, forms in SMOOTH.items():
        for number, form in enumerate(forms):
            yield pytest.param(name, form, ON, "smooth", id=f"{name} {number}")


@pytest.mark.turns(2)
@pytest.mark.part(3, of="name")
@pytest.mark.parametrize("name, activation, pieces, kind", list(elementwise_cases()))
def test_elementwise(name, activation, pieces, kind):
    net = Net(activation).double().eval()
    x, frame = halves(4, 6, low=-2, high=2, seed=4), torch.eye(6, dtype=torch.float64)[:5]
    v = vertices(x, 0.5, frame)
    with torch.no_grad():
        z = net.first(v.flatten(0, 1))
        last = (net.second(net.act(z.clone())) > 0).unflatten(0, v.shape[:2])
    z = z.unflatten(0, v.shape[:2])
    if activation is ELEMENTWISE["clamp both"][-1]:  # min, then max: two neurons
        check(net, x, frame, [below(-0.5)(z), below(1.0)(z.clamp(min=-0.5)), last])
    else:
        check(net, x, frame, [pieces(z), last])
    assert plr.explain(net, x).rows[0].kind == kind


def test_a_breakpoint_itself_is_on_the_lower_piece():
    net = nn.Sequential(nn.ReLU6(), nn.Flatten()).double()
    frame = torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [5.0, 5.0], [7.0, 7.0]], dtype=torch.float64)
    assert plr.count_regions(net, x, 1.0, frame=frame).total.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("activation", [lambda z: z.clamp(1.0, 0.0), lambda z: z.clamp(0.5, 0.5)])
def test_bounds_out_of_order_are_refused(activation):
    with pytest.raises(
        plr.UnsupportedModelError, match=r"clamp at test_kinks.py:\d+: .*bounds must be in order, got min"
    ):
        plr.capture(Net(activation).double(), torch.zeros(2, 6, dtype=torch.float64))


# Kinks of several entries: the winner of a window.


def windows(sizes, kernel, stride, padding=0, dilation=1):
    """The places of the entries of each window of a pool."""

    def along(size):
        count = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        return [[n * stride - padding + dilation * tap for tap in range(kernel)] for n in range(count)]

    return places(sizes, map(along, sizes))


def adaptive_windows(sizes, outputs):
    def span(size, index):
        return list(range(index * size // outputs, -(-(index + 1) * size // outputs)))

    return places(sizes, [[span(size, index) for index in range(outputs)] for size in sizes])


def places(sizes, along):
    """Windows along each axis to windows of the image: flat places in row-major order, -1 beside it; equally long."""
    numbers = torch.arange(math.prod(sizes)).view(sizes)
    rows = []
    for window in itertools.product(*along):
        entries = list(itertools.product(*window))
        inside = [all(0 <= i < size for i, size in zip(entry, sizes, strict=True)) for entry in entries]
        rows.append([int(numbers[entry]) if ok else -1 for entry, ok in zip(entries, inside, strict=True)])
    return torch.tensor([row + [-1] * (max(map(len, rows)) - len(row)) for row in rows])


def winners(z, which):
    """``[B, V, C, *sizes]`` to the place of the first largest entry of each window."""
    flat = z.flatten(3)
    entries = torch.where(which >= 0, flat[..., which.clamp(min=0)], -torch.inf)
    first = (entries == entries.amax(-1, keepdim=True)).long().argmax(-1)
    return which.expand(*first.shape, -1).gather(-1, first[..., None]).squeeze(-1)


TARGETS = torch.tensor([0, 2, 1, 2, 0, 5, 2, 2, 1, 0, 0, 1])  # of 12 values among 6; nothing goes to 3 and 4


@pytest.mark.parametrize("reduce", ["amax", "amin"])
@pytest.mark.parametrize("own", [False, True], ids=["", "with what is there"])
@pytest.mark.parametrize("by", ["scatter_reduce", "index_reduce"])
def test_winners_of_what_is_scattered(reduce, own, by):
    """A graph's messages: of each number of the result who wins, what was there first."""

    def scattered(z):
        into, source = z[:, 12:18], z[:, :12]
        if by == "index_reduce":
            return into.index_reduce(1, TARGETS, source, reduce, include_self=own)
        return into.scatter_reduce(1, TARGETS.expand(z.shape[0], -1), source, reduce, include_self=own)

    net = nn.Sequential(nn.Linear(6, 18), Functional(scattered), nn.Linear(6, 5)).double()
    with torch.no_grad():
        net[0].weight.copy_(halves(18, 6, low=-2, high=2, seed=1))
        net[0].bias.copy_(halves(18, low=-1, high=1, seed=2))
    x, frame = halves(4, 6, low=-2, high=2, seed=4), torch.eye(6, dtype=torch.float64)[:5]
    z = net[0](vertices(x, 0.5, frame)).detach() * (1 if reduce == "amax" else -1)
    places = []
    for target in range(6):
        members = [12 + target] * own + torch.nonzero(target == TARGETS).flatten().tolist() or [12 + target]
        values = z[..., members]
        places.append((values == values.amax(-1, keepdim=True)).long().argmax(-1))
    check(net, x, frame, [torch.stack(places, -1)])


CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (12,), 2: (7, 6), 3: (5, 4, 4)}


def image_net(dimensions, pool, *, relu):
    """A convolution, a ReLU if asked for, the pool, and a linear layer with a ReLU."""
    conv = CONVS[dimensions](2, 3, 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(halves(*conv.weight.shape, low=-1, high=1, seed=5))
        conv.bias.copy_(halves(3, low=-2, high=0, seed=6))
    return nn.Sequential(conv, nn.ReLU() if relu else nn.Identity(), pool, nn.Flatten(), Last(), nn.ReLU()).double()


class Last(nn.Module):
    """A linear layer for any number of features."""

    def forward(self, x):
        count = 33 * x.shape[1]
        return F.linear(x, torch.arange(count, dtype=x.dtype).mul(1.7).sin().view(33, -1))


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def pools():
    for d in (1, 2, 3):
        sizes, pool = SIZES[d], getattr(F, f"max_pool{d}d")
        plain = windows(sizes, 2, 2)
        yield f"max_pool{d}d", d, getattr(nn, f"MaxPool{d}d")(2), plain
        yield f"max_pool{d}d function", d, lambda x, pool=pool: pool(x, 2), plain
        yield f"max_pool{d}d padded", d, lambda x, pool=pool: pool(x, 3, 2, 1), windows(sizes, 3, 2, 1)
        yield f"max_pool{d}d dilated", d, lambda x, pool=pool: pool(x, 2, 1, 0, 2), windows(sizes, 2, 1, 0, 2)
        yield f"max_pool{d}d indices", d, lambda x, pool=pool: pool(x, 2, return_indices=True)[0], plain
        adaptive = getattr(F, f"adaptive_max_pool{d}d")
        yield f"adaptive_max_pool{d}d", d, lambda x, pool=adaptive: pool(x, 3), adaptive_windows(sizes, 3)
    whole = torch.arange(42)[None]
    rows, columns = torch.arange(42).view(7, 6), torch.arange(42).view(7, 6).T
    yield "amax", 2, lambda x: x.amax((2, 3)), whole
    yield "amax row", 2, lambda x: x.amax(-1, keepdim=True), rows
    yield "max row", 2, lambda x: x.max(3).values, rows
    yield "max column", 2, lambda x: x.max(2, keepdim=True)[0], columns


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize("relu", [False, True], ids=["", "after relu"])
@pytest.mark.parametrize("dimensions, pool, which", [pytest.param(*case, id=name) for name, *case in pools()])
def test_windows(dimensions, pool, which, relu):
    """After a ReLU many windows are all zero: the first entry wins such a tie."""
    net = image_net(dimensions, pool if isinstance(pool, nn.Module) else Functional(pool), relu=relu).eval()
    x = halves(3, 2, *SIZES[dimensions], low=-1, high=1, seed=8)
    frame = torch.eye(x[0].numel(), dtype=torch.float64)[::11][:6].view(-1, *x.shape[1:])
    v = vertices(x, 0.5, frame)
    with torch.no_grad():
        z = net[0](v.flatten(0, 1))
        last = net[4](net[3](net[2](net[1](z)))) > 0
    z = z.unflatten(0, v.shape[:2])
    layers = [z > 0] if relu else []
    won = winners(z.relu() if relu else z, which)
    check(net, x, frame, [*layers, won, last.unflatten(0, v.shape[:2])])


@pytest.mark.parametrize("of_dim", [lambda x: x.amin(-1), lambda x: x.min(3).values])
def test_minima(of_dim):
    net = image_net(2, Functional(of_dim), relu=False)
    x = halves(3, 2, 7, 6, low=-1, high=1, seed=8)
    frame = torch.eye(84, dtype=torch.float64)[::11][:6].view(-1, 2, 7, 6)
    v = vertices(x, 0.5, frame)
    with torch.no_grad():
        z = net[0](v.flatten(0, 1))
        last = net[4](net[3](of_dim(z))) > 0
    won = winners(-z.unflatten(0, v.shape[:2]), torch.arange(42).view(7, 6))
    check(net, x, frame, [won, last.unflatten(0, v.shape[:2])])


def test_ceil_mode_windows_reach_beyond_the_image():
    net = image_net(2, nn.MaxPool2d(2, ceil_mode=True), relu=True)
    x = halves(3, 2, 7, 6, low=-1, high=1, seed=8)
    frame = torch.eye(84, dtype=torch.float64)[::11][:6].view(-1, 2, 7, 6)
    v = vertices(x, 0.5, frame)
    with torch.no_grad():
        z = net[1](net[0](v.flatten(0, 1)))
        last = net[4](net[3](net[2](z))) > 0
    z = z.unflatten(0, v.shape[:2])
    pairs = places((7, 6), ([[i, i + 1] for i in range(0, size, 2)] for size in (7, 6)))
    check(net, x, frame, [z > 0, winners(z, pairs), last.unflatten(0, v.shape[:2])])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("model_last", [False, True], ids=["contiguous model", "channels_last model"])
@pytest.mark.parametrize("x_last", [False, True], ids=["contiguous x", "channels_last x"])
def test_ties_in_either_memory_layout(x_last, model_last, dtype):
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.ReLU()).to(dtype)
    with torch.no_grad():
        net[0].weight.copy_(halves(3, 2, 3, 3, low=-1, high=1, seed=5))
        net[0].bias.copy_(halves(3, low=-2, high=0, seed=6))
    layout = {True: torch.channels_last, False: torch.contiguous_format}
    net = net.to(memory_format=layout[model_last])
    x = halves(3, 2, 7, 6, low=-1, high=1, seed=8).to(dtype)
    frame = torch.eye(84, dtype=dtype)[::11][:6].view(-1, 2, 7, 6)
    v = vertices(x, 0.5, frame)
    with torch.no_grad():
        z = net[0](v.flatten(0, 1)).unflatten(0, v.shape[:2]).contiguous()
    won = winners(z.relu(), windows((7, 6), 3, 2, 1))
    pooled = z.relu().flatten(3).gather(3, won)
    assert (pooled == 0).sum() > 50  # windows of zeros: ties
    check(net, x.to(memory_format=layout[x_last]), frame, [z > 0, won, pooled > 0], names=("1", "2", "3"))
