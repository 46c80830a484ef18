"""From an ``nn.Module`` to a :class:`~pylinregion.network.Network`.

The model is traced once with ``torch.export`` (non-strict), else with ``make_fx``, else with ``torch.export``
(strict): no single mechanism takes every model. Every operator is then looked up in the closed table of
:mod:`pylinregion.ops`, and the result is checked against the model on fresh inputs.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import linecache
import operator
import re
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind

from pylinregion import _checks, selfcheck
from pylinregion.errors import UnsupportedModelError
from pylinregion.kinks import describe_breakpoints
from pylinregion.network import Layer, Network, Node, Ref, first_tensor, place, refs
from pylinregion.ops import NO_DERIVATIVE, SHAPE_OF_SECOND, SHAPE_ONLY, WHY_NOT, Degree, Kind, combined_degree, lookup
from pylinregion.torch_state import quiet

_EXAMPLE_ROWS = 3
_BATCH_SIZES = (2, 3, 4, 5, 8, 10, 16, 31, 32, 64, 100, 128, 256, 1000, 1024, 4096)  # which a model must treat alike
_NOT_THE_USERS = tuple(folder.replace("\\", "/") + "/" for folder in (torch.__path__[0], str(Path(__file__).parent)))
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_cache: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[Any, Network]]] = weakref.WeakKeyDictionary()


def capture(model: nn.Module | torch.export.ExportedProgram | Network, example: Tensor) -> Network:
    """Capture the operators of a model, once, for points like ``example``.

    The network is the model in eval mode: the mode is switched while it is captured and restored afterwards. It shares
    storage with the live model, so counts made with it are those of the current weights. Plain Python attributes that
    the forward pass reads (``self.alpha``) are fixed at their value; :func:`pylinregion.count_regions` given the module
    captures again when one changes.

    Args:
        model: A module that takes one tensor; also one wrapped by ``torch.compile`` or data-parallel wrappers, an
            ``ExportedProgram`` whose batch dimension is dynamic, or a network (returned as it is).
        example: ``[B, *input_shape]``, of the model's dtype, on its device; ``B`` may be 0. Its values are used to
            trace and to check the trace only.

    Returns:
        The network.

    Raises:
        UnsupportedModelError: An operator is not in the table, the model depends on chance, on the batch or branches on
            data, or the captured network does not reproduce the model. The message names operator, module and line.
        ValueError: ``example`` has no batch dimension.
        TypeError: ``model`` or ``example`` is of another type, or the model returns no tensor.
    """
    if isinstance(model, Network):
        model.rebind()
        return model
    _checks.floating_tensor("example", example)
    if example.dim() < 1:
        raise ValueError("example must be [B, *input_shape], got a tensor without dimensions")
    if isinstance(model, torch.export.ExportedProgram):
        with torch.inference_mode(False), quiet(), _traceable():
            return _from_exported(model, _example_rows(example))
    module = unwrap(model)
    key = (tuple(example.shape[1:]), example.dtype, example.device)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise UnsupportedModelError("a TorchScript module cannot be captured: give the module that it was made from")
    captured = _cache.setdefault(module, {})
    if key in captured and captured[key][0] == _fingerprint(module):
        network = captured[key][1]
        network.rebind()
        return network
    with torch.inference_mode(False), quiet(), evaluation_mode(module), _undisturbed(module), _traceable():
        network = _from_module(module, _example_rows(example))
    captured[key] = (_fingerprint(module), network)  # afterwards: a lazy module has its shapes only then
    return network


def unwrap(model: Any) -> nn.Module:
    """The user's own module inside ``torch.compile`` and data-parallel wrappers.

    Raises:
        TypeError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got {type(model).__name__}"
        )
    inner: Any = getattr(model, "_orig_mod", None)
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrap(inner)


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each submodule gets its own flag back."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextlib.contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """What forward passes and the tracer write into a module is undone: attributes, their containers, buffers."""
    parts = [part for part in module.modules() if not hasattr(part, "cls_to_become")]  # lazy ones keep what they learn
    own: list[Any] = [vars(part) for part in parts]
    own += [value for attributes in own for value in attributes.values() if isinstance(value, (dict, list))]
    before = [(container, container.copy()) for container in own]
    buffers = [(b, b._version, b.clone()) for b in module.buffers() if not b.is_inference()]
    try:
        yield
    finally:
        for container, content in before:
            _put_back(container, content)
        for buffer, version, values in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(values)


def _put_back(container: Any, content: Any) -> None:
    """Give a list or dict the items back that it had."""
    if isinstance(container, list):
        container[:] = content
        return
    for key in [key for key in container if key not in content]:
        del container[key]
    container.update((key, value) for key, value in content.items() if container.get(key) is not value)


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    """Without gradients, autocast, compiled parts, and the fused attention path that hides a ReLU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _fingerprint(module: nn.Module) -> list[Any]:
    """What of a module, besides its tensors' values, a captured network depends on."""
    parts: list[Any] = []
    numbers: dict[int, int] = {}  # tells which modules share a tensor

    def kind(tensor: Tensor | None) -> Any:
        number = numbers.setdefault(id(tensor), len(numbers))
        return None if tensor is None else (number, tensor.shape, tensor.dtype)

    for name, part in module.named_modules(remove_duplicate=False):
        tensors = {key: kind(t) for own in (part._parameters, part._buffers) for key, t in own.items()}
        plain = [
            (key, _comparable(value))
            for key, value in vars(part).items()
            if key not in _MODULE_ATTRIBUTES and key + "_g" not in tensors and key + "_orig" not in tensors
        ]  # weight norm and pruning by hooks set an attribute from such parameters on every forward pass
        hooks = (*part._forward_hooks, None, *part._forward_pre_hooks)  # keys that are never used again
        parts.append((name, _Same(part), _Same(type(part)), plain, hooks, tensors))
    return parts


