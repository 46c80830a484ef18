"""The command line: ``pylinregion count``, ``explain``, ``doctor``, ``demo`` and ``grok``.

Pickles are refused: a model comes as a ``torch.export`` archive without pickled parts, or as a factory in Python code
with its weights in a safetensors file; points come as a plain ``.npy`` array.

Exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import logging
import math
import operator
import os
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from pylinregion import doctor, grok
from pylinregion._checks import FLOATS
from pylinregion.capture import capture
from pylinregion.count import METHODS, count_regions
from pylinregion.counts import Mean, RegionCounts
from pylinregion.errors import PylinregionError
from pylinregion.explain import explain
from pylinregion.network import Network, first_tensor
from pylinregion.versions import versions

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
_WHY_NO_PICKLE = "a pickle, and loading one runs whatever code is in it"
_NUMPY_MAGIC = b"\x93NUMPY"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments without the program's name; None: those of the process.

    Returns:
        The exit code, see the module.

    Raises:
        SystemExit: Wrong usage (2), or ``--help`` and ``--version`` (0).
    """
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "±" shows "?" instead of an error
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("pylinregion: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has left: say nothing, also when Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PylinregionError, ValueError, TypeError, OSError, ImportError, torch.OutOfMemoryError) as error:
        print(f"pylinregion: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pylinregion", description="Count the linear regions of ReLU networks around data (local complexity)."
    )
    parser.add_argument("--version", action="version", version=f"pylinregion {versions()['pylinregion']}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_count(commands.add_parser("count", help="count around the points of a file"))
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
    parser.add_argument("points", metavar="POINTS.npy", help="array [B, *input_shape], cast to the model's dtype")
    parser.add_argument("--radius", metavar="R", type=float, required=True, help="Euclidean, in the points' units")
    parser.add_argument("--method", choices=METHODS, default="vertices", help="default %(default)s; others are exact")
    parser.add_argument("--directions", metavar="P", type=int, help="orthonormal directions (default 25; slice: 2)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="seed of the directions (default 0)")
    parser.add_argument("--layers", metavar="NAME,...", help="layers to count, as explain names them (default all)")
    parser.add_argument("--dtype", choices=_DTYPES, help="dtype to compute in (default: the model's)")
    parser.add_argument("--include-output", action="store_true", help="count the output's sign changes as a layer")
    parser.add_argument("--estimate-ambiguous", action="store_true", help="estimate the signs that rounding may decide")
    parser.add_argument("--batch-size", metavar="N", type=int, help="points per batch (default: sized for the cache)")
    parser.add_argument("--progress", action="store_true", help="show a bar")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write all counts to this file")
    parser.set_defaults(run=_count, parser=parser)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.description = "List every kink with its module, units and source line, or say why a model cannot be counted."
    _add_model(parser)
    parser.add_argument("points", metavar="POINTS.npy", nargs="?", help="array [B, *input_shape]")
    parser.add_argument(
        "--shape", metavar="N,...", type=_shape, help="input shape, such as 3,32,32 (default: that of the archive)"
    )
    parser.set_defaults(run=_explain, parser=parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a ReLU network on scikit-learn's digits from a large initialisation and watch local complexity at "
        "training, test and random points while it memorises first and generalises later."
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("pylinregion-demo"), help="default %(default)s")
    parser.add_argument("--steps", metavar="N", type=int, help="optimisation steps (default: the whole course)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="seed of everything (default 0)")
    parser.add_argument("--quick", action="store_true", help="a few steps only, to try the installation")
    parser.set_defaults(run=_demo, parser=parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="MODEL.pt2, an archive of torch.export.save with a dynamic batch dimension; or package.module:factory, a "
        "callable without arguments that returns an nn.Module (the current directory is importable). Both can run "
        "code: load only what you trust",
    )
    parser.add_argument("--weights", metavar="FILE.safetensors", help="weights to load into the factory's module")
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:N (default cpu)")


def _shape(text: str) -> tuple[int, ...]:
    """``"3,32,32"`` as numbers; an error of argparse if it is none."""
    sizes = text.split(",")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"must be sizes such as 3,32,32, got {text!r}")
    return tuple(map(int, sizes))


# Commands


def _count(args: argparse.Namespace) -> int:
    device = doctor.named_device(args.device)
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise FileNotFoundError(f"--json: there is no folder {args.json.parent}")  # before the work, not after
    loaded = _load_model(args, device)
    x = _load_points(args.points, loaded).to(device)
    network = capture(loaded.model, x)
    counts = count_regions(
        network,
        x,
        args.radius,
        args.method,
        n_directions=args.directions,
        seed=args.seed,
        layers=args.layers.split(",") if args.layers else None,
        include_output=args.include_output,
        estimate_ambiguous=args.estimate_ambiguous,
        dtype=_DTYPES.get(args.dtype),
        batch_size=args.batch_size,
        progress=args.progress,
    )
    inputs = {
        "model": args.model,
        "weights": args.weights,
        "points": args.points,
        "shape": list(x.shape),
        "radius": args.radius,
        "directions": args.directions or (2 if args.method == "slice" else 25),
        "seed": args.seed,
        "dtype": args.dtype or _name(x.dtype),
        "device": str(device),
        "versions": versions(),
    }
    print(_summary(counts, network, inputs))
    if args.json is not None:
        document = counts.to_dict()
        document["mean"] = {key: value if math.isfinite(value) else None for key, value in document["mean"].items()}
        args.json.write_text(json.dumps({**document, "inputs": inputs}, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _explain(args: argparse.Namespace) -> int:
    if args.points is not None and args.shape is not None:
        _wrong_usage(args, "give POINTS.npy or --shape, not both")
    loaded = _load_model(args, doctor.named_device(args.device))
    if args.points is not None:
        example = _load_points(args.points, loaded)
    else:
        shape = args.shape or _fixed(loaded.input_shape)
        if shape is None:
            _wrong_usage(args, "the input's shape is not known: give --shape, such as --shape 3,32,32, or POINTS.npy")
        _check_shape("--shape", shape, loaded)
        example = torch.zeros(0, *shape, dtype=loaded.dtype or torch.float32)
    print(explain(loaded.model, example.to(doctor.named_device(args.device))))
    return 0


def _wrong_usage(args: argparse.Namespace, text: str) -> NoReturn:
    parser: argparse.ArgumentParser = args.parser
    parser.error(text)


def _demo(args: argparse.Namespace) -> int:
    from pylinregion import demo  # its packages are optional

    settings = demo.QUICK if args.quick else demo.Settings()
    demo.run(args.out, settings.changed(seed=args.seed, steps=args.steps))
    return 0


# What comes in


@dataclass(frozen=True)
class _Loaded:
    """A model with what is known of its input: dtype (None: any) and the shape of a point (None: not known, or any)."""

    model: nn.Module | torch.export.ExportedProgram
    dtype: torch.dtype | None
    input_shape: tuple[int | None, ...] | None


def _load_model(args: argparse.Namespace, device: torch.device) -> _Loaded:
    name: str = args.model
    suffix = Path(name).suffix.lower()
    if suffix in _PICKLES:
        raise ValueError(
            f"{name} is {_WHY_NO_PICKLE}: give a .pt2 archive (torch.export.save), or the code as "
            "package.module:factory with --weights FILE.safetensors"
        )
    if suffix == ".pt2":
        if args.weights is not None:
            _wrong_usage(args, "--weights goes with package.module:factory; a .pt2 archive has its own")
        return _load_archive(Path(name), device)
    if not all(name.partition(":")):
        raise ValueError(f"MODEL must be a .pt2 archive or package.module:factory, got {name!r}")
    module = _make_module(name)
    if args.weights is not None:
        _load_weights(module, args.weights)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    return _Loaded(module.to(device), dtype, None)


def _load_archive(path: Path, device: torch.device) -> _Loaded:
    """Load a program, refusing what is pickled in it; an archive that torch cannot load is a ``ValueError``."""
    _refuse_pickled_parts(path)
    with _weights_only(), _silent():
        try:
            program = torch.export.load(path)
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, str(device))
        except Exception as error:  # torch fails in many ways on a bad archive
            raise ValueError(f"{path}: torch.export.load raised {type(error).__name__}: {_one_line(error)}") from error
    inputs = program.graph_signature.user_inputs
    found = next((n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in inputs), None)
    if not isinstance(found, Tensor) or found.dim() < 1:
        return _Loaded(program, None, None)
    shape = tuple(size if isinstance(size, int) else None for size in found.shape[1:])
    return _Loaded(program, found.dtype, shape)


def _refuse_pickled_parts(path: Path) -> None:
    """Say so if a file is no archive of ``torch.export.save``, or if it is one with pickled objects."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no archive of torch.export.save (not a zip file)")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            raise ValueError(f"{path} is {_WHY_NO_PICKLE} (torch.save wrote it): use torch.export.save")
        if not any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
            raise ValueError(f"{path} is no archive of torch.export.save")
        if any("/data/aotinductor/" in name for name in names):
            raise ValueError(f"{path} has compiled code in it: give an archive of torch.export.save")
        configs = [name for name in names if name.endswith(("_weights_config.json", "_constants_config.json"))]
        for config in configs:
            for entry, meta in json.loads(archive.read(config))["config"].items():
                if meta["use_pickle"] or not meta["path_name"].startswith(("weight_", "tensor_")):
                    raise ValueError(f"{path}: its {entry!r} is {_WHY_NO_PICKLE}")


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let ``torch.load`` make tensors and nothing else, wherever torch calls it."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without warnings and logs about torch's internals; what goes wrong is in our error."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _make_module(name: str) -> nn.Module:
    """Import ``package.module:factory``, the current directory first, and call the factory."""
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = operator.attrgetter(attribute)(importlib.import_module(module_name))
        model = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"{name}: {type(error).__name__}{_place(error)}: {_one_line(error)}") from error
    if model is factory or not isinstance(model, nn.Module):
        expected = "a callable without arguments that returns an nn.Module"
        raise TypeError(f"{name} must be {expected}, got {type(model).__name__}")
    return model


def _place(error: Exception) -> str:
    """The innermost line of the user's code that an error passed through, in words; "" if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        ours = frame.filename in (__file__, importlib.__file__) or frame.filename.startswith("<frozen importlib")
        if not ours and Path(torch.__file__).parent not in file.parents:
            return f" at {file.name}:{frame.lineno}"
    return ""


def _load_weights(module: nn.Module, path: str) -> None:
    """Load a safetensors file; a module of lesser precision than the file is converted, so that nothing is rounded."""
    if Path(path).suffix.lower() in _PICKLES:
        raise ValueError(f"--weights: {path} is {_WHY_NO_PICKLE}: give a .safetensors file")
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_model
    except ModuleNotFoundError as error:
        raise _missing("--weights", error, "safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            dtypes = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118 (it is no dict)
        _widen(module, dtypes)
        load_model(module, path)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"--weights {path}: {_one_line(error)}") from error


def _widen(module: nn.Module, dtypes: set[torch.dtype]) -> None:
    own = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    wide = None
    for dtype in own | {dtype for dtype in dtypes if dtype.is_floating_point}:
        wide = dtype if wide is None else torch.promote_types(wide, dtype)
    if wide is not None and own and own != {wide}:
        module.to(wide)
        _note(f"the weights are {_name(wide)}, the factory's module is not: converted the module")


def _load_points(path: str, loaded: _Loaded) -> Tensor:
    """``[B, *input_shape]`` of the model's dtype, on the CPU."""
    with Path(path).open("rb") as file:
        magic = file.read(len(_NUMPY_MAGIC))
    if magic != _NUMPY_MAGIC:
        raise ValueError(f"{path} is no .npy array: write one with numpy.save")
    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error):
            why = f"{path} holds Python objects; it is {_WHY_NO_PICKLE}: save an array of numbers"
        else:
            why = f"{path}: {_one_line(error)}"
        raise ValueError(why) from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{path} must hold real numbers, got {array.dtype}")
    _check_shape(path, array.shape[1:], loaded)
    wanted = loaded.dtype or (torch.float64 if array.dtype == np.float64 else torch.float32)
    if array.dtype.name != _name(wanted):
        _note(f"{path} is {array.dtype.name}, the model takes {_name(wanted)}: converted the points")
    known = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    native = array.astype(array.dtype.newbyteorder("=") if known else np.float64)
    return torch.from_numpy(native).to(wanted)


def _fixed(shape: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """A shape if all of it is known, else None."""
    sizes = [size for size in shape or () if size is not None]
    return None if shape is None or len(sizes) < len(shape) else tuple(sizes)


def _check_shape(what: str, shape: Sequence[int], loaded: _Loaded) -> None:
    """The shape of a point against that of an archive."""
    expected = loaded.input_shape
    if expected is None:
        return
    if len(shape) != len(expected) or any(b not in (a, None) for a, b in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        found = ", ".join(map(str, shape))
        raise ValueError(f"{what} must be points [B, {wanted}], as the model was exported, got [B, {found}]")


def _missing(what: str, error: ModuleNotFoundError, extra: str) -> ImportError:
    return ImportError(f'{what} needs {error.name}, which is not installed: pip install "pylinregion[{extra}]"')


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


def _layer_table(counts: RegionCounts, network: Network) -> list[str]:
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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _note(text: str) -> None:
    print(f"pylinregion: note: {text}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
