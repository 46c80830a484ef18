"""Work in shards: the same as at once, by one process or several, one of which may be killed."""

import json
import signal
import socket

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases import processes
from cases.shards import model, network, points, where
from cases.tilings import residual_net
from pylinregion._util import npz
from pylinregion.exact import fold_room
from pylinregion.sharding import sharded_counts


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


@pytest.mark.part(2)
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


class OfLogarithms(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 9).double()

    def forward(self, x):
        z = x.log()
        if not torch.isfinite(z).all():
            raise ValueError("not finite")
        return self.linear(z).relu()


def test_a_model_is_captured_with_points_of_its_own_domain(tmp_path):
    model, x = OfLogarithms(), 5 + np.abs(points())
    found = plr.count_in_shards(model, x, 0.1, tmp_path / "shards", shard_size=9, n_directions=4)
    same_counts(found.load(), plr.count_regions(model, torch.from_numpy(x), 0.1, n_directions=4))


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
    plain = sharded_counts.count_regions
    monkeypatch.setattr(
        sharded_counts, "count_regions", lambda net, x, *a, **k: counted.append(len(x)) or plain(net, x, *a, **k)
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
    with pytest.raises(ValueError, match=r"job\.json must be JSON"):
        plr.count_in_shards(model(), points(), 0.5, folder, shard_size=5, n_directions=4)
    with pytest.raises(ValueError, match="must be empty or hold shards"):
        plr.count_in_shards(model(), points(), 0.5, tmp_path, n_directions=4)


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "must have an object of keys and values, got list"),
        ('"text"', "must have an object of keys and values, got str"),
        ("3", "must have an object of keys and values, got int"),
        ("null", "must have an object of keys and values, got NoneType"),
        ("[" * 100_000, "must be JSON: "),
        ("\xff", "must be JSON: "),
        ('{"what": "count_regions"}', r"another version: .*job.json must be of version 2, got None. Remove the folder"),
        ('{"version": 3}', r"another version: .*job.json must be of version 2, got 3. Remove the folder"),
    ],
)
def test_a_job_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "job.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        plr.count_in_shards(network(), points(), 0.5, tmp_path, n_directions=4)


def test_what_a_kill_left_is_taken_away_and_nothing_else(tmp_path):
    """A folder with nothing but the temporary file of a process that was killed was refused for good."""
    for name in (".job.json.4711", ".shard-000001.npz.4711", f".pylinregion-{16 * '0'}.part", ".lock"):
        (tmp_path / name).write_bytes(b"half")
    found = plr.count_in_shards(network(), points(), 0.5, tmp_path, n_directions=4)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "job.json", "shard-000000.npz"}
    same_counts(found.load(), plr.count_regions(network(), torch.from_numpy(points()), 0.5, n_directions=4))
    (tmp_path / "notes").write_text("mine")
    plr.count_in_shards(network(), points(), 0.5, tmp_path, n_directions=4)
    (tmp_path / "job.json").unlink()
    with pytest.raises(ValueError, match="must be empty or hold shards"):
        plr.count_in_shards(network(), points(), 0.5, tmp_path, n_directions=4)
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_folder_is_one_run_s_at_a_time(tmp_path):
    class Rows:
        """Points from which, when they are counted, another run is begun in the same folder."""

        shape = (23, 6)
        told = 0

        def __getitem__(self, rows):
            if self.told == 1:
                with pytest.raises(plr.PylinregionError, match=f"another process works in {tmp_path / 'shards'}: wait"):
                    plr.count_in_shards(network(), points(), 0.5, tmp_path / "shards", shard_size=5, n_directions=4)
            self.told += 1
            return torch.from_numpy(points()[rows])

    rows = Rows()
    plr.count_in_shards(network(), rows, 0.5, tmp_path / "shards", shard_size=5, n_directions=4)
    assert rows.told > 2
    plr.count_in_shards(network(), points(), 0.5, tmp_path / "shards", shard_size=5, n_directions=4)


