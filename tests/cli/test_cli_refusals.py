"""What the command line refuses, each in one line that says what was wrong."""

import json
import logging
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases.command_line import make_net
from pylinregion.cli import commands
from pylinregion.cli.commands import main

safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("in_made")


class Trap:
    """Unpickling one leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


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
