"""What a module's code can write to in Python, and putting it back.

A forward pass, and the hooks that it calls, may write to attributes, containers, closures, globals and caches: running
means, banks of features, counts of calls. They are found from the module on, along the ways that the code has itself:
attributes, items, closures, and the globals that functions name. What belongs to libraries is not looked into.
"""

from __future__ import annotations

import collections
import dis
import functools
import operator
import os
import random
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LIMIT = 10_000  # objects that are looked into, the nearest first
LARGEST = 1 << 25  # entries of an array or plain tensor that is copied

ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size))
FORWARD_HOOKS = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
_STDLIB = sys.stdlib_module_names - {"__main__"}
_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
HOLDERS = frozenset({"types", "argparse", "collections", "weakref"})  # libraries of types that hold what users put in
_LRU_CACHE = type(functools.lru_cache(maxsize=1)(len))
ABSENT: Any = object()


class Contents:
    """What a module's code can write to, as it is now.

    Args:
        roots: The module, and functions that it calls. Lazy submodules will keep what they learn.
        values: Whether to copy the values of buffers and plain tensors too, and of NumPy arrays.
        but: What is not looked into.

    Attributes:
        draws: Whether the code names NumPy's or Python's own random numbers.
    """

    def __init__(self, roots: Iterable[Any], values: bool, but: Iterable[Any] = ()) -> None:
        self.draws = False
        self._values = values
        self._undo: list[Callable[[], None]] = []
        self._empty: list[Any] = []  # dictionaries and sets: most of what a module has
        self._queue: collections.deque[Any] = collections.deque(roots)
        seen: dict[int, Any] = {id(value): value for value in but}  # alive, so that no address is used twice
        limit = len(seen) + LIMIT
        while self._queue and len(seen) < limit:
            value = self._queue.popleft()
            if id(value) not in seen:
                seen[id(value)] = value
                self._visit(value)

    def put_back(self) -> None:
        """Make everything what it was; what was not written to is left alone."""
        for undo in self._undo:
            undo()
        for container in self._empty:
            if container:
                container.clear()

    def _follow(self, values: Iterable[Any]) -> None:
        self._queue.extend([value for value in values if type(value) not in ATOMS])

    def _visit(self, value: Any) -> None:
        """Keep what an object holds, and go on from there."""
        if type(value) is nn.Parameter:  # as below, but there are many
            self._keep_tensor(value)
        elif isinstance(value, nn.Module):
            self._visit_module(value)
        elif isinstance(value, dict):
            self._keep_dict(value)
        elif isinstance(value, (list, collections.deque)):
            self._undo.append(functools.partial(_restore_list, value, list(value)))
            self._follow(value)
        elif isinstance(value, set):
            self._undo.append(functools.partial(_restore_set, value, value.copy()))
            self._follow(value)
        elif isinstance(value, (tuple, frozenset)):
            self._follow(value)
        elif isinstance(value, Tensor):
            self._keep_tensor(value)
        elif isinstance(value, np.ndarray):
            if self._values and value.size <= LARGEST and not value.dtype.hasobject:
                self._undo.append(functools.partial(_restore_array, value, value.copy()))
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, types.MethodType):
            self._follow((value.__self__, value.__func__))
        elif isinstance(value, types.CellType):
            content = content_of(value)
            self._undo.append(functools.partial(_restore_cell, value, content))
            self._follow((content,))
        elif isinstance(value, functools.partial):
            self._follow((value.func, value.args, value.keywords))
        elif isinstance(value, _LRU_CACHE):
            self._undo.append(functools.partial(_restore_cache, value, value.cache_info()))
            self._follow((value.__wrapped__,))
        elif isinstance(value, (staticmethod, classmethod)):
            self._follow((value.__func__,))
        elif isinstance(value, property):
            self._follow((value.fget, value.fset))
        elif isinstance(value, type):
            self._visit_class(value)
        else:
            self._visit_object(value)

    def _keep_dict(self, value: dict[Any, Any]) -> None:
        content = dict.copy(value)
        self._undo.append(functools.partial(_restore_dict, value, content))
        self._follow(content.values())

    def _visit_module(self, module: nn.Module) -> None:
        attributes = vars(module)
        if hasattr(type(module), "cls_to_become"):
            self._follow((*module._modules.values(), *module._parameters.values(), *module._buffers.values()))
            return
        content = attributes.copy()
        self._undo.append(functools.partial(_restore_dict, attributes, content))
        for value in content.values():
            kind = type(value)
            if kind is dict or kind is collections.OrderedDict or kind is set:
                if value:
                    self._queue.append(value)
                else:
                    self._empty.append(value)
            elif kind not in ATOMS:
                self._queue.append(value)
        if not is_library(type(module).__module__):
            self._queue.append(type(module))

    def _visit_object(self, value: Any) -> None:
        kind = type(value)
        attributes = getattr(value, "__dict__", None)
        if is_library(kind.__module__) and root_of(kind.__module__) not in HOLDERS:
            if isinstance(attributes, dict) and is_installed(kind.__module__):
                self._keep_shallow(attributes)
            return
        if isinstance(attributes, dict):
            self._keep_dict(attributes)
        names: tuple[str, ...] = slots_of(kind)  # type: ignore[arg-type]
        for name in names:
            content = getattr(value, name, ABSENT)
            self._undo.append(functools.partial(_restore_attribute, value, name, content))
            self._follow((content,))
        self._queue.append(kind)

    def _keep_shallow(self, attributes: dict[str, Any]) -> None:
        """Attributes and what containers among them hold, but nothing beyond: a trainer reaches everything."""
        content = dict.copy(attributes)
        self._undo.append(functools.partial(_restore_dict, attributes, content))
        for value in content.values():
            if isinstance(value, dict):
                self._undo.append(functools.partial(_restore_dict, value, dict.copy(value)))
            elif isinstance(value, list):
                self._undo.append(functools.partial(_restore_list, value, list(value)))

    def _visit_class(self, owner: type) -> None:
        """The user's own part of a class: functions, and attributes of the class."""
        for kind in owner.__mro__:
            if is_library(kind.__module__):
                continue
            content = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
            self._undo.append(functools.partial(_restore_class, kind, content))
            self._follow(content.values())

    def _visit_function(self, function: types.FunctionType) -> None:
        if is_library(function.__module__):
            return
        self._follow(function.__closure__ or ())
        self._follow((function.__defaults__, function.__kwdefaults__))
        names = names_in(function.__code__)
        space = function.__globals__
        self._keep_names(space, names.of_globals)
        for name in names.of_globals:
            found = space.get(name)
            self.draws |= _draws(found, names.of_attributes)
            if isinstance(found, types.ModuleType) and not is_library(found.__name__):
                self._keep_names(vars(found), names.of_attributes)

    def _keep_names(self, space: dict[str, Any], names: Iterable[str]) -> None:
        found = {name: space[name] for name in names if name in space}
        self._undo.append(functools.partial(_restore_names, space, found))
        self._follow(value for value in found.values() if not isinstance(value, types.ModuleType))

    def _keep_tensor(self, tensor: Tensor) -> None:
        if nn.parameter.is_lazy(tensor) or tensor.is_inference() or tensor.layout is not torch.strided:
            return
        if type(tensor) is nn.Parameter or isinstance(tensor, nn.Parameter):
            self._undo.append(functools.partial(_restore_storage, tensor, tensor.data))
        elif self._values and tensor.numel() <= LARGEST:
            self._undo.append(functools.partial(_restore_values, tensor, tensor.detach().clone()))


