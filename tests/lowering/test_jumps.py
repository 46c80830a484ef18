"""Comparisons, and what networks make continuous of them, against rational arithmetic and against the model."""

import re
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pylinregion as plr
from cases.networks import random_network, random_slice
from cases.small_models import Do
from pylinregion.lowering.steps import Number, atom
from pylinregion.reference import rational

pytestmark = pytest.mark.usefixtures("doubles")

T = torch.tensor([0.25, 0.5, 0.125, 1.0, 0.75, 0.3], dtype=torch.float64)
LEAKY = rational.Pieces.leaky_relu(0.1)


def soft(t, *at_zero):
    """Soft thresholding, with a breakpoint at 0 or without."""
    t = Fraction(t)
    inner = [Fraction(0)] * (1 + len(at_zero))
    breaks = (-t, *map(Fraction, at_zero), t)
    return rational.Pieces(breaks, (Fraction(1), *inner, Fraction(1)), (t, *inner, -t))


def assigned(self, z):
    z = z.clone()
    z[z < 0] = 0.0
    return z


def signs_and_all(self, z):
    return torch.where(z > 0, z, 0.1 * z)


# name: the activation of 6 values, and its pieces for a threshold; several layers of comparisons may be of one value.
WRITTEN = {
    "where": (signs_and_all, lambda t: LEAKY),
    "where of the opposite": (lambda s, z: torch.where(z <= 0, 0.1 * z, z), lambda t: LEAKY),
    "where, reversed operands": (lambda s, z: torch.where(torch.zeros_like(z) < z, z, z / 10), lambda t: LEAKY),
    "product": (lambda s, z: z * (z > 0), lambda t: rational.Pieces.relu()),
    "product of numbers": (lambda s, z: z.ge(0).to(z.dtype) * z, lambda t: rational.Pieces.relu()),
    "one less a mask": (lambda s, z: z * (1 - (z < 0).double()), lambda t: rational.Pieces.relu()),
    "masked_fill": (lambda s, z: z.masked_fill(z < 0, 0), lambda t: rational.Pieces.relu()),
    "masked_fill not": (lambda s, z: z.masked_fill(torch.logical_not(z > 0), 0), lambda t: rational.Pieces.relu()),
    "assigned": (assigned, lambda t: rational.Pieces.relu()),
    "in another shape": (
        lambda s, z: (z.view(-1, 2, 3).mT * (z > 0).view(-1, 2, 3).mT).mT.flatten(1),
        lambda t: rational.Pieces.relu(),
    ),
    "a part of it": (
        lambda s, z: torch.cat([m * p for m, p in zip((z > 0).double().split(2, 1), z.split(2, 1), strict=True)], 1),
        lambda t: rational.Pieces.relu(),
    ),
    "sign": (lambda s, z: z * z.sign(), lambda t: rational.Pieces.abs()),
    "sign of masks": (lambda s, z: z * (2 * (z > 0).double() - 1), lambda t: rational.Pieces.abs()),
    "hinge elsewhere": (
        lambda s, z: torch.where(z > s.t, 3 * z - s.t, z + s.t),
        lambda t: rational.Pieces((Fraction(t),), (Fraction(1), Fraction(3)), (Fraction(t), -Fraction(t))),
    ),
    "two sides": (
        lambda s, z: torch.where((z > -0.5) & (z < 1), z, torch.where(z >= 1, 1.0, -0.5)),
        lambda t: rational.Pieces.clamp(-0.5, 1),
    ),
    "either side": (
        lambda s, z: torch.where((z < -1) | (z > 1), z.abs() - 1, torch.zeros_like(z)),
        lambda t: rational.Pieces((-1, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1)),
    ),
    "where a neuron is dead": (  # it is 0 on half of the slice, neither above nor below
        lambda s, z: (lambda h: z * ((h >= 0) & (h <= 0)))(z.relu()),
        lambda t: rational.Pieces((0,), (1, 0), (0, 0)),
    ),
    "clamp to tensors": (
        lambda s, z: torch.clamp(z, -s.t, s.t + 1),
        lambda t: rational.Pieces.clamp(-Fraction(t), Fraction(float(t + 1))),
    ),
    "soft, by sign and relu": (lambda s, z: z.sign() * F.relu(z.abs() - s.t), lambda t: soft(t, 0)),
    "soft, by sign and maximum": (
        lambda s, z: torch.sign(z) * torch.max(torch.abs(z) - s.t, torch.zeros_like(z)),
        lambda t: soft(t, 0),
    ),
    "soft, by sign and clamp": (lambda s, z: torch.sgn(z) * (z.abs() - s.t).clamp(min=0), lambda t: soft(t, 0)),
    "soft, by sign and where": (
        lambda s, z: torch.where(z.abs() > s.t, z - z.sign() * s.t, torch.zeros_like(z)),
        lambda t: soft(t, 0),
    ),
    "soft, by two where": (
        lambda s, z: torch.where(z > s.t, z - s.t, torch.where(z < -s.t, z + s.t, torch.zeros_like(z))),
        lambda t: soft(t),
    ),
    "soft, by a product": (lambda s, z: (z - s.t * z.sign()) * (z.abs() >= s.t), lambda t: soft(t, 0)),
    "soft, by clamp": (lambda s, z: z - torch.clamp(z, -s.t, s.t), lambda t: soft(t)),
    "soft, by relus": (lambda s, z: F.relu(z - s.t) - F.relu(-z - s.t), lambda t: soft(t)),
}  # fmt: skip


