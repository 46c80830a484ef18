"""The layers of the exact reference against torch on integers, where float64 is exact, and against plain evaluation."""

from fractions import Fraction as F

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from gmpy2 import mpq

from cases.layered import array, layers_of
from cases.parts import some
from cases.random_layers import about, random_model, random_place, small_slice
from cases.rational import area_of, check_partition
from pylinregion.reference import rational
from pylinregion.reference.layers import (
    Convolution,
    Dense,
    Join,
    Kink,
    Largest,
    Layers,
    Matrix,
    Places,
    Scale,
    Total,
    TransposedConvolution,
    WindowSums,
    adaptive_windows,
    windows,
)
from pylinregion.reference.rational import Pieces

CONVOLUTIONS = [  # inputs, outputs, space, kernel, and the options
    (2, 3, (7,), (3,), {}),
    (4, 2, (9,), (2,), {"stride": 3, "padding": 2, "dilation": 4, "groups": 2}),
    (3, 3, (6, 5), (3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 3}),
    (2, 4, (4, 4), (1, 1), {"stride": 2}),
    (2, 4, (5, 4), (3, 3), {"padding": 1, "groups": 2}),
    (2, 2, (3, 4, 2), (2, 3, 1), {"stride": (1, 2, 1), "padding": (0, 1, 2)}),
]
TRANSPOSED = [
    (2, 3, (4,), (3,), {"stride": 2, "padding": 1, "output_padding": 1}),
    (4, 2, (3,), (2,), {"stride": 3, "dilation": 2, "groups": 2, "output_padding": 2}),
    (2, 3, (3, 2), (2, 3), {"stride": (1, 2), "padding": (1, 0), "dilation": (2, 1), "output_padding": (0, 1)}),
    (3, 3, (2, 2), (3, 3), {"groups": 3}),
    (1, 2, (2, 1, 3), (2, 2, 1), {"stride": 2}),
]
POOLS = [  # space, kernel, stride, padding, dilation, ceil_mode
    ((7,), 2, None, 0, 1, True),
    ((8,), 3, 2, 1, 2, False),
    ((5, 6), 3, 2, 1, 1, True),
    ((5, 6), (2, 3), (1, 2), (1, 0), (2, 1), True),
    ((4, 4), 2, 3, 1, 1, True),  # the last window would be all padding
    ((3, 4, 4), 2, 2, 1, 1, False),
]


def integers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).integers(-9, 10, shape)


def check_linear(layer, function, *shapes):
    """Columns, of integers: what torch makes of each, and what it adds to the last."""
    values = [integers(3, *shape, seed=k) for k, shape in enumerate(shapes)]
    found = layer(*(np.array([mpq(int(x)) for x in each.flat], dtype=object).reshape(each.shape) for each in values))
    wanted = function(*(torch.tensor(each).double() for each in values))
    at_zero = function(*(torch.zeros(1, *shape).double() for shape in shapes))
    wanted[:2] -= at_zero
    assert found.shape == tuple(wanted.shape) and found.dtype == object
    assert np.array_equal(found, array(wanted))


