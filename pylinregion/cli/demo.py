"""``pylinregion demo``: local complexity while a network memorises first and generalises later.

A ReLU MLP with an initialisation that is far too large learns a few of scikit-learn's digits. It fits them soon, and
classifies others well only much later, when weight decay has shrunk its weights (Liu, Michaud, Tegmark, "Omnigrok",
arXiv 2210.01117). Meanwhile local complexity is taken at training, test and random points, as in figure 7 of Humayun,
Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why" (arXiv 2402.15555): it rises, then falls for good,
as the regions leave the data for the decision boundary.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pylinregion._util.optional import optional
from pylinregion._util.versions import versions
from pylinregion._util.whole_files import replace_file, save_figure
from pylinregion.caller.torch_settings import one_thread
from pylinregion.counting.count import count_regions
from pylinregion.counting.counts import Mean
from pylinregion.experiments.config import Data, Model, Training
from pylinregion.experiments.data import load, random_points
from pylinregion.experiments.log_steps import log_spaced_steps
from pylinregion.experiments.models import make
from pylinregion.experiments.training import Trainer
from pylinregion.geometry.frames import random_frame

PROBES = ("train", "test", "random")
_COLOURS = {"train": "tab:green", "test": "tab:orange", "random": "tab:blue"}
_PIXELS = 64
_CLASSES = 10


@dataclass(frozen=True)
class Settings:
    """The experiment.

    Attributes:
        seed: Of the split, the initialisation, the batches, the random points and the frame.
        steps: Optimisation steps.
        checkpoints: How many steps to measure at, spaced evenly on a logarithmic axis (fewer where they coincide).
        train_points: Digits to train on; all others are test points for the accuracy.
        probe_points: At most this many points of each kind for local complexity.
        width, linear_layers: Of the MLP.
        init_scale: Every parameter is multiplied by it after torch's own initialisation.
        learning_rate, weight_decay, batch: Of AdamW; the loss is the squared error to one-hot labels.
        radius, directions: Of the neighbourhoods; one frame for all points and checkpoints. Pixels lie in [0, 1].
    """

    seed: int = 0
    steps: int = 25_000
    checkpoints: int = 50
    train_points: int = 150
    probe_points: int = 500
    width: int = 200
    linear_layers: int = 3
    init_scale: float = 8.0
    learning_rate: float = 6e-3
    weight_decay: float = 0.035
    batch: int = 50
    radius: float = 0.1
    directions: int = 25

    def changed(self, *, seed: int, steps: int | None = None) -> Settings:
        """The same with another seed and, unless None, another number of steps.

        Raises:
            ValueError: There is less than one step.
        """
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        return dataclasses.replace(self, seed=seed, steps=self.steps if steps is None else steps)


QUICK = Settings(steps=60, checkpoints=8, probe_points=100)


@dataclass(frozen=True)
class Checkpoint:
    """What was measured at one step.

    Attributes:
        step: Optimisation steps taken.
        train_accuracy, test_accuracy: Between 0 and 1.
        complexity: Local complexity at the train, test and random points: means with 99 % intervals.
    """

    step: int
    train_accuracy: float
    test_accuracy: float
    complexity: dict[str, Mean]


@dataclass(frozen=True)
class Digits:
    """The data, float64: ``x`` is ``[N, 64]`` with pixels in [0, 1], ``y`` is ``[N]`` int64.

    Attributes:
        train_x, train_y: The training set.
        test_x, test_y: All other digits.
        probes: The points to take local complexity at, ``[n, 64]`` each; random ones are uniform on the unit cube.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    probes: dict[str, Tensor]


