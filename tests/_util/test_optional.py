"""Packages that only some functions need: what is said where one is not installed."""

import ast
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion.cli import demo
from pylinregion.cli.load_points import load_points
from pylinregion.experiments import preset, run
from pylinregion.experiments.config import Data
from pylinregion.experiments.data import load
from pylinregion.experiments.figures import draw_run, draw_sweep

PACKAGE = Path(plr.__file__).parent
REQUIRED = {"pylinregion", "torch", "numpy", "tqdm"}


class Without:
    """A finder of modules that finds those of all finders but of some packages."""

    def __init__(self, packages: Sequence[str], finders: Sequence[Any]) -> None:
        self._packages, self._finders = packages, finders

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.split(".")[0] in self._packages:
            return None
        found = (finder.find_spec(name, path, target) for finder in self._finders)
        return next((spec for spec in found if spec is not None), None)


def counts() -> plr.RegionCounts:
    changes = torch.tensor([[1, 0], [2, 3]])
    return plr.RegionCounts(changes, changes[:, 0], None, ("a", "b"), "neurons that change", "vertices")


def part() -> plr.Partition:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    return plr.partition(model, plr.Slice.box([-1.0, -1.0], [1.0, 1.0]))


def adapter(name: str) -> object:
    sys.modules.pop(f"pylinregion.adapters.{name}", None)
    return importlib.import_module(f"pylinregion.adapters.{name}")


RECORDS = [{"step": step, "train/accuracy": 0.5, "test/accuracy": 0.5} for step in (0, 1)]

# Every function that needs one of these packages, and what it says without it.
CASES: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("pandas", lambda folder: counts().to_frame(), "to_frame()", "pandas"),
    ("scipy", lambda folder: part().adjacency(), "adjacency()", "graph"),
    ("networkx", lambda folder: part().to_networkx(), "to_networkx()", "graph"),
    ("matplotlib", lambda folder: part().plot(), "plot()", "plot"),
    ("matplotlib", lambda folder: draw_run(RECORDS, ""), "drawing figures", "demo"),
    ("matplotlib", lambda folder: draw_sweep({"1": RECORDS}, "a", ""), "drawing figures", "demo"),
    ("matplotlib", lambda folder: run(preset("mnist-mlp-small"), folder / "run"), "an experiment's figure", "demo"),
    ("matplotlib", lambda folder: demo.run_demo(demo.QUICK, folder / "demo"), "the demo", "demo"),
    ("sklearn", lambda folder: demo.run_demo(demo.QUICK, folder / "demo"), "the demo", "demo"),
    ("sklearn", lambda folder: load(Data("digits"), 0), "the data 'digits'", "demo"),
    ("sklearn", lambda folder: load(Data("mnist"), 0), "the data 'mnist' without --data", "demo"),
    ("torchvision", lambda folder: load(Data("cifar10"), 0), "the data 'cifar10' without --data", "vision"),
    (
        "safetensors",
        lambda folder: load_points(str(folder / "x.safetensors"), None),
        "a .safetensors file",
        "safetensors",
    ),
    ("tensorboard", lambda folder: plr.sinks.TensorBoard(folder), "the TensorBoard sink", "tensorboard"),
    ("wandb", lambda folder: plr.sinks.WandB(), "the WandB sink", "wandb"),
    ("lightning", lambda folder: adapter("lightning"), "this callback", "lightning"),
    ("transformers", lambda folder: adapter("transformers"), "this callback", "transformers"),
    ("torchmetrics", lambda folder: adapter("torchmetrics"), "LocalComplexity", "torchmetrics"),
]


@pytest.mark.parametrize(("package", "function", "what", "extra"), CASES)
def test_a_missing_package_is_named_with_what_installs_it(
    package: str,
    function: Callable[[Path], object],
    what: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked = [package, "pytorch_lightning"] if package == "lightning" else [package]
    for name in [name for name in sys.modules if name.split(".")[0] in blocked]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(blocked, sys.meta_path)])
    with pytest.raises(ModuleNotFoundError) as raised:
        function(tmp_path)
    called = {"sklearn": "scikit-learn"}.get(package, package)
    assert str(raised.value) == f'{what} needs {called}: pip install "pylinregion[{extra}]"'
    assert list(tmp_path.iterdir()) == []


def test_every_optional_package_is_among_the_cases() -> None:
    """All that the package imports, wherever it does, and whatever :func:`optional` is asked for."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "optional":
                found |= {each.value for each in node.args[:1] if isinstance(each, ast.Constant)}
    packages = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - REQUIRED
    assert packages == {package for package, *_ in CASES} - {"lightning"}  # the adapter asks for one of two names
