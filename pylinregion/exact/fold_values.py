"""What a fold has of a stage, on all slices: its rows, and its units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion.exact.equal_values import Named
from pylinregion.exact.fixed_point import FixedPoint


class Born(NamedTuple):
    """Columns that begin in a stage.

    Attributes:
        first: The number of the first; the others follow.
        units: ``[n]``: the unit that each is of.
        entries: ``[n]``: what it is times the line's unit.
    """

    first: int
    units: Tensor
    entries: Tensor

    @property
    def end(self) -> int:
        """The number behind the last."""
        return self.first + len(self.units)

    @property
    def all(self) -> slice:
        """Their numbers."""
        return slice(self.first, self.end)


@dataclass
class Values:
    """The units of a stage on all slices.

    Attributes:
        affine: ``[B, axes + 1, n]``: what s (and t) and 1 give.
        columns: ``[columns before, n]``: what they take from units that were unsettled before.
        born: What they are of their own lines that are not settled.
        size: ``[B, n]``: bounds of their values with all terms taken without signs.
        error: ``[B]``: a bound of the 2-norm of what they are off by, anywhere on the slice.
        each: ``[B, n]``: of what each of those that are settled is off by, if not by norms; None: not known.
        some: ``[B, n]``: 0 where they are 0 all over the slice, for all that they read is, else 1.
        names: ``[B, n]``: equal for those that are the same function all over the slice; None: there are no maxima.
        noise: ``[B]``: the 2-norm that rounding is expected to have, where outputs are asked for.
        digits: In a fold in digits all that ``affine`` has, then the columns, with those that are born.
    """

    affine: Tensor
    columns: Tensor
    born: Born
    size: Tensor
    error: Array
    each: Tensor | None
    some: Tensor
    names: Named | None
    noise: Array
    digits: FixedPoint | None = None


@dataclass
class Rows:
    """The rows of a stage on all slices.

    Attributes:
        affine: ``[B, axes + 1, n]``.
        columns: ``[columns so far, n]``.
        size: ``[B, n]``: bounds of their values with all terms taken without signs.
        error: ``[B]``: a bound of the 2-norm of what they are off by.
        each: ``[B, n]``: of what each is off by.
        some, names, noise, digits: As of values.
    """

    affine: Tensor
    columns: Tensor
    size: Tensor
    error: Array
    each: Tensor
    some: Tensor
    names: Named | None
    noise: Array
    digits: FixedPoint | None = None


@dataclass
class LinesOfRows:
    """The rows of a stage less the kinks of its lines, each as often as it has lines.

    Attributes:
        row: ``[lines]``: of each, its row.
        affine, columns, each, size: As of rows, ``[..., lines]``.
        at_kink: ``[B, lines]``: what taking the kinks has rounded, which is in ``each``; None: there are none but 0.
        zero: ``[B, lines]``: whether the rows are 0 for all that they read; None: none is.
        names: Those of the rows; of candidates these are lines.
        one_each: Whether each row has one line.
    """

    row: Tensor
    affine: Tensor
    columns: Tensor
    each: Tensor
    size: Tensor
    at_kink: Tensor | None
    zero: Tensor | None
    names: Named | None
    one_each: bool
