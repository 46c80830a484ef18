"""Dense layers folded in the core: bounds against fractions, counts against folds of any maps and the tracer."""

from fractions import Fraction as F

import numpy as np
import pytest

from cases.engine import Case, box, generic, random_case, random_stages, stage
from cases.networks import NETWORK_KINDS
from cases.parts import SCALE
from cases.row_bounds import check_bounds, exact_rows, little_left_of_large_weights
from pylinregion._util.errors import UnsupportedModelError
from pylinregion.counting.exact_count import _TracedArms
from pylinregion.exact import arms, dense_fold, slice_fold
from pylinregion.exact.arms import ArmsAround, star_of
from pylinregion.exact.dense_fold import DenseFolder, is_chain
from pylinregion.exact.fold_room import Room
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.stages import Stages
from pylinregion.native.simd import simd_sets, use_simd

ACTIVATIONS = ("relu", "leaky_relu 0.01", "abs", "prelu -0.3", "prelu 1")


@pytest.fixture
def all_dense(monkeypatch):
    """Folds in the core are taken however loose their bounds are, and there are no others."""
    monkeypatch.setattr(dense_fold, "_LOOSE", 1.0)

    def refused(*_):
        raise AssertionError("it is not folded in the core")

    monkeypatch.setattr(slice_fold.SliceFolder, "_folded", refused)


def slices_of(case, count, seed):
    """The case's own slice, and smaller ones with directions of their own around points that lines may pass through."""
    rng = np.random.default_rng(seed)
    u, v, origin = case.plane.T
    origins = [origin, *(origin + s * u + t * v for s, t in rng.integers(-2, 3, (count - 1, 2)) / 2)]
    corners = [case.corners, *(case.corners * 2.0 ** -int(rng.integers(0, 10)) for _ in range(count - 1))]
    directions = rng.integers(-2, 3, (2, count, len(u))).astype(float)
    directions[:, 0] = u, v
    return Slices(*directions, np.stack(origins), np.stack(corners))


@pytest.mark.turns(2)
@pytest.mark.part(15)
@pytest.mark.parametrize("seed", range(3 * SCALE))
@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rows_are_within_their_bounds_and_what_is_settled_is(activation, kind, seed, all_dense):
    case, _ = random_case(seed)
    shape = (case.plane.shape[0], 8, 7, 6, 2)
    stages = random_stages("chain", kind, shape, activation, seed)
    check_bounds(stages, slices_of(Case(stages, case.plane, case.corners), 3, seed), seed)


@pytest.mark.parametrize("name", simd_sets())
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_counts_are_those_of_folds_of_any_maps(kind, name, monkeypatch):
    """Of wide layers: most rows are settled by norms, others by their columns, and vectors have all lengths."""
    stages = random_stages("chain", kind, (5, 40, 37, 50, 3), "relu", 1)
    rng = np.random.default_rng(2)
    count = 60
    slices = Slices(
        *rng.standard_normal((2, 1, 5)),
        np.concatenate([rng.standard_normal((count - 6, 5)), rng.integers(-1, 2, (6, 5)).astype(float)]),
        10.0 ** rng.uniform(-3, -0.3, (count, 1, 1)) * box(-1, 1),
    )
    with use_simd(name):
        found = ManySlices(stages).count(slices)
    monkeypatch.setattr(slice_fold, "is_chain", lambda stages: False)
    expected = ManySlices(stages).count(slices)
    assert np.array_equal(found.regions, expected.regions) and np.array_equal(found.changes, expected.changes)


@pytest.mark.parametrize("name", simd_sets())
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_arms_are_those_of_the_tracer(kind, name, monkeypatch):
    monkeypatch.setattr(dense_fold, "_LOOSE", 1.0)
    monkeypatch.setattr(arms, "_MOST_LINES", 1 << 20)
    activation = ACTIVATIONS[NETWORK_KINDS.index(kind) % len(ACTIVATIONS)]
    stages = random_stages("chain", kind, (4, 20, 23, 30, 3), activation, 1)
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.standard_normal((8, 4)), rng.integers(-1, 2, (8, 4)) / 2])  # on lines, some of them
    radii = 10.0 ** rng.uniform(-2, 0.5, len(points))
    radii[-4:] = 0.5
    shared = np.concatenate([np.eye(4)[:2], rng.standard_normal((3, 4))])
    for directions in (shared, rng.standard_normal((len(points), 5, 4))):
        for exactly in (False, True):
            with use_simd(name):
                found = ArmsAround(stages).count(star_of(points, directions, radii), force_exact=exactly)
            assert found is not None
            traced = _TracedArms(stages, points, radii, directions)
            changed, regions = traced.count(slice(0, len(points)), 1, lambda done: None)
            own = np.unpackbits(found.changes, axis=1, count=stages.lines, bitorder="little")
            assert np.array_equal(own, changed) and np.array_equal(found.regions, regions)


