"""Decision boundaries and classes, against clipping in fractions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pylinregion as plr
from cases.networks import NETWORK_KINDS, SLICE_KINDS, integer_networks, polygons
from cases.partitions import both, check_decision, model_of, random_both
from cases.parts import examples

PLANE = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
quick = settings(max_examples=examples(60, 4), deadline=None, derandomize=True, database=None)


@pytest.mark.part(4)
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("kind", ["generic", "small_int", "grid", "zero_bias", "duplicated", "dead", "int8", "float16"])
def test_boundaries_are_those_of_the_oracle(kind, outputs):
    seed = 10 * NETWORK_KINDS.index(kind) + outputs
    check_decision(*random_both(kind, SLICE_KINDS[seed % len(SLICE_KINDS)], (2 + seed % 2, 4, 3, outputs), seed))


@quick
@given(integer_networks(), polygons(), st.sampled_from(["relu", "abs", "hardtanh"]))
def test_ties_of_integer_networks(network, polygon, activation):
    check_decision(*both(*network, (*PLANE, polygon), activation))


def of_outputs(weight, bias, where=None):
    """A network that is affine on the slice, with one region."""
    hidden = [np.eye(2), np.array([100.0, 100.0])]
    weight, bias = np.array(weight, dtype=np.float64), np.array(bias, dtype=np.float64)
    model = model_of([hidden[0], weight], [hidden[1], bias - weight @ hidden[1]])
    return plr.partition(model, where or plr.Slice.box(-1, 1))


def ends(found):
    return sorted(sorted(tuple(end) for end in segment) for segment in found.segments.tolist())


def test_three_classes_meet_in_a_point():
    """Classes s, t and 0: the boundary has three rays from the origin."""
    part = of_outputs([[1, 0], [0, 1], [0, 0]], [0, 0, 0])
    found = part.decision_boundary()
    assert ends(found) == [[(-1, 0), (0, 0)], [(0, -1), (0, 0)], [(0, 0), (1, 1)]]
    assert sorted(found.classes.tolist()) == [[0, 1], [0, 2], [1, 2]] and found.cells.tolist() == [0, 0, 0]
    assert part.class_of([[0.9, 0.1], [0.1, 0.9], [-0.5, -0.5], [3, 0]]).tolist() == [0, 1, 2, -1]
    assert part.class_of(0) in (0, 1, 2) and part.class_of([0, 0, 0]).shape == (3,)


def test_the_class_of_a_region_has_most_of_its_area():
    assert of_outputs([[1, 0], [0, 0]], [-0.5, 0]).class_of(0) == 1
    assert of_outputs([[1, 0], [0, 0]], [0.5, 0]).class_of(0) == 0
    assert of_outputs([[1, 0], [0, 0]], [0, 0]).class_of(0) == 0  # a half each: the lower


def test_one_output_has_two_classes():
    part = of_outputs([[1, 1]], [0])
    found = part.decision_boundary()
    assert ends(found) == [[(-1, 1), (1, -1)]] and found.classes.tolist() == [[0, 1]]
    assert part.class_of([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]).tolist()[:2] == [1, 0]


def test_outputs_that_are_equal_everywhere_have_no_boundary():
    for weight in ([[1, 0], [1, 0]], [[0, 0], [0, 0], [0, 0]], [[0, 0]]):
        part = of_outputs(weight, [0.0] * len(weight))
        assert len(part.decision_boundary().segments) == 0 and part.class_of(0) == 0


def test_a_boundary_along_an_edge_between_regions_is_found_once():
    """The class is 1 where the neuron is on, and the outputs are equal where it is off."""
    model = model_of([[[1, 0]], [[0], [1]]], [[0.0], [0.0, 0.0]])
    part = plr.partition(model, plr.Slice.box(-1, 1))
    found = part.decision_boundary()
    assert part.n_regions == 2 and ends(found) == [[(0, -1), (0, 1)]] and found.cells.tolist() == [0]


def test_a_tie_that_nobody_wins_is_no_boundary():
    """The outputs |s| and 0 are equal on s = 0, and class 0 wins on both sides."""
    model = model_of([[[1, 0]], [[1], [0]]], [[0.0], [0.0, 0.0]], "abs")
    assert len(plr.partition(model, plr.Slice.box(-1, 1)).decision_boundary().segments) == 0


def test_a_class_that_wins_only_inside_a_region_is_found():
    """At every corner of the square some other class wins."""
    part = of_outputs([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]], [0, 0, 0, 0, 0.25])
    inner = [segment for segment, pair in zip(*part.decision_boundary()[::2], strict=True) if pair[1] == 4]
    assert len(inner) == 4 and part.class_of([0.0, 0.0]) == 4
    assert {abs(value) for segment in inner for end in segment.tolist() for value in end} == {0.25}


def test_many_classes():
    """A tournament of 100: each wins a sector, and all boundaries meet in the origin exactly."""
    angle = 2 * np.pi * np.arange(100) / 100
    model = model_of([np.stack([np.cos(angle), np.sin(angle)], axis=1)], [np.zeros(100)])
    part = plr.partition(model, plr.Slice.box(-1, 1))
    found = part.decision_boundary()
    assert len(found.segments) == 100
    middles = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert part.class_of(middles).tolist() == list(range(100))
    assert sorted(map(tuple, found.classes.tolist())) == sorted([(k, k + 1) for k in range(99)] + [(0, 99)])


def test_classes_are_the_models_at_points():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 6)).double()
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight *= 3
    part = plr.partition(model, plr.Slice.box(-3, 3))
    st_ = np.random.default_rng(0).uniform(-3, 3, (2000, 2))
    assert part.class_of(st_).tolist() == model(torch.tensor(st_)).argmax(1).tolist()
    crossed = set(part.decision_boundary().cells.tolist())
    whole = [r for r in range(part.n_regions) if r not in crossed]
    centroids = torch.tensor(part.centroids())
    assert part.class_of(whole).tolist() == model(centroids).argmax(1)[whole].tolist()
    assert len(crossed) > 20


@pytest.mark.parametrize(
    "where, error, message",
    [
        ([0.5, 0.5, 0.5], ValueError, r"where must be \[..., 2\], got \[3\]"),
        ([float("nan"), 0.5], ValueError, "where must be finite"),
        (["a"], TypeError, "where must be an array of real numbers"),
        ([5], ValueError, "regions must be from 0 to 0, got 5"),
    ],
)
def test_wrong_points_and_regions_are_refused(where, error, message):
    with pytest.raises(error, match=message):
        of_outputs([[1, 1]], [0]).class_of(where)


def test_points_of_integers_are_not_taken_for_regions():
    """As ``locate`` has it; ``class_of([[0, 0]])`` once took them for two regions."""
    part = of_outputs([[1, 0], [-1, 0]], [0, 0])
    assert part.class_of([[1, 0], [-1, 0]]).tolist() == part.class_of([[1.0, 0.0], [-1.0, 0.0]]).tolist() == [0, 1]
    assert part.class_of([[0, 1]]).shape == part.locate([[0, 1]]).shape == (1,)
    assert part.class_of([1.0, 0.0]).shape == () and part.class_of([0, 0]).shape == (2,)


def test_arrays_are_read_only():
    decision = of_outputs([[1, 0], [-1, 0]], [0, 0]).decision()
    for array in (decision.parent, decision.winner, decision.mesh.vertices, decision.mesh.edge_cells):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
