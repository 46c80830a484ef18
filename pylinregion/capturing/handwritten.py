"""Smooth activations that a model writes out (``0.5 * z * (1 + erf(z / sqrt(2)))``), as the one operator that they are.

Operators that take each number by itself make one function of one number of it. Where that agrees with a known
activation at many points in float64, constants and all, it is that activation: two formulas of a few elementary
functions do not agree so unless they are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

# Operators of one number, or of several that are all made of the same one.
_OF_NUMBERS = (
    "add sub rsub mul div neg square pow reciprocal sqrt rsqrt exp exp2 expm1 log log1p log2 erf erfc tanh sigmoid "
    "softplus silu gelu log_sigmoid sinh cosh clone alias detach special_erf special_erfc special_expit"
)
_MOST = 24  # operators in a formula


def _quick_gelu(z: Tensor) -> Tensor:
    return z * torch.sigmoid(1.702 * z)


_KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "gelu": (F.gelu, functools.partial(F.gelu, approximate="tanh")),
    "quick_gelu": (_quick_gelu,),
    "silu": (F.silu,),
    "mish": (F.mish,),
    "sigmoid": (torch.sigmoid,),
    "tanh": (torch.tanh,),
    "softplus": (F.softplus,),
    "log_sigmoid": (F.logsigmoid,),
}
_CLOSE = 1e-13  # a few roundings of numbers up to 8; constants of ten digits are further off


class Formula:
    """A piece of a graph as one operator: a function of one tensor, number by number.

    Args:
        name: The activation that it is.
        operand: The node that it is a function of.
        nodes: Its operators in order; the last is the result.
    """

    def __init__(self, name: str, operand: fx.Node, nodes: list[fx.Node]) -> None:
        self.__name__ = name
        places = {operand: 0, **{node: place for place, node in enumerate(nodes, 1)}}
        last = {places[read]: place for place, node in enumerate(nodes, 1) for read in node.all_input_nodes}
        self.steps: list[tuple[Any, ...]] = []
        for node in nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda read: _Place(places[read]))  # type: ignore
            dropped = [value for value, place in last.items() if place == places[node]]
            self.steps.append((node.target, args, kwargs, dropped))

    def __call__(self, z: Tensor) -> Tensor:
        """The activation, by the operators that were written."""
        values = {0: z}

        def value_of(argument: Any) -> Any:
            return values[argument.index] if isinstance(argument, _Place) else argument

        for place, (target, args, kwargs, dropped) in enumerate(self.steps, 1):
            values[place] = target(*map(value_of, args), **{key: value_of(value) for key, value in kwargs.items()})
            for index in dropped:
                del values[index]
        return values[len(self.steps)]

    def __repr__(self) -> str:
        return f"{self.__name__} {self.steps}"


@dataclass(frozen=True)
class _Place:
    index: int


def recognise(graph: fx.Graph) -> None:
    """Put one operator in the place of each activation that is written out; the largest formula wins."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for result in reversed(order):
        if not result.users or not _is_of_numbers(result):
            continue
        for operand, nodes in _formulas(result, order):
            if (name := _name_of(operand, nodes)) is not None:
                with graph.inserting_before(result):
                    formula = graph.call_function(Formula(name, operand, nodes), (operand,))
                formula.meta = dict(result.meta)
                result.replace_all_uses_with(formula)
                for node in reversed(nodes):
                    graph.erase_node(node)
                break


def _formulas(result: fx.Node, order: dict[fx.Node, int]) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """Each node that a result is a function of, number by number, with the operators in between in order."""
    between = [result]
    while len(between) <= _MOST:
        operands = {operand for node in between for operand in node.all_input_nodes} - set(between)
        if len(operands) == 1 and len(between) > 1 and _used_within(between):
            yield next(iter(operands)), sorted(between, key=order.__getitem__)
        if not operands or not _is_of_numbers(last := max(operands, key=order.__getitem__)):
            return
        between.append(last)


def _used_within(nodes: list[fx.Node]) -> bool:
    """Whether nobody else reads what is before the first, the result."""
    return all(user in nodes for node in nodes[1:] for user in node.users)


def _is_of_numbers(node: fx.Node) -> bool:
    target = node.target
    known = (
        isinstance(target, torch._ops.OpOverload) and target._schema.name.removeprefix("aten::") in _OF_NUMBERS.split()
    )
    return node.op == "call_function" and known and "rounding_mode" not in node.kwargs


def _name_of(operand: fx.Node, nodes: list[fx.Node]) -> str | None:
    """The activation that a formula is, or None."""
    z, known = _table()
    values = Formula("", operand, nodes)(z)
    if values.shape != z.shape:
        return None
    return next((name for name, want in known if bool(((values - want).abs() <= _CLOSE * (1 + z.abs())).all())), None)


@functools.cache
def _table() -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """Many numbers, and what the activations are there."""
    z = torch.linspace(-8.0, 8.0, 201, dtype=torch.float64, device="cpu")
    return z, [(name, function(z)) for name, functions in _KNOWN.items() for function in functions]
