"""Work in shards: the same as at once, by one process or several, one of which may be killed."""

import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion import sharded


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()


def points(count=23):
    return np.random.default_rng(0).normal(size=(count, 6))


def where():
    a, b, c = torch.from_numpy(points(3) * 3)
    return plr.Slice.through(a, b, c)


def same_counts(one, other):
    assert torch.equal(one.changes, other.changes) and torch.equal(one.regions, other.regions)
    assert (one.layers, one.definition, one.method) == (other.layers, other.definition, other.method)
    assert (one.ambiguous is None) == (other.ambiguous is None)
    assert one.ambiguous is None or torch.equal(one.ambiguous, other.ambiguous)


def same_partitions(one, other):
    for name in ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.regions_per_layer == other.regions_per_layer and one.layers == other.layers


# ---- one process


@pytest.mark.parametrize("shard_size", [1, 5, 23, 1000])
@pytest.mark.parametrize("options", [{}, {"method": "axes"}, {"estimate_ambiguous": True, "layers": ["3"]}], ids=str)
def test_counts_are_those_of_all_points_at_once(tmp_path, shard_size, options):
    np.save(tmp_path / "points.npy", points())
    rows = np.load(tmp_path / "points.npy", mmap_mode="r")
    found = plr.count_in_shards(
        model(), rows, 0.5, tmp_path / "shards", shard_size=shard_size, n_directions=4, **options
    )
    wanted = plr.count_regions(model(), torch.from_numpy(points()), 0.5, n_directions=4, **options)
    same_counts(found.load(), wanted)
    assert next(len(counts.changes) for counts in found) == min(shard_size, 23)
    assert found.points == 23 and len(list((tmp_path / "shards").glob("shard-*.npz"))) == -(-23 // shard_size)
    for layer in (None, *wanted.layers):
        assert found.mean(layer) == pytest.approx(wanted.mean(layer), rel=1e-12)


def test_only_a_shard_of_the_points_is_read_at_a_time(tmp_path):
    class Rows:
        shape = (23, 6)
        read = 0

        def __getitem__(self, rows):
            assert rows.stop - rows.start <= 5
            self.read += 1
            return torch.from_numpy(points()[rows])

    rows = Rows()
    found = plr.count_in_shards(model(), rows, 0.5, tmp_path / "shards", shard_size=5, n_directions=4)
    assert rows.read >= 5 and found.points == 23


def test_one_point_has_no_interval(tmp_path):
    found = plr.count_in_shards(model(), points(1), 0.5, tmp_path / "shards", n_directions=4)
    mean = found.mean()
    assert mean.mean == int(found.load().total) and np.isnan(mean.low)
    with pytest.raises(ValueError, match="layer must be among '1', '3', got 'x'"):
        found.mean("x")


def test_a_rerun_makes_what_is_missing_and_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    wanted = plr.count_in_shards(model(), points(), 0.5, folder, shard_size=5, n_directions=4).load()
    (folder / "shard-000001.npz").unlink()
    (folder / "shard-000003.npz").unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    counted = []
    plain = sharded.count_regions
    monkeypatch.setattr(
        sharded, "count_regions", lambda net, x, *a, **k: counted.append(len(x)) or plain(net, x, *a, **k)
    )
    same_counts(plr.count_in_shards(model(), points(), 0.5, folder, shard_size=5, n_directions=4).load(), wanted)
    assert counted == [0, 5, 5]  # the arguments are checked first
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"radius": 0.25}, "shards of another job: radius is 0.5 there and 0.25 here"),
        ({"model": model(1)}, "shards of another job: network is '"),
        ({"seed": 3}, "shards of another job: options is "),
        ({"frame": plr.random_frame((6,), 4, seed=1)}, "shards of another job: options is "),
        ({"shard_size": 6}, "shards of another job: shard_size is 5 there and 6 here; shards is 5 there and 4 here"),
        ({"points": points(24)}, r"shards of another job: points is \[23, 6\] there and \[24, 6\] here"),
        ({"points": points() + 1}, r"shard-000000.npz was made of other points. Remove the folder, or use another"),
    ],
    ids=["radius", "model", "seed", "frame", "shard_size", "more points", "other points"],
)
def test_the_shards_of_another_job_are_refused(tmp_path, change, message):
    given = {"model": model(), "points": points(), "radius": 0.5, "folder": tmp_path / "shards", "shard_size": 5}
    plr.count_in_shards(**given, n_directions=4)
    with pytest.raises(ValueError, match=message):
        plr.count_in_shards(**{**given, "n_directions": 4, **change})


