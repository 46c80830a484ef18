"""Stages of captured models: the same function as the model, and refusals that say why."""

import copy
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr
from cases.engine import oracle_stages
from cases.small_models import Do, pair, relu_on_a_slice, tied, warmed_up
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import INPUT
from pylinregion.reference import rational

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def captured(model, *shape, dtype=torch.float32):
    return stages_of(plr.capture(model.to(dtype).eval(), torch.zeros(2, *shape, dtype=dtype)))


def evaluated(stages, x):
    """The outputs at inputs ``[B, D]``, in float64, from the stages alone."""
    values = {INPUT: x}
    for number, stage in enumerate(stages.stages):
        z = np.broadcast_to(stage.bias, (len(x), stage.rows)).copy()
        for source, weight in stage.matrices.items():
            assert weight.dtype == np.float64 and weight.flags.c_contiguous and stage.bias.dtype == np.float64
            z += values[source] @ weight.T
        units = stage.units
        out = np.empty_like(z)
        if units.groups is not None:
            values[number] = np.zeros_like(z)
            for begin, end in pairwise(units.groups):
                winner = begin + z[:, begin:end].argmax(axis=1)
                at = np.arange(len(z)), winner
                values[number][at] = z[at] * units.slopes[2 * winner + 1]
            continue
        for row in range(stage.rows):
            begin, end = units.line_begin[row], units.line_begin[row + 1]
            kinks = units.kinks[begin:end]
            assert np.all(np.diff(kinks) > 0)
            piece = begin + row + (z[:, [row]] > kinks).sum(axis=1)
            out[:, row] = (units.slopes[piece] * z[:, row] + units.intercepts[piece]) / units.denominator
        values[number] = out
    return values[len(stages.stages) - 1]


