"""Regions with equal maps, decided modulo primes, against fractions."""

import itertools
from fractions import Fraction as F

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pylinregion as plr
from cases.engine import STRUCTURES, Case, oracle, patterns_of, plane_of, random_stages, stage, wide_case
from cases.networks import NETWORK_KINDS, SLICE_KINDS, integer_networks, polygons, random_slice
from cases.partitions import ACTIVATIONS, both, linear_regions, matched, model_of, random_both
from cases.parts import examples
from pylinregion.exact import residues
from pylinregion.exact.maps import Maps, Reals, jacobians
from pylinregion.exact.residues import Modulo
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.stages import INPUT, Stages
from pylinregion.regions.affine_regions import _components

PLANE = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
quick = settings(max_examples=examples(60, 3), deadline=None, derandomize=True, database=None)


def check(part, oracle):
    """Gives how many regions were joined to others."""
    at = matched(part, oracle)
    labels = part.linear_regions()
    assert labels.dtype == np.int64 and labels.shape == (part.n_regions,)
    firsts = [labels.tolist().index(label) for label in range(labels.max() + 1)]
    assert firsts == sorted(firsts)
    groups = {}
    for region, label in enumerate(labels):
        groups.setdefault(label, set()).add(at[region])
    assert {frozenset(group) for group in groups.values()} == linear_regions(oracle)
    return part.n_regions - len(groups)


@pytest.mark.turns(2)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
def test_linear_regions_are_those_of_the_oracle(slice_kind):
    joined = 0
    for number, kind in enumerate(NETWORK_KINDS):
        shape = ((2, 4, 3, 1), (3, 3, 3, 2), (2, 2, 2, 2, 1))[number % 3]
        joined += check(*random_both(kind, slice_kind, shape, 100 + number))
    assert joined > 5


@pytest.mark.part(2)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kinks_of_every_kind(activation):
    for seed, kind in enumerate(("small_int", "generic", "grid", "three_level", "int8")):
        check(*random_both(kind, "grid", (2, 3, 3, 1), seed, activation))


@pytest.mark.turns(2)
@quick
@given(integer_networks(max_depth=3), polygons(), st.sampled_from(list(ACTIVATIONS)))
def test_integer_networks(network, polygon, activation):
    check(*both(*network, (*PLANE, polygon), activation))


def partition_of(weights, biases, activation="relu"):
    return plr.partition(model_of(weights, biases, activation), plr.Slice.box(-1, 1))


def test_a_neuron_that_no_output_takes_joins_its_sides():
    part = partition_of([np.eye(2), [[1, 0]]], [np.zeros(2), [0.0]])
    assert part.n_regions == 4 and part.linear_regions().max() == 1
    right = part.class_of([[0.5, 0.5], [0.5, -0.5]])
    assert right.tolist() == [1, 1]


