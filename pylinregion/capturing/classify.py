"""From a traced graph to a :class:`~pylinregion.graph.network.Network`.

Every operator is looked up in the closed table of :mod:`pylinregion.graph.operators`; what is not there is refused.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.capturing.batch_axis import batch_symbol, place_batch
from pylinregion.capturing.handwritten import Formula, recognise
from pylinregion.capturing.node_source import source_of
from pylinregion.capturing.questions import pass_repairs, sort_out
from pylinregion.capturing.tracing import FinalRefusal, TracedGraph
from pylinregion.graph.kinks import describe_breakpoints
from pylinregion.graph.network import OUTPUT, Guard, Layer, Network, Node, Ref, first_tensor
from pylinregion.graph.operators import (
    NO_DERIVATIVE,
    SHAPE_OF_SECOND,
    SHAPE_ONLY,
    WHY_NOT,
    Degree,
    Kind,
    Op,
    combined_degree,
    lookup,
)


def build(traced: TracedGraph, example: Tensor) -> Network:
    """Classify every node of a traced graph.

    Args:
        traced: The graph.
        example: The points it was traced with.

    Raises:
        UnsupportedModelError: An operator or what it is applied to is not covered, points of a batch are mixed, or the
            output does not depend on the input.
    """
    numbers: dict[fx.Node, int] = {}
    nodes: list[Node] = []
    batch: Any = None
    repaired = pass_repairs(traced)
    recognise(traced.graph)
    returned = _flat(next(node for node in traced.graph.nodes if node.op == "output").args[0])
    split = len(returned) - len(traced.asked)
    found = [value for value in returned[:split] if isinstance(value, fx.Node)]
    fixed, checked = sort_out(traced, returned[split:])
    for node in _needed(traced.graph, [*found, *fixed]):
        new = _node(node, traced, numbers)
        if _is_input(node, traced):
            batch = batch_symbol(node, traced)
            new.role, new.degree, new.pristine = "input", Degree.AFFINE, True
        if new.role in ("input", "value", "size", "rows"):
            place_batch(new, node.meta.get("val"), batch)
        if new.role == "value":
            _classify(new, nodes)
        numbers[node] = len(nodes)
        nodes.append(new)
    outputs = [numbers[value] for value in found if value.meta.get("role") != "size"]
    used = {node.state for node in nodes if node.role == "state"}
    dependent = [at for at, index in enumerate(outputs) if nodes[index].role in ("value", "input")]
    floating = [at for at in dependent if (dtype := nodes[outputs[at]].dtype) and dtype.is_floating_point]
    places = floating or dependent  # indices and masks beside numbers are not outputs to count signs of
    if not places:
        raise UnsupportedModelError("the model's output does not depend on its input")
    if any(_is_complex(nodes[outputs[at]]) for at in places):
        raise UnsupportedModelError("the model's output is complex: return its parts (torch.view_as_real)")
    return Network(
        nodes=nodes,
        layers=_layers(nodes),
        outputs=tuple(outputs[at] for at in places),
        places=tuple(places),
        state={name: tensor for name, tensor in traced.state.values() if name in used},
        parameters=traced.parameters,
        input_shape=tuple(example.shape[1:]),
        dtype=example.dtype,
        device=example.device,
        method=traced.method,
        guards=tuple(Guard(numbers[node], asked.seen, asked.place) for node, asked in fixed.items()),
        finite=_nearest(repaired | checked, numbers),
    )


def _nearest(checked: dict[fx.Node, str], numbers: dict[fx.Node, int]) -> dict[int, str]:
    """Values that are checked, each as those of the network that it is made of."""
    found: dict[int, str] = {}
    for node, place in checked.items():
        stack, seen = [node], set()
        while stack:
            value = stack.pop()
            if value in numbers:
                found.setdefault(numbers[value], place)
            elif value not in seen:
                seen.add(value)
                stack.extend(value.all_input_nodes)
    return found


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _flat(part)]
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [value]


def _needed(graph: fx.Graph, wanted: list[fx.Node]) -> list[fx.Node]:
    """The nodes that some depend on, in order."""
    needed: set[fx.Node] = set()
    stack = list(wanted)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed]


def _node(node: fx.Node, traced: TracedGraph, numbers: dict[fx.Node, int]) -> Node:
    path, line = source_of(node, traced.root)
    if node.op in ("placeholder", "get_attr"):
        if _is_input(node, traced):
            return Node(node.name, None, role="input", op_name="input")
        if str(node.target) not in traced.state:  # a graph: the branch of an operator such as torch.cond
            user = next(iter(node.users))
            _refuse_operator(Node(user.name, None, op_name=_op_name(user.target)[0]), user, traced)
        state, tensor = traced.state[str(node.target)]
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
    new.role = _role(node, name, traced)
    made = node.meta.get("val")
    if new.role == "constant" and isinstance(made, Tensor):
        new.dtype = made.dtype
    known = Op(Kind.SMOOTH) if isinstance(target, Formula) else lookup(name, overload, _bound(node).get("reduce"))
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if known is None and random and name not in WHY_NOT:
        raise FinalRefusal(f"{new.where}: it depends on chance (a random operator)")
    if new.role == "value" and node.target is not operator.getitem:
        new.op = known
        if new.op is None:
            _refuse_operator(new, node, traced)
    if known is not None:
        for refuse in (known.chance, known.refuse if new.role != "constant" else None):
            if refuse is not None and (reason := refuse(_bound(node))):
                raise FinalRefusal(f"{new.where}: it {reason}")
    return new


def _refuse_operator(new: Node, node: fx.Node, traced: TracedGraph) -> NoReturn:
    new.path, new.line = source_of(node, traced.root)
    why = WHY_NOT.get(new.op_name)
    if why is not None:
        raise FinalRefusal(f"{new.where}: the operator '{_full_name(node.target)}' {why}")
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


def _role(node: fx.Node, name: str, traced: TracedGraph) -> str:
    """Whether a node depends on the input's values, on the batch size only, or on neither."""
    if name == "sym_size" or isinstance(node.meta.get("val"), torch.SymInt):
        node.meta["role"] = "size"
        return "size"
    shape_only = name in SHAPE_ONLY or (name in SHAPE_OF_SECOND and not _depends(node.args[0], traced))
    roles = {argument.meta["role"] for argument in node.all_input_nodes if "role" in argument.meta}
    depends = any(_depends(argument, traced) for argument in node.all_input_nodes)
    role = "constant"
    if depends and not shape_only:
        role = "value"
    elif depends or roles & {"size", "rows"}:
        role = "rows"
    node.meta["role"] = role
    return role


