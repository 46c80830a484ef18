"""Partitions in files."""

import json
import pickle
import zipfile
from itertools import pairwise

import numpy as np
import pytest
import torch
from partition_cases import model_of, random_both
from torch import nn

import pylinregion as plr

ARRAYS = ("vertices", "offsets", "indices", "edges", "edge_cells", "edge_neuron", "patterns")


def partition_of(activation="relu", **options):
    rng = np.random.default_rng(4)
    shape = (4, 6, 5, 3)
    weights = [rng.standard_normal(pair[::-1]) for pair in pairwise(shape)]
    model = model_of(weights, [rng.standard_normal(n) for n in shape[1:]], activation)
    return plr.partition(model, plr.Slice.through(*3 * rng.standard_normal((3, 4))), **options)


def same(p, q):
    assert (p.layers, p.regions_per_layer, p.certificate, p.whole) == (
        q.layers,
        q.regions_per_layer,
        q.certificate,
        q.whole,
    )
    for name in ("origin", "u", "v"):
        assert torch.equal(getattr(p.slice, name), getattr(q.slice, name))
    assert np.array_equal(p.slice.polygon, q.slice.polygon)
    assert (p.cells is None) == (q.cells is None)
    for name in ARRAYS if p.cells is not None else ():
        a, b = getattr(p, name), getattr(q, name)
        assert a.dtype == b.dtype and np.array_equal(a, b), name
    assert repr(p) == repr(q)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("activation", ["relu", "hardsigmoid"])
def test_what_is_saved_is_loaded(tmp_path, activation, compress):
    part = partition_of(activation)
    assert len(part.decision_boundary().segments) > 1
    path = tmp_path / "a partition"  # no ending is added
    part.save(path, compress=compress)
    again = plr.load(path)
    same(part, again)
    for what in (
        lambda p: p.affine_maps(),
        lambda p: p.linear_regions(),
        lambda p: p.decision_boundary().segments,
        lambda p: p.locate(part.centroids()),
        lambda p: p.slope_norms("jacobian"),
    ):
        assert np.array_equal(what(part), what(again))
    assert again.verify() == part.verify() and repr(again.statistics()) == repr(part.statistics())
    assert again.neuron(7) == part.neuron(7) and again.pattern(0).keys() == part.pattern(0).keys()
    again.save(str(tmp_path / "again.npz"))
    same(plr.load(str(tmp_path / "again.npz")), part)


@pytest.mark.parametrize("options", [{"cells": False}, {"layers": ["1"]}])
def test_partial_partitions(tmp_path, options):
    part = partition_of(**options)
    part.save(tmp_path / "part.npz")
    same(plr.load(tmp_path / "part.npz"), part)


def test_a_network_with_skips_and_no_kinks(tmp_path):
    part = plr.partition(nn.Linear(2, 2), plr.Slice.box(0, 1))
    part.save(tmp_path / "part.npz")
    same(plr.load(tmp_path / "part.npz"), part)


def test_compression_makes_files_smaller(tmp_path):
    part = partition_of()
    for compress in (False, True):
        part.save(tmp_path / str(compress), compress=compress)
    assert (tmp_path / "True").stat().st_size < (tmp_path / "False").stat().st_size


def test_degenerate_partitions(tmp_path):
    part, _ = random_both("duplicated", "edge", (2, 5, 5, 1), 3)
    part.save(tmp_path / "part.npz")
    same(plr.load(tmp_path / "part.npz"), part)


def changed(path, **changes):
    """The file with other arrays; None leaves one out."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | {
            name.replace("__", "."): value for name, value in changes.items()
        }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.fixture
def path(tmp_path):
    partition_of().save(tmp_path / "part.npz")
    return tmp_path / "part.npz"


def header(path, **changes):
    with np.load(path) as file:
        return np.array(json.dumps(json.loads(str(file["header"])) | changes))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        plr.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text").write_text("no partition")
    (tmp_path / "empty").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with (tmp_path / "pickle").open("wb") as file:
        pickle.dump({"format": "pylinregion.Partition"}, file)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("header.npy", "nonsense")
    for name in ("other.npz", "text", "empty", "array.npy", "pickle", "zip"):
        with pytest.raises(ValueError, match=f"{name} is not a partition that pylinregion saved"):
            plr.load(tmp_path / name)


def test_nothing_pickled_is_read(path):
    changed(path, cells__vertices=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match=r"is not a partition that pylinregion saved: .*allow_pickle"):
        plr.load(path)


def test_other_versions_are_refused(path):
    changed(path, header=header(path, version=2))
    with pytest.raises(ValueError, match=r"must be a pylinregion.Partition of version 1, got .* of version 2"):
        plr.load(path)
    changed(path, header=header(path, format="other"))
    with pytest.raises(ValueError, match=r"must be a pylinregion.Partition of version 1, got other"):
        plr.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"cells__vertices": None},
        {"cells__vertices": np.zeros((3, 2))},
        {"cells__offsets": np.array([0, 3])},
        {"cells__offsets": "swapped"},
        {"cells__edge_neuron": np.zeros(2, np.int32)},
        {"cells__patterns": np.zeros((1, 1), np.uint8)},
        {"stage0__bias": None},
        {"slice__polygon": np.zeros((4, 2))},
        {"slice__u": np.full(4, np.nan)},
    ],
)
def test_damaged_files_are_refused(path, damage):
    if damage.get("cells__offsets") is not None and isinstance(damage["cells__offsets"], str):
        offsets = plr.load(path).offsets.copy()
        offsets[[1, 2]] = offsets[[2, 1]]
        damage = {"cells__offsets": offsets}
    changed(path, **damage)
    with pytest.raises(ValueError, match=r"part.npz is damaged: "):
        plr.load(path)


@pytest.mark.parametrize("name", ["indices", "edges", "edge_cells", "edge_neuron"])
@pytest.mark.parametrize("value", [-2, 10**6, 0.5])
def test_numbers_out_of_range_are_refused(path, name, value):
    array = np.array(getattr(plr.load(path), name)).astype(type(value))
    array.reshape(-1)[0] = value
    changed(path, **{f"cells__{name}": array})
    with pytest.raises(ValueError, match=r"damaged: ValueError: its arrays do not fit each other"):
        plr.load(path)
