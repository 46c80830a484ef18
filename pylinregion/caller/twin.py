"""A module beside the user's own that runs the same code: what is done to it, nobody else sees.

Other threads may train a module while this one looks at it. So it is not put into eval mode, run or traced itself: its
twin is, new modules with new containers and tensors. The twin has all that a module's code reaches by attributes,
items, closures, bound methods and weak references; what code names otherwise, globals and classes, is shared.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import functools
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pylinregion.caller.reachable import (
    ABSENT,
    ATOMS,
    FORWARD_HOOKS,
    HOLDERS,
    LARGEST,
    LIMIT,
    content_of,
    is_installed,
    is_library,
    names_in,
    root_of,
    slots_of,
)

_OWN_ATTRIBUTES = frozenset(vars(nn.Module()))
_CALLABLE = (nn.Module, types.MethodType, types.FunctionType, functools.partial)
_CONTAINERS = (dict, list, set, collections.deque)
_EMPTY = (dict, set, collections.OrderedDict)
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_REFERENCES = (weakref.ReferenceType, types.BuiltinMethodType, *_WEAK)
_SHARED = (type, types.ModuleType, enum.Enum, BaseException, threading.local, torch.jit.ScriptModule)


class NoTwin(Exception):
    """A module of a class that lets none be made."""


class Twin:
    """The twin of a module.

    Args:
        module: The module. Nothing of it is called.
        values: Whether its tensors are copies: the values of one time, which no optimiser changes meanwhile. Else they
            are tensors of their own that look at the same memory.

    Attributes:
        module: The twin.
        tensors: Tensors of the user's that have a twin, each with that.
        global_hooks: Those of the hooks of all modules.

    Raises:
        NoTwin: There can be none.
    """

    def __init__(self, module: nn.Module, *, values: bool) -> None:
        self.tensors: list[tuple[Tensor, Tensor]] = []
        self._values = values
        self._found: dict[int, tuple[Any, Any]] = {}  # what there is, alive so that no address is used twice; its twin
        self._objects = 0
        self._unfilled: collections.deque[Callable[[], None]] = collections.deque()
        self.module: nn.Module = self._whole(module)
        self.global_hooks: list[dict[int, Any]] = [
            {key: self._whole(hook) for key, hook in list(hooks.items())} for hooks in FORWARD_HOOKS
        ]

    def originals(self) -> Iterator[Any]:
        """What has a twin."""
        return (value for value, twin in self._found.values() if twin is not value)

    @contextlib.contextmanager
    def instead_of_global_hooks(self) -> Iterator[None]:
        """:attr:`global_hooks` in place of the hooks of all modules, for this thread alone; one may be taken away."""
        here = threading.get_ident()

        def either(hook: Any, own: dict[int, Any], key: int) -> Any:
            def called(*args: Any, **kwargs: Any) -> Any:
                if threading.get_ident() != here:
                    return hook(*args, **kwargs)
                return own[key](*args, **kwargs) if key in own else None

            return called

        before = [dict(hooks) for hooks in FORWARD_HOOKS]
        for hooks, those, own in zip(FORWARD_HOOKS, before, self.global_hooks, strict=True):
            hooks.update({key: either(hook, own, key) for key, hook in those.items() if key in own})
        try:
            yield
        finally:
            for hooks, those in zip(FORWARD_HOOKS, before, strict=True):
                hooks.update({key: hook for key, hook in those.items() if key in hooks})  # nobody has taken it away

    def _whole(self, value: Any) -> Any:
        twin = self._twin(value)
        while self._unfilled:  # the nearest first
            self._unfilled.popleft()()
        return twin

    def _twin(self, value: Any) -> Any:
        """The twin, perhaps yet to be filled; the value itself if it has none."""
        if type(value) in ATOMS:
            return value
        if (found := self._found.get(id(value))) is not None:
            return found[1]
        twin = self._made(value)
        return self._found.setdefault(id(value), (value, twin))[1]

    def _keep(self, value: Any, twin: Any, fill: Callable[[], None]) -> Any:
        """Know a twin before it is filled, for what it holds may hold it."""
        self._found[id(value)] = value, twin
        self._unfilled.append(fill)
        return twin

    def _made(self, value: Any) -> Any:
        if isinstance(value, _SHARED):
            return value
        if isinstance(value, nn.Module):
            if (twin := _bare(type(value))) is None:
                raise NoTwin
            return self._keep(value, twin, lambda: self._fill_module(value, twin))
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, types.MethodType):
            return self._method(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if type(value) is functools.partial:
            return functools.partial(
                self._twin(value.func), *map(self._twin, value.args), **dict(self._items(value.keywords))
            )
        self._objects += 1
        if self._objects > LIMIT:
            return value
        if isinstance(value, _CONTAINERS):
            return self._container(value)
        if isinstance(value, (tuple, frozenset)):
            return self._fixed(value)
        if isinstance(value, _REFERENCES):
            return self._reference(value)
        if isinstance(value, np.ndarray):
            return value.copy() if type(value) is np.ndarray and value.size <= LARGEST else value
        return self._object(value)

    def _fill_module(self, module: nn.Module, twin: Any) -> None:
        attributes = vars(twin)
        for name, value in vars(module).copy().items():
            if name not in _OWN_ATTRIBUTES or not isinstance(value, _CONTAINERS):
                attributes[name] = self._twin(value)
            elif not value and type(value) in _EMPTY:  # most of what a module has
                attributes[name] = type(value)()
            else:
                attributes[name] = self._container(value)  # whatever the limit is
        self._fill_slots(module, twin)
        attributes["_compiled_call_impl"] = None  # of module.compile(): it calls the module
        inner = attributes.get("_modules", {}).get("_orig_mod")
        if inner is not None:  # what torch.compile wraps
            attributes["forward"] = lambda *args, **kwargs: inner(*args, **kwargs)

    def _fill_slots(self, value: Any, twin: Any) -> None:
        for name in _slots(type(value)):
            if (content := getattr(value, name, ABSENT)) is not ABSENT:
                object.__setattr__(twin, name, self._twin(content))

    def _tensor(self, tensor: Tensor) -> Tensor:
        kind = type(tensor)
        parameter = issubclass(kind, nn.Parameter)
        known = (parameter or kind is Tensor) and tensor.layout is torch.strided
        if not known or nn.parameter.is_lazy(tensor):
            return tensor
        copies = self._values and (parameter or tensor.numel() <= LARGEST)
        data = copied(tensor) if copies else tensor.detach()
        twin: Tensor = torch.Tensor._make_subclass(kind, data, tensor.requires_grad and not data.is_inference())
        vars(twin).update(vars(tensor))
        self.tensors.append((tensor, twin))
        return twin

    def _method(self, method: types.MethodType) -> Any:
        owner, function = method.__self__, method.__func__
        if function is not getattr(type(owner), getattr(function, "__name__", ""), None):  # else it is its class's
            function = self._twin(function)
        twin = self._twin(owner)
        return method if twin is owner and function is method.__func__ else types.MethodType(function, twin)

    def _function(self, function: types.FunctionType) -> Any:
        """A function whose variables are twins, and the modules that it names."""
        users = not is_library(function.__module__)
        cells = function.__closure__ or ()
        own = tuple([self._cell(cell, users) for cell in cells])
        named = self._named(function) if users else {}
        defaults, keywords = self._twin(function.__defaults__), self._twin(function.__kwdefaults__)
        same = defaults is function.__defaults__ and not keywords
        if same and not named and all(cell is before for cell, before in zip(own, cells, strict=True)):
            return function
        space = {**function.__globals__, **named} if named else function.__globals__
        twin = types.FunctionType(function.__code__, space, function.__name__, defaults, own if cells else None)
        twin.__kwdefaults__ = keywords
        functools.update_wrapper(twin, function)
        vars(twin).pop("__wrapped__")
        vars(twin).update(vars(function))
        return twin

    def _cell(self, cell: types.CellType, users: bool) -> types.CellType:
        """A function's variable, which others may share; of a library's function only if it may be the module's."""
        content = content_of(cell)
        if not users and not isinstance(content, _CALLABLE):
            return cell
        if (found := self._found.get(id(cell))) is not None:
            return found[1]  # type: ignore[no-any-return]
        twin = types.CellType()

        def fill() -> None:
            if content is not ABSENT:
                twin.cell_contents = self._twin(content)

        self._keep(cell, twin, fill)
        return twin

    def _named(self, function: types.FunctionType) -> dict[str, Any]:
        """The modules, and the functions that name some, among the globals of a function."""
        self._found[id(function)] = function, function  # if one of them calls it
        found = {}
        for name in names_in(function.__code__).of_globals:
            value = function.__globals__.get(name)
            if isinstance(value, _CALLABLE) and (twin := self._twin(value)) is not value:
                found[name] = twin
        del self._found[id(function)]
        return found

    def _items(self, value: Any) -> list[tuple[Any, Any]]:
        items = collections.OrderedDict.items if isinstance(value, collections.OrderedDict) else dict.items
        return [(self._key(key), self._twin(item)) for key, item in list(items(value))]

    def _key(self, value: Any) -> Any:
        """The twin of what is found by its hash: a module's, which is that of its place. Others are not filled yet."""
        return self._twin(value) if isinstance(value, nn.Module) else value

    def _container(self, value: Any) -> Any:
        if (found := self._found.get(id(value))) is not None:
            return found[1]
        kind = type(value)
        twin = _bare(kind)
        if twin is None:
            return value

        def fill() -> None:
            if isinstance(value, dict):
                assign = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
                for key, item in self._items(value):
                    assign.__setitem__(twin, key, item)
            elif isinstance(value, set):
                set.update(twin, map(self._key, set.copy(value)))
            else:
                base = list if isinstance(value, list) else collections.deque
                base.extend(twin, [self._twin(item) for item in base.copy(value)])
            if getattr(value, "__dict__", None):
                vars(twin).update(self._items(vars(value)))

        if isinstance(value, collections.defaultdict):
            twin.default_factory = value.default_factory
        if isinstance(value, collections.deque):
            collections.deque.__init__(twin, (), value.maxlen)
        return self._keep(value, twin, fill)

    def _fixed(self, value: Any) -> Any:
        kind = type(value)
        items = [(self._key if kind is frozenset else self._twin)(item) for item in value]
        if all(item is before for item, before in zip(items, value, strict=True)):
            return value
        if hasattr(kind, "_make"):
            return kind._make(items)
        return kind(items) if kind in (tuple, frozenset) else value

    def _reference(self, value: Any) -> Any:
        """What refers to something that may have a twin."""
        if type(value) is weakref.ReferenceType:
            target = value()
            return weakref.ref(self._twin(target)) if isinstance(target, nn.Module) else value
        if type(value) in _WEAK:
            others = type(value)()
            return self._keep(value, others, lambda: others.update(self._items(dict(value.items()))))
        owner = value.__self__  # it is list.append of one list, say
        return getattr(self._twin(owner), value.__name__) if isinstance(owner, _CONTAINERS) else value

    def _object(self, value: Any) -> Any:
        kind: Any = type(value)
        if isinstance(value, torch.Generator):
            return value if value is torch.default_generator else _copied_generator(value)
        library = is_library(kind.__module__) and root_of(kind.__module__) not in HOLDERS
        if library and (not is_installed(kind.__module__) or root_of(kind.__module__) in ("torch", "pylinregion")):
            return value
        attributes = getattr(value, "__dict__", None)
        slots = _slots(kind)
        if (library and slots) or not (attributes or slots):
            return value  # nothing to write to, and perhaps known by what it is
        twin = _bare(kind) if isinstance(attributes, (dict, type(None))) else None
        if twin is None:
            return value

        def fill() -> None:
            if attributes:
                shallow = [(name, self._shallow(item)) for name, item in list(attributes.items())]
                vars(twin).update(shallow if library else self._items(attributes))
            if not library:
                self._fill_slots(value, twin)

        return self._keep(value, twin, fill)

    def _shallow(self, value: Any) -> Any:
        """What a library's object holds: modules, and containers as they are; a trainer reaches everything."""
        if isinstance(value, nn.Module) or id(value) in self._found:
            return self._twin(value)
        return value.copy() if type(value) in _CONTAINERS else value


def _slots(kind: Any) -> tuple[str, ...]:
    return slots_of(kind)


def _bare(kind: Any) -> Any:
    """An object of a class, empty; None if its class does not let that be made."""
    for new in (object.__new__, kind.__new__):  # its own last, which may have but one
        with contextlib.suppress(TypeError):
            return new(kind)
    return None


def copied(tensor: Tensor) -> Tensor:
    """A tensor's values in memory of their own, laid out as there."""
    own = tensor.detach()
    if own.is_contiguous() or own.is_conj() or own.is_neg() or own.is_quantized:
        return own.clone()
    sizes = [1 if step == 0 else size for size, step in zip(own.shape, own.stride(), strict=True)]
    once = own.as_strided(sizes, own.stride(), own.storage_offset())
    try:
        copy = torch.empty_strided(once.shape, once.stride(), dtype=own.dtype, device=own.device).copy_(once)
    except RuntimeError:  # places of it are the same memory in other ways
        return own.clone()
    return copy.expand(own.shape)


def _copied_generator(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy
