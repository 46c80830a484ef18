"""Maxima of several values (max-pools, maximum, amax ...) in exact partitions, against the rational oracle."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pylinregion as plr
from cases.engine import (
    Case,
    areas_of,
    bits_of,
    check_case,
    check_mesh,
    check_segment,
    patterns_of,
    segment_case,
    stage,
)
from cases.maxima import any_case, maxima, maxima_case, wide_maxima_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS, random_network, random_slice
from cases.partitions import check, linear_regions
from cases.parts import SCALE, examples, some
from cases.small_models import Do
from pylinregion.exact.candidates import first_equals, rectified_by
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import INPUT, Stages
from pylinregion.native.simd import simd_sets, use_simd
from pylinregion.reference import rational

PLANE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
BOX = np.array([[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]])


def planes(rows, sizes, first=None, after=None):
    """Maxima of the functions (a, b, c) on the plane, or with more numbers (one for each row of ``first``, which are
    rectified); then perhaps rows (a, b, c, weights of the maxima) that are rectified."""
    rows = np.array(rows, dtype=np.float64)
    found, blocks = [], {INPUT: rows[:, :2]}
    if first is not None:
        first = np.array(first, dtype=np.float64)
        found.append(stage({INPUT: first[:, :2]}, first[:, 2], "relu"))
        blocks[0] = rows[:, 3:]
    found += maxima(len(found), blocks, rows[:, 2], sizes)
    width = len(sizes)
    if after is not None:
        after = np.array(after, dtype=np.float64)
        found.append(stage({len(found) - 1: after[:, 3:], INPUT: after[:, :2]}, after[:, 2], "relu"))
        width = len(after)
    found.append(stage({len(found) - 1: np.ones((1, width))}, [0], "identity"))
    return Case(Stages(found), PLANE, BOX)


# ---- random networks against the oracle


@pytest.mark.part(4)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_every_kind_of_network_on_every_slice(kind, slice_kind):
    first = 10 * (NETWORK_KINDS.index(kind) + len(NETWORK_KINDS) * SLICE_KINDS.index(slice_kind))
    for seed in some(range(first, first + 3 * SCALE), 3, f"{kind} {slice_kind}"):
        case = maxima_case(kind, slice_kind, seed)
        check_case(case)
        segment = segment_case(case, seed)
        for how in ({}, {"force_exact": True}, {"fold_ahead": 0}, {"fold_ahead": 1}, {"fold_ahead": 9}, {"threads": 2}):
            check_segment(segment, **how)


@pytest.mark.part(2)
@pytest.mark.parametrize("kind", ["generic", "small_int", "duplicated", "spike"])
def test_folded_networks(kind):
    folds = 0
    for seed in range(5 * SCALE):
        results = check_case(wide_maxima_case(kind, seed))
        folds += results[True, "plain"].folds
        assert results[True, "one fold"].folds == 0
    assert folds > 2


@settings(max_examples=examples(60, 3), deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(*[st.integers(-2, 2)] * 4), min_size=2, max_size=9),
    st.lists(st.integers(2, 4), min_size=4, max_size=4),
    st.tuples(*[st.integers(-1, 1)] * 3),
)
def test_small_integers(rows, sizes, line):
    """Many ties: of several candidates at a point, along a line, on a whole cell."""
    begins = [begin for begin in np.cumsum([0, *sizes]) if begin < len(rows)]
    sizes = np.diff([*begins, len(rows)]).tolist()
    check_case(planes(rows, sizes, first=[line], after=[(1, -1, 0, *[1] * len(sizes)), (0, 0, -1, *[1] * len(sizes))]))


@settings(max_examples=examples(40, 3), deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**31))
def test_cases_of_any_kind(seed):
    case, about = any_case(seed)
    check_case(case, runs=("plain", "two threads"), coordinates=about["kind"] != "nearly tied")


@pytest.mark.parametrize("seed", [479, 965, 1133, 1877, 2159, *some(range(5, 60 * SCALE, 6), 3, "ties of maxima")])
def test_ties_that_are_broken_by_the_last_bits(seed):
    """The first ones come out wrong if the bounds leave out the errors of the rows."""
    check_case(any_case(seed)[0], coordinates=False)


@pytest.mark.parametrize("simd", simd_sets())
def test_instruction_sets(simd):
    with use_simd(simd):
        for seed, kind in enumerate(["generic", "small_int", "duplicated", "int8"]):
            check_case(wide_maxima_case(kind, seed), runs=("plain", "exact"))
            check_case(maxima_case(kind, "grid", seed), runs=("plain", "exact"))


# ---- by hand


AROUND = [(np.cos(a), np.sin(a), 0.0) for a in np.pi * np.arange(9) / 4.5]
TANGENTS = [(2 * x, 2 * y, -x * x - y * y) for x in (-1, 0, 1) for y in (-1, 0, 1)]  # of a paraboloid: nine squares
NAMED = {
    "one candidate": ([(1, 2, 3)], [1], [1]),
    "one cut": ([(1, 0, 0), (0, 1, 0)], [2], [2]),
    "equal": ([(1, 1, 1)] * 4, [4], [1]),
    "constants": ([(0, 0, 1), (0, 0, 2), (0, 0, 2)], [3], [1]),
    "one that wins nowhere": ([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [3], [2]),
    "one that wins nowhere, first": ([(1, 0, 0), (0, 0, 0), (2, 0, 0)], [3], [2]),
    "one that is the largest at a point": ([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 0)], [5], [4]),
    "four meet in a point": ([(1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, -1, 0)], [4], [4]),
    "opposite ones first": ([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)], [4], [4]),
    "nine meet in a point": (AROUND, [9], [9]),
    "nine squares": (TANGENTS, [9], [9]),
    "nine squares twice": (TANGENTS * 2, [9, 9], [9]),
    "nine squares in fours": (TANGENTS + TANGENTS[:3], [4, 4, 4], [13]),
    "ties below the maximum": ([(1, 0, 0), (0, 1, 0), (0, 0, 9)], [3], [1]),
    "on corners and edges": ([(1, 0, 2), (0, 1, 2), (0, 0, 4), (0, 0, 0), (1, 1, 4)], [2, 3], [4]),
}


@pytest.mark.parametrize("name", NAMED)
def test_cases_by_name(name):
    rows, sizes, counts = NAMED[name]
    results = check_case(planes(rows, sizes))
    assert results[True, "plain"].regions == counts
    check_case(planes(rows, sizes, after=[(0, 0, -1, *[1] * len(sizes)), (1, -1, 0, *[0] * len(sizes))]))


def test_winners_that_are_equal_on_an_edge_of_two_cells():
    """On s = 0 candidates 0 and 3 are equal: on one side the one wins, on the other the other. The two points where
    another takes over are both of ties from candidate 0 to 3."""
    first = [(1, 0, 0), (-1, 0, 0)]
    rows = [(0, 0, 0, 1, 0), (0, 1, -1, 0, 0), (0, -1, -1, 0, 0), (0, 0, 0, 0, 1)]
    results = check_case(planes(rows, [4], first=first))
    assert results[True, "plain"].regions == [2, 6]


def test_a_share_that_touches_an_edge_in_a_point():
    """For s > 0 candidate 2 wins between the others and comes to a point on s = 0, where these meet for s < 0."""
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        rows = np.array([(0, 1, 0, 0), (0, -1, 0, 0), (0, 0, 0, 1)])[order]
        results = check_case(planes(rows, [3], first=[(1, 0, 0)]))
        assert results[True, "plain"].regions == [2, 5]


def test_several_points_of_a_long_edge():
    """Cells on both sides of s = 0 see the same tangents of a parabola on it, and touch others in points of it."""
    tangents = [(0, 2 * y, -y * y, 0, 0) for y in np.arange(-2, 3) / 2]
    touching = [(0, 2 * y, -y * y - 0.25, 1, -2) for y in (-1.0, 0.5)] + [(0, 0.5, -0.0625, 2, 1)]
    check_case(planes(tangents + touching, [8], first=[(1, 0, 0), (-1, 0, 0)]))
    check_case(planes((touching + tangents)[::-1], [4, 4], first=[(1, 0, 0), (-1, 0, 0)]))


def test_rectified_candidates_that_are_off_take_no_integers():
    """Pools over ReLUs: of those that are off the first wins, and loses against any that is on."""
    weights, biases = random_network("generic", (2, 16, 1), 0)
    chosen = [np.arange(k, k + 4) for k in range(0, 16, 4)]
    places = np.concatenate(chosen)
    found = [stage({INPUT: weights[0]}, biases[0], "relu"), *maxima(1, {0: np.eye(16)[places]}, np.zeros(16), [4] * 4)]
    case = Case(Stages([*found, stage({2: np.ones((1, 4))}, [0], "identity")]), PLANE, BOX)
    results = check_case(case, runs=("plain", "one fold"))
    for result in results.values():  # where two of the lines cross; ten times as many without what is known of zeros
        assert result.exact == result.zeros < 80
    bits = bits_of(case.stages, results[True, "plain"].cells.patterns)
    dead = (bits[:, places].reshape(-1, 4, 4) == 0).all(axis=2)
    assert dead.any() and (patterns_winners(case, results)[dead] == 0).all()


def patterns_winners(case, results):
    return np.array([pattern[1] for pattern in patterns_of(case.stages, results[True, "plain"].cells.patterns)])


def test_what_is_known_of_candidates():
    first = stage({INPUT: np.eye(4)}, np.zeros(4), ["relu", "relu6", "leaky_relu 0.25", "hardtanh"])
    rows = [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [-1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    stages = Stages([first, *maxima(1, {0: rows}, [0, 0, 0, 0, 0, 0, 1], [7])])
    assert rectified_by(stages).tolist() == [-1] * 6 + [0, 1, -1, -1, -1, -1, -1]
    shared = Stages([first, *maxima(1, {0: [rows[0], rows[1], rows[0], rows[1]]}, [0, 0, 0, 1], [2, 2])])
    assert first_equals(shared).tolist() == [*range(6), 6, 7, 6, 9]


# ---- what must not change the answer


@pytest.mark.parametrize("kind", ["generic", "small_int", "zero_bias", "duplicated"])
def test_the_order_of_candidates_changes_the_numbers_of_winners_alone(kind):
    for seed in range(4 * SCALE):
        weights, biases = random_network(kind, (2, 4, 9, 1), seed)
        sizes = [2, 3, 4]
        order = np.concatenate(
            [b + np.random.default_rng(seed).permutation(n) for b, n in zip((0, 2, 5), sizes, strict=True)]
        )
        answers = []
        for rows in (np.arange(9), order):
            found = [
                stage({INPUT: weights[0]}, biases[0], "relu"),
                *maxima(1, {0: weights[1][rows]}, biases[1][rows], sizes),
                stage({2: weights[2][:, :3]}, biases[2], "relu"),
                stage({3: [[1]]}, [0], "identity"),
            ]
            case = Case(Stages(found), PLANE, BOX)
            answers.append(Engine(case.stages, case.plane, case.corners).enumerate(cells=True))
            check_mesh(case, answers[-1].cells)
        one, other = answers
        assert one.regions == other.regions
        assert np.allclose(np.sort(areas_of(one.cells)), np.sort(areas_of(other.cells)), rtol=1e-9, atol=1e-12)
        for name in ("vertices", "edges"):
            assert len(getattr(one.cells, name)) == len(getattr(other.cells, name))
        if kind == "generic":  # no ties: winners go with their numbers
            moved = bits_of(case.stages, one.cells.patterns)
            moved[:, 4:13] = moved[:, 4 + order]
            assert {row.tobytes() for row in moved} == {
                row.tobytes() for row in bits_of(case.stages, other.cells.patterns)
            }


@pytest.mark.turns(3)
def test_all_ways_to_run_agree_on_a_larger_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 4, 3, padding=1),
        nn.MaxPool2d(2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip
    slice_ = plr.Slice.through(*(0.4 * torch.randn(3, 1, 8, 8)), margin=0.1)
    stages = stages_of(plr.capture(model, slice_.origin[None].float()))
    engine = Engine(stages, slice_.plane, slice_.polygon)
    plain = engine.enumerate(cells=True)
    assert plain.regions[-1] > 300
    check_mesh(Case(stages, slice_.plane, slice_.polygon), plain.cells)
    for how in (
        {"threads": 5},
        {"fold_ahead": 0},
        {"fold_ahead": 1},
        {"fold_ahead": 9},
        {"force_exact": True},
    ):
        other = engine.enumerate(cells=True, **how)
        assert other.regions == plain.regions == engine.enumerate(cells=False, **how).regions
        for name in ("patterns", "edges", "edge_cells", "edge_rows"):
            assert np.array_equal(getattr(plain.cells, name), getattr(other.cells, name)), (how, name)
        assert np.abs(plain.cells.vertices - other.cells.vertices).max() < 1e-9
    part = plr.partition(model, slice_)
    report = part.verify(model)
    assert report["points with their cell's pattern"] == report["points"]
    assert list(part.regions_per_layer) == plain.regions


# ---- models


def linear(columns, rows, kind="small_int", seed=0):
    (weight, *_), (bias, *_) = random_network(kind, (columns, rows, 1), seed)
    module = nn.Linear(columns, rows, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight)), module.bias.copy_(torch.from_numpy(bias))
    return module


def affine(module, blocks=None):
    """A linear layer as a stage of the oracle without its units."""
    return {(-1 if blocks is None else blocks): module.weight.tolist()}, module.bias.tolist()


def identity(width):
    return [(row, rational.Pieces.identity()) for row in range(width)]


def windows_of(shape, kernel, stride, padding, dilation, out):
    """The windows of a max-pool by the definition: the padding is in none."""
    found = []
    for place in np.ndindex(*out):
        offsets = [
            [s for s in (p * stride - padding + k * dilation for k in range(kernel)) if 0 <= s < size]
            for p, size in zip(place, shape, strict=True)
        ]
        found.append(
            [
                int(np.ravel_multi_index(at, shape))
                for at in np.stack(np.meshgrid(*offsets, indexing="ij"), -1).reshape(-1, len(shape))
            ]
        )
    return found


POOLS = [  # shape, kernel, stride, padding, dilation, ceil_mode
    ((6,), 2, 2, 0, 1, False),
    ((6,), 3, 1, 1, 1, False),
    ((7,), 2, 2, 0, 1, True),
    ((3, 3), 2, 1, 0, 1, False),
    ((3, 3), 3, 2, 1, 1, False),
    ((3, 4), 2, 2, 1, 1, True),
    ((3, 3), 2, 1, 0, 2, False),
    ((2, 2, 2), 2, 2, 0, 1, False),
    ((2, 2, 3), 2, 1, 0, 1, False),
]


@pytest.mark.turns(3)
@pytest.mark.part(3)
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["generic", "small_int"])
def test_pools(pool, kind, rectified):
    shape, kernel, stride, padding, dilation, ceil_mode = pool
    width, d = int(np.prod(shape)), len(shape)
    module = getattr(nn, f"MaxPool{d}d")(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    out = tuple(module(torch.zeros(1, 1, *shape)).shape[2:])
    windows = windows_of(shape, kernel, stride, padding, dilation, out)
    hidden, head = linear(2, width, kind), linear(len(windows), 2, kind)
    parts = [hidden, *([nn.ReLU()] if rectified else []), nn.Unflatten(1, (1, *shape)), module, nn.Flatten(), head]
    groups = [rational.Max(tuple(window)) for window in windows]
    stages = [rational.Stage(*affine(hidden), groups)]
    if rectified:
        relu = [(row, rational.Pieces.relu()) for row in range(width)]
        stages = [
            rational.Stage(*affine(hidden), relu),
            rational.Stage({0: np.eye(width).tolist()}, [0] * width, groups),
        ]
    stages.append(rational.Stage(*affine(head, len(stages) - 1), identity(2)))
    where = random_slice("grid" if kind == "small_int" else "generic", 2, 1)
    check(plr.partition(nn.Sequential(*parts), plr.Slice(*where)), rational.partition(stages, *where))


def in_channels(channels, pool):
    return nn.Sequential(nn.Unflatten(1, (channels, 12 // channels)), pool, nn.Flatten())


def pools_by_module():
    """What competes in 12 values, as (module after a linear layer of 12, groups, signs)."""
    thirds = np.arange(12).reshape(3, 4)
    return {
        "adaptive": (in_channels(1, nn.AdaptiveMaxPool1d(5)),
                     [range(12 * k // 5, -(-12 * (k + 1) // 5)) for k in range(5)], 1),
        "two channels": (in_channels(2, nn.MaxPool1d(3)), thirds.reshape(4, 3), 1),
        "indices": (Do(lambda self, x: F.max_pool1d(x[:, None], 3, return_indices=True)[0][:, 0]),
                    thirds.reshape(4, 3), 1),
        "amax": (Do(lambda self, x: x.reshape(-1, 3, 4).amax(dim=1)), thirds.T, 1),
        "amax of all": (Do(lambda self, x: x.reshape(-1, 3, 2, 2).amax(dim=(-1, 1))),
                        [np.arange(12).reshape(3, 2, 2)[:, k].reshape(-1) for k in range(2)], 1),
        "amin": (Do(lambda self, x: x.reshape(-1, 3, 4).amin(dim=2, keepdim=True).flatten(1)), thirds, -1),
        "max": (Do(lambda self, x: x.reshape(-1, 3, 4).max(dim=2).values), thirds, 1),
        "min": (Do(lambda self, x: x.reshape(-1, 3, 4).min(1)[0]), thirds.T, -1),
        "maximum": (Do(lambda self, x: torch.maximum(x[:, :6], x[:, 6:])), [(k + 6, k) for k in range(6)], 1),
        "minimum": (Do(lambda self, x: torch.minimum(x[:, :6], x[:, 6:])), [(k, k + 6) for k in range(6)], -1),
        "max of two": (Do(lambda self, x: torch.max(x[:, :6], x[:, 6:])), [(k + 6, k) for k in range(6)], 1),
        "broadcast": (Do(lambda self, x: torch.fmin(x[:, :1], x[:, 9:])), [(0, k) for k in (9, 10, 11)], -1),
    }  # fmt: skip


@pytest.mark.turns(3)
@pytest.mark.part(2)
@pytest.mark.parametrize("kind", ["generic", "small_int"])
@pytest.mark.parametrize("name", pools_by_module())
def test_modules_of_every_kind(name, kind):
    module, groups, sign = pools_by_module()[name]
    hidden, head = linear(3, 12, kind), linear(len(groups), 2, kind)
    (weight,), bias = affine(hidden)[0].values(), affine(hidden)[1]
    signed = [[sign * x for x in row] for row in weight], [sign * x for x in bias]
    signed_head = [[sign * x for x in row] for row in head.weight.tolist()]
    stages = [
        rational.Stage({-1: signed[0]}, signed[1], [rational.Max(tuple(int(i) for i in group)) for group in groups]),
        rational.Stage({0: signed_head}, head.bias.tolist(), identity(2)),
    ]
    where = random_slice("grid" if kind == "small_int" else "generic", 3, 2)
    part = plr.partition(nn.Sequential(hidden, module, head), plr.Slice(*where))
    oracle = rational.partition(stages, *where)
    check(part, oracle)
    assert len(set(part.linear_regions().tolist())) == len(linear_regions(oracle))


def test_a_maximum_with_constants_and_with_the_input():
    hidden = linear(2, 3, "generic", 1)
    bound = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64)
    rows, bias = hidden.weight.tolist(), hidden.bias.tolist()
    nothing, doubled = [[0.0, 0.0]] * 3, ((2 * hidden.weight).tolist(), (2 * hidden.bias).tolist())
    where = random_slice("generic", 2, 0)
    for function, weight, offset in (
        (lambda self, x: torch.maximum(self.hidden(x), self.bound), nothing + rows, bound.tolist() + bias),
        (lambda self, x: torch.maximum(self.bound, self.hidden(x)), rows + nothing, bias + bound.tolist()),
        (lambda self, x: torch.max(self.hidden(x), torch.zeros_like(x[:, :1])), nothing + rows, [0.0] * 3 + bias),
        (lambda self, x: torch.maximum(self.hidden(x), x[:, 1:]), [[0.0, 1.0]] * 3 + rows, [0.0] * 3 + bias),
        (lambda self, x: torch.maximum(self.hidden(x), 2 * self.hidden(x)), doubled[0] + rows, doubled[1] + bias),
    ):  # fmt: skip
        part = plr.partition(Do(function, hidden=hidden, bound=bound), plr.Slice(*where))
        groups = [rational.Max((k, k + 3)) for k in range(3)]
        stages = [
            rational.Stage({-1: weight}, offset, groups),
            rational.Stage({0: np.eye(3).tolist()}, [0] * 3, identity(3)),
        ]
        check(part, rational.partition(stages, *where))


def test_first_layers_and_pools_that_are_the_output():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.MaxPool1d(2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1)).double()
    slice_ = plr.Slice.through(*torch.randn(3, 1, 6).double())
    whole = plr.partition(model, slice_)
    for count, name in enumerate(whole.layers, start=1):
        part = plr.partition(model, slice_, layers=whole.layers[:count])
        part.verify()
        outputs = part.affine_maps()[part.locate([0.3, 0.3])] @ [0.3, 0.3, 1]
        expected = model[: int(name) + 1 if count < 2 else 5](slice_.points(torch.tensor([[0.3, 0.3]]).double()))
        assert np.allclose(outputs, expected.detach().flatten().numpy())
        assert part.regions_per_layer == whole.regions_per_layer[:count]
    last = plr.partition(model[:2], slice_)
    last.verify(model[:2])
    assert last.n_regions == whole.regions_per_layer[0]


def test_what_is_made_of_partitions_with_maxima(tmp_path):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Unflatten(1, (2, 12)), nn.MaxPool1d(3, 2), nn.Flatten())
    model = nn.Sequential(*model, nn.Linear(10, 3)).double()
    part = plr.partition(model, plr.Slice.through(*torch.randn(3, 3).double(), margin=0.5))
    report = part.verify(model)
    assert report["points"] == report["points with their cell's pattern"] > 500
    part.save(tmp_path / "part.npz")
    loaded = plr.load(tmp_path / "part.npz")
    loaded.verify(model)
    for region in range(0, part.n_regions, 7):
        for (name, pieces), (other, again) in zip(
            part.pattern(region).items(), loaded.pattern(region).items(), strict=True
        ):
            assert name == other and np.array_equal(pieces, again)
    assert loaded.neurons.tolist() == part.neurons.tolist()
    at = part.centroids()
    z = model[:3](part.slice.points(at))
    winners = F.max_pool1d(z, 3, 2, return_indices=True)[1].flatten(1).numpy() % 12
    pieces = np.array([part.pattern(r)["3"] for r in range(part.n_regions)])
    assert np.array_equal(pieces, winners - 2 * np.tile(np.arange(5), 2)) and pieces.max() == 2
    step = 1e-6
    for r in np.flatnonzero(part.inradii() >= 1e-5)[::11].tolist():
        x = part.slice.points(at[r])[None]
        moved = torch.stack(
            [(model(x + step * e) - model(x - step * e))[0] / (2 * step) for e in torch.eye(3).double()], 1
        )
        assert (part.jacobian(r) - moved.detach()).abs().max() < 1e-6
    assert (part.inradii() >= 1e-5).mean() > 0.9
    classes = part.class_of(np.arange(part.n_regions))
    assert set(classes.tolist()) <= {0, 1, 2} and len(part.decision_boundary().segments)
    assert part.neuron(int(part.neurons[-1])).layer == "3"


def test_a_window_with_many_candidates():
    """More than a byte tells apart."""
    model = nn.Sequential(linear(2, 300, "generic"), nn.Unflatten(1, (1, 300)), nn.AdaptiveMaxPool1d(1), nn.Flatten())
    part = plr.partition(model, plr.Slice.box(-3, 3))
    part.verify(model)
    winners = model[0](part.slice.points(part.centroids())).argmax(1)
    assert [part.pattern(r)["2"].tolist() for r in range(part.n_regions)] == [[int(w)] for w in winners]
    assert winners.max() > 255


def test_counts_of_vertices_and_partitions_agree_about_winners():
    """The regions at points are told apart by the same pieces as points in cells are."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 9), nn.Unflatten(1, (1, 3, 3)), nn.MaxPool2d(2, 1, ceil_mode=True), nn.Flatten())
    model = model.double()
    part = plr.partition(model, plr.Slice.box(-1, 1))
    x, radius = torch.zeros(1, 2).double(), 0.7
    frame = plr.random_frame((2,), 2).double()
    counts = plr.count_regions(model, x, radius, frame=frame)
    cells = part.locate_inputs(torch.cat([radius * frame, -radius * frame]))
    assert int(counts.regions[0]) == len({row.tobytes() for row in part.patterns[cells]})
    pieces = np.array([part.pattern(int(cell))["2"] for cell in cells])
    assert int(counts.changes[0, 0]) == int((pieces != pieces[0]).any(axis=0).sum())


def test_all_single_windows_change_nothing():
    model = nn.Sequential(linear(2, 4), nn.ReLU(), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(1), nn.Flatten(), linear(4, 1))
    part = plr.partition(model, plr.Slice.box(-2, 2))
    part.verify(model)
    assert part.regions_per_layer[0] == part.regions_per_layer[1]
    assert all(low <= high for low, high in pairwise(part.regions_per_layer))


def test_indices_of_winners_are_refused():
    model = Do(
        lambda self, x: x[:, None] * F.max_pool1d(x[:, None], 2, 1, return_indices=True)[1][:, :, :1].to(x.dtype)
    )
    with pytest.raises(plr.UnsupportedModelError, match="exact methods"):
        plr.partition(model, plr.Slice.around(torch.zeros(6), 1.0))
