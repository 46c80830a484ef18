"""What a forward pass asks in Python of its tensors' values: the branches that it takes, and the numbers that it reads.

No tracer can answer that: its tensors have no values. So the model runs once with values, every question and its answer
is noted, and while it is traced the same questions get the same answers. What was asked about is returned beside the
outputs, so that the graph tells what it depends on. :mod:`pylinregion.capturing.classify` makes guards of what does not
depend on the input, and refuses the rest but for checks that values are finite.
"""

from __future__ import annotations

import abc
import copy
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pylinregion.graph.network import place
from pylinregion.graph.source import line_of, running_module, users_frame
from pylinregion.views.absent import is_absent
from pylinregion.views.model_view import innermost


def _itself(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


def _equal(a: Tensor, b: Tensor) -> Tensor:
    return (a == b).all() if a.shape == b.shape else torch.zeros((), dtype=torch.bool, device=a.device)


# Functions that make Python's values of tensors, each with the tensor that the value is read from.
_ASK_FOR_ONE = (  # of which a tracer's tensors may call another than they were asked
    *(getattr(Tensor, f"__{kind}__") for kind in ("bool", "int", "float", "complex", "index")),
    *(Tensor.item, Tensor.is_nonzero, torch.is_nonzero, torch._assert),
)
_ASKS: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys((*_ASK_FOR_ONE, Tensor.tolist, Tensor.numpy, Tensor.__array__), _itself),
    **dict.fromkeys([torch.equal, Tensor.equal], _equal),
    **dict.fromkeys([torch.allclose, Tensor.allclose], lambda *args, **kwargs: torch.isclose(*args, **kwargs).all()),
    Tensor.__contains__: lambda tensor, element: (element == tensor).any(),
}


@dataclass(frozen=True)
class Asked:
    """One question and its answer.

    Attributes:
        answer: Python's value.
        seen: A copy of the tensor that it was read from.
        place: Module path and source line, for messages.
    """

    answer: Any
    seen: Tensor
    place: str


Questions = dict[tuple[Any, int], Asked]  # by where in the code and how they are asked, and how often they were before


class _Asking(TorchFunctionMode, abc.ABC):
    """Knows where questions are asked."""

    def __init__(self) -> None:
        super().__init__()
        self._times: Counter[Any] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read_from = _ASKS.get(func)
        if read_from is None or not args or not isinstance(args[0], Tensor) or is_absent(args[0]):
            return func(*args, **(kwargs or {}))
        frame = users_frame(sys._getframe(1))
        at: tuple[CodeType, int] | None = None if frame is None else (frame.f_code, frame.f_lasti)
        where = at, None if func in _ASK_FOR_ONE else func
        key = where, self._times[where]
        self._times[where] += 1
        return self.answer(key, frame, lambda: func(*args, **(kwargs or {})), read_from(*args, **(kwargs or {})))

    @abc.abstractmethod
    def answer(self, key: tuple[Any, int], frame: FrameType | None, ask: Callable[[], Any], tensor: Tensor) -> Any:
        """The answer to one question."""


class Noting(_Asking):
    """Notes every question that a forward pass asks inside, and its answer.

    Args:
        module: The model, for the names of its parts.

    Attributes:
        asked: The questions.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.asked: Questions = {}
        self._names = {id(part): name for name, part in innermost(module).named_modules()}

    def answer(self, key: tuple[Any, int], frame: FrameType | None, ask: Callable[[], Any], tensor: Tensor) -> Any:
        """Torch's own, noted."""
        answer, at = ask(), ""
        if frame is not None:
            at = place(self._names.get(id(running_module()), ""), line_of(frame))
        self.asked[key] = Asked(copy.copy(answer), tensor.detach().clone(), at)  # an array shares its memory
        return answer


class Replaying(_Asking):
    """Answers the questions of a traced forward pass as they were answered before.

    Numbers that the tracer takes for symbols are left to it, as long as it need not branch on them: the graph then
    follows them.

    Args:
        asked: What was noted.
        symbols: Whether to leave numbers to the tracer.

    Attributes:
        answered: What was answered so, the last time.
        read_from: For each, the tensor in the graph.
    """

    def __init__(self, asked: Questions, symbols: bool = False) -> None:
        super().__init__()
        self._asked, self._symbols = asked, symbols
        self.answered: list[Asked] = []
        self.read_from: list[Tensor] = []

    def __enter__(self) -> Replaying:
        self._times.clear()
        self.answered, self.read_from = [], []
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def answer(self, key: tuple[Any, int], frame: FrameType | None, ask: Callable[[], Any], tensor: Tensor) -> Any:
        """The one that was noted, or the tracer's."""
        asked = self._asked.get(key)
        if asked is None:
            return ask()
        if self._symbols and isinstance(asked.answer, (int, float, list)) and not isinstance(asked.answer, bool):
            symbol = ask()
            if _symbolic(symbol):
                return symbol
        self.answered.append(asked)
        self.read_from.append(tensor.clone())
        return copy.copy(asked.answer)


def _symbolic(value: Any) -> bool:
    if isinstance(value, list):
        return any(_symbolic(item) for item in value)
    return isinstance(value, (torch.SymInt, torch.SymFloat))