class Spy(TorchDispatchMode):
    """What each unit does, as torch's dispatcher sees it."""

    SIDES = ("relu", "abs", "sign", "sgn")

    def __init__(self):
        super().__init__()
        self.pieces = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1].rstrip("_")
        out = func(*args, **(kwargs or {}))
        if name in self.SIDES:
            self.pieces.append(args[0] > 0)
        elif name in ("gt", "ge", "lt", "le"):
            self.pieces.append(out)
        elif name in ("maximum", "minimum"):
            self.pieces.append(args[0] > args[1])
        elif name in ("clamp", "clamp_min", "clamp_max"):
            self.pieces += [args[0] > bound for bound in args[1:] if bound is not None]
        return out


def spied(model, x):
    with torch.no_grad(), Spy() as spy:
        model(x)
    return torch.cat([piece.reshape(len(x), -1).long() for piece in spy.pieces], 1)


def check_samples(part, model, count=2000, winners=True, one_by_one=False):
    """Points of one region have one pattern, and points of two have two; the maps are the model."""
    rng = np.random.default_rng(0)
    st = rng.dirichlet(np.ones(len(part.slice.polygon)), count) @ part.slice.polygon
    regions, x = part.locate(st), part.slice.points(st)
    points = x.split(1) if one_by_one else [x]
    patterns = [row.tobytes() for part_of_x in points for row in spied(model, part_of_x).numpy()]
    pairs = set(zip(regions.tolist(), patterns, strict=True))
    assert len(pairs) == len(set(regions.tolist())) > 1
    assert len(set(patterns)) == len(pairs) or not winners  # which the spy does not see
    maps = part.affine_maps()[regions]
    outputs = maps[:, :, 0] * st[:, :1] + maps[:, :, 1] * st[:, 1:] + maps[:, :, 2]
    with torch.no_grad():
        assert np.abs(outputs - model(x).flatten(1).numpy()).max() < 1e-9 * (1 + np.abs(outputs).max())


def check_oracle(part, oracle):
    """The same cells, and the same maps on them."""
    assert part.n_regions == len(oracle.cells)
    areas = [float(area) for area in oracle.areas()]
    assert np.allclose(np.sort(part.areas()), np.sort(areas), rtol=1e-9, atol=1e-12)
    centres = np.array([np.mean([[float(s), float(t)] for s, t in cell.polygon], axis=0) for cell in oracle.cells])
    regions = part.locate(centres)
    assert len(set(regions.tolist())) == part.n_regions
    outputs = np.array([[[float(x) for x in row] for row in cell.outputs] for cell in oracle.cells])
    assert np.allclose(part.affine_maps()[regions], outputs, rtol=1e-9, atol=1e-9)


