"""``pylinregion grok``: the papers' experiments from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pylinregion._util.whole_files import read_object
from pylinregion.experiments.config import Config, changed, completed, parse_setting
from pylinregion.experiments.folder import Folder
from pylinregion.experiments.presets import PRESETS, preset
from pylinregion.experiments.report import write_sweep
from pylinregion.experiments.runner import run
from pylinregion.monitor.sinks import Record
from pylinregion.native.devices import named_device


def grok(args: argparse.Namespace) -> int:
    """Run an experiment, or all runs of a sweep.

    Returns:
        The exit code.

    Raises:
        ValueError, TypeError: A setting is not as it must be.
        OSError: A file is missing or in the way.
        ImportError: A package is missing.
    """
    if args.list:
        width = max(map(len, PRESETS))
        for name, known in PRESETS.items():
            print(f"{name:<{width}}  {known.source}")
        return 0
    config, out = configure(args), args.out
    if out is None:
        out = Path("runs") / config.name
    if args.sweep is None:
        print(files_of(_run(config, out, args)))
        return 0
    key, runs = args.sweep[0], {}
    configs = {str(value): changed(config, {key: value}) for value in args.sweep[1]}  # all are checked before the first
    for value, each in configs.items():
        folder = out / f"{key}={value}"
        started = args.resume and (folder / "config.json").exists()
        print(f"{key} = {value}", flush=True)
        runs[value] = _run(each, folder, args, resume=started)
    write_sweep(out, config.name, key, runs)
    print(f"Figure: {out / 'sweep.png'}\nReport: {out / 'sweep.html'}")
    return 0


def configure(args: argparse.Namespace) -> Config:
    """The settings: those of the preset, then of the file, then of the command line.

    Without a name and a file, ``--resume`` takes those of the run.
    """
    given: dict[str, Any] = {}
    if args.config is not None:
        given = completed(read_object(args.config))
    elif args.resume and args.name is None and args.out is not None and args.sweep is None:
        given = completed(read_object(args.out / "config.json"))
    name = args.name or given.get("name")
    if name is None:
        raise ValueError("give the NAME of an experiment (see --list), or --config FILE")
    config = preset(name) if name in PRESETS or args.name else Config(name=name)
    settings = dict(args.set)
    if args.data is not None:
        settings["data.path"] = str(args.data)
    return changed(changed(config, {**given, "name": name}), settings)


def _run(config: Config, out: Path, args: argparse.Namespace, *, resume: bool | None = None) -> Folder:
    device = str(named_device(args.device, "--device"))
    return run_shown(config, out, _line, resume=args.resume if resume is None else resume, device=device)


def run_shown(config: Config, out: Path, line: Callable[[Record], str], **options: Any) -> Folder:
    """Run an experiment with a bar, and a line on stdout for each record.

    Args:
        config, out: The experiment and its folder.
        line: What to say of a record.
        options: Other arguments of :func:`pylinregion.experiments.run`.

    Returns:
        The folder.
    """
    with tqdm(total=config.training.steps, unit="step", disable=None, leave=False, file=sys.stderr) as bar:

        def show(record: Record) -> None:
            tqdm.write(line(record), file=sys.stdout)

        return run(config, out, on_record=show, on_step=bar.update, **options)


def _line(record: Record) -> str:
    """The record's main numbers."""
    parts = [f"step {int(record['step']):>7}"]
    for name in ("train", "test"):
        if f"{name}/accuracy" in record:
            parts.append(f"{name} {100 * record[f'{name}/accuracy']:5.1f} %")
    for name in ("train", "test", "random"):
        if f"{name}/lc" in record:
            parts.append(f"LC {name} {record[f'{name}/lc']:.4g}")
    return "  ".join(parts)


def files_of(folder: Folder) -> str:
    """Where the results of a run are."""
    return f"Figure: {folder.figure}\nReport: {folder.report}\nRecords: {folder.records}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.description = (
        "Run an experiment of the papers on grokking: train, measure at log-spaced steps, draw the figure, write a "
        "report. docs/experiments.md has all experiments and settings."
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the experiment, see --list")
    parser.add_argument("--list", action="store_true", help="list the experiments, with the papers' figures")
    parser.add_argument("--config", metavar="FILE", type=Path, help="JSON of settings, all or some")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        type=_setting,
        action="append",
        default=[],
        help="a setting, such as training.steps=1000; can be repeated",
    )
    parser.add_argument(
        "--sweep", metavar="KEY=A,B,...", type=_sweep, help="a run for each value, and a figure of them all"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the run (default runs/NAME)")
    parser.add_argument("--data", metavar="PATH", type=Path, help="folder or file with the data")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.set_defaults(run=grok)


def _setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``; an error of argparse if it is none."""
    try:
        return parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _sweep(text: str) -> tuple[str, list[Any]]:
    key, values = _setting(text)
    return key, values if isinstance(values, list) else [values]
