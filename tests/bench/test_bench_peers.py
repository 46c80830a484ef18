"""Other engines beside ours: their checkouts are told apart, run as they are, and their failures are reported."""

import itertools
import random
import sys
import time
from pathlib import Path

import igraph
import networkx
import numpy as np
import pytest
import torch

import pylinregion as plr
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.lower import stages_of

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import graph_tool_stand_in as stand_in  # noqa: E402
import partition_peer  # noqa: E402
import partitions  # noqa: E402
import splinecam_peer  # noqa: E402

# Written for this test with the interface of SplineCam: it cuts polygons in NumPy, prints, and scripts at import.
FAKE = {
    "graph": """
import graph_tool
import numpy as np
import torch
from graph_tool import topology
from splinecam.utils import cut

graph = graph_tool.Graph()
graph.add_vertex(2)
graph.add_edge(0, 1)
assert topology.shortest_path(graph, source=0, target=1)[0] == [0, 1]


def to_next_layer_partition(cycles, Abw, current_layer, NN, dtype=torch.float64, device="cuda"):
    print("much")
    assert device == "cpu" and Abw.dtype == cycles[0].dtype == dtype and len(Abw) == len(cycles)
    cells, parents = [], []
    for number, (cycle, rows) in enumerate(zip(cycles, Abw)):
        weight = NN.layers[current_layer].get_weights()
        lines = weight[:, :-1] @ rows
        lines[:, -1] += weight[:, -1]
        pieces = [cycle.numpy()]
        for line in lines.numpy():
            pieces = [part for piece in pieces for part in cut(piece, line)]
        cells += [torch.from_numpy(piece) for piece in pieces]
        parents += [torch.tensor(number)] * len(pieces)
    order = range(len(cells))[::-1]  # SplineCam does not keep the order of the cells either
    return [cells[i] for i in order], [parents[i] for i in order]
""",
    "utils": """
import numpy as np
import torch


@torch.jit.script
def never_called(x, eps=1e-10):
    return x + eps


def cut(polygon, line):
    z = polygon @ line[:2] + line[2]
    parts = []
    for side in (z, -z):
        part = []
        for i in range(len(z)):
            if side[i] >= 0:
                part.append(polygon[i])
            if z[i] * z[i - 1] < 0:
                crossing = polygon[i] + z[i] / (z[i] - z[i - 1]) * (polygon[i - 1] - polygon[i])
                part.insert(len(part) - (side[i] >= 0), crossing)
        if (side > 0).any():
            parts.append(np.array(part))
    return parts


def get_region_means(regions, dims, dtype=torch.float64, device="cuda"):
    assert device == "cpu"
    return torch.stack([region.mean(0) for region in regions]).to(dtype)


@torch.jit.script
def get_Abw(q, Wb, incoming_Abw):
    found = Wb[None, :, :-1] @ incoming_Abw
    found[..., -1] += Wb[:, -1]
    return q[..., None] * found
""",
    "wrappers": """
import torch


class Layer(torch.nn.Module):
    def __init__(self, weights, act):
        super().__init__()
        self.weights, self.act = weights, act

    def get_weights(self):
        return self.weights

    def forward(self, x):
        z = x @ self.weights[:, :-1].T + self.weights[:, -1]
        return z.relu() if self.act else z

    def get_activation_pattern(self, x):
        return (self.forward(x) > 0) * 1.0


class model_wrapper:
    def __init__(self, model, T, device="cuda", dtype=torch.float32):
        assert device == "cpu" and dtype == torch.float64 and not model.training
        assert [type(layer).__name__ for layer in model] == ["Linear", "ReLU"] * (len(model) // 2)
        weights = [torch.cat([layer.weight, layer.bias[:, None]], dim=1) for layer in model[::2]]
        self.layers = torch.nn.Sequential(Layer(T, False), *(Layer(w, True) for w in weights))
""",
}


@pytest.fixture
def fake(tmp_path):
    """A checkout of what looks like SplineCam."""
    folder = tmp_path / "checkout"
    (folder / "splinecam").mkdir(parents=True)
    (folder / "splinecam" / "__init__.py").write_text("raise ImportError('torchvision')")
    for name, text in FAKE.items():
        (folder / "splinecam" / f"{name}.py").write_text(text)
    return folder


def small_case():
    model = partitions.generic((5, 6, 7, 6, 2))
    plane = np.random.default_rng(0).standard_normal((5, 3))
    stages = stages_of(plr.capture(model, torch.zeros(2, 5)))
    return stages, plane, 2 * partitions.SQUARE


