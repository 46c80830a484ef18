"""Networks on slices for the engine's tests and ``bench/check_exact.py``, and the comparison with the rational oracle.

Nothing is tested here. A case is a network as stages, the plane ``[inputs, 3]`` of its slice, and its corners.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np

from cases.networks import NETWORK_KINDS, SLICE_KINDS, random_network, random_slice
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.linear_maps import Dense
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import Units
from pylinregion.reference import rational

# name: kinks, slopes and intercepts of one unit, before they are divided by the denominator
ACTIVATIONS = {
    "relu": ([0], [0, 1], [0, 0], 1),
    "leaky_relu 0.01": ([0], [0.01, 1], [0, 0], 1),
    "leaky_relu 0.25": ([0], [0.25, 1], [0, 0], 1),
    "prelu -0.3": ([0], [-0.3, 1], [0, 0], 1),
    "prelu 1": ([0], [1, 1], [0, 0], 1),  # no bend, and yet two pieces
    "abs": ([0], [-1, 1], [0, 0], 1),
    "relu6": ([0, 6], [0, 1, 0], [0, 0, 6], 1),
    "hardtanh": ([-1, 1], [0, 1, 0], [-1, 0, 1], 1),
    "clamp": ([0.25, 1.5], [0, 1, 0], [0.25, 0, 1.5], 1),
    "clamp low": ([-0.75], [0, 1], [-0.75, 0], 1),
    "clamp high": ([0.3125], [1, 0], [0, 0.3125], 1),
    "hardsigmoid": ([-3, 3], [0, 1, 0], [0, 3, 6], 6),
    "softshrink": ([-0.5, 0.5], [1, 0, 1], [0.5, 0, -0.5], 1),
    "tent": ([-1, 0, 1], [0, 1, -1, 0], [0, 1, 1, 0], 1),
    "steps": ([-2, -0.5, 0.5, 2], [1, 0, 2, 0, -1], [1.5, -0.5, 0.5, 1.5, 3.5], 1),
    "identity": ([], [1], [0], 1),
    "half": ([], [0.5], [0.25], 1),
    "constant": ([], [0], [1.5], 1),
}
KINKED = [name for name, (kinks, *_) in ACTIVATIONS.items() if kinks]
SHAPES = (
    (2, 8, 8, 1),
    (3, 5, 5, 5, 2),
    (2, 3, 3, 3, 3, 3, 1),
    (4, 10, 4, 1),
    (2, 1, 1, 1),
    (2, 12, 1),
    (5, 6, 6, 3),
)
STRUCTURES = ("chain", "stage by stage", "mixed", "skips", "with linear stages", "wide")


IDENTITY_PLANE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def box(low, high):
    return np.array([[low, low], [high, low], [high, high], [low, high]], dtype=np.float64)


def lines(*rows, activation="relu"):
    """One hidden layer with a neuron for each (a, b, c) on the plane of two inputs."""
    rows = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return perceptron([rows[:, :2], np.ones((1, len(rows)))], [rows[:, 2], np.zeros(1)], activation)


def generic(shape, seed=0, gain=1.0):
    weights, biases = random_network("generic", shape, seed)
    return perceptron([weight * gain for weight in weights], biases)


def slow():
    """Half a minute of work, or more."""
    return Engine(generic((2, 128, 128, 128, 1), gain=1.5), IDENTITY_PLANE, box(-3, 3))


@dataclass
class Case:
    stages: Stages
    plane: np.ndarray
    corners: np.ndarray


@dataclass
class Difference(Exception):
    """Where an engine's answer differs from the oracle's."""

    what: str
    got: object
    expected: object

    def __str__(self):
        return f"{self.what}: got {self.got}, expected {self.expected}"


# ---- networks


def units(names, denominator=None):
    """``Units`` with an activation for each row."""
    chosen = [ACTIVATIONS[name] for name in names]
    common = denominator or max((each[3] for each in chosen), default=1)
    factors = [common / each[3] for each in chosen]
    return Units(
        np.cumsum([0, *(len(kinks) for kinks, *_ in chosen)]).astype(np.int64),
        np.array([kink for kinks, *_ in chosen for kink in kinks], dtype=np.float64),
        np.array([slope * f for (_, slopes, *_), f in zip(chosen, factors, strict=True) for slope in slopes]),
        np.array([x * f for (_, _, values, _), f in zip(chosen, factors, strict=True) for x in values]),
        float(common),
    )


def stage(blocks, bias, names):
    """A stage; ``names`` is one activation for all rows, or one for each."""
    bias = np.ascontiguousarray(bias, dtype=np.float64)
    names = [names] * len(bias) if isinstance(names, str) else names
    blocks = {source: Dense(np.ascontiguousarray(weight, dtype=np.float64)) for source, weight in blocks.items()}
    return Stage(blocks, bias, units(names))


def perceptron(weights, biases, activation="relu"):
    """The stages of a multilayer perceptron; ``activation`` is one name for all hidden layers, or a list of them."""
    hidden = len(weights) - 1
    names = [activation] * hidden if isinstance(activation, str) else activation
    layers = zip(weights, biases, [*names, "identity"], strict=True)
    return Stages([stage({k - 1: weight}, bias, name) for k, (weight, bias, name) in enumerate(layers)])


def random_stages(structure, kind, shape, activation, seed):
    """A network of a kind of weights; see STRUCTURES for what else it may have."""
    rng = np.random.default_rng([STRUCTURES.index(structure), NETWORK_KINDS.index(kind), seed, *shape])
    weights, biases = random_network(kind, shape, seed)
    hidden = len(weights) - 1
    if structure == "chain":
        return perceptron(weights, biases, activation)
    if structure == "stage by stage":
        return perceptron(weights, biases, [str(rng.choice(KINKED)) for _ in range(hidden)])
    if structure == "mixed":
        return perceptron(weights, biases, [rng.choice(list(ACTIVATIONS), len(b)).tolist() for b in biases[:-1]])
    if structure == "skips":
        stages = perceptron(weights, biases, activation).stages
        for k in range(1, len(stages)):
            earlier = [source for source in range(INPUT, k - 1) if rng.random() < 0.6]
            for source in earlier:
                width = shape[0] if source == INPUT else stages[source].rows
                extra, _ = random_network(kind, (width, stages[k].rows), seed + 100 * k + source + 2)
                stages[k].blocks[source] = Dense(extra[0])
        return Stages(stages)
    if structure == "with linear stages":
        names = [activation if rng.random() < 0.6 else "identity" for _ in range(hidden)]
        names[int(rng.integers(hidden))] = activation
        return perceptron(weights, biases, names)
    raise ValueError(structure)


def wide_case(kind, activation, seed):
    """Most neurons of the later stages are settled on most cells: what the engine folds away."""
    rng = np.random.default_rng([NETWORK_KINDS.index(kind), seed])
    shape = [(2, 4, 80, 1), (2, 3, 70, 30, 1), (3, 4, 4, 90, 1), (2, 6, 40, 40, 1)][rng.integers(4)]
    weights, biases = random_network(kind, shape, seed)
    *slice_, corners = random_slice(("generic", "grid")[rng.integers(2)], shape[0], seed)
    plane = plane_of(*slice_)
    for k, weight in enumerate(weights[:-1]):
        if k:  # a few lines through the middle of what the slice reaches, the rest far from it
            typical = np.abs(weight).sum(axis=1) * (1 + np.abs(biases[k - 1]).max())
            far = rng.random(len(weight)) < 0.9
            biases[k] = np.where(far, rng.choice([-8.0, 8.0], len(weight)) * typical, biases[k])
    scale = 2.0 ** -int(rng.integers(0, 4))
    return Case(perceptron(weights, biases, activation), plane, corners * scale)


def plane_of(origin, u, v):
    return np.ascontiguousarray(np.stack([u, v, origin], axis=1))


POLYGONS = ("given", "many corners", "thin", "huge", "tiny")


def reshaped(corners, how, seed):
    """Other polygons, still strictly convex: with up to 12 corners, thin, huge, tiny."""
    rng = np.random.default_rng([POLYGONS.index(how), seed])
    if how == "many corners":
        n = int(rng.integers(3, 13))
        angles = 2 * np.pi * (np.arange(n) + rng.uniform(-0.4, 0.4, n)) / n
        corners = rng.uniform(1, 4) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        corners = np.round(corners * 64) / 64 if rng.random() < 0.5 else corners
    elif how == "thin":
        corners = corners * np.ldexp(1.0, [0, -int(rng.integers(10, 45))])[:: int(rng.choice([-1, 1]))]
    elif how == "huge":
        corners = corners * np.ldexp(1.0, int(rng.integers(10, 60)))
    elif how == "tiny":
        corners = corners * np.ldexp(1.0, -int(rng.integers(10, 60)))
    exactly = rational._convex(corners)
    return np.array(exactly, dtype=np.float64) if len(exactly) < len(corners) else np.ascontiguousarray(corners)


def random_case(seed):
    """A case of any kind, and what it is; the same for the same seed."""
    rng = np.random.default_rng(seed)
    structure = str(rng.choice(STRUCTURES, p=[0.35, 0.15, 0.15, 0.15, 0.1, 0.1]))
    kind, slice_kind = str(rng.choice(NETWORK_KINDS)), str(rng.choice(SLICE_KINDS))
    activation = "relu" if rng.random() < 0.3 else str(rng.choice(KINKED))
    polygon = str(rng.choice(POLYGONS, p=[0.6, 0.16, 0.08, 0.08, 0.08]))
    about = {"structure": structure, "kind": kind, "activation": activation}
    if structure == "wide":
        return wide_case(kind, activation, seed), {**about, "slice": "generic", "polygon": "given"}
    shape = SHAPES[rng.integers(len(SHAPES))]
    stages = random_stages(structure, kind, shape, activation, seed)
    *slice_, corners = random_slice(slice_kind, shape[0], seed)
    corners = reshaped(corners, polygon, seed)
    return Case(stages, plane_of(*slice_), corners), {**about, "slice": slice_kind, "polygon": polygon}


def nearly_tied_case(seed):
    """Lines through common points and copies of lines, moved by some units in the places between 2^-30 and 2^-52."""
    rng = np.random.default_rng(seed)
    inputs = int(rng.integers(2, 4))
    shape = [(inputs, 9, 1), (inputs, 6, 5, 1), (inputs, 4, 4, 4, 1), (inputs, 12, 1), (inputs, 5, 12, 1)][
        rng.integers(5)
    ]
    place = -int(rng.integers(30, 53))
    how = ("any", "through the origin", "through a point", "copies")[rng.integers(4)]

    def nudged(x):
        return np.where(rng.random(x.shape) < 0.7, x * (1 + rng.integers(-3, 4, x.shape) * 2.0**place), x)

    weights, biases = [], []
    for columns, rows in pairwise(shape):
        weight, point = rng.integers(-3, 4, (rows, columns)).astype(np.float64), rng.integers(-2, 3, columns) / 2
        if how == "copies":
            weight, point = rng.standard_normal((rows, columns)), rng.standard_normal(columns)
            for row in range(1, rows):
                if rng.random() < 0.7:
                    weight[row] = weight[rng.integers(row)] * rng.choice([1, -1, 0.5, 3, 1 / 3])
        bias = {"any": rng.integers(-3, 4, rows).astype(np.float64), "through the origin": np.zeros(rows)}.get(
            how, -(weight @ point)
        )
        weights.append(nudged(weight))
        biases.append(nudged(bias) + (rng.random(rows) < 0.3) * rng.integers(-2, 3, rows) * 2.0**place)
    *slice_, corners = random_slice(str(rng.choice(["grid", "corner", "edge"])), inputs, seed)
    plane = plane_of(*slice_)
    activation = str(rng.choice(["relu", "relu", "relu", "abs", "hardtanh", "leaky_relu 0.25", "tent"]))
    return Case(perceptron(weights, biases, activation), nudged(plane) if rng.random() < 0.5 else plane, corners)


def far_case(seed):
    """A polygon far from where s and t are 0: few digits are left for what happens in it."""
    rng = np.random.default_rng(seed)
    shape, kind = SHAPES[rng.integers(len(SHAPES))], str(rng.choice(NETWORK_KINDS))
    origin, u, v, corners = random_slice(str(rng.choice(["grid", "corner", "edge"])), shape[0], seed)
    s, t = rng.integers(-8, 9, 2) * 2.0 ** int(rng.integers(5, 40))
    stages = random_stages("chain", kind, shape, "relu", seed)
    return Case(stages, plane_of(origin - s * u - t * v, u, v), corners + np.array([s, t]))


def any_case(seed):
    """As :func:`random_case`, but a quarter of them nearly tied or far away."""
    if seed % 8 == 6:
        about = {"structure": "chain", "kind": "nearly tied", "activation": "several"}
        return nearly_tied_case(seed), {**about, "slice": "several", "polygon": "given"}
    if seed % 8 == 7:
        about = {"structure": "chain", "kind": "far away", "activation": "relu"}
        return far_case(seed), {**about, "slice": "several", "polygon": "far"}
    return random_case(seed)


# ---- the oracle


def oracle_stages(stages):
    """The same network in fractions."""
    out = []
    for each in stages.stages:
        u, denominator = each.units, Fraction(each.units.denominator)
        blocks = {
            k: of_maxima(stages.stages[k].units, weight) if k >= 0 else weight for k, weight in each.matrices.items()
        }
        rows = []
        if u.groups is not None:
            maxima = [rational.Max(tuple(range(begin, end))) for begin, end in pairwise(u.groups.tolist())]
            out.append(rational.Stage({k: block.tolist() for k, block in blocks.items()}, each.bias.tolist(), maxima))
            continue
        for row in range(each.rows):
            begin, end = u.line_begin[row], u.line_begin[row + 1]
            pieces = slice(begin + row, end + row + 1)
            slopes = [Fraction(x) / denominator for x in u.slopes[pieces]]
            intercepts = [Fraction(x) / denominator for x in u.intercepts[pieces]]
            rows.append((row, rational.Pieces(tuple(u.kinks[begin:end]), tuple(slopes), tuple(intercepts))))
        out.append(rational.Stage({k: block.tolist() for k, block in blocks.items()}, each.bias.tolist(), rows))
    return out


def of_maxima(units, weight):
    """Weights for candidates as weights for their maxima, which the oracle has as units."""
    if units.groups is None:
        return weight
    first = units.groups[:-1]
    same("weights of candidates", weight.tolist(), weight[:, first][:, units.neuron_of_line].tolist())
    return weight[:, first] * units.slopes[2 * first + 1]


def oracle(case):
    """The exact partition of a case."""
    u, v, origin = case.plane.T
    return rational.partition(oracle_stages(case.stages), origin, u, v, case.corners)


# ---- the comparison


def bits_of(stages, patterns):
    """``[cells, lines]``: is the line's neuron above the kink."""
    return np.unpackbits(patterns, axis=1, bitorder="little")[:, : stages.lines]


