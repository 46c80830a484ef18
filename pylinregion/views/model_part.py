"""Parts of a model, as models: from the input of one of its modules on, and up to the output of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.isolation import isolated
from pylinregion.graph.source import place_in_users_code
from pylinregion.views.absent import AbsentValue, Missing, first_absent, is_absent
from pylinregion.views.free_input import BY_POSITION, for_needed_inputs, inputs_of
from pylinregion.views.model_view import ModelView, innermost, rows_of
from pylinregion.views.module_calls import ModulePath, PathError, first_tensor_of
from pylinregion.views.nested import leaves, mapped


def at(model: nn.Module, path: str, *, like: Any = None) -> PartFrom:
    """The part of a model from the input of one of its modules on, as a model.

    Its points are what that module takes: embeddings, what a convolutional stem makes of images. It runs the live
    model, so all functions of the package follow its weights; modules and layers have the names that they have there.
    Make it once and keep it: it is captured once.

    Whatever else is computed in front of the module is unknown. If what comes behind it needs more of that than the
    module's input (a residual connection around it, an attention mask), it is no function of this input alone, and is
    refused with the place where it does; ``like`` holds all that fixed. An argument of the module that is the same
    tensor as its first is replaced with it; other tensors that it takes are such other values.

    Args:
        model: A module, or a part of one: ``plr.to(plr.at(model, "a"), "b")`` is what lies between.
        path: ``"module.path"``, as ``named_modules()`` has it; of a module that is called several times
            ``"module.path:0"``, ``"module.path:1"``, ... for its first use, its second.
        like: One input of the model, ``[1, *input_shape]``; of a model that takes several, a tuple of its arguments, or
            a dictionary of them by name. What the part needs besides its points is what the model in front of it makes
            of this input, with the weights of now.

    Returns:
        A module that takes points ``[B, *shape]``, ``shape`` being that of the module's input. Its method
        ``points(x)`` says what the model makes of its own inputs there.

    Raises:
        ValueError: ``path`` names no module, or one that is never called; ``like`` is no single input.
        TypeError: ``model`` is no module, or ``path`` no string.

    What shows when the forward pass runs is an ``UnsupportedModelError`` there: it does not call the module, calls it
    several times, needs what is unknown, or gives the module no tensor of numbers.

    >>> import torch, pylinregion as plr
    >>> stem = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> model = torch.nn.Sequential(stem, torch.nn.Linear(8, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    >>> part = plr.at(model, "1")
    >>> h = part.points(torch.zeros(6, 1, 4, 4))
    >>> h.shape
    torch.Size([6, 8])
    >>> plr.count_regions(part, h, radius=0.1, method="slice").layers
    ('2',)
    """
    return PartFrom(model, path, like)


def to(model: nn.Module, path: str) -> PartUpTo:
    """The part of a model up to the output of one of its modules, as a model.

    What would come behind it is not looked at. As for :func:`pylinregion.at`, it runs the live model and has its names.

    Args:
        model: A module, or a part of one.
        path: As for :func:`pylinregion.at`.

    Returns:
        A module that takes what ``model`` takes, and returns what the named module does.

    Raises:
        ValueError: ``path`` names no module, or one that is never called.
        TypeError: ``model`` is no module, or ``path`` no string.

    >>> import torch, pylinregion as plr
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2), torch.nn.Softmax(1))
    >>> plr.to(model, "2")(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    return PartUpTo(model, path)


class PartFrom(ModelView):
    """A model from the input of one of its modules on; see :func:`pylinregion.at`.

    Args:
        model, path, like: See there.
    """

    def __init__(self, model: nn.Module, path: str, like: Any = None) -> None:
        super().__init__(model)
        self.path = ModulePath.of(innermost(self), path)
        self.like = like is not None
        if self.like:
            self.hold(*_example(like))

    def extra_repr(self) -> str:
        """Where it begins."""
        return f"at='{self.path}'"

    def forward(self, x: Tensor) -> Any:
        """What the model returns if the module takes ``x``, ``[B, *shape]``."""
        model = innermost(self)
        missing = Missing(model, str(self.path), rows_of(x))

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            given = self._check_takes(x, args, kwargs)
            missing.begun = True
            args = tuple(x if value is given else value for value in args)
            return args, {name: x if value is given else value for name, value in kwargs.items()}

        if self.like:
            args, kwargs = self.arguments(missing.rows)
        else:
            args, kwargs = for_needed_inputs(self.model, lambda: AbsentValue.made(missing))
        try:
            with self.path.called(model, before=enter):
                output = self.model(*args, **kwargs)
        except TypeError as error:
            if AbsentValue.__name__ in str(error):
                missing.refuse(f"another value is needed{place_in_users_code(error, model)}")
            raise
        return present(output, "the model")

    def points(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the model makes of its own inputs where the part begins: the part's points.

        Args:
            args, kwargs: The model's, ``[B, *input_shape]``; it is in eval mode for them, and left as it was.

        Returns:
            ``[B, *shape]``: what the module takes, a copy.

        Raises:
            UnsupportedModelError: The module is not called, or takes no tensor of numbers.
        """
        found: list[Tensor] = []
        model = innermost(self)
        with isolated(self), torch.no_grad():
            with self.path.called(model, before=lambda args, kwargs: found.append(self._taken(args, kwargs))):
                self.model(*args, **kwargs)
            return found[0].detach().clone()

    def module_alone(self, end: ModulePath) -> nn.Module | None:
        """The module itself, if a part that ends there needs nothing else; None if it may."""
        module = innermost(self).get_submodule(self.path.name)
        inside = None is self.path.use is end.use and f"{end.name}.".startswith(f"{self.path.name}.")
        takes_one = [each.kind in BY_POSITION for each in inputs_of(module).values()] == [True]
        return module if takes_one and not self.like and (inside or end == self.path) else None

    def _taken(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What the module takes, the first tensor."""
        given = first_tensor_of(args, kwargs)
        if given is None:
            kinds = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
            raise UnsupportedModelError(f"'{self.path}' must take a tensor for a part to begin there, it takes {kinds}")
        if not is_absent(given) and not given.is_floating_point():
            raise UnsupportedModelError(
                f"'{self.path}' must take floating point numbers for a part to begin there, it takes {given.dtype}"
            )
        return given

    def _check_takes(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Points of the shape that the module takes, so far as that is known."""
        given = self._taken(args, kwargs)
        if self.like and not is_absent(given) and not is_absent(x) and given.shape != x.shape:
            one, rows = list(given.shape), x.shape[0]
            raise ValueError(f"'{self.path}' takes {one} for {rows} such inputs as like, got {list(x.shape)}")
        return given


class PartUpTo(ModelView):
    """A model up to the output of one of its modules; see :func:`pylinregion.to`.

    Args:
        model, path: See there.
    """

    takes_the_models_inputs = True

    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__(model)
        self.path = ModulePath.of(innermost(self), path)

    def extra_repr(self) -> str:
        """Where it ends."""
        return f"to='{self.path}'"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns when the model takes these arguments."""
        found: list[Any] = []
        model = innermost(self)
        x = next((value for value in leaves((args, kwargs)) if isinstance(value, Tensor)), None)
        missing = Missing(model, str(self.path), None if x is None else rows_of(x))

        def leave(output: Any) -> Any:
            found.append(output)
            if self.path.use is None and get_proxy_mode() is None:
                return mapped(output, _copied)  # go on, to see whether the module is called again
            return AbsentValue.made(missing)  # what is made of it is nobody's business

        alone = self.model.module_alone(self.path) if isinstance(self.model, PartFrom) else None
        run, path = (self.model, self.path) if alone is None else (alone, ModulePath(self.path.name))
        with path.called(model, after=leave), _tracers_place_kept():
            try:
                run(*args, **kwargs)
            except PathError:
                raise
            except Exception:
                if not found:
                    raise
        return present(found[0], f"'{self.path}'")


def present(output: Any, whose: str) -> Any:
    """What a part returns, if nothing of it is absent.

    Raises:
        UnsupportedModelError: Something is.
    """
    absent = first_absent(output)
    if absent is None:
        return output
    if absent.met:
        absent.missing.refuse(f"another value goes into {absent.met}")
    raise UnsupportedModelError(
        f"{whose} returns something that does not depend on the input of '{absent.missing.path}' "
        "(of several outputs, plr.select(model, key) takes one)"
    )


@contextlib.contextmanager
def _tracers_place_kept() -> Iterator[None]:
    """A tracer is in the same module afterwards, also if an error came through the modules that it was in."""
    stack = getattr(getattr(get_proxy_mode(), "tracer", None), "module_stack", None)
    kept = None if stack is None else stack.copy()
    try:
        yield
    finally:
        if stack is not None:
            stack.clear()
            stack.update(kept)


def _copied(value: Any) -> Any:
    """A tensor that nobody else writes to."""
    return value.clone() if isinstance(value, Tensor) and not is_absent(value) else value


def _example(like: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that an example is.

    Raises:
        ValueError: It is not of one point.
    """
    if isinstance(like, Mapping):
        args, kwargs = (), dict(like)
    else:
        args, kwargs = tuple(like) if isinstance(like, (tuple, list)) else (like,), {}
    shapes = [list(value.shape) for value in leaves((args, kwargs)) if isinstance(value, Tensor)]
    if not shapes:
        raise TypeError(
            f"like must be a tensor, a tuple of arguments or a dictionary of them, got {type(like).__name__}"
        )
    if not any(shape[:1] == [1] for shape in shapes):
        raise ValueError(f"like must be one input of the model, [1, *input_shape], got {', '.join(map(str, shapes))}")
    return args, kwargs
