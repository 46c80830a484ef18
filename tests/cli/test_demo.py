import io
import json
import sys
from pathlib import Path

import pytest
import torch

import pylinregion as plr
from pylinregion.cli import demo
from pylinregion.cli.commands import main
from pylinregion.experiments.config import changed, flat, to_dict
from pylinregion.experiments.data import load, random_points
from pylinregion.experiments.folder import Folder, write_json
from pylinregion.experiments.log_steps import log_spaced_steps
from pylinregion.experiments.models import make
from pylinregion.experiments.reading import sentences
from pylinregion.monitor.sinks import JSONLines

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

POINTS = ("train", "test", "random")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, str, str]:
    """The folder, stdout and stderr of ``pylinregion demo --quick``."""
    out = tmp_path_factory.mktemp("demo") / "made" / "here"
    with pytest.MonkeyPatch.context() as patch:
        stdout, stderr = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        threads = torch.get_num_threads()
        assert main(["demo", "--quick", "--out", str(out)]) == 0
        assert torch.get_num_threads() == threads
    return Folder(out), stdout.getvalue(), stderr.getvalue()


def test_the_settings_are_those_of_the_paper_in_small() -> None:
    values = flat(to_dict(demo.DEMO))
    wanted = {
        "data.name": "digits",
        "data.train_points": 150,
        "data.test_points": None,
        "seed": 0,
        "model.name": "mlp",
        "model.width": 200,
        "model.depth": 3,
        "model.init_scale": 8.0,
        "training.steps": 25_000,
        "training.batch": 50,
        "training.loss": "mse",
        "training.dtype": "float64",
        "training.learning_rate": 6e-3,
        "training.weight_decay": 0.035,
        "training.loss_dtype": "float64",
        "measuring.records": 50,
        "measuring.points": 500,
        "measuring.radius": 0.1,
        "measuring.directions": 25,
        "measuring.quantities": ("accuracy", "local_complexity"),
        "measuring.include_output": False,
    }
    assert {key: values[key] for key in wanted} == wanted
    shorter = {"training.steps": 60, "measuring.records": 8, "measuring.points": 100}
    assert flat(to_dict(demo.QUICK)) == values | shorter


def test_the_folder_holds_everything(quick: tuple[Folder, str, str]) -> None:
    folder = quick[0]
    assert json.loads(folder.config.read_text()) == json.loads(json.dumps(to_dict(demo.QUICK)))
    versions = json.loads(folder.environment.read_text())
    assert (versions["pylinregion"], versions["torch"]) == (plr.__version__, torch.__version__)
    assert versions["threads"] == 1
    records = JSONLines.read(folder.records)
    assert [record["step"] for record in records] == log_spaced_steps(60, 8)
    for record in records:
        assert 0 <= record["train/accuracy"] <= 1 and 0 <= record["test/accuracy"] <= 1
        for name in POINTS:
            assert 0 < record[f"{name}/lc/low"] < record[f"{name}/lc"] < record[f"{name}/lc/high"] < 400
    assert "Settings" in folder.report.read_text()


def test_table_shows_the_numbers_of_the_records(quick: tuple[Folder, str, str]) -> None:
    folder, stdout, stderr = quick
    records, lines = JSONLines.read(folder.records), stdout.splitlines()
    assert "seed 0" in lines[1]
    head = next(number for number, line in enumerate(lines) if "LC train" in line)
    assert lines[head].split() == ["step", "train", "acc", "test", "acc", "LC", "train", "LC", "test", "LC", "random"]
    rows = lines[head + 2 : head + 2 + len(records)]
    for row, record in zip(rows, records, strict=True):
        assert len(row) == len(lines[head])  # aligned
        numbers = [float(word) for word in row.split() if word not in ("%", "±")]
        want = [record["step"], 100 * record["train/accuracy"], 100 * record["test/accuracy"]]
        for name in POINTS:
            want += [record[f"{name}/lc"], record[f"{name}/lc/high"] - record[f"{name}/lc"]]
        assert numbers == pytest.approx(want, abs=0.051)
    rest = lines[head + 2 + len(records) :]
    said = sentences(records)
    assert rest[: len(said) + 2] == ["", *said, ""]
    assert f"Figure: {folder.figure}" in rest and f"Records: {folder.records}" in rest
    assert rest[-1].endswith(" seconds")
    assert stderr == ""  # no bar where there is no terminal


def test_first_record_is_of_the_initial_network(quick: tuple[Folder, str, str]) -> None:
    first = JSONLines.read(quick[0].records)[0]
    data = load(demo.QUICK.data, 0)
    model = make(demo.QUICK.model, data.input_shape, data.classes, torch.float64, 0)
    random = random_points((100, *data.input_shape), 0.0, 1.0, 0)
    for name, x in zip(POINTS, (data.train_x[:100], data.test_x[:100], random), strict=True):
        want = plr.count_regions(model, x, 0.1, n_directions=25, seed=0).mean()
        assert (first[f"{name}/lc"], first[f"{name}/lc/low"], first[f"{name}/lc/high"]) == want
    right = (model(data.test_x).argmax(1) == data.test_y).double().mean()
    assert first["test/accuracy"] == pytest.approx(float(right))


def test_steps_and_seed_are_passed_on_and_a_demo_is_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, records = Folder(tmp_path), {}
    for seed in ("3", "4"):
        assert main(["demo", "--quick", "--steps", "1", "--seed", seed, "--out", str(tmp_path)]) == 0
        config = json.loads(folder.config.read_text())
        assert (config["training"]["steps"], config["seed"]) == (1, int(seed))
        assert f"seed {seed}" in capsys.readouterr().out
        records[seed] = JSONLines.read(folder.records)
        assert [record["step"] for record in records[seed]] == [0, 1]
    assert records["3"][0]["train/lc"] != records["4"][0]["train/lc"]


def test_another_run_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path)
    write_json(folder.config, to_dict(changed(demo.QUICK, {"name": "mine"})))
    before = folder.config.read_bytes()
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 1
    assert f"there is a run in {tmp_path}: " in capsys.readouterr().err
    assert folder.config.read_bytes() == before


def test_steps_below_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "0", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "pylinregion: error: training.steps must be at least 1, got 0\n"


@pytest.mark.parametrize(("module", "package"), [("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named_before_the_work(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--quick", "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    want = f'the demo needs {package}: pip install "pylinregion[demo]"'
    assert (out, err) == ("", f"pylinregion: error: {want}\n")
    assert not (tmp_path / "out").exists()
