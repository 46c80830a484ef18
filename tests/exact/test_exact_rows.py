"""The signs that integers decide (``SliceProblem.sign_at``) against fractions, for any rows, patterns and scales."""

from itertools import combinations

import numpy as np
import pytest
from gmpy2 import mpq
from hypothesis import given, settings
from hypothesis import strategies as st

from cases.engine import ACTIVATIONS, KINKED, Case, perceptron, random_stages, stage, units
from cases.networks import NETWORK_KINDS, random_network
from cases.parts import examples
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, Terms
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.native.exact_engines import SliceProblem, TraceProblem

random_ones = settings(max_examples=examples(60, 3), deadline=None, derandomize=True, database=None)
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
AXIS = -1


class Problem:
    """The integers of a case alone: no float64 system, so that numbers may have any scale."""

    def __init__(self, case):
        self.case = case
        stages, plane = case.stages, case.plane
        u, v, origin = (np.ascontiguousarray(column) for column in plane.T)
        nothing = np.zeros(stages.lines)
        self.problem = SliceProblem(
            stages=[],
            a=nothing,
            b=nothing,
            c=nothing,
            error=nothing,
            norms=None,
            corners=case.corners,
            exact_stages=stages.arrays(),
            u=u,
            v=v,
            origin=origin,
        )

    def sign(self, i, j, k, on):
        return self.problem.sign_at(i, j, k, on[: self.case.stages.lines])

    def rows(self, on):
        """The row of each line and border in fractions, forwards: the other way than the code under test."""
        stages = self.case.stages
        values = {INPUT: [tuple(mpq(x) for x in row) for row in self.case.plane.tolist()]}
        rows = {}
        for number, (each, first) in enumerate(zip(stages.stages, stages.first_lines, strict=True)):
            z = [(mpq(0), mpq(0), mpq(bias)) for bias in each.bias.tolist()]
            for source, weight in each.matrices.items():
                for r, weights in enumerate(weight.tolist()):
                    for w, value in zip(weights, values[source], strict=True):
                        if w:
                            z[r] = tuple(x + mpq(w) * y for x, y in zip(z[r], value, strict=True))
            values[number] = []
            u = each.units
            for r, row in enumerate(z):
                begin, end = int(u.line_begin[r]), int(u.line_begin[r + 1])
                for line in range(begin, end):
                    rows[first + line] = (row[0], row[1], row[2] - mpq(float(u.kinks[line])))
                piece = begin + r + int(on[first + begin : first + end].sum())
                slope, intercept = (mpq(float(x[piece])) / mpq(u.denominator) for x in (u.slopes, u.intercepts))
                values[number].append((slope * row[0], slope * row[1], slope * row[2] + intercept))
        corners = [[mpq(x) for x in corner] for corner in self.case.corners.tolist()]
        for e, (x1, y1) in enumerate(corners):
            x2, y2 = corners[(e + 1) % len(corners)]
            rows[-2 - e] = (y1 - y2, x2 - x1, x1 * y2 - x2 * y1)
            if len(corners) == 2:
                rows[-2 - e] = (mpq(1), mpq(0), -x1)
        rows[AXIS] = (mpq(0), mpq(1), mpq(0))
        return rows


def sign_of(i, j, k):
    """Of row k where rows i and j cross; None if they do not."""
    minor = i[0] * j[1] - j[0] * i[1]
    if minor == 0:
        return None
    x, y = (i[1] * j[2] - j[1] * i[2]) / minor, (j[0] * i[2] - i[0] * j[2]) / minor
    value = k[0] * x + k[1] * y + k[2]
    return (value > 0) - (value < 0)


def random_pattern(rng, stages):
    """Bits as the engine has them: a unit above its second kink is above the first."""
    on = np.zeros(stages.lines + 8, np.uint8)
    for each, first in zip(stages.stages, stages.first_lines, strict=True):
        for begin, end in zip(each.units.line_begin[:-1] + first, each.units.line_begin[1:] + first, strict=True):
            on[begin : begin + rng.integers(0, end - begin + 1)] = 1
    return on


