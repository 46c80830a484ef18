"""The package as a whole: its optional packages, the examples in docstrings, and what public docstrings say."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

import pylinregion
from pylinregion.reference import rational

PACKAGE = Path(pylinregion.__file__).parent
MODULES = sorted(info.name for info in pkgutil.walk_packages([str(PACKAGE)], "pylinregion.") if "_C" not in info.name)


def test_folders_on_one_path_have_no_module_of_one_name():
    """These are imported by bare names, from folders that can be on one path with the package."""
    tests = Path(__file__).parent
    bench, examples = ({file.stem for file in tests.with_name(name).glob("*.py")} for name in ("bench", "examples"))
    files = [file.stem for file in (*tests.glob("*.py"), *tests.glob("*/test_*.py"))]
    names = {*files, "cases"}
    package = {part for module in MODULES for part in module.split(".")}
    assert {"main", "harness"} <= bench and {"test_rooms", "test_bench"} <= names and "store" in package
    assert sorted(files) == sorted(set(files))
    assert bench & names == {"conftest"} and not examples & (bench | names)
    assert not (bench | names) & package and not (bench | examples | names) & sys.stdlib_module_names


def test_tests_lie_in_the_rooms_that_they_test():
    tests = Path(__file__).parent
    rooms = {module.split(".")[1] for module in MODULES}
    assert {file.parent.name for file in tests.rglob("test_*.py")} <= {*rooms, tests.name, "bench"}


def test_optional_packages_are_not_imported_with_the_package(tmp_path):
    optional = ["matplotlib", "networkx", "pandas", "safetensors", "scipy", "sklearn"]
    optional += ["lightning", "pytorch_lightning", "transformers", "torchmetrics", "tensorboard", "wandb"]
    code = f"import sys, pylinregion; print([name for name in {optional} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.strip() == "[]"


@pytest.mark.part(4)
@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_docstring_examples(module, monkeypatch):
    monkeypatch.setattr(rational, "rational", Fraction)  # as it is without tests
    failures, _ = doctest.testmod(importlib.import_module(module))
    assert failures == 0


def test_public_names_have_docstrings_with_their_errors():
    for name in ("capture", "count_regions", "explain", "load", "partition", "patterns", "random_frame", "trace"):
        text = getattr(pylinregion, name).__doc__
        assert "Args:" in text and "Returns:" in text and "Raises:" in text, name