def _comparable(value: Any, depth: int = 0) -> Any:
    """A value that compares equal while an attribute means the same."""
    if isinstance(value, (bool, int, float, str, type(None), torch.dtype)):
        return value
    if isinstance(value, (list, tuple, dict)) and len(value) <= 1000 and depth < 4:
        items = value.items() if isinstance(value, dict) else value
        return type(value), [_comparable(item, depth + 1) for item in items]
    if depth == 0 and hasattr(value, "__dict__") and not isinstance(value, (nn.Module, Tensor, type)):
        return _Same(value), _comparable(dict(vars(value)), 2)  # an object that holds settings
    return _Same(value)


class _Same:
    """Equal to another of the same living object, which it does not keep alive."""

    def __init__(self, value: Any) -> None:
        self.address = id(value)
        try:
            self.value: Callable[[], Any] = weakref.ref(value)
        except TypeError:  # nothing tells whether it lives
            self.value = object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.address == other.address and self.value() is not None


def _example_rows(example: Tensor) -> Tensor:
    """Some rows to trace with: more than one, since sizes 0 and 1 are special to the tracer."""
    if len(example) == 0:
        return torch.zeros(_EXAMPLE_ROWS, *example.shape[1:], dtype=example.dtype, device=example.device)
    index = torch.arange(_EXAMPLE_ROWS, device=example.device) % len(example)
    return example.detach()[index].clone()


class _Flat(nn.Module):
    """The model with its output, whatever it is, as a list of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, x: Tensor) -> list[Tensor]:
        return output_tensors(self.model(x))


def output_tensors(output: Any) -> list[Tensor]:
    """The tensors in a model's output: a tensor, or nested sequences, mappings and dataclasses of them.

    Raises:
        TypeError: There is none.
    """

    def walk(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from walk(item)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            for part in dataclasses.fields(value):
                yield from walk(getattr(value, part.name))

    tensors = list(walk(output))
    if not tensors:
        raise TypeError(f"model must return a tensor, got {type(output).__name__} without one")
    return tensors


class _FinalRefusal(UnsupportedModelError):
    """A refusal that stands whatever another mechanism makes of the model."""


@dataclasses.dataclass
class _Trace:
    """What a tracing mechanism gives: a graph, the tensors it reads by placeholder or attribute, the input's name."""

    graph: fx.Graph
    state: dict[str, tuple[str, Tensor]]  # placeholder or attribute -> (name in the model, tensor)
    parameters: frozenset[str]
    input_name: str
    method: str
    prefix: str = ""


def _export(module: nn.Module, example: Tensor, strict: bool) -> _Trace:
    auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    shapes = ((auto, *[static] * (example.dim() - 1)),)
    program = torch.export.export(_Flat(module), (example,), strict=strict, dynamic_shapes=shapes)
    return _program_trace(program, "torch.export" if not strict else "torch.export, strict", prefix="model.")


