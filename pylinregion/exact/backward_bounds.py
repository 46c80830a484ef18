"""Sharper bounds of rows: what they take from open lines is followed back through these lines' own rows.

A relaxed line is a strip around a line of its row (a chord, and what is between it and the function). Cheap bounds take
each strip's width without its sign, once for every way that leads from it to a row; here a row's coefficients are
followed back, so that what cancels cancels. docs/exactness.md, 5.2, has the bounds.

Sources: "zonotopes" of Singh et al., Fast and Effective Robustness Certification, 2018; backward linear bounds of Zhang
et al., Efficient Neural Network Robustness Certification with General Activation Functions (CROWN), 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pylinregion._util.arrays import Array
from pylinregion._util.rounding import NORM_UP, UNDERFLOW, UNIT, UP
from pylinregion._util.tensors import CPU, as_tensor

_ROWS_AT_ONCE = 512
_ON_A_DEVICE = 1 << 13  # rows at once, elsewhere than on the CPU
_OPERATIONS = 48  # more than what a coefficient, and a form at a corner, round besides the products of lines: 5.2


@dataclass(frozen=True)
class _Lines:
    """The open lines of a stage.

    Attributes:
        before: So many open lines are of earlier stages.
        taken: ``[before or fewer, n]``: what their rows take from the first of these; from others nothing.
        forms, off, size: ``[n, axes + 1]`` and ``[n]``: their rows, what these are off by, and at most with all terms
            taken without signs.
        chord, above: ``[n]``: ``max(z, 0)`` is at most ``chord z + above``.
        steep: ``[n]``: and at least ``steep z``, which is 0 or ``z``, whichever is nearer.
    """

    before: int
    taken: Tensor
    forms: Tensor
    off: Tensor
    size: Tensor
    chord: Tensor
    above: Tensor
    steep: Tensor


@dataclass(frozen=True)
class _Maxima:
    """The open candidates of a stage: the first of each stands for its maximum, the others for 0.

    Attributes:
        before: So many open lines are of earlier stages.
        forms, off: ``[n, axes + 1]`` and ``[n]``: they are within so much of these.
    """

    before: int
    forms: Tensor
    off: Tensor


@dataclass(frozen=True)
class Bounds:
    """Of ``m`` rows.

    Attributes:
        form: ``[m, axes + 1]``: they are within ``slack`` of this, all over the slice.
        slack: ``[m]``.
        low, high: ``[m]``: bounds of their values.
    """

    form: Tensor
    slack: Tensor
    low: Tensor
    high: Tensor


class BackwardBounds:
    """The open lines of one slice, stage by stage.

    Args:
        corners: ``[corners, axes]``: of the slice.
        extent: ``[axes + 1]``: the largest absolute values of its coordinates, and 1.
        device: Where tensors are.
    """

    def __init__(self, corners: Array, extent: Array, device: torch.device = CPU) -> None:
        self._corners = as_tensor(corners.T.copy(), device)
        self._extent = as_tensor(extent, device)
        self._stages: list[_Lines | _Maxima] = []
        self._high = torch.zeros(0, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return len(self._high)

    def add_lines(self, taken: Tensor, forms: Tensor, error: Tensor, low: Tensor, high: Tensor) -> None:
        """Those that a stage leaves open.

        Args:
            taken: ``[k, n]``: what their rows take from the first open lines before; from the others it is nothing.
            forms: ``[n, axes + 1]``: what they are besides.
            error: ``[n]``: bounds of what they are off by.
            low, high: ``[n]``: bounds of their values, 0 between them.
        """
        width = high - low
        chord = torch.where(width > 0, high / width, 0)
        above = torch.maximum(-chord * low, (1 - chord) * high) * UP + UNDERFLOW
        size = self._sizes(forms, taken.T)
        self._stages.append(_Lines(len(self), taken, forms, error, size, chord, above, (high > -low).double()))
        self._high = torch.cat([self._high, high * UP])

    def add_maxima(self, forms: Tensor, radius: Tensor, high: Tensor) -> None:
        """The candidates that a stage leaves open: each is within a radius of a form, as is a maximum by its first.

        Args:
            forms: ``[n, axes + 1]``.
            radius: ``[n]``.
            high: ``[n]``: bounds of their absolute values.
        """
        self._stages.append(_Maxima(len(self), forms, radius))
        self._high = torch.cat([self._high, high])

    def of(self, forms: Tensor, taken: Tensor, error: Tensor) -> Bounds:
        """Bounds of rows.

        Args:
            forms: ``[m, axes + 1]``.
            taken: ``[m, k]``: what they take from the first k open lines; they take nothing from later ones.
            error: ``[m]``: what they are off by.
        """
        parts = []
        step = _ROWS_AT_ONCE if forms.device == CPU else _ON_A_DEVICE
        for begin in range(0, len(forms), step):
            some = slice(begin, begin + step)
            size = self._sizes(forms[some], taken[some])
            parts.append(self._followed(forms[some], taken[some], error[some] + self._rounding * size))
        return Bounds(*map(torch.cat, zip(*((p.form, p.slack, p.low, p.high) for p in parts), strict=True)))

    @property
    def _rounding(self) -> float:
        """Of a coefficient, in units of the terms that it sums."""
        return (len(self) + len(self._stages) + _OPERATIONS) * UNIT * UP

    def _sizes(self, forms: Tensor, taken: Tensor) -> Tensor:
        """``[m]``: at least the values of rows with all terms taken without signs."""
        size: Tensor = forms.abs() @ self._extent + taken.abs() @ self._high[: taken.shape[1]]
        return size * NORM_UP

    def _followed(self, forms: Tensor, taken: Tensor, slack: Tensor) -> Bounds:
        """By chords both ways, which gives a form and a range; then each way by the line that is nearer."""
        form, above, below, off = self._back(forms, taken, slack, parallel=True)
        values = form[:, :-1] @ self._corners + form[:, -1:]
        low, high = values.amin(dim=1) + below - off, values.amax(dim=1) + above + off
        form[:, -1] += (above + below) / 2
        wide = ((above - below) / 2 + off) * NORM_UP + UNDERFLOW
        both = torch.cat([forms, -forms]), torch.cat([taken, -taken]), torch.cat([slack, slack])
        ends, above, _, off = self._back(*both, parallel=False)
        most = (ends[:, :-1] @ self._corners + ends[:, -1:]).amax(dim=1) + above + off
        top, bottom = most[: len(forms)], -most[len(forms) :]
        return Bounds(form, wide, torch.where(bottom > low, bottom, low), torch.where(top < high, top, high))

    def _back(
        self, forms: Tensor, taken: Tensor, slack: Tensor, parallel: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows as affine functions: they are at most ``form + above + off``, and, by parallel chords, at least
        ``form + below - off``.
        """
        form, rest, off = forms.clone(), taken.clone(), slack.clone()
        above, below = torch.zeros_like(off), torch.zeros_like(off)
        for stage in reversed(self._stages):
            here = rest[:, stage.before :]
            n = here.shape[1]  # fewer than the stage has: from its last ones these rows take nothing
            if n == 0:
                continue
            rest = rest[:, : stage.before]
            if isinstance(stage, _Maxima):
                much, more = here, self._rounding * (stage.forms.abs() @ self._extent)
            else:
                upwards = here.clamp(min=0)
                above += upwards @ stage.above[:n]
                if parallel:
                    below += (here - upwards) @ stage.above[:n]
                much = here * (stage.chord[:n] if parallel else torch.where(here > 0, stage.chord[:n], stage.steep[:n]))
                more = (self._rounding + 2 * UNIT) * stage.size
                rest[:, : len(stage.taken)].addmm_(much, stage.taken[:, :n].T)
            off += much.abs() @ (stage.off + more)[:n]
            form += much @ stage.forms[:n]
        return form, above * NORM_UP, below * NORM_UP, off * NORM_UP + UNDERFLOW
