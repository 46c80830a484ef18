"""``verify`` sees what is wrong, ``statistics`` and exports say what is there."""

import json
from dataclasses import dataclass, replace

import networkx
import numpy as np
import pandas
import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion.geometry.nearness import shares_within


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def part(model):
    return plr.partition(model, plr.Slice.box(-2, 2))


def with_cells(part, **changes):
    return replace(part, cells=replace(part.cells, **changes))


def test_a_right_partition_passes(part, model):
    report = part.verify(model, samples=300)
    assert report["V - E + F"] == 1 and report["regions"] == part.n_regions == report["different patterns"]
    assert report["vertices"] == len(part.vertices) and report["edges"] == len(part.edges)
    assert report["area of the slice"] == 16 and report["relative error of the sum of areas"] < 1e-12
    assert 3 < report["mean degree"] <= 4 and report["smallest area"] > 0
    assert report["points"] == 300 + min(300, part.n_regions) == report["points inside a cell"]
    assert report["points with their cell's pattern"] == report["points"]
    assert report["largest error of a map"] < 1e-13 and report["largest difference from the model"] < 1e-6


def inner(part):
    return np.flatnonzero(part.edge_cells[:, 1] >= 0)


def moved(part):
    vertices = part.vertices.copy()
    place = np.flatnonzero((np.abs(vertices) < 1.9).all(axis=1))[3]
    vertices[place] += 0.01
    return with_cells(part, vertices=vertices)


def scaled(part):
    return with_cells(part, vertices=part.vertices * 1.01)


def other_slice(part):
    return replace(part, slice=plr.Slice.box(-2, 2.5))


def shifted(part):
    return replace(part, slice=plr.Slice([0.0, 0.001], [1.0, 0.0], [0.0, 1.0], part.slice.polygon))


def without_an_edge(part):
    keep = np.arange(len(part.edges)) != inner(part)[0]
    cells = part.cells
    return with_cells(
        part, edges=cells.edges[keep], edge_cells=cells.edge_cells[keep], edge_neuron=cells.edge_neuron[keep]
    )


def other_neighbour(part):
    edge_cells = part.edge_cells.copy()
    edge_cells[inner(part)[0], 1] = (edge_cells[inner(part)[0]].max() + 1) % part.n_regions
    return with_cells(part, edge_cells=edge_cells)


def turned(part):
    """A cell that goes around clockwise."""
    indices = part.indices.copy()
    cell = int(np.argmax(part.areas()))
    span = slice(part.offsets[cell], part.offsets[cell + 1])
    indices[span] = indices[span][::-1]
    return with_cells(part, indices=indices)


def same_pattern_twice(part):
    patterns = part.patterns.copy()
    patterns[1] = patterns[0]
    return with_cells(part, patterns=patterns)


def other_pattern(part):
    """A neuron that crosses nowhere is switched in the largest region."""
    patterns = part.patterns.copy()
    patterns[np.argmax(part.areas())] ^= 0b10000000
    return with_cells(part, patterns=patterns)


def other_neuron(part):
    return with_cells(part, edge_neuron=np.where(part.edge_neuron >= 0, 0, -1).astype(np.int32))


def no_neuron(part):
    return with_cells(part, edge_neuron=np.full_like(part.edge_neuron, -1))


def other_map(part):
    """Outputs that the regions' maps do not have: the maps are computed anew, so these are taken from elsewhere."""
    other = with_cells(part)
    maps = part.affine_maps()
    object.__setattr__(other, "affine_maps", lambda regions: 1.001 * maps[regions])
    return other


@pytest.mark.parametrize(
    "damage, message",
    [
        (moved, "has not the pattern of its region|is in 2 cells|areas"),
        (scaled, "the areas of its cells add up to"),
        (other_slice, "the areas of its cells add up to"),
        (shifted, "has not the pattern of its region"),
        (without_an_edge, r"V - E \+ F is 2, not 1"),
        (other_neighbour, "the sides of the cells are not its edges"),
        (turned, "the areas of its cells add up to|has area -"),
        (same_pattern_twice, "different patterns in"),
        (other_pattern, "the pattern of neuron [0-9]+ is the same on both sides of edge"),
        (other_neuron, "the pattern of neuron 0 is the same on both sides of edge"),
        (no_neuron, "an edge inside has no neuron, or one of the border has one"),
        (other_map, "has a map that is off by"),
    ],
)
def test_damage_is_seen(part, damage, message):
    with pytest.raises(plr.VerificationError, match=message) as caught:
        damage(part).verify(samples=20_000 if damage is moved else 1000)  # a moved vertex leaves small gaps
    assert isinstance(caught.value, plr.PylinregionError)


@pytest.mark.parametrize("low, width", [(1e4 + 0.1, 1.0), (1e4 + 0.1, 1e-3), (0.0, 1e-170), (0.0, 1e-290)])
def test_a_right_partition_far_from_zero_or_tiny_passes(model, low, width):
    part = plr.partition(model, plr.Slice.box(low, low + width))
    assert part.verify(model)["regions"] == part.n_regions


