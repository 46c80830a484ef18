"""Lines that the weights alone show to be the same line, against fractions."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from cases.engine import Case, check_case, perceptron
from cases.networks import NETWORK_KINDS, random_network
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.linear_maps import Dense
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import identity, same

PLANE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
BOX = np.array([[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]])


def layer(weight, bias, kink=0.0):
    weight, bias = np.asarray(weight, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    return Stages(
        [
            Stage({INPUT: Dense(weight)}, bias, same(len(bias), [kink], [0, 1], [kink, 0]), 0),
            Stage({0: Dense(np.ones((1, len(bias))))}, np.zeros(1), identity(1)),
        ],
        ("0",),
    )


def is_multiple(p, q):
    p, q = [Fraction(x) for x in p], [Fraction(x) for x in q]
    return any(p) and any(q) and all(p[i] * q[j] == p[j] * q[i] for i, j in combinations(range(len(p)), 2))


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_multiples_are_found_among_rows(kind):
    for seed in range(3):
        stages = perceptron(*random_network(kind, (3, 12, 12, 1), seed))
        found = stages.same_lines
        for stage, first in zip(stages.stages[:-1], stages.first_lines, strict=False):
            rows = np.concatenate([*stage.matrices.values(), stage.bias[:, None]], axis=1).tolist()
            for i, j in combinations(range(len(rows)), 2):
                assert (found[first + i] == found[first + j]) == is_multiple(rows[i], rows[j])


@pytest.mark.parametrize("scale", [1.0, 1 / 3, 1e-200])
def test_the_last_bit_tells_rows_apart(scale):
    row = np.array([1.0, 3.0, -5.0]) * scale
    near = row.copy()
    near[1] = np.nextafter(near[1], 9)
    rows = np.stack([row, -2 * row, near, 4 * near, 0 * row])
    assert layer(rows[:, :2], rows[:, 2]).same_lines.tolist() == [0, 0, 2, 2, 4]


def test_rows_whose_kinks_are_elsewhere_are_not_compared():
    assert layer([[1, 0], [2, 0]], [1, 2]).same_lines.tolist() == [0, 0]
    assert layer([[1, 0], [2, 0]], [1, 2], kink=1.0).same_lines.tolist() == [0, 1]


def test_what_passes_through_zero():
    assert layer([[1, 0]], [0]).pass_through_zero
    assert not layer([[1, 0]], [1e-300]).pass_through_zero
    assert not layer([[1, 0]], [0], kink=0.5).pass_through_zero
    biased_output = layer([[1, 0]], [0])
    biased_output.stages[-1].bias[:] = 1
    assert biased_output.pass_through_zero


@pytest.mark.part(2)
@pytest.mark.parametrize("kind", ["zero_bias", "small_int_nobias"])
@pytest.mark.parametrize("origin", [(0, 0), (0.5, 0), (0, -0.25)])
def test_lines_through_one_point_of_the_slice(kind, origin):
    """Through s = t = 0, where no integers are needed, and elsewhere."""
    plane = PLANE.copy()
    plane[:, 2] = origin
    for seed in range(4):
        check_case(Case(perceptron(*random_network(kind, (2, 6, 5, 4, 1), seed)), plane, BOX))


def test_ties_of_larger_networks_without_biases():
    """Every decision through integers gives the same."""
    weights, biases = random_network("zero_bias", (2, 30, 30, 1), 0)
    engine = Engine(perceptron(weights, biases), PLANE, BOX)
    found = engine.enumerate(cells=True)
    assert found.zeros > 1000
    moved = Engine(perceptron(weights, biases), PLANE + np.array([0, 0, 1.0]), BOX - 1.0).enumerate(cells=True)
    assert found.regions == moved.regions and len(found.cells.patterns) == len(moved.cells.patterns)
    assert {row.tobytes() for row in found.cells.patterns} == {row.tobytes() for row in moved.cells.patterns}
