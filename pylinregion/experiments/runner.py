"""One experiment from its settings to its folder: train, measure, write, draw, and go on after a kill."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pylinregion._util.locks import held
from pylinregion._util.optional import optional
from pylinregion._util.versions import versions
from pylinregion._util.whole_files import read_object
from pylinregion.experiments import data, models, quantities
from pylinregion.experiments.config import Config, completed, flat, to_dict
from pylinregion.experiments.folder import Folder, load_checkpoint, save_checkpoint, write_json
from pylinregion.experiments.report import write_report
from pylinregion.experiments.training import Trainer
from pylinregion.monitor.sinks import JSONLines, Record
from pylinregion.monitor.training_monitor import Monitor


def run(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    on_record: Callable[[Record], object] = lambda record: None,
    on_step: Callable[[], object] = lambda: None,
) -> Folder:
    """Run an experiment.

    The folder gets ``config.json``, ``environment.json``, ``records.jsonl`` (as it goes), ``checkpoint.pt``,
    ``figure.png`` and ``report.html``. Records are at step 0 and at steps that are evenly spaced on a logarithmic axis.

    Args:
        config: The experiment.
        out: The folder; made if need be.
        resume: Go on with the run in the folder from its last checkpoint; without one, from the start. The records are
            those of a run that was never stopped: to the bit on one CPU thread, but for their ``seconds``.
        device: Where to train and measure.
        on_record: Called with each new record.
        on_step: Called after each step.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is a run in the folder, and ``resume`` is False.
        PylinregionError: Another process runs in the folder.
        ValueError: The run to resume has another config.
        ModuleNotFoundError: matplotlib, or what the data needs, is not installed.
        OSError: Data could not be read.
    """
    folder = Folder(Path(out))
    _check(folder, config, resume)
    optional("matplotlib", "an experiment's figure", "demo")  # now, not after the work
    target, dtype = torch.device(device), getattr(torch, config.training.dtype)
    dataset = data.load(config.data, config.seed).to(target, dtype)
    folder.path.mkdir(parents=True, exist_ok=True)
    with held(folder.path):
        _check(folder, config, resume)  # once more: another run may have begun meanwhile
        _run(folder, config, dataset, resume, device, on_record, on_step)
    return folder


def _run(
    folder: Folder,
    config: Config,
    dataset: data.Dataset,
    resume: bool,
    device: str,
    on_record: Callable[[Record], object],
    on_step: Callable[[], object],
) -> None:
    target, dtype = torch.device(device), getattr(torch, config.training.dtype)
    if not resume:
        write_json(folder.environment, environment(device))
        write_json(folder.config, to_dict(config))  # the last: from here on there is a run
    model = models.make(config.model, dataset.input_shape, dataset.classes, dtype, config.seed).to(target)
    trainer = Trainer(model, dataset.train_x, dataset.train_y, dataset.classes, config.training, config.seed)
    probes = quantities.probes(dataset, config)
    monitor = Monitor(
        model,
        probes,
        measures=quantities.measures_of(config, dataset, probes, lambda: monitor.steps),
        every=quantities.steps(config),
        budget=None,
        sink=[JSONLines(folder.records), on_record],
        seed=config.seed,
    )

    def save() -> None:
        state = {"step": monitor.steps, "trainer": trainer.state_dict(), "monitor": monitor.state_dict()}
        save_checkpoint(folder.checkpoint, state)

    if resume and folder.checkpoint.exists():
        state = load_checkpoint(folder.checkpoint)
        trainer.load_state_dict(state["trainer"])
        monitor.load_state_dict(state["monitor"])
    else:
        folder.records.unlink(missing_ok=True)
        monitor.measure()
        save()
    while monitor.steps < config.training.steps:
        trainer.step()
        monitor.step()
        if monitor.steps % config.training.checkpoint_every == 0 or monitor.steps == config.training.steps:
            save()
        on_step()
    monitor.close()
    write_report(folder)


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on besides the settings."""
    found = {**versions(), "device": device, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    found["platform"] = f"{platform.system()} {platform.machine()}"
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _check(folder: Folder, config: Config, resume: bool) -> None:
    """See to it that the folder is free, or has this run."""
    found = completed(read_object(folder.config)) if folder.config.exists() else None
    wanted = flat(json.loads(json.dumps(to_dict(config))))
    if not resume:
        if found is not None:
            raise FileExistsError(f"there is a run in {folder.path}: resume it, delete it, or choose another folder")
        return
    if found is None:
        raise FileNotFoundError(f"there is no run to resume in {folder.path}")
    if found != wanted:
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        differs = ", ".join(f"{key} is {found.get(key)!r} there, {wanted[key]!r} here" for key in differing)
        raise ValueError(f"the run in {folder.path} has another config: {differs or 'other keys'}")