def test_a_right_partition_of_a_thin_slice_passes(model):
    thin = [[-1, -1e-9], [1, -1e-9], [1, 1e-9], [-1, 1e-9]]
    part = plr.partition(model, plr.Slice([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], thin))
    assert part.verify(model)["regions"] == part.n_regions > 1


def test_what_a_model_of_low_precision_rounds_itself_is_not_held_against_the_partition():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).bfloat16()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        net[0].bias.copy_(torch.tensor([100.0, 99.5]))
        net[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
        net[2].bias.zero_()
    assert plr.partition(net, plr.Slice.box(-1, 1)).verify(net)["regions"] == 1


class OfItsOwnDtype(nn.Module):
    """Cannot be made float64: it makes a float32 tensor on its way."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 6)

    def forward(self, x):
        return self.layer(x).relu() @ torch.full((6, 1), 0.5)


def test_a_model_that_cannot_be_float64_is_compared_in_its_own_dtype():
    torch.manual_seed(0)
    net = OfItsOwnDtype()
    part = plr.partition(net, plr.Slice.box(-2, 2))
    assert 0 < part.verify(net)["largest difference from the model"] < 1e-5
    with torch.no_grad():
        net.layer.bias += 0.1
    with pytest.raises(plr.VerificationError, match="its outputs are"):
        part.verify(net)


def test_no_samples_and_wrong_ones(part, model):
    assert part.verify(model, samples=0)["points"] == 0
    with pytest.raises(ValueError, match="samples must be 0 or more, got -1"):
        part.verify(samples=-1)
    for wrong in (1.5, True):
        with pytest.raises(TypeError, match=f"samples must be an integer, got {type(wrong).__name__}"):
            part.verify(samples=wrong)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got Network"):
        part.verify(plr.capture(model, torch.zeros(2, 2)))


def test_another_model_is_seen(part, model):
    part.verify(model.double())
    model.float()
    other = nn.Sequential(*model[:-1], nn.Linear(8, 3))
    with pytest.raises(plr.VerificationError, match=r"its outputs are .* from those of the model"):
        part.verify(other)


@dataclass
class Output:
    """As transformers returns them."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Returns(nn.Module):
    """A network with one output tensor, in some form."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.form = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 6)), form

    def forward(self, x):
        return self.form(self.net(x))


FORMS = {
    "[B]": lambda y: y.sum(1),
    "[B, T, K]": lambda y: y.view(-1, 2, 3),
    "[K, B]": lambda y: y.T,
    "tuple": lambda y: (None, y),
    "list": lambda y: [y],
    "dict": lambda y: {"loss": None, "logits": y},
    "dataclass": lambda y: Output(y),
    "namedtuple": lambda y: torch.return_types.max((y, torch.zeros(3, dtype=torch.int64))),
    "constants first": lambda y: (torch.eye(3), y),
}


@pytest.mark.part(2)
@pytest.mark.parametrize("form", FORMS)
def test_models_are_compared_whatever_form_their_output_has(form):
    """``partition`` took these, and ``verify`` ended in an IndexError or AttributeError."""
    net = Returns(FORMS[form])
    part = plr.partition(net, plr.Slice.box(-2, 2))
    assert part.verify(net)["largest difference from the model"] < 1e-12
    assert plr.partition(net.double(), part.slice).verify(net.float())["largest difference from the model"] < 1e-12
    with torch.no_grad():
        net.net[2].bias += 0.01
    with pytest.raises(plr.VerificationError, match="its outputs are"):
        part.verify(net)


def test_a_model_with_another_number_of_outputs_is_seen(part, model):
    """Numbers that broadcast were once compared with all outputs of the partition."""
    for net, said in ((Returns(FORMS["[B]"]), "1"), (Returns(lambda y: (y, y[:, :2])), "6 and 2")):
        with pytest.raises(plr.VerificationError, match=f"it has 3 outputs, and those of the model are {said}"):
            part.verify(net)


# ---- statistics


def test_statistics_are_those_of_the_regions(part):
    table = part.statistics()
    assert list(table) == ["all", "near_boundary", "far_from_boundary"]
    row = table["all"]
    assert row["regions"] == part.n_regions and row["total_area"] == pytest.approx(16)
    assert row["regions_per_area"] == pytest.approx(part.n_regions / 16)
    assert row["total_corners"] == len(part.indices)
    for name, values in (
        ("area", part.areas()),
        ("perimeter", part.perimeters()),
        ("inradius", part.inradii()),
        ("eccentricity", part.eccentricities()),
        ("centrality", part.corner_distances()[0]),
        ("centrality_within", part.corner_distances()[1]),
        ("corners", np.diff(part.offsets)),
        ("neighbours", part.degrees()),
        ("slope", part.slope_norms()),
    ):
        assert row[f"{name}_mean"] == pytest.approx(values.mean())
        assert row[f"{name}_std"] == pytest.approx(values.std())
    for name in ("regions", "total_area", "total_corners"):
        assert row[name] == pytest.approx(table["near_boundary"][name] + table["far_from_boundary"][name])
    frame = pandas.DataFrame(table)
    assert frame.loc["regions", "all"] == part.n_regions
    json.dumps(table)


def strips(widths, boundary):
    """A partition of [0, 1]^2 into vertical strips, and a decision boundary at s = boundary."""
    places = np.cumsum(widths)[:-1]
    net = nn.Sequential(nn.Linear(2, len(places) + 1), nn.ReLU(), nn.Linear(len(places) + 1, 1)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net[0].weight[:, 0] = 1
        net[0].bias[:-1] = -torch.tensor(places)
        net[2].weight[0, -1], net[2].bias[0] = 1, -boundary  # the last is on everywhere
    return plr.partition(net, plr.Slice.box(0, 1))


def test_density_near_the_boundary_is_that_at_points_near_it():
    """In a strip of width 0.3, a density of 1 / 0.3 at each of its points; those that the boundary crosses are no
    measure: any curve crosses large regions more often.
    """
    part = strips([0.3, 0.3, 0.1, 0.1, 0.1, 0.1], 0.45)
    table = part.statistics(distance=0.2)  # s from 0.25 to 0.65
    assert table["near_boundary"]["total_area"] == pytest.approx(0.4, rel=1e-3)
    assert table["near_boundary"]["regions"] == pytest.approx(0.05 / 0.3 + 1 + 0.5, rel=1e-2)
    assert table["near_boundary"]["regions_per_area"] == pytest.approx((0.35 / 0.3 + 0.05 / 0.1) / 0.4, rel=1e-2)
    assert table["far_from_boundary"]["regions_per_area"] == pytest.approx((0.25 / 0.3 + 0.35 / 0.1) / 0.6, rel=1e-2)
    assert table["near_boundary"]["area_mean"] == pytest.approx(
        (0.3 * 0.35 / 0.3 + 0.1 * 0.5) / (0.35 / 0.3 + 0.5), rel=1e-2
    )
    assert part.statistics()["near_boundary"]["total_area"] == pytest.approx(2 / 6**0.5 - (1 / 6**0.5 - 0.45), rel=0.3)
    for wrong, error in ((0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("a", TypeError)):
        with pytest.raises(error, match="distance must be"):
            part.statistics(distance=wrong)


@pytest.mark.parametrize("distance", [0.03, 0.2, 1.0])
def test_shares_within_a_distance_are_those_of_points(part, distance):
    """Against the distances of points of a fine grid to all segments, one by one."""
    segments = part.decision_boundary().segments
    shares = shares_within(part.mesh, segments, distance)
    rng = np.random.default_rng(0)
    st = rng.uniform(-2, 2, (40_000, 2))
    a, side = segments[:, 0], segments[:, 1] - segments[:, 0]
    nearest = np.full(len(st), np.inf)
    for start, along in zip(a, side, strict=True):
        t = ((st - start) @ along / (along @ along)).clip(0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(st - start - t[:, None] * along, axis=1))
    region, within = part.locate(st), nearest <= distance
    points = np.bincount(region, minlength=part.n_regions)
    found = np.bincount(region[within], minlength=part.n_regions)
    off = np.abs(found - shares * points)
    assert (off <= 5 * np.sqrt(points * shares * (1 - shares)) + 0.01 * points + 1).all()
    assert (shares * part.areas()).sum() == pytest.approx(16 * within.mean(), abs=5 * 16 * within.std() / 200)


def test_statistics_where_there_is_no_boundary():
    table = plr.partition(nn.Linear(2, 1).requires_grad_(False).apply(lambda m: m.bias.fill_(9)), plr.Slice.box(0, 1))
    row = table.statistics()["near_boundary"]
    assert row["regions"] == 0 and np.isnan(row["area_mean"]) and np.isnan(row["regions_per_area"])
    assert table.statistics()["far_from_boundary"] == table.statistics()["all"]


# ---- other packages


def test_networkx(part):
    graph = part.to_networkx()
    assert sorted(graph.nodes) == list(range(part.n_regions)) and networkx.is_connected(graph)
    matrix = networkx.to_scipy_sparse_array(graph, nodelist=range(part.n_regions), weight=None)
    assert (matrix.astype(bool) != part.adjacency()).nnz == 0
    areas = part.areas()
    assert all(graph.nodes[r]["area"] == areas[r] for r in graph)
    for p, q, edge in graph.edges(data=True):
        assert part.pattern(p)[edge["layer"]][edge["unit"]] != part.pattern(q)[edge["layer"]][edge["unit"]]
        assert part.neuron(edge["neuron"]) == (edge["layer"], edge["unit"]) and edge["length"] > 0
    assert graph.nodes[3]["centroid"] == tuple(part.centroids()[3].tolist())


def test_geojson(part):
    collection = json.loads(json.dumps(part.to_geojson()))
    assert collection["type"] == "FeatureCollection" and len(collection["features"]) == part.n_regions
    for r, feature in enumerate(collection["features"]):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1] and ring[:-1] == part.polygon(r).tolist()
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon" and feature["id"] == r
        assert feature["properties"]["area"] == part.areas()[r]
        assert feature["properties"]["slope"] == part.slope_norms()[r]
