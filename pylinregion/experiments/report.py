"""A run on one page: what it was, its figure, what it shows. Made from the files of its folder alone."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from pylinregion._util.whole_files import read_object
from pylinregion.experiments.config import flat
from pylinregion.experiments.figures import draw_run, draw_sweep
from pylinregion.experiments.folder import Folder, write_atomically
from pylinregion.experiments.presets import PRESETS
from pylinregion.experiments.reading import sentences
from pylinregion.monitor.sinks import JSONLines

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: 13px; } td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; }
td { border-top: 1px solid #eee; } code { font-size: 13px; }
"""


def write_report(folder: Folder) -> None:
    """Draw ``figure.png`` and write ``report.html`` from config, environment and records.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    config = read_object(folder.config)
    surroundings = read_object(folder.environment)
    records = JSONLines.read(folder.records)
    figure = draw_run(records, title(config))
    write_atomically(folder.figure, figure)
    known = PRESETS.get(config["name"])
    parts = [
        f"<h1>{html.escape(config['name'])}</h1>",
        f"<p>{html.escape(title(config))}</p>",
        _image(figure, "accuracies and local complexity over steps"),
        "<h2>What this run shows</h2>",
        _list(sentences(records)),
    ]
    if known is not None:
        parts += [f"<h2>What the paper sees ({html.escape(known.source)})</h2>", f"<p>{html.escape(known.shows)}</p>"]
        if config["name"].endswith("-small"):
            parts.append(
                "<p>This is the small twin: other data, a smaller network and fewer steps than the paper's.</p>"
            )
    parts += ["<h2>Settings</h2>", _table(flat(config)), "<h2>Environment</h2>", _table(surroundings)]
    write_atomically(folder.report, _page(config["name"], parts).encode())


def write_sweep(folder: Path, name: str, key: str, runs: dict[str, Folder]) -> None:
    """Draw ``sweep.png`` and write ``sweep.html`` of the runs of a sweep, from their records.

    Args:
        folder: Where to.
        name: Of the experiment.
        key: What was swept.
        runs: The folders, by the value of ``key``.
    """
    records = {value: JSONLines.read(run.records) for value, run in runs.items()}
    figure = draw_sweep(records, key, f"{name}: sweep of {key}")
    write_atomically(folder / "sweep.png", figure)
    parts = [f"<h1>{html.escape(name)}: sweep of {html.escape(key)}</h1>", _image(figure, "a curve for each value")]
    for value, run in runs.items():
        link = f"{run.path.name}/{run.report.name}"
        parts += [f'<h2><a href="{html.escape(link)}">{html.escape(key)} = {html.escape(value)}</a></h2>']
        parts.append(_list(sentences(records[value])))
    write_atomically(folder / "sweep.html", _page(name, parts).encode())


def title(config: dict[str, Any]) -> str:
    """An experiment in two lines."""
    data, model, training, measuring = (config[name] for name in ("data", "model", "training", "measuring"))
    network = {
        "mlp": f"MLP of {model['depth']} linear layers, width {model['width']}",
        "cnn": f"CNN, width {model['width']}",
        "resnet18": f"pre-activation ResNet18, width {model['width']}",
        "transformer": f"{model['depth']}-layer transformer, width {model['width']}",
        "gpt": f"GPT, {model['depth']} layers, width {model['width']}",
    }[model["name"]]
    if model["init_scale"] != 1:
        network += f", initialisation times {model['init_scale']:g}"
    points = f"{data['train_points']} points of " if data["train_points"] is not None else ""
    what = {
        "mnist": f"{points}MNIST",
        "cifar10": f"{points}CIFAR-10",
        "digits": f"{points}scikit-learn's digits",
        "modular": f"addition modulo {data['modulus']}, {100 * data['train_share']:g} % of pairs",
        "characters": "next characters",
    }[data["name"]]
    extra = ""
    if training["noise"]:
        extra += f", noise {training['noise'][0]:g} to {training['noise'][1]:g}"
    if training["commutative"]:
        extra += f", commutative penalty {training['commutative']:g}"
    counted = f"radius {measuring['radius']:g}, P = {measuring['directions']}, seed {config['seed']}"
    return f"{network}; {what}{extra}\nlocal complexity: {counted}"


def _page(name: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{html.escape(name)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _image(png: bytes, words: str) -> str:
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _list(entries: list[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{html.escape(entry)}</li>" for entry in entries) + "\n</ul>"


def _table(values: dict[str, Any]) -> str:
    rows = "\n".join(
        f"<tr><td><code>{html.escape(key)}</code></td><td>{html.escape(json.dumps(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<table>\n{rows}\n</table>"
