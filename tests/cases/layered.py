"""Modules as layers of the exact reference, and the package's answers beside its own. Nothing is tested here."""

import copy
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

import pylinregion as plr
from cases.engine import Difference, same
from cases.partitions import check, check_decision, linear_regions, matched
from pylinregion.reference import layers, rational
from pylinregion.reference.rational import Pieces


class Add(nn.Module):
    def forward(self, *values):
        return sum(values[1:], start=values[0])


class Concat(nn.Module):
    def forward(self, *values):
        return torch.cat(values, 1)


class Larger(nn.Module):
    """Entry by entry."""

    def forward(self, x, y):
        return torch.maximum(x, y)


class Call(nn.Module):
    """A function that is affine, or only moves numbers, as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *values):
        return self.function(*values)


class Abs(nn.Module):
    def forward(self, x):
        return x.abs()


class Graph(nn.Module):
    """Parts that each take what some of those before made; -1 is the input, and the last part makes the output."""

    def __init__(self, parts, sources):
        super().__init__()
        self.parts, self.sources = nn.ModuleList(parts), sources

    def forward(self, x):
        values = [x]
        for part, sources in zip(self.parts, self.sources, strict=True):
            values.append(part(*(values[source + 1] for source in sources)))
        return values[-1]


# ---- modules as layers


def array(tensor):
    return None if tensor is None else tensor.detach().double().resolve_neg().numpy()


def convolution(net, part, *sources):
    options = {name: getattr(part, name) for name in ("stride", "padding", "dilation", "groups")}
    if part.transposed:
        made = layers.TransposedConvolution(
            array(part.weight), array(part.bias), output_padding=part.output_padding, **options
        )
    else:
        made = layers.Convolution(array(part.weight), array(part.bias), **options)
    return net.add(made, *sources)


def batch_norm(net, part, *sources):
    """Its scale and shift in float64."""
    numbers = [array(each) for each in (part.running_mean, part.running_var, part.weight, part.bias)]
    mean, variance, weight, bias = (torch.from_numpy(each) for each in numbers)
    scale = numbers[2] * (1 / np.sqrt(numbers[1] + part.eps))
    at_zero = torch.zeros(1, len(mean), dtype=torch.float64)
    shift = F.batch_norm(at_zero, mean, variance, weight, bias, False, 0.0, part.eps)[0]
    return net.add(layers.Scale(scale, shift.numpy()), *sources)


def max_pool(net, part, source):
    size = (part.kernel_size, part.stride, part.padding, part.dilation, part.ceil_mode)
    windows, shape = layers.windows(net.shapes[source + 1], *size)
    return net.add(layers.Largest([window.places for window in windows], shape), source)


def average_pool(net, part, source):
    def first(value):
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value

    size = (first(part.kernel_size), first(part.stride), first(part.padding))
    windows, shape = layers.windows(net.shapes[source + 1], *size, ceil_mode=part.ceil_mode)
    counted = [window.size if part.count_include_pad else len(window.places) for window in windows]
    divisors = [getattr(part, "divisor_override", None) or count for count in counted]
    return sums(net, windows, divisors, shape, source)


def sums(net, windows, divisors, shape, source):
    places = [window.places for window in windows]
    return net.add(layers.WindowSums(places, [1 / each for each in divisors], shape), source)


def adaptive_average(net, part, source):
    windows, shape = layers.adaptive_windows(net.shapes[source + 1], part.output_size)
    sizes = [window.size for window in windows]
    return sums(net, windows, sizes, shape, source)


def adaptive_max(net, part, source):
    windows, shape = layers.adaptive_windows(net.shapes[source + 1], part.output_size)
    return net.add(layers.Largest([window.places for window in windows], shape), source)


def moved(function):
    """Where each number comes from, as it moves the numbers from 1 up; 0 is padding."""

    def add(net, part, source):
        shape = net.shapes[source + 1]
        numbers = torch.arange(1, 1 + int(np.prod(shape))).double().reshape(1, *shape)
        return net.add(layers.Places(array(function(part, numbers))[0].astype(np.int64) - 1), source)

    return add


def affine(net, function, *sources):
    """Any affine function of tensors with a batch of one: what torch makes of unit vectors, less what it makes of 0."""
    shapes = [net.shapes[source + 1] for source in sources]
    at_zero = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    zero = function(*at_zero).clone()
    offset = array(zero).reshape(-1)
    columns = []
    for at, shape in enumerate(shapes):
        for unit in torch.eye(int(np.prod(shape)), dtype=torch.float64):
            image = function(*at_zero[:at], unit.reshape(1, *shape), *at_zero[at + 1 :])
            columns.append(array(image).reshape(-1) - offset)
    shape = tuple(zero.shape[1:]) if zero.shape[0] == 1 else tuple(zero.shape)
    matrix = np.stack(columns, axis=1)
    if len(sources) == 1 and not offset.any() and np.isin(matrix, [0, 1]).all() and matrix.sum(axis=1).max() <= 1:
        return net.add(layers.Places(np.where(matrix.any(axis=1), matrix.argmax(axis=1), -1).reshape(shape)), *sources)
    return net.add(layers.Matrix(matrix, offset, shape), *sources)


def larger(net, part, *sources):
    """``maximum(a, b)`` is b where they are equal."""
    shape = net.shapes[sources[0] + 1]
    size = int(np.prod(shape))
    return net.add(layers.Largest([[size + k, k] for k in range(size)], shape), *sources)


def kink(pieces):
    return lambda net, part, *sources: net.add(layers.Kink(pieces(part)), *sources)


def dense(net, part, *sources):
    return net.add(layers.Dense(array(part.weight), array(part.bias)), *sources)


TRANSLATED = {
    nn.Linear: dense,
    nn.Conv1d: convolution, nn.Conv2d: convolution, nn.Conv3d: convolution,
    nn.ConvTranspose1d: convolution, nn.ConvTranspose2d: convolution, nn.ConvTranspose3d: convolution,
    nn.BatchNorm1d: batch_norm, nn.BatchNorm2d: batch_norm, nn.BatchNorm3d: batch_norm,
    nn.MaxPool1d: max_pool, nn.MaxPool2d: max_pool, nn.MaxPool3d: max_pool,
    nn.AvgPool1d: average_pool, nn.AvgPool2d: average_pool, nn.AvgPool3d: average_pool,
    nn.AdaptiveAvgPool1d: adaptive_average, nn.AdaptiveAvgPool2d: adaptive_average,
    nn.AdaptiveAvgPool3d: adaptive_average,
    nn.AdaptiveMaxPool1d: adaptive_max, nn.AdaptiveMaxPool2d: adaptive_max, nn.AdaptiveMaxPool3d: adaptive_max,
    nn.ReLU: kink(lambda part: Pieces.relu()),
    nn.LeakyReLU: kink(lambda part: Pieces.leaky_relu(part.negative_slope)),
    nn.PReLU: kink(lambda part: [Pieces.leaky_relu(a) for a in array(part.weight)]),
    nn.ReLU6: kink(lambda part: Pieces.clamp(0, 6)),
    nn.Hardtanh: kink(lambda part: Pieces.clamp(part.min_val, part.max_val)),
    nn.Hardsigmoid: kink(lambda part: Pieces.hardsigmoid()),
    nn.Softshrink: kink(lambda part: Pieces((-part.lambd, part.lambd), (1, 0, 1), (part.lambd, 0, -part.lambd))),
    Abs: kink(lambda part: Pieces.abs()),
    Add: lambda net, part, *sources: net.add(layers.Total(), *sources),
    Larger: larger,
    Concat: lambda net, part, *sources: net.add(layers.Join(), *sources),
    Call: lambda net, part, *sources: affine(net, part.function, *sources),
    "relu": kink(lambda part: Pieces.relu()),
    torch.relu: kink(lambda part: Pieces.relu()),
    F.relu: kink(lambda part: Pieces.relu()),
}  # fmt: skip
MOVING = (
    nn.Flatten, nn.Unflatten, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.ZeroPad1d,
    nn.ZeroPad2d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.Identity,
    nn.Dropout,
)  # fmt: skip
TRANSLATED |= {kind: moved(lambda part, numbers: part(numbers)) for kind in MOVING}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module, name):
        return type(module) in TRANSLATED


def layers_of(model, shape):
    """A module as layers: what torch's symbolic tracer finds, each part by its definition."""
    model = copy.deepcopy(model).double().eval()
    net = layers.Layers(shape)
    numbers = {}
    for node in _Tracer().trace(model).nodes:
        sources = [numbers[each] for each in node.all_input_nodes]
        if node.op == "placeholder":
            numbers[node] = -1
        elif node.op == "call_module":
            part = model.get_submodule(node.target)
            numbers[node] = TRANSLATED[type(part)](net, part, *(numbers[each] for each in node.args))
        elif node.target in TRANSLATED:
            numbers[node] = TRANSLATED[node.target](net, None, *sources)
        elif node.op in ("call_function", "call_method"):  # of tensors, torch's own affine functions
            numbers[node] = affine(net, _with_values(node), *sources)
        elif node.op == "output":
            same("the output", sources, [len(net.steps) - 1])
        else:
            raise ValueError(f"a traced module has no node of kind {node.op!r}")
    return net