@pytest.mark.turns(2)
@pytest.mark.part(3)
@pytest.mark.parametrize("name", WRITTEN)
def test_activations_written_by_hand(name):
    function, pieces = WRITTEN[name]
    weights, biases = random_network("generic", (2, 6, 6, 2), 3)
    model = nn.Sequential(nn.Linear(2, 6), Do(function, t=T), nn.Linear(6, 6), Do(function, t=T), nn.Linear(6, 2))
    with torch.no_grad():
        for part, weight, bias in zip(model[::2], weights, biases, strict=True):
            part.weight.copy_(torch.as_tensor(weight))
            part.bias.copy_(torch.as_tensor(bias))
    acts = [pieces(t) for t in T.tolist()]
    kinds = [acts, acts, [rational.Pieces.identity()] * 2]
    stages = [
        rational.Stage({k - 1: np.asarray(weight).tolist()}, np.asarray(bias).tolist(), list(enumerate(kind)))
        for k, (weight, bias, kind) in enumerate(zip(weights, biases, kinds, strict=True))
    ]
    where = random_slice("generic", 2, 1)
    part = plr.partition(model, plr.Slice(*where))
    check_oracle(part, rational.partition(stages, *where))
    check_samples(part, model)
    part.verify(model)
    assert all(low <= high for low, high in pairwise(part.regions_per_layer))
    assert (part.layer_of_edge[part.mesh.inner()] >= 0).all()


def test_maxima_by_comparisons():
    """Group sort of two, in four ways."""

    def cut(z):
        return z.chunk(2, 1)

    def by_where(self, z):
        a, b = cut(z)
        return torch.cat([torch.where(a > b, a, b), torch.where(a > b, b, a)], 1)

    def by_masks(self, z):
        a, b = cut(z)
        mask = (a > b).double()
        return torch.cat([mask * a + (1 - mask) * b, (1 - mask) * a + mask * b], 1)

    def by_maximum(self, z):
        a, b = cut(z)
        return torch.cat([torch.max(a, b), torch.min(a, b)], 1)

    def by_clamp(self, z):
        a, b = cut(z)
        return torch.cat([torch.clamp(a, min=b), torch.clamp(a, max=b)], 1)

    weights, biases = random_network("generic", (2, 6, 6, 2), 5)
    halves, signs = np.eye(6), np.diag([1.0] * 3 + [-1.0] * 3)
    rows = np.concatenate([halves, -halves])  # a, b, -a, -b
    units = [rational.Max((k, k + 3)) for k in range(3)] + [rational.Max((k + 6, k + 9)) for k in range(3)]
    stages = []
    for k, (weight, bias) in enumerate(zip(weights[:2], biases[:2], strict=True)):
        weight = np.asarray(weight) if not k else np.asarray(weight) @ signs
        stages.append(rational.Stage({k - 1: (rows @ weight).tolist()}, (rows @ np.asarray(bias)).tolist(), units))
    last = np.asarray(weights[2]) @ signs
    stages.append(
        rational.Stage({1: last.tolist()}, list(biases[2]), [(r, rational.Pieces.identity()) for r in range(2)])
    )
    where = random_slice("generic", 2, 1)
    oracle = rational.partition(stages, *where)
    for function in (by_where, by_masks, by_maximum, by_clamp):
        act = Do(function)
        model = nn.Sequential(nn.Linear(2, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 2))
        with torch.no_grad():
            for part, weight, bias in zip(model[::2], weights, biases, strict=True):
                part.weight.copy_(torch.as_tensor(weight))
                part.bias.copy_(torch.as_tensor(bias))
        part = plr.partition(model, plr.Slice(*where))
        check_oracle(part, oracle)
        check_samples(part, model)