def test_damaged_shards_and_other_folders_are_refused(tmp_path):
    folder = tmp_path / "shards"
    plr.count_in_shards(model(), points(), 0.5, folder, shard_size=5, n_directions=4)
    path = folder / "shard-000002.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"shard-000002.npz is damaged: .* Remove it, and run the same again"):
        plr.count_in_shards(model(), points(), 0.5, folder, shard_size=5, n_directions=4)
    (folder / "job.json").write_text("{")
    with pytest.raises(ValueError, match=r"job\.json is no description of shards"):
        plr.count_in_shards(model(), points(), 0.5, folder, shard_size=5, n_directions=4)
    with pytest.raises(ValueError, match="must be empty or hold shards"):
        plr.count_in_shards(model(), points(), 0.5, tmp_path, n_directions=4)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"shard_size": 0}, ValueError, "shard_size must be"),
        (
            {"points": np.zeros((0, 6))},
            ValueError,
            r"points must be \[B, \*input_shape\] with B at least 1, got \[0, 6\]",
        ),
        ({"points": np.zeros((4, 5))}, ValueError, "x must"),
        ({"radius": torch.ones(23)}, TypeError, "radius must be a number, got Tensor"),
        ({"method": "none"}, ValueError, "method must be one of"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, change, error, message):
    given = {"model": model(), "points": points(), "radius": 0.5, "folder": tmp_path / "shards", "n_directions": 4}
    with pytest.raises(error, match=message):
        plr.count_in_shards(**{**given, **change})
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("layers", [None, ["1"]])
@pytest.mark.parametrize("parts", [1, 7, 64])
def test_parts_of_a_partition_are_the_whole(tmp_path, parts, layers):
    wanted = plr.partition(model(), where(), layers=layers)
    for run in ("first", "again"):
        found = plr.partition_in_shards(model(), where(), tmp_path / "shards", parts=parts, layers=layers)
        same_partitions(found, wanted)
        assert found.certificate.proven, run
    counted = plr.partition_in_shards(model(), where(), tmp_path / "counted", parts=parts, layers=layers, cells=False)
    assert counted.cells is None and counted.regions_per_layer == wanted.regions_per_layer
    with pytest.raises(ValueError, match="shards of another job: cells is True there and False here"):
        plr.partition_in_shards(model(), where(), tmp_path / "shards", parts=parts, layers=layers, cells=False)
    found.verify(model() if layers is None else None, samples=100)


def test_a_part_that_takes_too_much_memory(tmp_path):
    with pytest.raises(
        plr.BudgetExceededError, match="the cells of part 0 of 2 take more than the memory budget of 300"
    ):
        plr.partition_in_shards(model(), where(), tmp_path / "shards", parts=2, memory_budget=300)


# ---- several processes

SCRIPT = """
import os, signal, sys
import torch
from torch import distributed
sys.path.insert(0, {tests!r})
import pylinregion as plr
from pylinregion import sharded
from test_shards import model, points, where

torch.set_num_threads(1)
distributed.init_process_group("gloo")
kill = os.environ.get("KILLED")
if kill and int(kill) == distributed.get_rank():
    class Killed(sharded.Shards):
        def _write(self, number, arrays):
            super()._write(number, arrays)
            os.kill(os.getpid(), signal.SIGKILL)
    sharded.Shards = Killed
found = plr.count_in_shards(model(), points(), 0.5, sys.argv[1] + "/counts", shard_size=2, n_directions=4)
part = plr.partition_in_shards(model(), where(), sys.argv[1] + "/part", parts=9)
assert (part is None) == (distributed.get_rank() > 0)
if part is not None:
    part.save(sys.argv[1] + "/part.npz")
    torch.save(found.load().changes, sys.argv[1] + "/changes.pt")
distributed.destroy_process_group()
"""


def processes(tmp_path, world, killed=None):
    """The exit status and the last words of each."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__)))  # noqa: PTH120
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    if killed is not None:
        common["KILLED"] = str(killed)
    running = [
        subprocess.Popen(
            [sys.executable, script, tmp_path], env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    said = [process.communicate()[1] for process in running]
    return [process.returncode for process in running], said


def test_processes_do_the_work_of_one(tmp_path):
    assert processes(tmp_path, 2)[0] == [0, 0]
    wanted = plr.count_regions(model(), torch.from_numpy(points()), 0.5, n_directions=4)
    assert torch.equal(torch.load(tmp_path / "changes.pt"), wanted.changes)
    same_partitions(plr.load(tmp_path / "part.npz"), plr.partition(model(), where()))


def test_a_process_that_is_killed_ends_the_run_and_loses_no_shard(tmp_path):
    codes, said = processes(tmp_path, 2, killed=1)
    assert codes[1] == -signal.SIGKILL and codes[0] == 1
    assert "another process ended before its shards were done: 7 of 12 shards are in" in said[0]
    assert "Run the same again to go on" in said[0]
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "counts").glob("shard-*.npz")}
    assert len(done) == 7
    assert processes(tmp_path, 3)[0] == [0, 0, 0]
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    wanted = plr.count_regions(model(), torch.from_numpy(points()), 0.5, n_directions=4)
    assert torch.equal(torch.load(tmp_path / "changes.pt"), wanted.changes)
    same_partitions(plr.load(tmp_path / "part.npz"), plr.partition(model(), where()))
