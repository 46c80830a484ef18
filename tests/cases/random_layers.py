"""Random small networks of convolutions, pools, norms and joins, many of them degenerate on purpose, and slices."""

import numpy as np
import torch
from torch import nn

import pylinregion as plr
from cases.layered import Abs, Add, Concat, Graph, Larger, check_around, check_layers, check_trace, layers_of

STRUCTURES = ("chain", "residual", "dense", "pooled", "depthwise", "transposed", "any")
NUMBERS = (
    "float32",
    "float64",
    "grid",  # multiples of 1/4
    "zero bias",
    "duplicated",  # channels repeated, negated, doubled
    "dead",  # channels that are never on
    "small integers",
    "wild",  # channels times powers of two up to 2^20 and 2^-20
    "nearly tied",  # small integers that are off by some units in the places 2^-30 to 2^-52
)
IN_FLOAT64 = ("float64", "wild", "nearly tied")
SLICES = ("generic", "grid", "corner", "pixels", "around")
MOST_REGIONS = 48  # of a slice: the reference takes some 10 ms for each

ACTIVATIONS = (
    nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU6, lambda: nn.LeakyReLU(0.25), lambda: nn.LeakyReLU(0.01), Abs, nn.Hardtanh,
    nn.Hardsigmoid, lambda: nn.Softshrink(0.25), lambda: nn.PReLU(init=0.1),
)  # fmt: skip