def _depends(argument: Any, traced: TracedGraph) -> bool:
    """Whether an argument of a node depends on the input's values."""
    return isinstance(argument, fx.Node) and (_is_input(argument, traced) or argument.meta.get("role") == "value")


def _is_input(node: fx.Node, traced: TracedGraph) -> bool:
    return node.op == "placeholder" and node.target == traced.input_name


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


def _classify(new: Node, nodes: list[Node]) -> None:
    """Degree and pristine flag of a value, from those of its arguments."""
    sources = [nodes[operand] for operand in new.operands]
    tensors = [source for source in sources if source.role != "size"]
    dependent = [source for source in tensors if source.role in ("value", "input")]
    largest = max(source.degree for source in dependent)
    affine = new.op is None or new.op.kind is Kind.AFFINE
    if new.op is None:  # getitem
        new.degree = Degree.STEP if new.dtype in (torch.int64, torch.int32) else largest
    elif new.op_name in SHAPE_OF_SECOND:
        new.degree = tensors[0].degree
    elif new.op.kind is Kind.AFFINE:
        new.degree = combined_degree(new.op, tensors[0].degree, [source.degree for source in tensors[1:]])
        indices = [each for each in dependent if each.dtype is not None and not each.dtype.is_floating_point]
        if new.op.combine == "place" and any(each.dtype is not torch.bool for each in indices):
            new.degree = Degree.NONLINEAR
    elif new.op.kind is Kind.KINK:
        new.degree = Degree.STEP if new.op.kink in ("comparison", "sign") else largest
    else:
        new.degree = Degree.NONLINEAR
    floating = [source for source in dependent if source.dtype is None or _continuous(source.dtype)]
    if affine and floating and new.dtype is not None and not _continuous(new.dtype) and new.op is not None:
        reason = f"it makes {new.dtype} of numbers that depend on the input, a step that is not counted"
        raise FinalRefusal(f"{new.where}: {reason}")
    if not affine and new.op is not None and new.op.kink != "comparison" and len(floating) < len(dependent):
        raise FinalRefusal(f"{new.where}: it is not counted on integers")
    if new.op is not None and new.op.kind in (Kind.KINK, Kind.SMOOTH) and any(map(_is_complex, dependent)):
        raise FinalRefusal(f"{new.where}: it is not counted on complex numbers")
    rows_first = new.shape is None or (new.batch_dim == 0 and new.batch_factor == 1)
    same_dtype = new.dtype is None or all(source.dtype in (None, new.dtype) for source in dependent)  # casts round
    differentiable = affine and same_dtype and new.op_name not in NO_DERIVATIVE
    new.pristine = (
        differentiable and rows_first and new.degree is Degree.AFFINE and all(source.pristine for source in dependent)
    )


def _continuous(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _is_complex(node: Node) -> bool:
    return node.dtype is not None and node.dtype.is_complex


def _layers(nodes: list[Node]) -> tuple[Layer, ...]:
    """The kinks and smooth activations, named."""
    found = [
        (index, node)
        for index, node in enumerate(nodes)
        if node.role == "value" and node.op is not None and node.op.kind in (Kind.KINK, Kind.SMOOTH)
    ]
    bases = [node.path or node.op_name for _, node in found]
    several = Counter([*bases, OUTPUT])
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
