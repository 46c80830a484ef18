"""A step of a program: one function of what the steps of a run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pylinregion.graph.network import Node, refs
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.runtime.kink_evaluators import Counter, kink_evaluator
from pylinregion.runtime.step_arguments import resolved
from pylinregion.runtime.workspace import Workspace

CounterOf = Callable[[int], Counter]  # layer number -> where its kink reports to


@dataclass(slots=True)
class Context:
    """What the steps of one run share.

    Attributes:
        values: Those that are there, by node.
        rows: The size of the batch that runs through the program.
        counter_of: Where the layers report to.
        workspace: Memory for packed layers; None: they allocate.
        threads: Of the packed layers.
    """

    values: dict[int, Any]
    rows: int
    counter_of: CounterOf | None = None
    workspace: Workspace | None = None
    threads: int = 1


Run = Callable[[Context], Any]


@dataclass(frozen=True)
class Step:
    """One value, and how it comes about.

    Attributes:
        node: The value.
        run: Computes it.
        target, args, kwargs: The operator and its arguments, as ``run`` takes them; no target: there is no operator.
        layer: The number of the layer if it is one that is counted, else -1.
        form: Values that it needs at the vertices: a Split among them is formed.
        free: Values that nobody needs afterwards.
        dense: Whether it is a linear layer with constant weights, in a program that is bound.
    """

    node: int
    run: Run
    target: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    layer: int = -1
    form: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    dense: bool = False

    @property
    def operands(self) -> list[int]:
        """The values that its arguments refer to, in order."""
        return [ref.index for ref in refs((self.args, self.kwargs))]


def operator(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
    """Call an operator."""

    def run(context: Context) -> Any:
        values = context.values
        return target(*resolved(args, values), **resolved(kwargs, values))

    return run


def counted_kink(node: Node, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
    """Evaluate the kink of layer ``number``, which reports to its counter."""
    evaluate = kink_evaluator(node)

    def run(context: Context) -> Any:
        assert context.counter_of is not None
        values = context.values
        return evaluate(context.counter_of(number), resolved(args, values), resolved(kwargs, values))

    return run


def packed_layer(layer: PackedLinear, operand: Any, slot: int) -> Run:
    """Apply a packed linear layer, into the memory of its slot."""

    def run(context: Context) -> Any:
        x, out = resolved(operand, context.values), None
        if context.workspace is not None:
            shape = (x.numel() // layer.in_features, layer.out_features)
            out = context.workspace.take(slot, shape, x.dtype, x.device)
        return layer(x, out, context.threads)

    return run


def multiple_of_rows(factor: int) -> Run:
    """A size that is a multiple of that of the batch."""
    return lambda context: context.rows * factor