class Lista(nn.Module):
    """Learned iterative shrinkage: Gregor and LeCun, 2010."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.w, self.s = nn.Linear(3, 5, bias=False), nn.Linear(5, 5, bias=False)
        self.theta = nn.Parameter(torch.rand(3, 5) * 0.5)

    def forward(self, y):
        z = torch.sign(self.w(y)) * F.relu(self.w(y).abs() - self.theta[0])
        for theta in self.theta[1:]:
            z = self.w(y) + self.s(z)
            z = torch.sign(z) * F.relu(torch.abs(z) - theta)
        return z


def test_lista(tmp_path):
    model = Lista()
    part = plr.partition(model, plr.Slice.through(*torch.randn(3, 3), margin=1.0))
    report = part.verify(model)
    assert report["points"] == report["points with their cell's pattern"]
    check_samples(part, model)
    part.save(tmp_path / "part.npz")
    loaded = plr.load(tmp_path / "part.npz")
    loaded.verify(model)
    assert loaded.neurons.tolist() == part.neurons.tolist() and loaded.neurons.min() >= 0
    assert all(np.array_equal(loaded.pattern(3)[name], pieces) for name, pieces in part.pattern(3).items())
    assert set(part.layers) == set(plr.capture(model, torch.zeros(2, 3)).layer_names) == set(part.pattern(0))
    first = plr.partition(model, part.slice, layers=part.layers[:3])
    first.verify()
    assert first.regions_per_layer == part.regions_per_layer[:3]


@pytest.mark.parametrize("method", ["axes", "slice"])
def test_lines_that_are_of_no_neuron_are_not_counted(method):
    """Along the arms each neuron that changes, as many samples of the arms say."""
    model, x = Lista(), torch.randn(5, 3)
    frame = torch.eye(3)[:2]
    counts = plr.count_regions(model, x, 0.7, frame=frame, method=method)
    if method == "axes":
        steps = torch.linspace(-0.7, 0.7, 4001)
        points = (x[:, None, None] + steps[:, None] * frame[:, None]).flatten(1, 2)
    else:
        a, b = torch.meshgrid(torch.linspace(-0.7, 0.7, 301), torch.linspace(-0.7, 0.7, 301), indexing="ij")
        inside = a.abs() + b.abs() <= 0.7
        points = x[:, None] + a[inside][:, None] * frame[0] + b[inside][:, None] * frame[1]
    network = plr.capture(model, x)
    widths = np.cumsum([0, *(layer.units for layer in network.layers)])
    for point in range(5):
        pieces = spied(model, points[point])
        changed = (pieces != pieces[0]).any(0)
        expected = [int(changed[low:high].sum()) for low, high in pairwise(widths)]
        assert counts.changes[point].tolist() == expected
        assert 0.8 * int(counts.regions[point]) < len(pieces.unique(dim=0)) <= int(counts.regions[point])


def test_a_trace_names_neurons_alone():
    model = Lista()
    start, end = torch.randn(2, 4, 3)
    trace = plr.trace(model, start, end)
    assert (trace.neurons >= 0).all() and (np.diff(trace.neuron_offsets) > 0).all()
    for b in range(4):
        t, changes = trace.segment(b)
        middles = torch.from_numpy(np.concatenate([[0], t]) + np.concatenate([t, [1]])) / 2
        pieces = spied(model, start[b] + middles[:, None] * (end[b] - start[b]))
        network = plr.capture(model, start)
        first = dict(zip(trace.layers, np.cumsum([0, *(layer.units for layer in network.layers)]), strict=False))
        for (before, after), neurons in zip(pairwise(pieces), changes, strict=True):
            told = sorted(int(first[neuron.layer]) + neuron.unit for neuron in neurons)
            assert told == torch.nonzero(before != after).flatten().tolist()


class Shuffle(nn.Module):
    """A unit of ShuffleNetV2: half of the channels go by, and channels are shuffled."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(nn.Conv2d(half, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, 1, 1, groups=half))

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        out = torch.cat((a, self.branch(b).relu()), dim=1)
        n, c, h, w = out.size()
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Messages(nn.Module):
    """A graph network on 4 nodes."""

    SOURCE, TARGET = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 1]])

    def __init__(self, reduce):
        super().__init__()
        self.first, self.second, self.reduce = nn.Linear(2, 3), nn.Linear(3, 2), reduce

    def collected(self, h):
        index = self.TARGET.view(1, -1, 1).expand(h.shape[0], -1, h.shape[2])
        return torch.zeros_like(h).scatter_reduce(1, index, h[:, self.SOURCE], self.reduce, include_self=False)

    def forward(self, x):
        return self.collected(self.second(F.relu(self.collected(self.first(x))))).relu().mean(1)