EDGE_SUBDIVISION = """
class Linear:
    def __init__(self, inputs, outputs):
        import torch
        self.weight, self.bias = torch.zeros(outputs, inputs), torch.zeros(outputs)


class Net:
    def __init__(self, widths):
        self.fcs = [Linear(*each) for each in zip(widths[:-1], widths[1:])]


def skeletal_subdivision(net, bbox, device, verbose):
    print("much")
    if bbox == (-1, 1):
        raise RuntimeError("a tie")
    assert bbox == (-2, 2) and net.fcs[0].weight.shape == (6, 2) and all(layer.bias.all() for layer in net.fcs)
    return range(20), range(33), None
"""


@pytest.fixture
def edge(tmp_path):
    """A checkout of what looks like edge subdivision; it draws cells with 20 vertices and 33 edges in all."""
    folder = tmp_path / "edge"
    folder.mkdir()
    for name in ("edge_subdivision", "NN", "utils"):
        (folder / f"{name}.py").write_text(EDGE_SUBDIVISION)
    return folder


def test_edge_subdivision_is_asked_once(edge, capsys):
    stages, plane, corners = small_case()
    found = partition_peer.edge_subdivision(edge, stages, plane, corners)
    assert found.keys() == {"regions", "seconds"} and found["regions"] == 14 and found["seconds"] > 0
    assert partition_peer.edge_subdivision(edge, stages, plane, corners / 2) == {"error": "RuntimeError: a tie"}
    assert capsys.readouterr().out == ""


def test_peers_are_told_apart_by_their_files(fake, edge):
    assert partitions.checkouts([]) == {}
    assert partitions.checkouts([fake, edge]) == {"SplineCam": fake, "edge subdivision": edge}
    with pytest.raises(SystemExit, match=r"one checkout of SplineCam; .* are two"):
        partitions.checkouts([fake, edge, fake])


@pytest.mark.parametrize("missing", ["splinecam/graph.py", "splinecam/utils.py", "splinecam/wrappers.py"])
def test_other_folders_are_named(fake, missing):
    (fake / missing).unlink()
    with pytest.raises(
        SystemExit, match=r"edge_subdivision\.py.* or SplineCam \(with splinecam/graph\.py.*checkout is not"
    ):
        partitions.main(["--smoke", "--peer", str(fake), "--out", str(fake)])


@pytest.mark.turns(3)
def test_layers_are_passed_on_as_splinecam_does(fake, capfd):
    stages, plane, corners = small_case()
    found = splinecam_peer.splinecam(fake, stages, plane, corners)
    expected = Engine(stages, plane, corners).enumerate(cells=False).regions
    assert "error" not in found and found["regions_per_layer"] == expected and found["regions"] == expected[-1]
    assert expected[0] < expected[1] < expected[2]
    assert found["seconds"] > 0 and found["stand_in_share"] == 0  # it only asks for one path, when imported
    assert capfd.readouterr() == ("", "")


@pytest.mark.turns(3)
@pytest.mark.part(3)
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise AssertionError('first\\nlast line')", "AssertionError: last line"),
        ("raise ValueError", "ValueError"),
        ("import os; os._exit(3)", "its process died (3)"),
    ],
)
def test_failures_are_reported(fake, text, error):
    (fake / "splinecam" / "graph.py").write_text(text)
    found = splinecam_peer.splinecam(fake, *small_case())
    assert found == {"error": error}
    assert partitions.slower(found, 10, 0.001) == error


@pytest.mark.turns(3)
def test_long_runs_are_ended(fake, monkeypatch):
    (fake / "splinecam" / "graph.py").write_text("while True: pass")
    monkeypatch.setattr(splinecam_peer, "SECONDS", 1)
    assert splinecam_peer.splinecam(fake, *small_case()) == {"error": "more than 1 s"}


def test_table_says_what_was_found_and_by_what():
    assert partitions.slower(None, 10, 0.001) == "-"
    assert partitions.slower({"regions": 10, "seconds": 0.02}, 10, 0.001) == "20 (20x)"
    found = {"regions": 11, "seconds": 0.02, "stand_in_share": 0.123}
    assert partitions.slower(found, 10, 0.001) == "20 (20x; 12%, found 11)"
    assert partitions.slower(found | {"stand_in_share": None}, 11, 0.001) == "20 (20x)"


