import importlib
import json
import math
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases import processes
from pylinregion.caller.torch_settings import one_thread
from pylinregion.cli.commands import main
from pylinregion.experiments import PRESETS, Config, preset, run
from pylinregion.experiments.config import changed, to_dict
from pylinregion.experiments.data import load
from pylinregion.experiments.folder import Folder, load_checkpoint, write_atomically
from pylinregion.experiments.models import make
from pylinregion.experiments.reading import sentences
from pylinregion.monitor.sinks import JSONLines

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"
FEW = {"training.steps": 12, "training.checkpoint_every": 5, "measuring.records": 6, "measuring.points": 8}
TINY = {
    **FEW,
    "measuring.probe_records": 2,
    "measuring.attack_points": 6,
    "measuring.attack_steps": 2,
    "measuring.slice_points": 2,
    "model.width": 8,
    "measuring.directions": 9,
}
SMALL = [name for name in PRESETS if name.endswith("-small")]


def tiny(name: str, **more: Any) -> Config:
    return changed(preset(name), {**TINY, **more})


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose records are looked at alone draw no figure, which takes longer than they."""
    monkeypatch.setattr(importlib.import_module("pylinregion.experiments.runner"), "write_report", lambda folder: None)


def without_seconds(records: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def records_of(folder: Folder) -> list[dict[str, float]]:
    return without_seconds(JSONLines.read(folder.records))


@pytest.mark.part(3)
@pytest.mark.parametrize("name", SMALL)
def test_small_presets_run(name: str, tmp_path: Path) -> None:
    config = tiny(
        name, **{"data.test_points": 40, "measuring.probe_records": 3, "measuring.records": 2, "training.steps": 3}
    )
    folder = run(config, tmp_path / "a" / "run")
    assert json.loads(folder.config.read_text()) == json.loads(json.dumps(to_dict(config)))
    surroundings = json.loads(folder.environment.read_text())
    assert surroundings["torch"] == torch.__version__ and surroundings["threads"] == 1
    assert surroundings["device"] == "cpu" and surroundings["pylinregion"] == plr.__version__
    records = JSONLines.read(folder.records)
    assert [record["step"] for record in records] == [0, 1, 3]
    for record in records:
        assert all(math.isfinite(value) for value in record.values())
        for part in ("train", "test"):
            assert 0 <= record[f"{part}/accuracy"] <= 1
        for part in ("train", "test", "random"):
            assert record[f"{part}/lc/low"] <= record[f"{part}/lc"] <= record[f"{part}/lc/high"]
        for quantity, key in (
            ("robust_accuracy", f"test/robust/{config.measuring.eps[0]:g}/zero_gradients"),
            ("weight_norm", "weight_norm"),
            ("feature_ranks", "test/rank/tunnel"),
            ("last_layer_norm", "last_layer_norm"),
            ("linear_probes", "test/probe/layer/2"),
            ("commutativity", "train/logit_commutativity"),
            ("entropies", "train/entropies/mid"),
            ("perturbation_error", "train/perturbation_error"),
            ("slice", "train/slice/regions"),
        ):
            assert (key in record) == (quantity in config.measuring.quantities)
    assert folder.figure.read_bytes().startswith(PNG) and len(folder.figure.read_bytes()) > 20_000
    page = folder.report.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "data:image/png;base64,iVBOR" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing from elsewhere
    assert name in page and "small twin" in page and "training.weight_decay" in page


@pytest.mark.part(3)
@pytest.mark.parametrize("name", [name for name in PRESETS if not name.endswith("-small")])
def test_full_presets_run_on_files(name: str, tmp_path: Path) -> None:
    """A step of the papers' settings, on a few images of their sizes, with networks that are narrow but as deep."""
    random = np.random.default_rng(0)
    path: Path | None = tmp_path / "data"
    if preset(name).data.name == "mnist":
        images = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        np.savez(path.with_suffix(".npz"), images=images, labels=np.arange(40) % 10)
        path = path.with_suffix(".npz")
    elif preset(name).data.name == "cifar10":
        path.mkdir()
        for file in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            rows = random.integers(0, 10, (4, 3073), dtype=np.uint8)
            (path / f"{file}.bin").write_bytes(rows.tobytes())
    elif preset(name).data.name == "characters":
        path.write_text("to be or not to be, that is the question. " * 40)
    else:
        path = None
    changes = {
        "training.steps": 1,
        "measuring.records": 1,
        "measuring.quantities": ["accuracy", "weight_norm"],
        "model.width": 12,
        "data.path": None if path is None else str(path),
        "data.test_points": 10,
    }
    if preset(name).data.name == "mnist":
        changes |= {"data.train_points": 30, "measuring.quantities": ["accuracy", "local_complexity"]}
    folder = run(changed(preset(name), changes), tmp_path / "run")
    assert [record["step"] for record in records_of(folder)] == [0, 1]
    assert folder.report.exists() and "small twin" not in folder.report.read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_report")
