"""The command line: ``pylinregion count``, ``partition``, ``explain``, ``doctor``, ``demo`` and ``grok``.

No file runs code: a model comes as a ``torch.export`` archive, which is checked before torch sees it unless it is
trusted, or as a factory in Python code with its weights in a safetensors file; points come as a plain ``.npy`` array or
in a safetensors file.

Exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pylinregion._util.checks import FLOATS
from pylinregion._util.errors import PylinregionError
from pylinregion._util.versions import versions
from pylinregion._util.whole_files import check_replaceable, replace_file, save_figure
from pylinregion.capturing.capture import capture
from pylinregion.capturing.tracing import EXAMPLE_ROWS
from pylinregion.cli import demo, doctor, grok
from pylinregion.cli.load_model import (
    Loaded,
    WrongUsage,
    blaming,
    check_memory,
    check_shape,
    dtype_name,
    fixed,
    load_model,
    one_line,
)
from pylinregion.cli.load_points import Rows, load_points
from pylinregion.counting.count import count_regions
from pylinregion.counting.counts import Mean, RegionCounts
from pylinregion.counting.explain import explain
from pylinregion.counting.request import METHODS
from pylinregion.geometry.frames import default_directions
from pylinregion.geometry.slice import Slice
from pylinregion.graph.network import Network, first_tensor
from pylinregion.native.devices import named_device
from pylinregion.regions.enumeration import partition
from pylinregion.regions.plot import check_format
from pylinregion.sharding.launch import processes
from pylinregion.sharding.sharded_counts import ShardedCounts, count_in_shards
from pylinregion.sharding.sharded_partition import partition_in_shards

_FILE = "FILE.npy, FILE.safetensors, or FILE.safetensors:NAME for one of several tensors:"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments without the program's name; None: those of the process.

    Returns:
        The exit code, see the module.

    Raises:
        SystemExit: Wrong usage (2), or ``--help`` and ``--version`` (0).
    """
    if sys.stderr is None:  # closed by the shell
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
            return main(argv)
    try:
        if sys.stdout is None:
            raise OSError("standard output is closed")
        try:
            code = _run(_parser().parse_args(argv))
        finally:
            sys.stdout.flush()  # here, where a failure can still be told
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except BrokenPipeError:  # the reader of a pipe has left: say nothing
        code = 1
    except _ERRORS as error:
        _tell(f"error: {one_line(error)}")
        code = 1
    _empty_output()
    return code


_ERRORS = (PylinregionError, ValueError, TypeError, OSError, ImportError, ArithmeticError, MemoryError, RuntimeError)


def _run(args: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "±" shows "?" instead of an error
    try:
        code: int = args.run(args)
    except WrongUsage as error:
        args.parser.error(str(error))
    except SystemExit as end:  # in a model's code: it is no result of ours
        raise RuntimeError(f"the model's code ended the program (SystemExit: {end.code})") from None
    return code


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"pylinregion: {text}", file=sys.stderr)