def ensemble(self, x):
    """Members with stacked weights, in a dimension before the points."""
    h = torch.baddbmm(self.b, x.unsqueeze(0).expand(3, -1, -1), self.w).relu()
    return F.prelu(h, torch.tensor(0.25)).flatten(0, 1).view(3, -1, 4).mean(0)


def mapped(self, x):
    return torch.vmap(lambda w, b: F.relu(x @ w + b))(self.w, self.b).sum(0)


def grouped(self, x):
    """Each point has filters of its own, as a convolution of one image with a group for each point."""
    filters = self.w[0].view(1, 2, 4).repeat(x.shape[0], 1, 1).view(-1, 1, 4)
    out = F.conv1d(x.view(1, -1, 1).expand(-1, -1, 4), filters, groups=2 * x.shape[0]).relu()
    return out.view(x.shape[0], 2)


def spectral(self, x):
    z = torch.fft.rfft(x @ self.w[0])
    return torch.view_as_real(z * torch.exp(1j * torch.arange(3.0))).flatten(1).relu()


def with_part(function):
    torch.manual_seed(2)
    return Do(function, w=nn.Parameter(torch.randn(3, 2, 4)), b=nn.Parameter(torch.randn(3, 1, 4)))


MODELS = {
    "shuffle": (lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), Shuffle(4), Shuffle(4)), (1, 3, 3)),
    "messages, sum": (lambda: Messages("sum"), (4, 2)),
    "messages, mean": (lambda: Messages("mean"), (4, 2)),
    "messages, amax": (lambda: Messages("amax"), (4, 2)),
    "ensemble": (lambda: with_part(ensemble), (2,)),
    "vmap": (lambda: with_part(mapped), (2,)),
    "grouped by points": (lambda: with_part(grouped), (2,)),
    "spectral": (lambda: with_part(spectral), (2,)),
}  # fmt: skip


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize("name", MODELS)
def test_models_of_several_outputs_and_batches_anywhere(name):
    make, shape = MODELS[name]
    torch.manual_seed(1)
    model = make()
    x = torch.randn(3, *shape)
    assert plr.explain(model, x).coverage["partition"] is None
    part = plr.partition(model, plr.Slice.through(*x, margin=0.5))
    part.verify(model)
    check_samples(part, model, 300, winners="amax" not in name, one_by_one=True)


JUMPS = {
    "step": (lambda s, z: (z > 0).double(), r"to in module '1' at .* jumps where gt in .*: its entry 0 by 1\b"),
    "other side": (lambda s, z: torch.where(z > 0, z, 1.0), r"where in .* jumps where gt in .*: its entry 0 by -1\b"),
    "another value": (lambda s, z: torch.where(z > 0, z.flip(1), 0.0), "by what is no multiple of what is compared"),
    "at the wrong place": (lambda s, z: z * (z > 0.5), r"mul in .*: its entry 0 by 0\.5"),
    "only the last entry": (lambda s, z: torch.where(z > s.t, z - s.u, 0.0), r"its entry 5 by -0\.25"),
    "sign": (lambda s, z: z.sign(), "sign in .* jumps"),
    "hard threshold": (lambda s, z: z * (z.abs() > 0.5), "jumps where gt"),
    "steps of two values": (lambda s, z: z * ((z > 0) & (z.flip(1) > 0)), "is not followed entry by entry"),
    "through a layer": (lambda s, z: (z > 0).double() @ torch.ones(6, 6), "is not followed entry by entry"),
    "relu of steps": (lambda s, z: ((z > 0).double() - 0.5).relu(), "jumps where gt"),
    "places": (lambda s, z: z * z.max(1, keepdim=True)[1].double(), "places of the largest, which jump"),
}  # fmt: skip


