"""The exact methods against rational arithmetic: ``python bench/check_exact.py``. Everything must be equal.

Random small networks of all kinds, slices, activations and shapes (``tests/cases/engine.py``), each enumerated in
fractions (``pylinregion/reference/rational.py``) and by the engine, which must find the same patterns, corners,
neighbours and counts, and areas up to rounding: counting and with cells, in the ordinary way and in another one
(integers only, no fold below the root, two or three threads), and along a segment, which the tracer traces, too. Seed
by seed, so that any of them can be run again:

    python bench/check_exact.py                             # 100 000 networks: some hours
    python bench/check_exact.py --networks 2000 --first 5000
    python bench/check_exact.py --seed 1234                 # one network, with the traceback of what is wrong
    python bench/check_exact.py --maxima                    # with max-pools and the like (``tests/cases/maxima.py``)
    python bench/check_exact.py --layers                    # convolutional modules (``tests/cases/random_layers.py``)

Convolutional, residual and pooled modules are compared at the public face with what is found layer by layer
(``pylinregion/reference/layers.py``): partitions with cells and without, of one slice and of several, counts around
points, and segments.

With gmpy2 installed it computes with that library's rationals, which are several times faster; they give the same.
It writes ``bench/results/oracle-FIRST-NETWORKS.json`` (``oracle-maxima-...``, ``oracle-layers-...``) as it goes;
started again with the same arguments it continues.
Exit code 1: something differed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from tables import markdown

from pylinregion.reference import rational

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from cases import engine as engine_cases
from cases import maxima as maxima_cases
from cases import random_layers as layer_cases
from cases import traces as trace_cases

try:
    from gmpy2 import mpq as Rational
except ImportError:
    from fractions import Fraction as Rational

OTHER_WAYS = [name for name in engine_cases.RUNS if name != "plain"]

BY = ("kind", "structure", "activation", "slice", "polygon")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=100_000, metavar="N", help="default: 100000")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed; default: 0")
    parser.add_argument("--seed", type=int, help="this one alone, and write nothing")
    family = parser.add_mutually_exclusive_group()
    for name, of in (("maxima", "networks with maxima of several values"), ("layers", "convolutional modules")):
        family.add_argument(f"--{name}", dest="family", action="store_const", const=name, default="", help=of)
    parser.add_argument("--minutes", type=float, help="stop after so long, to be continued")
    harness.add_out(parser)
    chosen = parser.parse_args(given)
    if chosen.networks < 1 or chosen.first < 0:
        parser.error("--networks must be at least 1 and --first at least 0")
    return chosen


def about(seed: int, family: str) -> dict[str, str]:
    """What a network is."""
    if family == "layers":
        return layer_cases.about(seed)
    return (maxima_cases if family else engine_cases).any_case(seed)[1]


def one(seed: int, family: str = "") -> dict[str, int]:
    """Compare one network. Gives what it took; raises ``engine_cases.Difference``."""
    return one_of_layers(seed) if family == "layers" else one_of_stages(seed, family == "maxima")


def one_of_layers(seed: int) -> dict[str, int]:
    part, line = layer_cases.compare(seed)
    sums = part.certificate
    took = {"filter": sums.filter, "exact": sums.exact, "zeros": sums.ties, "folds": 0}
    return {**took, "networks": 1, "regions": part.n_regions, "pieces": line.n_regions}


def one_of_stages(seed: int, maxima: bool) -> dict[str, int]:
    case, what = (maxima_cases if maxima else engine_cases).any_case(seed)
    measured = what["kind"] != "nearly tied" or not maxima
    ways = ("plain", OTHER_WAYS[seed % len(OTHER_WAYS)])
    results = engine_cases.check_case(case, runs=ways, coordinates=measured)
    counted, cells = results[False, "plain"], results[True, "plain"]
    segment = engine_cases.segment_case(case, seed)
    along = engine_cases.check_segment(segment, coordinates=measured)
    ends = segment.plane[:, 2], segment.plane[:, 2] + segment.plane[:, 0]
    trace_cases.check_against_oracle(case.stages, *(end[None] for end in ends), far=1e-6 if measured else 1.0)
    took = {
        name: sum(getattr(each, name) for each in (counted, cells, along))
        for name in ("filter", "exact", "zeros", "folds")
    }
    return {**took, "networks": 1, "regions": cells.n_regions, "pieces": along.n_regions}


class Report:
    """What was found so far, by what the networks were."""

    def __init__(self, first: int, networks: int, family: str = "") -> None:
        self.first, self.networks, self.family, self.done = first, networks, family, 0
        self.seconds = 0.0
        self.sums: dict[str, dict[str, Counter[str]]] = {by: {} for by in BY}
        self.mismatches: list[dict[str, Any]] = []
        self.versions: Any = None

    def path(self, directory: Path) -> Path:
        return directory / f"oracle-{self.family + '-' * bool(self.family)}{self.first}-{self.networks}.json"

    def load(self, directory: Path) -> None:
        """Continue where an earlier run was."""
        if not self.path(directory).exists():
            return
        saved = json.loads(self.path(directory).read_text())
        self.done, self.seconds, self.mismatches = saved["done"], saved["seconds"], saved["mismatches"]
        self.sums = {by: {name: Counter(sums) for name, sums in groups.items()} for by, groups in saved["sums"].items()}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        report = {
            "date": harness.now(),
            "machine": harness.machine("cpu"),
            "versions": harness.versions(),
            "first": self.first,
            "networks": self.networks,
            "done": self.done,
            "seconds": round(self.seconds, 1),
            "mismatches": self.mismatches,
            "sums": self.sums,
        }
        unfinished = self.path(directory).with_suffix(".tmp")
        unfinished.write_text(json.dumps(report, indent=1) + "\n")
        unfinished.replace(self.path(directory))

    def add(self, about: dict[str, str], took: dict[str, int]) -> None:
        for by in set(BY) & set(about):
            self.sums[by].setdefault(about[by], Counter()).update(took)

    def table(self, by: str = "kind") -> str:
        wrong = Counter(mismatch["about"][by] for mismatch in self.mismatches)
        groups = sorted(self.sums[by].items())
        total = sum((sums for _, sums in groups), Counter())
        header = [
            by,
            "networks",
            "regions",
            "on segments",
            "by the filter",
            "by integers",
            "ties",
            "folds",
            "mismatches",
        ]
        columns = ("networks", "regions", "pieces", "filter", "exact", "zeros", "folds")
        rows = [
            [name, *(f"{sums[column]:,}".replace(",", " ") for column in columns), str(differ)]
            for name, sums, differ in [
                *((name, sums, wrong[name]) for name, sums in groups),
                ("all", total, len(self.mismatches)),
            ]
        ]
        return markdown(header, rows)


def run(chosen: argparse.Namespace) -> Report:
    report = Report(chosen.first, chosen.networks, chosen.family)
    report.load(chosen.out)
    start = saved = time.perf_counter()
    before = report.seconds
    while report.done < chosen.networks:
        seed = chosen.first + report.done
        what = about(seed, chosen.family)
        try:
            took = one(seed, chosen.family)
        except Exception as error:  # a crash is as wrong as a difference
            took = {"networks": 1}
            report.mismatches.append({"seed": seed, "about": what, "error": f"{type(error).__name__}: {error}"[:500]})
            harness.progress(f"seed {seed}, {what}: {error}")
        report.add(what, took)
        report.done += 1
        now = time.perf_counter()
        report.seconds = before + now - start
        if now - saved > 30:
            saved = now
            report.save(chosen.out)
            rate = report.seconds / report.done
            left = (chosen.networks - report.done) * rate / 60
            harness.progress(f"{report.done} networks, {len(report.mismatches)} mismatches, {left:.0f} minutes to go")
        if chosen.minutes is not None and now - start > 60 * chosen.minutes:
            break
    report.save(chosen.out)
    return report


@contextlib.contextmanager
def rationals() -> Iterator[None]:
    """The oracle computes with the fastest that are there."""
    before, rational.rational = rational.rational, Rational
    try:
        yield
    finally:
        rational.rational = before


@rationals()
def main(given: list[str] | None = None) -> int:
    chosen = arguments(given)
    if chosen.seed is not None:
        try:
            print(about(chosen.seed, chosen.family), one(chosen.seed, chosen.family), sep="\n")
        except engine_cases.Difference:
            traceback.print_exc()
            return 1
        return 0
    report = run(chosen)
    for by in ("kind", "structure"):
        print(report.table(by), end="\n\n")
    print(
        f"{report.done} of {report.networks} networks in {report.seconds / 60:.1f} minutes: {report.path(chosen.out)}"
    )
    for mismatch in report.mismatches:
        again = f"{f'--{chosen.family} ' if chosen.family else ''}--seed {mismatch['seed']}"
        print(f"MISMATCH: python bench/check_exact.py {again}: {mismatch['error']}")
    return 1 if report.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
