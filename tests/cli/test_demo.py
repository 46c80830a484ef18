import dataclasses
import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch

import pylinregion as plr
from pylinregion import Mean
from pylinregion.cli import demo
from pylinregion.cli.commands import main
from pylinregion.experiments.log_steps import log_spaced_steps

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

TINY = demo.Settings(steps=30, checkpoints=4, probe_points=20, width=16, train_points=40)


def checkpoint(step: int, train: float, test: float, mean: float = 5.0) -> demo.Checkpoint:
    return demo.Checkpoint(step, train, test, {name: Mean(mean, mean - 1, mean + 1) for name in demo.PROBES})


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder, stdout and stderr of ``pylinregion demo --quick``."""
    out = tmp_path_factory.mktemp("demo") / "made" / "here"
    with pytest.MonkeyPatch.context() as patch:
        stdout, stderr = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        threads = torch.get_num_threads()
        assert main(["demo", "--quick", "--out", str(out)]) == 0
        assert torch.get_num_threads() == threads
    return out, stdout.getvalue(), stderr.getvalue()


def test_json_holds_everything(quick: tuple[Path, str, str]) -> None:
    document = json.loads((quick[0] / "demo.json").read_text(encoding="utf-8"))
    assert document["settings"] == dataclasses.asdict(demo.QUICK)
    assert document["versions"]["pylinregion"] == plr.__version__
    assert document["versions"]["torch"] == torch.__version__
    assert [entry["step"] for entry in document["checkpoints"]] == log_spaced_steps(60, 8)
    for entry in document["checkpoints"]:
        assert 0 <= entry["train_accuracy"] <= 1 and 0 <= entry["test_accuracy"] <= 1
        assert list(entry["complexity"]) == ["train", "test", "random"]
        for mean in entry["complexity"].values():
            assert 0 < mean["low"] < mean["mean"] < mean["high"] < 400
    last = document["checkpoints"][-1]
    assert document["reading"]["final_test_accuracy"] == last["test_accuracy"]
    assert document["reading"]["complexity"]["train"]["end"] == last["complexity"]["train"]["mean"]


def test_table_shows_the_numbers_of_the_json(quick: tuple[Path, str, str]) -> None:
    out, stdout, stderr = quick
    document = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    lines = stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if "LC train" in line)
    assert lines[head].split() == ["step", "train", "acc", "test", "acc", "LC", "train", "LC", "test", "LC", "random"]
    rows = lines[head + 2 : head + 2 + len(document["checkpoints"])]
    for row, entry in zip(rows, document["checkpoints"], strict=True):
        assert len(row) == len(lines[head])  # aligned
        numbers = [float(word) for word in row.split() if word not in ("%", "±")]
        want = [entry["step"], 100 * entry["train_accuracy"], 100 * entry["test_accuracy"]]
        for mean in entry["complexity"].values():
            want += [mean["mean"], mean["high"] - mean["mean"]]
        assert numbers == pytest.approx(want, abs=0.051)
    assert f"Figure: {out / 'demo.png'}" in stdout
    assert stderr == ""  # no bar where there is no terminal


def test_first_checkpoint_is_the_initial_network(quick: tuple[Path, str, str]) -> None:
    document = json.loads((quick[0] / "demo.json").read_text(encoding="utf-8"))
    settings = demo.QUICK
    data, model = demo.load_digits(settings), demo.make_network(settings)
    for name, found in document["checkpoints"][0]["complexity"].items():
        want = plr.count_regions(model, data.probes[name], 0.1, n_directions=25, seed=settings.seed).mean()
        assert found == want._asdict()
    right = (model(data.test_x).argmax(1) == data.test_y).double().mean()
    assert document["checkpoints"][0]["test_accuracy"] == pytest.approx(float(right))


def test_figure_is_drawn(quick: tuple[Path, str, str]) -> None:
    from matplotlib.image import imread

    image = imread(quick[0] / "demo.png")[..., :3]
    assert image.shape[:2] == (930, 1050)  # 7 x 6.2 inches at 150 dpi
    for colour in ((44, 160, 44), (255, 127, 14), (31, 119, 180)):  # train, test, random
        near = abs(image - torch.tensor(colour).numpy() / 255).max(axis=-1) < 0.02
        assert near[465:].sum() > 300  # each has a curve in the lower panel
        assert (near[:465].sum() > 300) == (colour != (31, 119, 180))  # and the accuracies are above


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 17, "axes.grid": False}):
        demo.draw([checkpoint(0, 0.1, 0.1), checkpoint(1, 1.0, 0.5)], TINY, tmp_path / "one.png")
        assert mpl.rcParams["font.size"] == 17 and not mpl.rcParams["axes.grid"]
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_same_settings_same_numbers() -> None:
    state = torch.get_rng_state()
    first, second = list(demo.train(TINY)), list(demo.train(TINY))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    other = list(demo.train(TINY.changed(seed=1)))
    assert other[0].complexity != first[0].complexity


def test_training_counts_steps_and_learns() -> None:
    steps = []
    settings = dataclasses.replace(TINY, steps=400, init_scale=1.0, checkpoints=2)
    checkpoints = list(demo.train(settings, lambda: steps.append(1)))
    assert len(steps) == 400 and [point.step for point in checkpoints] == [0, 1, 400]
    assert checkpoints[0].train_accuracy < 0.4 and checkpoints[-1].train_accuracy > 0.9


def test_initialisation_is_scaled() -> None:
    plain = demo.make_network(dataclasses.replace(TINY, init_scale=1.0)).state_dict()
    scaled = demo.make_network(TINY).state_dict()
    assert all(
        torch.equal(scaled[name], 8 * tensor) and tensor.dtype == torch.float64 for name, tensor in plain.items()
    )
    assert [tuple(tensor.shape) for name, tensor in plain.items() if "weight" in name] == [(16, 64), (16, 16), (10, 16)]


def test_data_is_split_without_overlap() -> None:
    data = demo.load_digits(TINY)
    assert len(data.train_x) == 40 and len(data.train_x) + len(data.test_x) == 1797
    assert float(data.train_x.min()) == 0 and float(data.test_x.max()) == 1
    assert torch.equal(data.probes["train"], data.train_x[:20]) and torch.equal(data.probes["test"], data.test_x[:20])
    assert float(data.probes["random"].max()) <= 1 and data.probes["random"].shape == (20, 64)
    assert 0.45 < float(data.probes["random"].mean()) < 0.55


def test_reading_tells_of_delayed_generalisation() -> None:
    course = [
        checkpoint(0, 0.1, 0.1, 5),
        checkpoint(10, 0.99, 0.2, 7),  # 99 % is not above 99 %
        checkpoint(20, 1.0, 0.3, 9),
        checkpoint(50, 1.0, 0.719, 6),
        checkpoint(90, 1.0, 0.721, 4),
        checkpoint(100, 1.0, 0.8, 2),
    ]
    reading = demo.read(course)
    assert (reading.memorised, reading.generalised, reading.final_test_accuracy) == (20, 90, 0.8)
    assert reading.complexity["test"] == demo.Course(start=5, peak=9, peak_step=20, end=2)
    assert str(reading).splitlines() == [
        "Train accuracy passed 99 % at step 20.",
        "Test accuracy reached 90 % of its final value (80.0 %) at step 90, after 4.5 times as many steps.",
        *(
            f"LC at {name} points: 5.0 at the start, highest at step 20 (9.0), 2.0 at the end."
            for name in ("train", "test", "random")
        ),
    ]


def test_reading_claims_no_delay_where_there_is_none() -> None:
    together = demo.read([checkpoint(0, 0.1, 0.1), checkpoint(10, 1.0, 0.8)])
    assert "times as many" not in str(together) and together.memorised == together.generalised == 10
    never = demo.read([checkpoint(0, 0.1, 0.1), checkpoint(10, 0.9, 0.8)])
    assert never.memorised is None and str(never).startswith("Train accuracy did not pass 99 %.")


def test_steps_and_seed_are_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--steps", "1", "--seed", "3", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert (document["settings"]["steps"], document["settings"]["seed"]) == (1, 3)
    assert [entry["step"] for entry in document["checkpoints"]] == [0, 1]
    assert "seed 3" in capsys.readouterr().out
    assert math.isfinite(document["seconds"])


def test_steps_below_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "0", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "pylinregion: error: steps must be at least 1, got 0\n"


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
