import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pylinregion.experiments import preset
from pylinregion.experiments.config import to_dict
from pylinregion.experiments.folder import Folder, write_json
from pylinregion.experiments.reading import Course, course, first_step, sentences
from pylinregion.experiments.report import title, write_report

pytest.importorskip("matplotlib")
from pylinregion.experiments.figures import draw_run, draw_sweep

COLOURS = {"train": (44, 160, 44), "test": (217, 95, 2), "random": (31, 119, 180)}


def record(step: int, lc: float = 5.0, **more: float) -> dict[str, float]:
    values: dict[str, float] = {"step": step, "train/accuracy": 0.9, "test/accuracy": 0.5}
    for name in COLOURS:
        values |= {f"{name}/lc": lc, f"{name}/lc/low": lc - 1, f"{name}/lc/high": lc + 1}
        lc += 2
    return {**values, **more}


def pixels(png: bytes) -> Any:
    from matplotlib.image import imread

    return imread(BytesIO(png))[..., :3]


def near(image: Any, colour: tuple[int, int, int]) -> Any:
    return (abs(image - [part / 255 for part in colour]).max(axis=-1) < 0.02).sum()


@pytest.mark.turns(2)
def test_a_figure_has_accuracies_above_and_complexity_below() -> None:
    image = pixels(draw_run([record(0), record(1), record(1000)], "title"))
    half = len(image) // 2
    for name, colour in COLOURS.items():
        assert near(image[half:], colour) > 300
        assert (near(image[:half], colour) > 300) == (name != "random")


@pytest.mark.turns(2)
def test_each_measured_quantity_has_its_panel() -> None:
    plain = pixels(draw_run([record(1), record(9)], "t")).shape
    more = {
        "weight_norm": 3.0,
        "last_layer_norm": 1.0,
        "test/probe/layer/1": 0.5,
        "train/slice/regions": 4.0,
        "test/rank/layer/1": 8.0,
        "test/rank/tunnel": 1.0,
        "train/commutativity": 0.5,
        "train/logit_commutativity": 2.0,
        **{f"train/entropies/{key}": 1.0 for key in ("pmi", "pe", "mid", "ed")},
        "train/perturbation_error": 0.1,
        "test/robust/0.03": 0.2,
        "test/robust/0.03/zero_gradients": 0.0,
    }
    full = pixels(draw_run([record(1, **more), record(9, **more)], "t")).shape
    assert full[0] > 1.8 * plain[0] and full[1] > 1.5 * plain[1]  # 4 rows of 2 panels


@pytest.mark.turns(2)
def test_linear_probes_are_drawn_where_they_are() -> None:
    probes = {"test/probe/layer/1": 0.5, "test/probe/layer/2": 0.2}
    records = [record(1, **probes), record(3), record(9, **probes)]
    drawn = draw_run(records, "t")
    assert drawn == draw_run([records[0], record(4), records[2]], "t") != draw_run([record(1), records[2]], "t")
    for key in probes:
        assert drawn != draw_run([*records[:2], {**records[2], key: 0.9}], "t"), key
    norms = [record(step, weight_norm=3.0, last_layer_norm=1.0) for step in (1, 9)]
    assert draw_run(norms, "t") != draw_run([norms[0], {**norms[1], "last_layer_norm": 2.0}], "t")


@pytest.mark.turns(2)
def test_step_0_has_no_place_on_the_axis() -> None:
    one = draw_run([record(0, lc=50.0), record(1), record(9)], "t")
    assert one == draw_run([record(1), record(9)], "t")
    with pytest.raises(ValueError, match=r"records must have one past step 0, got none"):
        draw_run([record(0)], "t")


@pytest.mark.turns(2)
def test_a_sweep_has_a_curve_for_each_value() -> None:
    one, other = [record(1), record(9)], [record(1, lc=8.0), record(9, lc=2.0)]
    drawn = draw_sweep({"2": one, "3": other}, "model.depth", "t")
    assert drawn != draw_sweep({"2": one}, "model.depth", "t")
    for key in (
        "train/accuracy",
        "test/accuracy",
        "train/lc",
        "train/lc/low",
        "train/lc/high",
    ):  # each is in the figure
        moved = [other[0], {**other[1], key: other[1][key] / 2}]
        assert drawn != draw_sweep({"2": one, "3": moved}, "model.depth", "t"), key


