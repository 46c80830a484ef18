"""Exact traces of segments: ``python bench/traces.py``. Segments a second, beside a plain walk.

The baseline is what one would write in NumPy: from one breakpoint to the next, with the values and slopes of all
neurons in the region as two matrix products a layer, in float64 without any proof. It walks the first few segments;
where its number of regions is not ours, the table says so (its rounding decides ties).

Set-up (the network as matrices) is left out; all else is the tracer on ready arrays, with every decision certified.
Times are CPU times on one thread, the least of the repeats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from architectures import mlp
from partitions import generic, least
from tables import markdown
from workloads import images_and_labels

import pylinregion as plr
from pylinregion.exact.segment_engine import Tracer
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import Stages

GOALS = {"784-200x3-10, between digits": 20_000}
WALKED = 5


def plain_walk(stages: Stages, start: np.ndarray, end: np.ndarray) -> int:
    """The number of regions, from breakpoint to breakpoint. Linear layers and ReLUs only."""
    layers = [(next(iter(stage.matrices.values())), stage.bias) for stage in stages.stages]
    t, regions = 0.0, 1
    direction = end - start
    while True:
        value, slope, nearest = start + t * direction, direction, 1.0
        for weight, bias in layers[:-1]:
            value, slope = weight @ value + bias, weight @ slope
            with np.errstate(divide="ignore", invalid="ignore"):
                ahead = t - value / slope
            nearest = ahead[ahead > t + 1e-12].min(initial=nearest)
            on = value + 1e-12 * slope > 0
            value, slope = value * on, slope * on
        if nearest >= 1:
            return regions
        t, regions = nearest, regions + 1


def cases(smoke: bool, mnist: Path | None) -> dict[str, tuple[torch.nn.Module, np.ndarray, np.ndarray]]:
    """Networks with the starts and ends of segments."""
    rng = np.random.default_rng(0)
    if smoke:
        return {"4-16x2-1": (generic((4, 16, 16, 1)), *rng.standard_normal((2, 10, 4)))}
    images = images_and_labels(mnist)[0].double().numpy()
    starts, ends = images[rng.integers(len(images), size=(2, 2000))]
    torch.manual_seed(0)
    found: dict[str, tuple[torch.nn.Module, np.ndarray, np.ndarray]] = {
        "784-200x3-10, between digits": (mlp(3), starts, ends),
        "784-200x5-10, between digits": (mlp(5), starts, ends),
    }
    quantised = mlp(3)
    with torch.no_grad():
        for parameter in quantised.parameters():
            parameter.copy_((parameter * 1024).round() / 1024)
    found["784-200x3-10 in steps of 1/1024, between digits"] = (quantised, starts, ends)
    found["2-128x8-1, weights doubled"] = (generic((2, *[128] * 8, 1), 2.0), *rng.standard_normal((2, 200, 2)))
    found["100-400x12-10"] = (generic((100, *[400] * 12, 10)), *5 * rng.standard_normal((2, 20, 100)))
    return found


def record(name: str, model: torch.nn.Module, starts: np.ndarray, ends: np.ndarray, repeats: int) -> dict[str, Any]:
    """Everything about one network."""
    harness.progress(f"{name}: tracer")
    stages = stages_of(plr.capture(model, torch.zeros(2, starts.shape[1])))
    tracer = Tracer(stages, [starts, ends])
    found = tracer.trace(starts, ends)
    regions = np.diff(found.offsets) + 1
    seconds = {
        "with_slopes": least(lambda: tracer.trace(starts, ends), repeats, harness.cpu_seconds),
        "without": least(lambda: tracer.trace(starts, ends, maps=False), repeats, harness.cpu_seconds),
    }
    harness.progress(f"{name}: plain walk")
    walked: list[int] = []

    def walk() -> None:
        walked[:] = [plain_walk(stages, starts[b], ends[b]) for b in range(WALKED)]

    seconds["plain_walk"] = least(walk, 1, harness.cpu_seconds)
    return {
        "network": name,
        "segments": len(starts),
        "regions": int(regions.sum()),
        "seconds": seconds,
        "walked": walked,
        "regions_of_walked": regions[:WALKED].tolist(),
        "decisions": {key: getattr(found, key) for key in ("filter", "exact", "zeros")},
    }


def table(records: list[dict[str, Any]]) -> str:
    """A row for each network."""
    rows = []
    for each in records:
        seconds, n, goal = each["seconds"], each["segments"], GOALS.get(each["network"])
        with_slopes, without = n / seconds["with_slopes"], n / seconds["without"]
        plain = WALKED / seconds["plain_walk"]
        same = "" if each["walked"] == each["regions_of_walked"] else ", other regions"
        decisions = each["decisions"]
        rows.append(
            [
                each["network"],
                f"{each['regions'] / n:.1f}",
                f"{with_slopes:.0f}" + (f" ({goal})" if goal else ""),
                f"{without:.0f}",
                f"{plain:.1f} ({with_slopes / plain:.0f}x{same})",
                f"{decisions['filter']} / {decisions['exact']} / {decisions['zeros']}",
            ]
        )
    header = ["network", "regions a segment", "segments/s (goal)", "without slopes", "plain walk, segments/s (slower)"]
    return markdown([*header, "decisions: filter / exact / ties"], rows)


def main(given: list[str] | None = None) -> int:
    parser = harness.parser(__doc__, "the tracer")
    parser.add_argument("--mnist", type=Path, metavar="NPZ", help="images to trace between: images, labels")
    chosen = parser.parse_args(given)
    harness.one_thread()
    repeats = 1 if chosen.smoke else chosen.repeats
    records = [record(name, *case, repeats) for name, case in cases(chosen.smoke, chosen.mnist).items()]
    if chosen.smoke and records[0]["walked"] != records[0]["regions_of_walked"]:
        raise SystemExit(f"{records[0]['regions_of_walked']} regions traced, {records[0]['walked']} walked")
    print(f"\n{table(records)}")
    harness.write({"segments": records}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
