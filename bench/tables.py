"""The tables of a report: ``python bench/tables.py bench/results/FILE.json`` prints those of a saved one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speed import BARE, OURS

Rows = list[dict[str, Any]]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, aligned for the terminal."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def milliseconds(seconds: float) -> str:
    """Three digits."""
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def speed(records: Rows) -> str:
    """A table for the networks that have the same baselines."""
    baselines: dict[str, dict[str, None]] = {}
    for record in records:
        baselines.setdefault(record["setting"]["network"], {})[record["baseline"]] = None
    groups: dict[tuple[str, ...], Rows] = {}
    for record in records:
        groups.setdefault(tuple(baselines[record["setting"]["network"]]), []).append(record)
    return "\n\n".join(_speed(names, group) for names, group in groups.items())


def _speed(baselines: tuple[str, ...], records: Rows) -> str:
    """A row for each setting, a column for each baseline."""
    settings: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for record in records:
        s = record["setting"]
        key = (s["network"], s["weights"], s["dtype"], s["threads"], s["radius"])
        settings.setdefault(key, {})[record["baseline"]] = record
    rows = []
    for (network, weights, dtype, threads, radius), found in settings.items():
        first = found[baselines[0]]
        row = [network, weights, dtype, str(threads), f"{radius:g}", f"{first['setting']['local_complexity']:.3g}"]
        row += [str(first["setting"]["differing_neurons"]), milliseconds(first["seconds"])]
        row += [cell for name in baselines for cell in _beside(found[name])]
        rows.append(row)
    header = ["network", "weights", "dtype", "threads", "r", "LC", "differing", f"{OURS}, ms"]
    header += [cell for name in baselines for cell in (f"{name}, ms (batch)", _ratio_header(name))]
    return markdown(header, rows)


def _ratio_header(baseline: str) -> str:
    return "ratio (goal)" if baseline.startswith(BARE) else "times faster (goal)"


def _beside(record: dict[str, Any]) -> tuple[str, str]:
    """A baseline's cells: its time, and ours beside it."""
    name, goal, verdict = record["baseline"], record["goal"], record["verdict"]
    batch = _setup(name, record["setting"]["baseline_batch"], record["setting"]["baseline_layout"])
    if name.startswith(BARE):
        number, aim = f"{record['ratio']:.3f}", None if goal is None else f"at most {goal:g}"
    else:
        number, aim = f"{1 / record['ratio']:.2f}", None if goal is None else f"at least {1 / goal:g}"
    time = f"{milliseconds(record['baseline_seconds'])} ({batch})"
    return time, number if aim is None else f"{number} ({aim}: {verdict})"


def _setup(name: str, batch: int | None, layout: str) -> str:
    """Batch size, and layout where the contender's name does not say it and it is not the usual one."""
    points = "its own" if batch is None else str(batch)
    return points if layout == "contiguous" or name.endswith(layout) else f"{points} {layout}"


def sweeps(found: Rows) -> str:
    """What each contender takes at each batch size."""
    rows = []
    for sweep in found:
        s = sweep["setting"]
        name = sweep["name"]
        tried = ", ".join(
            f"{_setup(name, t['batch'], t['layout'])}: {milliseconds(t['seconds'])}" for t in sweep["tried"]
        )
        rows.append((s["network"], s["dtype"], str(s["threads"]), name, tried))
    return markdown(("network", "dtype", "threads", "contender", "batch: ms"), rows)


def memory(found: Rows) -> str:
    """Peak memory of one count."""
    rows = []
    for row in found:
        s = row["setting"]
        megabytes = "not measured" if row["megabytes"] is None else f"{row['megabytes']:.1f}"
        goal = "" if row["goal"] is None else f"at most {row['goal']:g}: {row['verdict']}"
        batch = _setup(row["name"], row["batch"], row["layout"])
        rows.append((s["network"], str(s["threads"]), str(s["points"]), row["name"], batch, megabytes, goal))
    return markdown(("network", "threads", "points", "contender", "batch", "peak, MB", "goal"), rows)


def kernels(found: Rows) -> str:
    """Every kernel beside torch."""
    rows = []
    for row in found:
        s = row["setting"]
        rate, share, goal = row["gigabytes_per_second"], row["share_of_copy"], row["share_goal"]
        verdict = "" if goal is None else f" (at least {goal:g}: {'met' if share >= goal else 'missed'})"
        rows.append(
            (
                s["kernel"],
                s["work"],
                s["dtype"],
                s["size"],
                f"{1e6 * row['seconds']:.1f}",
                row["baseline"],
                f"{1e6 * row['baseline_seconds']:.1f}",
                f"{1 / row['ratio']:.2f}",
                "" if rate is None else f"{rate:.1f}",
                "" if share is None else f"{share:.2f}{verdict}",
            )
        )
    header = ("kernel", "work", "dtype", "size", f"{OURS}, us", "baseline", "baseline, us", "times faster", "GB/s")
    return markdown((*header, "share of copy"), rows)