@pytest.mark.parametrize("kind", ("generic", "grid", "spike"))
def test_rows_of_arms_are_within_their_bounds(kind):
    stages = random_stages("chain", kind, (4, 9, 8, 7, 1), "leaky_relu 0.01", 2)
    rng = np.random.default_rng(5)
    points, directions, radii = rng.standard_normal((3, 4)), rng.standard_normal((6, 4)), np.array([0.01, 0.1, 1.0])
    found = DenseFolder(stages).fold(
        star_of(points, directions, radii), Room(2, [9] * len(stages.stages), None, None), cells=False
    )
    assert found is not None and found["affine"].shape[0] == 7
    column, seen = 0, 0
    for b, (begin, end) in enumerate(zip(found["begin"][:-1], found["begin"][1:], strict=True)):
        n = int(end - begin)
        matrix = found["columns"][column : column + n * (n + 8)].reshape(n, n + 8)
        column += n * (n + 8)
        lines, settled = found["line"][begin:end].tolist(), np.unpackbits(found["on"][b], bitorder="little")
        for arm, s in [(arm, F(float(radii[b])) * part) for arm in range(6) for part in (-1, F(-1, 3), F(2, 3), 1)]:
            x = [F(float(c)) + s * F(float(d)) for c, d in zip(points[b], directions[arm], strict=True)]
            rows, on = exact_rows(stages, x)
            assert all(on[line] == settled[line] for line in set(range(stages.lines)) - set(lines))
            for i, line in enumerate(lines):
                value = F(float(found["affine"][arm, begin + i])) * s + F(float(found["affine"][-1, begin + i]))
                value += sum(F(float(matrix[j, i])) * rows[other] for j, other in enumerate(lines[:i]) if on[other])
                assert abs(value - rows[line]) <= F(float(found["error"][begin + i]))
                seen += 1
    assert seen > 50


def test_rows_that_read_nothing_but_zeros_are_off(all_dense):
    """Behind a layer that is off all over the slice, without biases: no integers are asked for."""
    stages = Stages([
        stage({-1: [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]}, [-9.0, -9.0, 0.0], "relu"),
        stage({0: [[1.0, -2.0, 3.0], [0.0, 0.0, 1.0]]}, [0.0, 0.0], "relu"),
        stage({1: [[1.0, 1.0]]}, [0.0], "relu"), stage({2: [[1.0]]}, [0.0], "identity")])  # fmt: skip
    slices = Slices(np.eye(2)[:1], np.eye(2)[1:], np.zeros((2, 2)), np.stack([box(-1, 1)] * 2))
    found = SliceFolder(stages).fold(slices)
    assert found.begin.tolist() == [0, 0, 0] and not found.on.any()


@pytest.mark.parametrize("between", [0, 1, 3])
def test_what_a_layer_is_off_by_is_handed_on(between, all_dense):
    stages, slices = little_left_of_large_weights(between)
    assert np.diff(SliceFolder(stages).fold(slices).begin).sum() > 8
    assert 1e-3 < check_bounds(stages, slices, 0) < 1


def test_which_networks_are_chains():
    for name in ACTIVATIONS:
        assert is_chain(random_stages("chain", "generic", (3, 5, 4, 1), name, 0))
    for name in ("relu6", "hardsigmoid", "clamp low", "identity"):
        assert not is_chain(random_stages("chain", "generic", (3, 5, 4, 1), name, 0))
    skips = [random_stages("skips", "generic", (3, 5, 4, 4, 1), "relu", seed) for seed in range(4)]
    assert not all(is_chain(each) for each in skips)


def test_loose_bounds_are_left_to_others():
    """Weights that cancel: bounds by norms alone would leave every decision to integers."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((6, 6))
    layers = [1e7 * rng.standard_normal((6, 2)), np.concatenate([weights, -weights + 1e-7], axis=1)[:, ::2], weights]
    stages = Stages([*(stage({k - 1: w}, [1.0] * len(w), "relu") for k, w in enumerate(layers)),
                     stage({2: np.ones((1, 6))}, [0.0], "identity")])  # fmt: skip
    points = rng.standard_normal((4, 2))
    star = star_of(points, np.eye(2), np.full(4, 1e-9))
    assert DenseFolder(stages).fold(star, Room(2, [6] * len(stages.stages), None, None), cells=False) is None
    around = ArmsAround(stages)
    assert around.count(star) is None and around.count(star_of(points, np.eye(2), np.full(4, 1e-9))) is None


def test_numbers_that_are_too_large_are_left_to_the_tracer():
    stages = generic((2, 5, 1))
    assert ArmsAround(stages).count(star_of(np.full((1, 2), 1e200), np.eye(2), np.ones(1))) is None
    with pytest.raises(UnsupportedModelError, match="scale"):
        _TracedArms(stages, np.full((1, 2), 1e200), np.ones(1), np.eye(2)).count(slice(0, 1), 1, lambda done: None)


def test_an_error_of_the_report_ends_arms():
    stages = generic((30, 80, 80, 80, 1))
    rng = np.random.default_rng(0)

    def report(done):
        raise KeyError("enough")

    star = star_of(rng.standard_normal((400, 30)), rng.standard_normal((20, 30)) / 30, np.full(400, 0.5))
    with pytest.raises(KeyError, match="enough"):
        ArmsAround(stages).count(star, force_exact=True, report=report)