def patterns_of(stages, patterns):
    """The patterns of an engine's cells as the oracle has them: for each stage, for each unit its piece."""
    bits = bits_of(stages, patterns).astype(np.int64)
    columns = []
    for each, first in zip(stages.stages, stages.first_lines, strict=True):
        if each.units.groups is not None:
            for low, high in pairwise(each.units.groups + first):
                if np.any(bits[:, low:high].sum(axis=1) != 1):
                    raise Difference("bits of a maximum", bits[:, low:high], "one winner")
                columns.append(bits[:, low:high].argmax(axis=1)[:, None])
            columns[-each.units.neurons :] = [np.concatenate(columns[-each.units.neurons :], axis=1)]
            continue
        begin = each.units.line_begin + first
        sums = np.concatenate([np.zeros((len(bits), 1), np.int64), np.cumsum(bits, axis=1)], axis=1)
        columns.append(sums[:, begin[1:]] - sums[:, begin[:-1]])
        for low, high in pairwise(begin):  # a unit above its second kink is above the first
            if high - low > 1 and np.any(np.diff(bits[:, low:high], axis=1) > 0):
                raise Difference("bits of a unit", bits[:, low:high], "ascending kinks")
    return [tuple(tuple(column[cell].tolist()) for column in columns) for cell in range(len(bits))]