def _with_values(node):
    """A node's call, as a function of its operands."""

    def call(*values):
        given = dict(zip(node.all_input_nodes, values, strict=True))
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda each: given[each])
        function = getattr(torch.Tensor, node.target) if node.op == "call_method" else node.target
        return function(*args, **kwargs)

    return call


# ---- the comparison


def exactly(net, slice_):
    """The regions of a slice; patterns and counts of the layers with kinks, then of the output."""
    u, v, origin = slice_.plane.T
    found = rational.partition(net.steps, origin, u, v, slice_.polygon)
    kinked = [number for number, step in enumerate(net.steps) if step.units]
    cells = [
        rational.Cell(cell.polygon, (*(cell.pattern[k] for k in kinked), ()), cell.outputs) for cell in found.cells
    ]
    counts = [found.counts_per_stage[k] for k in kinked]
    return rational.ExactPartition(cells, [*counts, len(cells)])


def changes(oracle):
    """How many neurons of each layer are not on one piece all over the slice."""
    patterns = [cell.pattern[:-1] for cell in oracle.cells]
    return [sum(len(set(pieces)) > 1 for pieces in zip(*layer, strict=True)) for layer in zip(*patterns, strict=True)]


def check_layers(model, slice_, net=None, coordinates=True):
    """All that the package says of a module's regions on a slice is what the reference says. Gives the partition."""
    net = layers_of(model, slice_.input_shape) if net is None else net
    oracle = exactly(net, slice_)
    part = plr.partition(model, slice_)
    check(part, oracle, coordinates)
    groups = {}
    for cell, label in zip(matched(part, oracle), part.linear_regions().tolist(), strict=True):
        groups.setdefault(label, set()).add(cell)
    same("linear regions", {frozenset(group) for group in groups.values()}, linear_regions(oracle))
    if coordinates:
        check_decision(part, oracle)
    check_counts(model, slice_, oracle)
    return part, oracle