def _draws(value: Any, attributes: tuple[str, ...]) -> bool:
    if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
        return value.__self__ is random._inst or value.__self__ is np.random.mtrand._rand
    return value is random or value is np.random or (value is np and "random" in attributes)


class _Names:
    """The names that a function's code uses, and that of functions inside it."""

    def __init__(self, code: types.CodeType) -> None:
        of_globals, of_attributes = set(), set()
        for part in _codes(code):
            for step in dis.get_instructions(part):
                if step.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"):
                    of_globals.add(step.argval)
                elif step.opname in ("LOAD_ATTR", "STORE_ATTR", "LOAD_METHOD", "DELETE_ATTR"):
                    of_attributes.add(step.argval)
        self.of_globals, self.of_attributes = tuple(of_globals), tuple(of_attributes)


@functools.lru_cache(maxsize=10_000)
def names_in(code: types.CodeType) -> _Names:
    """The names that a function's code uses."""
    return _Names(code)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def root_of(name: str | None) -> str:
    """The package that a Python module is in."""
    return (name or "").partition(".")[0]


def is_library(name: str | None) -> bool:
    """Whether a Python module is of the standard library, of this package, or installed."""
    return root_of(name) in _STDLIB or is_installed(name)


@functools.lru_cache(maxsize=10_000)
def is_installed(name: str | None) -> bool:
    """Whether a Python module is installed, or of this package."""
    root = root_of(name)
    file = getattr(sys.modules.get(root), "__file__", None)
    return root in ("torch", "numpy", "pylinregion") or (file is not None and file.startswith(_INSTALLED))


