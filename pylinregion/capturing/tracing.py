"""From a module or an exported program to a graph of torch's operators, without mutations.

No single mechanism takes every model, so there are several, in the order of :func:`attempts`. What the operators are to
the input is no matter of this module.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.capturing.branches import Asked, Questions, Replaying
from pylinregion.capturing.node_source import own_name
from pylinregion.graph.operators import lookup
from pylinregion.graph.source import place_in_users_code
from pylinregion.views.absent import is_absent
from pylinregion.views.model_view import depth, innermost
from pylinregion.views.nested import leaves

EXAMPLE_ROWS = 3  # more than one, since sizes 0 and 1 are special to the tracers


class FinalRefusal(UnsupportedModelError):
    """A refusal that stands whatever another mechanism makes of the model."""


@dataclasses.dataclass
class TracedGraph:
    """What a tracing mechanism gives.

    Attributes:
        graph: Operators of torch, without mutations.
        state: The tensors it reads: placeholder or attribute -> (name in the model, tensor).
        parameters: The names in the model that are parameters.
        input_name: The placeholder of the input.
        method: The mechanism, in words.
        root: What module paths in the graph begin with and the model's do not.
        asked: What Python was told of values while it was traced; the graph's last outputs are what that was read from.
    """

    graph: fx.Graph
    state: dict[str, tuple[str, Tensor]]
    parameters: frozenset[str]
    input_name: str
    method: str
    root: str = ""
    asked: tuple[Asked, ...] = ()


def attempts(module: nn.Module, example: Tensor, asked: Questions) -> list[Callable[[], TracedGraph]]:
    """The mechanisms, in the order in which to try them.

    Args:
        module: The model.
        example: ``EXAMPLE_ROWS`` points.
        asked: What the model asks of values on its way with these.
    """
    numbers = any(not isinstance(question.answer, bool) for question in asked.values())
    return [
        lambda: _export(_Flat(module, Replaying(asked, symbols=True)), example, strict=False),
        *[lambda: _export(_Flat(module, Replaying(asked)), example, strict=False)] * numbers,
        lambda: _make_fx(_Flat(module, Replaying(asked)), example),
        lambda: _export(_Flat(module), example, strict=True),
    ]


def failure(errors: Sequence[BaseException], module: nn.Module) -> str:
    """Why and where in the user's code the tracers gave up: what the first of them says that knows where."""
    places = [place_in_users_code(error, innermost(module)) for error in errors]
    error, at = next(((error, at) for error, at in zip(errors, places, strict=True) if at), (errors[0], ""))
    text = str(error)
    if "data-dependent" in text or "Data-dependent" in text:
        return f"the model's control flow depends on the data{at}: it has no single graph of operators"
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"the model could not be traced{at}: {type(error).__name__}: {first}"


def example_rows(example: Tensor) -> Tensor:
    """``EXAMPLE_ROWS`` points to trace with; drawn ones if there are none."""
    if len(example) == 0:
        generator = torch.Generator("cpu").manual_seed(0)
        shape = EXAMPLE_ROWS, *example.shape[1:]
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return drawn.to(example.device, example.dtype)
    index = torch.arange(EXAMPLE_ROWS, device=example.device) % len(example)
    return example.detach()[index].clone()


def _export(flat: _Flat, example: Tensor, strict: bool) -> TracedGraph:
    auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    shapes = ((auto, *[static] * (example.dim() - 1)),)
    program = torch.export.export(flat, (example,), strict=strict, dynamic_shapes=shapes)
    traced = traced_program(program, "torch.export" if not strict else "torch.export, strict", flat.root)
    traced.asked = flat.answered
    return traced