def _empty_output() -> None:
    """Where output cannot be written, give it up, so that Python does not try once more at exit and fail."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Fail where the message cannot be written; argparse's own is silent then, and the exit code 0."""
        print(message, end="", file=file or sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pylinregion", description="Count the linear regions of ReLU networks around data (local complexity)."
    )
    parser.add_argument("--version", action="version", version=f"pylinregion {versions()['pylinregion']}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_count(commands.add_parser("count", help="count around the points of a file"))
    _add_partition(commands.add_parser("partition", help="find the exact regions on the slice through three points"))
    _add_explain(commands.add_parser("explain", help="say what would be counted in a model, and by which methods"))
    command = commands.add_parser("doctor", help="report versions, kernels and devices, and try each device")
    command.set_defaults(run=lambda args: doctor.report())
    grok.add_arguments(commands.add_parser("grok", help="rerun an experiment of the papers on grokking"))
    _add_demo(commands.add_parser("demo", help="train a small network, count meanwhile, and draw the paper's figure"))
    return parser


def _add_count(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Local complexity: around each point x, how many neurons change their activation among the vertices "
        "x ± R v_1, ..., x ± R v_P of a cross-polytope with random orthonormal directions v_p (--method vertices), "
        "anywhere on the axes to these vertices (axes), or on the slice of two of them (slice), and the regions there."
    )
    _add_model(parser)
    parser.add_argument("points", metavar="POINTS", help=f"{_FILE} [B, *input_shape], cast to the model's dtype")
    parser.add_argument("--radius", metavar="R", type=float, required=True, help="Euclidean, in the points' units")
    parser.add_argument("--method", choices=METHODS, default="vertices", help="default %(default)s; others are exact")
    parser.add_argument(
        "--directions", metavar="P", type=int, help="orthonormal directions (default 25, or all of fewer; slice: 2)"
    )
    parser.add_argument("--seed", metavar="S", type=_seed, default=0, help="seed of the directions (default 0)")
    parser.add_argument("--layers", metavar="NAME,...", help="layers to count, as explain names them (default all)")
    parser.add_argument("--dtype", choices=_DTYPES, help="dtype to compute in (default: the model's)")
    parser.add_argument("--include-output", action="store_true", help="count the output's sign changes as a layer")
    parser.add_argument("--estimate-ambiguous", action="store_true", help="estimate the signs that rounding may decide")
    parser.add_argument("--batch-size", metavar="N", type=int, help="points per batch (default: sized for the cache)")
    parser.add_argument("--progress", action="store_true", help="show a bar")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write all counts to this file")
    parser.add_argument("--shard-size", metavar="N", type=int, default=10_000, help="points in a shard (10000)")
    _add_shards(parser)
    parser.set_defaults(run=_count, parser=parser)


def _add_partition(parser: argparse.ArgumentParser) -> None:
    parser.description = "The exact regions of a network on the slice through three inputs."
    _add_model(parser)
    parser.add_argument("points", metavar="POINTS", help=f"{_FILE} [3, *input_shape]")
    parser.add_argument("--margin", metavar="M", type=float, default=0.1, help="of the slice around them (default 0.1)")
    parser.add_argument("--layers", metavar="NAME,...", help="the first layers alone (default all)")
    parser.add_argument("--count-only", action="store_true", help="no cells: faster, in little memory")
    parser.add_argument("--out", metavar="FILE.npz", type=Path, help="save the partition; pylinregion.load reads it")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw it")
    parser.add_argument("--parts", metavar="N", type=int, default=64, help="shards that the slice is cut into (64)")
    parser.add_argument("--progress", action="store_true", help="show a bar")
    _add_shards(parser)
    parser.set_defaults(run=_partition, parser=parser)


def _add_shards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shards",
        metavar="DIR",
        type=Path,
        help="work shard by shard, each a file in this folder as soon as it is done; the same command goes on from "
        "there, and with torchrun --nproc-per-node=N -m pylinregion ... N processes share the work",
    )


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.description = "List every kink with its module, units and source line, or say why a model cannot be counted."
    _add_model(parser)
    parser.add_argument("points", metavar="POINTS", nargs="?", help=f"{_FILE} [B, *input_shape]")
    parser.add_argument(
        "--shape", metavar="N,...", type=_shape, help="input shape, such as 3,32,32 (default: that of the archive)"
    )
    parser.add_argument(
        "--radius", type=float, metavar="R", help="also say what an exact count around POINTS would take (seconds)"
    )
    parser.set_defaults(run=_explain, parser=parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a ReLU network on scikit-learn's digits from a large initialisation and watch local complexity at "
        "training, test and random points while it memorises first and generalises later."
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("pylinregion-demo"), help="default %(default)s")
    parser.add_argument("--steps", metavar="N", type=int, help="optimisation steps (default: the whole course)")
    parser.add_argument("--seed", metavar="S", type=_seed, default=0, help="seed of everything (default 0)")
    parser.add_argument("--quick", action="store_true", help="a few steps only, to try the installation")
    parser.set_defaults(run=demo.demo)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="MODEL.pt2, an archive of torch.export.save with a dynamic batch dimension; or package.module:factory, a "
        "callable without arguments that returns an nn.Module: its code is run (the current directory is importable)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="load MODEL.pt2 as torch does: unchecked, which runs whatever is in it"
    )
    parser.add_argument("--weights", metavar="FILE.safetensors", help="weights to load into the factory's module")
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:N (default cpu)")