def check(case, rng, patterns=2, triples=25):
    """Signs of random triples of rows. Gives how many were -1, 0 and 1."""
    problem = Problem(case)
    seen = {-1: 0, 0: 0, 1: 0}
    stages = case.stages
    stage_of = {}
    for number, (each, first) in enumerate(zip(stages.stages, stages.first_lines, strict=True)):
        stage_of.update({first + line: number for line in range(each.units.lines)})
    for _ in range(patterns):
        on = random_pattern(rng, stages)
        rows = problem.rows(on)
        names = np.array(sorted(rows))
        for i, j, k in names[[rng.permutation(len(names))[:3] for _ in range(triples)]].tolist():
            expected = sign_of(rows[i], rows[j], rows[k])
            if expected is None:
                continue
            seen[expected] += 1
            assert problem.sign(i, j, k, on) == expected, (i, j, k)
            assert problem.sign(j, i, k, on) == expected
            assert problem.sign(i, j, i, on) == problem.sign(i, j, j, on) == 0
            # The bits of the rows' own stages and of later ones are not read.
            last = max((stage_of[row] for row in (i, j, k) if row >= 0), default=0)
            garbage = on.copy()
            if all(stage_of.get(row, last) == last for row in (i, j, k)):
                begin = stages.first_lines[last]
                garbage[begin:] = rng.integers(0, 2, len(garbage) - begin)
                assert problem.sign(i, j, k, garbage) == expected
    return seen


def plane(rng, dimensions, kind="normal"):
    if kind == "integers":
        return rng.integers(-2, 3, (dimensions, 3)).astype(np.float64)
    return rng.standard_normal((dimensions, 3))


# ---- networks


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_every_kind_of_weights(kind):
    rng = np.random.default_rng(0)
    for seed, shape in enumerate([(2, 8, 8, 1), (3, 5, 5, 5, 2), (4, 10, 4, 1)]):
        stages = random_stages("chain", kind, shape, "relu", seed)
        check(Case(stages, plane(rng, shape[0], "integers" if seed else "normal"), SQUARE), rng)


@pytest.mark.parametrize("activation", KINKED)
def test_every_activation(activation):
    rng = np.random.default_rng(1)
    for kind in ("generic", "small_int", "float32"):
        stages = random_stages("chain", kind, (3, 4, 4, 3, 1), activation, 1)
        check(Case(stages, plane(rng, 3), SQUARE), rng)


@pytest.mark.parametrize("structure", ["stage by stage", "mixed", "skips", "with linear stages"])
def test_every_structure(structure):
    rng = np.random.default_rng(2)
    for seed, kind in enumerate(["generic", "small_int", "int8", "wild", "scaled", "grid"]):
        stages = random_stages(structure, kind, (3, 5, 4, 4, 1), KINKED[seed], seed)
        check(Case(stages, plane(rng, 3, "integers" if seed % 2 else "normal"), SQUARE), rng)


def test_exact_ties_are_zeros():
    """Copies of neurons, and lines through common points, two layers deep."""
    first = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [-2, 0, 0], [1, 0, 0]]
    second = [[3, 0, 1, 0, 0], [0, 3, 1, 0, 0], [3, 3, 2, 0, 0], [0, 0, 0, 0, 0]]
    stages = perceptron([first, second, np.ones((1, 4))], [np.zeros(5), [0, 0, 0, 0], [0]])
    case = Case(stages, np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), SQUARE)
    seen = check(case, np.random.default_rng(3), patterns=12, triples=60)
    assert seen[0] > 100 and seen[1] > 50


def test_stages_with_several_denominators():
    """Sixths in two stages, taken by skips around one of them: all the row's parts get the same factor."""
    rng = np.random.default_rng(4)
    for _ in range(4):
        w = lambda *shape: rng.standard_normal(shape)  # noqa: E731
        stages = Stages(
            [
                stage({INPUT: w(3, 2)}, w(3), "hardsigmoid"),
                stage({0: w(3, 3), INPUT: w(3, 2)}, w(3), "relu"),
                stage({1: w(3, 3), 0: w(3, 3)}, w(3), ["hardsigmoid", "relu", "leaky_relu 0.01"]),
                stage({2: w(3, 3), 0: w(3, 3), INPUT: w(3, 2)}, w(3), "relu6"),
                stage({3: w(2, 3), 1: w(2, 3)}, w(2), "relu"),
            ]
        )
        check(Case(stages, plane(rng, 2), SQUARE), rng)


