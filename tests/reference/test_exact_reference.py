"""The rational oracle against truths worked out by hand."""

from fractions import Fraction as F

import numpy as np
import pytest

from cases.rational import ACTIVATIONS, IDENTITY, PLANE, RELU, box, lines, of_hidden, shape_of
from pylinregion.reference import rational
from pylinregion.reference.rational import (
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
def test_arrays_of_every_type_are_taken_exactly(dtype, monkeypatch):
    monkeypatch.setattr(rational, "rational", F)
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
