import json
import math

import numpy as np
import pytest
import torch

from pylinregion import RegionCounts

CHANGES = torch.tensor([[1, 0], [2, 3], [0, 0], [4, 1]])


def counts(changes=CHANGES, ambiguous=None):
    regions = torch.arange(len(changes)) + 1
    return RegionCounts(changes, regions, ambiguous, ("a", "b.c"), "neurons that change", "vertices")


def test_mean_is_over_points_with_the_normal_99_percent_interval():
    totals = np.array([1, 5, 0, 5])
    mean, low, high = counts().mean()
    reach = 2.5758293035489004 * totals.std(ddof=1) / math.sqrt(4)
    assert mean == totals.mean()
    assert math.isclose(low, mean - reach, rel_tol=1e-15) and math.isclose(high, mean + reach, rel_tol=1e-15)
    assert counts().mean("b.c").mean == 1.0
    with pytest.raises(ValueError, match=r"layer must be among 'a', 'b\.c', got 'c'"):
        counts().mean("c")


def test_mean_of_few_points():
    assert all(math.isnan(value) for value in counts(CHANGES[:0]).mean())
    mean, low, high = counts(CHANGES[1:2]).mean()
    assert mean == 5 and math.isnan(low) and math.isnan(high)


def test_to_frame_has_a_row_per_point():
    frame = counts(ambiguous=torch.tensor([0, 0, 7, 0])).to_frame()
    assert list(frame.columns) == ["a", "b.c", "total", "regions", "ambiguous"]
    assert frame.index.name == "point" and frame["total"].tolist() == [1, 5, 0, 5]
    assert frame["a"].dtype == np.int64 and frame.loc[2, "ambiguous"] == 7
    assert list(counts().to_frame().columns) == ["a", "b.c", "total", "regions"]


@pytest.mark.parametrize("name", ["total", "regions", "ambiguous"])
def test_to_frame_loses_no_layer_to_its_own_columns(name):
    regions = torch.arange(4) + 1
    found = RegionCounts(CHANGES, regions, torch.zeros_like(regions), ("a", name), "neurons that change", "vertices")
    with pytest.raises(ValueError, match=rf"layers of other names than its columns 'total', .* got '{name}'"):
        found.to_frame()
    found = RegionCounts(CHANGES, regions, None, ("a", name), "neurons that change", "vertices")
    if name == "ambiguous":  # not a column if it was not estimated
        assert found.to_frame()["ambiguous"].tolist() == [0, 3, 0, 1]


def test_to_dict_is_json():
    data = json.loads(json.dumps(counts().to_dict()))
    assert data["changes"] == CHANGES.tolist() and data["total"] == [1, 5, 0, 5] and data["ambiguous"] is None
    assert data["mean"]["mean"] == 2.75 and data["layers"] == ["a", "b.c"]


def test_repr_says_what_matters():
    text = repr(counts(ambiguous=torch.tensor([0, 0, 7, 0])))
    assert "4 points, method 'vertices'" in text and "local complexity 2.75" in text
    assert "b.c: 1" in text and "neurons that change" in text and "decided: 7" in text
    assert "1 point," in repr(counts(CHANGES[:1]))
    assert "0 points" in repr(counts(CHANGES[:0]))


def test_results_are_frozen():
    with pytest.raises(AttributeError, match="cannot assign"):
        counts().method = "axes"
