"""``pylinregion count`` and ``explain``: what they print and write."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.command_line import make_net
from pylinregion.cli import commands
from pylinregion.cli.commands import main

safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("in_made")


def count_to_json(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    target = tmp_path / "counts.json"
    assert main(["count", *arguments, "--json", str(target)]) == 0
    document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return document


# count


def test_count_writes_what_the_library_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = count_to_json(tmp_path, "m.pt2", "x.npy", "--radius", "0.5", "--directions", "3")
    want = plr.count_regions(make_net(), torch.from_numpy(np.load("x.npy")), 0.5, n_directions=3)
    assert want.total.sum() > 20
    inputs = document.pop("inputs")
    assert document == json.loads(json.dumps(want.to_dict()))
    versions = inputs.pop("versions")
    assert inputs == {
        "model": "m.pt2",
        "weights": None,
        "points": "x.npy",
        "shape": [20, 4],
        "radius": 0.5,
        "directions": 3,
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
    }
    assert versions["pylinregion"] == plr.__version__ and versions["torch"] == torch.__version__
    out, err = capsys.readouterr()
    mean, low, high = want.mean()
    assert err == ""
    assert f"local complexity {mean:.4g}, 99 % interval [{low:.4g}, {high:.4g}]" in out.splitlines()
    assert want.definition in out.splitlines()
    assert "m.pt2: 20 points of shape [4], radius 0.5, 3 directions (seed 0), float32 on cpu" in out
    table = [line.split(None, 4) for line in out.splitlines() if line[:2] in ("1 ", "3 ")]
    assert table == [
        [name, "relu", units, f"{m.mean:.4g}", f"[{m.low:.4g}, {m.high:.4g}]"]
        for name, units in (("1", "8"), ("3", "6"))
        for m in [want.mean(name)]
    ]


def test_count_takes_a_factory_with_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--weights", "w.safetensors", "--radius", "0.5", "--directions", "3")
    document = count_to_json(tmp_path, "factories_of_the_tests:random_net", "x.npy", *arguments)
    want = plr.count_regions(make_net(), torch.from_numpy(np.load("x.npy")), 0.5, n_directions=3)
    assert document["changes"] == want.changes.tolist()
    assert document["inputs"]["weights"] == "w.safetensors"
    assert capsys.readouterr().err == ""


def test_count_passes_every_option_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = count_to_json(
        *(
            tmp_path,
            "factories_of_the_tests:Models.small",
            "x.npy",
            "--radius",
            "4",
            "--directions",
            "2",
            "--seed",
            "5",
        ),
        *("--layers", "3", "--include-output", "--estimate-ambiguous", "--dtype", "float64", "--batch-size", "3"),
        *("--progress",),
    )
    want = plr.count_regions(
        *(make_net(), torch.from_numpy(np.load("x.npy")), 4.0),
        n_directions=2,
        seed=5,
        layers=["3"],
        include_output=True,
        estimate_ambiguous=True,
        dtype=torch.float64,
    )
    assert document["layers"] == ["3", "output"]
    assert document["changes"] == want.changes.tolist() and want.changes.sum(0).min() > 0
    assert document["ambiguous"] == want.ambiguous.tolist()
    assert document["inputs"]["dtype"] == "float64"
    out, err = capsys.readouterr()
    assert "20/20" in err  # the bar
    assert "signs that rounding may have decided: 0 (estimate)" in out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("output ")] == [["output", "output", "2"]]


def test_count_computes_in_the_dtype_asked_for(tmp_path: Path) -> None:
    arguments = ("m.pt2", "x.npy", "--radius", "0.003", "--directions", "4")
    x = torch.from_numpy(np.load("x.npy"))
    found = count_to_json(tmp_path, *arguments, "--dtype", "bfloat16")["total"]
    assert found == plr.count_regions(make_net(), x, 0.003, n_directions=4, dtype=torch.bfloat16).total.tolist()
    assert found != count_to_json(tmp_path, *arguments)["total"]  # so coarse that it shows


def test_several_layers_are_named_with_commas(tmp_path: Path) -> None:
    assert count_to_json(tmp_path, "m.pt2", "x.npy", "--radius", "1", "--directions", "2", "--layers", "1,3")[
        "layers"
    ] == ["1", "3"]


@pytest.mark.parametrize(("file", "dtype"), [("x64.npy", "float64"), ("int.npy", "uint16")])
def test_points_are_converted_to_the_dtype_of_the_model(
    file: str, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = count_to_json(tmp_path, "m.pt2", file, "--radius", "200", "--directions", "3")
    x = torch.from_numpy(np.load(file).astype(np.float32))
    assert document["changes"] == plr.count_regions(make_net(), x, 200.0, n_directions=3).changes.tolist()
    note = f"pylinregion: note: {file} is {dtype}, the model takes float32: converted the points\n"
    assert capsys.readouterr().err == note


def test_weights_of_higher_precision_are_not_rounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded: list[nn.Module] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "capture", lambda model, x: loaded.append(model) or plr.capture(model, x))
        arguments = ("--weights", "w64.safetensors", "--radius", "0.5", "--directions", "3")
        document = count_to_json(tmp_path, "factories_of_the_tests:net", "x64.npy", *arguments)
    found = loaded[0].state_dict()
    for name, tensor in make_net().state_dict().items():
        assert torch.equal(found[name], tensor.double() + 1e-12)
    assert document["inputs"]["dtype"] == "float64"
    note = "the weights are float64, the factory's module is not: converted the module"
    assert capsys.readouterr().err == f"pylinregion: note: {note}\n"


def test_one_point_and_none_have_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--radius", "1", "--directions", "3")
    one = count_to_json(tmp_path, "m.pt2", "one.npy", *arguments)
    assert one["mean"] == {"mean": one["total"][0], "low": None, "high": None}
    assert f"local complexity {one['total'][0]}\n" in capsys.readouterr().out
    none = count_to_json(tmp_path, "m.pt2", "none.npy", *arguments)
    assert none["mean"] == {"mean": None, "low": None, "high": None} and none["total"] == []
    assert "local complexity -\n" in capsys.readouterr().out


def test_a_terminal_without_plus_minus_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["count", "m.pt2", "x.npy", "--radius", "1", "--directions", "3"]) == 0
    assert b"the 6 vertices x ? r v_p" in stdout.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.cuda
@pytest.mark.parametrize("model", ["m.pt2", "factories_of_the_tests:net"])
def test_count_on_cuda_is_the_same(model: str, tmp_path: Path) -> None:
    arguments = (model, "x.npy", "--radius", "0.5", "--directions", "3")
    on_cpu, on_cuda = count_to_json(tmp_path, *arguments), count_to_json(tmp_path, *arguments, "--device", "cuda")
    assert on_cuda["changes"] == on_cpu["changes"] and on_cuda["inputs"]["device"] == "cuda"


# explain


def test_explain_prints_the_explanation(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.no_grad():
        want = str(plr.explain(torch.export.load("m.pt2"), torch.zeros(2, 4)))
    assert main(["explain", "m.pt2"]) == 0
    assert capsys.readouterr() == (want + "\n", "")
    assert "14 neurons in 2 layers" in want


@pytest.mark.parametrize("shape", [["--shape", "4"], ["x.npy"]])
def test_explain_takes_a_factory_with_a_shape(shape: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "factories_of_the_tests:net", *shape]) == 0
    want = str(plr.explain(make_net(), torch.zeros(2, 4)))
    assert [line.split()[:5] for line in capsys.readouterr().out.splitlines()] == [
        line.split()[:5] for line in want.splitlines()
    ]


def test_explain_says_what_an_exact_count_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "m.pt2", "x.npy", "--radius", "0.5"]) == 0
    points = len(np.load("x.npy"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("exact count on a point's slice: about ") and f" for {points} points on one thread" in last
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "m.pt2", "--radius", "0.5"])
    assert "--radius needs POINTS" in capsys.readouterr().err


def test_explain_says_why_a_program_cannot_be_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "static.pt2"]) == 0
    reason = "the model fixes its batch size to 3"
    assert f"vertices, axes, slice, partition, trace: not covered. {reason}" in capsys.readouterr().out
