"""The rooms of the package, and which may know which: one list, and every module of the package has a place in it."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import pylinregion

PACKAGE = Path(pylinregion.__file__).parent

# A room's modules import from it and from those before it. docs/architecture.md says what each is.
ORDER = (
    "_util",
    "caller",
    "native",
    "geometry",
    "graph",
    "views",
    "archives",
    "runtime",
    "capturing",
    "lowering",
    "exact",
    "regions",
    "counting",
    "measures",
    "sharding",
    "monitor",
    "experiments",
    "adapters",
    "cli",
)
ALONE = ("reference",)  # imports nothing of the others, and nothing imports it
MODULES = sorted(
    info.name for info in pkgutil.walk_packages([str(PACKAGE)], "pylinregion.") if not info.name.endswith("._C")
)


def room_of(module: str) -> str:
    return module.split(".")[1]


def file_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports, wherever it does, and if only for types."""
    found = set()
    for node in ast.walk(ast.parse(file_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {known for name in names if (known := _known(name)) is not None}
    return found - {module}


def _known(name: str) -> str | None:
    """The module that a name is, or is of."""
    while name.startswith("pylinregion"):
        if name in (*MODULES, "pylinregion", "pylinregion.native._C"):
            return name
        name = name.rpartition(".")[0]
    return None


def test_every_module_has_a_room():
    rooms = {room_of(module) for module in MODULES}
    assert rooms - {"__main__"} == {*ORDER, *ALONE}
    assert all(file_of(f"pylinregion.{room}").name == "__init__.py" for room in rooms - {"__main__"})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_its_room_and_those_before_it(module):
    if module == "pylinregion.__main__":
        assert imports_of(module) == {"pylinregion.cli.commands"}
        return
    room = room_of(module)
    allowed = {room} if room in ALONE else set(ORDER[: ORDER.index(room) + 1])
    later = {other for other in imports_of(module) if other == "pylinregion" or room_of(other) not in allowed}
    assert not later


def test_there_is_no_circle():
    left = {module: imports_of(module) & set(MODULES) for module in MODULES}
    size = 0
    while len(left) != size:  # without those that import nothing, or that nothing imports
        size, needed = len(left), set().union(*left.values())
        kept = {module for module, needs in left.items() if needs & left.keys() and module in needed}
        left = {module: left[module] & kept for module in kept}
    assert left == {}


def test_a_name_is_one_module_and_nothing_hides_a_module():
    names = [module.rpartition(".")[2] for module in MODULES if file_of(module).name != "__init__.py"]
    rooms = [*ORDER, *ALONE]
    twice = sorted({name for name in names if names.count(name) > 1} | {name for name in names if name in rooms})
    assert twice == []
    for module in MODULES:
        if module != "pylinregion.__main__":
            importlib.import_module(module)
            package, _, name = module.rpartition(".")
            assert isinstance(getattr(importlib.import_module(package), name), ModuleType), module


def test_only_one_room_knows_the_extension():
    assert {room_of(module) for module in MODULES if "pylinregion.native._C" in imports_of(module)} == {"native"}


def test_the_reference_shares_no_code_with_what_it_judges():
    for module in MODULES:
        if room_of(module) == "reference":
            assert "torch" not in file_of(module).read_text(encoding="utf-8").replace("pytorch", ""), module