def chains(found: Rows) -> str:
    """Chains of every width and depth: the times, and the floor."""
    rows = []
    for row in found:
        s = row["setting"]
        ours, generic, bare, floor = (row[f"{name}seconds"] for name in ("", "generic_", "bare_", "floor_"))
        rows.append(
            (
                s["network"],
                str(s["points"]),
                s["dtype"],
                f"{s['radius']:g}",
                f"{s['local_complexity']:.3g}",
                str(s["differing_neurons"]),
                row["way"],
                f"{row['share']:.2f}",
                milliseconds(ours),
                milliseconds(generic),
                f"{milliseconds(bare)} ({row['bare_batch']})",
                milliseconds(floor),
                f"{ours / generic:.2f}",
                f"{ours / bare:.3f}",
                f"{ours / floor:.1f}",
            )
        )
    header = ("network", "points", "dtype", "r", "LC", "differing", "way", "share", f"{OURS}, ms", "every vertex, ms")
    beside = ("of every vertex", "of bare", "times the floor")
    return markdown((*header, f"{BARE}, ms (batch)", "floor, ms", *beside), rows)


def chain_radii(found: Rows) -> str:
    """A row for each dtype and radius, a column for each number of directions: the ratios, and the way."""
    directions = list(dict.fromkeys(row["setting"]["directions"] for row in found))
    by_place: dict[tuple[str, float], dict[int, str]] = {}
    for row in found:
        s = row["setting"]
        way = "v" if s["way"] == row["baseline"] else "d"
        by_place.setdefault((s["dtype"], s["radius"]), {})[s["directions"]] = f"{row['ratio']:.2f} {way}"
    rows = [(dtype, f"{radius:g}", *cells.values()) for (dtype, radius), cells in by_place.items()]
    worst = max(found, key=lambda row: float(row["ratio"]))
    at = f"{worst['setting']['dtype']}, r = {worst['setting']['radius']:g}, P = {worst['setting']['directions']}"
    goal = "" if worst["goal"] is None else f" (at most {worst['goal']:g}: {worst['verdict']})"
    table = markdown(("dtype", "r", *(f"P = {p}" for p in directions)), rows)
    return (
        f"{table}\n\n{found[0]['setting']['network']}: time of {OURS} as a share of that at every vertex; "
        f"d: it counts by displacements, v: at every vertex. Worst: {worst['ratio']:.3f}, {at}{goal}"
    )


def chain_threads(found: Rows) -> str:
    """Several threads beside one."""
    rows = []
    for row in found:
        s = row["setting"]
        goal = "" if row["goal"] is None else f" (at least {1 / row['goal']:g}: {row['verdict']})"
        ours, one = milliseconds(row["seconds"]), milliseconds(row["baseline_seconds"])
        times = f"{1 / row['ratio']:.2f}{goal}"
        rows.append((s["network"], s["dtype"], f"{s['radius']:g}", str(s["threads"]), ours, one, times))
    return markdown(("network", "dtype", "r", "threads", "ms", "one thread, ms", "times faster"), rows)


SECTIONS = {
    "records": speed,
    "sweeps": sweeps,
    "memory": memory,
    "kernels": kernels,
    "chains": chains,
    "chain_radii": chain_radii,
    "chain_threads": chain_threads,
}
TITLES = {
    "records": "Speed",
    "sweeps": "Batch sizes",
    "memory": "Peak memory of one count",
    "kernels": "Kernels, one thread",
    "chains": "Chains of dense layers, one thread",
    "chain_radii": "Chains at all radii, one thread",
    "chain_threads": "Chains on several threads",
}


def section(name: str, rows: Rows) -> str:
    """One section of a report, with its title."""
    return f"## {TITLES[name]}\n\n{SECTIONS[name](rows)}"


def head(report: dict[str, Any]) -> str:
    """Date, machine and versions."""
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items() if value is not None)
    return f"{report['date']}\n\nMachine: {machine}\n\nVersions: {versions}\n\nPoints: {report['points']}"


if __name__ == "__main__":
    saved = json.loads(Path(sys.argv[1]).read_text())
    print("\n\n".join([head(saved), *(section(name, saved[name]) for name in SECTIONS if saved.get(name))]))