def _program_trace(program: torch.export.ExportedProgram, method: str, prefix: str = "") -> _Trace:
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
            changed = str(spec.target).removeprefix(prefix)
            raise _FinalRefusal(f"the forward pass changes '{changed}' of the model")
    output.args = (tuple(returned),)
    if len(signature.user_inputs) != 1 or not isinstance(signature.user_inputs[0], str):
        raise UnsupportedModelError(f"the model must take one tensor, it takes {len(signature.user_inputs)} inputs")
    tensors: dict[str, Any] = {**program.state_dict, **program.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state = {key: (name.removeprefix(prefix), tensors[name]) for key, name in names.items() if name in tensors}
    parameters = frozenset(name.removeprefix(prefix) for name in signature.inputs_to_parameters.values())
    return _Trace(graph, state, parameters, signature.user_inputs[0], method, prefix)


class _Functional:
    """A module without mutations; ``make_fx`` finds under ``_orig_mod`` what to name the paths of."""

    def __init__(self, module: nn.Module) -> None:
        self._orig_mod = module
        self._run = torch.func.functionalize(module, remove="mutations")

    def __call__(self, x: Tensor) -> Any:
        return self._run(x)


def _make_fx(module: nn.Module, example: Tensor) -> _Trace:
    from torch.fx.experimental.proxy_tensor import make_fx

    functional = _Functional(_Flat(module))
    trace = make_fx(functional, tracing_mode="symbolic", _allow_non_fake_inputs=True, record_module_stack=True)
    traced = trace(_with_symbolic_batch(example))
    live = {id(t): (name, t) for name, t in [*module.named_buffers(), *module.named_parameters()]}
    parameters = dict(module.named_parameters())
    state = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(traced, node.target)
            state[node.target] = live.get(id(tensor), (f"constant {node.target}", tensor))
    names = frozenset(name for name, _ in state.values() if name in parameters)
    input_name = next(str(node.target) for node in traced.graph.nodes if node.op == "placeholder")
    return _Trace(traced.graph, state, names, input_name, "make_fx", prefix="model.")


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


def _from_module(module: nn.Module, example: Tensor) -> Network:
    try:
        output = module(example)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the model raises; the tracers would say it less clearly
        points = f"x must be points the model takes, got [B, {', '.join(map(str, example.shape[1:]))}]"
        raise ValueError(f"{points} {example.dtype}, and the model raised {type(error).__name__}: {error}") from error
    output_tensors(output)
    attempts: list[Callable[[], _Trace]] = [
        lambda: _export(module, example, strict=False),
        lambda: _make_fx(module, example),
        lambda: _export(module, example, strict=True),
    ]
    reasons: list[BaseException] = []
    for attempt in attempts:
        try:
            network = _build(attempt(), example)
            selfcheck.same_function(network, module, example)
        except _FinalRefusal as error:
            raise UnsupportedModelError(str(error)) from None
        except UnsupportedModelError as error:
            reasons.append(error)
        except Exception as error:  # tracers fail in many ways; the reason is kept
            reasons.append(error)
        else:
            network.module = weakref.ref(module)
            return network
    ours = next((error for error in reasons if isinstance(error, UnsupportedModelError)), None)
    if ours is not None:
        raise ours
    raise UnsupportedModelError(_trace_failure(reasons[0], module)) from reasons[0]


def _from_exported(program: torch.export.ExportedProgram, example: Tensor) -> Network:
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        wanted = [size if isinstance(size, int) else "any" for size in inputs[0].shape[1:]]
        given = list(example.shape[1:])
        if len(given) != len(wanted) or any(w not in (g, "any") for g, w in zip(given, wanted, strict=True)):
            sizes = ", ".join(map(str, wanted))
            raise ValueError(
                f"x must be [B, {sizes}], as the program was exported, got [B, {', '.join(map(str, given))}]"
            )
        if example.dtype != inputs[0].dtype:
            raise TypeError(f"x must be {inputs[0].dtype}, as the program was exported, got {example.dtype}")
    try:
        network = _build(_program_trace(program, "ExportedProgram"), example)
        selfcheck.same_function(network, program.module(), example)
    except _FinalRefusal as error:
        raise UnsupportedModelError(str(error)) from None
    return network


def _trace_failure(error: BaseException, module: nn.Module) -> str:
    """Why and where in the user's code a tracer gave up."""
    text = str(error)
    at = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if _is_users(file := frame.f_code.co_filename):
            line = _line(file, number, linecache.getline(file, number))
            owner = next((name for name, part in module.named_modules() if part in frame.f_locals.values()), "")
            at = place(owner, line)
    if "data-dependent" in text or "Data-dependent" in text:
        return f"the model's control flow depends on the data{at}: it has no single graph of operators"
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"the model could not be traced{at}: {type(error).__name__}: {first}"


def _build(trace: _Trace, example: Tensor) -> Network:
    """Classify every node of a traced graph."""
    numbers: dict[fx.Node, int] = {}
    nodes: list[Node] = []
    outputs: list[int] = []
    batch: Any = None
    for node in _needed(trace.graph):
        if node.op == "output":
            found = [argument for argument in _flat(node.args[0]) if isinstance(argument, fx.Node)]
            outputs = [numbers[argument] for argument in found if argument.meta.get("role") != "size"]
            continue
        new = _node(node, trace, numbers)
        if _is_input(node, trace):
            batch = _batch_symbol(node, trace)
            new.role, new.degree, new.pristine = "input", Degree.AFFINE, True
        if new.role in ("input", "value", "size", "rows"):
            _place_batch(new, node.meta.get("val"), batch)
        if new.role == "value":
            _classify(new, nodes)
        numbers[node] = len(nodes)
        nodes.append(new)
    used = {node.state for node in nodes if node.role == "state"}
    dependent = [at for at, index in enumerate(outputs) if nodes[index].role in ("value", "input")]
    floating = [at for at in dependent if (dtype := nodes[outputs[at]].dtype) and dtype.is_floating_point]
    places = floating or dependent  # indices and masks beside numbers are not outputs to count signs of
    if not places:
        raise UnsupportedModelError("the model's output does not depend on its input")
    return Network(
        nodes=nodes,
        layers=_layers(nodes),
        outputs=tuple(outputs[at] for at in places),
        places=tuple(places),
        state={name: tensor for name, tensor in trace.state.values() if name in used},
        parameters=trace.parameters,
        input_shape=tuple(example.shape[1:]),
        dtype=example.dtype,
        device=example.device,
        method=trace.method,
    )


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _flat(part)]
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [value]


