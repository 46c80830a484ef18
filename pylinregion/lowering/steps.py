"""Numbers that change in steps as the input does, and when what is made of them is continuous: exact algebra.

A :class:`Number` is ``base + sum of [w > c] form``: affine functions of atoms, some of them only on one side of a
hyperplane ``w = c``. Such a number is continuous if each ``form`` is a multiple ``m (w - c)``, and then it is
``base + sum of m max(w - c, 0)``. All numbers are fractions, so this is decided and not estimated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

Atom = tuple[int, int]  # a value of the network, and a place in it
Terms = tuple[tuple[Atom, Fraction], ...]

ZERO, ONE = Fraction(0), Fraction(1)


class Side(NamedTuple):
    """``[w > c]``: 1 on one side of a hyperplane, else 0.

    Attributes:
        direction: ``w`` without a constant, its first coefficient 1.
        threshold: ``c``.
        closed: It is ``[w >= c]``.
    """

    direction: Terms
    threshold: Fraction
    closed: bool


@dataclass(frozen=True)
class Form:
    """An affine function of atoms.

    Attributes:
        terms: Coefficients, none of them 0, by atom.
        constant: The rest.
    """

    terms: Terms = ()
    constant: Fraction = ZERO

    def plus(self, other: Form, factor: Fraction = ONE) -> Form:
        """``self + factor * other``."""
        if not factor:
            return self
        if not other.terms:
            return Form(self.terms, self.constant + factor * other.constant)
        sums = dict(self.terms)
        for atom, coefficient in other.terms:
            sums[atom] = sums.get(atom, ZERO) + factor * coefficient
        terms = tuple(sorted((atom, total) for atom, total in sums.items() if total))
        return Form(terms, self.constant + factor * other.constant)

    def times(self, factor: Fraction) -> Form:
        """``factor * self``."""
        return self if factor == 1 else Form().plus(self, factor)

    def along(self, direction: Terms) -> tuple[Fraction, Fraction] | None:
        """``(a, b)`` where it is ``a w + b`` with ``w`` in that direction; None if it is not."""
        if not self.terms:
            return ZERO, self.constant
        slope = self.terms[0][1]
        if not direction or tuple((atom, slope * coefficient) for atom, coefficient in direction) != self.terms:
            return None
        return slope, self.constant

    @property
    def direction(self) -> Terms:
        """Its terms, the first coefficient made 1."""
        return tuple((atom, coefficient / self.terms[0][1]) for atom, coefficient in self.terms)


class Hinge(NamedTuple):
    """``m max(w - c, 0)``."""

    direction: Terms
    threshold: Fraction
    slope: Fraction


@dataclass(frozen=True)
class Number:
    """See above.

    Attributes:
        base: What it is with all sides 0.
        parts: What each side adds, none of them 0.
    """

    base: Form = field(default_factory=Form)
    parts: dict[Side, Form] = field(default_factory=dict)

    @classmethod
    def of(cls, value: float) -> Number:
        """A constant."""
        return cls(Form((), Fraction(value)))

    @property
    def constant(self) -> Fraction | None:
        """Its value if it is a constant."""
        return None if self.parts or self.base.terms else self.base.constant

    @property
    def size(self) -> int:
        """How many coefficients it has."""
        return len(self.base.terms) + sum(1 + len(form.terms) for form in self.parts.values())

    def plus(self, other: Number, factor: Fraction = ONE) -> Number:
        """``self + factor * other``."""
        parts = dict(self.parts)
        for side, form in other.parts.items():
            parts[side] = parts.get(side, Form()).plus(form, factor)
        return Number(self.base.plus(other.base, factor), _nonzero(parts))

    def times(self, other: Number) -> Number | None:
        """The product; None if it is none of these numbers."""
        for one, two in ((self, other), (other, self)):
            if (factor := one.constant) is not None:
                return Number().plus(two, factor)
        total = Number()
        for side, form in [(None, self.base), *self.parts.items()]:
            for another, its in [(None, other.base), *other.parts.items()]:
                if form == Form() or its == Form():
                    continue
                both = _both(side, another)
                if (form.terms and its.terms) or both is _NEITHER:
                    return None
                product = form.times(its.constant) if form.terms else its.times(form.constant)
                total = total.plus(Number(product) if both is None else Number(Form(), {both: product}))
        return total

    def bent(
        self, kinks: Sequence[Fraction], pieces: Sequence[tuple[Fraction, Fraction]], at: Callable[[Fraction], Fraction]
    ) -> Number | None:
        """A piecewise linear function of it: ``slope z + intercept`` by pieces.

        Args:
            kinks: Where the pieces meet, ascending.
            pieces: One more than kinks.
            at: The function at a point.

        Returns:
            None if it depends on more than one direction.
        """
        direction = next((side.direction for side in self.parts), self.base.direction if self.base.terms else ())
        if not direction:
            return Number(Form((), at(self.base.constant)))
        base = self.base.along(direction)
        parts = {side: form.along(direction) for side, form in self.parts.items()}
        if base is None or any(part is None or side.direction != direction for side, part in parts.items()):
            return None
        steps = [(side, part) for side, part in parts.items() if part is not None]
        thresholds = sorted({side.threshold for side in self.parts})

        def function(w: Fraction, where: bool) -> tuple[Fraction, Fraction]:
            """Slope and intercept near ``w``; at ``w`` itself if asked for."""
            slope, intercept = base
            for side, (a, b) in steps:
                if side.threshold < w or (where and side.closed and side.threshold == w):
                    slope, intercept = slope + a, intercept + b
            return slope, intercept

        def between(points: list[Fraction]) -> list[Fraction]:
            if not points:
                return [ZERO]
            middles = [(low + high) / 2 for low, high in pairwise(points)]
            return [points[0] - 1, *middles, points[-1] + 1]

        points = set(thresholds)
        for number, test in enumerate(between(thresholds)):
            slope, intercept = function(test, False)
            for kink in kinks if slope else ():
                root = (kink - intercept) / slope
                if bisect_left(thresholds, root) == number:
                    points.add(root)
        stops = sorted(points)
        found = []
        for test in between(stops):
            slope, intercept = function(test, False)
            if not slope:
                found.append((ZERO, at(intercept)))
                continue
            a, b = pieces[sum(kink < slope * test + intercept for kink in kinks)]
            found.append((a * slope, a * intercept + b))
        total = Number(_form(direction, *found[0]))
        for stop, (left, right) in zip(stops, pairwise(found), strict=True):
            slope, intercept = function(stop, True)
            value = at(slope * stop + intercept)
            change = _form(direction, right[0] - left[0], right[1] - left[1])
            parts_here: dict[Side, Form] = {}
            opened, closed = Side(direction, stop, False), Side(direction, stop, True)
            if value == left[0] * stop + left[1]:
                parts_here = {opened: change}
            elif value == right[0] * stop + right[1]:
                parts_here = {closed: change}
            else:
                jump = Form((), value - left[0] * stop - left[1])
                parts_here = {closed: jump, opened: change.plus(jump, -ONE)}
            total = total.plus(Number(Form(), _nonzero(parts_here)))
        return total

    def above(self, closed: bool) -> Number | None:
        """Whether it is above 0 (or 0), as 1 or 0."""
        return self.bent([ZERO], [(ZERO, ZERO), (ZERO, ONE)], lambda z: Fraction(z > 0 or (closed and z == 0)))

    def jump(self) -> tuple[Side, Form] | None:
        """A side whose part is not 0 on its hyperplane; None if it is continuous."""
        for side, form in self.parts.items():
            along = form.along(side.direction)
            if along is None or along[0] * side.threshold + along[1]:
                return side, form
        return None

    def hinges(self) -> list[Hinge]:
        """What a continuous one adds to its base."""
        slopes: dict[tuple[Terms, Fraction], Fraction] = {}
        for side, form in self.parts.items():
            slope, _ = form.along(side.direction) or (ZERO, ZERO)
            key = side.direction, side.threshold
            slopes[key] = slopes.get(key, ZERO) + slope
        return [Hinge(*key, slope) for key, slope in slopes.items() if slope]


def atom(value: int, place: int) -> Number:
    """A number of the network itself."""
    return Number(Form((((value, place), ONE),)))


def _nonzero(parts: dict[Side, Form]) -> dict[Side, Form]:
    return {side: form for side, form in parts.items() if form.terms or form.constant}


def _form(direction: Terms, slope: Fraction, intercept: Fraction) -> Form:
    return Form(tuple((each, slope * coefficient) for each, coefficient in direction) if slope else (), intercept)


_NEITHER = Side((), ZERO, False)  # of two sides of different directions


def _both(one: Side | None, two: Side | None) -> Side | None:
    """The side on which both are 1."""
    if one is None or two is None:
        return two if one is None else one
    if one.direction != two.direction:
        return _NEITHER
    return max(one, two, key=lambda side: (side.threshold, not side.closed))
