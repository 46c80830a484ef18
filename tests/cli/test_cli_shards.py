"""``pylinregion count --shards`` and ``partition``, by one process and by two that ``torchrun`` starts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases.parts import some
from cases.shards import FACTORY, built, saved_changes
from pylinregion.cli.commands import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "model_of_shards.py").write_text(FACTORY)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(11, 4)))
    np.save(tmp_path / "three.npy", 2 * np.random.default_rng(1).normal(size=(3, 4)))
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("model_of_shards", None)


COUNT = ["count", "model_of_shards:build", "x.npy", "--radius", "0.5", "--directions", "3", "--shards", "counts"]
PARTITION = ["partition", "model_of_shards:build", "three.npy", "--out", "part.npz"]


def where():
    a, b, c = torch.from_numpy(np.load("three.npy"))
    return plr.Slice.through(a, b, c, margin=0.1)


def test_counts_of_shards(capsys):
    assert main([*COUNT, "--shard-size", "4"]) == 0
    wanted = plr.count_regions(built(), torch.from_numpy(np.load("x.npy")), 0.5, n_directions=3)
    assert np.array_equal(saved_changes(), wanted.changes.numpy())
    said = capsys.readouterr().out
    assert (
        f"model_of_shards:build: 11 points in 3 shards in counts\n\nlocal complexity {wanted.mean().mean:.4g}" in said
    )
    assert wanted.definition in said


@pytest.mark.turns(2)
def test_a_partition_is_saved_and_drawn(capsys, folder):
    assert main([*PARTITION, "--plot", "part.png"]) == 0
    wanted = plr.partition(built(), where())
    assert capsys.readouterr().out == f"{wanted}\n"
    assert np.array_equal(plr.load("part.npz").patterns, wanted.patterns)
    assert (folder / "part.png").read_bytes().startswith(b"\x89PNG")


def test_a_partition_is_counted(capsys):
    wanted = plr.partition(built(), where(), cells=False, layers=["1"]).n_regions
    for shards in ([], ["--shards", "parts", "--parts", "3"]):
        assert main([*PARTITION[:3], "--count-only", "--layers", "1", *shards]) == 0
        assert f"{wanted} regions, counted only" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*PARTITION[:2], "x.npy"], "x.npy must hold three points [3, *input_shape], got [11, 4]"),
        ([*PARTITION[:3], "--out", "nowhere/part.npz"], "--out: there is no folder nowhere"),
        (
            [*COUNT[:2], "objects.npy", *COUNT[3:]],
            "objects.npy must hold numbers, got Python objects, which are pickled",
        ),
        ([*COUNT[:2], "model_of_shards.py", *COUNT[3:]], "model_of_shards.py is no .npy array"),
        ([*COUNT, "--shard-size", "0"], "shard_size must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.part(2)
@pytest.mark.parametrize("out", ["--out", "--plot", "--json"])
def test_what_stands_at_an_output_is_not_taken_away(folder, capfdbinary, out):
    """A device became a file, with exit code 0; a link became a file, and the one that it named stayed empty."""
    arguments = [*PARTITION[:3]] if out != "--json" else COUNT[:-2]
    end = ".png" if out == "--plot" else ""
    (folder / f"link{end}").symlink_to("target")
    (folder / f"full{end}").symlink_to("/dev/full")
    (folder / f"a folder{end}").mkdir()
    for path, code, message in (
        (f"link{end}", 0, ""),
        (f"full{end}", 1, f"error: [Errno 28] No space left on device: 'full{end}'"),
        (f"a folder{end}", 1, f"error: [Errno 21] Is a directory: 'a folder{end}'"),
    ):
        assert main([*arguments, out, path]) == code
        assert message.encode() in capfdbinary.readouterr().err
    assert (folder / f"link{end}").is_symlink() and (folder / "target").stat().st_size > 1000 * (out != "--json")
    assert (folder / f"full{end}").is_symlink() and Path("/dev/full").is_char_device()
    if out != "--plot":  # which goes by the ending
        assert main([*arguments, out, "/dev/full"]) == 1
        assert main([*arguments, out, "/dev/stdout"]) == 0
        assert Path("/dev/full").is_char_device()
        assert (folder / "target").read_bytes()[:4] in capfdbinary.readouterr().out


@pytest.mark.parametrize("arguments", [[*COUNT, "--json", "x.json"], [*PARTITION, "--count-only"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "goes without" in capsys.readouterr().err


@pytest.mark.turns(2)
def test_two_processes_share_the_work():
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pylinregion"]
    each = {"count": [*COUNT, "--shard-size", "2"], "partition": [*PARTITION, "--shards", "parts", "--parts", "5"]}
    for name in some(list(each), 2, "torchrun"):
        done = subprocess.run([*run, *each[name]], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("regions") >= 1
        if name == "count":
            wanted = plr.count_regions(built(), torch.from_numpy(np.load("x.npy")), 0.5, n_directions=3)
            assert np.array_equal(saved_changes(), wanted.changes.numpy())
        else:
            part, alone = plr.load("part.npz"), plr.partition(built(), where())
            assert np.array_equal(part.patterns, alone.patterns) and np.array_equal(part.vertices, alone.vertices)
