import json
import sys
from pathlib import Path

import pytest

from pylinregion.cli.commands import main
from pylinregion.experiments import PRESETS, preset
from pylinregion.experiments.config import changed, to_dict
from pylinregion.monitor.sinks import JSONLines

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

FEW = [
    *("--set", "training.steps=3"),
    *("--set", "measuring.records=2"),
    *("--set", "measuring.points=5"),
    *("--set", "model.width=8"),
    *("--set", "measuring.quantities=accuracy,local_complexity"),
]


@pytest.mark.turns(2)
def test_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grok", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert "A, figure 2" in lines[0]


@pytest.mark.turns(2)
def test_a_run_and_its_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["grok", "mnist-mlp-scaled-small", *FEW, "--set", "seed=4", "--out", str(out)]
    assert main(command) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    steps = [line for line in printed.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in steps] == ["0", "1", "3"] and "LC train" in steps[0]
    assert f"Report: {out / 'report.html'}" in printed
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["training"]["steps"], config["model"]["init_scale"]) == (4, 3, 8.0)
    assert (config["name"], config["data"]["name"]) == ("mnist-mlp-scaled-small", "digits")
    records = (out / "records.jsonl").read_bytes()

    assert main(command) == 1
    assert "there is a run in" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert main(["grok", "--resume", "--out", str(out)]) == 0  # the settings are those of the run
    assert (out / "records.jsonl").read_bytes() == records
    assert main(["grok", "--resume", "--out", str(out), "--set", "training.steps=4"]) == 1
    assert "another config: training.steps is 3 there, 4 here" in capsys.readouterr().err


@pytest.mark.turns(2)
def test_the_default_folder_has_the_name_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["grok", "mnist-mlp-scaled-small", *FEW]) == 0
    assert (tmp_path / "runs" / "mnist-mlp-scaled-small" / "report.html").exists()
    capsys.readouterr()


@pytest.mark.turns(2)
def test_a_file_of_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = changed(preset("mnist-mlp-scaled-small"), {"training": {"steps": 2}, "model.width": 8, "seed": 5})
    config = changed(config, {"measuring": {"quantities": ["accuracy"], "records": 1}})
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(to_dict(config)))
    assert main(["grok", "--config", str(file), "--set", "seed=6", "--out", str(tmp_path / "a")]) == 0
    found = json.loads((tmp_path / "a" / "config.json").read_text())
    assert found == json.loads(json.dumps(to_dict(changed(config, {"seed": 6}))))

    file.write_text('{"training": {"steps": 1}, "measuring.quantities": ["accuracy"]}')
    assert main(["grok", "mnist-mlp-scaled-small", "--config", str(file), "--out", str(tmp_path / "b")]) == 0
    found = json.loads((tmp_path / "b" / "config.json").read_text())
    assert found["training"]["steps"] == 1 and found["training"]["weight_decay"] == 0.035
    capsys.readouterr()


@pytest.mark.turns(2)
def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["grok", "mnist-mlp-scaled-small", *FEW, "--sweep", "model.depth=2,3", "--out", str(tmp_path)]
    assert main(command) == 0
    for depth in (2, 3):
        config = json.loads((tmp_path / f"model.depth={depth}" / "config.json").read_text())
        assert config["model"]["depth"] == depth
        layers = [
            key for key in JSONLines.read(tmp_path / f"model.depth={depth}" / "records.jsonl")[0] if "layer" in key
        ]
        assert len(layers) == 3 * depth  # hidden layers, and the outputs
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "model.depth = 2" in page and 'href="model.depth=3/report.html"' in page and "data:image/png" in page
    (tmp_path / "sweep.png").unlink()
    assert main([*command, "--resume"]) == 0 and (tmp_path / "sweep.png").exists()
    capsys.readouterr()


@pytest.mark.turns(2)
def test_a_sweep_is_checked_before_its_first_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["grok", "mnist-mlp-scaled-small", *FEW, "--sweep", "model.depth=2,x", "--out", str(tmp_path / "s")]
    assert main(command) == 1
    assert capsys.readouterr().err == "pylinregion: error: model.depth must be an integer, got 'x'\n"
    assert not (tmp_path / "s").exists()


@pytest.mark.turns(2)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give the NAME of an experiment (see --list), or --config FILE"),
        (["mnist"], "the experiment must be one of mnist-mlp, "),
        (["mnist-mlp", "--set", "training.step=1"], "training.step is unknown: expected one of training.steps"),
        (["mnist-mlp", "--set", "training.steps=x"], "training.steps must be an integer, got 'x'"),
        (["mnist-mlp", "--device", "tpu"], "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        (["mnist-mlp", "--config", "nowhere.json"], "nowhere.json"),
        (["mnist-mlp", "--data", "nowhere"], "data.path: there is no file or folder nowhere"),
        (["mnist-mlp", "--resume"], "there is no run to resume in"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["grok", *arguments]) == 1
    out, err = capsys.readouterr()
    assert words in err and out == "" and err.count("\n") == 1
    assert not list(tmp_path.rglob("records.jsonl"))


@pytest.mark.turns(2)
def test_wrong_data_leaves_no_run_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that the same command works once the data is there."""
    command = ["grok", "mnist-mlp", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]
    assert main(command) == 1
    assert not (tmp_path / "run").exists()
    capsys.readouterr()


@pytest.mark.turns(2)
@pytest.mark.parametrize(
    ("content", "words"), [("{", "must be JSON"), ("[1]", "must have an object of keys and values")]
)
def test_wrong_files_are_named(content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(content)
    assert main(["grok", "mnist-mlp", "--config", str(tmp_path / "a.json")]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.turns(2)
def test_a_setting_without_a_value_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["grok", "mnist-mlp", "--set", "training.steps"])
    assert stopped.value.code == 2 and "--set" in capsys.readouterr().err


@pytest.mark.turns(2)
def test_matplotlib_is_missed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["grok", "mnist-mlp-scaled-small", *FEW, "--out", str(tmp_path / "run")]) == 1
    assert 'needs matplotlib: pip install "pylinregion[demo]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
