"""``trace`` of models: what the models themselves compute along a segment, and bad input."""

import os
import signal
import threading
import time
from fractions import Fraction as F
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import ACTIVATIONS
from cases.networks import random_network
from cases.partitions import model_of
from cases.traces import check_against_oracle, network_of, parts, plain_net, random_segments
from pylinregion.exact.maps import Maps, Reals
from pylinregion.exact.neurons import Neuron
from pylinregion.exact.segment_engine import Tracer
from pylinregion.lowering.lower import stages_of

TRIED = ("relu", "leaky_relu 0.01", "abs", "relu6", "hardsigmoid")


# ---- the public function


class Residual(nn.Module):
    """A convolution, batch norm, a skip and two outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(48, 2)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1), self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = self.norm(self.first(x)).relu()
        return self.head((h + nn.functional.hardtanh(self.second(h))).flatten(1))


@pytest.mark.parametrize(
    "model, shape", [(plain_net(), (3,)), (Residual().eval(), (2, 4, 4))], ids=["plain", "residual"]
)
def test_traces_say_what_the_model_computes(model, shape):
    torch.manual_seed(0)
    start, end = torch.randn(2, 6, *shape) * 2
    line = plr.trace(model, start, end)
    assert len(line) == 6 and line.n_regions.sum() == len(line.maps) == line.region_offsets[-1] > 60
    double = __import__("copy").deepcopy(model).double()
    for b in range(6):
        t, flips = line.segment(b)
        assert len(flips) == len(t) == line.n_regions[b] - 1 and all(flips)
        stops = np.concatenate([[0.0], t, [1.0]])
        for r, (low, high) in enumerate(pairwise(stops)):
            at = torch.tensor([low, (low + high) / 2, high])
            points = start[b].double() + at.view(-1, *[1] * len(shape)) * (end[b].double() - start[b].double())
            region = line.region_offsets[b] + r
            with torch.no_grad():
                values = double(points).numpy()
            mine = np.outer(at, line.slopes[region]) + line.intercepts[region]
            assert np.abs(mine - values).max() < 1e-10
    assert line.layers == plr.capture(model, start).layer_names
    layers = {line.layers[number] for number in line.layer}
    assert layers == set(line.layers)
    first = Neuron(line.layers[line.layer[0]], int(line.unit[0]))
    assert line.neuron(int(line.neurons[0])) == first == line.segment(0)[1][0][0]
    assert "all proven" in repr(line) and "6 segments" in repr(line) and line.definition in repr(line)
    assert line.certificate.exact == line.certificate.ties == 0 < line.certificate.filter


@pytest.mark.parametrize("kind", ["zero_bias", "duplicated", "int8"])
def test_slopes_are_those_of_autograd(kind):
    weights, biases = random_network(kind, (4, 15, 15, 3), 5)
    model = model_of(weights, biases)
    start, end = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    line = plr.trace(model, start, end)
    for b in range(5):
        stops = np.concatenate([[0.0], line.segment(b)[0], [1.0]])
        for r, middle in enumerate((stops[:-1] + stops[1:]) / 2):
            t = torch.tensor(middle, requires_grad=True)
            jacobian = torch.autograd.functional.jacobian(lambda t, b=b: model(start[b] + t * (end[b] - start[b])), t)
            region = line.region_offsets[b] + r
            assert np.abs(jacobian.numpy() - line.slopes[region]).max() <= 1e-11 * max(1.0, np.abs(line.slopes).max())


@pytest.mark.parametrize("steep", [1e10, 1e14, 1e18])
def test_maps_after_a_steep_piece_are_those_of_their_own_region(steep):
    """hardtanh(k x - 0.3 k) + x / 64: the last region is x / 64 + 1, whatever k was before; found by a review."""
    net = nn.Sequential(nn.Linear(1, 2), nn.Hardtanh(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[steep], [2.0**-6]]))
        net[0].bias.copy_(torch.tensor([-0.3 * steep, 0.0]))
        net[2].weight.fill_(1.0)
        net[2].bias.zero_()
    line = plr.trace(net, torch.zeros(1, 1), torch.ones(1, 1))
    assert line.n_regions.tolist() == [3]
    assert line.slopes[[0, 2], 0].tolist() == [2.0**-6, 2.0**-6]
    assert line.intercepts[[0, 2], 0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("options", [{}, {"radii": np.array([0.5, 2.0, 1.0])}])
def test_maps_where_rows_are_scaled_are_those_of_the_patterns(options):
    """Rows times 1e12 and 1e-12; layers in which a steep piece of an earlier one is off, and maxima of them."""
    rng = np.random.default_rng(4)
    scales = [torch.from_numpy(10.0 ** rng.choice([-12, 0, 12], size=12)) for _ in range(2)]
    net = nn.Sequential(
        nn.Linear(4, 12), nn.Hardtanh(), nn.Linear(12, 12), nn.ReLU(), nn.Unflatten(1, (3, 4)), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(6, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer, scale in zip((net[0], net[2]), scales, strict=True):
            layer.weight.copy_(torch.from_numpy(rng.standard_normal(layer.weight.shape)) * scale[:, None])
            layer.bias.copy_(torch.from_numpy(rng.standard_normal(12)) * scale)
        net[7].weight.copy_(torch.from_numpy(rng.standard_normal((3, 6))))
    stages = stages_of(plr.capture(net, torch.zeros(2, 4, dtype=torch.float64)))
    first, second = rng.standard_normal((2, 3, 4))
    found = Tracer(stages).trace(first, second, starts=True, **options)
    along, start = second - first, first
    if options:
        along, start = 2 * options["radii"][:, None] * second, first - options["radii"][:, None] * second
    for b in range(3):
        on = np.unpackbits(found.starts[b], count=stages.lines, bitorder="little")
        for r, changed in enumerate([[], *parts(found, b)[1]]):
            on[changed] ^= 1
            inputs = torch.from_numpy(np.stack([along[b], start[b]], axis=1))
            ((_, wanted),) = Maps(stages, inputs, Reals()).chunks(np.packbits(on, bitorder="little")[None])
            got, size = found.maps[found.offsets[b] + b + r], np.abs(wanted[0].numpy()).max(axis=0)
            assert (np.abs(got - wanted[0].numpy()) <= 1e-9 * size).all(), (b, r)
    assert len(found.t) > 20
    without = Tracer(stages).trace(first, second, **options)
    assert np.array_equal(without.maps, found.maps) and without.starts is None


def test_maps_of_ordinary_networks_are_sums_along_the_segment(monkeypatch):
    """The way by patterns is for the others: it is slower."""
    stages = network_of("generic", "relu", 1, (20, 50, 50, 50, 5))
    starts, ends = random_segments("generic", 20, 20, 1)
    monkeypatch.setattr("pylinregion.exact.segment_engine.affine_maps", None)
    assert np.isfinite(Tracer(stages).trace(starts, ends).maps).all()


def test_patterns_on_both_sides_of_a_breakpoint_differ_by_what_is_told():
    model = plain_net(torch.float64)
    start, end = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    line = plr.trace(model, start, end)
    t, flips = line.segment(0)
    stops = np.concatenate([[0.0], t, [1.0]])
    middles = torch.from_numpy((stops[:-1] + stops[1:]) / 2)
    hidden = []
    value = start + middles[:, None] * (end - start)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                value = layer(value)
            else:
                hidden.append(value > 0)
                value = layer(value)
    pattern = torch.cat(hidden, dim=1)
    names = [Neuron(layer, unit) for layer in line.layers for unit in range(20)]
    assert len(flips) > 5
    for k, told in enumerate(flips):
        assert {names[i] for i in (pattern[k] != pattern[k + 1]).nonzero().flatten().tolist()} == set(told)


def test_segments_may_be_one_many_or_none_and_of_any_kind():
    model = plain_net()
    start, end = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    many = plr.trace(model, start, end)
    one = plr.trace(model, start[2], end[2])
    assert len(one) == 1 and np.array_equal(one.t, many.segment(2)[0])
    assert repr(one).startswith(f"Trace of 1 segment: {one.n_regions[0]} region")
    none = plr.trace(model, start[:0], end[:0])
    assert len(none) == 0 and none.n_regions.shape == (0,) and none.maps.shape == (0, 4, 2)
    same = plr.trace(model, start, start)
    assert same.n_regions.tolist() == [1] * 5 and not len(same.t)
    assert np.array_equal(same.slopes, np.zeros((5, 4)))
    network = plr.capture(model, start)
    exported = torch.export.export(model, (start,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for other in (network, exported):
        assert np.array_equal(plr.trace(other, start, end).t, many.t)
        assert np.array_equal(plr.trace(other, start[2], end[2]).t, one.t)
    for convert in (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.double):
        assert np.array_equal(plr.trace(model, convert(start), convert(end), threads=2).neurons, many.neurons)
    quick = plr.trace(model, start, end, slopes=False)
    assert quick.maps is None and np.array_equal(quick.neurons, many.neurons)
    for name in ("slopes", "intercepts"):
        with pytest.raises(ValueError, match=r"this trace has no slopes: call trace\(..., slopes=True\)"):
            getattr(quick, name)
    half = plr.trace(plain_net(torch.bfloat16), start, end)
    assert half.n_regions.sum() > 5


def test_ends_of_float64_whose_difference_is_not_exact():
    stages = network_of("generic", "relu", 3, (2, 8, 8, 1))
    start, end = np.array([[1e-9, 1.0]]), np.array([[1e9 + 1e-7, -1e-20]])
    assert F(end[0, 0] - start[0, 0]) != F(end[0, 0]) - F(start[0, 0])
    check_against_oracle(stages, start, end)


def test_progress_goes_to_stderr(capfd):
    plr.trace(plain_net(), torch.zeros(7, 3), torch.ones(7, 3), progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "7/7" in err


def test_weights_of_now_are_traced():
    model = plain_net()
    start, end = torch.zeros(3), torch.ones(3)
    before = plr.trace(model, start, end)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(-1.5)
    after = plr.trace(model, start, end)
    stages = stages_of(plr.capture(model, start[None]))
    wanted = Tracer(stages).trace(start[None].double().numpy(), end[None].double().numpy())
    assert np.array_equal(after.t, wanted.t) and not np.array_equal(after.t, before.t)


def test_bad_arguments_are_named():
    model, x = plain_net(), torch.zeros(2, 3)

    def bad(message, start=x, end=x, *, error=ValueError, net=model, **arguments):
        with pytest.raises(error, match=message):
            plr.trace(net, start, end, **arguments)

    nan = x.clone()
    nan[1, 2] = torch.nan
    bad(r"start must be finite, got nan at \[1, 2\]", nan)
    bad(r"end must be finite, got nan at \[1, 2\]", end=nan)
    bad(r"end must have the shape of start, \[2, 3\], got \[3\]", end=x[0])
    bad(r"start must be \[B, \*input_shape\] or \[\*input_shape\], got \[2, 4\]", torch.zeros(2, 4), torch.zeros(2, 4))
    network = plr.capture(model, x)
    bad(
        r"start must be \[B, 3\] or \[3\], as the network was captured, got \[4\]",
        x[0, :1].expand(4),
        x[0, :1].expand(4),
        net=network,
    )
    bad("start must be an array of real numbers", "here", error=TypeError)
    bad("end must be a tensor of real numbers, got torch.complex64", end=x + 0j, error=TypeError)
    number = torch.tensor(1.0)
    bad(r"start must be \[B, \*input_shape\] or \[\*input_shape\], got a single number", number, number)
    bad("slopes must be True or False, got int", slopes=1, error=TypeError)
    bad("threads must be at least 1, got 0", threads=0)
    bad(rf"threads must be at most 65536, got {2**70}", threads=2**70)
    bad("threads must be an integer, got float", threads=1.0, error=TypeError)
    bad("model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got str", net="net", error=TypeError)
    smooth = nn.Sequential(nn.Linear(3, 3), nn.GELU())
    bad("exact methods .* gelu in module '1'", net=smooth, error=plr.UnsupportedModelError)
    broken = plain_net()
    plr.trace(broken, x, x)
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.inf
    bad("the model's 0.weight has NaN or infinite entries", net=broken, error=plr.UnsupportedModelError)
    line = plr.trace(model, x, x + 1)
    for b in (-1, 2):
        with pytest.raises(ValueError, match=f"b must be from 0 to 1, got {b}"):
            line.segment(b)
    with pytest.raises(ValueError, match="neuron must be from 0 to 39, got 40"):
        line.neuron(40)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_is_heard_within_a_second(threads):
    stages = network_of("zero_bias", "relu", 0, (30, 60, 60, 60, 1))
    starts, ends = random_segments("through the origin", 30, 5000, 0)
    tracer = Tracer(stages)
    pressed, begun = [], threading.Event()

    def press():
        begun.wait()
        pressed.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            tracer.trace(starts, ends, force_exact=True, threads=threads, report=lambda done: begun.set())
    finally:
        signal.signal(signal.SIGINT, before)
    assert (time.process_time() - pressed[0]) / threads < 1  # of the processor's time


def test_arrays_are_read_only():
    line = plr.trace(plain_net(), torch.zeros(2, 3), torch.ones(2, 3))
    for array in (line.offsets, line.t, line.neuron_offsets, line.neurons, line.maps, line.slopes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_activations_are_all_known():
    assert set(TRIED) <= set(ACTIVATIONS)
