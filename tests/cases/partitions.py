"""Models on slices for the tests of partitions, and what the rational oracle says of them. Nothing is tested here."""

import functools
from fractions import Fraction as F
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.networks import random_network, random_slice
from pylinregion.reference import rational

# name: the module, and its pieces
ACTIVATIONS = {
    "relu": (nn.ReLU, rational.Pieces.relu),
    "leaky_relu": (lambda: nn.LeakyReLU(0.25), lambda: rational.Pieces.leaky_relu(0.25)),
    "abs": (lambda: Abs(), rational.Pieces.abs),
    "relu6": (nn.ReLU6, lambda: rational.Pieces.clamp(0, 6)),
    "hardtanh": (nn.Hardtanh, lambda: rational.Pieces.clamp(-1, 1)),
    "hardsigmoid": (nn.Hardsigmoid, rational.Pieces.hardsigmoid),
    "softshrink": (
        lambda: nn.Softshrink(0.25),
        lambda: rational.Pieces((F(-1, 4), F(1, 4)), (F(1), F(0), F(1)), (F(1, 4), F(0), F(-1, 4))),
    ),
    "threshold": (
        lambda: nn.Threshold(0.5, 0.5),
        lambda: rational.Pieces((F(1, 2),), (F(0), F(1)), (F(1, 2), F(0))),
    ),
}


class Abs(nn.Module):
    def forward(self, x):
        return x.abs()


def perceptron(activation, *shapes):
    """A multilayer perceptron in float64, by the shapes of its weights."""
    parts = []
    for rows, columns in shapes:
        parts += [nn.Linear(columns, rows, dtype=torch.float64), ACTIVATIONS[activation][0]()]
    return nn.Sequential(*parts[:-1])


captured_once = functools.cache(perceptron)


def filled(model, weights, biases):
    """The same model, with these weights in its linear layers."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(torch.as_tensor(np.asarray(weight, dtype=np.float64)))
            layer.bias.copy_(torch.as_tensor(np.asarray(bias, dtype=np.float64)))
    return model


def model_of(weights, biases, activation="relu"):
    return filled(perceptron(activation, *map(np.shape, weights)), weights, biases)


def mlp(*widths, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    parts = [part for k in range(len(widths) - 1) for part in (nn.Linear(*widths[k : k + 2]), nn.ReLU())]
    return nn.Sequential(*parts[:-1]).to(dtype)


def small(**options):
    """A partition into some dozens of regions."""
    return plr.partition(mlp(2, 8, 8, 2), plr.Slice.box(-2, 2), **options)


def same_partition(p, q):
    assert p.regions_per_layer == q.regions_per_layer
    for name in ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns"):
        assert np.array_equal(getattr(p, name), getattr(q, name)), name


def both(weights, biases, where, activation="relu", **options):
    """The partition and the oracle's, of a slice given as origin, u, v and polygon."""
    model = filled(captured_once(activation, *map(np.shape, weights)), weights, biases)
    part = plr.partition(model, plr.Slice(*where), **options)
    return part, rational.partition(rational.chain(weights, biases, ACTIVATIONS[activation][1]()), *where)


def random_both(kind, slice_kind, shape, seed, activation="relu"):
    return both(*random_network(kind, shape, seed), random_slice(slice_kind, shape[0], seed), activation)


def pattern_of(cell):
    """The pieces of the hidden layers of an oracle's cell."""
    return cell.pattern[:-1]


def patterns_of(part):
    """The same of every region of a partition."""
    return [tuple(tuple(row.tolist()) for row in part.pattern(r).values()) for r in range(part.n_regions)]


def matched(part, oracle):
    """For each region of the partition the oracle's cell of the same pattern; fails unless they are the same sets."""
    at = {pattern_of(cell): i for i, cell in enumerate(oracle.cells)}
    found = patterns_of(part)
    assert len(set(found)) == len(found)
    assert set(found) == set(at)
    return [at[pattern] for pattern in found]


def check(part, oracle, coordinates=True):
    assert list(part.regions_per_layer) == oracle.counts_per_stage[:-1]
    assert part.n_regions == len(oracle.cells)
    at = matched(part, oracle)
    pairs = [tuple(pair) for pair in part.edge_cells[part.edge_cells[:, 1] >= 0].tolist()]
    neighbours = {frozenset((at[p], at[q])) for p, q in pairs}
    assert neighbours == oracle.adjacency() and len(pairs) == len(neighbours)
    matrix = part.adjacency()
    assert matrix.shape == (part.n_regions, part.n_regions) and matrix.dtype == bool
    assert {tuple(pair) for pair in np.argwhere(matrix.toarray()).tolist()} == {*pairs, *((q, p) for p, q in pairs)}
    assert part.degrees().tolist() == matrix.toarray().sum(axis=1).tolist()
    check_neurons(part, oracle, at)
    if not coordinates:
        return
    maps = np.array([[[float(x) for x in row] for row in oracle.cells[i].outputs] for i in at])
    assert np.allclose(part.affine_maps(), maps, rtol=1e-9, atol=1e-9 * np.abs(maps).max())
    assert np.allclose(
        part.areas(), [float(area) for area in map(oracle.areas().__getitem__, at)], rtol=1e-7, atol=1e-9
    )
    size = np.abs(part.slice.polygon).max()
    for r, i in enumerate(at):
        got, want = part.polygon(r), np.array([[float(s), float(t)] for s, t in oracle.cells[i].polygon])
        assert got.shape == want.shape
        starts = [np.abs(got - np.roll(want, k, axis=0)).max() for k in range(len(want))]
        assert min(starts) < 1e-7 * size
    part.verify()


