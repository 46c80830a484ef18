"""Rows of convolutions, of layers on tokens and of terms that are multiples of others, against fractions."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.engine import Case, check_case
from pylinregion.lowering import multiples
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, Terms, identity_map
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import identity, same


@pytest.fixture(autouse=True, params=[1 << 20, 30])
def numbers_at_once(request, monkeypatch):
    monkeypatch.setattr(multiples, "_NUMBERS_AT_ONCE", request.param)


def relus(rows):
    return same(rows, [0.0], [0, 1], [0, 0])


def scaled_copies(rng, kernels, biases):
    """Some rows in place of others, times numbers that keep all bits, or nearly."""
    for row in range(1, len(kernels)):
        if rng.random() < 0.6:
            other, factor = rng.integers(row), rng.choice([1.0, -1.0, 0.5, 3.0, -7.0])
            kernels[row], biases[row] = kernels[other] * factor, biases[other] * factor
            if rng.random() < 0.3:
                biases[row] = np.nextafter(biases[row], 100)


def convolution(rng, space, kernel, groups=1, transposed=False, stride=1, padding=0):
    """Of four channels to six, some of which are multiples."""
    dims = len(space)
    outputs, inputs = (4, 6 // groups) if transposed else (6, 4 // groups)
    weight = rng.integers(-2, 3, (outputs, inputs, *kernel)).astype(np.float64)
    bias = rng.integers(-1, 2, 6).astype(np.float64)
    by_group = weight.reshape(groups, outputs // groups, inputs, *kernel)
    for group, biases in zip(by_group, bias.reshape(groups, -1), strict=True):
        scaled_copies(rng, group.swapaxes(0, 1) if transposed else group, biases)
    after = [
        (n - 1) * stride - 2 * padding + k if transposed else (n + 2 * padding - k) // stride + 1
        for n, k in zip(space, kernel, strict=True)
    ]
    shapes = [(6, *after), (4, *space)] if transposed else [(4, *space), (6, *after)]
    ones = (1,) * dims
    found = Convolution(weight, *shapes, (stride,) * dims, (padding,) * dims, ones, groups, transposed)
    return found, np.repeat(bias, math.prod(after))


def tokens(rng):
    weight, bias = rng.integers(-1, 2, (6, 3)).astype(np.float64), rng.integers(-1, 2, 6).astype(np.float64)
    scaled_copies(rng, weight, bias)
    return Dense(weight, 4), np.tile(bias, 4)


KINDS = {
    "1 dimension": lambda rng: convolution(rng, (5,), (3,), padding=1),
    "2 dimensions": lambda rng: convolution(rng, (3, 4), (2, 2), stride=2, padding=1),
    "3 dimensions": lambda rng: convolution(rng, (2, 2, 2), (1, 2, 2)),
    "groups": lambda rng: convolution(rng, (3, 3), (2, 2), groups=2, padding=1),
    "transposed": lambda rng: convolution(rng, (2, 2), (2, 3), transposed=True, stride=2),
    "transposed, groups": lambda rng: convolution(rng, (3,), (2,), groups=2, transposed=True, stride=3, padding=1),
    "tokens": tokens,
}


def is_multiple(p, q):
    """Also of two rows of zeros."""
    p, q = [Fraction(x) for x in p], [Fraction(x) for x in q]
    return any(p) == any(q) and all(p[i] * q[j] == p[j] * q[i] for i, j in combinations(range(len(p)), 2))


def affine_rows(stages):
    """The rows of the last stage with lines, in fractions, of stages that are affine before it."""
    values = {
        INPUT: [[Fraction(int(i == j)) for j in range(stages.inputs)] + [Fraction(0)] for i in range(stages.inputs)]
    }
    for number, stage in enumerate(stages.stages):
        rows = [[Fraction(0)] * stages.inputs + [Fraction(bias)] for bias in stage.bias.tolist()]
        for source, matrix in stage.matrices.items():
            for row, weights in zip(rows, matrix.tolist(), strict=True):
                for weight, value in zip(weights, values[source], strict=True):
                    if weight:
                        row[:] = [x + Fraction(weight) * y for x, y in zip(row, value, strict=True)]
        values[number] = rows
        if stage.units.lines:
            return rows
    raise AssertionError("no lines")


def check(stages, place_of):
    """What is found are multiples, and of rows of the same place all are found. How many are multiples."""
    found, rows = stages.same_lines, affine_rows(stages)
    for i, first in enumerate(found.tolist()):
        assert first <= i and found[first] == first and is_multiple(rows[i], rows[first])
    for i, j in combinations(range(len(rows)), 2):
        if place_of[i] == place_of[j] and any(rows[i]) and is_multiple(rows[i], rows[j]):
            assert found[i] == found[j], (i, j)
    return int((found != np.arange(len(found))).sum())


def places(block):
    if isinstance(block, Dense):
        return np.repeat(np.arange(block.places), len(block.weight))
    return np.tile(np.arange(block.rows // 6), 6)


@pytest.mark.part(6)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_at_the_same_place(kind):
    seen = 0
    for seed in range(3):
        block, bias = KINDS[kind](np.random.default_rng(seed))
        last = Stage({0: Dense(np.ones((1, block.rows)))}, np.zeros(1), identity(1))
        stages = Stages([Stage({INPUT: block}, bias, relus(block.rows), 0), last], ("0",))
        # Where padding leaves all of two kernels' differences away, rows are multiples, and their kernels are not.
        inside = places(block) if not isinstance(block, Convolution) or not whole(block) else None
        seen += check(stages, np.arange(block.rows) if inside is None else inside)
    assert seen > 3


def whole(block):
    """Whether some windows are cut off, so that rows of other kernels may be multiples there."""
    return block.transposed or any(block.padding) or any(behind > 0 for behind in block.behind)


@pytest.mark.part(6)
@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_are_multiples_are_found_at_all_places(kind):
    for seed in range(3):
        block, bias = KINDS[kind](np.random.default_rng(seed))
        stages = Stages([Stage({INPUT: block}, bias, relus(block.rows), 0)])
        found, place = stages.same_lines, places(block)
        rows = [[*row, b] for row, b in zip(block.dense().tolist(), bias.tolist(), strict=True)]
        by_place = [np.flatnonzero(place == p) for p in np.unique(place)]
        for a, b in combinations(range(6), 2):
            pairs = [(int(rows_here[a]), int(rows_here[b])) for rows_here in by_place]
            together = [found[i] == found[j] for i, j in pairs]
            assert all(together) or not any(together)
            if all(together):
                assert all(is_multiple(rows[i], rows[j]) for i, j in pairs)


def test_biases_that_differ_from_place_to_place_are_not_compared():
    block, bias = convolution(np.random.default_rng(0), (3, 3), (1, 1))
    bias[0] += 1
    assert Stages([Stage({INPUT: block}, bias, relus(len(bias)), 0)]).same_lines.tolist() == list(range(len(bias)))


@pytest.mark.part(4)
@pytest.mark.parametrize("seed", range(6))
def test_terms_follow_what_they_take(seed):
    """A convolution, then moves, factors and shifts in any order, and lines."""
    rng = np.random.default_rng(seed)
    block, bias = convolution(rng, (2, 3), (2, 2))
    rows, area = block.rows, block.rows // 6
    steps = [Stage({INPUT: block}, bias, identity(rows))]
    place = np.tile(np.arange(area), 6)
    affine = int(rng.integers(3))
    for step in range(3):
        source = len(steps) - 1
        if step != affine:
            order = rng.permutation(rows)
            moved = Terms(order[:, None], np.ones((rows, 1)), rows)
            steps.append(Stage({source: moved}, np.zeros(rows), identity(rows)))
            place = place[order]
        else:
            factor = rng.choice([1.0, 2.0, -1.0, 1 / 3, 0.0] if rng.random() < 0.2 else [1.0, -2.0, 1 / 3], rows)
            shift = rng.choice([0.0, 0.0, 1.0, 1 / 3], rows) * (seed % 2)
            terms = Terms(np.arange(rows)[:, None], factor[:, None], rows)
            steps.append(Stage({source: terms}, shift, identity(rows)))
    steps[-1].units = relus(rows)
    stages = Stages([*steps, Stage({len(steps) - 1: Dense(np.ones((1, rows)))}, np.zeros(1), identity(1))])
    assert check(stages, place) > 0 or seed % 2


def test_terms_of_the_input_and_of_units_with_kinks():
    """``2 x, -x, x + 1, 2 x + 2``; of ReLUs that are multiples nothing is concluded."""
    terms = Terms(np.array([[0], [0], [0], [0], [1]]), np.array([[2.0], [-1], [1], [2], [1]]), 2)
    first = Stage({INPUT: terms}, np.array([0.0, 0, 1, 2, 0]), relus(5), 0)
    second = Stage({0: identity_map(5)}, np.zeros(5), relus(5), 1)
    assert Stages([first, second]).same_lines.tolist() == [0, 0, 2, 2, 4, 5, 6, 7, 8, 9]
    shifted = Stage({INPUT: identity_map(2)}, np.zeros(2), same(2, [], [1.0], [1.0]))  # units are x + 1
    taken = Stage({0: Terms(np.zeros((2, 1), np.int64), np.array([[1.0], [2.0]]), 2)}, np.zeros(2), relus(2), 0)
    assert Stages([shifted, taken]).same_lines.tolist() == [0, 0]


def rows_by_line(stages):
    """The row of each line in fractions, of the inputs, of all units that bend, and of 1."""
    numbers = stages.inputs + sum(stage.rows for stage in stages.stages) + 1
    values = {INPUT: [[Fraction(int(i == j)) for j in range(numbers)] for i in range(stages.inputs)]}
    found, units = [], stages.inputs
    for number, stage in enumerate(stages.stages):
        rows = [[Fraction(0)] * (numbers - 1) + [Fraction(bias)] for bias in stage.bias.tolist()]
        for source, matrix in stage.matrices.items():
            for row, weights in zip(rows, matrix.tolist(), strict=True):
                for weight, value in zip(weights, values[source], strict=True):
                    row[:] = [x + Fraction(weight) * y for x, y in zip(row, value, strict=True)] if weight else row
        values[number] = rows
        if stage.units.lines:
            found += rows
            values[number] = [[Fraction(int(units + i == j)) for j in range(numbers)] for i in range(stage.rows)]
            units += stage.rows
    return found


@pytest.mark.parametrize("seed", range(8))
def test_layers_that_take_the_same_values(seed):
    """Like a DenseNet: each layer has shifts and factors of its own for the units of those before it, side by side."""
    rng = np.random.default_rng(seed)
    steps = [Stage({INPUT: Dense(rng.integers(-2, 3, (3, 2)).astype(float))}, np.zeros(3), identity(3))]
    features = [(0, unit) for unit in range(3)]
    for layer in range(4):
        n, sources = len(features), sorted({source for source, _ in features})
        widths = {source: steps[source].rows for source in sources}
        joined = {}
        for source in sources:
            place, factor = np.zeros((n, 1), np.int64), np.zeros((n, 1))
            for row, (of, unit) in enumerate(features):
                place[row], factor[row] = (unit, 1) if of == source else (0, 0)
            joined[source] = Terms(place, factor, widths[source])
        steps.append(Stage(joined, np.zeros(n), identity(n)))
        factor, shift = rng.choice([1.0, -2.0, 1 / 3], n), rng.choice([0.0, 1.0], n)
        shift *= np.where(rng.random(n) < 0.7, factor, 1)
        normed = Terms(np.arange(n)[:, None], factor[:, None], n)
        steps.append(Stage({len(steps) - 1: normed}, shift, relus(n), layer))
        new = Dense(rng.integers(-2, 3, (2, n)).astype(float))
        steps.append(Stage({len(steps) - 1: new}, np.zeros(2), identity(2)))
        features += [(len(steps) - 1, unit) for unit in range(2)]
    stages = Stages([*steps, Stage({len(steps) - 1: Dense(np.ones((1, 2)))}, np.zeros(1), identity(1))])
    found, rows = stages.same_lines, rows_by_line(stages)
    lines = [stage.units.lines for stage in stages.stages]
    layer = np.repeat(np.arange(len(lines)), lines)
    across = 0
    for i, j in combinations(range(len(rows)), 2):
        same_name = found[i] == found[j]
        if any(rows[i]) and layer[i] != layer[j]:
            assert same_name == is_multiple(rows[i], rows[j]), (i, j)
            across += int(same_name)
        elif same_name:
            assert is_multiple(rows[i], rows[j]), (i, j)
    assert across > 3 and (found[found] == found).all() and (found <= np.arange(len(found))).all()


def test_branches_that_begin_with_a_relu_of_the_same_value():
    """As the cells of NASNet do; the regions are the oracle's."""
    torch.manual_seed(0)

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(2, 5), nn.BatchNorm1d(5)
            self.left, self.right, self.last = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(5, 1)

        def forward(self, x):
            x = self.first(x)
            left, right = self.left(torch.relu(x)), self.right(torch.relu(2 * x))
            return self.last(torch.relu(torch.cat([left + right, x[:, :2]], 1)))

    stages = stages_of(plr.capture(Branches().double().eval(), torch.zeros(2, 2).double()))
    assert len(np.unique(stages.same_lines)) == stages.lines - 5 - 2
    plane = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    box = np.array([[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]])
    check_case(Case(stages, plane, box))


def test_duplicated_channels_of_a_model_need_no_integers():
    """Behind a batch norm, too; the regions are the oracle's."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 2)),
        nn.Conv1d(1, 4, 2, padding=1),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Conv1d(4, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 1),
    ).double()
    with torch.no_grad():
        for part in (model[1].weight, model[1].bias, model[2].running_mean, model[2].bias):
            part.normal_()
            part[2:] = part[:2]
        model[1].weight[3], model[1].bias[3], model[2].running_mean[3] = (
            -2 * part[1] for part in (model[1].weight, model[1].bias, model[2].running_mean)
        )
        model[2].bias[3] = -2 * model[2].bias[1]
    stages = stages_of(plr.capture(model.eval(), torch.zeros(2, 2).double()))
    lines = np.arange(stages.lines)
    # Three places of four channels: the last two are the first two.
    assert stages.same_lines[:12].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, *stages.same_lines[9:12].tolist()]
    assert (stages.same_lines[12:] == lines[12:]).all()
    plane = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    box = np.array([[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]])
    check_case(Case(stages, plane, box))