def traced_program(program: torch.export.ExportedProgram, method: str, root: str = "") -> TracedGraph:
    """The graph of an exported program, which is left as it is.

    Args:
        program: The program.
        method: What :attr:`TracedGraph.method` is to say.
        root: What its names begin with and the model's do not, see :func:`pylinregion.capturing.node_source.own_name`.

    Raises:
        UnsupportedModelError: It changes tensors of the model, or does not take one tensor.
    """
    graph = copy.deepcopy(program.graph)  # the caller's own may not change
    if _needs_functionalizing(graph):
        program = program.run_decompositions({})
        graph = program.graph
    signature = program.graph_signature
    output = next(node for node in graph.nodes if node.op == "output")
    returned = []
    for value, spec in zip(output.args[0], signature.output_specs, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            returned.append(value)
        elif spec.kind is not OutputKind.USER_INPUT_MUTATION:  # an input may be overwritten: it is a copy
            changed = own_name(str(spec.target), root)
            raise FinalRefusal(f"the forward pass changes '{changed}' of the model")
    output.args = (tuple(returned),)
    if len(signature.user_inputs) != 1 or not isinstance(signature.user_inputs[0], str):
        raise UnsupportedModelError(f"the model must take one tensor, it takes {len(signature.user_inputs)} inputs")
    tensors: dict[str, Any] = {**program.state_dict, **program.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state = {key: (own_name(name, root), tensors[name]) for key, name in names.items() if name in tensors}
    parameters = frozenset(own_name(name, root) for name in signature.inputs_to_parameters.values())
    return TracedGraph(graph, state, parameters, signature.user_inputs[0], method, root)


def _make_fx(flat: _Flat, example: Tensor) -> TracedGraph:
    from torch.fx.experimental.proxy_tensor import make_fx

    module, functional = innermost(flat.model), _Functional(flat)
    run = make_fx(functional, tracing_mode="symbolic", _allow_non_fake_inputs=True, record_module_stack=True)
    traced = run(_with_symbolic_batch(example))
    live = {id(t): (name, t) for name, t in [*module.named_buffers(), *module.named_parameters()]}
    parameters = dict(module.named_parameters())
    state = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(traced, node.target)
            state[node.target] = live.get(id(tensor), (f"constant {node.target}", tensor))
    names = frozenset(name for name, _ in state.values() if name in parameters)
    input_name = next(str(node.target) for node in traced.graph.nodes if node.op == "placeholder")
    return TracedGraph(traced.graph, state, names, input_name, "make_fx", flat.root, flat.answered)


class _Functional:
    """A module without mutations; ``make_fx`` finds under ``_orig_mod`` what to name the paths of."""

    def __init__(self, module: nn.Module) -> None:
        self._orig_mod = module
        self._run = torch.func.functionalize(module, remove="mutations")

    def __call__(self, x: Tensor) -> Any:
        return self._run(x)


def _with_symbolic_batch(example: Tensor) -> Tensor:
    """A fake tensor like ``example`` whose first dimension is a symbol, and no other.

    Left to itself, make_fx makes every size a symbol, and sizes that are equal the same one.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    sizes = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (example.dim() - 1)]
    context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return mode.from_tensor(example, symbolic_context=context)


def _needs_functionalizing(graph: fx.Graph) -> bool:
    """Rewrite in-place operators on values nobody else reads; tell whether others are left."""
    left = False
    for node in graph.nodes:
        target = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
            continue
        name = target._schema.name.split("::")[1]
        operand = node.args[0] if node.args else None
        functional = getattr(getattr(torch.ops.aten, name.removesuffix("_"), None), target._overloadname, None)
        private = (
            isinstance(operand, fx.Node)
            and operand.op == "call_function"
            and len(operand.users) == 1
            and name.endswith("_")
            and functional is not None
            and _makes_new_memory(operand)
        )
        if private:
            node.target = functional
        else:
            left = True
    return left


def _makes_new_memory(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    row = lookup(target._schema.name.split("::")[1].removesuffix("_"), target._overloadname)
    return row is not None and not row.alias


class _Flat(nn.Module):
    """The model with its output, whatever it is, as a list of tensors; and what it read answers from, behind them.

    Args:
        model: The model.
        replay: Answers what it asks of values; None: nothing does.
    """

    def __init__(self, model: nn.Module, replay: Replaying | None = None) -> None:
        super().__init__()
        self.model = model
        self.training = False
        self.replay = replay
        self.root = "model." * (1 + depth(model))

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.replay is None:
            return output_tensors(self.model(x))
        with self.replay:
            output = self.model(x)
        return [*output_tensors(output), *self.replay.read_from]

    @property
    def answered(self) -> tuple[Asked, ...]:
        """What the model asked the last time."""
        return () if self.replay is None else tuple(self.replay.answered)


def output_tensors(output: Any) -> list[Tensor]:
    """The tensors in a model's output: a tensor, or nested sequences, mappings and dataclasses of them.

    Raises:
        TypeError: There is none.
    """

    tensors = [value for value in leaves(output) if isinstance(value, Tensor) and not is_absent(value)]
    if not tensors:
        raise TypeError(f"model must return a tensor, got {type(output).__name__} without one")
    return tensors


def output_tensor(output: Any) -> Tensor:
    """The one floating point tensor in a model's output, or the one tensor in it.

    Raises:
        TypeError: There is none, or there are several.
    """
    tensors = output_tensors(output)
    numbers = [tensor for tensor in tensors if tensor.is_floating_point()] or tensors
    if len(numbers) > 1:
        kind = type(output).__name__
        raise TypeError(f"model must return one tensor, got {kind} with {len(numbers)}: plr.select takes one")
    return numbers[0]