def check_neurons(part, oracle, at):
    """The neuron of an edge changes across it, and those of ``neurons`` change somewhere."""
    width = np.cumsum([0, *(len(layer) for layer in oracle.cells[0].pattern[:-1])])
    flat = np.array([[piece for layer in oracle.cells[i].pattern[:-1] for piece in layer] for i in at])
    assert part.neurons.tolist() == np.flatnonzero((flat != flat[0]).any(axis=0)).tolist()
    for (p, q), neuron, layer in zip(
        part.edge_cells.tolist(), part.edge_neuron.tolist(), part.layer_of_edge.tolist(), strict=True
    ):
        assert (neuron < 0) == (q < 0) == (layer < 0)
        if q >= 0:
            assert flat[p][neuron] != flat[q][neuron]
            assert part.neuron(neuron) == (part.layers[layer], neuron - width[layer])
            assert width[layer] <= neuron < width[layer + 1]


def joined(cells, pairs):
    """Sets of cells that pairs connect."""
    groups = {cell: {cell} for cell in cells}
    for p, q in pairs:
        if groups[p] is not groups[q]:
            groups[p] |= groups[q]
            for cell in groups[q]:
                groups[cell] = groups[p]
    return {frozenset(group) for group in groups.values()}


def linear_regions(oracle):
    """The oracle's cells in sets of equal maps that hang together."""
    pairs = [tuple(pair) for pair in oracle.adjacency()]
    same = [(p, q) for p, q in pairs if oracle.cells[p].outputs == oracle.cells[q].outputs]
    return joined(range(len(oracle.cells)), same)


def by_class(oracle):
    """The oracle's cells cut where the largest output changes: cells whose pattern is (place of the cell, class)."""
    parts = []
    for place, cell in enumerate(oracle.cells):
        outputs = cell.outputs if len(cell.outputs) > 1 else [(F(0),) * 3, *cell.outputs]
        for winner, row in enumerate(outputs):
            polygon = [] if row in outputs[:winner] else cell.polygon
            for other in outputs:
                polygon = clipped(polygon, tuple(a - b for a, b in zip(row, other, strict=True)))
            if polygon:
                parts.append(rational.Cell(polygon, (place, winner), cell.outputs))
    return rational.ExactPartition(parts, [])


def clipped(polygon, row):
    """The part of a polygon where ``row`` is not negative; empty if it has no interior."""
    values = [row[0] * s + row[1] * t + row[2] for s, t in polygon]
    if not any(value > 0 for value in values):
        return polygon if polygon and not any(values) else []
    kept = []
    for (p, x), (q, y) in zip(
        zip(polygon, values, strict=True),
        zip(polygon[1:] + polygon[:1], values[1:] + values[:1], strict=True),
        strict=True,
    ):
        if x >= 0:
            kept.append(p)
        if x * y < 0:
            kept.append(tuple(a + (b - a) * x / (x - y) for a, b in zip(p, q, strict=True)))
    return kept


def boundary(oracle):
    """``{(cell, cell, class, class): (end, end)}`` with sorted cells and classes, segments joined along their lines."""
    cut = by_class(oracle)
    found = {}
    for (p, q), cells in cut.edges.items():
        for i, j in combinations(sorted(cells), 2):
            (a, k), (b, m) = cut.cells[i].pattern, cut.cells[j].pattern
            if k != m:
                found.setdefault((*sorted((a, b)), *sorted((k, m))), []).extend([p, q])
    return {key: (min(ends), max(ends)) for key, ends in found.items()}


def check_decision(part, oracle):
    """The decision boundary and the classes."""
    at = matched(part, oracle)
    wanted = boundary(oracle)
    found = part.decision_boundary()
    assert len(found.segments) == len(found.cells) == len(found.classes) == len(wanted)
    assert found.segments.shape[1:] == (2, 2) and (found.classes[:, 0] < found.classes[:, 1]).all()
    left = {}
    for segment, cell, classes in zip(*found, strict=True):
        left.setdefault((at[cell], *classes.tolist()), []).append(segment)
    for (a, b, k, m), ends in wanted.items():
        ends = np.array([[float(x) for x in end] for end in ends])
        candidates = [*left.get((a, k, m), []), *left.get((b, k, m), [])]
        assert any(np.allclose(c, ends, atol=1e-7) or np.allclose(c[::-1], ends, atol=1e-7) for c in candidates)
    check_classes(part, oracle, at)


def check_classes(part, oracle, at):
    parts = by_class(oracle)
    share = {}
    for cell, area in zip(parts.cells, parts.areas(), strict=True):
        share[cell.pattern] = area
    for r, winner in enumerate(part.class_of(np.arange(part.n_regions))):
        best = max(area for (place, _), area in share.items() if place == at[r])
        assert float(share[at[r], winner]) == pytest.approx(float(best), rel=1e-9)
    middles = [
        ([float(sum(point[k] for point in cell.polygon) / len(cell.polygon)) for k in (0, 1)], cell.pattern[1])
        for cell, area in zip(parts.cells, parts.areas(), strict=True)
        if area > 1e-9
    ]
    if middles:
        points, classes = zip(*middles, strict=True)
        assert part.class_of(np.array(points)).tolist() == list(classes)