@pytest.mark.parametrize("name", JUMPS)
def test_what_jumps_is_refused_by_name(name):
    function, message = JUMPS[name]
    u = T.clone()
    u[5] += 0.25
    model = nn.Sequential(nn.Linear(2, 6), Do(function, t=T, u=u), nn.Linear(6, 2))
    reason = plr.explain(model, torch.zeros(1, 2)).coverage["partition"]
    assert reason is not None and re.search(r" at (test_jumps|small_models).py:\d+: ", reason)
    with pytest.raises(plr.UnsupportedModelError, match=message):
        plr.partition(model, plr.Slice.box(-1, 1))


def test_coefficients_that_one_float_does_not_hold():
    """1 - 0.1 is no float64 number, and neither is 0.1 * 0.3; the function is exact nevertheless."""
    model = nn.Sequential(nn.Linear(1, 1), Do(lambda s, z: torch.where(z > 0, z, 0.3 * (0.1 * z))))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.zero_()
    from cases.engine import oracle_stages
    from pylinregion.lowering.lower import stages_of

    stages = oracle_stages(stages_of(plr.capture(model, torch.zeros(2, 1))))
    assert rational.forward(stages, [1])[1] == [1]
    assert rational.forward(stages, [-1])[1] == [-Fraction(0.3) * Fraction(0.1)]


# The algebra itself.


def random_number(rng, depth):
    """A number, and the function that it is of two atoms."""
    if depth == 0:
        form = rng.integers(-2, 3, 3)
        number = (
            Number.of(float(form[2])).plus(atom(0, 0), Fraction(int(form[0]))).plus(atom(1, 0), Fraction(int(form[1])))
        )
        return number, lambda x, y: form[0] * x + form[1] * y + form[2]
    (one, f), (two, g) = random_number(rng, depth - 1), random_number(rng, depth - 1)
    how = rng.choice(["plus", "mask", "where", "relu", "sign", "power"])
    if one is None or two is None:
        return None, None
    if how == "plus":
        return one.plus(two, Fraction(-2)), lambda x, y: f(x, y) - 2 * g(x, y)
    closed = bool(rng.integers(2))

    def on(z):
        return z >= 0 if closed else z > 0

    if how == "relu":
        return one.bent([Fraction(0)], [(0, 0), (Fraction(1), 0)], lambda z: max(z, 0)), lambda x, y: max(f(x, y), 0)
    mask = one.above(closed)
    if mask is None:
        return None, None
    if how == "power":  # of masks
        return mask.times(mask), lambda x, y: int(on(f(x, y)))
    if how == "mask":
        return two.times(mask), lambda x, y: on(f(x, y)) * g(x, y)
    if how == "sign":
        both = one.above(False), one.above(True)
        return both[0].plus(both[1]).plus(Number.of(-1.0)), lambda x, y: (f(x, y) > 0) - (f(x, y) < 0)
    other = mask.times(one.plus(two, Fraction(-1)))
    return (None, None) if other is None else (two.plus(other), lambda x, y: f(x, y) if on(f(x, y)) else g(x, y))


def value_of(form, atoms):
    return form.constant + sum((c * atoms[node] for (node, _), c in form.terms), Fraction(0))


def along(direction, atoms):
    return sum((c * atoms[node] for (node, _), c in direction), Fraction(0))


def test_numbers_are_what_they_are_made_of_at_every_point():
    rng = np.random.default_rng(0)
    known = continuous = 0
    grid = [(Fraction(int(x), 2), Fraction(int(y), 2)) for x in range(-3, 4) for y in range(-2, 3)]
    for _ in range(400):
        number, function = random_number(rng, int(rng.integers(1, 4)))
        if number is None:
            continue
        known += 1
        steady = number.jump() is None
        continuous += steady and bool(number.parts)
        for atoms in grid:
            value = value_of(number.base, atoms)
            for side, form in number.parts.items():
                w = along(side.direction, atoms)
                value += (w >= side.threshold if side.closed else w > side.threshold) * value_of(form, atoms)
            assert value == function(*atoms)
            if steady:
                hinges = (m * max(along(w, atoms) - c, Fraction(0)) for w, c, m in number.hinges())
                assert value_of(number.base, atoms) + sum(hinges, Fraction(0)) == value
    assert known > 200 and continuous > 25
