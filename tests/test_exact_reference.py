"""The rational oracle against truths worked out by hand, plain evaluation and counting formulas."""

import itertools
import random
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORK_KINDS, SLICE_KINDS, integer_networks, polygons, random_network, random_slice

from pylinregion.reference.exact import (
    Cell,
    ExactPartition,
    Max,
    Pieces,
    Stage,
    chain,
    forward,
    partition,
    trace,
)

PLANE = ([0, 0], [1, 0], [0, 1])  # s and t are the two inputs
RELU, IDENTITY = Pieces.relu(), Pieces.identity()
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)

# name: the pieces, and the same function and its kinks written out
ACTIVATIONS = {
    "relu": (Pieces.relu(), lambda z: max(z, F(0)), [0]),
    "leaky_relu": (Pieces.leaky_relu(0.125), lambda z: z if z > 0 else z / 8, [0]),
    "negative slope": (Pieces.leaky_relu(-2), lambda z: z if z > 0 else -2 * z, [0]),
    "abs": (Pieces.abs(), abs, [0]),
    "relu6": (Pieces.clamp(0, 6), lambda z: min(max(z, F(0)), F(6)), [0, 6]),
    "hardtanh": (Pieces.clamp(-1, 1), lambda z: min(max(z, F(-1)), F(1)), [-1, 1]),
    "hardsigmoid": (Pieces.hardsigmoid(), lambda z: min(max(z + 3, F(0)), F(6)) / 6, [-3, 3]),
    "identity": (Pieces.identity(), lambda z: z, []),
}


def box(low, high):
    return [(low, low), (high, low), (high, high), (low, high)]


def lines(*rows, activation=RELU):
    """One hidden layer with a neuron for each (a, b, c), and the sum of the neurons."""
    weights = [[[a, b] for a, b, _ in rows], [[1] * len(rows)]]
    return chain(weights, [[c for _, _, c in rows], [0]], activation)


def of_hidden(stages, polygon, slice_=PLANE):
    return partition(stages, *slice_, polygon)


def shape_of(cell):
    """A polygon, wherever its list of corners starts."""
    start = cell.polygon.index(min(cell.polygon))
    return tuple(cell.polygon[start:] + cell.polygon[:start])


def area_of(polygon):
    """By triangles from the first corner."""
    (x, y), *rest = [tuple(map(F, point)) for point in polygon]
    return sum(
        ((p[0] - x) * (q[1] - y) - (q[0] - x) * (p[1] - y) for p, q in itertools.pairwise(rest)),
        F(0),
    ) / F(2)


def interior_points(polygon, count, seed=0):
    """The mean of the corners, and random points inside."""
    rng = random.Random(seed)
    for k in range(count):
        parts = [F(1) if k == 0 else F(rng.randint(1, 50)) for _ in polygon]
        yield tuple(
            sum(w * point[axis] for w, point in zip(parts, polygon, strict=True)) / sum(parts) for axis in (0, 1)
        )


def evaluate(weights, biases, x, function, kinks):
    """Pieces of the hidden layers and outputs of a perceptron, in fractions, sharing no code with the oracle."""
    pattern, z = [], x
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if k:
            pattern.append(tuple(sum(value > kink for kink in kinks) for value in z))
            z = [function(value) for value in z]
        z = [
            sum(F(float(w)) * y for w, y in zip(row, z, strict=True)) + F(float(b))
            for row, b in zip(weight, bias, strict=True)
        ]
    return pattern, z


def place(slice_, point):
    """The input at a point (s, t) of a slice."""
    return [F(float(o)) + F(float(u)) * point[0] + F(float(v)) * point[1] for o, u, v in zip(*slice_, strict=True)]


def check_partition(part, polygon, forward_at, count=2):
    """What is true of every right partition; with distinct patterns and the full area, that makes it the right one."""
    assert part.area() == area_of(polygon)
    assert all(area > 0 for area in part.areas())
    assert part.euler() == 1
    assert len({cell.pattern for cell in part.cells}) == len(part.cells) == part.counts_per_stage[-1]
    assert part.counts_per_stage == sorted(part.counts_per_stage)
    assert 1 <= part.linear_regions() <= len(part.cells)
    for index, cell in enumerate(part.cells):
        n = len(cell.polygon)
        for i in range(n):
            (a, b), (c, d), (e, f) = (cell.polygon[(i + k) % n] for k in range(3))
            assert (c - a) * (f - b) > (d - b) * (e - a)
        for point in interior_points(cell.polygon, count):
            pattern, outputs = forward_at(point)
            assert cell.pattern[: len(pattern)] == tuple(pattern)
            assert [a * point[0] + b * point[1] + c for a, b, c in cell.outputs] == outputs
            assert part.locate(*point) == [index]
        for point in cell.polygon:  # the network is continuous
            assert [a * point[0] + b * point[1] + c for a, b, c in cell.outputs] == forward_at(point)[1]
    # A row that changes sign along an edge does so for the cells on both sides: no corner lies inside another's side.
    sides = {frozenset(side) for cell in part.cells for side in itertools.pairwise([*cell.polygon, cell.polygon[0]])}
    assert sides == {frozenset(edge) for edge in part.edges}
    assert all(len(cells) in (1, 2) for cells in part.edges.values())