def run(out: Path, settings: Settings) -> None:
    """Train, measure, print the table, and write ``demo.png`` and ``demo.json``.

    Args:
        out: The folder for both files; made if need be.
        settings: The experiment.

    Raises:
        ModuleNotFoundError: matplotlib or scikit-learn is not installed.
    """
    for name in ("matplotlib", "sklearn"):
        optional(name, "the demo", "demo")  # before the work, not after
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    print(f"{describe(settings)}\n\n{_HEAD}\n{'-' * len(_HEAD)}", flush=True)
    checkpoints = []
    # Matrices this small lose by being shared among threads.
    with one_thread(), tqdm(total=settings.steps, unit="step", disable=None, leave=False) as bar:
        for checkpoint in train(settings, bar.update):
            checkpoints.append(checkpoint)
            tqdm.write(table_row(checkpoint))
    seconds = time.perf_counter() - start
    result = read(checkpoints)
    figure, numbers = out / "demo.png", out / "demo.json"
    draw(checkpoints, settings, figure)
    document = {
        "settings": dataclasses.asdict(settings),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "checkpoints": [as_dict(checkpoint) for checkpoint in checkpoints],
        "reading": dataclasses.asdict(result),
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    replace_file(numbers, lambda file: file.write(text.encode()))
    print(f"\n{result}\n\nFigure: {figure}\nNumbers: {numbers}\n{seconds:.0f} seconds")


# The experiment


def train(settings: Settings, on_step: Callable[[], object] = lambda: None) -> Iterator[Checkpoint]:
    """Train from scratch, call ``on_step`` after every step, and stop at every checkpoint to measure."""
    data = load_digits(settings)
    model = make_network(settings)
    frame = random_frame((_PIXELS,), settings.directions, seed=settings.seed)
    training = Training(
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        loss="mse",
    )
    trainer = Trainer(model, data.train_x, data.train_y, _CLASSES, training, settings.seed)
    done = 0
    for step in log_spaced_steps(settings.steps, settings.checkpoints):
        for _ in range(done, step):
            trainer.step()
            on_step()
        done = step
        yield measure(model, data, settings, frame, step)


def measure(model: nn.Module, data: Digits, settings: Settings, frame: Tensor, step: int) -> Checkpoint:
    """Accuracies and local complexity at this step; ``frame`` is ``[P, 64]``."""
    complexity = {name: count_regions(model, x, settings.radius, frame=frame).mean() for name, x in data.probes.items()}
    return Checkpoint(
        step, _accuracy(model, data.train_x, data.train_y), _accuracy(model, data.test_x, data.test_y), complexity
    )


def load_digits(settings: Settings) -> Digits:
    """scikit-learn's 1797 digits of 8 x 8 pixels, split by the seed."""
    found = load(Data("digits", train_points=settings.train_points), settings.seed)
    train_x, test_x = found.train_x.flatten(1), found.test_x.flatten(1)
    probed = settings.probe_points
    random = random_points((probed, _PIXELS), 0.0, 1.0, settings.seed)
    return Digits(
        train_x,
        found.train_y,
        test_x,
        found.test_y,
        {"train": train_x[:probed], "test": test_x[:probed], "random": random},
    )


def make_network(settings: Settings) -> nn.Module:
    """The MLP, float64, with torch's own initialisation times ``init_scale``; torch's random state is left alone."""
    model = Model("mlp", settings.width, settings.linear_layers, init_scale=settings.init_scale)
    return make(model, (_PIXELS,), _CLASSES, torch.float64, settings.seed)


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(dim=1) == y).double().mean())


# What comes out

_HEAD = f"{'step':>6}  {'train acc':>9}  {'test acc':>8}  {'LC train':>14}  {'LC test':>14}  {'LC random':>14}"


def table_row(checkpoint: Checkpoint) -> str:
    """One line below the head of the table: accuracies in percent, local complexity with half its 99 % interval."""
    train, test = 100 * checkpoint.train_accuracy, 100 * checkpoint.test_accuracy
    counts = [f"{mean.mean:6.2f} ± {mean.high - mean.mean:5.2f}" for mean in checkpoint.complexity.values()]
    return "  ".join([f"{checkpoint.step:6d}", f"{train:7.1f} %", f"{test:6.1f} %", *counts])


def describe(settings: Settings) -> str:
    """The experiment in three lines."""
    return (
        f"ReLU MLP {_sizes(settings)}, float64, initialisation times {settings.init_scale:g}, seed {settings.seed}\n"
        f"{settings.train_points} training digits, squared error, AdamW with learning rate {settings.learning_rate:g}, "
        f"weight decay {settings.weight_decay:g}, batch {settings.batch}\n"
        f"LC: local complexity, the neurons that change within radius {settings.radius:g} of a point in "
        f"{settings.directions} directions; ± half of the 99 % interval"
    )


def _sizes(settings: Settings) -> str:
    return "-".join(map(str, [_PIXELS, *[settings.width] * (settings.linear_layers - 1), _CLASSES]))