@pytest.mark.turns(2)
def test_a_sweep_needs_no_complexity() -> None:
    accuracies: list[dict[str, float]] = [
        {"step": step, "train/accuracy": 1.0, "test/accuracy": 1.0} for step in (1, 9)
    ]
    assert draw_sweep({"2": accuracies}, "seed", "t").startswith(b"\x89PNG")


@pytest.mark.turns(2)
def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 17}):
        draw_run([record(1), record(9)], "t")
        assert mpl.rcParams["font.size"] == 17


@pytest.mark.turns(2)
@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([4.9, 1.65, 4.5, 4.0, 0.2], Course(4.9, 1.65, 1, 4.5, 2, 0.2)),  # figure 2 of paper A
        ([6.0, 15.0, 9.0, 1.0], Course(6.0, 6.0, 0, 15.0, 1, 1.0)),  # no first descent
        ([5.0, 4.0, 3.0], Course(5.0, 5.0, 0, 5.0, 0, 3.0)),  # no rise
        ([3.0, 1.0, 2.0, 0.0, 1.5], Course(3.0, 0.0, 3, 1.5, 4, 1.5)),  # the largest rise, not the first
        ([2.0], Course(2.0, 2.0, 0, 2.0, 0, 2.0)),
    ],
)
def test_the_course_is_cut_at_the_largest_rise(values: list[float], want: Course) -> None:
    assert course([{"step": step, "lc": value} for step, value in enumerate(values)], "lc") == want
    assert ("never rises" in str(want)) == (want.peak == want.low)


@pytest.mark.turns(2)
def test_what_happened_when() -> None:
    records = [
        record(0, **{"train/accuracy": 0.1, "test/accuracy": 0.1}),
        record(5, **{"train/accuracy": 0.99, "test/accuracy": 0.2}),
        record(50, lc=9.0, **{"train/accuracy": 1.0, "test/accuracy": 0.721}),
        record(90, lc=2.0, **{"train/accuracy": 1.0, "test/accuracy": 0.8}),
    ]
    found = sentences(records)
    assert found[0] == "Train accuracy is 99 % at step 5."
    assert (
        found[1] == "Test accuracy ends at 80.0 %; 90 % of that is reached at step 50, after 10.0 times as many steps."
    )
    assert found[2] == (
        "Local complexity at train points starts at 5, rises from 5 at step 0 to 9 at step 50, ends at 2."
    )
    assert first_step(records, "train/accuracy", 1.1) is None
    assert sentences(records[:1])[0] == "Train accuracy never reaches 99 %."


@pytest.mark.turns(2)
def test_no_delay_is_claimed_where_there_is_none() -> None:
    start = record(0, **{"train/accuracy": 0.1, "test/accuracy": 0.1})
    for accuracy in (1.0, 0.9):
        said = sentences([start, record(10, **{"train/accuracy": accuracy, "test/accuracy": 0.8})])
        assert said[1] == "Test accuracy ends at 80.0 %; 90 % of that is reached at step 10."
    assert said[0] == "Train accuracy never reaches 99 %."


@pytest.mark.turns(2)
def test_a_report_is_made_of_the_files_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    config = to_dict(preset("mnist-mlp"))
    config["name"] = "<mine>"
    write_json(folder.config, config)
    write_json(folder.environment, {"torch": "2.0 & more"})
    lines = [json.dumps(each) for each in (record(0), record(1), record(30))]
    folder.records.write_text("\n".join(lines) + "\n" + '{"step": 31, "tr')  # a line that was not finished
    with pytest.warns(UserWarning, match="line 4, the last, was not finished: left it out"):
        write_report(folder)
    page = folder.report.read_text(encoding="utf-8")
    assert "&lt;mine&gt;" in page and "<mine>" not in page and "2.0 &amp; more" in page
    assert folder.figure.read_bytes() == draw_run([record(0), record(1), record(30)], title(config))


@pytest.mark.turns(2)
def test_titles_say_what_it_was() -> None:
    assert title(to_dict(preset("mnist-mlp-scaled"))).splitlines() == [
        "MLP of 4 linear layers, width 200, initialisation times 8; 1000 points of MNIST",
        "local complexity: radius 0.05, P = 25, seed 0",
    ]
    assert "addition modulo 113, 30 % of pairs, noise 0.5 to 0.4" in title(to_dict(preset("perturbed")))
    assert "commutative penalty 100" in title(to_dict(preset("commutative")))
    for name in ("cifar10-cnn", "cifar10-resnet18", "gpt-char"):
        assert "width" in title(to_dict(preset(name)))
