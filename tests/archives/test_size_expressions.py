"""Symbolic sizes: what sympy writes is kept, and nothing else reaches it."""

import re

import pytest

from pylinregion.archives import size_expressions

NO_SIZES = """
__import__('os') | Symbol('os.x') | Symbol('s0', integer=print) | Symbol.__class__ | s0.x | [s0] | (s0,) | Dummy()
Pow(Integer(10), Integer(1000000)) | Pow(Pow(Integer(9), 99), 99) | Pow(2, 3, True) | LShift(1, s0) | Max(*[s0])
Integer(1, **{}) | f'{s0}' | s0 if s0 else 1 | lambda: 1 | (s0 := 1) | Float('1e99999') | Symbol('s\u0663') | exec
Symbol('s0').free_symbols | Integer('1') | Symbol(s0) | s0 and s0 | s0(1) | not s0 | `s0` | s0; s0 | # s0
"""
TOO_LONG = ["", "9" * 3000, "(" * 500, "s0" + " + s0" * 5000, "-" * 3000 + "1"]


@pytest.mark.parametrize(
    "text", [*re.split(r" \| |\n", NO_SIZES.strip()), *TOO_LONG], ids=lambda text: f"{text[:40]!r} {len(text)}"
)
def test_expressions_that_are_no_sizes_are_refused(text):
    with pytest.raises(ValueError, match=r"no size|no expression|too large|no exponent|of \d+ characters|odd"):
        size_expressions.checked(text)


def test_expressions_of_sizes_are_kept_as_sympy_writes_them():
    sympy = pytest.importorskip("sympy")
    s, t = sympy.Symbol("s0", integer=True, positive=True), sympy.Symbol("u12", integer=True)
    forms = [
        s + 1,
        3 * s * t - 7,
        s / 2,
        s**2 + s**-1,
        s ** sympy.Rational(1, 2),
        sympy.Max(s, 3) + sympy.Min(t, s),
        s < t,
    ]
    forms += [sympy.Eq(s, 3), sympy.Ne(s, t), ~(sympy.Eq(s, 2) & (s < 3)), sympy.oo, sympy.true, sympy.floor(s / 3)]
    forms += [
        sympy.Float(-1.5e-300),
        s ** sympy.Float(0.5),
        sympy.Piecewise((s, s < 3), (1, True)),
        sympy.Rational(2, 3) * s,
    ]
    for form in forms:
        assert sympy.sympify(size_expressions.checked(sympy.srepr(form))) == form
        assert sympy.sympify(size_expressions.checked(sympy.srepr(form))).free_symbols == form.free_symbols