@pytest.mark.parametrize("inputs, outputs, space, kernel, options", CONVOLUTIONS, ids=str)
def test_convolutions(inputs, outputs, space, kernel, options):
    weight, bias = integers(outputs, inputs // options.get("groups", 1), *kernel), integers(outputs)
    function = getattr(nnf, f"conv{len(space)}d")
    given = torch.tensor(weight).double(), torch.tensor(bias).double()
    check_linear(Convolution(weight, bias, **options), lambda x: function(x, *given, **options), (inputs, *space))
    check_linear(Convolution(weight, **options), lambda x: function(x, given[0], **options), (inputs, *space))


@pytest.mark.parametrize("inputs, outputs, space, kernel, options", TRANSPOSED, ids=str)
def test_transposed_convolutions(inputs, outputs, space, kernel, options):
    weight, bias = integers(inputs, outputs, *kernel), integers(outputs * options.get("groups", 1))
    function = getattr(nnf, f"conv_transpose{len(space)}d")
    given = torch.tensor(weight).double(), torch.tensor(bias).double()
    layer = TransposedConvolution(weight, bias, **options)
    check_linear(layer, lambda x: function(x, *given, **options), (inputs, *space))


def test_other_affine_layers():
    weight, bias, factor = integers(4, 3), integers(4), integers(2)
    w, b, f = (torch.tensor(each).double() for each in (weight, bias, factor))
    check_linear(Dense(weight, bias), lambda x: nnf.linear(x, w, b), (2, 3))
    check_linear(Scale(factor, factor), lambda x: x * f[:, None, None] + f[:, None, None], (2, 3, 2))
    check_linear(Scale(-1), lambda x: -x, (2, 3))
    check_linear(Total(), lambda x, y, z: x + y + z, (2, 3), (2, 3), (2, 3))
    check_linear(Join(), lambda x, y: torch.cat([x, y], 1), (2, 3), (1, 3))
    check_linear(Join(1), lambda x, y: torch.cat([x, y], 2), (2, 3), (2, 2))
    moved = np.arange(6).reshape(2, 3)[::-1, [2, 0, 0]]
    check_linear(WindowSums([[0, 1], [2], [0, 2]], [1, 3, -2], (3, 1)), lambda x: sums_of(x.flatten(1)), (3,))
    check_linear(Places(moved), lambda x: x.flip(1)[:, :, [2, 0, 0]], (2, 3))
    check_linear(Places(np.array([-1, 5])), lambda x: nnf.pad(x.flatten(1)[:, 5:], (1, 0)), (2, 3))
    check_linear(
        Matrix(weight, bias, (2, 2)), lambda x, y: nnf.linear(torch.cat([x, y], 1), w, b).view(-1, 2, 2), (1,), (2,)
    )


def sums_of(x):
    return torch.stack([x[:, 0] + x[:, 1], 3 * x[:, 2], -2 * (x[:, 0] + x[:, 2])], 1)[:, :, None]


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_windows_of_pools(pool):
    """Their largest numbers and their sums are torch's, and so are the sizes of windows with the padding."""
    space, kernel, stride, padding, dilation, ceil_mode = pool
    x = torch.tensor(integers(2, *space)).double()
    found, shape = windows(x.shape, kernel, stride, padding, dilation, ceil_mode)
    of = f"{len(space)}d"
    wanted = getattr(nnf, f"max_pool{of}")(x[None], kernel, stride, padding, dilation, ceil_mode)[0]
    assert shape == tuple(wanted.shape)
    assert [x.flatten()[window.places].max().item() for window in found] == wanted.flatten().tolist()
    assert all(window.places == sorted(set(window.places)) and window.places for window in found)
    for counted in (False, True) if dilation == 1 else ():
        sizes = torch.tensor([window.size if counted else len(window.places) for window in found]).reshape(shape)
        means = getattr(nnf, f"avg_pool{of}")(x[None], kernel, stride, padding, ceil_mode, counted)[0]
        sums = [x.flatten()[window.places].sum().item() for window in found]
        assert sums == torch.round(means * sizes).flatten().tolist()


@pytest.mark.parametrize("space, out", [((5,), 3), ((4, 7), (3, 5)), ((2, 5), 1), ((3, 2, 4), (2, 2, 3))], ids=str)
def test_windows_of_adaptive_pools(space, out):
    x = torch.tensor(integers(2, *space)).double()
    found, shape = adaptive_windows(x.shape, out)
    wanted = getattr(nnf, f"adaptive_max_pool{len(space)}d")(x[None], out)[0]
    assert shape == tuple(wanted.shape)
    assert [x.flatten()[window.places].max().item() for window in found] == wanted.flatten().tolist()
    means = getattr(nnf, f"adaptive_avg_pool{len(space)}d")(x[None], out).flatten()
    sizes = torch.tensor([window.size for window in found])
    assert [x.flatten()[window.places].sum().item() for window in found] == torch.round(means * sizes).tolist()


def test_kinks_and_maxima():
    net = Layers((2, 2))
    bent = net.add(Kink([Pieces.relu(), Pieces.leaky_relu(F(1, 3))]))
    net.add(Largest([[0, 6], [3, 2, 5]], (2,)), bent, -1)
    part = rational.partition(
        net.steps, [0, 0, 0, F(-1, 2)], [1, 0, 1, 0], [0, 1, 0, 1], [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    )
    assert net.shapes == [(2, 2), (2, 2), (2,)]
    assert all(len(cell.pattern[0]) == 4 and len(cell.pattern[1]) == 2 for cell in part.cells)

    def at(point):
        s, t = point
        x = [s, t, s, t - F(1, 2)]
        y = [max(x[0], F(0)), max(x[1], F(0)), *(z if z > 0 else z / 3 for z in x[2:])]
        groups = [y[0], x[2]], [y[3], y[2], x[1]]
        return (tuple(int(z > 0) for z in x), tuple(group.index(max(group)) for group in groups)), list(
            map(max, groups)
        )

    check_partition(part, [(-1, -1), (1, -1), (1, 1), (-1, 1)], at)


@pytest.mark.parametrize("seed", some(range(315), 105, "what the module says"))
def test_cells_are_what_the_module_says(seed):
    """Distinct cells that tile the slice, and in each of them the module's own outputs, up to its roundings."""
    model, shape = random_model(seed)
    slice_, _ = small_slice(model, *random_place(seed, shape))
    u, v, origin = slice_.plane.T
    part = rational.partition(layers_of(model, shape).steps, origin, u, v, slice_.polygon)
    assert part.area() == area_of(slice_.polygon.tolist()) and part.euler() == 1
    assert len({cell.pattern for cell in part.cells}) == len(part.cells)
    middles = np.array([[float(sum(x) / len(x)) for x in zip(*cell.polygon, strict=True)] for cell in part.cells])
    inputs = slice_.points(middles)
    maps = np.array([[[float(x) for x in row] for row in cell.outputs] for cell in part.cells])
    found = (maps[:, :, :2] * middles[:, None]).sum(axis=2) + maps[:, :, 2]
    wanted = array(model.double()(inputs)).reshape(found.shape)
    assert np.abs(found - wanted).max() <= 1e-9 * (np.abs(maps).max() + np.abs(wanted).max()), about(seed)


def test_the_same_in_fractions_of_every_kind_and_in_float64(monkeypatch):
    """What numbers are made with decides: all of them give the same cells where nothing is nearly tied."""
    found = []
    for number in (mpq, F, float):
        monkeypatch.setattr(rational, "rational", number)
        model, shape = random_model(1)
        net = layers_of(model, shape)
        origin, u, v, polygon = random_place(1, shape)
        part = rational.partition(net.steps, *(each.reshape(-1) for each in (origin, u, v)), polygon / 4)
        kind = type(part.cells[0].outputs[0][0])
        assert kind is {mpq: type(mpq(1)), F: F, float: float}[number]
        found.append((part.counts_per_stage, {cell.pattern for cell in part.cells}))
    assert found[0] == found[1] == found[2] and len(found[0][1]) > 8


def test_traces_are_those_of_slices(monkeypatch):
    model, shape = random_model(3)
    net = layers_of(model, shape)
    x, y = np.random.default_rng(3).standard_normal((2, *shape))
    line = rational.trace(net.steps, x.reshape(-1), y.reshape(-1))
    assert line.n_regions > 3
    for t, pattern in zip([0, *line.breakpoints], line.patterns, strict=True):
        later = min([*(each for each in line.breakpoints if each > t), F(1)])
        middle = (t + later) / 2
        beside = [(middle - F(1, 10**9), -1), (middle + F(1, 10**9), -1), (middle, 1)]
        small = rational.partition(
            net.steps, x.reshape(-1), (y - x).reshape(-1), np.zeros(x.size), [(a, b) for a, b in beside]
        )
        assert {cell.pattern for cell in small.cells} == {pattern}


def test_an_input_of_another_size_is_refused():
    net = Layers((1, 3))
    net.add(Convolution([[[1]]]))
    with pytest.raises(ValueError, match=r"input must have shape \[1, 3\], got 4 numbers"):
        rational.partition(net.steps, [0] * 4, [1] * 4, [0, 1, 2, 3], [(0, 0), (1, 0), (0, 1)])
    with pytest.raises(ValueError, match="finite"):
        net.add(Convolution([[[float("nan")]]]))
