import errno
import io
import json
import logging
import os
import pickle
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion.cli import commands
from pylinregion.cli.commands import main

safetensors = pytest.importorskip("safetensors.torch")

FACTORIES = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

def random_net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

def broken():
    raise KeyError("no such layer")

def on_meta():
    with torch.device("meta"):
        return net()

def leaves():
    raise SystemExit(0)

def leaves_later():
    class Leaving(nn.Module):
        def forward(self, x):
            raise SystemExit(0)
    return Leaving()

def colourful():
    raise ValueError("two\\nlines, \\x1b[31mred")

class Models:
    small = staticmethod(net)

model = net()
three = lambda: 3
"""


class Trap:
    """Unpickling one leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def make_net() -> nn.Sequential:
    namespace: dict[str, Any] = {}
    exec(FACTORIES, namespace)
    model: nn.Sequential = namespace["net"]()
    return model


def export(model: nn.Module, path: Path, dynamic: bool = True, dtype: torch.dtype = torch.float32) -> None:
    batch = torch.export.Dim.AUTO if dynamic else torch.export.Dim.STATIC
    program = torch.export.export(
        model, (torch.zeros(3, 4, dtype=dtype),), dynamic_shapes=((batch, torch.export.Dim.STATIC),)
    )
    torch.export.save(program, path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in every form, and points."""
    folder = tmp_path_factory.mktemp("made")
    model = make_net()
    export(model, folder / "m.pt2")
    export(model, folder / "static.pt2", dynamic=False)
    (folder / "factories_of_the_tests.py").write_text(FACTORIES)
    state = model.state_dict()
    safetensors.save_file(state, folder / "w.safetensors")
    safetensors.save_file({name: tensor.double() + 1e-12 for name, tensor in state.items()}, folder / "w64.safetensors")
    safetensors.save_file({name: state[name] for name in list(state)[1:]}, folder / "partial.safetensors")
    x = np.random.default_rng(0).normal(size=(20, 4))
    np.save(folder / "x.npy", x.astype(np.float32))
    np.save(folder / "x64.npy", x)
    np.save(folder / "wide.npy", np.zeros((2, 5), dtype=np.float32))
    np.save(folder / "words.npy", np.array([["a"] * 4]))
    np.save(folder / "int.npy", 100 * np.arange(8).reshape(2, 4).astype(">u2"))
    np.save(folder / "one.npy", x[:1].astype(np.float32))
    np.save(folder / "none.npy", x[:0].astype(np.float32))
    return folder


@pytest.fixture(autouse=True)
def in_made(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line, and gives the line after the prefix."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        errors = [line for line in err.splitlines() if not line.startswith("pylinregion: note: ")]
        assert out == "" and len(errors) == 1 and errors[0].startswith("pylinregion: error: "), (out, err)
        return errors[0].removeprefix("pylinregion: error: ")

    return run


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


def test_explain_says_why_a_program_cannot_be_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "static.pt2"]) == 0
    reason = "the model fixes its batch size to 3"
    assert f"vertices, axes, slice, partition, trace: not covered. {reason}" in capsys.readouterr().out


# Refusals


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".bin", ".PT"])
def test_pickled_models_are_refused(suffix: str, fails: Callable[..., str]) -> None:
    text = fails("count", f"m{suffix}", "x.npy", "--radius", "1")
    assert text.startswith(f"m{suffix} is a pickle, and loading one runs whatever code is in it: give a .pt2 archive")


def test_no_pickle_is_loaded_under_another_name(tmp_path: Path, fails: Callable[..., str]) -> None:
    trace = tmp_path / "trace"
    torch.save(Trap(trace), tmp_path / "saved.pt2")
    (tmp_path / "raw.pt2").write_bytes(pickle.dumps(Trap(trace)))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Trap(trace)))
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Trap(trace)))
    objects = np.empty((1, 4), dtype=object)
    objects[:] = Trap(trace)
    np.save(tmp_path / "objects.npy", objects)

    def count(model: str, points: str, *rest: str) -> str:
        return fails("count", model, points, "--radius", "1", *rest)

    assert "saved.pt2 is a pickle, and loading one runs" in count(f"{tmp_path}/saved.pt2", "x.npy")
    assert "raw.pt2 is no archive of torch.export.save" in count(f"{tmp_path}/raw.pt2", "x.npy")
    assert "raw.npy is no .npy array" in count("m.pt2", f"{tmp_path}/raw.npy")
    text = count("m.pt2", f"{tmp_path}/objects.npy")
    assert "objects.npy must hold numbers, got Python objects, which are pickled" in text
    weights = count("factories_of_the_tests:net", "x.npy", "--weights", f"{tmp_path}/w.safetensors")
    assert weights.startswith(f"--weights {tmp_path}/w.safetensors: ")
    text = count("factories_of_the_tests:net", "x.npy", "--weights", "w.pth")
    assert text.startswith("--weights: w.pth is a pickle")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Trap(trace)))
    assert trace.exists()  # the trap works


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> None:
    """A copy of an archive with its files changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.mark.parametrize("key", ["use_pickle", "path_name"])
def test_pickled_parts_of_an_archive_are_refused(key: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("_weights_config.json"):
            return data
        config = json.loads(data)
        config["config"]["2.weight"][key] = {"use_pickle": True, "path_name": "opaque_obj_0"}[key]
        return json.dumps(config).encode()

    rewrite(Path("m.pt2"), tmp_path / "m.pt2", change)
    text = fails("explain", str(tmp_path / "m.pt2"))
    why = {"use_pickle": "has '2.weight', which is a pickle", "path_name": "which is no file of a tensor"}[key]
    assert text.startswith(f"{tmp_path}/m.pt2 ") and why in text
    assert text.endswith("; if you trust whoever made it, give --trust")


def test_archives_that_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    path = tmp_path / "m.pt2"
    logged: list[str] = []
    monkeypatch.setattr(logging.getLogger("torch.export"), "handle", lambda record: logged.append(record.getMessage()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/readme", "hello")
    assert fails("explain", str(path)) == f"{path} is no archive of torch.export.save"
    assert fails("explain", str(path), "--trust").startswith(f"{path}: torch.export.load raised ")
    assert logged == []  # torch's own report of the failure stays out of sight
    assert fails("explain", "absent.pt2") == "there is no file absent.pt2"


def test_factories_that_are_none_are_refused(fails: Callable[..., str]) -> None:
    def explain(model: str) -> str:
        return fails("explain", model, "--shape", "4")

    module = "factories_of_the_tests"
    assert explain("m") == "MODEL must be a .pt2 archive or package.module:factory, got 'm'"
    assert explain("absent_module:net") == "absent_module:net: ModuleNotFoundError: No module named 'absent_module'"
    assert explain(f"{module}:absent").startswith(f"{module}:absent: AttributeError: ")
    assert explain(f"{module}:broken") == f"{module}:broken: KeyError at {module}.py:13: 'no such layer'"
    wanted = "must be a callable without arguments that returns an nn.Module"
    assert explain(f"{module}:three") == f"{module}:three {wanted}, got int"
    assert explain(f"{module}:model") == f"{module}:model {wanted}, got Sequential"


def test_models_that_cannot_be_counted_are_named(fails: Callable[..., str]) -> None:
    module = "factories_of_the_tests"
    why = f"{module}:on_meta: its 0.weight is on torch's meta device, which has shapes and no numbers"
    assert fails("explain", f"{module}:on_meta", "--shape", "4") == why
    assert fails("count", f"{module}:on_meta", "x.npy", "--radius", "1") == why
    assert fails("explain", f"{module}:leaves", "--shape", "4").startswith(f"{module}:leaves: SystemExit at ")
    text = fails("explain", f"{module}:leaves_later", "--shape", "4")
    assert text == "the model's code ended the program (SystemExit: 0)"
    assert fails("explain", f"{module}:colourful", "--shape", "4").endswith("two lines, ?[31mred")


def test_programs_for_some_numbers_of_points_are_refused(tmp_path: Path, fails: Callable[..., str]) -> None:
    batch = torch.export.Dim("batch", max=4)
    program = torch.export.export(make_net(), (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    text = fails("count", str(tmp_path / "m.pt2"), "x.npy", "--radius", "1", "--directions", "2")
    assert text.startswith("the program does not take 5 points, and must take any number of them: ")


@pytest.mark.parametrize("shape", ["99999999999", ",".join(["4"] * 40)])
def test_shapes_that_memory_cannot_hold_are_refused(shape: str, fails: Callable[..., str]) -> None:
    text = fails("explain", "factories_of_the_tests:net", "--shape", shape)
    assert text.startswith("--shape: a few points would take ")


def header(path: Path, shape: str, size: int = 0) -> str:
    """A ``.npy`` file of zeros with any text for its shape; they are not written."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
        file.truncate(10 + len(text) + size)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "size", "want"),
    [
        ("(-3, 4)", 0, "must have a shape of up to 32 sizes from 0 up, got [-3, 4]"),
        ("(-3, -4)", 48, "must have a shape of up to 32 sizes from 0 up, got [-3, -4]"),
        (f"({2**70}, 4)", 0, "must have a shape that memory could hold"),
        ("(True, 4)", 16, "must have a shape of up to 32 sizes from 0 up, got [True, 4]"),
        ("(__import__('os'), 4)", 16, "must have a header that can be read"),
        ("(3, 4)", 40, "must have 48 bytes of data for [3, 4] float32, got 40"),
        (f"({2**38}, 4)", 2**42, f"would take {2**43} bytes, more than the "),
    ],
)
def test_odd_arrays_are_refused(shape: str, size: int, want: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    points = header(tmp_path / "points.npy", shape, size)
    assert f"{points} {want}" in fails("count", "m.pt2", points, "--radius", "1")


def test_explain_and_partition_read_no_more_points_than_they_need(tmp_path: Path, fails: Callable[..., str]) -> None:
    points = header(tmp_path / "points.npy", f"({2**38}, 4)", 2**42)
    assert main(["explain", "m.pt2", points]) == 0
    assert "must hold three points" in fails("partition", "m.pt2", points)


def test_folders_are_named(tmp_path: Path, fails: Callable[..., str]) -> None:
    for name in ("x.npy", "x.safetensors"):
        (tmp_path / name).mkdir()
        assert (
            fails("count", "m.pt2", f"{tmp_path}/{name}", "--radius", "1") == f"points: '{tmp_path}/{name}' is a folder"
        )
    arguments = ("explain", "factories_of_the_tests:net", "--shape", "4", "--weights", f"{tmp_path}/x.safetensors")
    assert fails(*arguments) == f"--weights: '{tmp_path}/x.safetensors' is a folder"


def test_weights_larger_than_the_memory_are_not_read(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "100")
    text = fails("explain", "factories_of_the_tests:net", "--shape", "4", "--weights", "w.safetensors")
    assert text.startswith("--weights: w.safetensors would take ")


def test_the_format_of_a_figure_is_checked_before_the_work(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(commands, "load_model", lambda *args: pytest.fail("the work was begun"))
    for name in ("part.xyz", "part"):
        assert fails("partition", "m.pt2", "x.npy", "--plot", name).startswith(
            f"{name} must end in the format of a figure"
        )


@pytest.mark.parametrize("text", [b"", b"[", b"\xff", b"[" * 100_000], ids=["empty", "cut", "no text", "deep"])
def test_settings_that_are_no_json_are_refused(text: bytes, tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "c.json").write_bytes(text)
    assert fails("grok", "--config", f"{tmp_path}/c.json").startswith(f"{tmp_path}/c.json must be JSON: ")


def test_weights_that_do_not_fit_are_refused(fails: Callable[..., str]) -> None:
    text = fails("explain", "factories_of_the_tests:net", "--shape", "4", "--weights", "partial.safetensors")
    assert text.startswith("--weights partial.safetensors: ") and "0.weight" in text
    text = fails("explain", "factories_of_the_tests:net", "--shape", "4", "--weights", "absent.safetensors")
    assert "absent.safetensors" in text


def test_a_missing_safetensors_is_named(monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    text = fails("explain", "factories_of_the_tests:net", "--shape", "4", "--weights", "w.safetensors")
    assert text == '--weights needs safetensors, which is not installed: pip install "pylinregion[safetensors]"'


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (
            ["m.pt2", "wide.npy", "--radius", "1"],
            "wide.npy must be points [B, 4], as the model was exported, got [B, 5]",
        ),
        (["m.pt2", "words.npy", "--radius", "1"], "words.npy must hold real numbers, got <U1"),
        (["m.pt2", "absent.npy", "--radius", "1"], "[Errno 2] No such file or directory: 'absent.npy'"),
        (["m.pt2", "x.npy", "--radius", "-1", "--directions", "2"], "radius must be finite and above 0, got -1.0"),
        (
            ["m.pt2", "x.npy", "--radius", "1", "--directions", "5"],
            "n_directions must be at most the 4 input dimensions, got 5",
        ),
        (["m.pt2", "x.npy", "--radius", "1", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["m.pt2", "x.npy", "--radius", "1", "--layers", "2"], "layers must be among '1', '3', got '2'"),
        (["m.pt2", "x.npy", "--radius", "1", "--device", "tpu"], "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        (["m.pt2", "x.npy", "--radius", "1", "--device", "mps"], "--device must be cpu, cuda or cuda:N, got 'mps'"),
        (["m.pt2", "x.npy", "--radius", "1", "--json", "no/o.json"], "--json: there is no folder no"),
        (
            ["static.pt2", "x.npy", "--radius", "1"],
            "the model fixes its batch size to 3: it must take any number of points (write x.size(0) or -1 where it "
            "says that number; export a program with a dynamic batch dimension)",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], want: str, fails: Callable[..., str]) -> None:
    assert fails("count", *arguments) == want


def test_a_device_that_is_not_there_is_named(fails: Callable[..., str]) -> None:
    seen = torch.cuda.device_count()
    text = fails("count", "m.pt2", "x.npy", "--radius", "1", "--device", "cuda:99")
    assert text == f"--device cuda:99: torch sees {seen or 'no'} CUDA device{'s' * (seen != 1)}"


@pytest.mark.cuda
@pytest.mark.parametrize("model", ["m.pt2", "factories_of_the_tests:net"])
def test_count_on_cuda_is_the_same(model: str, tmp_path: Path) -> None:
    arguments = (model, "x.npy", "--radius", "0.5", "--directions", "3")
    on_cpu, on_cuda = count_to_json(tmp_path, *arguments), count_to_json(tmp_path, *arguments, "--device", "cuda")
    assert on_cuda["changes"] == on_cpu["changes"] and on_cuda["inputs"]["device"] == "cuda"


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ([], "required: COMMAND"),
        (["count", "m.pt2", "x.npy"], "required: --radius"),
        (["count", "m.pt2", "x.npy", "--radius", "big"], "argument --radius: invalid float value: 'big'"),
        (["count", "m.pt2", "x.npy", "--radius", "1", "--weights", "w.safetensors"], "a .pt2 archive has its own"),
        (["explain", "factories_of_the_tests:net"], "give --shape, such as --shape 3,32,32, or POINTS"),
        (["explain", "m.pt2", "x.npy", "--shape", "4"], "give POINTS or --shape, not both"),
        (["explain", "m.pt2", "--shape", "4,x"], "argument --shape: must be sizes such as 3,32,32, got '4,x'"),
        (["count", "m.pt2", "x.npy", "--radius", "1", "--seed", str(2**63)], "--seed: must be an integer of 64 bits"),
        (["explain", "m.pt2", "--shape", "\u0663"], "argument --shape: must be sizes such as 3,32,32"),
        (["grok", "--set", "x"], "argument --set: a setting must be key=value, such as training.steps=1000, got 'x'"),
        (["explain", "m.pt2", "--shape", "0"], "argument --shape: must be sizes such as 3,32,32, got '0'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], want: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert want in capsys.readouterr().err


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "count_regions", interrupt)
    assert main(["count", "m.pt2", "x.npy", "--radius", "1"]) == 130
    assert capsys.readouterr() == ("", "pylinregion: interrupted\n")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("no\nmemory"), OverflowError("too large"), RecursionError()]
)
def test_whatever_torch_raises_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(commands, "count_regions", fail)
    words = {MemoryError: "out of memory", RuntimeError: "no memory", OverflowError: "too large"}
    assert fails("count", "m.pt2", "x.npy", "--radius", "1") == words.get(type(error), "RecursionError")


def test_what_a_program_raises_is_named(monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError("val")

    monkeypatch.setattr(commands, "capture", fail)
    monkeypatch.setattr(commands, "explain", fail)
    assert fails("count", "m.pt2", "x.npy", "--radius", "1") == "m.pt2: KeyError: 'val'"
    assert fails("explain", "m.pt2") == "m.pt2: KeyError: 'val'"


@pytest.mark.parametrize("arguments", [["explain", "m.pt2"], ["grok", "--list"], ["--help"], ["--version"]])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_output_that_cannot_be_written_is_an_error(
    arguments: list[str], number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full(), 1 << 20), encoding="utf-8"))
    assert main(arguments) == 1
    told = f"pylinregion: error: [Errno {number}] {os.strerror(number)}\n"
    assert capsys.readouterr().err == ("" if number == errno.EPIPE else told)  # the reader of a pipe wants no more


def test_closed_output_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["explain", "m.pt2"]) == 1
    assert capsys.readouterr().err == "pylinregion: error: standard output is closed\n"


def test_closed_messages_do_no_harm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["count", "m.pt2", "x64.npy", "--radius", "1", "--directions", "2", "--progress"]
    monkeypatch.setattr(sys, "stderr", None)
    assert main(arguments) == 0
    assert "local complexity" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stderr", None)
    assert main([*arguments[:2], "absent.npy", *arguments[3:]]) == 1
    assert capsys.readouterr().out == ""


def test_errors_that_are_not_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(commands, "count_regions", fail)
    with pytest.raises(AssertionError, match="a bug"):
        main(["count", "m.pt2", "x.npy", "--radius", "1"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"pylinregion {plr.__version__}\n"


def test_module_runs_as_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "pylinregion", "explain", "factories_of_the_tests:net", "--shape"]
    done = subprocess.run([*command, "4"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and "14 neurons in 2 layers" in done.stdout
    monkeypatch.setattr(sys, "argv", ["pylinregion", *command[5:], "5"])
    monkeypatch.delitem(sys.modules, "pylinregion.__main__", raising=False)  # of a test that imports all there is
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pylinregion", run_name="__main__")
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and out == ""
    assert err.startswith("pylinregion: error: ") and err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is full")
def test_a_full_device_is_an_error_and_python_says_nothing_at_exit() -> None:
    command = [sys.executable, "-m", "pylinregion", "--version"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "pylinregion: error: [Errno 28] No space left on device\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close in another way on Windows")
def test_a_closed_pipe_is_no_error_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pylinregion", "doctor"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