def _needed(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that the output depends on, and the input, in order."""
    needed: set[fx.Node] = set()
    stack = [node for node in graph.nodes if node.op == "output"]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed]


def _node(node: fx.Node, trace: _Trace, numbers: dict[fx.Node, int]) -> Node:
    path, line = _source(node, trace.prefix)
    if node.op in ("placeholder", "get_attr"):
        if _is_input(node, trace):
            return Node(node.name, None, role="input", op_name="input")
        if str(node.target) not in trace.state:  # a graph: the branch of an operator such as torch.cond
            user = next(iter(node.users))
            _refuse_operator(Node(user.name, None, op_name=_op_name(user.target)[0]), user, trace)
        state, tensor = trace.state[str(node.target)]
        shape = tuple(tensor.shape)
        return Node(node.name, None, role="state", shape=shape, dtype=tensor.dtype, state=state, op_name="state")
    name, overload = _op_name(node.target)
    if node.op != "call_function":
        raise UnsupportedModelError(f"a graph node of type {node.op} is not supported ({node.name})")

    def to_ref(argument: fx.Node) -> Any:
        return Ref(numbers[argument])

    target: Any = node.target
    args, kwargs = _plain(fx.map_arg(node.args, to_ref)), _plain(fx.map_arg(node.kwargs, to_ref))
    new = Node(node.name, target, args, kwargs, op_name=name)
    new.path, new.line = path, line
    new.role = _role(node, name, trace)
    known = lookup(name, overload)
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if known is None and random and name not in WHY_NOT:
        raise _FinalRefusal(f"{new.where}: it depends on chance (a random operator)")
    if new.role == "value" and node.target is not operator.getitem:
        new.op = known
        if new.op is None:
            _refuse_operator(new, node, trace)
    if known is not None and known.refuse and (reason := known.refuse(_bound(node))):
        raise _FinalRefusal(f"{new.where}: it {reason}")
    return new


def _refuse_operator(new: Node, node: fx.Node, trace: _Trace) -> NoReturn:
    new.path, new.line = _source(node, trace.prefix)
    why = WHY_NOT.get(new.op_name)
    if why is not None:
        raise _FinalRefusal(f"{new.where}: the operator '{_full_name(node.target)}' {why}")
    raise UnsupportedModelError(
        f"{new.where}: the operator '{_full_name(node.target)}' is not in the table of supported operators"
    )


def _plain(value: Any) -> Any:
    """Fx's immutable lists and dicts as tuples and dicts of their own."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _role(node: fx.Node, name: str, trace: _Trace) -> str:
    """Whether a node depends on the input's values, on the batch size only, or on neither."""
    if name == "sym_size" or isinstance(node.meta.get("val"), torch.SymInt):
        node.meta["role"] = "size"
        return "size"
    shape_only = name in SHAPE_ONLY or (name in SHAPE_OF_SECOND and not _depends(node.args[0], trace))
    roles = {argument.meta["role"] for argument in node.all_input_nodes if "role" in argument.meta}
    depends = any(_depends(argument, trace) for argument in node.all_input_nodes)
    role = "constant"
    if depends and not shape_only:
        role = "value"
    elif depends or roles & {"size", "rows"}:
        role = "rows"
    node.meta["role"] = role
    return role


def _depends(argument: Any, trace: _Trace) -> bool:
    """Whether an argument of a node depends on the input's values."""
    return isinstance(argument, fx.Node) and (_is_input(argument, trace) or argument.meta.get("role") == "value")


def _is_input(node: fx.Node, trace: _Trace) -> bool:
    return node.op == "placeholder" and node.target == trace.input_name


def _op_name(target: Any) -> tuple[str, str]:
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1], target._overloadname
    return getattr(target, "__name__", str(target)), ""


