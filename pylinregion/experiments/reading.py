"""What the records of a run say, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pylinregion.monitor.sinks import Record


@dataclass(frozen=True)
class Course:
    """How local complexity went: the three phases of paper A, cut at the ends of its largest rise.

    Attributes:
        start, end: At the first and the last record.
        low, low_step: Where the largest rise begins; the first record, if there was no descent before it.
        peak, peak_step: Where it ends.
    """

    start: float
    low: float
    low_step: int
    peak: float
    peak_step: int
    end: float

    def __str__(self) -> str:
        rise = f"rises from {_short(self.low)} at step {self.low_step} to {_short(self.peak)} at step {self.peak_step}"
        if self.peak == self.low:
            rise = "never rises"
        return f"starts at {_short(self.start)}, {rise}, ends at {_short(self.end)}"


def course(records: Sequence[Record], key: str) -> Course:
    """The course of a value.

    Args:
        records: At least one, in the order of their steps.
        key: Of a value that all of them have.
    """
    values = [record[key] for record in records]
    lowest = low = peak = 0
    for place, value in enumerate(values):
        if value < values[lowest]:
            lowest = place
        if value - values[lowest] > values[peak] - values[low]:
            low, peak = lowest, place
    steps = [int(record["step"]) for record in records]
    return Course(values[0], values[low], steps[low], values[peak], steps[peak], values[-1])


def first_step(records: Sequence[Record], key: str, at_least: float) -> int | None:
    """The step of the first record with a value of at least that, None if there is none."""
    return next((int(record["step"]) for record in records if record[key] >= at_least), None)


def sentences(records: Sequence[Record]) -> list[str]:
    """What happened when, of all that was measured."""
    return [sentence for say in _SAYINGS for sentence in say(records)]


def _accuracies(records: Sequence[Record]) -> Iterator[str]:
    if "train/accuracy" not in records[-1]:
        return
    fitted = first_step(records, "train/accuracy", 0.99)
    yield "Train accuracy never reaches 99 %." if fitted is None else f"Train accuracy is 99 % at step {fitted}."
    final = records[-1]["test/accuracy"]
    step = first_step(records, "test/accuracy", 0.9 * final)
    delay = f", after {step / fitted:.1f} times as many steps" if fitted and step and fitted < step else ""
    yield f"Test accuracy ends at {100 * final:.1f} %; 90 % of that is reached at step {step}{delay}."


def _robustness(records: Sequence[Record]) -> Iterator[str]:
    for key in records[-1]:
        if key.startswith("test/robust/") and not key.endswith("zero_gradients"):
            values = [record[key] for record in records]
            yield (
                f"Adversarial accuracy at eps {key.rpartition('/')[2]}: {100 * max(values):.1f} % at its highest, "
                f"{100 * min(values):.1f} % at its lowest, {100 * values[-1]:.1f} % at the end."
            )


def _complexity(records: Sequence[Record]) -> Iterator[str]:
    for name in ("train", "test", "random"):
        if f"{name}/lc" in records[-1]:
            yield f"Local complexity at {name} points {course(records, f'{name}/lc')}."
    if "train/slice/regions" in records[-1]:
        yield f"Exact regions of slices around training points: {course(records, 'train/slice/regions')}."


def _norms(records: Sequence[Record]) -> Iterator[str]:
    for key, words in (("weight_norm", "Weight norm"), ("last_layer_norm", "Norm of the last layer")):
        if key in records[-1]:
            yield f"{words}: {_short(records[0][key])} at the start, {_short(records[-1][key])} at the end."


def _feature_ranks(records: Sequence[Record]) -> Iterator[str]:
    last = records[-1]
    if "test/rank/tunnel" in last:
        deepest = [key for key in last if key.startswith("test/rank/layer/")][-1]
        yield (
            f"Rank of the deepest hidden layer: {records[0][deepest]:.0f} at the start, {last[deepest]:.0f} at the "
            f"end; tunnel length {last['test/rank/tunnel']:.0f} at the end."
        )


def _linear_probes(records: Sequence[Record]) -> Iterator[str]:
    last = records[-1]
    if probed := [key for key in last if key.startswith("test/probe/layer/")]:
        first = next(record for record in records if probed[0] in record)
        shallow, deep = (f"{100 * first[key]:.1f} and {100 * last[key]:.1f} %" for key in (probed[0], probed[-1]))
        yield (
            f"Test accuracy of linear probes at step {first['step']:.0f} and at the end: {shallow} on the first layer, "
            f"{deep} on the deepest."
        )


def _commutativity(records: Sequence[Record]) -> Iterator[str]:
    if "train/commutativity" in records[-1]:
        step = first_step(records, "train/commutativity", 0.99)
        if step is None:
            yield "The Abelian test is never passed by 99 % of training pairs."
        else:
            yield f"99 % of training pairs pass the Abelian test at step {step}."


_SAYINGS = (_accuracies, _robustness, _complexity, _norms, _feature_ranks, _linear_probes, _commutativity)


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