def altered(arrays, name):
    """Other arrays in the place of one."""
    array = arrays[name]
    if array.dtype.kind == "U":
        return [np.array("0" * 64)]
    other = array.copy()
    other.reshape(-1)[-1:] += 1
    kinds = [array.astype(dtype) for dtype in (np.int32, np.float32, np.uint8, np.int64) if dtype != array.dtype]
    sizes = [array[:-1], array[None], np.concatenate([array, array])] if array.ndim else [array[None]]
    return [None, other, *kinds, *sizes]


def test_an_array_of_a_shard_that_is_another_is_refused(tmp_path):
    """Other offsets were a segmentation fault, shorter arrays another partition, other counts taken as they are."""
    given = {"shard_size": 12, "n_directions": 4}
    runs = {
        "counts": lambda: plr.count_in_shards(network(), points(), 0.5, tmp_path / "counts", **given),
        "part": lambda: plr.partition_in_shards(network(), where(), tmp_path / "part", parts=2),
    }
    for folder, run in runs.items():
        run()
        path = tmp_path / folder / "shard-000001.npz"
        whole = path.read_bytes()
        with np.load(path) as file:
            arrays = dict(file)
        for name in arrays:
            for other in altered(arrays, name):
                rest = {key: array for key, array in arrays.items() if key != name}
                np.savez(path, **rest, **({} if other is None else {name: other}))
                with pytest.raises(
                    ValueError, match=r"shard-000001\.npz is damaged: .*Remove it, and run the same again"
                ):
                    run()
        path.write_bytes((tmp_path / folder / "shard-000000.npz").read_bytes())
        with pytest.raises(ValueError, match=r"is damaged: header must be of shard 1 of .*, got shard 0 of "):
            run()
        path.write_bytes(whole)
        run()


def test_an_array_that_fits_its_seal_and_not_the_job_is_refused(tmp_path):
    """By whoever can make seals: it never reaches compiled code."""
    folder = tmp_path / "part"
    wanted = plr.partition_in_shards(network(), where(), folder, parts=2)
    path = folder / "shard-000001.npz"
    with np.load(path) as file:
        arrays = dict(file)
    about = {"of": json.loads(str(arrays.pop("header")))["of"]}

    def put(**changes):
        with path.open("wb") as file:
            changed = {key: array for key, array in {**arrays, **changes}.items() if array is not None}
            npz.write(file, changed, about)
        return plr.partition_in_shards(network(), where(), folder, parts=2)

    same_partitions(put(), wanted)
    offsets, rows = arrays["offsets"], arrays["rows"]
    for changes, message in (
        ({"offsets": offsets.astype(np.int32)}, "offsets must be int64, got int32"),
        ({"offsets": offsets[:0]}, "offsets must be from 0 up, by 3 or more for each cell, got"),
        ({"offsets": offsets + 1}, "offsets must be from 0 up"),
        ({"offsets": np.append(offsets[:-1], 2**63 - 1)}, r"xy must be \[9223372036854775807, 2\], got"),
        ({"offsets": np.append(offsets, [2**63 - 1, 6])}, "offsets must be from 0 up"),
        ({"offsets": offsets[:-1]}, r"xy must be \["),
        ({"xy": arrays["xy"][:-1]}, r"xy must be \["),
        ({"xy": arrays["xy"] * np.nan}, "xy must be finite"),
        ({"keys": arrays["keys"].astype(np.int64)}, "keys must be uint64, got int64"),
        ({"rows": rows[1:]}, r"rows must be \["),
        ({"rows": np.full_like(rows, 24)}, "rows must be below 24, got 24"),
        ({"patterns": arrays["patterns"][:, :-1]}, r"patterns must be \["),
        ({"patterns": arrays["patterns"][1:]}, r"patterns must be \["),
        ({"regions": arrays["regions"][1:]}, r"regions must be of a size in \(0, 2\), got 1"),
        ({"regions": -arrays["regions"]}, "regions must be numbers from 0 up, got -"),
        ({"filter": np.int64(-1)}, "filter must be numbers from 0 up, got -1"),
        ({"filter": None}, "filter must be there, got nothing"),
        ({"more": np.zeros(3)}, "arrays must be known ones, got also more"),
        ({"keys": arrays["keys"][::-1]}, "must .*the parts of one slice, got "),
        ({"keys": np.zeros_like(arrays["keys"])}, "must .*the parts of one slice, got "),
        ({"regions": arrays["regions"] + 1}, "must .*the parts of one slice, got "),
    ):
        with pytest.raises(ValueError, match=message):
            put(**changes)
    same_partitions(put(), wanted)


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