# ---- maps of every kind


def random_map(rng, width, bits):
    """A convolution, its transpose, few terms, or a matrix at places, of vectors of that width."""
    spread_out = lambda *shape: spread(rng, rng.standard_normal(shape), bits)  # noqa: E731
    kind = rng.integers(4)
    if kind == 0:
        places = int(rng.choice([n for n in (1, 2, 3, 4) if width % n == 0]))
        return Dense(spread_out(int(rng.integers(1, 4)), width // places), places)
    if kind == 1:
        rows, terms = int(rng.integers(2, 9)), int(rng.integers(1, min(width, 4) + 1))
        place = np.stack([rng.choice(width, terms, replace=False) for _ in range(rows)])
        factor = spread_out(rows, terms)
        factor[rng.random(factor.shape) < 0.2] = 0
        return Terms(place, factor, width)
    channels = int(rng.choice([n for n in (1, 2, 3) if width % n == 0]))
    groups = int(rng.choice([1, channels]))
    size, kernel, stride, dilation = width // channels, *(int(n) for n in rng.integers(1, 4, 3))
    after = int(rng.integers(1, 5))
    own, theirs = (channels, size), (groups * int(rng.integers(1, 3)), after)
    source, target = (theirs, own) if kind == 2 else (own, theirs)
    weight = spread_out(target[0], source[0] // groups, kernel)
    padding = int(rng.integers(-2, 4))
    return Convolution(weight, source, target, (stride,), (padding,), (dilation,), groups, bool(kind == 2))


def maps_stages(rng, inputs, bits):
    """Stages that take maps of every kind, of one source or two."""
    stages, widths = [], {INPUT: inputs}
    for number in range(4):
        source = int(rng.integers(-1, number)) if number > 1 else number - 1
        block = random_map(rng, widths[source], bits)
        blocks, rows = {source: block}, block.rows
        others = [each for each in widths if each != source]
        if others and rng.random() < 0.6:
            other = int(rng.choice(others))
            blocks[other] = Terms(
                rng.integers(0, widths[other], (rows, 1)),
                spread(rng, rng.standard_normal((rows, 1)), bits),
                widths[other],
            )
        names = rng.choice(["relu", "leaky_relu 0.25", "hardsigmoid", "identity"] if number < 3 else ["relu"], rows)
        stages.append(Stage(blocks, spread(rng, rng.standard_normal(rows), bits), units(names.tolist())))
        widths[number] = rows
    return Stages(stages)


@pytest.mark.parametrize("bits", [0, 5, 60])
@pytest.mark.parametrize("seed", range(6))
def test_maps_of_every_kind(seed, bits):
    rng = np.random.default_rng([seed, bits])
    inputs = int(rng.choice([6, 8, 12]))
    stages = maps_stages(rng, inputs, bits)
    seen = check(Case(stages, spread(rng, plane(rng, inputs), bits), SQUARE), rng)
    assert sum(seen.values()) > 2


def test_wide_maps_with_the_largest_digits():
    """As many products as a convolution has, all of one sign and near 2^53."""
    largest = 1 - 2.0**-53
    for transposed in (False, True):
        rng = np.random.default_rng(int(transposed))
        weight = np.full((40, 40, 3, 3), largest)
        weight[rng.random(weight.shape) < 0.5] = 0.75 + 2.0**-40
        block = Convolution(weight, (40, 3, 3), (40, 3, 3), (1, 1), (1, 1), (1, 1), 1, transposed)
        first = Dense(np.where(rng.random((360, 2)) < 0.5, largest, rng.uniform(0.5, 1, (360, 2))))
        last = Terms(np.arange(360)[None, ::90].copy(), np.array([[1.0, 2.0, largest, 3.0]]), 360)
        stages = Stages(
            [
                Stage({INPUT: first}, rng.uniform(0.5, 1, 360), units(["relu"] * 360)),
                Stage({0: block}, -rng.uniform(0, 200, 360), units(["relu"] * 360)),
                Stage({1: last}, np.array([-1000.0]), units(["relu"])),
            ]
        )
        case = Case(stages, np.array([[largest, 2.0**-30, 1], [-(2.0**-30), largest, largest]]), SQUARE)
        problem, on = Problem(case), np.ones(stages.lines + 8, np.uint8)
        rows, seen = problem.rows(on), set()
        for i, j, k in combinations([360, 500, 719, 720, -2, -3, 5], 3):
            if (expected := sign_of(rows[i], rows[j], rows[k])) is not None:
                assert problem.sign(i, j, k, on) == expected
                seen.add(expected)
        assert seen >= {-1, 1}


# ---- scales


def spread(rng, array, bits):
    """The entries times powers of two, up to 2^bits and 2^-bits."""
    return np.ldexp(array, rng.integers(-bits, bits + 1, array.shape))


@pytest.mark.parametrize("bits", [20, 100, 300, 450])
def test_exponents_that_are_wildly_spread(bits):
    rng = np.random.default_rng(bits)
    for activation in ("relu", "leaky_relu 0.01", "hardsigmoid"):
        weights, biases = random_network("generic", (2, 4, 4, 1), 0)
        weights, biases = ([spread(rng, x, bits) for x in arrays] for arrays in (weights, biases))
        stages = perceptron(weights, biases, activation)
        for corners in (SQUARE, spread(rng, SQUARE, bits)):
            check(Case(stages, spread(rng, plane(rng, 2), bits), corners), rng)


def test_the_smallest_and_nearly_the_largest_doubles():
    rng = np.random.default_rng(5)
    tiny, huge = 5e-324, (2 - 2.0**-52) * 2.0**1022  # twice that is refused before it comes here
    weights = [[[tiny, huge], [huge, -tiny], [3 * tiny, 7 * tiny]], [[1.0, tiny, huge], [huge, huge, -huge]]]
    stages = perceptron([*weights, [[1.0, 1.0]]], [[tiny, -huge, 0.0], [0.0, 5 * tiny], [0.0]])
    for corners in (SQUARE, SQUARE * huge, SQUARE * tiny, np.array([[0, 0], [huge, tiny], [tiny, huge]])):
        check(Case(stages, np.array([[tiny, 1.0, huge], [huge, -tiny, 0.0]]), corners), rng, patterns=4)


@pytest.mark.parametrize("width, bits", [(3, 0), (30, 0), (200, 0), (3, 400), (60, 400), (400, 100), (1500, 450)])
def test_digits_of_every_width(width, bits):
    """Wide layers and spread exponents leave fewer bits for a digit: between 24 and 17 of them here.

    Largest entries of one sign, so that the sums come near 2^53.
    """
    rng = np.random.default_rng(width)
    largest = 1 - 2.0**-53
    first = np.where(rng.random((width, 2)) < 0.5, largest, rng.uniform(0.5, 1, (width, 2)))
    second = np.where(rng.random((3, width)) < 0.5, largest, rng.uniform(0.5, 1, (3, width)))
    if bits:
        first, second = spread(rng, first, bits), spread(rng, second, bits)
    stages = perceptron([first, second, np.ones((1, 3))], [rng.uniform(0.5, 1, width), -rng.uniform(0, width, 3), [0]])
    case = Case(stages, np.array([[largest, 2.0**-30, 1], [-(2.0**-30), largest, largest]]), SQUARE)
    problem = Problem(case)
    seen = set()
    for fill in (1, 0, None):
        on = random_pattern(rng, stages)
        if fill is not None:
            on[:width] = fill
        rows = problem.rows(on)
        names = [width, width + 1, width + 2, -2, -3, 0]
        for i, j, k in combinations(names, 3):
            if (expected := sign_of(rows[i], rows[j], rows[k])) is not None:
                assert problem.sign(i, j, k, on) == expected
                seen.add(expected)
    assert seen >= {-1, 1}


def test_exponents_too_far_apart_for_the_width_are_refused():
    width = 40_000
    first = np.ldexp(1.0, np.resize([-1000, 1000], (width, 2)))
    stages = perceptron([first, np.ones((2, width)), np.ones((1, 2))], [np.zeros(width), np.ones(2), [0]])
    problem = Problem(Case(stages, np.array([[2.0**-900, 0, 1], [0, 2.0**900, 1]]), SQUARE))
    with pytest.raises(OverflowError, match="too far apart"):
        problem.sign(width, -2, width + 1, np.ones(stages.lines, np.uint8))


# ---- integers of any size


LIMBS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, 2**96 - 2**32, 2**300, 2**318 - 1]
PARTS = 6  # of 53 bits


@random_ones
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*LIMBS, *(-x for x in LIMBS)]),
            st.integers(-(2**318) + 1, 2**318 - 1),
            st.builds(
                lambda a, b, s: s * (2**a - 2**b), st.integers(0, 317), st.integers(0, 317), st.sampled_from([1, -1])
            ),
        ),
        min_size=9,
        max_size=9,
    ),
    st.booleans(),
)
def test_determinants_of_large_integers(numbers, dependent):
    """Three rows of 318-bit integers, put together from 53-bit weights of inputs that are powers of two."""
    if dependent:  # the third a combination of the others, as far as there is room: a determinant of 0 or nearly
        numbers = [x >> 4 for x in numbers[:6]]
        numbers += [2 * a + 3 * b for a, b in zip(numbers[:3], numbers[3:], strict=True)]
    weights = np.zeros((3, 3 * PARTS))
    units = np.zeros((3 * PARTS, 3))
    for column in range(3):
        for part in range(PARTS):
            units[column * PARTS + part, column] = 2.0 ** (53 * part)
            for row in range(3):
                value = numbers[3 * row + column]
                digits = (abs(value) >> (53 * part)) & (2**53 - 1)
                weights[row, column * PARTS + part] = float(digits if value >= 0 else -digits)
    case = Case(perceptron([weights, np.ones((1, 3))], [np.zeros(3), [0]]), units, SQUARE)
    problem = Problem(case)
    on = np.zeros(8, np.uint8)
    rows = problem.rows(on)
    for row in range(3):
        assert rows[row] == tuple(numbers[3 * row : 3 * row + 3])
    for i, j, k in [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, -2, 1), (-3, 2, 0), (-2, -3, 1)]:
        if (expected := sign_of(rows[i], rows[j], rows[k])) is not None:
            assert problem.sign(i, j, k, on) == expected
            assert not dependent or min(i, j, k) < 0 or expected == 0