# ---- activations and stages


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_functions_they_are_named_after(name):
    act, function, kinks = ACTIVATIONS[name]
    for z in (F(n, 4) for n in range(-40, 41)):
        piece = act.piece(z)
        assert piece == sum(z > kink for kink in kinks)
        assert act.value(piece, z) == function(z)


@pytest.mark.parametrize(
    "breaks, slopes, intercepts, message",
    [
        ((0,), (0, 1), (0, 1), "continuous"),
        ((1, 0), (0, 1, 0), (0, 0, 0), "increasing"),
        ((0, 0), (0, 1, 0), (0, 0, 0), "increasing"),
        ((0,), (0,), (0, 0), "one more"),
        ((0,), (0, 1, 1), (0, 0, 0), "one more"),
        ((), (float("nan"),), (0,), "finite"),
        ((), (0,), (float("inf"),), "finite"),
    ],
)
def test_wrong_activations_are_refused(breaks, slopes, intercepts, message):
    with pytest.raises(ValueError, match=message):
        Pieces(breaks, slopes, intercepts)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64"])
def test_arrays_of_every_type_are_taken_exactly(dtype):
    weight = np.array([[3, -7], [0.1, 5]]).astype(dtype)
    stage = chain([weight, weight], [weight[0], weight[1]], RELU)[0]
    assert stage.blocks == {-1: [[F(float(x)) for x in row] for row in weight]}
    assert all(type(x) is F and type(x.numerator) is int for row in stage.blocks[-1] for x in row)