def same(what, got, expected):
    if got != expected:
        raise Difference(what, got, expected)


def rotated(cycle):
    """A cycle from where it is the least."""
    cycle = list(cycle)
    return min(tuple(cycle[k:] + cycle[:k]) for k in range(len(cycle)))


def sides(cycle):
    return list(zip(cycle, cycle[1:] + cycle[:1], strict=True))


def areas_of(mesh, size=1.0):
    """The areas of an engine's cells in units of ``size`` squared, with the sign of their orientation."""
    out = []
    for begin, end in pairwise(mesh.offsets):
        points = mesh.vertices[mesh.indices[begin:end]]
        points = points / size - points[0] / size
        following = np.roll(points, -1, axis=0)
        out.append(float(np.sum(points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0])) / 2)
    return np.array(out)


def check_counts(case, counted, part):
    """The counts of each stage with lines."""
    expected = [n for n, each in zip(part.counts_per_stage, case.stages.stages, strict=True) if each.units.lines]
    same("stopped", counted.stopped, False)
    same("regions", counted.regions, expected)


def check_mesh(case, mesh):
    """What is true of every right mesh, whatever the network."""
    cells = len(mesh.offsets) - 1
    same("Euler", len(mesh.vertices) - len(mesh.edges) + cells, 1)
    same("patterns", len({row.tobytes() for row in mesh.patterns}), cells)
    inside = mesh.edge_cells.min(axis=1) >= 0
    if np.any(mesh.edge_cells.max(axis=1) < 0) or np.any(mesh.edge_cells[:, 0] == mesh.edge_cells[:, 1]):
        raise Difference("cells of an edge", mesh.edge_cells.tolist(), "one or two")
    # An edge is on the line of the first neuron that changes across it.
    bits = bits_of(case.stages, mesh.patterns)
    first, second = mesh.edge_cells[inside].T
    differ = bits[first] != bits[second]
    same("edges between cells of one pattern", int(np.sum(~differ.any(axis=1))), 0)
    lowest = [row_between(case.stages, row) for row in differ]
    same("rows of inner edges", mesh.edge_rows[inside].tolist(), lowest)
    same("rows of the border", set(mesh.edge_rows[~inside].tolist()), {-1})
    if not np.isfinite(mesh.vertices).all():
        raise Difference("vertices", mesh.vertices.tolist(), "finite")


