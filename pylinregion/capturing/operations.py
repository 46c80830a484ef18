"""What a model runs, operator by operator: the sign by which a change of the model is noticed.

The model is run once, on a few real points, and each operator of torch that its outputs depend on is noted with its
arguments: which of the model's tensors, which results of operators before it, which numbers. While this transcript
stays the same, the model computes the same function of its points and its tensors, whatever its code reads besides:
settings, nested objects, globals, closures, hooks. The values of the model's tensors are no part of it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.capturing.tracing import output_tensors

_ITEM = torch.ops.aten._local_scalar_dense.default
_LEFT_BEHIND = "left behind by a tracer"
_Call = tuple[Any, tuple[Any, ...], dict[str, Any], Any]  # operator, arguments, result


def run(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    """What a model returns for points; what its operators write to other tensors, and draw at random, is undone."""
    return _watched(model, x)[1]


def overwritten(model: Callable[[Tensor], Any], x: Tensor) -> list[Tensor]:
    """Tensors that were there before, which the model overwrites and whose new values its outputs depend on."""
    watch, output = _watched(model, x)
    needed = _needed(watch.calls, output_tensors(output), items=False)
    read = [call for call in needed if "batch_norm" not in str(call[0])]  # which computes from what it averages
    found = [t for func, args, kwargs, _ in read for t in _About.of(func).written(args, kwargs)]
    return [tensor for tensor in found if watch.was_there(tensor)]


def reads(model: Callable[[Tensor], Any], x: Tensor, tensors: Iterable[Tensor]) -> bool:
    """Whether a model's operators are given memory of any of these tensors."""
    watch, _ = _watched(model, x)
    places = {_storage(tensor) for tensor in tensors}
    return any(_storage(tensor) in places for _, args, kwargs, _ in watch.calls for tensor in _tensors((args, kwargs)))


