"""``pylinregion demo``: local complexity while a network memorises first and generalises later.

A ReLU MLP with an initialisation that is far too large learns a few of scikit-learn's digits. It fits them soon, and
classifies others well only much later, when weight decay has shrunk its weights (Liu, Michaud, Tegmark, "Omnigrok",
arXiv 2210.01117). Meanwhile local complexity is taken at training, test and random points, as in figure 7 of Humayun,
Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why" (arXiv 2402.15555): it rises, then falls for good,
as the regions leave the data for the decision boundary. It is one of :mod:`pylinregion.experiments`, told in a table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from pylinregion._util.locks import held
from pylinregion._util.optional import optional
from pylinregion._util.whole_files import read_object
from pylinregion.caller.torch_settings import one_thread
from pylinregion.cli.grok import files_of, run_shown
from pylinregion.experiments.config import Config, changed, to_dict
from pylinregion.experiments.folder import Folder
from pylinregion.experiments.presets import preset
from pylinregion.experiments.reading import sentences
from pylinregion.experiments.report import title
from pylinregion.monitor.sinks import JSONLines, Record

DEMO = changed(
    preset("mnist-mlp-scaled-small"),
    {"name": "demo", "measuring": {"quantities": ["accuracy", "local_complexity"], "include_output": False}},
)
QUICK = changed(DEMO, {"training.steps": 60, "measuring": {"records": 8, "points": 100}})

_POINTS = ("train", "test", "random")
_LEGEND = "LC: the neurons that change within the radius of a point, in the mean; ± half of the 99 % interval"
_HEAD = "  ".join(["  step", "train acc", "test acc", *(f"LC {name}".rjust(14) for name in _POINTS)])


def demo(args: argparse.Namespace) -> int:
    """Run it with the arguments of the command line.

    Returns:
        The exit code.
    """
    changes = {"seed": args.seed} | ({} if args.steps is None else {"training.steps": args.steps})
    run_demo(changed(QUICK if args.quick else DEMO, changes), args.out)
    return 0


def run_demo(config: Config, out: Path) -> None:
    """Train, measure and print the table and what it says; the folder gets the files of a run, anew if it has them.

    Args:
        config: The experiment.
        out: The folder; made if need be.

    Raises:
        ModuleNotFoundError: matplotlib or scikit-learn is not installed.
        FileExistsError: There is a run in the folder that is no demo.
        PylinregionError: Another process runs in the folder.
    """
    for name in ("matplotlib", "sklearn"):
        optional(name, "the demo", "demo")  # before the work, not after
    _forget(Folder(out))
    start = time.perf_counter()
    print(f"{title(to_dict(config))}\n{_LEGEND}\n\n{_HEAD}\n{'-' * len(_HEAD)}", flush=True)
    with one_thread():  # matrices this small lose by being shared among threads
        folder = run_shown(config, out, table_row)
    said = "\n".join(sentences(JSONLines.read(folder.records)))
    print(f"\n{said}\n\n{files_of(folder)}\n{time.perf_counter() - start:.0f} seconds")


def _forget(folder: Folder) -> None:
    """Make room where an earlier demo is."""
    if folder.config.exists():
        with held(folder.path):
            if read_object(folder.config).get("name") == DEMO.name:
                folder.config.unlink()


def table_row(record: Record) -> str:
    """One line below the head of the table: accuracies in percent, local complexity with half its 99 % interval."""
    train, test = 100 * record["train/accuracy"], 100 * record["test/accuracy"]
    cells = [f"{record['step']:6.0f}", f"{train:7.1f} %", f"{test:6.1f} %"]
    for name in _POINTS:
        mean, high = record[f"{name}/lc"], record[f"{name}/lc/high"]
        cells.append(f"{mean:6.2f} ± {high - mean:5.2f}")
    return "  ".join(cells)
