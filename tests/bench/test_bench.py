"""The benchmarks run, and refuse to time wrong counts."""

import contextlib
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

import pylinregion as plr
from cases import parts

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import architectures  # noqa: E402
import baselines  # noqa: E402
import chains  # noqa: E402
import harness  # noqa: E402
import main  # noqa: E402
import peer  # noqa: E402
import tables  # noqa: E402
import two_processes  # noqa: E402
import watching  # noqa: E402
import workloads  # noqa: E402

DTYPES = ("float32", "float64")

# Written for this test with the interface of the published code; it also wants CUDA and its own frame.
STAND_IN = """
import torch


def signs_that_change(z, points):
    signs = torch.sign(z).reshape(points, z.shape[0] // points, -1)
    return (signs.amax(1) != signs.amin(1)).sum(1) + EXTRA


def get_ortho_hull_around_samples(x, r, n, seed):
    torch.manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(x[0].numel(), n // 2).cuda())[0].T.reshape(-1, *x.shape[1:])
    return torch.cat([x[:, None] + r * frame, x[:, None] - r * frame], 1)


def get_intersections_for_hulls(hulls, model, layer_names, activation_buffer, batch_size):
    counts = torch.zeros(len(hulls), len(layer_names))
    for start in range(0, len(hulls) - batch_size + 1, batch_size):
        model(hulls[start : start + batch_size].flatten(0, 1).cuda())
        found = [signs_that_change(activation_buffer[name], batch_size) for name in layer_names]
        counts[start : start + batch_size] = torch.stack(found, 1).cpu()
    return counts, counts


def get_intersections_for_samples(
    samples, model, layer_names, activation_buffer, sampler, sampler_params, batch_size
):
    hulls = torch.cat([sampler(part.cuda(), **sampler_params) for part in samples.split(batch_size)])
    return get_intersections_for_hulls(hulls, model, layer_names, activation_buffer, batch_size)
"""