def test_two_neurons_that_make_an_affine_function():
    """relu(s) - relu(-s) = s: a breakpoint, and no bend."""
    part = partition_of([[[1, 0], [-1, 0], [0, 1]], [[1, -1, 1]]], [np.zeros(3), [0.0]])
    assert part.n_regions == 4 and sorted(part.linear_regions().tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("bit, regions", [(0.0, 1), (2.0**-52, 2), (-(2.0**-53), 2)])
def test_maps_that_differ_in_one_bit_are_different(bit, regions):
    part = partition_of([[[1, 0.1], [-1, -0.1]], [[1, -1 - bit]]], [np.array([0.3, -0.3]), [0.0]])
    assert part.n_regions == 2 and part.linear_regions().max() + 1 == regions


def test_maps_that_differ_far_below_float64():
    """The second output is s + relu(s) 2^-200: in float64 it has the slope 1 everywhere."""
    tiny = 2.0**-100
    part = partition_of([[[1, 0], [-1, 0]], [[1, -1], [tiny, 0]], [[1, tiny]]], [[0, 0], [4, 4 * tiny], [0]])
    assert part.n_regions == 2 and np.ptp(part.affine_maps()[:, :, :2], axis=0).max() == 0
    assert part.linear_regions().tolist() == [0, 1]


def test_equal_slopes_are_not_enough():
    """The steps between three levels: hardtanh saturates to -1 and to 1."""
    part = partition_of([[[4, 0]], [[1]]], [[0.0], [0.0]], "hardtanh")
    assert part.n_regions == 3 and part.linear_regions().tolist() == [0, 1, 2]


def test_regions_with_equal_maps_that_do_not_touch_stay_apart():
    """max(0, |s| - 1/2) is 0 in the middle and has two slopes; its mirror image at t joins nothing else."""
    part = partition_of([[[1, 0]], [[1]], [[1]]], [[0.0], [-0.5], [0.0]], "relu")
    hat = partition_of([[[1, 0], [1, 0], [1, 0]], [[1, -2, 1]]], [[0.25, 0.0, -0.25], [0.0]])
    assert part.linear_regions().max() + 1 == 2
    assert hat.n_regions == 4 and hat.linear_regions().max() == 3  # 0, up, down, 0


def test_the_bits_of_wide_and_deep_networks_suffice():
    """As many bits are proven as the largest possible difference has: a power of two below it is not zero."""
    for exponent in (10, 200, 400):
        big, small = 2.0**exponent, 2.0**-exponent
        weights = [[[1, 0], [-1, 0]], [[big, -big]], [[small]]]
        model = model_of(weights, [[0.0, 0.0], [0.0], [0.0]])
        part = plr.partition(model, plr.Slice.box(-1, 1))
        assert part.n_regions == 2 and part.linear_regions().tolist() == [0, 1]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_difference_that_primes_divide_is_found(count):
    """The two maps agree modulo the first primes; that they are equal would need more of them."""
    primes = list(itertools.islice(residues._primes(partition_of(*slopes(1.0, 1.0)).stages), count))
    first, second = float(np.prod(primes[:2])), float(np.prod(primes[2:]))
    part = partition_of(*slopes(first, second))
    assert part.n_regions == 2 and part.linear_regions().tolist() == [0, 1]
    assert [part.affine_maps()[:, 0, 0].min(), part.affine_maps()[:, 0, 0].max()] == [0, first * second]


def slopes(first, second):
    """The output is relu(first * s) * second."""
    return [[[1, 0]], [[first]], [[second]]], [[0.0], [0.0], [0.0]]


def test_as_many_kinks_as_units_and_not_one_each():
    weight = np.array([[1.0, 2.0], [3.0, -1.0]])
    first = stage({INPUT: weight}, [0.0, 2.0], ["identity", "hardtanh"])
    check_maps(Stages([first, stage({0: weight}, [1.0, 0.0], "identity")]), "grid", 0)


@pytest.mark.part(2)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_networks_of_every_structure(structure):
    """Skips, stages without kinks, units of different kinds: below the public face, where models are stages."""
    for seed, (kind, activation) in enumerate((("small_int", "relu"), ("grid", "tent"), ("generic", "hardsigmoid"))):
        shape = (2, 4, 3, 3, 2)
        stages = wide_case(kind, activation, seed).stages if structure == "wide" else None
        stages = stages or random_stages(structure, kind, shape, activation, seed)
        check_maps(stages, "grid", seed)


def check_maps(stages, slice_kind, seed):
    case = Case(stages, plane_of(*random_slice(slice_kind, stages.inputs, seed)[:3]), np.array(SQUARE))
    found = Engine(case.stages, case.plane, case.corners).enumerate(cells=True)
    at = {cell.pattern: cell for cell in oracle(case).cells}
    cells = [at[pattern] for pattern in patterns_of(case.stages, found.cells.patterns)]
    maps = np.concatenate(
        [
            chunk.numpy()
            for _, chunk in Maps(case.stages, torch.from_numpy(case.plane), Reals()).chunks(found.cells.patterns)
        ]
    )
    want = np.array([[[float(x) for x in row] for row in cell.outputs] for cell in cells])
    assert np.allclose(maps, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
    pairs = np.array([*itertools.combinations(range(min(40, len(cells))), 2), (0, 0)])
    equal = residues.equal_maps(case.stages, case.plane, found.cells.patterns, pairs)
    assert equal.tolist() == [cells[p].outputs == cells[q].outputs for p, q in pairs]
    slopes = jacobians(case.stages, found.cells.patterns)[0] @ torch.from_numpy(case.plane[:, :2])
    assert np.allclose(slopes, want[:, :, :2], rtol=1e-9, atol=1e-9 * np.abs(want).max())


SQUARE = [[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]]


# ---- the arithmetic


@pytest.mark.parametrize("prime", [97, 8191, 67108859])
def test_residues_are_those_of_fractions(prime):
    rng = np.random.default_rng(prime)
    values = np.concatenate([rng.standard_normal(50) * 10.0 ** rng.integers(-300, 300, 50), [0.0, 1.0, -1.0, 5e-324]])
    ring = Modulo(prime)

    def residue(value):
        return value.numerator * pow(value.denominator, -1, prime) % prime

    assert ring.integers(ring.numbers(values)).tolist() == [residue(F(value)) for value in values.tolist()]
    sixth = ring.integers(ring.quotients(values, 6.0))
    assert sixth.tolist() == [residue(F(value) / 6) for value in values.tolist()]
    large = torch.tensor(rng.integers(-(2**53), 2**53, 1000).astype(np.float64))
    reduced = ring.reduced(large.clone())
    assert float(reduced.abs().max()) <= prime / 2 + 1
    assert ring.integers(reduced).tolist() == [int(value) % prime for value in large.tolist()]


def test_primes_leave_room_for_the_sums():
    stages = plr.partition(model_of([np.ones((3, 5)), np.ones((1, 3))], [np.zeros(3), [0.0]]), five_inputs()).stages
    primes = residues._primes(stages)
    for _ in range(50):
        prime = next(primes)
        assert all(prime % factor for factor in range(2, 1000) if factor < prime)
        assert 8 * ((prime + 1) // 2 + 1) ** 2 < 2**53


def five_inputs():
    return plr.Slice(np.zeros(5), np.eye(5)[0], np.eye(5)[1])


def test_components():
    rng = np.random.default_rng(0)
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
    assert _components(1000, rng.permutation(chain)).tolist() == [0] * 1000
    assert _components(5, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2, 3, 4]
    assert _components(6, np.array([[4, 1], [5, 3], [3, 4]])).tolist() == [0, 1, 2, 1, 1, 1]
