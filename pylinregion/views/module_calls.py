"""The calls of one of a model's modules in a forward pass: finding it by its path, and stepping in."""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pylinregion._util.errors import UnsupportedModelError

_NAMED = 3  # paths that messages name


class PathError(UnsupportedModelError):
    """A forward pass does not call a module as its path says."""


@dataclass(frozen=True)
class ModulePath:
    """One of a model's modules, and one of its uses.

    Attributes:
        name: The module path.
        use: Which of its calls in a forward pass, from 0 on; None: it must be the only one.
    """

    name: str
    use: int | None = None

    @classmethod
    def of(cls, model: nn.Module, path: Any) -> ModulePath:
        """What ``"module.path"`` or ``"module.path:1"`` names.

        Raises:
            TypeError: It is no string.
            ValueError: It names none of the model's modules, or one that is never called.
        """
        if not isinstance(path, str):
            raise TypeError(f"path must be a string, the path of a module, got {type(path).__name__}")
        modules: dict[str, nn.Module] = {}
        for each, module in model.named_modules(remove_duplicate=False):
            modules.setdefault(each.replace("._orig_mod", ""), module)  # of torch.compile, as layers are named too
        name, colon, number = path.rpartition(":") if path not in modules else (path, "", "")
        if colon and name in modules and not (number.isascii() and number.isdigit()):
            raise ValueError(f"path must end in ':' and the number of a use, from 0 on, got {path!r}")
        if not name or name not in modules:
            raise ValueError(f"path must name a module of the model, got {path!r}{_near(name or path, modules)}")
        if getattr(modules[name].forward, "__func__", None) is nn.Module.forward:
            inside = _listed([_joined(name, child) for child, _ in modules[name].named_children()])
            kind = type(modules[name]).__name__
            raise ValueError(
                f"path must name a module that is called, got {path!r}, a {kind}: name one of those in it, {inside}"
            )
        return cls(name, int(number) if colon else None)

    def __str__(self) -> str:
        return self.name if self.use is None else f"{self.name}:{self.use}"

    @contextlib.contextmanager
    def called(
        self,
        model: nn.Module,
        *,
        before: Callable[[tuple[Any, ...], dict[str, Any]], Any] | None = None,
        after: Callable[[Any], Any] | None = None,
    ) -> Iterator[None]:
        """Step in when a forward pass of this thread comes to the call.

        Args:
            model: Whose module it is.
            before: Is given the arguments, before any hook of the module is, and gives those to take, or None.
            after: Is given what the module and its hooks return, and gives what to return instead.

        Raises:
            PathError: The forward pass has not come to the call, or to several.
        """
        module, thread, calls = model.get_submodule(self.name), threading.get_ident(), 0

        def is_it() -> bool:
            nonlocal calls
            if threading.get_ident() != thread:
                return False
            calls += 1
            return calls - 1 == (self.use or 0)

        if before is not None:
            enter = before
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs: enter(args, kwargs) if is_it() else None, prepend=True, with_kwargs=True
            )
        else:
            assert after is not None
            leave = after
            handle = module.register_forward_hook(lambda _, __, output: leave(output) if is_it() else None)
        try:
            yield
        finally:
            handle.remove()
        if calls == 0:
            raise PathError(f"the model's forward pass does not call '{self.name}'")
        if self.use is None and calls > 1:
            raise PathError(
                f"the model's forward pass calls '{self.name}' {calls} times: say which, '{self.name}:0' to "
                f"'{self.name}:{calls - 1}'"
            )
        if self.use is not None and self.use >= calls:
            times = "once" if calls == 1 else f"{calls} times"
            raise PathError(f"the model's forward pass calls '{self.name}' {times}: there is no '{self}'")


def first_tensor_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first argument of a call that is a tensor."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def _near(name: str, modules: dict[str, nn.Module]) -> str:
    """Which modules may have been meant, as a piece of a sentence."""
    parent, wrong = "", name
    while wrong and (step := _joined(parent, wrong.split(".")[0])) in modules:
        parent, wrong = step, wrong.partition(".")[2]
    children = [child for child, _ in modules[parent].named_children()]
    longer = [each for each in modules if each.endswith(f".{name}")]
    close = [_joined(parent, child) for child in difflib.get_close_matches(wrong.split(".")[0], children, _NAMED)]
    if longer or close:
        return f" (near it: {_listed(longer or close)})"
    return f" (there are {_listed([_joined(parent, child) for child in children])})" if children else ""


def _joined(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent else child


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
