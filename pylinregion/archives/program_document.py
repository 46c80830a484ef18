"""The JSON documents of an exported program: every string that torch would resolve, evaluate or write into code.

torch's loader trusts them. It evaluates sizes, looks operators up by ``getattr``, imports modules that the context of a
tree names, and writes names of nodes, arguments and keys into Python code that it runs. So a document is walked along
torch's own schema, each value is compared with its type, each string with the rule of its place in ``_RULES``, and a
document is made anew of what was found. A string without a rule is refused: also what a later torch adds.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import keyword
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import torch

from pylinregion.archives import size_expressions
from pylinregion.graph.operators import SHAPE_OF_SECOND, SHAPE_ONLY, TABLE, WHY_NOT

_INTEGERS = range(-(2**63), 2**64)
_TEXT = re.compile(r"[\w ,.:;<>|/*+@-]{0,1000}")  # no Python that does anything is written in these alone
_SIZES = re.compile(r"(?!u|zuf)[\w ,.()*/+-]{1,10000}|(?:u|zuf)[0-9]{1,5}")


def checked_program(document: Any) -> dict[str, Any]:
    """An ``ExportedProgram`` of torch's schema.

    Raises:
        ValueError: It is none, or a part of it may run code; the message names the part.
    """
    program: dict[str, Any] = _checked(_schema("ExportedProgram"), document, "model.json")
    return program


def checked_payloads(document: Any, where: str) -> dict[str, Any]:
    """What a ``PayloadConfig`` of torch's schema says of the weights or constants: by name.

    Raises:
        ValueError: As for :func:`checked_program`.
    """
    found: dict[str, Any] = _checked(_schema("PayloadConfig"), document, where)["config"]
    return found


def _schema(name: str) -> Any:
    from torch._export.serde import schema

    found = getattr(schema, name, None)
    if found is None:
        raise ValueError(f"torch {torch.__version__} does not know its format")
    return found


# The walk


def _checked(kind: Any, value: Any, where: str, rule: tuple[str, str] = ("", "")) -> Any:
    """A value of a type, made anew; ``rule`` is its class and field, ``where`` its place in words."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType) and type(None) in parts:
        kind = next(part for part in parts if part is not type(None))
        return None if value is None else _checked(kind, value, where, rule)
    if origin is list:
        _require(isinstance(value, list), where, "a list", value)
        return [_checked(parts[0], item, f"{where}[{at}]", rule) for at, item in enumerate(value)]
    if origin is dict:
        _require(isinstance(value, dict), where, "an object", value)
        made = {}
        for key, item in value.items():
            name = _string(key, f"{where}: a key", (*rule, "keys"))
            made[name] = _checked(parts[1], item, f"{where}[{name!r}]", rule)
        return made
    if dataclasses.is_dataclass(kind):
        _require(isinstance(value, dict), where, "an object", value)
        return _checked_fields(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        _require(type(value) is int and value in [member.value for member in kind], where, f"a {kind.__name__}", value)
        return value
    if kind is float:
        number = type(value) in (int, float) or value in ("Infinity", "-Infinity", "NaN")
        _require(number, where, "a number", value)
        return value
    if kind is int:
        _require(type(value) is int and value in _INTEGERS, where, "an integer of 64 bits", value)
        return value
    if kind is str:
        _require(isinstance(value, str), where, "a string", value)
        return _string(value, where, rule)
    _require(kind is bool and type(value) is bool, where, f"a {getattr(kind, '__name__', kind)}", value)
    return value


def _checked_fields(kind: Any, value: dict[str, Any], where: str) -> dict[str, Any]:
    """An object of the schema; fields that torch does not know, and those in ``_DROPPED``, are left out."""
    name = kind.__name__
    if name in _REFUSED:
        raise ValueError(f"{where} is {_REFUSED[name]}")
    hints = _hints(kind)
    if any(base.__name__ == "_Union" for base in kind.__mro__):
        _require(len(value) == 1 and set(value) <= set(hints), where, f"one of the forms of a {name}", list(value))
        return {key: _checked(hints[key], item, f"{where}.{key}", (name, key)) for key, item in value.items()}
    made = {}
    for field in dataclasses.fields(kind):
        key = field.name
        if (name, key) in _DROPPED:
            made[key] = _DROPPED[name, key](value.get(key))
        elif key in value:
            made[key] = _checked(hints[key], value[key], f"{where}.{key}", (name, key))
        else:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            _require(not required, f"{where}.{key}", "there", "nothing")
    return made


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    from torch._export.serde import schema

    return typing.get_type_hints(kind, globalns=vars(schema))


def _string(value: str, where: str, rule: tuple[str, ...]) -> str:
    check = _RULES.get(rule)
    if check is None:
        raise ValueError(f"{where} is a string in a place that is not known")
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{where} is {error}") from None


def _require(fits: bool, where: str, wanted: str, found: Any) -> None:
    if not fits:
        raise ValueError(f"{where} must be {wanted}, got {str(found)[:80]!r}")


# The rules: a function of a string that gives it back, or raises ValueError with what it is instead


def _fitting(fits: Callable[[str], Any], wanted: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not fits(value):
            raise ValueError(f"{value[:80]!r}, which is no {wanted}")
        return value

    return check


def _is_name(value: str) -> bool:
    return value.isidentifier() and not keyword.iskeyword(value) and not value.startswith("__")


def _is_path(value: str) -> bool:
    return _TEXT.fullmatch(value) is not None and not any(part.startswith("__") for part in value.split("."))


def _operator(value: str) -> str:
    """The name of an operator: one of ``_OPERATORS``, of a kind that torch registers; or one of ``_OTHERS``."""
    if value in _OTHERS:
        return value
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.([a-zA-Z]\w*)", value)
    if found is not None and (found[1] in _OPERATORS or found[1].removesuffix("_") in _OPERATORS):
        packet = getattr(torch.ops.aten, found[1], None)
        if isinstance(getattr(packet, found[2], None), torch._ops.OpOverload):
            return value
    raise ValueError(f"{value[:80]!r}, which is not one of the operators that are known to do nothing but compute")


def _tree(value: str) -> str:
    """How inputs or outputs are nested: tuples, lists and dictionaries of tensors."""

    def walk(node: Any) -> dict[str, Any]:
        if set(node) != {"type", "context", "children_spec"}:
            raise ValueError("no description of a tree")
        kind, context, children = node["type"], node["context"], [walk(child) for child in node["children_spec"]]
        if kind in ("builtins.dict", "collections.OrderedDict"):
            keys = json.loads(context)
            fit = [_is_path(key) if isinstance(key, str) else type(key) is int and key in _INTEGERS for key in keys]
            if not all(fit) or len(keys) != len(children):
                raise ValueError(f"a dictionary with odd keys {str(keys)[:80]!r}")
            context = json.dumps(keys)
        elif not (kind in ("builtins.tuple", "builtins.list") and context == "null") and (kind or context or children):
            raise ValueError(f"a tree of {str(kind)[:80]!r}, which is no tuple, list or dictionary")
        return {"type": kind, "context": context, "children_spec": children}

    try:
        protocol, root = json.loads(value)
        if type(protocol) is not int or protocol != 1:
            raise ValueError("a tree of an unknown form")
        return json.dumps([1, walk(root)])
    except (TypeError, KeyError, RecursionError, json.JSONDecodeError):
        raise ValueError("no description of a tree") from None


def _metadata(found: Any) -> dict[str, str]:
    """Where an operator comes from, for messages; the rest is torch's own business."""
    kept = {}
    for key in ("stack_trace", "nn_module_stack"):
        text = found.get(key) if isinstance(found, dict) else None
        if isinstance(text, str):
            kept[key] = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return kept


_NAME = _fitting(_is_name, "name")
_NAME_OR_NONE = _fitting(lambda value: value == "" or _is_name(value), "name")
_PARAMETER = _fitting(
    lambda value: value == "" or value.isidentifier(), "name of a parameter"
)  # "from" is one of torch's
_PATH = _fitting(_is_path, "name of a part of a model")
_WORDS = _fitting(_TEXT.fullmatch, "plain text")

_RULES: dict[tuple[str, ...], Callable[[str], str]] = {
    ("SymExpr", "expr_str"): size_expressions.checked,
    ("Node", "target"): _operator,
    ("Argument", "as_operator"): _operator,
    ("Device", "type"): _fitting(["cpu", "cuda"].__contains__, "device that is counted on"),
    ("ModuleCallSignature", "in_spec"): _tree,
    ("ModuleCallSignature", "out_spec"): _tree,
    ("ModuleCallSignature", "forward_arg_names"): _NAME,
    ("ModuleCallEntry", "fqn"): _PATH,
    ("NamedArgument", "name"): _PARAMETER,
    ("Node", "name"): _NAME,
    ("TensorArgument", "name"): _NAME,
    ("GraphArgument", "name"): _NAME,
    ("SymIntArgument", "as_name"): _NAME,
    ("SymFloatArgument", "as_name"): _NAME,
    ("SymBoolArgument", "as_name"): _NAME,
    ("Argument", "as_string"): _WORDS,
    ("Argument", "as_strings"): _WORDS,
    ("ConstantValue", "as_string"): _WORDS,
    ("InputToConstantInputSpec", "name"): _NAME_OR_NONE,
    ("InputToParameterSpec", "parameter_name"): _PATH,
    ("InputToBufferSpec", "buffer_name"): _PATH,
    ("InputToTensorConstantSpec", "tensor_constant_name"): _PATH,
    ("BufferMutationSpec", "buffer_name"): _PATH,
    ("ParameterMutationSpec", "parameter_name"): _PATH,
    ("UserInputMutationSpec", "user_input_name"): _NAME,
    ("Graph", "tensor_values", "keys"): _NAME,
    ("Graph", "sym_int_values", "keys"): _NAME,
    ("Graph", "sym_bool_values", "keys"): _NAME,
    ("Graph", "sym_float_values", "keys"): _NAME,
    ("ExportedProgram", "opset_version", "keys"): _WORDS,
    ("ExportedProgram", "range_constraints", "keys"): _fitting(_SIZES.fullmatch, "symbol"),
    ("ExportedProgram", "torch_version"): _WORDS,
    ("ExportedProgram", "verifiers"): _fitting(["", "ATEN", "TRAINING"].__contains__, "dialect of torch.export"),
    ("PayloadConfig", "config", "keys"): _PATH,
    ("PayloadMeta", "path_name"): _fitting(re.compile("(?:weight|tensor)_[0-9]{1,9}").fullmatch, "file of a tensor"),
}

# What is made anew, or left empty: nothing of it is needed to compute.
_DROPPED: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("Node", "metadata"): _metadata,
    ("GraphModule", "metadata"): lambda found: {},
    ("GraphModule", "treespec_namedtuple_fields"): lambda found: {},
    ("ExportedProgram", "guards_code"): lambda found: [],  # Python; sizes are checked by the ranges of their symbols
}

_REFUSED = {
    "CustomObjArgument": "an object of Python or C++, and loading one runs its code",
    "TokenArgument": "a token of an operator with effects",
}

_CONSTANTS = """
arange linspace logspace eye zeros ones full empty empty_permuted scalar_tensor tril_indices triu_indices meshgrid
cartesian_prod one_hot embedding searchsorted nonzero argsort any all isnan isinf isfinite not_equal count_nonzero item
_local_scalar_dense sym_size sym_stride sym_numel sym_storage_offset sym_constrain_range
sym_constrain_range_for_size size numel _assert_scalar _assert_async _assert_tensor_metadata lift zero result_type
rand rand_like randn randn_like randint randint_like randperm bernoulli normal uniform multinomial exponential
real imag view_as_real view_as_complex complex polar resolve_conj resolve_neg conj
"""
_FUNCTIONS = """
_weight_norm _weight_norm_interface norm_except_dim linalg_inv linalg_inv_ex linalg_solve linalg_qr linalg_cross
linalg_householder_product linalg_matrix_norm linalg_multi_dot linalg_pinv pinverse matrix_exp cross trace diag
diag_embed block_diag kron ger inner tensordot cdist pdist pairwise_distance bilinear _trilinear affine_grid_generator
grid_sampler grid_sampler_2d grid_sampler_3d nan_to_num masked_select masked_scatter scatter_reduce
index_reduce cummax cummin kthvalue mode aminmax hypot ldexp deg2rad rad2deg logit lgamma digamma special_expit
special_log1p special_erf special_erfinv native_batch_norm _native_batch_norm_legit
_native_batch_norm_legit_functional _batch_norm_with_update log_normal rrelu_with_noise_functional unfold_copy
upsample_linear1d embedding_renorm isclose allclose equal bitwise_left_shift
bitwise_right_shift __xor__ negative subtract mT mH clamp_ fill_diagonal _safe_softmax _log_softmax _cdist_forward
_scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu celu logaddexp2 gcd lcm nextafter
narrow_copy view_copy expand_copy permute_copy slice_copy select_copy t_copy transpose_copy unsqueeze_copy detach_copy
alias_copy split_copy split_with_sizes_copy unbind_copy diagonal_copy
"""
# Operators that compute, check their indices, and touch no file: those of the table, those that the table names as not
# covered, and those that constants and sizes are made with.
_OPERATORS = frozenset(
    [
        *(name.split(".")[0] for name in (*TABLE, *WHY_NOT)),
        *SHAPE_ONLY,
        *SHAPE_OF_SECOND,
        *_CONSTANTS.split(),
        *_FUNCTIONS.split(),
    ]
)
_ON_NUMBERS = "add sub mul floordiv mod truediv pow neg pos eq ne lt le gt ge and_ or_ not_ getitem"
_ON_SIZES = "sym_int sym_float sym_max sym_min sym_not sym_ite sym_sqrt _sym_sqrt sym_sum"
_WITH_GRAPHS = "cond while_loop map_impl wrap_with_set_grad_enabled wrap_with_autocast"
_OTHERS = frozenset(
    [
        *(f"_operator.{name}" for name in _ON_NUMBERS.split()),
        *(f"torch.{name}" for name in _ON_SIZES.split()),
        *(f"torch.ops.higher_order.{name}" for name in _WITH_GRAPHS.split()),
        *(f"math.{name}" for name in ("trunc", "floor", "ceil")),
    ]
)
