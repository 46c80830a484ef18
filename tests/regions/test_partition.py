"""Partitions at the public face, against the rational oracle."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pylinregion as plr
from cases.networks import NETWORK_KINDS, SLICE_KINDS, integer_networks, polygons
from cases.partitions import ACTIVATIONS, both, check, matched, mlp, model_of, random_both, same_partition, small
from cases.parts import examples, some

PLANE = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
SHAPES = ((2, 5, 5, 1), (3, 4, 4, 3), (2, 3, 3, 3, 2), (4, 7, 4))
quick = settings(max_examples=examples(40, 3), deadline=None, derandomize=True, database=None)


# ---- what the oracle says


@pytest.mark.part(4)
@pytest.mark.parametrize("slice_kind", SLICE_KINDS)
@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_partitions_are_those_of_the_oracle(kind, slice_kind):
    seed = 5 * NETWORK_KINDS.index(kind) + SLICE_KINDS.index(slice_kind)
    check(*random_both(kind, slice_kind, SHAPES[seed % len(SHAPES)], seed))


@pytest.mark.turns(2)
@pytest.mark.part(3)
@pytest.mark.parametrize("kind", ["generic", "small_int", "duplicated", "grid"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kinks_of_every_kind(activation, kind):
    for seed, shape in some(list(enumerate(SHAPES)), 2, f"{activation} {kind}"):
        check(*random_both(kind, SLICE_KINDS[seed % 2], shape, seed, activation))


@pytest.mark.turns(2)
@quick
@given(integer_networks(), polygons(), st.sampled_from(list(ACTIVATIONS)))
def test_integer_networks(network, polygon, activation):
    check(*both(*network, (*PLANE, polygon), activation))


def test_a_neuron_that_is_nearly_a_copy_crosses_where_fractions_say():
    weight, bias = [[0.1257302210933933, -0.1321048632913019]], [0.1921267951329846]
    tenth = [[0.1 * weight[0][0], 0.1 * weight[0][1]]]  # rounded: the two lines cross at a point of their own
    part, oracle = both(
        [np.array(weight + tenth), np.ones((1, 2))],
        [np.array([bias[0], 0.1 * bias[0]]), np.zeros(1)],
        (*PLANE, np.array([[-2, -2], [2, -2], [2, 2], [-2, 2.0]])),
    )
    matched(part, oracle)
    wanted = {point for cell in oracle.cells for point in cell.polygon}
    inside = [[float(s), float(t)] for s, t in wanted if abs(s) < 2 and abs(t) < 2]
    assert len(inside) == 1
    assert np.abs(part.vertices - inside[0]).max(axis=1).min() < 1e-14


# ---- by hand


def test_two_lines_that_cross():
    model = model_of([np.eye(2), [[1, -1], [1, 1]]], [np.zeros(2), np.zeros(2)])
    part = plr.partition(model, plr.Slice.box(-1, 1))
    assert (part.n_regions, part.layers, part.regions_per_layer) == (4, ("1",), (4,))
    assert sorted(part.vertices.tolist()) == sorted([s, t] for s in (-1.0, 0.0, 1.0) for t in (-1.0, 0.0, 1.0))
    assert part.areas().tolist() == [1, 1, 1, 1] and part.perimeters().tolist() == [4, 4, 4, 4]
    assert np.allclose(part.inradii(), 0.5) and np.allclose(part.eccentricities(), 2**0.5)
    assert sorted(part.centroids().tolist()) == sorted([s, t] for s in (-0.5, 0.5) for t in (-0.5, 0.5))
    on = part.locate([0.5, 0.5])
    assert part.pattern(on)["1"].tolist() == [1, 1] and part.pattern(int(on))["1"].dtype == np.uint8
    assert part.affine_maps([on]).tolist() == [[[1, -1, 0], [1, 1, 0]]]
    assert part.jacobian(on).tolist() == [[1, -1], [1, 1]]
    assert part.slope_norms()[on] == part.slope_norms("jacobian")[on] == 2
    assert part.neurons.tolist() == [0, 1] and part.neuron(1) == plr.partition(model, part.slice).neuron(1) == ("1", 1)
    assert part.linear_regions().tolist() == [0, 1, 2, 3]
    assert torch.equal(part.points(), torch.tensor(part.vertices))
    assert part.definition == part.certificate.definition and "definition 2" in part.definition


def test_a_network_without_kinks_has_one_region():
    part = plr.partition(nn.Linear(3, 2), plr.Slice([0.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0]))
    assert part.n_regions == 1 and part.regions_per_layer == () and part.layers == ()
    assert part.pattern(0) == {} and part.neurons.tolist() == [] and part.areas().tolist() == [1]
    assert part.linear_regions().tolist() == [0] and part.edge_neuron.tolist() == [-1] * 4
    assert len(part.decision_boundary().segments) in (0, 1)
    part.verify()


def test_a_slice_that_nothing_cuts():
    part = plr.partition(model_of([np.eye(2), [[1, 1]]], [np.full(2, 5.0), [0.0]]), plr.Slice.box(0, 1))
    assert part.n_regions == 1 and part.neurons.tolist() == [] and part.pattern(0)["1"].tolist() == [1, 1]
    assert part.adjacency().nnz == 0 and part.degrees().tolist() == [0]


def test_metrics_are_those_of_the_slice_or_of_the_input_space():
    u, v = torch.tensor([2.0, 0, 0]), torch.tensor([1.0, 3.0, 0])
    model = model_of([[[1, 0, 0]], [[2]]], [[-1.0], [0.0]])
    part = plr.partition(model, plr.Slice(torch.zeros(3), u, v))
    assert part.n_regions == 2
    assert part.areas().sum() == pytest.approx(1) and part.areas("input").sum() == pytest.approx(6)
    on = int(part.locate([0.9, 0.9]))
    ends = part.slice.points(part.polygon(on)).numpy()
    assert part.perimeters("input")[on] == pytest.approx(np.linalg.norm(ends - np.roll(ends, 1, axis=0), axis=1).sum())
    assert part.slope_norms()[on] == pytest.approx(np.hypot(4, 2))  # d/ds = 2 * 2, d/dt = 2 * 1
    assert part.slope_norms("input")[on] == pytest.approx(2) == part.slope_norms("jacobian")[on]
    tilted = plr.partition(model, plr.Slice(torch.zeros(3), v, [0.0, 0, 1], [[0, 0], [2, 0], [0, 1]]))
    on = int(np.argmax(tilted.slope_norms()))
    assert tilted.slope_norms("jacobian")[on] == 2
    assert tilted.slope_norms("input")[on] == pytest.approx(2 / 10**0.5)  # of the gradient (2, 0, 0) what is along v
    for name in ("areas", "perimeters", "inradii", "eccentricities", "slope_norms", "corner_distances"):
        with pytest.raises(ValueError, match="metric must be 'slice' or 'input', got 'pixels'"):
            getattr(part, name)("pixels")


# ---- options


def test_counting_only_gives_the_same_counts():
    part, count = small(), small(cells=False)
    assert count.regions_per_layer == part.regions_per_layer and count.cells is None
    assert "counted only" in repr(count) and "counted only" not in repr(part)
    for use in (
        lambda: count.vertices,
        lambda: count.patterns,
        lambda: count.edge_neuron,
        lambda: count.areas(),
        lambda: count.pattern(0),
        lambda: count.locate([0, 0]),
        lambda: count.affine_maps(),
        lambda: count.decision_boundary(),
        lambda: count.linear_regions(),
        lambda: count.statistics(),
        lambda: count.verify(),
        lambda: count.plot(),
        lambda: count.to_geojson(),
        lambda: count.to_networkx(),
        lambda: count.adjacency(),
    ):
        with pytest.raises(ValueError, match=r"only counted: it has no cells. Call partition\(..., cells=True\)"):
            use()


def test_any_number_of_threads_gives_the_same_cells(threads):
    same_partition(small(threads=1), small(threads=3))
    threads(2)
    same_partition(small(), small(threads=1))


def test_first_layers_are_the_partition_of_a_shorter_network():
    model = mlp(2, 7, 6, 5, 3)
    whole = plr.partition(model, plr.Slice.box(-2, 2))
    for count in (1, 2, 3):
        part = plr.partition(model, whole.slice, layers=list(whole.layers[:count]))
        assert part.layers == whole.layers[:count] and part.regions_per_layer == whole.regions_per_layer[:count]
        assert part.whole == (count == 3)
        shorter = nn.Sequential(*list(model)[: 2 * count], *([model[-1]] if count == 3 else []))
        for r, maps in enumerate(part.affine_maps()):
            x = torch.tensor(part.centroids()[r], dtype=torch.float32)
            assert np.allclose(maps[:, :2] @ part.centroids()[r] + maps[:, 2], shorter(x).detach(), atol=1e-6)
        part.verify()
    part = plr.partition(model, whole.slice, layers=["1", "3"])
    assert set(part.statistics()) == {"all"}
    for use in (part.decision_boundary, lambda: part.class_of([0]), lambda: part.verify(model)):
        with pytest.raises(ValueError, match="by its first layers only"):
            use()


@pytest.mark.parametrize("layers", [["3"], ["1", "5"], ["3", "5"], []])
def test_other_layers_have_no_regions(layers):
    with pytest.raises(
        ValueError, match=r"layers must be the first layers of the network, one or more of \['1', '3', '5'\]"
    ):
        plr.partition(mlp(2, 4, 4, 4, 1), plr.Slice.box(0, 1), layers=layers)


class Branches(nn.Module):
    """The second of two parallel layers is activated first."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(2, 4), nn.Linear(2, 3), nn.Linear(7, 2)
        self.relu, self.abs = nn.ReLU(), nn.ReLU6()

    def forward(self, x):
        a, b = self.first(x), self.second(x)
        b = self.relu(b)
        return self.head(torch.cat([self.abs(a), b], dim=1))


