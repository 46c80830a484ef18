"""What stands for tensors that a part of a model cannot know.

A part may begin in the middle of a forward pass. That is run from its start all the same, for nothing else knows which
way it takes; in front of the part it runs with values that are absent, and what is computed of one is absent too.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

import torch
from torch import Tensor, nn

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.network import place
from pylinregion.graph.source import line_of, running_module, users_frame
from pylinregion.views.nested import leaves

_NOTHING = torch.empty(0, device="meta")  # has no values that could be taken for some
_TORCHS_MODULES = nn.__path__[0]


@dataclass
class Missing:
    """Why values are absent in one forward pass.

    Attributes:
        model: The model.
        path: The module whose input is all that is known.
        rows: How many points there are.
        begun: Whether there are values that depend on the points.
    """

    model: nn.Module
    path: str
    rows: Any
    begun: bool = False

    @functools.cached_property
    def own(self) -> set[int]:
        """The model's tensors, by id: what does not depend on the points."""
        return set(map(id, (*self.model.parameters(), *self.model.buffers())))

    def here(self) -> str:
        """Where the forward pass is, as a piece of a sentence."""
        frame, running = users_frame(sys._getframe(1), self.model), running_module()
        path = next((name for name, part in self.model.named_modules() if part is running), "")
        return place(path, "" if frame is None else line_of(frame))

    def refuse(self, why: str) -> NoReturn:
        """Say why more must be known, and what to do.

        Raises:
            UnsupportedModelError: Always.
        """
        if self.begun:
            problem = f"the part at '{self.path}' is no function of that module's input alone: {why}"
        else:
            problem = f"the way to '{self.path}' is not known without an input of the model: {why}"
        raise UnsupportedModelError(
            f"{problem}. plr.at(model, '{self.path}', like=x) takes what else is needed from an input x of the model, "
            "[1, *input_shape]"
        )


class AbsentValue(Tensor):
    """A value that is absent; see above. To the model's code it is a tensor.

    Attributes:
        missing: Why.
        met: Where values of the part went into it; "" if none did.
        as_wanted: Of a comparison, what it is if values are as they should be: true of ``==``, not of ``!=`` and ``<``.
    """

    missing: Missing
    met: str
    as_wanted: bool | None

    @classmethod
    def made(cls, missing: Missing, met: str = "", as_wanted: bool | None = None) -> AbsentValue:
        """A new one."""
        value: AbsentValue = Tensor._make_subclass(cls, _NOTHING)
        value.missing, value.met, value.as_wanted = missing, met, as_wanted
        return value

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> AbsentValue:
        name = func.__name__
        if name in ("__get__", "__set__"):
            return _computed(func.__self__.__name__, args, {}, writes=name == "__set__")
        writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        return _computed(name, args, kwargs or {}, writes=writes)

    def __bool__(self) -> bool:
        asking = sys._getframe(1).f_code.co_filename
        if self.as_wanted is not None and asking.startswith(_TORCHS_MODULES):
            return self.as_wanted  # these ask whether they are given what they take
        return self._ask()

    def _ask(self, *_: Any) -> NoReturn:
        self.missing.refuse(f"the shape or the values of another are asked for{self.missing.here()}")

    __iter__ = __len__ = __int__ = __float__ = __index__ = __complex__ = __contains__ = _ask
    __array__ = __dlpack__ = __deepcopy__ = __reduce_ex__ = _ask  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return "a value that is absent"

    def __format__(self, _: str) -> str:
        return repr(self)

    __hash__ = Tensor.__hash__

    def __eq__(self, other: object) -> Any:
        return _computed("eq", (self, other), {}, as_wanted=True)

    def __ne__(self, other: object) -> Any:
        return _computed("ne", (self, other), {}, as_wanted=False)

    def __lt__(self, other: object) -> Any:
        return _computed("lt", (self, other), {}, as_wanted=False)


def _computed(name: str, args: Any, kwargs: Any, *, writes: bool = False, as_wanted: bool | None = None) -> AbsentValue:
    """What a function makes of arguments some of which are absent."""
    values = [value for value in leaves((args, kwargs)) if isinstance(value, Tensor)]
    absent: list[AbsentValue] = [value for value in values if is_absent(value)]
    missing = absent[0].missing
    met = next((value.met for value in absent if value.met), "")
    if not met and missing.begun and any(not is_absent(v) and id(v) not in missing.own for v in values):
        met = f"{name.strip('_')}{missing.here()}"
    written = args[0] if writes else kwargs.get("out")
    if is_absent(written):
        written.met = met
    elif isinstance(written, Tensor):
        missing.refuse(f"another value goes into {name.strip('_')}{missing.here()}")
    return AbsentValue.made(missing, met, as_wanted)


def is_absent(value: Any) -> TypeGuard[AbsentValue]:
    """Whether a value is one of these."""
    return type(value) is AbsentValue


def first_absent(output: Any) -> AbsentValue | None:
    """The first in nested sequences, mappings and dataclasses; None if there is none."""
    return next((value for value in leaves(output) if is_absent(value)), None)