@random_ones
@given(st.integers(0, 2**32 - 1))
def test_any_network_at_any_scale(seed):
    rng = np.random.default_rng(seed)
    structure = ("chain", "mixed", "skips", "stage by stage")[rng.integers(4)]
    shape = ((2, 3, 1), (3, 4, 3, 1), (2, 2, 2, 2, 1), (5, 7, 2))[rng.integers(4)]
    kind = NETWORK_KINDS[rng.integers(len(NETWORK_KINDS))]
    stages = random_stages(structure, kind, shape, list(ACTIVATIONS)[rng.integers(len(ACTIVATIONS))], seed)
    bits = int(rng.choice([0, 0, 5, 60, 400]))
    for each in stages.stages:
        each.bias = spread(rng, each.bias, bits)
        for source, weight in each.matrices.items():
            each.blocks[source] = Dense(np.ascontiguousarray(spread(rng, weight, bits)))
    check(Case(stages, spread(rng, plane(rng, shape[0], rng.choice(["normal", "integers"])), bits), SQUARE), rng)


# ---- segments


def test_ends_and_axis_of_a_segment():
    rng = np.random.default_rng(6)
    for begin, end in ((0.0, 1.0), (-2.0, 3.0), (2.0**-40, 2.0**60), (-(2.0**-1074), 2.0**1000), (3.0, 3.5)):
        corners = np.array([[begin, 0.0], [end, 0.0]])
        stages = random_stages("chain", "generic", (3, 5, 4, 1), "hardtanh", 0)
        flat = plane(rng, 3)
        flat[:, 1] = 0
        problem = Problem(Case(stages, flat, corners))
        on = random_pattern(rng, stages)
        rows, seen = problem.rows(on), set()
        for i in [-2, -3, *range(stages.lines)]:
            for k in [-2, -3, *range(stages.lines)]:
                expected = 0 if i == k else sign_of(rows[i], rows[AXIS], rows[k])
                if expected is not None:
                    assert problem.sign(i, AXIS, k, on) == expected
                    seen.add(expected)
        assert seen == {-1, 0, 1}