def filled(module, numbers, rng):
    """A module with random weights of one of ``NUMBERS``, in eval mode; some channels of batch norms have scale 0."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(_weights(numbers, rng, "bias" in name, tuple(parameter.shape))))
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                shape = tuple(part.running_mean.shape)
                part.running_mean.copy_(torch.from_numpy(_weights(numbers, rng, True, shape)))
                part.running_var.copy_(torch.from_numpy(rng.uniform(0.25, 2, shape)))
                part.weight[torch.from_numpy(rng.random(shape) < 0.2)] = 0.0
    return module.eval()


def _weights(numbers, rng, bias, shape):
    """Of a parameter; channels are its first axis."""
    values = rng.standard_normal(shape) * (1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.5)
    if numbers == "grid":
        values = rng.integers(-4, 5, shape) / 4
    elif numbers in ("small integers", "nearly tied"):
        values = rng.integers(-2, 3, shape).astype(np.float64)
        if numbers == "nearly tied":
            unit = 2.0 ** -int(rng.integers(30, 53))
            values *= np.where(rng.random(shape) < 0.3, 1 + rng.integers(-3, 4, shape) * unit, 1.0)
    elif numbers == "zero bias" and bias:
        values = np.zeros(shape)
    elif numbers == "duplicated" and shape[0] > 1:
        first, second = rng.choice(shape[0], 2, replace=False)
        values[second] = values[first] * rng.choice([1.0, 1.0, -1.0, 2.0])
    elif numbers == "dead" and bias:
        values = np.where(rng.random(shape) < 0.3, -50.0, values)
    elif numbers == "wild":
        values = np.ldexp(values, rng.integers(-20, 21, (shape[0], *[1] * (len(shape) - 1))))
    return values


class _Maker:
    """Makes a network part by part, and knows the shape of each value."""

    def __init__(self, rng, shape, numbers):
        self.rng, self.numbers = rng, numbers
        self.parts, self.sources, self.shapes = [], [], [shape]
        self.dims = len(shape) - 1

    @property
    def last(self):
        return len(self.parts) - 1

    @property
    def shape(self):
        return self.shapes[-1]

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def of(self, name, *given, **options):
        """A module for this many dimensions."""
        return getattr(nn, f"{name}{self.dims}d")(*given, **options)

    def add(self, part, *sources):
        """Append a part, unless it does not fit, or would make too much or nothing; says whether it did."""
        sources = sources or (self.last,)
        given = [torch.zeros(1, *self.shapes[source + 1]) for source in sources]
        try:
            with torch.no_grad():
                found = part.eval()(*given)[0]
        except RuntimeError:
            return False
        if not 0 < found.numel() <= 256 or not found.isfinite().all():  # a pool may see its padding alone
            return False
        self.parts.append(part), self.sources.append(sources), self.shapes.append(tuple(found.shape))
        filled(part, self.numbers, self.rng)
        return True

    # ---- what may come next

    def activation(self):
        return self.add(self.pick(*ACTIVATIONS)())

    def convolution(self, same=False, groups=None):
        kernel = int(self.rng.choice([1, 2, 3, 3])) if not same else self.pick(1, 3)
        inputs = self.shape[0]
        groups = groups or (inputs if inputs > 1 and self.rng.random() < 0.15 else 1)
        outputs = inputs if same else groups * int(self.rng.integers(1, 5 if groups == 1 else 3))
        options = {"padding": (kernel - 1) // 2}
        if not same:
            options = {
                "stride": self.pick(1, 1, 2),
                "padding": int(self.rng.integers(0, 3)),
                "dilation": self.pick(1, 1, 2),
            }
        bias = bool(self.rng.random() < 0.8)
        return self.add(self.of("Conv", inputs, outputs, kernel, groups=groups, bias=bias, **options))

    def depthwise(self):
        return self.convolution(groups=self.shape[0]) and self.convolution()

    def transposed(self):
        kernel, stride = self.pick(1, 2, 3), self.pick(1, 2)
        options = {"stride": stride, "padding": int(self.rng.integers(0, 2)), "dilation": self.pick(1, 1, 2)}
        options["output_padding"] = int(self.rng.integers(0, stride))
        return self.add(self.of("ConvTranspose", self.shape[0], int(self.rng.integers(1, 4)), kernel, **options))

    def norm(self):
        return self.add(self.of("BatchNorm", self.shape[0]))

    def max_pool(self):
        kernel = self.pick(2, 2, 3)
        options = {"stride": self.pick(1, 2, None), "padding": self.pick(0, 0, 1), "dilation": self.pick(1, 1, 1, 2)}
        return self.add(self.of("MaxPool", kernel, ceil_mode=bool(self.rng.integers(2)), **options))

    def average_pool(self):
        options = {
            "stride": self.pick(1, 2, None),
            "padding": self.pick(0, 0, 1),
            "ceil_mode": bool(self.rng.integers(2)),
        }
        return self.add(self.of("AvgPool", self.pick(2, 3), count_include_pad=bool(self.rng.integers(2)), **options))

    def adaptive_pool(self):
        return self.add(self.of(self.pick("AdaptiveAvgPool", "AdaptiveMaxPool"), self.pick(1, 2, 3)))

    def upsample(self):
        return np.prod(self.shape) <= 48 and self.add(nn.Upsample(scale_factor=2))

    def residual(self):
        begin = self.last
        self.norm() if self.rng.random() < 0.5 else None
        self.activation() and self.convolution(same=True)
        return self.join(Add, lambda shape: shape == self.shape, begin)

    def dense_connection(self):
        begin = self.last
        self.convolution(same=True) and self.activation()
        return self.join(Concat, lambda shape: shape[1:] == self.shape[1:], begin)

    def larger(self):
        return self.join(Larger, lambda shape: shape == self.shape)

    def again(self):
        """A part that is used for the second time."""
        fitting = [
            at
            for at, part in enumerate(self.parts)
            if isinstance(part, nn.modules.conv._ConvNd) and self.shapes[self.sources[at][0] + 1] == self.shape
        ]
        return bool(fitting) and self.add(self.parts[self.pick(*fitting)])

    def join(self, kind, fits, wanted=None):
        fitting = [at for at in range(-1, self.last) if fits(self.shapes[at + 1])]
        if wanted in fitting:
            return self.add(kind(), self.last, wanted)
        return bool(fitting) and self.add(kind(), self.last, self.pick(*fitting))

    def head(self):
        """Dense layers."""
        self.add(nn.Flatten())
        if self.rng.random() < 0.4:
            self.add(nn.Linear(int(np.prod(self.shape)), int(self.rng.integers(2, 6))))
            self.add(nn.ReLU())
        self.add(nn.Linear(int(np.prod(self.shape)), int(self.rng.integers(1, 4))))


NEXT = {
    "chain": ("convolution", "convolution", "norm"),
    "residual": ("residual", "residual", "convolution"),
    "dense": ("dense_connection", "dense_connection", "convolution"),
    "pooled": ("max_pool", "average_pool", "adaptive_pool", "convolution"),
    "depthwise": ("depthwise", "convolution"),
    "transposed": ("transposed", "upsample", "convolution"),
    "any": ("convolution", "residual", "dense_connection", "max_pool", "average_pool", "depthwise", "transposed",
            "norm", "larger", "again"),
}  # fmt: skip


def about(seed):
    """What a case is."""
    structure, rest = seed % len(STRUCTURES), seed // len(STRUCTURES)
    numbers, rest = rest % len(NUMBERS), rest // len(NUMBERS)
    return {"structure": STRUCTURES[structure], "kind": NUMBERS[numbers], "slice": SLICES[rest % len(SLICES)]}


def random_model(seed):
    """A model in eval mode, and the shape of its input; the same for the same seed."""
    rng = np.random.default_rng(seed)
    what = about(seed)
    dims = int(rng.choice([1, 2, 2, 2, 3]))
    side = int({1: rng.integers(4, 9), 2: rng.choice([3, 4, 5, 6, 8]), 3: rng.integers(2, 4)}[dims])
    maker = _Maker(rng, (int(rng.integers(1, 4)), *[side] * dims), what["kind"])
    maker.convolution()
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.7:
            maker.activation()
        getattr(maker, maker.pick(*NEXT[what["structure"]]))()
    if not any(isinstance(part, nn.ReLU) for part in maker.parts):
        maker.add(nn.ReLU())
    maker.head()
    model = Graph(maker.parts, maker.sources).eval()
    return model.double() if what["kind"] in IN_FLOAT64 else model, maker.shapes[0]


def random_place(seed, shape):
    """Origin, u, v and a convex polygon."""
    rng = np.random.default_rng([seed, 1])
    kind, size = about(seed)["slice"], int(np.prod(shape))
    cross = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    if kind == "generic":
        u, v, origin = rng.standard_normal((3, *shape))
        angles = 2 * np.pi * (np.arange(5) + rng.uniform(-0.3, 0.3, 5)) / 5
        return origin, u, v, np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind == "around":
        x = rng.standard_normal(shape).astype(np.float32)
        slice_ = plr.Slice.around(x, 1.0, seed)
        return x.astype(np.float64), slice_.u.numpy(), slice_.v.numpy(), cross
    origin = rng.integers(-1, 2, shape) * float(rng.choice([0.0, 0.5, 1.0]))
    if kind == "pixels":
        u, v = np.eye(size)[rng.choice(size, 2, replace=False)].reshape(2, *shape)
        return origin, u, v, cross
    while True:
        u, v = rng.integers(-1, 2, (2, *shape)).astype(np.float64)
        if np.linalg.matrix_rank(np.stack([u.reshape(-1), v.reshape(-1)])) == 2:
            break
    low = 0.0 if kind == "corner" else -1.0
    return origin, u, v, np.array([[low, low], [1.0, low], [1.0, 1.0], [low, 1.0]])


def small_slice(model, origin, u, v, polygon, most=MOST_REGIONS):
    """A slice on which a model has not very many regions, and the number that the polygon was multiplied with."""
    for halvings in range(-1, 20):
        slice_ = plr.Slice(origin, u, v, 2.0**-halvings * polygon)
        try:
            plr.partition(model, slice_, cells=False, max_regions=most)
            break
        except plr.BudgetExceededError:
            pass
    return slice_, 2.0**-halvings


def compare(seed):
    """Compare all that the package says with the reference; gives the partition and the reference's trace of a side."""
    model, shape = random_model(seed)
    slice_, size = small_slice(model, *random_place(seed, shape))
    net, what = layers_of(model, shape), about(seed)
    part, oracle = check_layers(model, slice_, net, coordinates=what["kind"] not in ("wild", "nearly tied"))
    if what["slice"] in ("pixels", "around"):
        check_around(model, slice_, size, oracle)
    line = check_trace(model, net, *slice_.points(slice_.polygon[:2]).numpy())
    return part, line