def test_large_integers_do_not_overflow():
    large = np.array([[2**62]])
    assert forward(chain([large, large], [[0], [0]], RELU), [2**62])[1] == [2**186]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -np.inf, np.float32("nan"), np.float16("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    good = lines((1, 0, 0))
    for call in (
        lambda: lines((bad, 0, 0)),
        lambda: lines((0, 0, bad)),
        lambda: partition(good, [bad, 0], [1, 0], [0, 1], box(0, 1)),
        lambda: partition(good, [0, 0], [1, 0], [0, bad], box(0, 1)),
        lambda: partition(good, *PLANE, box(0, bad)),
        lambda: trace(good, [0, bad], [1, 1]),
        lambda: trace(good, [0, 0], [bad, 1]),
    ):
        with pytest.raises(ValueError, match="finite"):
            call()
    with pytest.raises(TypeError, match="int, float or Fraction"):
        lines(("1", 0, 0))


def test_stages_that_do_not_fit_are_refused():
    one = Stage({-1: [[1, 0]]}, [0], [(0, RELU)])
    for stages in (
        [],
        [Stage({-1: [[1]]}, [0], [(0, RELU)])],
        [Stage({-1: [[1, 0], [0, 1]]}, [0], [(0, RELU)])],
        [Stage({0: [[1]]}, [0], [(0, RELU)])],
        [one, Stage({1: [[1]]}, [0], [(0, RELU)])],
        [one, Stage({-2: [[1]]}, [0], [(0, RELU)])],
        [Stage({-1: [[1, 0]]}, [0], [(1, RELU)])],
        [Stage({-1: [[1, 0]]}, [0], [Max((0, 1))])],
        [Stage({-1: [[1, 0]]}, [0], [Max(())])],
    ):
        with pytest.raises(ValueError, match="stage"):
            partition(stages, *PLANE, box(0, 1))


@pytest.mark.parametrize(
    "polygon",
    [
        [],
        [(0, 0), (1, 0)],
        [(0, 0), (1, 0), (2, 0)],
        [(0, 0), (1, 1), (1, 1), (0, 0)],
        [(0, 0), (0, 1), (1, 1), (1, 0)],  # clockwise
        [(0, 0), (4, 0), (1, 1), (0, 4)],  # not convex
        [(0, 0), (2, 0), (1, 0), (1, 1), (0, 1)],  # a spike
        box(0, 1) * 2,  # twice around
        [(0, 3), (-2, -3), (3, 1), (-3, 1), (2, -3)],  # a star
        [(0, 0, 0), (1, 0, 0), (0, 1, 0)],
    ],
)
def test_wrong_polygons_are_refused(polygon):
    with pytest.raises(ValueError, match="polygon"):
        partition(lines((1, 0, 0)), *PLANE, polygon)


def test_corners_on_straight_lines_are_dropped():
    polygon = [(0, 0), (1, 0), (1, 0), (2, 0), (2, 2), (1, 2), (0.5, 2), (0, 2), (0, 1)]
    (cell,) = of_hidden(lines((0, 0, 1)), polygon).cells
    assert shape_of(cell) == ((0, 0), (2, 0), (2, 2), (0, 2))


# ---- lines in a polygon


def test_three_lines_in_general_position():
    part = of_hidden(lines((1, 0, 0), (0, 1, 0), (1, 1, -1)), box(-2, 2))
    assert part.counts_per_stage == [7, 7]
    assert sorted(part.areas()) == [F(1, 2)] * 3 + [F(7, 2)] * 3 + [4]
    assert len(part.adjacency()) == 9
    assert part.linear_regions() == 7
    assert len(part.locate(0, 0)) == len(part.locate(0, 1)) == 4
    assert len(part.locate(0, F(1, 2))) == 2
    assert part.locate(3, 0) == []
    triangle = part.cells[part.locate(F(1, 4), F(1, 4))[0]]
    assert shape_of(triangle) == ((0, 0), (1, 0), (0, 1))
    assert triangle.pattern == ((1, 1, 0), (0,))
    assert triangle.outputs == [(1, 1, 0)]


def test_three_lines_through_one_point():
    part = of_hidden(lines((1, 0, 0), (0, 1, 0), (1, -1, 0)), box(-2, 2))
    assert part.counts_per_stage == [6, 6]
    assert sorted(part.areas()) == [2, 2, 2, 2, 4, 4]
    assert len(part.adjacency()) == 6
    assert len(part.locate(0, 0)) == 6


def test_nearly_concurrent_lines_keep_their_tiny_triangle():
    tiny = F(1, 10**30)
    part = of_hidden(lines((1, 0, 0), (0, 1, 0), (1, 1, -tiny)), box(-2, 2))
    assert part.counts_per_stage == [7, 7]
    assert min(part.areas()) == tiny**2 / 2


@pytest.mark.parametrize("copy", [(1, 2, -1), (-1, -2, 1), (2, 4, -2), (0.25, 0.5, -0.25)])
def test_a_duplicated_neuron_adds_nothing(copy):
    assert of_hidden(lines((1, 2, -1), copy), box(-2, 2)).counts_per_stage == [2, 2]


def test_a_tenth_in_float_is_not_a_tenth():
    # 3 * 0.1 rounds to another float than 0.3: two parallel lines.
    part = of_hidden(lines((1, 0, -0.3), (1, 0, -3 * 0.1)), box(0, 1))
    assert part.counts_per_stage == [3, 3]
    assert min(part.areas()) == F(3 * 0.1) - F(0.3)


def test_absolute_values():
    part = of_hidden(lines((1, 0, 0), (0, 1, 0), activation=Pieces.abs()), box(-1, 1))
    assert part.areas() == [1] * 4
    assert {cell.pattern[0]: cell.outputs[0] for cell in part.cells} == {
        (i, j): (2 * i - 1, 2 * j - 1, 0) for i in (0, 1) for j in (0, 1)
    }
    two = of_hidden(lines((1, 0, 0), (-1, 0, 0)), box(-1, 1))  # relu(s) + relu(-s)
    assert [len(two.cells), two.linear_regions()] == [2, 2]


def test_linear_regions_merge_what_the_output_does_not_tell_apart():
    cancel = chain([[[1, 0], [1, 0], [0, 1]], [[1, -1, 1]]], [[0, 0, 0], [0]], RELU)  # relu(s) - relu(s) + relu(t)
    part = of_hidden(cancel, box(-1, 1))
    assert [len(part.cells), part.linear_regions()] == [4, 2]
    # 0 to the left and to the right of a strip on which it is not: equal maps that do not touch stay two regions.
    bump = chain([[[1, 0], [1, 0], [1, 0]], [[1, -2, 1]]], [[1, 0, -1], [0]], RELU)
    part = of_hidden(bump, box(-2, 2))
    assert [len(part.cells), part.linear_regions()] == [4, 4]
    assert len({tuple(cell.outputs) for cell in part.cells}) == 3
    # relu(min(s, t)) + relu(min(-s, -t)) is 0 on two quadrants, which touch in a point only.
    quadrants = [
        Stage({-1: [[1, 0], [0, 1], [-1, 0], [0, -1]]}, [0] * 4, [Max((0, 1)), Max((2, 3))]),
        Stage({0: [[-1, 0], [0, -1]]}, [0, 0], [(0, RELU), (1, RELU)]),
        Stage({1: [[1, 1]]}, [0], [(0, IDENTITY)]),
    ]
    part = of_hidden(quadrants, box(-1, 1))
    assert part.counts_per_stage == [2, 6, 6]
    assert part.linear_regions() == 6
    assert sorted(cell.outputs[0] for cell in part.cells) == sorted(
        [(0, 0, 0), (0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)]
    )


def test_relu6_cuts_along_two_parallel_lines():
    part = of_hidden(lines((1, 0, 0), activation=Pieces.clamp(0, 6)), [(-1, 0), (7, 0), (7, 1), (-1, 1)])
    found = {cell.pattern[0][0]: (area, cell.outputs) for cell, area in zip(part.cells, part.areas(), strict=True)}
    assert found == {0: (1, [(0, 0, 0)]), 1: (6, [(1, 0, 0)]), 2: (1, [(0, 0, 6)])}
    assert len(part.adjacency()) == 2


@pytest.mark.parametrize(
    "line, expected",
    [
        ((1, 0, 0), [1]),  # along edges
        ((0, 1, 0), [1]),
        ((-1, 0, 1), [1]),
        ((0, 1, -1), [1]),
        ((1, 1, 0), [1]),  # touches a corner
        ((1, 1, -2), [1]),
        ((1, -1, 0), [F(1, 2), F(1, 2)]),  # corner to corner
        ((1, 1, -1), [F(1, 2), F(1, 2)]),
        ((2, -1, 0), [F(1, 4), F(3, 4)]),  # corner to edge
        ((1, 0, -2), [1]),  # outside
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_lines_through_corners_and_along_edges_of_the_polygon(line, expected, sign):
    part = of_hidden(lines(tuple(sign * x for x in line)), box(0, 1))
    assert sorted(part.areas()) == expected
    assert part.euler() == 1
    assert sum(len(cell.polygon) for cell in part.cells) == {(1,): 4, (F(1, 2),) * 2: 6}.get(tuple(expected), 7)


def test_a_neuron_at_a_kink_everywhere_is_on_the_lower_piece():
    def pattern(activation, bias):
        (cell,) = of_hidden(lines((0, 0, bias), activation=activation), box(0, 1)).cells
        return cell.pattern[0]

    assert [pattern(RELU, bias) for bias in (-1, 0, F(1, 10**20))] == [(0,), (0,), (1,)]
    assert pattern(Pieces.abs(), 0) == (0,)
    assert [pattern(Pieces.clamp(0, 6), bias) for bias in (0, 3, 6, 7)] == [(0,), (1,), (1,), (2,)]


def test_zero_biases_make_cones():
    stages = chain([[[1, 0], [0, 1]], [[1, -1]], [[1]]], [[0, 0], [0], [0]], RELU)
    for size in (1, F(1, 10**12)):
        part = of_hidden(stages, box(-size, size))
        # Only where both are on, the second layer has a line; where both are off, its neuron is identically zero.
        assert part.counts_per_stage == [4, 5, 5]
        assert part.locate(0, 0) == list(range(5))
        assert {cell.pattern[:2] for cell in part.cells} == {
            ((1, 1), (1,)),
            ((1, 1), (0,)),
            ((1, 0), (1,)),
            ((0, 1), (0,)),
            ((0, 0), (0,)),
        }
        assert part.linear_regions() == 3  # 0 on three of them, which hang together


def test_skip_connection():
    stages = [
        Stage({-1: [[1, 0]]}, [0], [(0, RELU)]),
        Stage({0: [[1]], -1: [[1, -1]]}, [0], [(0, RELU)]),  # relu(s) + s - t: bends from t = s to t = 2 s
        Stage({0: [[1]], 1: [[1]], -1: [[0, 1]]}, [3], [(0, IDENTITY)]),
    ]
    part = of_hidden(stages, box(-1, 1))
    assert part.counts_per_stage == [2, 4, 4]
    found = {cell.pattern[:2]: (area, cell.outputs) for cell, area in zip(part.cells, part.areas(), strict=True)}
    assert found == {
        ((0,), (0,)): (F(3, 2), [(0, 1, 3)]),
        ((0,), (1,)): (F(1, 2), [(1, 0, 3)]),
        ((1,), (0,)): (F(1, 4), [(1, 1, 3)]),
        ((1,), (1,)): (F(7, 4), [(3, 0, 3)]),
    }
    patterns = {frozenset(part.cells[i].pattern[:2] for i in pair) for pair in part.adjacency()}
    a, b, c, d = ((0,), (0,)), ((0,), (1,)), ((1,), (0,)), ((1,), (1,))
    assert patterns == {frozenset(pair) for pair in [(a, b), (c, d), (a, c), (b, d)]}


def test_a_slice_of_a_space_of_more_dimensions():
    stages = chain([[[1, 1, 1], [1, -1, 0]], [[1, 0]]], [[0, 0], [0]], RELU)
    # x = (1, 0, -1) + s (1, 1, 0) + t (0, 0, 2): rows 2 s + 2 t and 1
    part = partition(stages, [1, 0, -1], [1, 1, 0], [0, 0, 2], box(-1, 1))
    assert part.counts_per_stage == [2, 2]
    assert {cell.pattern[0]: cell.outputs for cell in part.cells} == {(0, 1): [(0, 0, 0)], (1, 1): [(2, 2, 0)]}


# ---- maxima


def winners(rows, polygon):
    """The winner and the area of each cell of one unit."""
    stages = [Stage({-1: [row[:2] for row in rows]}, [row[2] for row in rows], [Max(tuple(range(len(rows))))])]
    part = of_hidden(stages, polygon)
    assert part.euler() == 1
    return sorted((cell.pattern[0][0], area) for cell, area in zip(part.cells, part.areas(), strict=True))


def test_the_largest_of_three():
    assert winners([(1, 0, 0), (0, 1, 0), (-1, -1, 0)], box(-1, 1)) == [(0, F(5, 4)), (1, F(5, 4)), (2, F(3, 2))]


def test_only_the_upper_envelope_cuts():
    assert winners([(0, 1, 0), (0, -1, 0), (1, 0, -5)], box(-1, 1)) == [(0, 2), (1, 2)]
    assert winners([(1, 0, 0), (-1, 0, 0), (0, 0, 0)], box(-1, 1)) == [(0, 2), (1, 2)]  # 0 is largest on a line only
    assert winners([(1, 0, 0), (-1, 0, 0), (0, 0, F(1, 2))], box(-1, 1)) == [(0, 1), (1, 1), (2, 2)]
    # The tie of the last two is on the envelope only beyond where all three meet: 0 wins where s < 1 - |t|.
    assert winners([(0, 0, 0), (1, 1, -1), (1, -1, -1)], box(-2, 2)) == [(0, 8), (1, 4), (2, 4)]


def test_ties_on_a_whole_cell_go_to_the_first():
    assert winners([(1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0)], box(-1, 1)) == [(0, 2), (2, 2)]
    assert winners([(0, 0, 0), (0, 0, 0)], box(-1, 1)) == [(0, 4)]
    assert winners([(1, 2, 3)], box(-1, 1)) == [(0, 4)]


def test_a_maximum_over_rectified_neurons_ties_where_they_are_off():
    stages = [
        Stage({-1: [[1, 0], [0, 1]]}, [0, 0], [(0, RELU), (1, RELU)]),
        Stage({0: [[0, 1], [1, 0]]}, [0, 0], [Max((1, 0))]),  # max(relu(s), relu(t))
    ]
    part = of_hidden(stages, box(-1, 1))
    assert part.counts_per_stage == [4, 5]
    assert {cell.pattern for cell in part.cells} == {
        ((0, 0), (0,)),
        ((1, 0), (0,)),
        ((0, 1), (1,)),
        ((1, 1), (0,)),
        ((1, 1), (1,)),
    }
    assert part.linear_regions() == 3


# ---- the subdivision, on cells made by hand


def test_corners_inside_a_side_subdivide_it():
    def cell(*corners):
        return Cell([tuple(map(F, point)) for point in corners], ((0,),), [(F(0), F(0), F(0))])

    below = cell((0, 0), (2, 0), (2, 1), (0, 1))
    left, right = cell((0, 1), (1, 1), (1, 2), (0, 2)), cell((1, 1), (2, 1), (2, 2), (1, 2))
    part = ExactPartition([below, left, right], [3])
    assert len(part.edges) == 10
    assert part.euler() == 1
    assert part.adjacency() == {frozenset(pair) for pair in [(0, 1), (0, 2), (1, 2)]}
    assert part.locate(1, 1) == [0, 1, 2]
    assert part.linear_regions() == 1
    apart = ExactPartition([left, cell((1, 0), (2, 0), (2, 1), (1, 1))], [2])  # they share a corner only
    assert apart.adjacency() == set()
    assert apart.linear_regions() == 2
    ring = [cell(*((x + dx, y + dy) for dx, dy in box(0, 1))) for x in range(3) for y in range(3) if (x, y) != (1, 1)]
    assert ExactPartition(ring, [8]).euler() == 0


# ---- decision boundaries


def decisions(rows, polygon, activation=IDENTITY, last=None):
    """The segments of each cell, by pattern, of a layer of rows, or of a hidden layer of rows and a last layer."""
    weights, biases = [[row[:2] for row in rows]], [[row[2] for row in rows]]
    if last is not None:
        weights, biases = [*weights, [row[:-1] for row in last]], [*biases, [row[-1] for row in last]]
    part = partition(chain(weights, biases, activation), *PLANE, polygon)
    return {cell.pattern[0]: found for cell, found in zip(part.cells, part.decision_segments(), strict=True)}


def test_decision_boundary_of_one_output_is_where_it_is_zero():
    assert decisions([(1, 1, -1)], box(0, 1)) == {(0,): {((0, 1), (1, 0))}}
    assert decisions([(1, 1, 0)], box(0, 1)) == {(0,): set()}  # a corner only
    assert decisions([(0, 0, 0)], box(0, 1)) == {(0,): set()}  # not a segment
    half = decisions([(1, 0, 0)], box(-1, 1), RELU, last=[(1, F(-1, 2))])
    assert half == {(0,): set(), (1,): {((F(1, 2), -1), (F(1, 2), 1))}}
    edge = {((0, -1), (0, 1))}
    assert decisions([(1, 0, 0)], box(-1, 1), Pieces.abs(), last=[(1, 0)]) == {(0,): edge, (1,): edge}
    assert decisions([(1, 0, 0)], box(-1, 1), RELU, last=[(1, 0)]) == {(0,): set(), (1,): edge}


def test_decision_boundary_of_outputs_is_where_the_largest_tie():
    vertical = ((0, -1), (0, 1))
    assert decisions([(1, 0, 0), (-1, 0, 0)], box(-1, 1)) == {(0, 0): {vertical}}
    assert decisions([(1, 0, 0), (-1, 0, 0), (0, 0, 5)], box(-1, 1)) == {(0,) * 3: set()}  # below the largest
    assert decisions([(1, 0, 0), (-1, 0, 0), (0, 0, 0)], box(-1, 1)) == {(0,) * 3: {vertical}}  # all three
    assert decisions([(1, 0, 0), (1, 0, 0), (0, 0, 0)], box(-1, 1)) == {(0,) * 3: {vertical}}  # the same twice
    assert decisions([(1, 0, 0), (0, 1, 0), (-1, -1, 0)], box(-1, 1)) == {
        (0, 0, 0): {((0, 0), (1, 1)), ((-1, F(1, 2)), (0, 0)), ((0, 0), (F(1, 2), -1))}
    }
    strip = decisions([(1, 0, 0), (-1, 0, 0), (0, 0, F(1, 2))], box(-1, 1))
    assert strip == {(0,) * 3: {((-F(1, 2), -1), (-F(1, 2), 1)), ((F(1, 2), -1), (F(1, 2), 1))}}


# ---- segments


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_tent_maps_double_the_regions_with_each_layer(depth):
    inner = [[2, -4], [2, -4]]
    weights = [[[1], [1]], *[inner] * (depth - 1), [[2, -4]]]  # relu(x) and relu(x - 1/2), then 2 of one less 4
    biases = [*[[0, F(-1, 2)]] * depth, [0]]
    line = trace(chain(weights, biases, RELU), [0], [1])
    assert line.n_regions == 2**depth
    assert line.breakpoints == [F(k, 2**depth) for k in range(1, 2**depth)]
    for k, changes in enumerate(line.changes, start=1):
        layer = depth - 1 - (k & -k).bit_length() + 1  # the layer whose tent is at its top there
        assert changes == {(layer, 1)}
    assert [slope for ((slope, _),) in line.outputs] == [2**depth, -(2**depth)] * 2 ** (depth - 1)
    assert [intercept for ((_, intercept),) in line.outputs] == [
        (-1) ** k * -(2 * ((k + 1) // 2)) for k in range(2**depth)
    ]


def test_units_that_change_together_share_a_breakpoint():
    stages = chain([[[1], [-2], [1], [4]], [[1, 1, 1, 1]]], [[-1, 2, -3, -100], [0]], RELU)
    line = trace(stages, [0], [4])
    assert line.breakpoints == [F(1, 4), F(3, 4)]
    assert line.changes == [{(0, 0), (0, 1)}, {(0, 2)}]
    assert line.patterns == [((0, 1, 0, 0), (0,)), ((1, 0, 0, 0), (0,)), ((1, 0, 1, 0), (0,))]
    assert line.outputs == [[(-8, 2)], [(4, -1)], [(8, -4)]]
    assert line.n_regions == 3


def test_segments_without_changes():
    stages = lines((1, 0, 0), (0, 1, 0))
    for start, end in [((0, -1), (0, -3)), ((1, 1), (1, 1)), ((0, 0), (0, 0)), ((-1, -1), (0, 0)), ((0, 0), (1, 1))]:
        line = trace(stages, start, end)
        assert [line.n_regions, line.breakpoints, line.changes] == [1, [], []]
    assert trace(stages, (0, -1), (0, 2)).patterns == [((0, 0), (0,)), ((0, 1), (0,))]  # along s = 0


def test_a_segment_that_touches_a_kink_does_not_cross_it():
    stages = chain([[[1], [-1]], [[1, 1]], [[1]]], [[0, 0], [0], [0]], RELU)  # relu(|x|)
    line = trace(stages, [-1], [1])
    assert line.breakpoints == [F(1, 2)]
    assert line.changes == [{(0, 0), (0, 1)}]


def test_segments_with_maxima_and_clamps():
    stages = [
        Stage({-1: [[0], [1], [2]]}, [0, -1, -4], [Max((0, 1, 2)), (1, Pieces.clamp(0, 1))]),
        Stage({0: [[1, -1]]}, [0], [(0, IDENTITY)]),
    ]
    line = trace(stages, [0], [4])  # winner 1 from x = 1 on, 2 from x = 3 on; the clamp bends at 1 and 2
    assert line.breakpoints == [F(1, 4), F(1, 2), F(3, 4)]
    assert line.changes == [{(0, 0), (0, 1)}, {(0, 1)}, {(0, 0)}]
    assert line.outputs == [[(0, 0)], [(0, 0)], [(4, -2)], [(8, -5)]]


# ---- properties


@quick
@given(integer_networks(), polygons(), st.sampled_from(sorted(ACTIVATIONS)))
def test_cells_are_what_plain_evaluation_says(network, polygon, name):
    act, function, kinks = ACTIVATIONS[name]
    stages = chain(*network, act)
    part = partition(stages, *PLANE, polygon)

    def forward_at(point):
        pattern, outputs = evaluate(*network, point, function, kinks)
        assert forward(stages, point) == ((*pattern, (0,) * len(outputs)), outputs)
        return pattern, outputs

    check_partition(part, polygon, forward_at)


@quick
@given(st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=6), polygons())
def test_one_layer_has_as_many_cells_as_the_formula_for_lines_says(rows, polygon):
    """1 + the lines that cut, each counted once + for each crossing inside, one less than the lines through it."""
    corners = [tuple(map(F, point)) for point in polygon]
    cutting = set()
    for a, b, c in rows:
        values = [a * s + b * t + c for s, t in corners]
        if min(values) < 0 < max(values):
            lead = F(a or b)
            cutting.add((a / lead, b / lead, c / lead))
    through = {}
    for (a, b, c), (d, e, f) in itertools.combinations(cutting, 2):
        if det := a * e - b * d:
            s, t = (b * f - c * e) / det, (c * d - a * f) / det
            sides = zip(corners, corners[1:] + corners[:1], strict=True)
            if all((q[0] - p[0]) * (t - p[1]) > (q[1] - p[1]) * (s - p[0]) for p, q in sides):
                through.setdefault((s, t), set()).update([(a, b, c), (d, e, f)])
    expected = 1 + len(cutting) + sum(len(group) - 1 for group in through.values())
    assert partition(lines(*rows), *PLANE, polygon).counts_per_stage[0] == expected


@quick
@given(integer_networks(max_depth=2), polygons(), st.lists(st.integers(-2, 2), min_size=12, max_size=12))
def test_skips_and_maxima_are_what_plain_evaluation_says(network, polygon, numbers):
    """A block from the input to the last layer, and the largest of pairs of rows, with one row in two groups."""
    weights, biases = network
    stages = chain(weights, biases, RELU)
    hidden = len(stages) - 1
    width = len(stages[-2].units)
    rows = [[F(x)] * width for x in numbers[:3]]
    skip = [numbers[3:5], numbers[5:7], numbers[7:9]]
    bias = numbers[9:12]
    stages[-1] = Stage({hidden - 1: rows, -1: skip}, bias, [Max((0, 1)), Max((2, 1, 0)), (1, Pieces.abs())])
    part = partition(stages, *PLANE, polygon)

    def forward_at(point):
        pattern, _ = evaluate(weights, biases, point, lambda z: max(z, F(0)), [0])
        x = list(point)
        for weight, offset in zip(weights[:-1], biases[:-1], strict=True):
            x = [
                max(sum(F(w) * y for w, y in zip(row, x, strict=True)) + F(b), F(0))
                for row, b in zip(weight, offset, strict=True)
            ]
        z = [rows[r][0] * sum(x) + sum(w * y for w, y in zip(skip[r], point, strict=True)) + bias[r] for r in range(3)]
        first, second = max(z[:2]), max(z)
        choices = (z.index(first), [z[2], z[1], z[0]].index(second), int(z[1] > 0))
        outputs = [first, second, abs(z[1])]
        assert forward(stages, point) == ((*pattern, choices), outputs)
        return [*pattern, choices], outputs

    check_partition(part, polygon, forward_at)


@quick
@given(integer_networks(), polygons())
def test_the_largest_of_two_is_one_plus_the_rectified_difference(network, polygon):
    weights, biases = network
    weights = [*weights[:-1], np.tile(weights[-1], (2, 1))[:2] * [[1], [-1]]]
    biases = [*biases[:-1], [biases[-1][0], 1]]
    stages = chain(weights, biases, RELU)
    k = len(stages) - 1
    top = [*stages[:-1], Stage(stages[-1].blocks, stages[-1].bias, [Max((1, 0))])]
    other = [
        *stages,
        Stage({k: [[1, -1], [0, 1]]}, [0, 0], [(0, RELU), (1, IDENTITY)]),
        Stage({k + 1: [[1, 1]]}, [0], [(0, IDENTITY)]),
    ]
    by_maximum, by_difference = partition(top, *PLANE, polygon), partition(other, *PLANE, polygon)
    expected = {shape_of(cell): cell.outputs for cell in by_difference.cells}
    assert {shape_of(cell): cell.outputs for cell in by_maximum.cells} == expected
    assert by_maximum.linear_regions() == by_difference.linear_regions()


@quick
@given(integer_networks(), polygons(), st.tuples(*[st.integers(-2, 2)] * 2), st.integers(0, 99))
def test_order_copies_and_coordinates_change_nothing(network, polygon, shift, seed):
    weights, biases = network
    part = partition(chain(weights, biases, RELU), *PLANE, polygon)
    # Neurons of the first layer in another order, each with a doubled copy that is not used.
    order = np.random.default_rng(seed).permutation(len(biases[0]))
    unused = np.zeros_like(weights[1])
    permuted = [np.vstack([weights[0][order], 2 * weights[0]]), np.hstack([weights[1][:, order], unused]), *weights[2:]]
    offsets = [np.concatenate([biases[0][order], 2 * biases[0]]), *biases[1:]]
    # x = origin + s u + t v for other coordinates: (s, t) = (p + 2 q, q) + shift
    origin, u, v = shift, [1, 0], [2, 1]
    moved = [(p - shift[0] - 2 * (q - shift[1]), q - shift[1]) for p, q in polygon]
    other = partition(chain(permuted, offsets, RELU), origin, u, v, moved)

    def back(cell):
        points = [(p + 2 * q + shift[0], q + shift[1]) for p, q in cell.polygon]
        return frozenset(points)

    assert {frozenset(cell.polygon) for cell in part.cells} == {back(cell) for cell in other.cells}
    assert part.counts_per_stage == other.counts_per_stage
    assert len(part.adjacency()) == len(other.adjacency())
    assert part.linear_regions() == other.linear_regions()


@quick
@given(integer_networks(), polygons())
def test_counts_per_stage_are_those_of_the_network_cut_short(network, polygon):
    stages = chain(*network, RELU)
    counts = partition(stages, *PLANE, polygon).counts_per_stage
    for k in range(1, len(stages) + 1):
        assert len(partition(stages[:k], *PLANE, polygon).cells) == counts[k - 1]


@quick
@given(integer_networks(inputs=3), st.lists(st.integers(-3, 3), min_size=6, max_size=6))
def test_traces_are_what_plain_evaluation_says(network, ends):
    stages, start, end = chain(*network, Pieces.clamp(0, 2)), ends[:3], ends[3:]
    line = trace(stages, start, end)
    stops = [F(0), *line.breakpoints, F(1)]
    assert stops == sorted(set(stops)) and len(line.patterns) == len(line.outputs) == len(stops) - 1
    assert all(line.changes)
    for (low, high), pattern, outputs in zip(itertools.pairwise(stops), line.patterns, line.outputs, strict=True):
        for t in (low, (low + high) / 2, (low + 99 * high) / 100, high):
            point = [a + t * (b - a) for a, b in zip(start, end, strict=True)]
            expected, values = evaluate(*network, point, lambda z: min(max(z, F(0)), F(2)), [0, 2])
            assert [a * t + c for a, c in outputs] == values
            if low < t < high:
                assert list(pattern[:-1]) == expected
    back = trace(stages, end, start)
    assert back.breakpoints == [1 - t for t in reversed(line.breakpoints)]
    assert back.patterns == line.patterns[::-1] and back.changes == line.changes[::-1]


@quick
@given(integer_networks(), polygons(), st.lists(st.integers(1, 9), min_size=6, max_size=6))
def test_a_segment_of_a_slice_meets_the_cells_it_runs_through(network, polygon, parts):
    stages = chain(*network, RELU)
    part = partition(stages, *PLANE, polygon)
    start, end = (
        [
            sum(w * F(point[axis]) for w, point in zip(weights, polygon[:3], strict=True)) / sum(weights)
            for axis in (0, 1)
        ]
        for weights in (parts[:3], parts[3:])
    )
    line = trace(stages, start, end)
    for (low, high), pattern in zip(itertools.pairwise([F(0), *line.breakpoints, F(1)]), line.patterns, strict=True):
        t = (low + high) / 2
        cells = part.locate(*(a + t * (b - a) for a, b in zip(start, end, strict=True)))
        if len(cells) == 1:  # otherwise the segment runs along an edge
            assert part.cells[cells[0]].pattern == pattern


@quick
@given(integer_networks(), polygons())
def test_decision_segments_are_where_the_two_largest_outputs_tie(network, polygon):
    part = partition(chain(*network, RELU), *PLANE, polygon)
    for cell, segments in zip(part.cells, part.decision_segments(), strict=True):
        outputs = cell.outputs if len(cell.outputs) > 1 else [*cell.outputs, (0, 0, 0)]
        (a, b, c), (d, e, f) = outputs[:2]  # there are no more
        signs = [(a - d) * s + (b - e) * t + c - f for s, t in cell.polygon]
        if min(signs) < 0 < max(signs):
            assert len(segments) == 1
        elif any(signs):
            assert len(segments) == (signs.count(0) == 2)
        else:
            assert not segments
        for low, high in segments:
            assert low < high
            for s, t in (low, high):
                assert (a - d) * s + (b - e) * t + c - f == 0
                on_sides = zip(cell.polygon, cell.polygon[1:] + cell.polygon[:1], strict=True)
                assert any((q[0] - p[0]) * (t - p[1]) == (q[1] - p[1]) * (s - p[0]) for p, q in on_sides)


@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_networks_of_every_kind(kind, slice_kind):
    shape = (3, 4, 3, 2)
    network = random_network(kind, shape, seed=1)
    assert [w.shape for w in network[0]] == list(zip(shape[1:], shape[:-1], strict=True))
    assert all(array.dtype == np.float64 for arrays in network for array in arrays)
    *slice_, polygon = random_slice(slice_kind, 3, seed=1)
    part = partition(chain(*network, RELU), *slice_, polygon)

    def forward_at(point):
        return evaluate(*network, place(slice_, point), lambda z: max(z, F(0)), [0])

    check_partition(part, polygon, forward_at, count=1)