@pytest.fixture
def threads():
    """Put torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def smoke(tmp_path, capsys, part):
    """What a run of a part wrote and printed."""
    counts = [1, 2] if parts.LONG else [1]
    assert main.main(["--smoke", "--only", part, "--out", str(tmp_path), "--threads", *map(str, counts)]) == 0
    said = capsys.readouterr().out
    (file,) = tmp_path.glob("*-cpu.json")
    assert str(BENCH) not in file.read_text()
    report = json.loads(file.read_text())
    assert report["date"].endswith("+00:00")
    assert report["machine"]["cores"] >= 1 and report["machine"]["processor"] and report["machine"]["device"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__ and report["versions"]["pylinregion"] == plr.__version__
    for name, title in tables.TITLES.items():
        assert (f"## {title}\n\n| " in said) == bool(report[name])
        assert not report[name] or tables.section(name, report[name]).startswith(f"## {title}")
    for table in tables.speed(report["records"]).split("\n\n"):
        assert table in said  # a saved report gives the tables that were printed
    return report, counts


@pytest.mark.turns(3)
@pytest.mark.part(2)
@pytest.mark.parametrize("part", ["mlp", "resnet"])
def test_smoke_run_writes_every_row_of_networks(tmp_path, threads, capsys, part):
    report, counts = smoke(tmp_path, capsys, part)
    rows = [(r["setting"]["network"], r["setting"]["weights"], r["baseline"]) for r in report["records"]]
    settings = [record["setting"] for record in report["records"]]
    if part == "mlp":
        names = [f"MLP 784-16x{hidden}-10" for hidden in (3, 5)]
        bare = ("bare forward",)
        assert set(rows) == {*itertools.product(names, ("random", "trained"), (*bare, "hooks"))}
        assert len(rows) == len(counts) * 4 * 2 * 2  # MLPs, dtypes, baselines
        assert {s["dtype"] for s in settings} == set(DTYPES)
        assert max(s["local_complexity"] for s in settings) > 1  # the comparison had something to compare
    else:
        names = [f"PreAct-ResNet18 width 2 {norm} batch-norm" for norm in ("with", "without")]
        bare = ("bare forward, channels_last", "bare forward, contiguous")
        assert set(rows) == {*itertools.product(names, ("random",), (*bare, "hooks"))}
        assert len(rows) == len(counts) * 2 * 3
    assert {s["threads"] for s in settings} == set(counts)
    for record in report["records"]:
        assert record["name"] == "pylinregion" and record["seconds"] > 0
        assert record["ratio"] == record["seconds"] / record["baseline_seconds"]
        assert record["setting"]["baseline_batch"] >= 1  # the best batch size is stated
        assert record["setting"]["dtype"] != "float64" or record["setting"]["differing_neurons"] == 0
    assert {sweep["name"] for sweep in report["sweeps"]} >= {"pylinregion", "hooks", *bare}
    assert [row["name"] for row in report["memory"]] == ["pylinregion"]


@pytest.mark.turns(3)
def test_smoke_run_of_kernels(tmp_path, threads, capsys):
    report, _ = smoke(tmp_path, capsys, "kernels")
    assert {row["setting"]["kernel"] for row in report["kernels"]} >= {"sign_changes", "distinct_patterns"}


@pytest.mark.turns(3)
def test_smoke_run_of_chains(tmp_path, threads, capsys):
    report, _ = smoke(tmp_path, capsys, "chains")
    shapes = [(s["width"], s["depth"], s["dtype"]) for s in (row["setting"] for row in report["chains"])]
    assert sorted(shapes) == sorted((*shape, dtype) for shape in ((8, 3), (16, 3), (16, 2)) for dtype in DTYPES)
    for row in report["chains"]:
        assert all(row[f"{name}seconds"] > 0 for name in ("", "generic_", "bare_", "floor_")) and row["share"] > 0
        assert row["way"] == "every vertex" and row["bare_batch"] in (5, 12)  # 3 directions are too few
    settings = [row["setting"] for row in report["chain_radii"]]
    places = {(s["dtype"], s["directions"], s["radius"]) for s in settings}
    assert len(settings) == 8 and places == set(itertools.product(DTYPES, (4, 5), (0.05, 5.0)))
    images, *_ = workloads.images_and_labels(None)
    on_two = report["chain_threads"] or chains.by_threads(workloads.SMOKE, images, 1, [2])
    settings = [row["setting"] for row in on_two]
    assert [(s["dtype"], s["threads"]) for s in settings] == [("float32", 2), ("float64", 2)]
    assert tables.section("chain_threads", on_two).startswith(f"## {tables.TITLES['chain_threads']}")


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: architectures.mlp(3, 20, inputs=30), (30,)),
        (lambda: architectures.PreActResNet18(2), (3, 32, 32)),
        (lambda: architectures.PreActResNet18(2, norm=False), (3, 32, 32)),
    ],
    ids=["mlp", "resnet", "resnet without batch norm"],
)
def test_hooks_version_counts_like_count_regions(make, shape):
    torch.manual_seed(0)
    model = architectures.settled(make().double(), torch.empty(8, *shape, dtype=torch.float64))
    x = torch.randn(5, *shape, dtype=torch.float64)
    frame = plr.random_frame(shape, 6, seed=3)
    for radius in (0.05, 2.0):
        counts = plr.count_regions(model, x, radius, frame=frame).changes
        assert torch.equal(baselines.count_with_hooks(model, x, frame, radius, batch=2), counts)
        vertices = baselines.ready_made_vertices(x, frame, radius)
        assert torch.equal(baselines.count_ready_made(model, vertices, batch=5), counts)
    assert bool((counts.sum(dim=0) > 0).all())


def test_signs_are_compared_with_strictly_above_zero():
    z = torch.tensor([[[0.0, -0.0, 1.0, 0.0], [-1.0, 0.0, 2.0, 1.0]]])
    assert baselines.changed_signs(z).tolist() == [1]
    assert baselines.exact_zeros(z).tolist() == [3]


def test_differences_are_allowed_within_rounding_only():
    counts = torch.tensor([[3, 4], [5, 6]])
    other = torch.tensor([[3, 4], [6, 6]])
    assert baselines.compare_counts("equal", counts, counts.clone(), None) == 0
    with pytest.raises(baselines.WrongCountsError, match="other counts 6 neurons at point 1, layer 0, not 5"):
        baselines.compare_counts("other", other, counts, None)
    assert baselines.compare_counts("other", other, counts, torch.tensor([[0, 0], [1, 0]])) == 1
    with pytest.raises(baselines.WrongCountsError, match="other counts 6 neurons at point 1, layer 0, not 5"):
        baselines.compare_counts("other", other, counts, torch.tensor([[9, 9], [0, 9]]))
    with pytest.raises(baselines.WrongCountsError, match="shape"):
        baselines.compare_counts("short", counts[:1], counts, None)


def test_nothing_is_allowed_in_float64_and_little_in_float32():
    model, frame = architectures.mlp(2, 8, inputs=4), plr.random_frame((4,), 2)
    vertices = baselines.ready_made_vertices(torch.randn(50, 4), frame.float(), 0.1)
    assert baselines.allowed_differences(model.double(), vertices.double(), 10) is None
    allowed = baselines.allowed_differences(model.float(), vertices, 10)
    assert allowed.shape == (50, 2) and int(allowed.sum()) < 5


@pytest.mark.turns(3)
@pytest.mark.parametrize(
    ("part", "wrong", "name"),
    [
        ("mlp", None, "pylinregion"),
        ("chains", None, "pylinregion"),
        ("chains", True, "displacements"),
        ("chains", False, "every vertex"),
    ],
)
def test_wrong_counts_end_the_run(tmp_path, monkeypatch, capsys, threads, part, wrong, name):
    counted = plr.count_regions

    def off_by_one(*args, **kwargs):
        counts = counted(*args, **kwargs)
        counts.changes[3, 1] += 8 * (kwargs["displacement"] is wrong)
        return counts

    monkeypatch.setattr(plr, "count_regions", off_by_one)
    assert main.main(["--smoke", "--only", part, "--threads", "1", "--out", str(tmp_path)]) == 1
    assert f"wrong counts: {name} counts" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def chain_contest(dtype, width=16, directions=16, points=12):
    images = torch.rand(points, 784, generator=torch.Generator().manual_seed(2))
    sizes = workloads.Sizes(mlp_points=points, mlp_batches=(points,))
    return chains.ChainContest(width, 3, directions, dtype, sizes, images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=DTYPES)
def test_share_and_floor_are_those_of_the_products_that_are_left(threads, dtype):
    contest = chain_contest(dtype, points=300)  # more than one batch
    with torch.no_grad():
        first = contest.models["contiguous"][:1](contest.x) > 0
        second = contest.models["contiguous"][:3](contest.x) > 0
    # So near, no neuron changes: rows and columns of neurons that are on, one column for two vertices, nothing in the
    # last layer.
    share = float((first.sum(1) * second.sum(1)).sum()) / (300 * 2 * 2 * 16 * 16)
    found = contest.multiplied(1e-6)
    assert found.share == pytest.approx(share, rel=1e-12) and 0.03 < share < 0.3
    rates = {torch.float64: 2.0, torch.float32: 4.0}
    centres, displacements = 300 * (784 * 16 + 2 * 16 * 16), 300 * 32 * 2 * 16 * 16 * share
    assert contest.floor(share, rates) == pytest.approx(centres / 2 + displacements / rates[dtype], rel=1e-12)


def test_the_way_that_is_reported_is_the_one_taken(threads, monkeypatch):
    torch.set_num_threads(1)
    wide = chain_contest(torch.float32, width=200, directions=25, points=200)
    assert wide.multiplied(1e-3).kept
    assert not chain_contest(torch.float32, width=200, directions=3, points=200).multiplied(1e-3).kept
    monkeypatch.setattr(chains.Chain, "pays", lambda *arguments: False)  # tried, and then left
    with chains.batches_of_chains() as batches:
        wide.ours(1e-3, None)
    assert [n for n, _ in batches] == [16] and not wide.multiplied(1e-3).kept
    assert not wide.checked(1e-3)["differing_neurons"]


def test_table_of_radii_names_the_worst(threads):
    rows = []
    for radius, directions, seconds, way in ((0.1, 4, 1.0, "displacements"), (0.1, 8, 3.0, "every vertex")):
        setting = {"network": "MLP", "dtype": "float32", "radius": radius, "directions": directions, "way": way}
        rows.append(harness.compared("ours", setting, "every vertex", seconds, 2.0, 1.0).as_json())
    table = tables.section("chain_radii", rows)
    assert "| float32 | 0.1 | 0.50 d | 1.50 v |" in table
    assert "Worst: 1.500, float32, r = 0.1, P = 8 (at most 1: missed)" in table


def stand_in(tmp_path, extra, points=12):
    (tmp_path / "local_complexity.py").write_text(f"EXTRA = {extra}\n{STAND_IN}")
    model = architectures.mlp(2, 10, inputs=6).double()
    x = torch.randn(points, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return peer.Published(peer.load(tmp_path), model, x, vertices=8)


def test_published_code_runs_without_cuda_and_is_checked(tmp_path):
    published = stand_in(tmp_path, extra=0)
    state, default, cuda = torch.get_rng_state(), torch.get_default_dtype(), torch.Tensor.cuda
    hulls = published.hulls(0.5)
    assert hulls.shape == (12, 8, 6) and hulls.dtype == torch.float64
    for ready_made in (False, True):
        assert published.check(ready_made, 0.5, hulls, batch=4) == 0
    assert published.count(0.5, 4).sum() > 0
    assert published.batches((1, 5, 1000)) == (1, 4, 12)  # divisors: it drops an incomplete batch
    assert torch.equal(torch.get_rng_state(), state) and torch.get_default_dtype() == default
    assert torch.Tensor.cuda is cuda


def test_wrong_published_counts_are_noticed(tmp_path):
    published = stand_in(tmp_path, extra=1)
    for ready_made in (False, True):
        with pytest.raises(baselines.WrongCountsError, match="the published code"):
            published.check(ready_made, 0.5, published.hulls(0.5), batch=4)


def test_missing_published_code_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"local_complexity\.py"):
        peer.load(tmp_path)


def test_contenders_run_in_turn():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = harness.interleaved(runs, 2, harness.wall_seconds)
    assert order == list("abcabc")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_trained_networks_must_have_learnt():
    images, labels = torch.rand(64, 784), torch.arange(64) % 10
    sizes = workloads.Sizes(mlp_width=4, train_steps=1)
    with pytest.raises(RuntimeError, match="accuracy"):
        workloads.trained_mlp(3, sizes, images, labels)
    images, labels = workloads._prototypes_with_noise(200)
    model = workloads.trained_mlp(3, workloads.Sizes(mlp_width=50, train_steps=100), images, labels)
    assert (model(images).argmax(dim=1) == labels).float().mean() > 0.95


def test_verdicts():
    assert harness.compared("ours", {}, "bare", 1.0, 4.0, 0.35).as_json()["verdict"] == "met"
    assert harness.compared("ours", {}, "bare", 2.0, 4.0, 0.35).as_json()["verdict"] == "missed"
    assert harness.verdict(None, 100.0) == "not measured" and harness.verdict(1.0, None) == "no goal"


@pytest.mark.turns(3)
def test_smoke_run_of_the_monitor(tmp_path, threads, capsys):
    assert watching.main(["--smoke", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    (file,) = tmp_path.glob("*-cpu.json")
    records = json.loads(file.read_text())["monitor"]
    assert [(row["training"].split()[0], row["steps"]) for row in records] == [("MLP", 20), ("PreAct-ResNet18", 3)]
    for row in records:
        assert row["records"]["without budget"] == row["steps"] and row["records"]["default"] >= 1
        assert row["share"]["default"] == row["seconds"]["default"] / row["seconds"]["without"] - 1
    assert "| monitor " in said and "(5%)" in said


def test_a_training_that_watching_changes_is_noticed(monkeypatch):
    case = watching.cases(smoke=True, steps=2)[0]
    assert watching.record(case, 1)["records"]["without budget"] == 2
    step = plr.Monitor.step
    monkeypatch.setattr(
        plr.Monitor, "step", lambda self: torch.nn.init.zeros_(self._module[0].bias) is None or step(self)
    )
    with pytest.raises(SystemExit, match=r"training ends with other weights when it is watched \(default\)"):
        watching.record(case, 1)


@pytest.mark.turns(3)
def test_smoke_run_of_shards(tmp_path, threads, monkeypatch, capsys):
    with (
        pytest.raises(SystemExit, match="a process ended: Traceback"),
        two_processes.Pair(smoke=True) as pair,
        monkeypatch.context() as patch,
    ):
        patch.setattr(two_processes, "Pair", lambda smoke: contextlib.nullcontext(pair))
        assert two_processes.main(["--smoke", "--out", str(tmp_path)]) == 0
        pair.run(5, "one process")
    (file,) = tmp_path.glob("*-cpu.json")
    records = json.loads(file.read_text())["shards"]
    assert [row["work"].split(",")[0] for row in records] == ["count_in_shards", "partition_in_shards"]
    for row in records:
        one, two, each = (row["seconds"][mode][0] for mode in ("one process", "two processes", "each all"))
        assert row["gain"] == one / two and row["ceiling"] == 2 * one / each
    assert [row["goal"] for row in records] == [1.7, None]
    assert records[0]["verdict"] == ("met" if records[0]["gain"] >= 1.7 else "missed")
    assert "| partition_in_shards, 2-16x3-1, 8 parts " in capsys.readouterr().out


def test_shards_that_differ_are_noticed():
    class Told:
        """A pair whose answers are written down."""

        def __init__(self, *digests, shared=1.0):
            self.digests, self.shared = iter(digests), shared

        def run(self, number, mode):
            return self.shared if mode == "two processes" else 1.0, next(self.digests)

    work = two_processes.Work("it", lambda folder: None, lambda found: "", 1.7)
    same = two_processes.record(Told(["a"], ["a", "a"], ["a", "a"]), 0, work, 1)
    assert (same["gain"], same["ceiling"], same["verdict"]) == (1.0, 2.0, "missed")
    faster = two_processes.record(Told(["a"], ["a", "a"], ["a", "a"], shared=0.5), 0, work, 1)
    assert (faster["gain"], faster["verdict"]) == (2.0, "met")
    for digests in ((["a"], ["b", "b"], ["a", "a"]), (["a"], ["a", "b"], ["a", "a"])):
        with pytest.raises(SystemExit, match="it: two processes have other results than one"):
            two_processes.record(Told(*digests), 0, work, 1)
