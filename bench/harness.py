"""Timing, records and tables. Nothing here knows what is measured."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import threadpoolctl
import torch

import pylinregion as plr
from pylinregion.native.simd import simd

Run = Callable[[], object]
Clock = Callable[[Run], float]
Key = TypeVar("Key", bound=Hashable)

RESULTS = Path(__file__).resolve().parent / "results"


def parser(description: str | None, repeated: str) -> argparse.ArgumentParser:
    """The options of the scripts that measure exact methods; ``repeated``: what ``--repeats`` repeats."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--repeats", type=int, default=7, help=f"of {repeated}; default: 7")
    found.add_argument("--smoke", action="store_true", help="one tiny network, once: checks counts, measures nothing")
    add_out(found)
    return found


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option that says where results go."""
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the JSON; default: bench/results")


def one_thread() -> None:
    """For torch and NumPy's BLAS, whose threads spin for a while after a product: that would be in the CPU time."""
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)


def cpu_seconds(run: Run) -> float:
    """CPU time of the process: other work on the machine is not in it."""
    start = time.process_time()
    run()
    return time.process_time() - start


def wall_seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cuda_seconds(run: Run) -> float:
    """Wall time from an idle device to an idle device."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def cuda_event_seconds(run: Run) -> float:
    """Time on the device, from events: launches are in it only where the device waits for them."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def clock_for(device: str, threads: int) -> Clock:
    """One CPU thread is measured by its CPU time, several by wall time, CUDA by wall time between synchronisations."""
    if device == "cuda":
        return cuda_seconds
    return cpu_seconds if threads == 1 else wall_seconds


def interleaved(runs: Mapping[Key, Run], repeats: int, clock: Clock) -> dict[Key, list[float]]:
    """Seconds of each run, measured in turn: A B C A B C, so that slow times of the machine hit all alike."""
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            for key, run in runs.items():
                seconds[key].append(clock(run))
    finally:
        if collecting:
            gc.enable()
    return seconds


def medians(runs: Mapping[Key, Run], repeats: int, clock: Clock) -> dict[Key, float]:
    return {key: statistics.median(times) for key, times in interleaved(runs, repeats, clock).items()}


def fastest(runs: Mapping[Key, Run], rounds: int, clock: Clock) -> dict[Key, float]:
    """The least seconds of each run: for choosing among them, with few rounds, of which the first warms up."""
    return {key: min(times) for key, times in interleaved(runs, rounds, clock).items()}


def repeated(run: Run, calls: int) -> Run:
    """Several calls as one, for runs that are short beside the clock."""

    def run_all() -> None:
        for _ in range(calls):
            run()

    return run_all


def calls_for(run: Run, clock: Clock, least_seconds: float) -> int:
    """How many calls take about ``least_seconds``."""
    run()
    seconds = clock(run)
    return max(1, min(10_000, math.ceil(least_seconds / max(seconds, 1e-9))))


@dataclass(frozen=True)
class Record:
    """One contender beside one baseline, measured in one run.

    Attributes:
        name: The contender.
        setting: What was measured: network, dtype, radius, threads and so on.
        baseline: What it is compared with, and at which batch size.
        seconds: Median of the contender.
        baseline_seconds: Median of the baseline.
        ratio: ``seconds / baseline_seconds``.
        goal: The ratio to reach, at most; None: none is set.
    """

    name: str
    setting: dict[str, Any]
    baseline: str
    seconds: float
    baseline_seconds: float
    ratio: float
    goal: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "verdict": verdict(self.ratio, self.goal)}


def compared(
    name: str, setting: dict[str, Any], baseline: str, seconds: float, baseline_seconds: float, goal: float | None
) -> Record:
    return Record(name, setting, baseline, seconds, baseline_seconds, seconds / baseline_seconds, goal)


def verdict(value: float | None, goal: float | None) -> str:
    """Whether a value is at most its goal."""
    if goal is None:
        return "no goal"
    if value is None:
        return "not measured"
    return "met" if value <= goal else "missed"


def machine(device: str) -> dict[str, Any]:
    """The machine, without its name."""
    described: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "simd": simd(),
        "device": device,
    }
    if hasattr(os, "getloadavg"):
        described["load"] = round(os.getloadavg()[0], 2)
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        described["gpu"] = properties.name
        described["gpu_memory_bytes"] = properties.total_memory
        described["gpu_multiprocessors"] = properties.multi_processor_count
    return described


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    libraries = [
        line.strip(" -") for line in torch.__config__.show().splitlines() if "Math Kernel" in line or "DNN v" in line
    ]
    return {
        "python": platform.python_version(),
        "pylinregion": plr.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "libraries": "; ".join(libraries),
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.backends.cudnn.is_available() else None,
    }


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def save(report: dict[str, Any], directory: Path) -> Path:
    """Write a report as JSON, named by its date and device."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = report["date"].replace(":", "").replace("+0000", "Z")
    path = directory / f"{stamp}-{report['machine']['device']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def write(measured: dict[str, Any], directory: Path) -> None:
    """Save what was measured on this machine's CPU, and say where."""
    about = {"date": now(), "machine": machine("cpu"), "versions": versions()}
    print(f"\nwritten to {save({**about, **measured}, directory)}")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def each_in_a_process(
    given: list[str] | None,
    doc: str | None,
    section: str,
    work: Sequence[Sequence[Any]],
    smoke: Sequence[Any],
    measure: Callable[..., dict[str, Any]],
    table: Callable[[list[dict[str, Any]]], str],
) -> int:
    """The main of a script that measures each piece of work once, in a process of its own whose peak memory is told.

    Args:
        given: The command line's arguments; None: those of the process.
        doc: The script's docstring.
        section: What its rows are called in the JSON.
        work: The arguments of ``measure``, piece by piece; ``smoke``: those of a small one.
        measure: Measures a piece: a row.
        table: Of the rows.
    """
    options = parser(doc, "nothing: each is measured once")
    options.add_argument("--one", help="a piece of work, as JSON: what a process of its own is asked for")
    chosen = options.parse_args(given)
    if chosen.one:
        print(json.dumps(measure(*json.loads(chosen.one))))
        return 0
    script = sys.modules[measure.__module__].__file__
    rows = []
    for piece in [smoke] if chosen.smoke else work:
        progress(f"{piece}")
        asked = [sys.executable, str(script), "--one", json.dumps(piece)]
        found = subprocess.run(asked, check=True, capture_output=True, text=True)
        rows.append(json.loads(found.stdout.splitlines()[-1]))
    print(f"\n{table(rows)}")
    write({section: rows}, chosen.out)
    return 0
