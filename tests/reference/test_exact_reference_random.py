"""The rational oracle against plain evaluation and counting formulas, on random networks."""

import itertools
from fractions import Fraction as F

import numpy as np
import pytest
from gmpy2 import mpq
from hypothesis import given, settings
from hypothesis import strategies as st

from cases.networks import NETWORK_KINDS, SLICE_KINDS, integer_networks, polygons, random_network, random_slice
from cases.parts import examples
from cases.rational import ACTIVATIONS, IDENTITY, PLANE, RELU, check_partition, evaluate, lines, place, shape_of
from pylinregion.reference import rational
from pylinregion.reference.rational import (
    Max,
    Pieces,
    Stage,
    chain,
    forward,
    partition,
    trace,
)

quick = settings(max_examples=examples(40, 3), deadline=None, derandomize=True, database=None)


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


@pytest.mark.part(4)
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


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_another_type_of_rationals_gives_the_same(kind, monkeypatch):
    network = random_network(kind, (3, 4, 3, 2), seed=2)
    *slice_, polygon = random_slice("generic", 3, seed=2)
    found = []
    for kind_of_number in (F, mpq):
        monkeypatch.setattr(rational, "rational", kind_of_number)
        found.append(partition(chain(*network, rational.Pieces.relu()), *slice_, polygon).cells)
    cells, again = found
    assert again == cells
    assert isinstance(cells[0].outputs[0][0], F) and not isinstance(again[0].outputs[0][0], F)