@pytest.mark.part(3)
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


def test_a_slice_whose_columns_do_not_fit_has_no_parts_until_they_do(tmp_path, monkeypatch):
    """What was to be raised, the memory budget, had no say in it."""
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    net, slice_ = residual_net(), plr.Slice.around(torch.zeros(1, 12, 12), 0.1)
    wanted = plr.partition(net, slice_, cells=False)
    said = (
        r"take.? \d+ bytes, more than the memory budget of 4000 bytes.*pylinregion.partition finds the regions in tiles"
    )
    with pytest.raises(plr.BudgetExceededError, match=said):
        plr.partition_in_shards(net, slice_, tmp_path / "shards", parts=3, cells=False, memory_budget=4000)
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "4000")
    for budget in (1 << 30, 4000):  # what is there needs none
        found = plr.partition_in_shards(net, slice_, tmp_path / "shards", parts=3, cells=False, memory_budget=budget)
        assert found.regions_per_layer == wanted.regions_per_layer and found.n_regions > 20


# ---- several processes

SCRIPT = """
import os, signal, sys
import torch
from torch import distributed
import pylinregion as plr
from pylinregion._util import npz
from pylinregion.sharding import sharded_counts
from cases.shards import model, points, where

distributed.init_process_group("gloo")
kill = os.environ.get("KILLED")
if kill and int(kill) == distributed.get_rank():
    class Killed(sharded_counts.Shards):
        def _write(self, number, arrays):
            super()._write(number, arrays)
            os.kill(os.getpid(), signal.SIGKILL)
    sharded_counts.Shards = Killed
found = plr.count_in_shards(model(), points(), 0.5, sys.argv[1] + "/counts", shard_size=2, n_directions=4)
part = plr.partition_in_shards(model(), where(), sys.argv[1] + "/part", parts=9)
assert (part is None) == (distributed.get_rank() > 0)
if part is not None:
    part.save(sys.argv[1] + "/part.npz")
    torch.save(found.load().changes, sys.argv[1] + "/changes.pt")
distributed.destroy_process_group()
"""


def ranks(tmp_path, world, killed=None):
    """The exit status and the last words of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    if killed is not None:
        common["KILLED"] = str(killed)
    running = [processes.Started(SCRIPT, tmp_path, cwd=tmp_path, RANK=str(rank), **common) for rank in range(world)]
    ended = [process.ended() for process in running]
    return [each.returncode for each in ended], [each.stderr for each in ended]


@pytest.mark.turns(2)
def test_processes_do_the_work_of_one(tmp_path):
    assert ranks(tmp_path, 2)[0] == [0, 0]
    wanted = plr.count_regions(model(), torch.from_numpy(points()), 0.5, n_directions=4)
    assert torch.equal(torch.load(tmp_path / "changes.pt"), wanted.changes)
    same_partitions(plr.load(tmp_path / "part.npz"), plr.partition(model(), where()))


@pytest.mark.turns(2)
def test_a_process_that_is_killed_ends_the_run_and_loses_no_shard(tmp_path):
    codes, said = ranks(tmp_path, 2, killed=1)
    assert codes[1] == -signal.SIGKILL and codes[0] == 1
    assert "another process ended before its shards were done: 7 of 12 shards are in" in said[0]
    assert "Run the same again to go on" in said[0]
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "counts").glob("shard-*.npz")}
    assert len(done) == 7
    assert ranks(tmp_path, 3)[0] == [0, 0, 0]
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    wanted = plr.count_regions(model(), torch.from_numpy(points()), 0.5, n_directions=4)
    assert torch.equal(torch.load(tmp_path / "changes.pt"), wanted.changes)
    same_partitions(plr.load(tmp_path / "part.npz"), plr.partition(model(), where()))


# ---- processes that do not know of each other: forked, so that they are many and start at once

MANY = """
import os, signal, sys
import pylinregion as plr
from pylinregion._util import whole_files
from pylinregion.sharding import store
from cases.shards import count_small, network, points