def row_between(stages, differ):
    """The row on the edge between two cells whose bits differ so: a line, or a pair of winners."""
    line = int(np.argmax(differ))
    first, row = 0, len(differ)  # of a stage's lines; of a maximum's pairs, which come after all lines
    for stage in stages.stages:
        for begin, end in pairwise(() if stage.units.groups is None else (stage.units.groups + first).tolist()):
            if begin <= line < end:
                winners = tuple(np.flatnonzero(differ[begin:end]).tolist())
                return row + list(combinations(range(end - begin), 2)).index(winners)
            row += math.comb(end - begin, 2)
        first += len(stage.units.kinks)
    return line


def check_cells(case, mesh, part, coordinates=True):
    """Every cell against the oracle's: pattern, corners, neighbours around it, area. Gives the worst vertex's error."""
    check_mesh(case, mesh)
    patterns = patterns_of(case.stages, mesh.patterns)
    expected = {cell.pattern: number for number, cell in enumerate(part.cells)}
    same("set of patterns", set(patterns), set(expected))
    number_of = [expected[pattern] for pattern in patterns]
    # Who is on the other side of each side, around each cell; -1 outside.
    owners = {}
    for number, cell in enumerate(part.cells):
        for side in sides(cell.polygon):
            owners.setdefault(frozenset(side), []).append(number)
    pairs = {tuple(edge): cells for edge, cells in zip(mesh.edges.tolist(), mesh.edge_cells.tolist(), strict=True)}
    same("edges", len(pairs), len(owners))
    same("vertices", len(mesh.vertices), len({point for cell in part.cells for point in cell.polygon}))
    size = float(np.abs(case.corners).max())
    areas = areas_of(mesh, size)
    exact_areas = [area / Fraction(size) ** 2 for area in part.areas()]
    most = np.abs(case.corners).max(axis=0) / size  # coordinates are known to parts of these
    extent = (case.corners.max(axis=0) - case.corners.min(axis=0)) / size
    allowed = 1e-9 * float(sum(exact_areas)) + 1e-11 * float(most @ extent[::-1])
    worst = 0.0
    for cell, number in enumerate(number_of):
        polygon = part.cells[number].polygon
        indices = mesh.indices[mesh.offsets[cell] : mesh.offsets[cell + 1]].tolist()
        around = [
            next((number_of[other] for other in pairs[min(p, q), max(p, q)] if other not in (cell, -1)), -1)
            for p, q in sides(indices)
        ]
        exactly = [next((o for o in owners[frozenset(side)] if o != number), -1) for side in sides(polygon)]
        same(f"corners of cell {cell}", len(indices), len(polygon))
        same(f"neighbours around cell {cell}", rotated(around), rotated(exactly))
        if coordinates and not abs(areas[cell] - float(exact_areas[number])) <= allowed:
            raise Difference(f"area of cell {cell}", areas[cell], float(exact_areas[number]))
        points = np.array(polygon, dtype=np.float64)
        found = mesh.vertices[indices]
        error = min(float(np.abs(np.roll(points, k, axis=0) / size - found / size).max()) for k in range(len(points)))
        worst = max(worst, error)
    if coordinates and not worst <= 4e-7:  # what is promised; areas are compared far more closely
        raise Difference("worst vertex", worst, "less than 4e-7 of the largest coordinate")
    return worst