def _seed(text: str) -> int:
    """A number of 64 bits; an error of argparse if it is none."""
    if not -(2**63) <= (seed := int(text)) < 2**63:
        raise argparse.ArgumentTypeError(f"must be an integer of 64 bits, got {text}")
    return seed


def _shape(text: str) -> tuple[int, ...]:
    """``"3,32,32"`` as numbers; an error of argparse if it is none."""
    sizes = text.split(",")
    if not all(size.isascii() and size.isdecimal() and 0 < int(size) < 2**63 for size in sizes):
        raise argparse.ArgumentTypeError(f"must be sizes such as 3,32,32, got {text!r}")
    return tuple(map(int, sizes))


# Commands


def _count(args: argparse.Namespace) -> int:
    device = named_device(args.device, "--device")
    _check_written_to("--json", args.json)
    loaded = load_model(args, device)
    options: dict[str, Any] = {
        "method": args.method,
        "n_directions": args.directions,
        "seed": args.seed,
        "layers": args.layers.split(",") if args.layers else None,
        "include_output": args.include_output,
        "estimate_ambiguous": args.estimate_ambiguous,
        "dtype": _DTYPES.get(args.dtype),
        "batch_size": args.batch_size,
    }
    if args.shards is not None:
        return _count_in_shards(args, device, loaded, options)
    x = load_points(args.points, loaded).to(device)
    with blaming(args.model):
        network = capture(loaded.model, x)
    counts = count_regions(network, x, args.radius, progress=args.progress, **options)
    inputs = {
        "model": args.model,
        "weights": args.weights,
        "points": args.points,
        "shape": list(x.shape),
        "radius": args.radius,
        "directions": args.directions or (2 if args.method == "slice" else default_directions(x.shape[1:])),
        "seed": args.seed,
        "dtype": args.dtype or dtype_name(x.dtype),
        "device": str(device),
        "versions": versions(),
    }
    print(_summary(counts, network, inputs))
    if args.json is not None:
        document = counts.to_dict()
        document["mean"] = {key: value if math.isfinite(value) else None for key, value in document["mean"].items()}
        text = json.dumps({**document, "inputs": inputs}, allow_nan=False) + "\n"
        sys.stdout.flush()  # the file may be where that goes, too
        replace_file(args.json, lambda file: file.write(text.encode()))
    return 0


def _count_in_shards(args: argparse.Namespace, device: torch.device, loaded: Loaded, options: dict[str, Any]) -> int:
    if args.json is not None:
        raise WrongUsage("--json goes without --shards: the counts are in the shards")
    with processes(device) as (rank, own):
        rows = Rows(args.points, loaded)
        model = loaded.model.to(own) if isinstance(loaded.model, nn.Module) else loaded.model
        counts = count_in_shards(
            model,
            rows,
            args.radius,
            args.shards,
            shard_size=args.shard_size,
            device=own,
            progress=args.progress,
            **options,
        )
        if rank == 0:
            network = capture(model, rows[slice(0, 1)].to(own))
            mean = counts.mean()
            print(f"{args.model}: {counts.points} points in {counts.shards.count} shards in {args.shards}\n")
            print(f"local complexity {_number(mean.mean)}, 99 % interval {_interval(mean)}\n")
            print("\n".join([*_layer_table(counts, network), "", counts.definition]))
    return 0