network()  # once, before the forks
folder = sys.argv[1]

def child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except (ValueError, plr.PylinregionError) as error:
        print("refused:", error)
    finally:
        sys.stdout.flush()
        os._exit(0)

def all_at_once(works):
    start, go = os.pipe()
    def started(work):
        def run():
            os.close(go)
            os.read(start, 1)  # until the parent closes its end
            work()
        return run
    children = [child(started(work)) for work in works]
    os.close(go)
    os.close(start)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0

def killed(module, name, before):
    plain = getattr(module, name)
    def kill(*arguments, **options):
        try:
            before or plain(*arguments, **options)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    def work():
        setattr(module, name, kill)
        count_small(folder, 0.5)
    assert os.waitpid(child(work), 0)[1] == signal.SIGKILL
"""


def forked(tmp_path, code):
    ran = processes.run(MANY + code, tmp_path / "shards", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def wanted_line(radius):
    changes = plr.count_regions(network(), torch.from_numpy(points()), radius, n_directions=4).changes
    return f"counted: {radius} {changes.tolist()}"


@pytest.mark.turns(2)
def test_of_two_jobs_in_a_new_folder_one_wins(tmp_path):
    """Both looked for ``job.json``, both wrote it, and the counts were of some shards of each."""
    said = forked(
        tmp_path,
        """
for number in range(5):
    folder = f"{sys.argv[1]}-{number}"
    all_at_once([lambda radius=radius: count_small(folder, radius) for radius in (0.5, 0.25, 0.5, 0.25)])
    print("next")
""",
    )
    right = {wanted_line(0.5), wanted_line(0.25)}
    rounds = "\n".join(said).split("\nnext")[:-1]
    assert len(rounds) == 5
    for lines in rounds:
        counted = {line for line in lines.strip().split("\n") if line.startswith("counted")}
        others = [line for line in lines.strip().split("\n") if not line.startswith("counted")]
        assert len(counted) == 1 and counted <= right
        assert 2 <= len(others) <= 3
        assert all("another process works in" in line or "holds the shards of another job" in line for line in others)


@pytest.mark.turns(2)
def test_a_kill_at_any_place_keeps_what_is_done(tmp_path):
    """Killed with nothing but a temporary file, the folder was blocked for good."""
    said = forked(
        tmp_path,
        """
killed(os, "link", True)
assert [name for name in os.listdir(folder) if name != ".lock"][0].endswith(".part")
for module, name in ((os, "link"), (os, "fsync"), (store, "replace_file"), (store.npz, "write")):
    killed(module, name, False)
assert len([name for name in os.listdir(folder) if name.startswith("shard-")]) == 1
all_at_once([lambda: count_small(folder, 0.5)])
""",
    )
    assert said == [wanted_line(0.5)]
    left = {path.name for path in (tmp_path / "shards").iterdir()}
    assert left == {".lock", "job.json", *(f"shard-{number:06d}.npz" for number in range(5))}