def check(model, *shape, dtype=torch.float32, lines=None, points=40, scale=2.0):
    """The stages give what the model gives in float64, at random points; ``lines``: how many kinks there are."""
    stages = captured(model, *shape, dtype=dtype)
    x = scale * torch.randn(points, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = copy.deepcopy(model).double().eval()(x).reshape(points, -1).numpy()
    got = evaluated(stages, x.reshape(points, -1).numpy())
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-12 * (1 + np.abs(expected).max())
    assert stages.stages[-1].units.lines == 0  # the output
    assert stages.inputs == int(np.prod(shape))
    assert all(each.layer >= 0 for each in stages.stages if each.units.lines)
    assert sorted({each.layer for each in stages.stages if each.layer >= 0}) == list(range(len(stages.layers)))
    if lines is not None:
        assert stages.lines == lines
    return stages


def integers(model):
    """The model with small integers for weights: float64 is exact then."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))
    return model


def perceptron(*activations):
    return nn.Sequential(
        nn.Linear(5, 7), activations[0], nn.Linear(7, 6), activations[-1], nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)
    )


ACTIVATIONS = {
    "ReLU": (nn.ReLU, 1),
    "LeakyReLU": (nn.LeakyReLU, 1),
    "LeakyReLU 0.3": (lambda: nn.LeakyReLU(0.3), 1),
    "LeakyReLU negative": (lambda: nn.LeakyReLU(-0.5), 1),
    "PReLU": (nn.PReLU, 1),
    "RReLU": (nn.RReLU, 1),
    "ReLU6": (nn.ReLU6, 2),
    "Hardtanh": (nn.Hardtanh, 2),
    "Hardtanh -0.3 1.7": (lambda: nn.Hardtanh(-0.3, 1.7), 2),
    "Hardsigmoid": (nn.Hardsigmoid, 2),
    "Softshrink": (nn.Softshrink, 2),
    "Softshrink 0.3": (lambda: nn.Softshrink(0.3), 2),
    "Threshold 0.4": (lambda: nn.Threshold(0.4, 0.4), 1),
    "abs": (lambda: Do(lambda self, x: x.abs()), 1),
    "clamp": (lambda: Do(lambda self, x: torch.clamp(x, -0.1, 0.7)), 2),
    "clamp min": (lambda: Do(lambda self, x: x.clamp(min=-0.4)), 1),
    "clamp max": (lambda: Do(lambda self, x: torch.clamp(x, max=0.2)), 1),
    "clamp_min": (lambda: Do(lambda self, x: torch.clamp_min(x, 0.3)), 1),
    "clamp to infinity": (lambda: Do(lambda self, x: torch.clamp(x, -0.5, float("inf"))), 1),
    "relu_": (lambda: nn.ReLU(inplace=True), 1),
    "hardtanh_": (lambda: nn.Hardtanh(inplace=True), 2),
}


@pytest.mark.part(3)
@pytest.mark.parametrize(
    "name, dtype",
    [(name, DTYPES[place % 4]) for place, name in enumerate(ACTIVATIONS)]
    + [(name, dtype) for name in ("PReLU", "ReLU6") for dtype in DTYPES],
    ids=str,
)
def test_perceptrons(name, dtype):
    torch.manual_seed(0)
    make, kinks = ACTIVATIONS[name]
    model = perceptron(make(), make())
    stages = check(model, 5, dtype=dtype, lines=kinks * 13 + 4)
    assert [each.rows for each in stages.stages] == [7, 6, 4, 3]
    for layer, each in zip((0, 2, 4, 6), stages.stages, strict=True):  # the weights themselves, to the last bit
        (weight,) = each.matrices.values()
        assert np.array_equal(weight, model[layer].weight.detach().double().numpy())
        assert np.array_equal(each.bias, model[layer].bias.detach().double().numpy())


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU negative", "PReLU", "ReLU6", "Hardsigmoid", "abs", "LeakyReLU"])
def test_perceptrons_of_integers_in_fractions(name):
    torch.manual_seed(1)
    make, _ = ACTIVATIONS[name]
    first, second = make(), make()
    model = integers(perceptron(first, second)).double()
    for part in (first, second):
        if isinstance(part, nn.PReLU):
            nn.init.constant_(part.weight, -0.25)
    stages = oracle_stages(captured(model, 5, dtype=torch.float64))
    slopes = [float(x) for stage in stages for _, act in stage.units for x in (*act.slopes, *act.breaks)]
    dyadic = all(x * 64 == int(x * 64) for x in slopes)
    for _ in range(20):
        x = torch.randint(-40, 41, (1, 5)) / 8
        _, got = rational.forward(stages, x[0].double().tolist())
        with torch.no_grad():
            expected = model(x.double())[0].tolist()
        if dyadic:
            assert got == [Fraction(value) for value in expected]  # nothing rounds
        assert np.allclose([float(value) for value in got], expected, rtol=1e-12, atol=1e-12)


def test_hardsigmoid_has_a_true_sixth():
    model = nn.Sequential(nn.Linear(1, 1), nn.Hardsigmoid(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (1.0, 0.0, 1.0, 0.0), strict=True):
            parameter.fill_(value)
    stages = oracle_stages(captured(model, 1))
    assert rational.forward(stages, [1])[1] == [Fraction(2, 3)]
    assert rational.forward(stages, [-4])[1] == [0] and rational.forward(stages, [3])[1] == [1]


@pytest.mark.parametrize("shape, parameters", [((6,), 6), ((6,), 1), ((3, 4), 3), ((2, 3, 4), 2), ((2, 3, 4), 1)])
def test_slopes_of_channels(shape, parameters):
    torch.manual_seed(2)
    act = nn.PReLU(parameters)
    nn.init.uniform_(act.weight, -1, 1)
    width = int(np.prod(shape))
    model = nn.Sequential(nn.Linear(5, width), nn.Unflatten(1, shape), act, nn.Flatten(), nn.Linear(width, 2))
    check(model, 5, lines=width)


def test_a_slope_of_one_is_a_kink_without_a_bend():
    act = nn.PReLU(4)
    with torch.no_grad():
        act.weight.copy_(torch.tensor([1.0, 0.0, -1.0, 2.0]))
    check(nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 1)), 3, lines=4)


# ---- affine parts


def skip_of_value(self, x):
    h = self.linear(x).relu()
    return self.head(h) + h


def skip_of_pre_activation(self, x):
    z = self.linear(x)
    return self.head(z.relu()) + z


def skip_through_a_view(self, x):
    z = self.linear(x)
    again = z.view(-1, 2, 4)
    return self.head(z.relu()) + again.reshape(-1, 8)


def late_view(self, x):
    z = self.linear(x)
    h = self.head(z.relu()).relu()
    return h + z.unflatten(1, (4, 2)).flatten(1)


def skip_of_input(self, x):
    h = self.head(self.linear(x).relu()).relu()
    return torch.cat([h, x], dim=1) - 0.5


def relu_twice(self, x):
    z = self.linear(x)
    return F.relu(z) + self.head(F.relu(z)) + F.leaky_relu(z, 0.1)


def two_kinks_of_one_value(self, x):
    z = self.linear(x)
    return self.head(z.relu()) - self.head((-z).relu()) + z.abs()


def kink_after_kink(self, x):
    return self.head(F.hardtanh(F.leaky_relu(self.linear(x))).abs())


def kink_of_input(self, x):
    return self.head(self.linear(x.relu()).relu()) + self.linear(x.abs())


def kink_at_the_end(self, x):
    return self.head(self.linear(x).relu()).relu()


def two_linears(self, x):
    return self.head(self.linear(x)).relu()


def concatenation(self, x):
    z = self.linear(x)
    parts = torch.cat([z[:, :3].relu(), z[:, 3:].abs()], dim=1)
    return parts.flip(1)


def split_and_stack(self, x):
    h = self.linear(x).relu()
    a, b = h[:, ::2], h.unflatten(1, (2, 4))[:, 1]
    return torch.stack([a - b, 2 * a, b / 4 + 1], dim=2).sum(1)


def constants(self, x):
    return (3 - 2 * self.linear(x + 1)).relu() * torch.arange(8.0) / 2 - self.head.weight.sum()


def dense(self, x):
    h = self.linear(x).relu()
    for _ in range(3):
        h = torch.relu(self.head(h) + 0.5 * h)
    return h.mean(dim=1, keepdim=True)


def dead_code(self, x):
    z = self.linear(x)
    z.relu().sum()
    return self.head(z)


def same_value_twice(self, x):
    h = self.linear(x).relu()
    return h + h + self.head(h) + self.head(h)


FUNCTIONS = {
    skip_of_value: 8,
    skip_of_pre_activation: 8,
    skip_through_a_view: 8,
    late_view: 16,
    skip_of_input: 16,
    relu_twice: 24,
    two_kinks_of_one_value: 24,
    kink_after_kink: 32,
    kink_of_input: 20,
    kink_at_the_end: 16,
    two_linears: 8,
    concatenation: 8,
    split_and_stack: 8,
    constants: 8,
    dense: 32,
    same_value_twice: 8,
    relu_on_a_slice: 12,
}


@pytest.mark.part(2)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_graphs(function):
    torch.manual_seed(3)
    dtype = DTYPES[list(FUNCTIONS).index(function) % 4]
    check(pair(function), 6, dtype=dtype, lines=FUNCTIONS[function])


def test_a_part_that_is_constant():
    torch.manual_seed(3)
    check(pair(lambda self, x: torch.cat([self.linear(x).relu(), torch.ones_like(x[:, :2])], dim=1)), 6, lines=8)


def test_what_the_output_does_not_need_is_left_out():
    torch.manual_seed(3)
    stages = captured(pair(dead_code), 6)
    assert stages.lines == 0
    x = np.random.default_rng(0).standard_normal((4, 6))
    assert evaluated(stages, x).shape == (4, 8)


def test_models_without_kinks():
    torch.manual_seed(4)
    check(nn.Linear(3, 2), 3, lines=0)
    check(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 3, lines=0)
    check(nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), 2, 3, lines=0)
    check(nn.Identity(), 3, lines=0)


def test_tied_weights():
    torch.manual_seed(5)
    stages = check(tied(), 6, lines=12)
    assert np.array_equal(stages.stages[0].blocks[INPUT], stages.stages[1].blocks[0])


def test_an_identity_matrix_is_no_stage():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(4))
        model[2].bias.zero_()
    check(model, 4, lines=8)


def test_batch_norm_dropout_and_shapes():
    torch.manual_seed(6)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 8, bias=False),
        nn.BatchNorm1d(8, affine=False),
        nn.Hardtanh(),
        nn.Unflatten(1, (4, 2)),
        nn.BatchNorm1d(4),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    for dtype in (torch.float64, torch.float32):
        check(warmed_up(model.to(torch.float32), 2, 3).eval(), 2, 3, dtype=dtype, lines=8 + 16 + 8)


def test_convolutions():
    torch.manual_seed(7)
    nets = [
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)),
        nn.Sequential(
            nn.Conv2d(2, 4, 2, stride=2, groups=2),
            nn.BatchNorm2d(4),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
            nn.PReLU(3),
            nn.Linear(3, 2),
        ),
        nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", bias=False), nn.Hardsigmoid()),
        nn.Sequential(nn.ConvTranspose2d(2, 2, 2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 3)),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.PReLU(4), nn.PixelShuffle(2), nn.ZeroPad2d(1), nn.Flatten()),
    ]
    for model in nets:
        check(warmed_up(model, 2, 4, 4).eval(), 2, 4, 4)
    check(nn.Sequential(nn.Conv1d(2, 3, 2, dilation=2), nn.LeakyReLU(0.2), nn.AvgPool1d(2), nn.Flatten()), 2, 6)


def test_maxima():
    torch.manual_seed(9)
    pool = nn.Sequential(nn.Conv2d(2, 3, 2), nn.MaxPool2d(2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    stages = check(pool, 2, 4, 4, lines=4 * 12 + 12)
    assert [each.rows for each in stages.stages] == [27, 48, 12, 2]
    shared = Do(lambda self, x: F.max_pool1d(self.a(x)[:, None], 2)[:, 0] - self.a(x)[:, ::2], a=nn.Linear(4, 6))
    check(shared, 4, lines=6)
    check(nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Unflatten(1, (2, 3)), nn.MaxPool1d(2, 1)), 2, 4, lines=8)
    check(nn.Sequential(nn.MaxPool1d(2), nn.MaxPool1d(3, 1), nn.ReLU()), 2, 8, lines=16 + 12 + 4)
    twice = Do(lambda self, x: torch.minimum(self.a(x), x).amax(dim=1, keepdim=True) + x, a=nn.Linear(4, 4))
    stages = check(twice, 4, lines=8 + 4)
    assert [each.layer for each in stages.stages] == [-1, 0, 1, -1, -1]
    residual = Do(lambda self, x: self.a(x).relu().reshape(-1, 2, 3).max(dim=2).values + x[:, :2], a=nn.Linear(4, 6))
    check(residual, 4, lines=12)


class Constants(nn.Module):
    """Makes tensors on its way, of the default dtype."""

    def forward(self, x):
        made = torch.full((3, 2), 0.5) + torch.ones(3, 2) * torch.arange(2.0) + torch.linspace(0, 1, 2)
        return (x @ made + torch.zeros(2)).relu()


def test_tensors_that_a_model_makes():
    stages = captured(Constants(), 3)
    x = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -4.0], [-1.0, 0.25, 8.0]])
    assert stages.lines == 2 and np.array_equal(evaluated(stages, x.double().numpy()), Constants()(x).numpy())
    counts = plr.count_regions(Constants(), torch.zeros(2, 3), 0.1, n_directions=2, dtype=torch.float64)
    assert counts.total.tolist() == [2, 2]


def test_stages_keep_the_weights_they_were_made_of():
    """In float64 the model's own memory would do, until the next optimiser step."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    stages = captured(model, 3, dtype=torch.float64)
    before = copy.deepcopy(stages.stages)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for stage, same in zip(stages.stages, before, strict=True):
        assert np.array_equal(stage.bias, same.bias)
        assert all(np.array_equal(stage.blocks[source], same.blocks[source]) for source in same.blocks)


def test_weights_are_read_when_stages_are_made():
    torch.manual_seed(8)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    network = plr.capture(model, torch.zeros(2, 3))
    before = stages_of(network)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert np.array_equal(stages_of(network).stages[0].matrices[INPUT], 2 * before.stages[0].matrices[INPUT])


# ---- refusals


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        z = self.linear(x)
        return z.relu(), z


def product(self, x):
    z = self.linear(x)
    return z * z.relu()


def quotient(self, x):
    return 1 / (1 + self.linear(x).relu())


REFUSED = {
    "gelu": (lambda: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 1)), "gelu"),
    "sigmoid": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), "sigmoid"),
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "tanh"),
    "silu": (lambda: nn.Sequential(nn.Linear(4, 4), nn.SiLU()), "silu"),
    "elu": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ELU()), "elu"),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), "softmax"),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "layer_norm"),
    "two outputs": (Two, "one output tensor, this one has 2"),
    "product": (lambda: Do(product, linear=nn.Linear(4, 4)), "multiplies two values"),
    "quotient": (lambda: Do(quotient, linear=nn.Linear(4, 4)), "reciprocal|div"),
    "hardshrink": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Hardshrink()), "continuous.* hardshrink .* jumps"),
    "threshold": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Threshold(0.1, 5.0)), "continuous.* threshold .* jumps"),
    "clamp between values": (
        lambda: Do(lambda self, x: torch.clamp(x, self.a(x), self.b(x)), a=nn.Linear(4, 4), b=nn.Linear(4, 4)),
        "clamp .*where it bends depends on the input",
    ),
    "slopes that depend": (
        lambda: Do(lambda self, x: torch.prelu(x, self.a(x)[0]), a=nn.Linear(4, 4)),
        "mixes the points of a batch",
    ),
    "places of maxima": (
        lambda: Do(lambda self, x: self.a(x).max(1)[1].to(x.dtype)[:, None] + x, a=nn.Linear(4, 4)),
        "places of the largest, which jump",
    ),
}