def as_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as plain numbers, for JSON."""
    complexity = {name: mean._asdict() for name, mean in checkpoint.complexity.items()}
    return {**dataclasses.asdict(checkpoint), "complexity": complexity}


@dataclass(frozen=True)
class Course:
    """How local complexity went at one kind of points: its mean at the start, at its highest, and at the end."""

    start: float
    peak: float
    peak_step: int
    end: float


@dataclass(frozen=True)
class Reading:
    """The result, from the numbers alone.

    Attributes:
        memorised: First measured step with a train accuracy above 99 %, None if there was none.
        generalised: First measured step with at least 90 % of the final test accuracy.
        final_test_accuracy: Between 0 and 1.
        complexity: The course at each kind of points.
    """

    memorised: int | None
    generalised: int
    final_test_accuracy: float
    complexity: dict[str, Course]

    def __str__(self) -> str:
        final = f"{100 * self.final_test_accuracy:.1f} %"
        if self.memorised is None:
            lines = ["Train accuracy did not pass 99 %."]
        else:
            lines = [f"Train accuracy passed 99 % at step {self.memorised}."]
        lines.append(f"Test accuracy reached 90 % of its final value ({final}) at step {self.generalised}")
        if self.memorised is not None and 0 < self.memorised < self.generalised:
            lines[-1] += f", after {self.generalised / self.memorised:.1f} times as many steps"
        lines[-1] += "."
        for name, course in self.complexity.items():
            lines.append(
                f"LC at {name} points: {course.start:.1f} at the start, highest at step {course.peak_step} "
                f"({course.peak:.1f}), {course.end:.1f} at the end."
            )
        return "\n".join(lines)


def read(checkpoints: Sequence[Checkpoint]) -> Reading:
    """What happened when.

    Args:
        checkpoints: At least one, in the order of their steps.
    """
    last = checkpoints[-1]
    memorised = next((point.step for point in checkpoints if point.train_accuracy > 0.99), None)
    generalised = next(point.step for point in checkpoints if point.test_accuracy >= 0.9 * last.test_accuracy)
    courses = {}
    for name in last.complexity:
        means = [point.complexity[name].mean for point in checkpoints]
        top = max(range(len(means)), key=means.__getitem__)
        courses[name] = Course(means[0], means[top], checkpoints[top].step, means[-1])
    return Reading(memorised, generalised, last.test_accuracy, courses)


def draw(checkpoints: Sequence[Checkpoint], settings: Settings, path: Path) -> None:
    """Write the figure: accuracies above, local complexity with its 99 % band below, over steps on a logarithmic axis.

    Step 0 has no place on that axis and is left out.

    Args:
        checkpoints: In the order of their steps.
        settings: For the title.
        path: A ``.png``, or another format that matplotlib writes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    optional("matplotlib", "the demo", "demo")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [point for point in checkpoints if point.step > 0]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(7.0, 6.2), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True)
        _draw_accuracies(above, points)
        _draw_complexity(below, points)
        _mark(above, below, read(checkpoints))
        above.set_title(_title(settings))
        save_figure(figure, path, 150)


_STYLE: Any = {  # Any: matplotlib types the keys one by one
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
}


def _title(settings: Settings) -> str:
    return (
        f"ReLU MLP {_sizes(settings)} on {settings.train_points} training digits, "
        f"initialisation times {settings.init_scale:g}\n"
        f"local complexity: radius {settings.radius:g}, P = {settings.directions} directions"
    )


def _draw_accuracies(axes: Any, points: Sequence[Checkpoint]) -> None:
    steps = [point.step for point in points]
    axes.plot(steps, [100 * point.train_accuracy for point in points], color=_COLOURS["train"], label="train")
    axes.plot(steps, [100 * point.test_accuracy for point in points], color=_COLOURS["test"], label="test")
    axes.set_ylabel("Accuracy (%)")
    axes.set_ylim(0, 103)
    axes.legend(loc="upper left")


def _draw_complexity(axes: Any, points: Sequence[Checkpoint]) -> None:
    steps = [point.step for point in points]
    for name in PROBES:
        means = [point.complexity[name] for point in points]
        axes.plot(steps, [mean.mean for mean in means], color=_COLOURS[name], label=f"{name} points")
        axes.fill_between(
            steps, [mean.low for mean in means], [mean.high for mean in means], color=_COLOURS[name], alpha=0.2, lw=0
        )
    axes.set_ylabel("Local complexity")
    axes.set_ylim(bottom=0)
    axes.set_xscale("log")
    if steps[0] < steps[-1]:
        axes.set_xlim(steps[0], steps[-1])
    axes.set_xlabel("Optimization steps")
    axes.legend(loc="lower left", title="mean and 99 % band", alignment="left")


def _mark(above: Any, below: Any, reading: Reading) -> None:
    """Dotted lines through both panels where the network has memorised and where it has generalised."""
    marks = [
        (reading.memorised, "train", 70, "train\nabove 99 %"),
        (reading.generalised, "test", 40, "test at 90 %\nof final value"),
    ]
    for step, name, height, text in marks:
        if step:  # step 0 has no place on the axis
            for axes in (above, below):
                axes.axvline(step, color=_COLOURS[name], lw=1.3, ls=":")
            above.annotate(
                text, (step, height), xytext=(5, 0), textcoords="offset points", va="center", color="0.25", fontsize=9.5
            )
