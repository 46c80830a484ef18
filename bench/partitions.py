"""Exact partitions: ``python bench/partitions.py``. Regions a second, beside plain polygon splitting.

The baseline is what one would write in NumPy: cells layer by layer, the next layer's affine map on each by a matrix
product, polygons cut line by line, in float64 without any proof. It is timed on the networks it can do in reasonable
time; where it is, its count must be ours, or the table says that it is not (its rounding decides ties).

Set-up (the network as matrices, the first fold's system) is timed by itself; all else is the engine on ready arrays,
with every decision certified. Times are the least of the repeats: CPU time on one thread, wall time on two. `Partition`
is the public function with all its arrays, on a captured network. The second table is the engine with each instruction
set, the third grows one thing at a time.
`--peer PATH`, once or twice, runs a checkout of edge subdivision (`partition_peer.py`) or of SplineCam
(`splinecam_peer.py`) once on what they can do in a minute or two; which it is, is seen from its files. SplineCam needs
graph-tool. Without it "SplineCam (stand-in for graph-tool)" uses a stand-in in Python: the time is then not that of
graph-tool's C++, and the table says what share of it went into the stand-in.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import partition_peer
import splinecam_peer
import torch
from architectures import mlp
from tables import markdown

import pylinregion as plr
from pylinregion.exact.slice_engine import Engine
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.stages import Stages
from pylinregion.native.simd import simd_sets, use_simd

GOALS = {  # millions of regions a second on one core: counted, with cells
    "784-200x3-10": (5.0, 3.0),
    "2-256x3-1": (6.0, 4.0),
    "2-512x3-1": (3.6, 2.4),
    "2-1024x3-1": (2.3, None),
    "2-128x8-1, weights doubled": (0.8, None),
}
PEERS = {
    "edge subdivision": (partition_peer.FILES, partition_peer.edge_subdivision),
    "SplineCam": (splinecam_peer.FILES, splinecam_peer.splinecam),
}
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
PLANE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def generic(shape: tuple[int, ...], scale: float = 1.0) -> torch.nn.Sequential:
    """Linear layers and ReLUs with torch's initialisation, weights and biases times ``scale``."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(shape):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    return model


def degenerate(kind: str) -> torch.nn.Sequential:
    """2-128x3-1 with ties everywhere."""
    model = generic((2, 128, 128, 128, 1))
    with torch.no_grad():
        for layer in model:
            if not isinstance(layer, torch.nn.Linear) or len(layer.bias) == 1:
                continue
            if kind == "zero biases":
                layer.bias.zero_()
            elif kind == "grid 1/16":
                layer.weight.copy_((layer.weight * 16).round() / 16)
                layer.bias.copy_((layer.bias * 16).round() / 16)
            else:
                factors = {"duplicated neurons": (2.0, -1.0), "nearly duplicated neurons": (3.0, 1 / 3)}[kind]
                for offset, factor in zip((43, 86), factors, strict=True):
                    count = min(43, 128 - offset)
                    layer.weight[offset : offset + count] = layer.weight[:count] * factor
                    layer.bias[offset : offset + count] = layer.bias[:count] * factor
    return model


def cases(smoke: bool) -> dict[str, tuple[torch.nn.Module, np.ndarray, np.ndarray]]:
    """Networks with their slices: plane ``[inputs, 3]`` and corners."""
    if smoke:
        return {"2-16x2-1": (generic((2, 16, 16, 1)), PLANE, SQUARE)}
    a, b, c = np.random.default_rng(0).random((3, 784)).astype(np.float32).astype(np.float64)
    through = np.stack([b - a, c - a, a], axis=1), np.array([[-0.1, -0.1], [1.1, -0.1], [1.1, 1.1], [-0.1, 1.1]])
    torch.manual_seed(0)
    found: dict[str, tuple[torch.nn.Module, np.ndarray, np.ndarray]] = {"784-200x3-10": (mlp(3), *through)}
    for width in (256, 512, 1024):
        found[f"2-{width}x3-1"] = (generic((2, width, width, width, 1)), PLANE, SQUARE)
    found["2-128x8-1, weights doubled"] = (generic((2, *[128] * 8, 1), 2.0), PLANE, SQUARE)
    found["2-128x3-1"] = (generic((2, 128, 128, 128, 1)), PLANE, SQUARE)
    for kind in ("zero biases", "duplicated neurons", "nearly duplicated neurons", "grid 1/16"):
        found[f"2-128x3-1, {kind}"] = (degenerate(kind), PLANE, SQUARE)
    return found


