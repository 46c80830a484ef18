"""Points of the command line in safetensors files: those of the same .npy array, read some at a time."""

import json
import pickle
import struct
import sys

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases.shards import FACTORY, built, saved_changes
from pylinregion.cli.commands import main
from pylinregion.cli.load_model import Loaded
from pylinregion.cli.load_points import Rows, load_points

safetensors = pytest.importorskip("safetensors.torch")

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
X = torch.from_numpy(np.random.default_rng(0).normal(size=(11, 4)))
ANY = Loaded(torch.nn.Identity(), None, None)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "model_of_points.py").write_text(FACTORY)
    safetensors.save_file({"x": X}, tmp_path / "x.safetensors")
    safetensors.save_file({"x": X, "a:b": X[:5].clone(), "flags": X > 0}, tmp_path / "many.safetensors")
    safetensors.save_file({}, tmp_path / "none.safetensors")
    safetensors.save_file({"one": torch.tensor(3.0)}, tmp_path / "one.safetensors")
    (tmp_path / "pickled.safetensors").write_bytes(pickle.dumps({"x": 1}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("model_of_points", None)


def count(points, *arguments):
    return main(["count", "model_of_points:build", points, "--radius", "0.5", "--directions", "3", *arguments])


@pytest.mark.parametrize("wanted", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.uint8])
def test_every_dtype_is_cast_to_the_models(dtype, wanted, capsys):
    x = (10 * X.abs()).to(dtype)
    safetensors.save_file({"points": x}, "typed.safetensors")
    rows = Rows("typed.safetensors", Loaded(torch.nn.Identity(), wanted, (4,)))
    assert rows.shape == (11, 4)
    for some in (slice(0, 1), slice(3, 7), slice(10, 11), slice(0, 11)):
        assert rows[some].dtype == wanted and torch.equal(rows[some], x[some].to(wanted))
    assert ("converted the points" in capsys.readouterr().err) == (dtype != wanted)
    known = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(load_points("typed.safetensors", ANY), x.to(known))


@pytest.mark.parametrize("points", ["x.safetensors", "many.safetensors:x"])
@pytest.mark.parametrize("shards", [False, True])
def test_counts_are_those_of_the_array(points, shards):
    wanted = plr.count_regions(built(), X, 0.5, n_directions=3)
    if shards:
        assert count(points, "--shards", "counts", "--shard-size", "4") == 0
        assert np.array_equal(saved_changes(), wanted.changes.numpy())
    else:
        assert count(points, "--json", "counts.json") == 0
        with open("counts.json") as file:  # noqa: PTH123
            document = json.load(file)
        assert document["changes"] == wanted.changes.tolist() and document["inputs"]["points"] == points


def test_names_may_have_colons_and_files_may_lie_anywhere(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    (tmp_path / "many.safetensors").rename(tmp_path / "a.safetensors" / "many.SafeTensors")
    assert Rows("a.safetensors/many.SafeTensors:a:b", ANY).shape == (5, 4)
    assert torch.equal(load_points(f"{tmp_path}/a.safetensors/many.SafeTensors:x", ANY), X)


def test_a_file_larger_than_memory_is_read_in_parts(tmp_path):
    rows = 2**36  # 256 GiB of zeros that are not written
    head = json.dumps({"x": {"dtype": "F32", "shape": [rows, 1], "data_offsets": [0, 4 * rows]}}).encode()
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + 4 * rows)
    large = Rows("large.safetensors", ANY)
    assert large.shape == (rows, 1)
    assert torch.equal(large[slice(rows - 3, rows)], torch.zeros(3, 1))


@pytest.mark.parametrize(
    "points, message",
    [
        ("many.safetensors", "many.safetensors holds 3 tensors, say which: many.safetensors:a:b (there are 'a:b', "),
        ("many.safetensors:y", "many.safetensors must hold 'y', got 'a:b', 'flags', 'x'"),
        ("many.safetensors:flags", "many.safetensors must hold real numbers, F64, F32, F16, BF16, "),
        ("none.safetensors", "none.safetensors must hold points, got no tensors"),
        ("one.safetensors", "one.safetensors must hold points [B, *input_shape], got a single number"),
        ("pickled.safetensors", "pickled.safetensors: Error while deserializing header"),
        ("absent.safetensors", "No such file or directory: absent.safetensors"),
        ("x.safetensors:", "No such file or directory: 'x.safetensors:'"),
        ("model_of_points.py", "is no .npy array: write one with numpy.save, or a .safetensors file"),
    ],
)
@pytest.mark.parametrize("shards", [False, True])
def test_wrong_files(points, message, shards, capsys):
    assert count(points, *(["--shards", "counts"] if shards else [])) == 1
    assert message in capsys.readouterr().err


def test_a_missing_safetensors_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert count("x.safetensors") == 1
    said = capsys.readouterr().err
    assert 'a .safetensors file needs safetensors: pip install "pylinregion[safetensors]"' in said