def check_counts(model, slice_, oracle):
    """Counts alone: of the slice, and of several of which it is one."""
    counts = oracle.counts_per_stage[:-1]
    same("regions without cells", list(plr.partition(model, slice_, cells=False).regions_per_layer), counts)
    other = plr.Slice(slice_.origin, slice_.v, slice_.u, slice_.polygon[::-1, ::-1])  # mirrored: the same regions
    for found in plr.partitions(model, [slice_, other], cells=False):
        same("regions of several slices", list(found.regions_per_layer), counts)


def check_around(model, slice_, radius, oracle):
    """The exact count around a point, whose slice this is."""
    frame, x = torch.stack([slice_.u, slice_.v]), slice_.origin[None].to(next(model.parameters()).dtype)
    found = plr.count_regions(model, x, radius, "slice", frame=frame)
    same("regions around a point", found.regions.tolist(), [len(oracle.cells)])
    same("changes around a point", found.changes.tolist(), [changes(oracle)])


def check_trace(model, net, start, end):
    """The breakpoints of a segment, the neurons that change there, and the outputs between."""
    line = rational.trace(net.steps, start.reshape(-1), end.reshape(-1))
    found = plr.trace(model, start[None], end[None])
    kinked = [number for number, step in enumerate(net.steps) if step.units]
    first = dict(zip(kinked, np.cumsum([0, *(len(net.steps[k].units) for k in kinked)]).tolist(), strict=False))
    expected = [sorted(first[step] + unit for step, unit in each) for each in line.changes]
    offsets = found.neuron_offsets.tolist()
    got = [sorted(found.neurons[low:high].tolist()) for low, high in pairwise(offsets)]
    same("neurons at breakpoints", got, expected)
    wanted = np.array([float(t) for t in line.breakpoints])
    if np.abs(found.t - wanted).max(initial=0) > 1e-9:
        raise Difference("places of breakpoints", found.t, wanted)
    return line
