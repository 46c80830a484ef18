"""The benchmarks: ``python bench/main.py``; see ``bench/README.md``.

Prints tables and writes one JSON file. Ratios are of times measured in turn in one run. Goals are printed beside the
ratios and fail nothing; a wrong count does.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import chains
import harness
import kernel_cases
import peak_memory
import peer
import tables
import torch
import workloads
from baselines import WrongCountsError
from harness import progress
from speed import HOOKS, OURS, Options, Setup, Sweep, bare_name, measure_speed
from torch import Tensor
from workloads import MLPS, RESNETS, Sizes, Workload

PARTS = ("mlp", "resnet", "kernels", "chains")
CUDA_RESNET_POINTS = 256

Sweeps = dict[tuple[Any, ...], dict[str, Sweep]]


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="what to measure; default: all (CUDA: all but chains)")
    parser.add_argument("--threads", nargs="+", type=int, help="CPU threads, one run each; default: 1 and 2")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--points", type=int, help="points; default: 1000 for MLPs, 64 (CUDA: 256) for ResNets")
    parser.add_argument("--repeats", type=int, help="of every contender; default: 7")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, once: checks counts, measures nothing")
    parser.add_argument("--mnist", type=Path, metavar="NPZ", help="images to train on and count around: images, labels")
    parser.add_argument("--peer", type=Path, metavar="PATH", help="a checkout of grok-adversarial, to run beside ours")
    harness.add_out(parser)
    chosen = parser.parse_args(given)
    for name in ("points", "repeats"):
        if getattr(chosen, name) is not None and getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if chosen.threads is None:
        chosen.threads = [1] if chosen.device == "cuda" else [1, 2]
    if min(chosen.threads) < 1:
        parser.error("--threads must be at least 1")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if chosen.only is None:
        chosen.only = [part for part in PARTS if part != "chains" or chosen.device == "cpu"]
    if "chains" in chosen.only and chosen.device == "cuda":
        parser.error("--only chains: they are measured on the CPU")
    if chosen.repeats is None:
        chosen.repeats = 1 if chosen.smoke else 7
    return chosen


def sizes_for(chosen: argparse.Namespace) -> Sizes:
    sizes = workloads.SMOKE if chosen.smoke else workloads.FULL
    if chosen.device == "cuda" and not chosen.smoke:
        batches = (*sizes.resnet_batches, 64, CUDA_RESNET_POINTS)
        sizes = dataclasses.replace(sizes, resnet_points=CUDA_RESNET_POINTS, resnet_batches=batches)
    if chosen.points is not None:
        sizes = dataclasses.replace(sizes, mlp_points=chosen.points, resnet_points=chosen.points)
    return sizes


def images_for(sizes: Sizes, mnist: Path | None) -> tuple[Tensor, Tensor, str]:
    """The points of the MLPs, their labels, and where they come from."""
    images, labels, source = workloads.images_and_labels(mnist)
    if len(images) < sizes.mlp_points:
        raise SystemExit(f"--points {sizes.mlp_points}: there are only {len(images)} images ({source})")
    return images, labels, source


def mlp_workloads(sizes: Sizes, mnist: Path | None) -> tuple[list[Workload], str]:
    """Both MLPs, random and trained, and where the points come from."""
    images, labels, source = images_for(sizes, mnist)
    works = []
    for hidden in MLPS.values():
        trained = workloads.trained_mlp(hidden, sizes, images, labels)
        works += [workloads.mlp_workload(hidden, sizes, images, model) for model in (None, trained)]
    return works, source


def memory_records(networks: dict[str, Workload], sweeps: Sweeps, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of one count in float32, each in a process of its own."""
    found = []
    for threads in chosen.threads:
        for network, work in networks.items():
            best = {name: sweep.best for name, sweep in sweeps[work.key, torch.float32, threads].items()}
            contenders = {OURS: Setup(), "bare": best[bare_name(work, work.layouts[0])], "hooks": best[HOOKS]}
            for contender, setup in contenders.items():
                progress(f"{work.key}, {threads} thread(s): memory of {contender}")
                points, place = len(work.points), (threads, chosen.device, chosen.smoke)
                question = peak_memory.Question(network, contender, setup.batch, setup.layout, points, *place)
                found.append(peak_memory.record(question, work))
                if chosen.smoke:
                    return found  # one process shows that it works
    return found


