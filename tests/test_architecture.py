"""The directions of imports, as docs/architecture.md draws them, and the examples in docstrings."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pylinregion

PACKAGE = Path(pylinregion.__file__).parent
MODULES = sorted(info.name for info in pkgutil.walk_packages([str(PACKAGE)], "pylinregion.") if "_C" not in info.name)


def imports_of(module: str) -> set[str]:
    """What a module imports when it is imported or run: names of modules, and of what is taken from the package."""
    tree = ast.parse(Path(importlib.import_module(module).__file__).read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def test_only_kernels_knows_the_extension():
    users = [module for module in MODULES if any(name.startswith("pylinregion._C") for name in imports_of(module))]
    assert users == ["pylinregion.kernels"]


def test_reference_and_results_know_nothing_of_the_code_they_judge_or_report():
    for module in MODULES:
        own = {name for name in imports_of(module) if name.startswith("pylinregion")}
        if module.startswith("pylinregion.reference"):
            assert all(name.startswith("pylinregion.reference") for name in own), module
            assert "torch" not in imports_of(module), module
        if module in ("pylinregion.counts", "pylinregion.certificate", "pylinregion.mesh"):
            assert own <= {"pylinregion._optional", "pylinregion._optional.optional"}, module
        if module == "pylinregion.ranks":
            assert own <= {"pylinregion.errors", "pylinregion.errors.PylinregionError"}
        if module in ("pylinregion.mesh_measures", "pylinregion.locate", "pylinregion.nearness"):
            rooms = {".".join(name.split(".")[:2]) for name in own}
            also = {"pylinregion.locate"} if module == "pylinregion.nearness" else set()
            assert rooms <= {"pylinregion.mesh"} | also, module
        if module == "pylinregion.plot":  # the partition's type, and how cells are held
            rooms = {".".join(name.split(".")[:2]) for name in own}
            assert rooms == {"pylinregion._optional", "pylinregion.mesh", "pylinregion.regions"}


def test_slices_are_partitioned_in_one_direction():
    """The network's stages, what is computed from them on regions, the partition, what is made of it."""
    order = ["stages", "line_system", "engine", "decision", "regions", "partition"]
    for place, module in enumerate(order):
        later = {f"pylinregion.{name}" for name in [*order[place:], "files", "convert", "plot", "verify", "statistics"]}
        if module not in ("regions", "partition"):  # methods of the result are functions of these modules
            assert not imports_of(f"pylinregion.{module}") & later, module
    for module in ("prefix", "maps", "residues", "affine", "signs"):
        assert not imports_of(f"pylinregion.{module}") & {f"pylinregion.{name}" for name in order[1:]}, module
    users = [module for module in MODULES if "pylinregion.capture" in imports_of(module)]
    assert "pylinregion.partition" in users and "pylinregion.engine" not in users


def test_a_capture_is_made_in_one_direction():
    """Tracing knows nothing of classification, and neither knows of the self-check and the cache."""
    order = [
        "source",
        "branches",
        "tracing",
        "operations",
        "questions",
        "batch",
        "classify",
        "guards",
        "selfcheck",
        "capture",
    ]
    for place, module in enumerate(order):
        later = {f"pylinregion.{name}" for name in [*order[place:], "fingerprint", "module_state", "count", "explain"]}
        if module != "capture":
            assert not imports_of(f"pylinregion.{module}") & later, module
    assert not imports_of("pylinregion.selfcheck") & {"pylinregion.batch", "pylinregion.classify"}
    for module in ("fingerprint", "reachable", "torch_state"):
        assert not {name for name in imports_of(f"pylinregion.{module}") if name.startswith("pylinregion")}, module
    for module, below in {"module_state": {"reachable", "torch_state"}, "operations": {"errors", "tracing"}}.items():
        rooms = {name.split(".")[1] for name in imports_of(f"pylinregion.{module}") if name.startswith("pylinregion.")}
        assert rooms == below, module


def test_measures_are_made_of_captured_networks_and_only_monitors_and_experiments_are_made_of_them():
    below = {
        "_checks",
        "capture",
        "errors",
        "kinks",
        "module_state",
        "network",
        "ops",
        "program",
        "surroundings",
        "torch_state",
        "tracing",
        "measures",
    }
    for module in MODULES:
        rooms = {name.split(".")[1] for name in imports_of(module) if name.startswith("pylinregion.")}
        if module.startswith("pylinregion.measures"):
            assert rooms <= below, module
        else:
            above = module == "pylinregion.instruments" or module.startswith("pylinregion.experiments")
            assert "measures" not in rooms or above, module


def test_a_monitor_is_built_in_one_direction():
    """Schedules, points and sinks know nothing of each other; adapters know the monitor, and nothing knows them."""
    parts = {f"pylinregion.{name}" for name in ("schedule", "probes", "sinks", "instruments")}
    for module in parts:
        own = imports_of(module)
        assert not own & (parts | {"pylinregion.monitor"}), module
        assert module in ("pylinregion.instruments",) or "pylinregion.count" not in own
    users = {module for module in MODULES if imports_of(module) & (parts | {"pylinregion.monitor"})}
    assert {module for module in users if not module.startswith("pylinregion.experiments")} == {"pylinregion.grok"} | {
        "pylinregion",
        "pylinregion.monitor",
        "pylinregion.adapters.lightning",
        "pylinregion.adapters.transformers",
    } & set(MODULES)
    for module in MODULES:
        assert module.startswith("pylinregion.adapters") or not any("adapters" in name for name in imports_of(module))


def test_folders_on_one_path_have_no_module_of_one_name():
    """Benchmarks and tests are imported by bare names, from folders that can be on one path with the package."""
    root = Path(__file__).parent.parent
    names = {folder: {file.stem for file in (root / folder).glob("*.py")} for folder in ("bench", "tests")}
    package = {part for module in MODULES for part in module.split(".")}
    assert {"main", "harness"} <= names["bench"] and {"oracle", "test_bench"} <= names["tests"] and "shards" in package
    assert names["bench"] & names["tests"] == {"conftest"}
    assert not (names["bench"] | names["tests"]) & (package | sys.stdlib_module_names)


def test_archives_are_checked_by_themselves():
    order, allowed = ["size_expressions", "program_document", "archives"], {"memory", "ops"}
    for place, module in enumerate(order):
        rooms = {name.split(".")[1] for name in imports_of(f"pylinregion.{module}") if name.startswith("pylinregion.")}
        assert rooms <= allowed | set(order[:place]), module


def test_nothing_imports_the_command_line():
    shell = {"pylinregion.cli", "pylinregion.demo", "pylinregion.doctor", "pylinregion.grok"}
    for module in MODULES:
        if module not in shell | {"pylinregion.__main__"} and not module.startswith("pylinregion.demo"):
            assert not imports_of(module) & shell, module


def test_optional_packages_are_not_imported_with_the_package(tmp_path):
    optional = ["matplotlib", "networkx", "pandas", "safetensors", "scipy", "sklearn"]
    optional += ["lightning", "pytorch_lightning", "transformers", "torchmetrics", "tensorboard", "wandb"]
    code = f"import sys, pylinregion; print([name for name in {optional} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_docstring_examples(module):
    failures, _ = doctest.testmod(importlib.import_module(module))
    assert failures == 0


def test_public_names_have_docstrings_with_their_errors():
    for name in ("capture", "count_regions", "explain", "load", "partition", "patterns", "random_frame", "trace"):
        text = getattr(pylinregion, name).__doc__
        assert "Args:" in text and "Returns:" in text and "Raises:" in text, name