# ---- what crosses to the core is checked there


def stage_arrays(**changed):
    """A layer of two neurons on two inputs, as ``Stages.arrays`` gives it, with some of its arrays changed."""
    arrays = {
        "blocks": [(-1, Dense(np.eye(2)).for_core())],
        "bias": np.zeros(2),
        "line_begin": np.array([0, 1, 2]),
        "kinks": np.zeros(2),
        "slopes": np.array([0.0, 1, 0, 1]),
        "intercepts": np.zeros(4),
        "denominator": 1.0,
    }
    return [tuple((arrays | changed).values())]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"blocks": [(-1, Dense(np.eye(3)).for_core())]}, r"blocks\[-1\] must be of 2 rows and width 2, got 3 and 3"),
        ({"blocks": [(0, Dense(np.eye(2)).for_core())]}, "blocks must be of stages before it"),
        ({"bias": np.zeros((2, 1))}, r"stages\[0\].bias must be \[any\], got \[2, 1\]"),
        ({"line_begin": np.array([0, 2])}, r"line_begin must be \[3\], got \[2\]"),
        ({"line_begin": np.array([1, 2, 3])}, "line_begin must go on from the stage before"),
        ({"line_begin": np.array([0, 3, 2])}, "line_begin must ascend"),
        ({"kinks": np.zeros(3)}, r"kinks must be \[2\], got \[3\]"),
        ({"slopes": np.zeros(2)}, r"slopes must be \[4\], got \[2\]"),
        ({"intercepts": np.zeros(5)}, r"intercepts must be \[4\], got \[5\]"),
    ],
)
def test_stages_that_do_not_fit_are_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        TraceProblem(stage_arrays(**changed), [[1.0]], 2)