def kernel_records(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Every kernel beside torch, on one thread."""
    device, size = chosen.device, "smoke" if chosen.smoke else "memory"
    torch.set_num_threads(1)
    clock = harness.cuda_event_seconds if device == "cuda" else harness.cpu_seconds
    copied = kernel_cases.copy_bandwidth(device, clock, size)
    found = []
    for selected in kernel_cases.case_arguments(device, ("smoke",) if chosen.smoke else ("batch", "memory")):
        case = kernel_cases.case(*selected)  # compares all contenders: no wrong answer is timed
        progress(f"kernel {case.title}")
        found += kernel_cases.records(case, clock, chosen.repeats, 0.0 if chosen.smoke else 0.02, copied)
    return found


class Report:
    """What is printed and saved, part by part, so that a run that is cut short leaves what it had."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.out: Path = chosen.out
        self.path: Path | None = None
        self.contents: dict[str, Any] = {
            "date": harness.now(),
            "machine": harness.machine(chosen.device),
            "versions": harness.versions(),
            "points": "",
            "arguments": {name: _plain(value) for name, value in vars(chosen).items()},
            "records": [],
            "sweeps": [],
            "memory": [],
            "kernels": [],
            "chains": [],
            "chain_radii": [],
            "chain_threads": [],
        }

    def add(self, section: str, rows: list[dict[str, Any]]) -> None:
        print(f"\n{tables.section(section, rows)}", flush=True)
        self.contents[section] += rows
        self.path = harness.save(self.contents, self.out)


def _plain(value: Any) -> Any:
    """For JSON; of a path only the last part, since where things lie is nobody's business."""
    return value.name if isinstance(value, Path) else value


def measure_networks(
    networks: dict[str, Workload], works: list[Workload], chosen: argparse.Namespace, report: Report
) -> None:
    """Speed and memory; ``networks`` are the workloads whose memory is measured, by the names in ``peak_memory.py``."""
    published = None if chosen.peer is None else peer.load(chosen.peer)
    options = Options(chosen.device, chosen.repeats, 1 if chosen.smoke else 2, published)
    records, sweeps = measure_speed(works, sorted(chosen.threads), options)
    report.add("records", [record.as_json() for record in records])
    report.add("sweeps", [sweep.as_json() for by_name in sweeps.values() for sweep in by_name.values()])
    report.add("memory", memory_records(networks, sweeps, chosen))


def measure_chains(sizes: Sizes, chosen: argparse.Namespace, report: Report) -> None:
    images, _, source = images_for(sizes, chosen.mnist)
    report.contents["points"] = f"MLPs: {source}"
    report.add("chains", chains.by_shape(sizes, images, chosen.repeats))
    report.add("chain_radii", chains.by_radius(sizes, images, chosen.repeats))
    if several := sorted(set(chosen.threads) - {1}):
        report.add("chain_threads", chains.by_threads(sizes, images, chosen.repeats, several))


def main(given: list[str] | None = None) -> int:
    chosen = arguments(given)
    sizes = sizes_for(chosen)
    report = Report(chosen)
    if chosen.smoke:
        print("smoke: the sizes are tiny, and the times mean nothing")
    torch.set_num_threads(min(chosen.threads))  # threads of torch that have run once may spin beside later work
    try:
        if "mlp" in chosen.only:
            works, source = mlp_workloads(sizes, chosen.mnist)
            report.contents["points"] = f"MLPs: {source}"
            networks = {name: next(w for w in works if f"x{hidden}-" in w.key) for name, hidden in MLPS.items()}
            measure_networks(networks, works, chosen, report)
        if "resnet" in chosen.only:
            networks = {name: workloads.resnet_workload(norm, sizes) for name, norm in RESNETS.items()}
            measure_networks(networks, list(networks.values()), chosen, report)
        if "kernels" in chosen.only:
            report.add("kernels", kernel_records(chosen))
        if "chains" in chosen.only:
            measure_chains(sizes, chosen, report)
    except WrongCountsError as error:
        print(f"wrong counts: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten to {report.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
