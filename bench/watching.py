"""What watching costs: ``python bench/watching.py``. A training with a ``Monitor`` beside the same without, in turn.

The monitor has its default settings but for the probes and their radius: schedule ``"log"``, a budget of 5 % of the
training time, local complexity and accuracy. ``without budget`` takes every step of the schedule. Times are CPU times
on one thread, medians; the constructor, which captures the model, is left out and has a column of its own. Training
must end with the same weights to the bit, or the run ends with exit code 1.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness
import torch
from architectures import PreActResNet18, mlp
from tables import markdown
from torch import Tensor, nn
from torch.nn import functional
from workloads import images_and_labels

import pylinregion as plr

GOAL = 0.05  # of the training time


@dataclass(frozen=True, eq=False)
class Case:
    """A training: a network, what it is trained on, and how long; and the points to watch."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    batch: int
    steps: int
    probes: dict[str, Any]
    radius: float
    settings: dict[str, Any]


def cases(smoke: bool, steps: int | None) -> list[Case]:
    torch.manual_seed(0)
    images, labels, _ = images_and_labels(None)
    few, width, channels = (40, 16, 2) if smoke else (1000, 200, 16)
    test = slice(few, few + min(few, len(images) - few))
    probes = {
        "train": (images[:few], labels[:few]),
        "test": (images[test], labels[test]),
        "random": torch.rand(few, 784),
    }
    count = 64 if smoke else 512
    x, y = torch.randn(count, 3, 32, 32), torch.randint(10, (count,))
    watched = count // 32  # what one record costs must fit into the budget of so short a training
    pictures = {"train": (x[:watched], y[:watched]), "random": torch.randn(watched, 3, 32, 32)}
    return [
        Case(
            f"MLP 784-{width}x3-10, batch 200",
            mlp(3, width),
            images[:few],
            labels[:few],
            200,
            steps or (20 if smoke else 5000),
            probes,
            0.005,
            {},
        ),
        Case(
            f"PreAct-ResNet18 width {channels}, batch 64",
            PreActResNet18(channels),
            x,
            y,
            64,
            steps or (3 if smoke else 200),
            pictures,
            0.005,
            {"n_directions": 20},
        ),
    ]


class Training:
    """One training from the start; ``run`` can be timed."""

    def __init__(self, case: Case, budget: float | None, watch: bool) -> None:
        self.case = case
        self.model = copy.deepcopy(case.model).train()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.monitor: plr.Monitor | None = None
        self.records = 0
        self.said = 0.0  # the monitor's own account, when training ends

        def make() -> None:
            self.monitor = plr.Monitor(self.model, case.probes, case.radius, budget=budget, **case.settings)

        self.setting_up = harness.cpu_seconds(make) if watch else 0.0

    def run(self) -> None:
        case = self.case
        generator = torch.Generator().manual_seed(1)
        for _ in range(case.steps):
            rows = torch.randint(len(case.x), (case.batch,), generator=generator)
            self.optimiser.zero_grad()
            functional.cross_entropy(self.model(case.x[rows]), case.y[rows]).backward()
            self.optimiser.step()
            if self.monitor is not None:
                self.records += self.monitor.step() is not None
        if self.monitor is not None:
            self.said = self.monitor.share

    def same_as(self, other: Training) -> bool:
        """Whether both ended with the same weights and statistics."""
        pairs = zip(self.model.state_dict().values(), other.model.state_dict().values(), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)


KINDS: dict[str, Callable[[Case], Training]] = {
    "without": lambda case: Training(case, None, watch=False),
    "default": lambda case: Training(case, 0.05, watch=True),
    "without budget": lambda case: Training(case, None, watch=True),
}


def record(case: Case, repeats: int) -> dict[str, Any]:
    """Everything about one training."""
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    last: dict[str, Training] = {}
    for number in range(repeats):
        harness.progress(f"{case.name}: {number + 1} of {repeats}")
        for name, make in KINDS.items():
            last[name] = make(case)
            seconds[name].append(harness.cpu_seconds(last[name].run))
        for name, training in last.items():
            if not training.same_as(last["without"]):
                raise SystemExit(f"{case.name}: training ends with other weights when it is watched ({name})")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "training": case.name,
        "steps": case.steps,
        "seconds": medians,
        "records": {name: training.records for name, training in last.items() if training.monitor is not None},
        "share": {name: medians[name] / medians["without"] - 1 for name in KINDS if name != "without"},
        "said": {name: training.said for name, training in last.items() if training.monitor is not None},
        "setting_up": last["default"].setting_up,
    }


def table(records: list[dict[str, Any]]) -> str:
    """A row for each training and monitor."""
    rows = []
    for each in records:
        for name, share in each["share"].items():
            goal = f" ({GOAL:.0%})" if name == "default" else ""
            rows.append(
                [
                    each["training"],
                    str(each["steps"]),
                    f"{1e3 * each['seconds']['without'] / each['steps']:.3g} ms",
                    name,
                    str(each["records"][name]),
                    f"{share:.1%}{goal}",
                    f"{each['said'][name]:.1%}",
                    f"{each['setting_up']:.2g} s",
                ]
            )
    header = ["training", "steps", "a step", "monitor", "records", "share (goal)", "its own account", "setting up"]
    return markdown(header, rows)


def main(given: list[str] | None = None) -> int:
    parser = harness.parser(__doc__, "each training")
    parser.add_argument("--steps", type=int, help="of each training; default: 5000 and 200")
    chosen = parser.parse_args(given)
    harness.one_thread()
    repeats = 1 if chosen.smoke else chosen.repeats
    records = [record(case, repeats) for case in cases(chosen.smoke, chosen.steps)]
    print(f"\n{table(records)}")
    harness.write({"monitor": records}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