def plain_splitting(stages: Stages, plane: np.ndarray, corners: np.ndarray) -> int:
    """The number of regions, by cutting polygons in float64."""
    cells = [(corners, plane)]
    for stage in stages.stages[:-1]:
        ((_, weight),) = stage.matrices.items()
        after = []
        for polygon, values in cells:
            rows = weight @ values
            rows[:, 2] += stage.bias
            pieces = [polygon]
            at_corners = polygon @ rows[:, :2].T + rows[:, 2]
            for line in rows[(at_corners > 0).any(axis=0) & (at_corners < 0).any(axis=0)]:
                pieces = [part for piece in pieces for part in _cut(piece, line)]
            for piece in pieces:
                centre = piece.mean(axis=0)
                on = rows[:, :2] @ centre + rows[:, 2] > 0
                after.append((piece, rows * on[:, None]))
        cells = after
    return len(cells)


def _cut(polygon: np.ndarray, line: np.ndarray) -> list[np.ndarray]:
    z = polygon @ line[:2] + line[2]
    if not ((z > 0).any() and (z < 0).any()):
        return [polygon]
    parts: list[list[np.ndarray]] = [[], []]
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        for part, sign in zip(parts, (1, -1), strict=True):
            if sign * z[i] >= 0:
                part.append(polygon[i])
            if z[i] * z[j] < 0:
                part.append(polygon[i] + z[i] / (z[i] - z[j]) * (polygon[j] - polygon[i]))
    return [np.array(part) for part in parts]