# How to run the engine: everything must agree.
RUNS = {
    "plain": {},
    "exact": {"force_exact": True},
    "one fold": {"fold_ahead": 0},
    "one stage ahead": {"fold_ahead": 1},
    "two stages ahead": {"fold_ahead": 2},
    "all stages ahead": {"fold_ahead": 99},
    "two threads": {"threads": 2},
    "three threads": {"threads": 3},
}


def check_case(case, runs=tuple(RUNS), part=None, coordinates=True):
    """Run the engine in several ways against the oracle. Gives the results: (cells or not, run) -> answer."""
    part = oracle(case) if part is None else part
    engine = Engine(case.stages, case.plane, case.corners)
    results = {}
    for name in runs:
        for cells in (False, True):
            try:
                answer = engine.enumerate(cells=cells, **RUNS[name])
                check_counts(case, answer, part)
                if cells:
                    check_cells(case, answer.cells, part, coordinates)
            except Difference as difference:
                raise replace(difference, what=f"{name}, cells={cells}: {difference.what}") from None
            results[cells, name] = answer
    for name in runs:
        if "threads" in RUNS[name] and (True, "plain") in results:
            for key, value in vars(results[True, "plain"].cells).items():
                other = getattr(results[True, name].cells, key)
                if not np.array_equal(value, other):
                    raise Difference(f"{name}: {key}", other, value)
    return results


