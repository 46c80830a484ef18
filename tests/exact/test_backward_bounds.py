"""Rows that are followed back through open lines are within their bounds, by fractions."""

from fractions import Fraction as F

import numpy as np
import pytest
import torch

from pylinregion.exact import backward_bounds
from pylinregion.exact.backward_bounds import BackwardBounds

CORNERS = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])


def add_lines(bounds, *arrays):
    bounds.add_lines(*map(torch.from_numpy, arrays))


def exact(forms, taken, before, at):
    """Of rows at a point, from the values of all lines before."""
    return [
        sum((F(x) * y for x, y in zip(form, at, strict=True)), F(0))
        + sum((F(x) * max(y, F(0)) for x, y in zip(row, before, strict=True)), F(0))
        for form, row in zip(forms.tolist(), taken.T.tolist(), strict=True)
    ]


def ranges(forms, taken, high):
    """Bounds of what rows are, by every term alone."""
    reach = np.abs(forms).sum(axis=1)
    return (-reach + np.minimum(taken, 0).T @ high) * 1.001, (reach + np.maximum(taken, 0).T @ high) * 1.001


def draw(rng, kind, *size):
    if kind == "small integers":
        return rng.integers(-2, 3, size).astype(float)
    numbers = rng.standard_normal(size)
    return numbers * 10.0 ** rng.integers(-6, 7, size) if kind == "of all scales" else numbers


@pytest.mark.parametrize("kind", ["normal", "small integers", "of all scales"])
def test_rows_are_within_their_bounds(kind):
    rng = np.random.default_rng(["normal", "small integers", "of all scales"].index(kind))
    for _ in range(6):
        found, stages = BackwardBounds(CORNERS, np.ones(3)), []
        high = np.zeros(0)
        for n in (4, 3, 5):
            forms, taken = draw(rng, kind, n, 3), draw(rng, kind, len(high), n)
            low, top = ranges(forms, taken, high)
            add_lines(found, taken, forms, np.zeros(n), low, top)
            stages.append((forms, taken))
            high = np.concatenate([high, top])
        forms, taken = draw(rng, kind, 40, 3), draw(rng, kind, len(high) - 2, 40)  # nothing from the last two
        bounds = found.of(torch.from_numpy(forms), torch.from_numpy(taken.T), torch.zeros(40).double())
        for s, t in [*CORNERS.tolist(), *rng.uniform(-1, 1, (6, 2)).tolist()]:
            at, values = (F(s), F(t), F(1)), []
            for stage in stages:
                values += exact(*stage, values, at)
            for k, value in enumerate(exact(forms, taken, values[:-2], at)):
                assert bounds.low[k].item() <= value <= bounds.high[k].item()
                near = sum(F(x) * y for x, y in zip(bounds.form[k].tolist(), at, strict=True))
                assert abs(value - near) <= F(bounds.slack[k].item())


def test_what_is_rounded_where_large_numbers_cancel_is_in_the_bounds():
    rng = np.random.default_rng(0)
    for _ in range(10):
        found = BackwardBounds(CORNERS, np.ones(3))
        forms = np.column_stack([rng.uniform(-1, 1, (8, 2)), np.full(8, 2.5)])
        add_lines(found, np.zeros((0, 8)), forms, np.zeros(8), np.full(8, -1e-200), np.full(8, 5.0))  # as good as on
        taken = 1e9 * rng.standard_normal((8, 1))
        row = -(taken.T @ forms)
        bounds = found.of(torch.from_numpy(row), torch.from_numpy(taken.T), torch.zeros(1).double())
        for s, t in CORNERS.tolist():
            at = F(s), F(t), F(1)
            (value,) = exact(row, taken, exact(forms, np.zeros((0, 8)), [], at), at)
            assert value != 0 and bounds.low.item() <= value <= bounds.high.item() < 1e-3


def test_what_lines_and_rows_are_off_by_is_in_the_bounds():
    found = BackwardBounds(CORNERS, np.ones(3))
    add_lines(found, np.zeros((0, 1)), np.array([[1.0, 0, 0]]), np.array([0.25]), np.array([-2.0]), np.array([2.0]))
    row = torch.zeros(1, 3).double(), torch.tensor([[2.0]]).double()
    bounds = found.of(*row, torch.tensor([0.125]).double())
    assert bounds.high.item() == pytest.approx(2 * (0.5 * 1 + 1) + 2 * 0.5 * 0.25 + 0.125, rel=1e-5)
    assert bounds.low.item() <= -0.125  # by the lower line 0: the line's value is not looked at


def test_what_cancels_cancels():
    """Of two lines that take the same from a third one, with two signs: the strip of the third is not in their sum."""
    found = BackwardBounds(CORNERS, np.ones(3))
    first = np.array([[1.0, 0.5, 0]])
    add_lines(found, np.zeros((0, 1)), first, np.zeros(1), np.array([-1.5]), np.array([1.5]))
    two, of_two = np.array([[1.0, -1.0]]), np.array([[0, 0, 0.75], [0, 0, 0.75]])
    add_lines(found, two, of_two, np.zeros(2), np.array([-1.0, -1]), np.array([3.0, 3]))
    sum_of_both = torch.zeros(1, 3).double(), torch.tensor([[0.0, 1.0, 1.0]]).double()
    both = found.of(*sum_of_both, torch.zeros(1).double())
    assert both.slack.item() == pytest.approx(2 * 0.375, rel=1e-5)  # of the chords of the two alone


def test_candidates_are_taken_by_their_forms():
    found = BackwardBounds(CORNERS, np.ones(3))
    forms = torch.tensor([[1.0, 0, 2], [0, 0, 0]]).double()
    found.add_maxima(forms, torch.tensor([0.5, 0.0]).double(), torch.tensor([3.5, 3.5]).double())
    bounds = found.of(torch.zeros(1, 3).double(), torch.tensor([[-2.0, -2.0]]).double(), torch.zeros(1).double())
    assert bounds.low.item() == pytest.approx(-7, rel=1e-5) and bounds.high.item() == pytest.approx(-1, rel=1e-5)
    assert bounds.slack.item() == pytest.approx(1, rel=1e-5)


def test_a_row_of_numbers_that_overflow_is_not_bounded():
    found = BackwardBounds(CORNERS, np.ones(3))
    add_lines(found, np.zeros((0, 1)), np.array([[1e200, 0, 0]]), np.zeros(1), np.array([-1e200]), np.array([1e200]))
    bounds = found.of(torch.zeros(1, 3).double(), torch.tensor([[1e200]]).double(), torch.zeros(1).double())
    assert not bounds.high.item() < np.inf and not bounds.low.item() > -np.inf


def test_many_rows_are_bounded_some_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    found = BackwardBounds(CORNERS, np.ones(3))
    forms = rng.standard_normal((7, 3))
    low, high = ranges(forms, np.zeros((0, 7)), np.zeros(0))
    add_lines(found, np.zeros((0, 7)), forms, np.zeros(7), low, high)
    rows = torch.randn(50, 3).double(), torch.randn(50, 7).double(), torch.rand(50).double()
    whole = found.of(*rows)
    monkeypatch.setattr(backward_bounds, "_ROWS_AT_ONCE", 7)
    some = found.of(*rows)
    for name in ("form", "slack", "low", "high"):
        torch.testing.assert_close(getattr(some, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
