"""Peak memory of one count, measured in a process of its own.

Prints one JSON object. The baseline is the process with the model and the points ready, after a tiny count: the code is
loaded, the model captured and oneDNN's weights packed. What is reported is how far the peak of one count of all points
lies above it. The bare pass finds its vertices ready-made, so they are not in its number.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import bare_forward, count_with_hooks, laid_out, ready_made_vertices
from harness import verdict
from torch import Tensor
from workloads import FULL, MLPS, RESNETS, SMOKE, Workload, mlp_workload, resnet_workload

import pylinregion as plr

MEGABYTE = 10**6
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Question:
    """What is measured: ``contender`` is ``"pylinregion"``, ``"bare"`` or ``"hooks"``."""

    network: str
    contender: str
    batch: int | None
    layout: str
    points: int
    threads: int
    device: str
    smoke: bool


def record(question: Question, work: Workload) -> dict[str, Any]:
    """Measure, and say beside it what was measured."""
    megabytes = peak_megabytes(question)
    goal = work.goals.megabytes if question.contender == "pylinregion" else None
    return {
        "name": question.contender,
        "setting": {
            "network": work.key,
            "dtype": "float32",
            "radius": work.radii[0],
            "threads": question.threads,
            "device": question.device,
            "points": question.points,
            "directions": work.directions,
        },
        "batch": question.batch,
        "layout": question.layout,
        "megabytes": megabytes,
        "goal": goal,
        "verdict": verdict(megabytes, goal),
    }


def peak_megabytes(question: Question) -> float | None:
    """Ask a fresh process; None where the system does not tell its peak."""
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps(asdict(question))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring memory failed:\n{done.stderr}")
    answer: float | None = json.loads(done.stdout.splitlines()[-1])["megabytes"]
    return answer


def workload_of(question: Question) -> Workload:
    """The workload with random weights: they do not matter here."""
    sizes = SMOKE if question.smoke else FULL
    if question.network in RESNETS:
        return resnet_workload(RESNETS[question.network], sizes)
    return mlp_workload(MLPS[question.network], sizes, torch.rand(question.points, 784))


def run_of(question: Question) -> Callable[[int], object]:
    """The count of the first so many points."""
    work = workload_of(question)
    dtype, radius = torch.float32, work.radii[0]
    model = work.placed(dtype, question.device, question.layout)
    repeats = -(-question.points // len(work.points))
    x = work.points.repeat(repeats, *[1] * (work.points.dim() - 1))[: question.points].to(question.device)
    frame = plr.random_frame(x.shape[1:], work.directions).to(x)
    if question.contender == "pylinregion":
        return lambda points: plr.count_regions(model, x[:points], radius, n_directions=work.directions)
    vertices, batch = 2 * work.directions, question.batch or question.points
    if question.contender == "hooks":
        return lambda points: count_with_hooks(model, x[:points], frame, radius, batch, question.layout)
    rows: Tensor = laid_out(ready_made_vertices(x, frame, radius).flatten(0, 1), question.layout)
    return lambda points: bare_forward(model, rows[: points * vertices], batch * vertices)


def answer(question: Question) -> float | None:
    torch.set_num_threads(question.threads)
    run = run_of(question)
    run(min(2, question.points))
    gc.collect()
    measure = _cuda_peak if question.device == "cuda" else process_peak
    return measure(lambda: run(question.points))


def _cuda_peak(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEGABYTE


def process_peak(run: Callable[[], object]) -> float | None:
    """How far above what there is a run goes, in megabytes; None where the system does not tell."""
    _return_free_memory()
    try:
        CLEAR.write_text("5")  # resets the peak; Linux only, and not in every container
    except OSError:
        return None
    before = _status_bytes("VmRSS")
    run()
    return (_status_bytes("VmHWM") - before) / MEGABYTE


def _return_free_memory() -> None:
    """Give freed memory back to the system, so that it is not at hand for free later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", help="the fields of Question as JSON")
    print(json.dumps({"megabytes": answer(Question(**json.loads(parser.parse_args().question)))}))