# ---- segments


def segment_case(case, seed):
    """The same network along a segment of the case's slice: integers from corner to corner, or anywhere."""
    rng = np.random.default_rng(seed)
    u, v, origin = case.plane.T
    low, high = case.corners.min(axis=0), case.corners.max(axis=0)
    start, end = case.corners[rng.permutation(len(case.corners))[:2]]
    if rng.random() < 0.5:
        start, end = rng.uniform(low, high), rng.uniform(low, high)
    start, end = (origin + s * u + t * v for s, t in (start, end))
    plane = np.stack([end - start, np.zeros(len(u)), start], axis=1)
    return Case(case.stages, np.ascontiguousarray(plane), np.array([[0.0, 0.0], [1.0, 0.0]]))


def segment_oracle(case):
    """The exact trace of a segment."""
    direction, _, start = case.plane.T
    begin, end = (Fraction(s) for s in case.corners[:, 0])
    ends = [[Fraction(x) + s * Fraction(d) for x, d in zip(start, direction, strict=True)] for s in (begin, end)]
    return rational.trace(oracle_stages(case.stages), *ends)


def check_segment(case, line=None, coordinates=True, **how):
    """Count and list the pieces of a segment, and compare all with the oracle."""
    line = segment_oracle(case) if line is None else line
    engine = Engine(case.stages, case.plane, case.corners)
    counted = engine.enumerate_part(0, 1, cells=False, **how)
    answer = engine.enumerate_part(0, 1, cells=True, **how)
    same("counts", counted.regions, answer.regions)
    same("stopped", answer.stopped, False)
    if answer.regions:
        same("regions", answer.regions[-1], line.n_regions)
    same("patterns", patterns_of(case.stages, answer.cells.patterns), line.patterns)  # in order
    same("ends of a piece", np.diff(answer.cells.offsets).tolist(), [2] * line.n_regions)
    begins, ends = answer.cells.xy[0::2], answer.cells.xy[1::2]
    same("t", np.count_nonzero(answer.cells.xy[:, 1]), 0)
    same("pieces follow each other", begins[1:].tolist(), ends[:-1].tolist())
    (begin, _), (end, _) = case.corners
    same("ends", (begins[0, 0], ends[-1, 0]), (begin, end))
    bits = bits_of(case.stages, answer.cells.patterns)
    lowest = [row_between(case.stages, p != q) for p, q in pairwise(bits)]
    same("rows", answer.cells.rows[1:-1:2].tolist(), lowest)
    same("rows", answer.cells.rows[2:-1:2].tolist(), lowest)
    same("rows at the ends", (answer.cells.rows[0], answer.cells.rows[-1]), (-2, -3))
    exactly = np.array([float(Fraction(begin) + t * (Fraction(end) - Fraction(begin))) for t in line.breakpoints])
    worst = float(np.abs(exactly - ends[:-1, 0]).max(initial=0.0) / (end - begin))
    if coordinates and not worst <= 1e-9:
        raise Difference("breakpoints", ends[:-1, 0].tolist(), exactly.tolist())
    return answer