def test_layers_come_in_the_order_of_the_network():
    torch.manual_seed(3)
    model = Branches()
    part = plr.partition(model, plr.Slice.box(-3, 3))
    assert part.layers == ("relu", "abs") and part.verify(model)["regions"] == part.n_regions
    first = plr.partition(model, part.slice, layers=["relu"])
    alone = plr.partition(nn.Sequential(model.second, nn.ReLU()), part.slice)
    assert first.n_regions == alone.n_regions == part.regions_per_layer[0] < part.n_regions
    for r in range(part.n_regions):
        x = torch.tensor(part.centroids()[r], dtype=torch.float32)
        assert part.pattern(r)["relu"].tolist() == (model.second(x) > 0).tolist()
        z = model.first(x)
        assert part.pattern(r)["abs"].tolist() == ((z > 0).int() + (z > 6).int()).tolist()
    assert {part.neuron(n).layer for n in range(3)} == {"relu"} and part.neuron(3) == ("abs", 0)


def test_models_of_every_form_and_dtype():
    model = mlp(4, 6, 6, 2)
    where = plr.Slice.through(*torch.rand(3, 4, generator=torch.Generator().manual_seed(0)))
    part = plr.partition(model, where)
    same_partition(part, plr.partition(plr.capture(model, torch.zeros(1, 4)), where))
    batch = torch.export.Dim("batch")
    program = torch.export.export(model.eval(), (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    same_partition(part, plr.partition(program, where))
    same_partition(part, plr.partition(model.double(), where))  # the same numbers
    for dtype in (torch.float16, torch.bfloat16):
        rounded = mlp(4, 6, 6, 2).to(dtype)
        same_partition(plr.partition(rounded, where), plr.partition(rounded.double(), where))


def test_eval_mode_is_what_is_counted_and_the_mode_is_put_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    model(torch.randn(50, 2))
    assert model.training
    part = plr.partition(model, plr.Slice.box(-2, 2))
    assert model.training and part.verify(model)["largest difference from the model"] < 1e-6 and model.training


def test_input_shapes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    part = plr.partition(model, plr.Slice.around(torch.rand(3, 2, 2), 2.0))
    assert part.points().shape == (len(part.vertices), 3, 2, 2)
    assert part.jacobian(0).shape == (2, 3, 2, 2) and part.jacobian(0).dtype == torch.float64
    x = part.slice.points(part.centroids())
    assert part.locate_inputs(x).tolist() == list(range(part.n_regions))
    x.requires_grad_()
    model.double()(x)[:, 1].sum().backward()
    for r in range(part.n_regions):
        assert torch.allclose(part.jacobian(r)[1], x.grad[r])
    norms = [float(part.jacobian(r).norm()) for r in range(part.n_regions)]
    assert np.allclose(part.slope_norms("jacobian"), norms)


def test_the_partition_keeps_its_own_weights():
    model = mlp(2, 8, 2, dtype=torch.float64)
    part = plr.partition(model, plr.Slice.box(-2, 2))
    maps = part.affine_maps()
    model_gone = weakref.ref(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert np.array_equal(part.affine_maps(), maps) and plr.partition(model, part.slice).n_regions == 1
    del model
    gc.collect()
    assert model_gone() is None


def test_progress_shows_regions(capsys):
    part = small(progress=True)
    assert f"{part.n_regions} regions" in capsys.readouterr().err
    small()
    assert capsys.readouterr().err == ""


def test_arrays_are_small():
    part = plr.partition(mlp(2, 64, 64, 64, 1), plr.Slice.box(-3, 3))
    names = ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns")
    assert part.n_regions > 5000
    assert sum(getattr(part, name).nbytes for name in names) < part.n_regions * (80 + 192 // 8)
    assert part.indices.dtype == part.edges.dtype == part.edge_cells.dtype == part.offsets.dtype == np.int32


def test_nothing_can_be_assigned():
    with pytest.raises(AttributeError):
        small().cells = None
    for name in ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(small(), name)[0] = 0


def test_repr_says_what_and_how_sure():
    part = small()
    text = repr(part)
    assert f"Partition of a slice of inputs [2]: {part.n_regions} regions" in text
    assert f"after each layer: 1: {part.regions_per_layer[0]}, 3: {part.n_regions}" in text
    assert "decisions, all proven:" in text and "proper activation regions" in text


def test_the_certificate_tells_how_decisions_were_taken():
    generic = small().certificate
    assert generic.proven and generic.exact == generic.ties == 0
    assert generic.decisions == generic.filter > 100
    weight = np.array([[1.0, 2.0], [2.0, 4.0], [1.0, -1.0]])  # the second is twice the first
    tied = plr.partition(model_of([weight, np.ones((1, 3))], [np.array([1.0, 2, 0]), [0.0]]), plr.Slice.box(-2, 2))
    assert tied.n_regions == 4
    assert tied.certificate.proven and tied.certificate.exact >= tied.certificate.ties > 0
    assert tied.certificate.decisions == tied.certificate.filter + tied.certificate.exact
    assert f"{tied.certificate.exact} in integers ({tied.certificate.ties} exact ties)" in str(tied.certificate)


# ---- where points are


def test_locate_finds_the_region():
    part = plr.partition(mlp(2, 12, 12, 3, dtype=torch.float64), plr.Slice.box(-2, 2))
    rng = np.random.default_rng(0)
    st_ = rng.uniform(-2, 2, (40, 25, 2))
    found = part.locate(st_)
    assert found.shape == (40, 25) and found.dtype == np.int64
    model = mlp(2, 12, 12, 3, dtype=torch.float64)
    z = torch.tensor(st_.reshape(-1, 2))
    for k, region in enumerate(found.reshape(-1)):
        pattern = part.pattern(region)
        hidden = model[0](z[k])
        assert pattern["1"].tolist() == (hidden > 0).tolist()
        assert pattern["3"].tolist() == (model[2](hidden.relu()) > 0).tolist()
    assert part.locate(part.centroids()).tolist() == list(range(part.n_regions))
    assert part.locate(np.zeros((0, 2))).shape == (0,)


def test_points_between_regions_are_in_one_of_them_and_others_in_none():
    part = small()
    at_vertices = part.locate(part.vertices)
    for vertex, region in enumerate(at_vertices):
        assert vertex in part.indices[part.offsets[region] : part.offsets[region + 1]]
    middles = part.vertices[part.edges].mean(axis=1)
    inner = part.edge_cells[:, 1] >= 0
    for cells, region in zip(part.edge_cells[inner], part.locate(middles[inner]), strict=True):
        assert region in cells
    assert part.locate([[2, 2], [-2, 0], [2.0000001, 0], [0, -3]]).tolist()[2:] == [-1, -1]
    assert (part.locate([[2, 2], [-2, 0]]) >= 0).all()
    triangle = plr.partition(mlp(2, 8, 8, 2), plr.Slice([0.0, 0], [1.0, 0], [0.0, 1], [[0, 0], [1, 0], [0, 1]]))
    found = triangle.locate([[0.4, 0.4], [0.5, 0.5], [0.51, 0.5], [0.9, 0.9]])
    assert (found >= 0).tolist() == [True, True, False, False]


def test_inputs_off_the_plane_are_in_no_region():
    torch.manual_seed(0)
    part = plr.partition(mlp(3, 6, 1), plr.Slice([0.0, 0, 1], [1.0, 0, 0], [0.0, 1, 0]))
    x = torch.tensor([[0.5, 0.5, 1.0], [0.5, 0.5, 1.0 + 1e-7], [0.5, 0.5, 1.01], [2.0, 0.5, 1.0]])
    assert (part.locate_inputs(x) >= 0).tolist() == [True, True, False, False]
    assert (part.locate_inputs(x, off_plane=0.1) >= 0).tolist() == [True, True, True, False]
    assert part.locate_inputs(x[0]).shape == ()
    with pytest.raises(ValueError, match=r"x must be \[..., 3\], got \[2\]"):
        part.locate_inputs([0.5, 0.5])