@functools.lru_cache(maxsize=10_000)
def slots_of(kind: type) -> tuple[str, ...]:
    """The attributes of a class's objects that are in no dictionary."""
    found = []
    for owner in kind.__mro__:
        names = vars(owner).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{owner.__name__.lstrip('_')}{name}" if private else name)
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))


def content_of(cell: types.CellType) -> Any:
    """The value of a function's variable; :data:`ABSENT` if it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def _restore_dict(container: dict[Any, Any], content: dict[Any, Any]) -> None:
    if len(container) == len(content) and all(map(operator.is_, container.values(), content.values())):
        return
    for key in [key for key in container if key not in content]:
        del container[key]
    for key, value in content.items():
        if container.get(key, ABSENT) is not value:
            container[key] = value
    if list(container) != list(content):
        for key in content:
            container[key] = container.pop(key)


def _restore_list(container: Any, content: list[Any]) -> None:
    if len(container) != len(content) or not all(map(operator.is_, container, content)):
        container.clear()
        container.extend(content)


def _restore_set(container: set[Any], content: set[Any]) -> None:
    if container != content:
        container.clear()
        container.update(content)


def _restore_array(array: Any, content: Any) -> None:
    if array.tobytes() != content.tobytes():
        array[...] = content


def _restore_cell(cell: types.CellType, content: Any) -> None:
    if content_of(cell) is content:
        return
    if content is ABSENT:
        del cell.cell_contents
    else:
        cell.cell_contents = content


def _restore_cache(cache: Any, info: Any) -> None:
    if cache.cache_info().misses != info.misses:
        cache.cache_clear()  # what it holds beyond what it held cannot be told apart


def _restore_attribute(owner: Any, name: str, content: Any) -> None:
    if getattr(owner, name, ABSENT) is content:
        return
    if content is ABSENT:
        delattr(owner, name)
    else:
        object.__setattr__(owner, name, content)


def _restore_class(kind: type, content: dict[str, Any]) -> None:
    for name in [name for name in vars(kind) if not name.startswith("__") and name not in content]:
        delattr(kind, name)
    for name, value in content.items():
        if vars(kind).get(name, ABSENT) is not value:
            setattr(kind, name, value)


def _restore_names(space: dict[str, Any], content: dict[str, Any]) -> None:
    for name, value in content.items():
        if space.get(name, ABSENT) is not value:
            space[name] = value


def _restore_storage(parameter: nn.Parameter, data: Tensor) -> None:
    if parameter.data_ptr() != data.data_ptr() or parameter.shape != data.shape:
        parameter.data = data


def _restore_values(tensor: Tensor, values: Tensor) -> None:
    if not torch.equal(tensor, values):  # batch norm writes without telling the tensor's version
        with torch.no_grad():
            tensor.copy_(values)