def checkouts(folders: list[Path]) -> dict[str, Path]:
    """Folders by the name of the peer whose files they hold.

    Raises:
        SystemExit: One holds none, or two hold the same.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        names = [name for name, (files, _) in PEERS.items() if all((folder / file).is_file() for file in files)]
        if not names:
            known = " or ".join(f"{name} (with {', '.join(files)})" for name, (files, _) in PEERS.items())
            raise SystemExit(f"--peer must be a checkout of {known}; {folder} is not")
        if names[0] in found:
            raise SystemExit(f"--peer must be one checkout of {names[0]}; {found[names[0]]} and {folder} are two")
        found[names[0]] = folder
    return found


def least(run: Callable[[], Any], repeats: int, clock: harness.Clock) -> float:
    """The least time of the repeats."""
    return min(clock(run) for _ in range(repeats))


def record(
    name: str, model: torch.nn.Module, plane: np.ndarray, corners: np.ndarray, repeats: int, folders: dict[str, Path]
) -> dict[str, Any]:
    """Everything about one network."""
    harness.progress(f"{name}: engine")
    inputs = len(plane)
    start = time.perf_counter()
    stages = stages_of(plr.capture(model, torch.zeros(2, inputs)))
    engine = Engine(stages, plane, corners)
    setup = time.perf_counter() - start
    counted = engine.enumerate(cells=False)
    cells = engine.enumerate(cells=True)
    again = engine.enumerate(cells=False, fold_ahead=0)
    for other in (cells, again):
        if other.regions != counted.regions:
            raise SystemExit(f"{name}: {counted.regions} regions counted, {other.regions} another way")
    regions = counted.n_regions
    seconds = {
        "counted": least(lambda: engine.enumerate(cells=False), repeats, harness.cpu_seconds),
        "cells": least(lambda: engine.enumerate(cells=True), repeats, harness.cpu_seconds),
        "without_refolding": least(lambda: engine.enumerate(cells=False, fold_ahead=0), 1, harness.cpu_seconds),
    }
    for what in (False, True):
        for threads, name_of in ((1, "one_thread_wall"), (2, "two_threads_wall")):
            run = functools.partial(engine.enumerate, cells=what, threads=threads)
            seconds[name_of + "_cells" * what] = least(run, repeats, harness.wall_seconds)
    network = plr.capture(model, torch.zeros(2, inputs))
    origin, u, v = (torch.from_numpy(np.ascontiguousarray(plane[:, column])) for column in (2, 0, 1))
    slice_ = plr.Slice(origin, u, v, corners)
    partition = plr.partition(network, slice_, threads=1)
    if partition.n_regions != regions:
        raise SystemExit(f"{name}: {partition.n_regions} regions in the partition, {regions} counted")
    seconds["partition"] = least(
        lambda: plr.partition(network, slice_, threads=1), min(repeats, 3), harness.cpu_seconds
    )
    plain = None
    if regions <= 100_000:
        harness.progress(f"{name}: plain splitting")
        start = time.process_time()
        plain_regions = plain_splitting(stages, plane, corners)
        seconds["plain"] = time.process_time() - start
        plain = plain_regions
    peers = {}
    if regions <= 25_000:
        for peer, folder in folders.items():
            harness.progress(f"{name}: {peer}")
            peers[peer] = PEERS[peer][1](folder, stages, plane, corners)
    return {
        "network": name,
        "regions": regions,
        "regions_per_stage": counted.regions,
        "setup_seconds": setup,
        "bytes_per_region": size_of(partition) / regions,
        "seconds": seconds,
        "plain_regions": plain,
        "peers": peers,
        "decisions": {key: getattr(counted, key) for key in ("filter", "exact", "zeros", "folds")},
    }


def size_of(partition: plr.Partition) -> int:
    """Bytes of its arrays."""
    values = (getattr(partition.cells, field.name) for field in dataclasses.fields(partition.cells))
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


def by_instruction_set(name: str, repeats: int, smoke: bool) -> list[dict[str, Any]]:
    """The engine's time on one network with each instruction set that this machine has."""
    model, plane, corners = cases(smoke)[name]
    engine = Engine(stages_of(plr.capture(model, torch.zeros(2, len(plane)))), plane, corners)
    found = []
    for simd in simd_sets():
        harness.progress(f"{name}: {simd}")
        with use_simd(simd):
            seconds = [
                least(functools.partial(engine.enumerate, cells=cells), repeats, harness.cpu_seconds)
                for cells in (False, True)
            ]
        found.append({"network": name, "simd": simd, "counted": seconds[0], "cells": seconds[1]})
    return found


def instruction_table(found: list[dict[str, Any]]) -> str:
    """A row for each instruction set."""
    first = found[0]
    rows = [
        [each["network"], each["simd"]]
        + [f"{1e3 * each[kind]:.1f} ({each[kind] / first[kind]:.2f}x)" for kind in ("counted", "cells")]
        for each in found
    ]
    return markdown(["network", "instruction set", "counted, ms", "with cells, ms"], rows)


def growth(repeats: int) -> list[dict[str, Any]]:
    """The engine's time as width, depth and the slice grow, everything else fixed."""
    shapes = {f"width {width}": ((2, width, width, width, 1), 1.0) for width in (32, 64, 128, 256, 512, 1024)}
    shapes |= {f"depth {depth}": ((2, *[128] * depth, 1), 1.0) for depth in (1, 2, 3, 4, 6, 8, 12)}
    shapes |= {f"side {side:g}": ((2, 256, 256, 256, 1), side) for side in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)}
    found = []
    for name, (shape, side) in shapes.items():
        harness.progress(name)
        engine = Engine(stages_of(plr.capture(generic(shape), torch.zeros(2, 2))), PLANE, side * SQUARE)
        answer = engine.enumerate(cells=False)
        seconds = least(lambda engine=engine: engine.enumerate(cells=False), repeats, harness.cpu_seconds)
        found.append({"what": name, "regions": answer.n_regions, "seconds": seconds, "folds": answer.folds})
    return found