def test_records_are_the_measures_of_the_network(tmp_path: Path) -> None:
    config = tiny("mnist-mlp-scaled-small")
    folder = run(config, tmp_path)
    data = load(config.data, 0)
    model = make(config.model, (1, 8, 8), 10, torch.float64, 0)
    first, *_, last = records_of(folder)
    for record in (first, last):
        if record is last:
            model.load_state_dict(load_checkpoint(folder.checkpoint)["trainer"]["model"])
        for part, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
            assert record[f"{part}/accuracy"] == float((model(x).argmax(1) == y).double().mean())
            counts = plr.count_regions(model, x[:8], 0.1, n_directions=9, include_output=True, seed=0)
            assert (record[f"{part}/lc"], record[f"{part}/lc/low"]) == counts.mean()[:2]
            assert counts.layers[-1] == "output"
            assert record[f"{part}/lc/layer/output"] == counts.mean("output").mean
        robust = plr.measures.robust_accuracy(
            model, data.test_x[:6], data.test_y[:6], [0.03, 0.06, 0.1], low=0.0, high=1.0, alpha=0.0156, steps=2
        )
        assert [record[f"test/robust/{eps:g}"] for eps in (0.03, 0.06, 0.1)] == robust.accuracy.tolist()
        slices = plr.count_regions(model, data.train_x[:2], 0.5, "slice", seed=0)
        assert record["train/slice/regions"] == float(slices.regions.double().mean())
        assert record["weight_norm"] == pytest.approx(plr.measures.weight_norm(model), rel=1e-12)
    assert first["train/lc"] != last["train/lc"]


@pytest.mark.turns(2)
@pytest.mark.usefixtures("no_report")
def test_linear_probes_are_in_some_of_the_records(tmp_path: Path) -> None:
    config = tiny("deep-mlp-small", **{"data.test_points": 40})
    folder = run(config, tmp_path)
    records = records_of(folder)
    assert [record["step"] for record in records] == [0, 1, 2, 3, 4, 7, 12]
    assert [record["step"] for record in records if "test/probe/layer/2" in record] == [2, 12]
    data = load(config.data, 0)
    model = make(config.model, (1, 8, 8), 10, torch.float64, 0)
    model.load_state_dict(load_checkpoint(folder.checkpoint)["trainer"]["model"])
    want = plr.measures.linear_probes(model, data.train_x, data.train_y, data.test_x, data.test_y, seed=0)
    prefix = "test/probe/layer/"
    assert {key[len(prefix) :]: v for key, v in records[-1].items() if key.startswith(prefix)} == want.test
    assert len(want.test) == config.model.depth - 1
    last = [parameter.detach().double().square().sum() for parameter in list(model.parameters())[-2:]]
    assert records[-1]["last_layer_norm"] == pytest.approx(float(sum(last)) ** 0.5, rel=1e-12)
    assert all("last_layer_norm" in record for record in records)
    (sentence,) = [said for said in sentences(records) if "probes" in said]
    first = records[2]
    accuracies = [f"{100 * each[key]:.1f}" for key in (f"{prefix}2", f"{prefix}14") for each in (first, records[-1])]
    assert sentence == (
        "Test accuracy of linear probes at step 2 and at the end: {} and {} % on the first layer, {} and {} % on the "
        "deepest.".format(*accuracies)
    )