def _full_name(target: Any) -> str:
    return str(target) if isinstance(target, torch._ops.OpOverload) else _op_name(target)[0]


def _bound(node: fx.Node) -> dict[str, Any]:
    """The call's arguments by name, defaults filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return dict(node.kwargs)
    bound = {}
    for position, argument in enumerate(node.target._schema.arguments):
        value = argument.default_value if argument.has_default_value() else None
        if position < len(node.args):
            value = node.args[position]
        bound[argument.name] = node.kwargs.get(argument.name, value)
    return bound


def _source(node: fx.Node, prefix: str) -> tuple[str, str]:
    """The module path and ``file:line: code`` of a node."""
    path = ""
    stack = node.meta.get("nn_module_stack") or {}
    if stack:
        path = str(list(stack.values())[-1][0]).replace("._orig_mod", "")
        path = path.removeprefix("L['self'].").removeprefix("L__self__").lstrip(".")
        path = "" if path + "." == prefix else path.removeprefix(prefix)
    line = ""
    text = node.meta.get("stack_trace") or ""
    for file, number, code in re.findall(r'File "([^"]+)", line (\d+)[^\n]*(?:\n\s*([^\n]*))?', text):
        if _is_users(file):
            line = _line(file, number, code)
    return path, line


def _is_users(file: str) -> bool:
    """Whether code is neither torch's nor ours."""
    return not file.startswith("<eval_with_key>") and not file.replace("\\", "/").startswith(_NOT_THE_USERS)


def _line(file: str, number: int | str, code: str) -> str:
    return f"{file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{number}: {code.strip()}"


def _batch_symbol(node: fx.Node, trace: _Trace) -> Any:
    size = node.meta["val"].shape[0]
    if not isinstance(size, torch.SymInt):
        raise UnsupportedModelError(
            f"the model fixes its batch size to {size}: it must take any number of points "
            "(write x.size(0) or -1 where it says that number; export a program with a dynamic batch dimension)"
        )
    symbol = size.node.expr
    if trace.method.startswith("torch.export"):  # make_fx also sees on what sizes torch chooses its own kernels
        for guard in size.node.shape_env.guards:
            if any(guard.expr.subs(symbol, number) == False for number in _BATCH_SIZES):  # noqa: E712
                loc: Any = getattr(getattr(guard, "sloc", None), "framework_loc", None)
                known = isinstance(loc, traceback.FrameSummary) and _is_users(loc.filename)
                at = place("", _line(loc.filename, loc.lineno or 0, loc.line or "")) if known else ""
                condition = str(guard.expr).replace(str(symbol), "batch_size")
                raise _FinalRefusal(f"the model's control flow depends on the batch size{at}: it holds if {condition}")
    return symbol


def _factor(size: Any, batch: Any) -> int | None:
    """``k`` where a size is ``k * batch``, else None."""
    if not isinstance(size, torch.SymInt):
        return None
    quotient = size.node.expr / batch
    return int(quotient) if quotient.is_Integer else None