@pytest.mark.part(2)
@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operator(name):
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=message):
        stages_of(plr.capture(make().eval(), torch.zeros(2, 4)))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_what_takes_nothing_or_makes_no_numbers_is_refused_by_name():
    """An assertion failed for layers without neurons, and NaN was no ratio of integers."""
    x = torch.ones(2, 4).double()
    empty = nn.Sequential(nn.Linear(4, 0), nn.ReLU(), nn.Linear(0, 3), nn.ReLU()).double()
    with pytest.raises(plr.UnsupportedModelError, match=r"need numbers to work on, and .* in module '2' takes none"):
        plr.count_regions(empty, x, 0.1, "axes")
    assert "takes none" in plr.explain(empty, x).coverage["partition"]
    slice_ = plr.Slice(x[0], [1.0, 0, 0, 0], [0.0, 1, 0, 0])
    for divisor in (0.0, float("nan")):
        model = nn.Sequential(nn.Linear(4, 3), Divided(divisor), nn.ReLU()).double()
        with pytest.raises(plr.PylinregionError, match=r"finite|infinite|not affine"):
            plr.partition(model, slice_)


class Divided(nn.Module):
    def __init__(self, divisor):
        super().__init__()
        self.divisor = divisor

    def forward(self, x):
        return x / self.divisor


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_segments_of_models_without_outputs():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 0)).double()
    ends = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    found = plr.trace(model, *ends)
    assert found.n_regions.tolist() == plr.trace(model, *ends, slopes=False).n_regions.tolist()
    assert found.slopes.shape == (len(found.t) + 3, 0)