@pytest.mark.turns(2)
@pytest.mark.usefixtures("no_report")
def test_complexity_of_tokens_is_that_of_their_embeddings(tmp_path: Path) -> None:
    config = tiny("modular-addition-small")
    folder = run(config, tmp_path)
    data = load(config.data, 0)
    model = make(config.model, data.input_shape, data.classes, seed=0)
    with torch.no_grad():
        embedded = model.embed(data.train_x[:8])
    counts = plr.count_regions(model.body, embedded, config.measuring.radius, n_directions=9, seed=0)
    first = records_of(folder)[0]
    assert first["train/lc"] == counts.mean().mean
    assert first["train/commutativity"] == float(
        (model(data.train_x).argmax(1) == model(data.train_x[:, [1, 0, 2]]).argmax(1)).double().mean()
    )


class Stop(Exception):
    pass


@pytest.mark.turns(2)
@pytest.mark.part(3)
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("name", ["mnist-mlp-scaled-small", "perturbed-small", "deep-mlp-small"])
def test_a_stopped_run_goes_on_to_the_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(name, **{"training.batch": 50, "data.test_points": 40})
    straight = run(config, tmp_path / "straight")
    stopped = Folder(tmp_path / "stopped")
    for number, at in enumerate((1, 7, 10)):  # before the first checkpoint past 0; after one; at one
        steps = iter(range(100))
        done = load_checkpoint(stopped.checkpoint)["step"] if number else 0

        def stop(steps: Iterator[int] = steps, done: int = done, at: int = at) -> None:
            if next(steps) + 1 + done == at:
                raise Stop

        with pytest.raises(Stop):
            run(config, stopped.path, resume=number > 0, on_step=stop)
    torch.randn(7)  # another process would have another state
    run(config, stopped.path, resume=True)
    assert records_of(stopped) == records_of(straight)
    one, other = (load_checkpoint(folder.checkpoint) for folder in (straight, stopped))
    assert one["step"] == other["step"] == 12
    assert all(torch.equal(value, other["trainer"]["model"][key]) for key, value in one["trainer"]["model"].items())
    assert [record["step"] for record in records_of(stopped)] == [0, 1, 2, 3, 4, 7, 12]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from pylinregion.experiments import Config, run