def growth_table(found: list[dict[str, Any]]) -> str:
    """A row for each network."""
    rows = [
        [
            each["what"],
            str(each["regions"]),
            f"{1e3 * each['seconds']:.2f}",
            f"{1e9 * each['seconds'] / each['regions']:.0f}",
            f"{each['regions'] / max(1, each['folds']):.0f}",
        ]
        for each in found
    ]
    return markdown(["what grows", "regions", "counted, ms", "ns a region", "regions a fold"], rows)


def slower(other: dict[str, Any] | None, regions: int, seconds: float) -> str:
    """What the table says of another engine, beside ours with this many regions in this time."""
    if other is None or "error" in other:
        return other["error"] if other else "-"
    said = f"{other['seconds'] / seconds:.0f}x"
    if other.get("stand_in_share") is not None:
        said += f"; {other['stand_in_share']:.0%}"
    if other["regions"] != regions:
        said += f", found {other['regions']}"
    return f"{1e3 * other['seconds']:.0f} ({said})"


def table(records: list[dict[str, Any]]) -> str:
    """A row for each network."""
    rows = []
    for found in records:
        regions, seconds = found["regions"], found["seconds"]
        goals = GOALS.get(found["network"], (None, None))
        speeds = [
            f"{regions / seconds[kind] / 1e6:.2f}" + (f" ({goal:g})" if goal else "")
            for kind, goal in zip(("counted", "cells"), goals, strict=True)
        ]
        plain = {"regions": found["plain_regions"], "seconds": seconds["plain"]} if "plain" in seconds else None
        others = [plain, *(found["peers"].get(peer) for peer in PEERS)]
        beside = [slower(other, regions, seconds["cells"]) for other in others]
        threads = " / ".join(
            f"{seconds['one_thread_wall' + what] / seconds['two_threads_wall' + what]:.2f}" for what in ("", "_cells")
        )
        decisions = found["decisions"]
        share = f"{decisions['filter']} / {decisions['exact']} / {decisions['zeros']}"
        times = [f"{1e3 * seconds[kind]:.1f}" for kind in ("counted", "cells", "without_refolding")]
        times.append(
            f"{1e3 * seconds['partition']:.1f} ({seconds['partition'] / seconds['cells']:.2f}x, "
            f"{found['bytes_per_region']:.0f} bytes a region)"
        )
        rows.append([found["network"], str(regions), *times, *speeds, threads, *beside, share])
    header = [
        "network",
        "regions",
        "counted, ms",
        "with cells, ms",
        "without refolding, ms",
        "Partition, ms (of the engine's with cells)",
        "million/s counted (goal)",
    ]
    header += [
        "million/s with cells (goal)",
        "two threads: counted / with cells",
        "plain splitting, ms (slower than with cells)",
    ]
    stand_in = any(found["peers"].get("SplineCam", {}).get("stand_in_share") is not None for found in records)
    header += [
        "edge subdivision, ms (the same)",
        "SplineCam (stand-in for graph-tool), ms (the same; share of the stand-in)"
        if stand_in
        else "SplineCam, ms (the same)",
    ]
    return markdown([*header, "decisions: filter / exact / ties"], rows)


def main(given: list[str] | None = None) -> int:
    parser = harness.parser(__doc__, "the engine")
    parser.add_argument(
        "--peer",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a checkout of relu_edge_subdivision or splinecam; may be given for each",
    )
    chosen = parser.parse_args(given)
    folders = checkouts(chosen.peer)
    harness.one_thread()
    repeats = 1 if chosen.smoke else chosen.repeats
    records = [record(name, *case, repeats, folders) for name, case in cases(chosen.smoke).items()]
    print(f"\n{table(records)}")
    simd = by_instruction_set("2-16x2-1" if chosen.smoke else "2-256x3-1", repeats, chosen.smoke)
    print(f"\n{instruction_table(simd)}")
    grown = [] if chosen.smoke else growth(min(repeats, 3))
    print(f"\n{growth_table(grown)}")
    harness.write({"partitions": records, "instruction_sets": simd, "growth": grown}, chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