def writes(model: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Whether a model's operators overwrite memory that was there before."""
    return _watched(model, x)[0].writes


def transcript(
    model: Callable[[Tensor], Any],
    x: Tensor,
    tensors: Iterable[Tensor],
    live: Iterable[Tensor] = (),
    live_items: bool = False,
) -> Transcript:
    """What a model runs for points. As :func:`run` it leaves tensors and generators as they were.

    Args:
        model: The model.
        x: ``[B, *input_shape]``.
        tensors: The model's own, each time in the same order.
        live: Other tensors whose values are no part of the transcript.
        live_items: Numbers that the model takes out of these tensors (``.item()``) are none, either.

    Returns:
        A transcript that :func:`repeats` compares with another run.

    Raises:
        UnsupportedModelError: The model reads a tensor that a tracer has left behind.
    """
    watch, output = _watched(model, x)
    outputs = output_tensors(output)
    needed = _needed(watch.calls, outputs, live_items)
    words = _Words(x, list(tensors), list(live), live_items).of(needed, outputs)
    if _LEFT_BEHIND in words:
        raise UnsupportedModelError(
            "the forward pass keeps what it computes in a place that could not be put back after it was traced"
        )
    return Transcript(words)


def repeats(
    kept: Transcript,
    model: Callable[[Tensor], Any],
    x: Tensor,
    tensors: Iterable[Tensor],
    live: Iterable[Tensor] = (),
    live_items: bool = False,
) -> bool:
    """Whether a model runs what it ran when a transcript was made; arguments as those of :func:`transcript`."""
    watch, output = _watched(model, x)
    outputs = output_tensors(output)
    tensors, live = list(tensors), list(live)
    every = _Words(x, tensors, live, live_items).of(watch.calls, outputs)
    if every == kept.every:
        return True
    needed = _needed(watch.calls, outputs, live_items)
    if _Words(x, tensors, live, live_items).of(needed, outputs) != kept.needed:
        return False
    kept.every = every
    return True


@dataclass
class Transcript:
    """What a model ran.

    Attributes:
        needed: The operators that outputs depend on, in words.
        every: All that ran when it was last compared: where all is as it was, what is needed need not be found.
    """

    needed: list[Any]
    every: list[Any] | None = None


def _watched(model: Callable[[Tensor], Any], x: Tensor) -> tuple[_Watch, Any]:
    watch = _Watch(x)
    try:
        with watch:
            output = model(x)
    finally:
        watch.undo()
    return watch, output


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what operators are called with, and the values of what they overwrite."""

    supports_higher_order_operators = True

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self._made = {_storage(x)}  # memory that is nobody else's
        self._looked_at = 0
        self._written: dict[int, tuple[Any, Any]] = {}
        self._drawn: dict[int, tuple[torch.Generator, Tensor]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled meanwhile, and saying so to each operator takes longer than the operator

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        about = _About.of(func)
        if about.writes:
            self._keep_values(about.written(args, kwargs))
        if about.draws:
            self._keep_generator(args, kwargs)
        output = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, output))
        return output

    def _keep_values(self, tensors: Iterable[Tensor]) -> None:
        for _, args, kwargs, output in self.calls[self._looked_at :]:
            given = {_storage(tensor) for tensor in _tensors((args, kwargs))} - self._made
            self._made |= {_storage(tensor) for tensor in _tensors(output)} - given
        self._looked_at = len(self.calls)
        for tensor in tensors:
            if (place := _storage(tensor)) not in self._made and place not in self._written and place > 0:
                storage = tensor.untyped_storage()
                self._written[place] = storage, storage.clone()  # type: ignore[no-untyped-call]

    def _keep_generator(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        generator = kwargs.get("generator")
        if generator is None:
            devices = [tensor.device for tensor in _tensors((args, kwargs))]
            device = devices[0] if devices else torch.device(kwargs.get("device") or "cpu")
            generator = torch.default_generator
            if device.type == "cuda":
                generator = torch.cuda.default_generators[device.index or 0]
        if id(generator) not in self._drawn:
            self._drawn[id(generator)] = generator, generator.get_state()

    @property
    def writes(self) -> bool:
        """Whether memory that was there before has been written to."""
        return bool(self._written)

    def was_there(self, tensor: Tensor) -> bool:
        """Whether the tensor's memory was there before, and has been written to."""
        return _storage(tensor) in self._written

    def undo(self) -> None:
        """Give memory and generators back what they had."""
        for storage, values in self._written.values():
            storage.copy_(values)
        for generator, state in self._drawn.values():
            generator.set_state(state)


class _About:
    """What an operator does besides computing its results."""

    def __init__(self, func: Any) -> None:
        schema = getattr(func, "_schema", None)  # operators that take functions have none
        batch_norm = schema is not None and "batch_norm" in schema.name
        unsaid = ("running_mean", "running_var") if batch_norm else ()
        arguments = list(enumerate(schema.arguments if schema is not None else ()))
        # In eval mode its averages are left alone: another thread may train them, and they need not be put back.
        self._training = next((at for at, argument in arguments if batch_norm and argument.name == "training"), None)
        self._written = [
            (position, argument.name)
            for position, argument in arguments
            if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in unsaid
        ]
        self.writes = bool(self._written)
        self.draws = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())

    @staticmethod
    @functools.cache
    def of(func: Any) -> _About:
        """Of an operator."""
        return _About(func)

    def written(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The arguments that it may write to."""
        if self._training is not None and len(args) > self._training and args[self._training] is False:
            return []
        found = [args[at] if at < len(args) else kwargs.get(name) for at, name in self._written]
        return list(_tensors(found))


class _Words:
    """Puts calls into words that two runs have in common: tensors get names.

    Args:
        x, tensors, live, live_items: As for :func:`transcript`.
    """

    def __init__(self, x: Tensor, tensors: list[Tensor], live: list[Tensor], live_items: bool) -> None:
        self._names: dict[int, Any] = {id(tensor): ("tensor", number) for number, tensor in enumerate(tensors)}
        self._names[id(x)] = "x"
        self._given = x, tensors, live
        self._results: list[tuple[Any, Tensor]] = []
        self._places: dict[int, Any] = {}  # by memory, of given tensors and of the results before
        self._live_items = live_items
        self._items: dict[str, Any] = {}

    def of(self, calls: list[_Call], outputs: list[Tensor]) -> list[Any]:
        """The words."""
        found: list[Any] = []
        for number, (func, args, kwargs, output) in enumerate(calls):
            found.append(func)
            self._say(args, found)
            if kwargs:
                self._say(kwargs, found)
            if isinstance(output, Tensor):
                self._result((number, 0), output)
            elif func is _ITEM:
                self._items[repr(output)] = ("item", number)
            else:
                for place, tensor in enumerate(_tensors(output)):
                    self._result((number, place), tensor)
        self._say(outputs, found)
        return found

    def _result(self, name: Any, tensor: Tensor) -> None:
        self._names[id(tensor)] = name
        self._results.append((name, tensor))

    def _say(self, value: Any, found: list[Any]) -> None:
        if isinstance(value, Tensor):
            found.append(self._names.get(id(value)) or self._name(value))
        elif isinstance(value, (list, tuple)):
            found.append(len(value))
            for item in value:
                self._say(item, found)
        elif isinstance(value, dict):
            found.append(tuple(value))
            for item in value.values():
                self._say(item, found)
        elif isinstance(value, torch.Generator):
            found.append("generator")
        else:
            text = repr(value)  # unlike numbers themselves, tells 1 from 1.0, and finds NaN equal to itself
            found.append(self._items.get(text, text))

    def _name(self, tensor: Tensor) -> Any:
        if isinstance(tensor, FakeTensor):
            return _LEFT_BEHIND
        self._find_places()
        geometry = (tensor.dtype, tuple(tensor.shape), tensor.storage_offset(), tensor.stride())
        place = self._places.get(_storage(tensor))
        name = (place, geometry) if place is not None else _digest(tensor)
        self._names[id(tensor)] = name
        return name

    def _find_places(self) -> None:
        if not self._places:
            x, tensors, live = self._given
            self._places = {_storage(tensor): ("live", number) for number, tensor in enumerate(live)}
            self._places |= {_storage(tensor): ("of", number) for number, tensor in reversed(list(enumerate(tensors)))}
            self._places[_storage(x)] = "x"
        for name, tensor in self._results:
            self._places.setdefault(_storage(tensor), name)
        self._results.clear()


def _needed(calls: list[_Call], outputs: list[Tensor], items: bool) -> list[_Call]:
    """The calls that outputs depend on, and with ``items`` those that take a number out of a tensor; in order."""
    tensors = {id(tensor) for tensor in outputs}
    places = {_storage(tensor) for tensor in outputs}
    found = []
    for call in reversed(calls):
        func, args, kwargs, output = call
        given = list(_tensors((args, kwargs)))
        own = {_storage(tensor) for tensor in given}
        wanted = items and func is _ITEM
        for tensor in _tensors(output):  # a view counts if it is used itself, new memory also where others look at it
            wanted |= id(tensor) in tensors or ((place := _storage(tensor)) in places and place not in own)
        if wanted or any(_storage(tensor) in places for tensor in _About.of(func).written(args, kwargs)):
            found.append(call)
            tensors.update(map(id, given))
            places |= own
    return found[::-1]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _storage(tensor: Tensor) -> int:
    """A name of a tensor's memory, above 0; below 0 where it has none of the usual kind."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return -id(tensor)


def _digest(tensor: Tensor) -> Any:
    """The values of a tensor that is neither the model's nor a result."""
    values = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
    data = values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(data).digest()
