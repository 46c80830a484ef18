"""A network on a slice as a system of lines, in float64 with bounds of every rounding: what the engine starts from.

Each kink of a unit is a line ``z - kink = 0``. A unit is an affine part plus a ReLU for each of its kinks, so that a
row is ``A (s, t, 1) + sum of C_c max(z_c, 0)`` over the lines ``c`` before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import NORM_UP, UNDERFLOW, UNIT, UP, frobenius_norm, spectral_norm
from pylinregion.exact.candidates import groups_of
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.native.exact_engines import most_folds

STAGES_FOR_NORMS = 4  # in networks with fewer layers the bounds of single rows are as good, and cheaper
_AMPLIFICATION = 440  # powers of two; see check_scale
_MOST_TERMS = 1 << 22  # likewise
MOST_LINES = (1 << 31) - 1  # of a network: the core numbers them in 32 bits


@dataclass
class _Form:
    """Values as affine functions on the slice plus combinations of lines: ``A (s, t, 1) + C relu(z of lines)``.

    Attributes:
        affine: ``[n, 3]``.
        columns: ``[n, lines of the first .. last stage]`` for the stages ``first`` and on.
        first: The first stage whose lines have columns.
        error: ``[n]``, a bound of what these numbers are off, anywhere on the slice.
    """

    affine: Array
    columns: Array
    first: int
    error: Array


@dataclass
class LineSystem:
    """The arrays that the engine reads; the engine keeps addresses, so they live as long as it.

    Attributes:
        begins: ``[stages with lines + 1]``: the first line of each, and the number of lines.
        stage_numbers: Which of the network's stages these are.
        affine: Four ``[lines]`` arrays: a, b, c and the bound of their error.
        columns: For each stage with lines ``[lines of it, stride]``: what the lines after it take from each.
        extents: For each the line after the last that takes anything.
    """

    begins: list[int]
    stage_numbers: list[int]
    affine: tuple[Array, Array, Array, Array]
    columns: list[Array]
    extents: list[int]

    def norms(self) -> Array | None:
        """Bounds of the spectral and the Frobenius norms of what the rows of each stage take from the lines of another.

        Directly, and through any lines between them that are on: ``S_lj = s_lj + sum of s_li S_ij``, and with the
        Frobenius norms ``F_lj = f_lj + sum of s_li F_ij``; for the numbers of the network and for all that folds may
        make of them by rounding (docs/exactness.md, 5.1).

        Returns:
            ``[2, stages, stages]``, 0 from the diagonal on. None: that rounding is not small, so norms prove nothing.
        """
        count = len(self.columns)
        norms = np.zeros((2, count, count))
        for source, (columns, extent) in enumerate(zip(self.columns, self.extents, strict=True)):
            end = self.begins[source + 1]
            for stage in range(source + 1, count):
                if self.begins[stage] < extent:
                    block = columns[:, self.begins[stage] - end : self.begins[stage + 1] - end]
                    norms[:, stage, source] = spectral_norm(block), frobenius_norm(block)
        gamma = (self.begins[-1] + 3) * UNIT * UP
        products = _sizes_of_products(_through_between(norms))
        with_rounding = _through_between(norms + 2 * most_folds * gamma * products)
        return with_rounding if (_sizes_of_products(with_rounding) <= 2 * products).all() else None


def _sizes_of_products(norms: Array) -> Array:
    """What the products and sums of an elimination round, in units of gamma: ``F_lj + sum of F_li F_ij``."""
    frobenius: Array = norms[1]
    return frobenius + frobenius @ frobenius


def _through_between(direct: Array) -> Array:
    """The norms of direct parts and of those through the stages between."""
    norms = direct.copy()
    for stage in range(norms.shape[1]):
        for between in range(stage):
            norms[:, stage, :between] += direct[0, stage, between] * norms[:, between, :between] * UP
    return norms


def check_scale(stages: Stages, plane: Array, corners: Array, most_lines: int = MOST_LINES) -> str | None:
    """Why the numbers of a network or slice are too large for the bounds to hold in float64; None if they are not.

    What underflows is off by less than 2^-1074, and what is off somewhere, or the values themselves, grow to no more
    than :attr:`Stages.amplification` tells, times the numbers of the slice. As long as that is less than 2^440, it
    stays far below the 2^-500 that every bound contains; and nothing overflows. The constants that cover the rounding
    of bounds themselves hold for sums of 2^22 terms, and for systems of 2^21 lines (docs/exactness.md, 4.1): where all
    lines are one system, these are the most that there may be.
    """
    if stages.lines > most_lines:
        return f"it has {stages.lines} kinks, and {most_lines} is the limit"
    terms = max(sum(block.terms for block in stage.blocks.values()) for stage in stages.stages)
    if terms > _MOST_TERMS:
        return f"an affine map sums {terms} values, and {_MOST_TERMS} is the limit"
    total = sum(float(np.log2(max(1.0, np.abs(numbers).max(initial=0.0)))) for numbers in (plane, corners))
    for number, amplified in enumerate(stages.amplification):
        if not total + amplified < _AMPLIFICATION:
            return (
                f"the weights up to affine map {number} amplify by 2^{total + amplified:.0f}, and "
                f"2^{_AMPLIFICATION} is the limit"
            )
    return None


def line_system(stages: Stages, plane: Array, corners: Array) -> LineSystem:
    """Build the system.

    Args:
        stages: The network.
        plane: ``[inputs, 3]``: u, v and the origin of the slice.
        corners: ``[n, 2]``, the slice's polygon.
    """
    hs, ht = np.abs(corners).max(axis=0) * NORM_UP
    extent = np.array([hs, ht, 1.0])
    forms: dict[int, _Form] = {INPUT: _Form(plane, np.zeros((len(plane), 0)), 0, np.zeros(len(plane)))}
    with_lines = [number for number, stage in enumerate(stages.stages) if stage.units.lines]
    begins = [0, *np.cumsum([stages.stages[number].units.lines for number in with_lines]).tolist()]
    first_of_group = _first_of_group(stages)
    rows: list[_Form] = []  # of the lines, by stage with lines
    highs = np.zeros(0)  # bounds of max(z, 0) of the lines so far
    for number, stage in enumerate(stages.stages):
        if not with_lines or number > with_lines[-1]:
            break
        z = _combined(stage, forms, len(rows), begins, extent, highs)
        before = first_of_group[begins[z.first] : begins[len(rows)]]
        if not np.array_equal(before, np.arange(begins[z.first], begins[len(rows)])):
            z.columns = z.columns[:, before - begins[z.first]]
        place = with_lines.index(number) if stage.units.lines else -1
        if place >= 0:
            line_of = np.repeat(np.arange(stage.rows), np.diff(stage.units.line_begin))
            kinks = stage.units.kinks
            affine = z.affine[line_of]
            error = z.error[line_of] + 2 * UNIT * (np.abs(affine[:, 2]) + np.abs(kinks))
            affine[:, 2] -= kinks
            rows.append(_Form(affine, z.columns[line_of], z.first, error))
            size = np.abs(affine) @ extent + np.abs(z.columns[line_of]) @ highs[begins[z.first] :] + error
            highs = np.concatenate([highs, size * UP])
        forms[number] = _through(stage, z, place, begins, extent, highs)
    a, b, c = (np.concatenate([row.affine[:, k] for row in rows]) if rows else np.zeros(0) for k in range(3))
    error = np.concatenate([row.error for row in rows]) * UP + UNDERFLOW if rows else np.zeros(0)
    return LineSystem(begins, with_lines, (a, b, c, error), *_columns(rows, begins))


def _first_of_group(stages: Stages) -> NDArray[np.int64]:
    """``[lines]``: the first candidate of the same maximum, of other lines itself.

    All candidates of a maximum have the same column: so they also have the same rounding of it.
    """
    first = np.arange(stages.lines)
    for begin, size in groups_of(stages):
        first[begin : begin + size] = begin
    return first


def _combined(
    stage: Stage, forms: dict[int, _Form], stages_before: int, begins: list[int], extent: Array, highs: Array
) -> _Form:
    """The rows of a stage from the values that it takes."""
    first = min((forms[source].first for source in stage.blocks), default=stages_before)
    shift = begins[first]
    affine = np.zeros((stage.rows, 3))
    affine[:, 2] = stage.bias
    columns = np.zeros((stage.rows, begins[stages_before] - shift))
    error = np.zeros(stage.rows)
    size = np.abs(stage.bias)
    terms = 1
    exact = len(stage.blocks) == 1  # until a sum has rounded
    for source, block in stage.blocks.items():
        form, weight = forms[source], block.dense()
        pure = source != INPUT and _is_lines(form)
        begin = begins[form.first] - shift
        width = form.columns.shape[1]
        if pure:  # the values are sums of lines, each line in one of them: the weights are the columns
            columns[:, begin : begin + width] += weight if _is_identity(form.columns) else weight @ form.columns
        else:
            affine += weight @ form.affine
            if width:
                columns[:, begin : begin + width] += weight @ form.columns
        error = error + np.abs(weight) @ form.error
        if not (pure and exact):
            part = np.abs(weight) @ (
                np.abs(form.affine) @ extent + np.abs(form.columns) @ highs[begins[form.first] :][:width]
            )
            size = size + part
            terms += weight.shape[1] + 8
        exact = exact and pure
    if not exact:
        error = error + terms * UNIT * size
    return _Form(affine, columns, first, error * UP)


def _is_lines(form: _Form) -> bool:
    """Whether values are sums and differences of lines, each line in at most one: products with them do not round."""
    if form.affine.any() or form.error.any():
        return False
    if _is_identity(form.columns):
        return True
    used = np.count_nonzero(form.columns, axis=0)
    return bool((used <= 1).all() and (np.abs(form.columns).sum(axis=0) == used).all())


def _is_identity(matrix: Array) -> bool:
    rows, columns = matrix.shape
    return bool(rows == columns and np.count_nonzero(matrix) == rows and (matrix.diagonal() == 1).all())


def _through(stage: Stage, z: _Form, place: int, begins: list[int], extent: Array, highs: Array) -> _Form:
    """The units of a stage from its rows."""
    units = stage.units
    n = stage.rows
    first_piece = units.line_begin[:-1] + np.arange(n)
    slope, constant = units.slopes[first_piece], units.intercepts[first_piece]
    if not units.lines and units.denominator == 1 and (slope == 1).all() and not constant.any():
        return z
    line_of = np.repeat(np.arange(n), np.diff(units.line_begin))
    piece = np.arange(units.lines) + line_of  # the piece below each line
    jump = (units.slopes[piece + 1] - units.slopes[piece]) / units.denominator
    own = np.zeros((n, units.lines))
    own[line_of, np.arange(units.lines)] = jump
    if not slope.any() and not constant.any():
        exact = units.denominator == 1 and (np.abs(jump) == 1).all()
        error = np.zeros(n) if exact else 8 * UNIT * (np.abs(own) @ highs[begins[place] :])
        return _Form(np.zeros((n, 3)), own, place, error)
    slope = slope / units.denominator
    affine = slope[:, None] * z.affine
    affine[:, 2] += constant / units.denominator
    columns = np.concatenate([slope[:, None] * z.columns, own], axis=1)
    size = np.abs(slope) * (np.abs(z.affine) @ extent) + np.abs(constant) + np.abs(columns) @ highs[begins[z.first] :]
    error = np.abs(slope) * z.error + 8 * UNIT * size
    return _Form(affine, columns, z.first, error * UP)


def _columns(rows: list[_Form], begins: list[int]) -> tuple[list[Array], list[int]]:
    """What lines take from lines, as the engine reads it: by column, with padding for whole vectors."""
    reach = list(range(1, len(rows) + 1))  # the last stage that takes from each
    for place, form in enumerate(rows):
        for source in range(form.first, place):
            reach[source] = max(reach[source], place + 1)
    columns, extents = [], []
    for source in range(len(rows)):
        begin, end, extent = begins[source], begins[source + 1], begins[reach[source]]
        block = np.zeros((end - begin, extent - end + 8))
        for place in range(source + 1, reach[source]):
            form = rows[place]
            if form.first <= source:
                part = form.columns[:, begin - begins[form.first] : end - begins[form.first]]
                block[:, begins[place] - end : begins[place + 1] - end] = part.T
        columns.append(block)
        extents.append(extent)
    return columns, extents