def test_cpu_time_is_that_of_the_file_and_what_it_calls():
    def burn():
        return sum(range(10_000_000))  # one call, longer than many samples

    inside = {"burn": burn}
    exec(compile("def work():\n    burn()", "somewhere", "exec"), inside)
    with splinecam_peer.cpu_time_in("somewhere") as spent:
        burn()
        start = time.process_time()
        inside["work"]()
        seconds = time.process_time() - start
        burn()
    assert 0.7 * seconds < spent() < 1.3 * seconds


def random_graphs():
    """Directed graphs of networkx, ours, and the edges of these by their ends."""
    for seed in range(30):
        theirs = networkx.gnp_random_graph(12, random.Random(seed).uniform(0.05, 0.4), seed, directed=True)
        ours = stand_in.Graph()
        ours.add_vertex(12)
        yield theirs, ours, {ends: ours.add_edge(*ends) for ends in theirs.edges}


def test_shortest_paths_are_those_of_networkx():
    lengths = set()
    for theirs, ours, _ in random_graphs():
        expected = dict(networkx.all_pairs_shortest_path_length(theirs))
        for source in theirs:
            for target in theirs:
                vertices, edges = stand_in.topology.shortest_path(ours, source=source, target=target)
                lengths.add(len(edges))
                if target not in expected[source]:
                    assert vertices == edges == []
                    continue
                assert vertices[0] == source and vertices[-1] == target
                assert len(edges) == expected[source][target]
                assert [tuple(edge) for edge in edges] == list(itertools.pairwise(vertices))
                assert all(ours.edge(*edge) is edge for edge in edges)
    assert lengths >= {0, 1, 2, 3, 4, 5}


def test_edges_are_removed_from_the_copy_alone():
    for theirs, ours, edges in random_graphs():
        copy, kept = stand_in.Graph(ours), sorted(theirs.edges)
        for source, target in kept[::2]:
            copy.remove_edge(copy.edge(source, target))
            assert copy.edge(source, target) is None
            again = copy.add_edge(source, target)
            with pytest.raises(ValueError, match="not in the graph"):
                copy.remove_edge(edges[source, target])
            copy.remove_edge(again)
        for graph, left in ((ours, kept), (copy, kept[1::2])):
            expected = networkx.DiGraph()
            expected.add_nodes_from(range(12))
            expected.add_edges_from(left)
            assert sorted(graph.get_edges()) == sorted(tuple(edge) for edge in graph.edges()) == left
            assert graph.get_in_degrees(range(12)) == [expected.in_degree(v) for v in range(12)]
            assert graph.get_out_degrees(range(12)) == [expected.out_degree(v) for v in range(12)]
    with pytest.raises(ValueError, match="already"):
        ours.add_edge(*kept[0])


def test_igraph_converts_to_it():
    theirs = networkx.Graph()
    for v in range(4):
        theirs.add_node(np.int32(v), v=torch.tensor([v + 0.1, -v], dtype=torch.float64))
    for layer, (a, b) in enumerate([(0, 1), (1, 2), (3, 0)]):
        theirs.add_edge(a, b, layer=np.int64(layer - 1), hyp=torch.tensor([7]))
    types = {"vertex_attributes": {"v": "vector<float>"}, "edge_attributes": {"layer": "int", "hyp": "int"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "graph_tool", stand_in)
        graph = igraph.Graph.from_networkx(theirs).to_graph_tool(**types)
    assert not graph.directed
    copy = stand_in.Graph(graph)
    assert not copy.directed
    copy.set_directed(True)
    back = [copy.add_edge(target, source) for source, target in copy.get_edges()]
    assert copy.directed and not graph.directed and len(graph.get_edges()) == 3
    assert sorted((*sorted(edge), copy.ep["layer"][edge], copy.ep["hyp"][edge]) for edge in graph.edges()) == [
        (0, 1, -1, 7),
        (0, 3, 1, 7),
        (1, 2, 0, 7),
    ]
    assert [copy.ep["layer"][edge] for edge in back] == [0, 0, 0]  # as for graph-tool, an int is 0 until it is set
    assert all(type(values[edge]) is int for values in copy.ep.values() for edge in copy.edges())
    assert [copy.vp["v"][copy.vertex(v)] for v in range(4)] == [[v + 0.1, -v] for v in range(4)]
    copy.vp["v"][0] = (5, 6)
    copy.ep["layer"][back[0]] = 3
    assert graph.vp["v"][0] == [0.1, 0] and copy.vp["v"][0] == [5, 6] and len(graph.ep["layer"]) == 3
    assert copy.vertex_index[2] == 2
