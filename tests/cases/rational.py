"""What the tests of the rational oracle share: plain evaluation and plain geometry, in fractions."""

import itertools
import random
from fractions import Fraction as F

from pylinregion.reference.rational import Pieces, chain, partition

PLANE = ([0, 0], [1, 0], [0, 1])  # s and t are the two inputs
RELU, IDENTITY = Pieces.relu(), Pieces.identity()

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