def _partition(args: argparse.Namespace) -> int:
    for name, path in (("--out", args.out), ("--plot", args.plot)):
        _check_written_to(name, path)
        if path is not None and args.count_only:
            raise WrongUsage(f"{name} goes without --count-only: there are no cells")
    if args.plot is not None:
        check_format(args.plot)
    loaded = load_model(args, named_device(args.device, "--device"))
    rows = Rows(args.points, loaded)
    if rows.shape[0] != 3:
        raise ValueError(f"{args.points} must hold three points [3, *input_shape], got {list(rows.shape)}")
    a, b, c = rows[slice(0, 3)]
    where = Slice.through(a, b, c, margin=args.margin)
    options: dict[str, Any] = {
        "cells": not args.count_only,
        "layers": args.layers.split(",") if args.layers else None,
        "progress": args.progress,
    }
    with processes(torch.device("cpu")) if args.shards else contextlib.nullcontext():
        if args.shards:
            part = partition_in_shards(loaded.model, where, args.shards, parts=args.parts, **options)
        else:
            part = partition(loaded.model, where, **options)
        if part is not None:
            print(part)
            sys.stdout.flush()
            if args.out is not None:
                part.save(args.out)
            if args.plot is not None:
                save_figure(part.plot().figure, args.plot, 200)
    return 0


def _check_written_to(name: str, path: Path | None) -> None:
    """Say before the work, not after, that a file could not be written."""
    if path is not None and not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {path.parent}")
    if path is not None:
        check_replaceable(path)


def _explain(args: argparse.Namespace) -> int:
    if args.points is not None and args.shape is not None:
        raise WrongUsage("give POINTS or --shape, not both")
    if args.radius is not None and args.points is None:
        raise WrongUsage("--radius needs POINTS")
    loaded = load_model(args, named_device(args.device, "--device"))
    if args.points is not None:
        rows = Rows(args.points, loaded)
        example = rows[slice(0, rows.shape[0] if args.radius is not None else min(rows.shape[0], EXAMPLE_ROWS))]
    else:
        shape = args.shape or fixed(loaded.input_shape)
        if shape is None:
            raise WrongUsage("the input's shape is not known: give --shape, such as --shape 3,32,32, or POINTS")
        check_shape("--shape", shape, loaded)
        check_memory("--shape: a few points", EXAMPLE_ROWS * math.prod(shape) * torch.finfo(torch.float64).bits // 8)
        example = torch.zeros(0, *shape, dtype=loaded.dtype or torch.float32)
    with blaming(args.model):
        explanation = explain(loaded.model, example.to(named_device(args.device, "--device")), args.radius)
    print(explanation)
    return 0


# What goes out


def _summary(counts: RegionCounts, network: Network, inputs: dict[str, Any]) -> str:
    """The counts for reading: the mean, a table of the layers, and the definition."""
    points, *shape = inputs["shape"]
    given = (
        f"{points} point{'s' * (points != 1)} of shape {shape}, radius {inputs['radius']:g}, "
        f"{inputs['directions']} directions (seed {inputs['seed']}), {inputs['dtype']} on {inputs['device']}"
    )
    mean = counts.mean()
    lines = [
        f"{inputs['model']}: {given}",
        "",
        f"local complexity {_number(mean.mean)}" + f", 99 % interval {_interval(mean)}" * (points > 1),
    ]
    if points:
        regions = float(counts.regions.double().mean())
        lines.append(f"regions met {_number(regions)} on average, {int(counts.regions.max())} at most")
    if counts.ambiguous is not None:
        how = "estimate" if counts.method == "vertices" else "proven"
        lines.append(f"signs that rounding may have decided: {int(counts.ambiguous.sum())} ({how})")
    return "\n".join([*lines, "", *_layer_table(counts, network), "", counts.definition])


def _layer_table(counts: RegionCounts | ShardedCounts, network: Network) -> list[str]:
    known = {layer.name: (layer.op_name, layer.units) for layer in network.layers}
    known["output"] = ("output", first_tensor(network.nodes, network.outputs[0]).units)
    rows = [("layer", "op", "neurons", "changes", "99 % interval")]
    for name in counts.layers:
        op, units = known[name]
        mean = counts.mean(name)
        rows.append((name, op, str(units), _number(mean.mean), _interval(mean)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sides = (str.ljust, str.ljust, str.rjust, str.rjust, str.ljust)
    lines = ["  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in lines]


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _interval(mean: Mean) -> str:
    return "-" if math.isnan(mean.low) else f"[{_number(mean.low)}, {_number(mean.high)}]"