from pylinregion.experiments.config import changed
config = changed(Config(), json.loads(sys.argv[1]))
run(config, Path(sys.argv[2]), on_record=lambda record: record["step"] == 7 and os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.turns(2)
@pytest.mark.usefixtures("no_report")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    config = tiny("perturbed-small", **{"training.batch": 50})
    killed = processes.run(KILLED, json.dumps(to_dict(config)), tmp_path / "killed", cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = Folder(tmp_path / "killed")
    assert [record["step"] for record in records_of(folder)][-1] == 7 and not folder.figure.exists()
    assert load_checkpoint(folder.checkpoint)["step"] == 5
    run(config, folder.path, resume=True)
    assert records_of(folder) == records_of(run(config, tmp_path / "straight"))


@pytest.mark.turns(2)
@pytest.mark.usefixtures("no_report")
def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    config = tiny("mnist-mlp-scaled-small")
    folder = run(config, tmp_path)
    want = records_of(folder)
    folder.checkpoint.unlink()
    run(config, tmp_path, resume=True)
    assert records_of(folder) == want


@pytest.mark.usefixtures("no_report")
def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = tiny("mnist-mlp-scaled-small")
    folder = run(config, tmp_path)
    records = folder.records.read_bytes()
    steps: list[int] = []
    run(config, tmp_path, resume=True, on_step=lambda: steps.append(1))
    assert folder.records.read_bytes() == records and steps == []


@pytest.mark.turns(2)
@pytest.mark.usefixtures("no_report")
def test_a_run_of_an_older_version_goes_on_to_the_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its config has no word on outputs and the loss's dtype: it counted hidden neurons, and took float64."""
    config = tiny("mnist-mlp-scaled-small", **{"measuring.include_output": False})
    assert config != tiny("mnist-mlp-scaled-small")
    straight, old = run(config, tmp_path / "straight"), Folder(tmp_path / "old")

    def stop(record: dict[str, float]) -> None:
        if record["step"] == 7:
            raise Stop

    with pytest.raises(Stop):
        run(config, old.path, on_record=stop)
    values = json.loads(old.config.read_text())
    assert values["measuring"].pop("include_output") is False and values["training"].pop("loss_dtype") == "float64"
    old.config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"another config: measuring.include_output is False there, True here$"):
        run(tiny("mnist-mlp-scaled-small"), old.path, resume=True)
    assert main(["grok", "--resume", "--out", str(old.path)]) == 0
    capsys.readouterr()
    assert records_of(old) == records_of(straight)
    assert [record["step"] for record in records_of(old)] == [0, 1, 2, 3, 4, 7, 12]


@pytest.mark.usefixtures("no_report")
def test_a_folder_is_one_runs(tmp_path: Path) -> None:
    config = tiny("mnist-mlp-scaled-small")
    with pytest.raises(FileNotFoundError, match="there is no run to resume in"):
        run(config, tmp_path / "none", resume=True)
    folder = run(config, tmp_path / "run")
    before = folder.records.read_bytes()
    with pytest.raises(
        FileExistsError, match=r"there is a run in .*run: resume it, delete it, or choose another folder"
    ):
        run(config, folder.path)
    other = changed(config, {"training.weight_decay": 0.5})
    with pytest.raises(ValueError, match=r"another config: training.weight_decay is 0.035 there, 0.5 here$"):
        run(other, folder.path, resume=True)
    assert folder.records.read_bytes() == before


@pytest.mark.parametrize("resumed", [False, True])
def test_a_folder_is_one_run_s_at_a_time(tmp_path: Path, resumed: bool) -> None:
    """The records of two runs in one folder were one after the other, as they came."""
    few = {"training.steps": 3, "measuring.records": 2, "measuring.quantities": ["accuracy"]}
    config = tiny("deep-mlp-small", **few)
    told = []

    def begin_another(record: object) -> None:
        with pytest.raises(plr.PylinregionError if resumed else FileExistsError) as caught:
            run(config, tmp_path / "run", resume=resumed)
        told.append(str(caught.value))

    folder = run(config, tmp_path / "run", on_record=begin_another)
    said = "another process works in" if resumed else "there is a run in"
    assert len(told) == len(JSONLines.read(folder.records)) == 3 and all(said in each for each in told)
    run(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("content", ["[]", '"text"', "3", "null", "{", "[" * 100_000])
def test_a_folder_whose_config_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"config.json must (have an object|be JSON)"):
            run(preset("deep-mlp-small"), tmp_path, resume=resume)


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    for state in ([1], {"step": 3}, torch.zeros(2)):
        torch.save(state, tmp_path / "checkpoint.pt")
        with pytest.raises(ValueError, match=r"checkpoint.pt is no checkpoint: it must have a step, a trainer and a"):
            load_checkpoint(tmp_path / "checkpoint.pt")


def test_files_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def fail(self: Path, target: Path) -> None:
        assert self.read_bytes() == b"new" and target.read_bytes() == b"old"
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(Stop):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("no_report")
def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    config = tiny("mnist-mlp-scaled-small")
    folder = run(config, tmp_path)
    folder.checkpoint.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"checkpoint.pt is no checkpoint"):
        run(config, tmp_path, resume=True)


@pytest.mark.turns(2)
@pytest.mark.usefixtures("no_report")
def test_training_is_not_disturbed_by_measuring(tmp_path: Path) -> None:
    models = []
    for records in (1, 6):
        folder = run(tiny("perturbed-small", **{"measuring.records": records}), tmp_path / str(records))
        models.append(load_checkpoint(folder.checkpoint)["trainer"]["model"])
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())