def _place_batch(new: Node, value: Any, batch: Any) -> None:
    """Shape, dtype and batch dimension of a node, from the tracer's own shapes."""
    if new.role == "size":
        factor = _factor(value, batch)
        if new.op_name == "sym_size" and factor is None:
            raise UnsupportedModelError(f"{new.where}: a size is no multiple of the batch size ({value})")
        new.batch_factor = factor or 0
        return
    if not isinstance(value, Tensor):
        return  # a tuple: its getitem nodes are placed
    new.dtype = value.dtype
    symbolic = [axis for axis, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]
    sizes: list[Any] = [value.shape[axis] for axis in symbolic]
    if any(size.node.expr.free_symbols - {batch} for size in sizes):
        raise _FinalRefusal(f"{new.where}: the shape of its result depends on the data ({list(value.shape)})")
    factors = [_factor(size, batch) for size in sizes]
    if new.role == "rows":
        new.shape = tuple(-1 if axis in symbolic else int(size) for axis, size in enumerate(value.shape))
        return
    if not symbolic and len(value.shape) and value.shape[0] == _EXAMPLE_ROWS:
        raise UnsupportedModelError(
            f"{new.where}: it fixes the batch size to {_EXAMPLE_ROWS}, or mixes the points of a batch (its shape is "
            f"{list(value.shape)}): the model must take any number of points (write x.size(0) or -1 for their number)"
        )
    if len(symbolic) != 1 or factors[0] is None:
        raise UnsupportedModelError(
            f"{new.where}: it mixes the points of a batch, or fixes their number (its shape {list(value.shape)} has no "
            "batch dimension)"
        )
    new.batch_dim, new.batch_factor = symbolic[0], factors[0]
    new.shape = tuple(-1 if axis == symbolic[0] else int(size) for axis, size in enumerate(value.shape))


def _classify(new: Node, nodes: list[Node]) -> None:
    """Degree and pristine flag of a value, from those of its arguments."""
    sources = [nodes[ref.index] for ref in refs((new.args, new.kwargs))]
    tensors = [source for source in sources if source.role != "size"]
    dependent = [source for source in tensors if source.role in ("value", "input")]
    largest = max(source.degree for source in dependent)
    affine = new.op is None or new.op.kind is Kind.AFFINE
    if new.op is None:  # getitem
        new.degree = largest
    elif new.op_name in SHAPE_OF_SECOND:
        new.degree = tensors[0].degree
    elif new.op.kind is Kind.AFFINE:
        new.degree = combined_degree(new.op, tensors[0].degree, [source.degree for source in tensors[1:]])
    elif new.op.kind is Kind.KINK:
        new.degree = Degree.STEP if new.op.kink == "comparison" else largest
    else:
        new.degree = Degree.NONLINEAR
    floating = [source for source in dependent if source.dtype is None or source.dtype.is_floating_point]
    if affine and floating and new.dtype is not None and not new.dtype.is_floating_point and new.op is not None:
        reason = f"it makes {new.dtype} of numbers that depend on the input, a step that is not counted"
        raise _FinalRefusal(f"{new.where}: {reason}")
    if not affine and new.op is not None and new.op.kink != "comparison" and len(floating) < len(dependent):
        raise _FinalRefusal(f"{new.where}: it is not counted on integers")
    rows_first = new.shape is None or (new.batch_dim == 0 and new.batch_factor == 1)
    same_dtype = new.dtype is None or all(source.dtype in (None, new.dtype) for source in dependent)  # casts round
    differentiable = affine and same_dtype and new.op_name not in NO_DERIVATIVE
    new.pristine = (
        differentiable and rows_first and new.degree is Degree.AFFINE and all(source.pristine for source in dependent)
    )


def _layers(nodes: list[Node]) -> tuple[Layer, ...]:
    """The kinks and smooth activations, named."""
    found = [
        (index, node)
        for index, node in enumerate(nodes)
        if node.role == "value" and node.op is not None and node.op.kind in (Kind.KINK, Kind.SMOOTH)
    ]
    bases = [node.path or node.op_name for _, node in found]
    several = Counter(bases)
    seen: Counter[str] = Counter()
    layers = []
    for base, (index, node) in zip(bases, found, strict=True):
        seen[base] += 1
        name = base if several[base] == 1 else f"{base}#{seen[base]}"
        assert node.op is not None
        units = first_tensor(nodes, index).units
        where = describe_breakpoints(node)
        layers.append(Layer(name, index, node.op.kind, node.op_name, units, where, node.line))
    return tuple(layers)