@pytest.mark.parametrize("bias", [np.zeros(2, np.float32), np.zeros(2, np.int64), np.zeros(4)[::2]])
def test_arrays_of_another_dtype_or_layout_are_refused(bias):
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        TraceProblem(stage_arrays(bias=bias), [[1.0]], 2)


def test_segments_that_do_not_fit_are_refused_by_name():
    problem = TraceProblem(stage_arrays(), [[1.0]], 2)
    how = {"maps": False, "starts": False, "force_exact": False, "threads": 1, "report": None}
    for pairs, first, radii, message in (
        ([[0, 2]], np.zeros((2, 2)), None, "pairs must be numbers of rows"),
        ([[0, -1]], np.zeros((2, 2)), None, "pairs must be numbers of rows"),
        ([[0, 1]], np.zeros((2, 3)), None, r"first must be \[any, 2\], got \[2, 3\]"),
        ([[0, 1]], np.zeros((2, 2)), np.zeros(2), r"radii must be \[1\], got \[2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            problem.trace(np.array(pairs), first, np.zeros((2, 2)), radii, **how)


def test_a_problem_keeps_its_arrays_alive():
    problem = TraceProblem(stage_arrays(bias=np.array([-0.25, 0.5])), [[1.0]], 2)
    filler = [np.full(2, np.nan) for _ in range(1000)]
    found = problem.trace(np.array([[0, 0]]), np.zeros((1, 2)), np.ones((1, 2)), None, False, False, True, 1, None)
    assert len(filler) == 1000 and found["t"].tolist() == [0.25]
