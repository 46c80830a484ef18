"""The symbolic sizes in an exported program, such as ``Mul(Integer(2), Symbol('s0', integer=True))``.

torch hands them to ``sympy.sympify``, which evaluates them as Python. Here they are parsed, compared with a grammar of
numbers, symbols and the functions below, and written anew from what was parsed: nothing else reaches sympy.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

_LONGEST = 10_000  # characters
_MOST_BITS = 4096  # of a number, however it is written: powers of powers would take for ever
_SYMBOL = re.compile(r"(?:s|u|zf|zuf)\d{1,6}", re.ASCII)  # as torch numbers them; none is a name of sympy's
_EXPONENT = re.compile(
    r"-?(\d{1,2})(?:\.\d{1,40})?|(?:Integer|Rational)\(-?(\d{1,2})(?:, \d{1,2})?\)"
    r"|Float\('-?(\d{1,2})(?:\.\d{0,40})?', precision=53\)",
    re.ASCII,
)
_FLOAT = re.compile(r"-?\d{1,40}(?:\.\d{0,40})?(?:e[+-]?\d{1,3})?", re.ASCII)
_ASSUMED = """
commutative extended_real finite integer negative nonnegative nonpositive nonzero positive rational real
"""
_ASSUMPTIONS = frozenset(_ASSUMED.split())
_CONSTANTS = ["true", "false", "oo", "int_oo"]
_POWERS = ["Pow", "PowByNatural", "FloatPow", "LShift"]
_OF_SYMPY = """
Integer Rational Infinity NegativeInfinity BooleanTrue BooleanFalse Add Mul Max Min Abs floor ceiling And Or Not
Piecewise ExprCondPair Equality Unequality Eq Ne
LessThan Le StrictLessThan Lt GreaterThan Ge StrictGreaterThan Gt
"""
_OF_TORCH = """
FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv RShift FloatTrueDiv IntTrueDiv
IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity
"""
_FUNCTIONS = frozenset([*_OF_SYMPY.split(), *_OF_TORCH.split()])
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def checked(text: str) -> str:
    """An expression, written anew from its parts.

    Raises:
        ValueError: It has a part that is none of the grammar.

    >>> checked("Add(Integer(1),  Symbol('s0', integer=True))")
    "Add(Integer(1), Symbol('s0', integer=True))"
    """
    if len(text) > _LONGEST:
        raise ValueError(f"an expression of {len(text)} characters")
    try:
        tree = ast.parse(text, mode="eval").body
        if _bits(tree) > _MOST_BITS:
            raise ValueError("too large a number")
        return ast.unparse(tree)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("no expression of sizes") from None


def _bits(node: ast.expr) -> int:
    """How many bits a number of this form can have at most, a symbol counted as one.

    Raises:
        ValueError: It is none of the grammar.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        return node.value.bit_length() if isinstance(node.value, int) else 1
    if isinstance(node, ast.Name) and (node.id in _CONSTANTS or _SYMBOL.fullmatch(node.id)):
        return 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return _bits(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS):
        if isinstance(node.op, ast.Pow):
            return _power(node.left, node.right)
        return _bits(node.left) + _bits(node.right)
    if isinstance(node, ast.Compare) and all(isinstance(op, _COMPARISONS) for op in node.ops):
        return max(map(_bits, [node.left, *node.comparators]))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        special = {"Symbol": _symbol, "Float": _float}.get(node.func.id)
        if special is not None:
            return special(node)
        if node.func.id in _POWERS and len(node.args) == 2 and not node.keywords:
            return _power(*node.args)
        if node.func.id in _FUNCTIONS and not node.keywords:
            return sum(map(_bits, node.args))
    raise ValueError(f"{ast.unparse(node)[:80]!r}, which is no size")


def _power(base: ast.expr, exponent: ast.expr) -> int:
    """Of ``base ** exponent`` and ``base << exponent``; the exponent is a small number."""
    text = ast.unparse(exponent)
    found = _EXPONENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r}, which is no exponent of a size")
    most = 1 + max(int(digits) for digits in found.groups() if digits)
    return _bits(base) * most + most


def _symbol(call: ast.Call) -> int:
    """``Symbol('s0', integer=True)``."""
    name = _string(call, _SYMBOL.fullmatch)
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg not in _ASSUMPTIONS or not isinstance(value, ast.Constant) or type(value.value) is not bool:
            raise ValueError(f"the symbol {name!r} with odd assumptions")
    return 1


def _float(call: ast.Call) -> int:
    """``Float('0.5', precision=53)``."""
    _string(call, _FLOAT.fullmatch)
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg != "precision" or not isinstance(value, ast.Constant) or value.value not in range(1, 257):
            raise ValueError("a number of an odd precision")
    return 1


def _string(call: ast.Call, fits: Callable[[str], object]) -> str:
    """The only argument of a call, a string that fits."""
    value = call.args[0].value if len(call.args) == 1 and isinstance(call.args[0], ast.Constant) else None
    if not isinstance(value, str) or not fits(value):
        raise ValueError(f"{ast.unparse(call)[:80]!r}, which is no size")
    return value
