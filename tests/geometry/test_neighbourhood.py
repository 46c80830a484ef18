import math

import pytest
import torch

import pylinregion as plr


@pytest.mark.parametrize("shape, count", [((784,), 25), ((3, 8, 8), 20), ((5,), 5), ((1,), 1), ((3000,), 200)])
def test_frames_are_orthonormal_to_1e_12(shape, count):
    frame = plr.random_frame(shape, count, seed=3)
    assert frame.shape == (count, *shape) and frame.dtype == torch.float64
    flat = frame.flatten(1)
    assert float((flat @ flat.T - torch.eye(count, dtype=torch.float64)).abs().max()) < 1e-12


def test_seed_decides_and_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (plr.random_frame((10,), 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_frames_are_uniform():
    """Each coordinate of a uniformly drawn direction has mean 0 and variance 1/d."""
    draws = torch.stack([plr.random_frame((4,), 4, seed=seed) for seed in range(2000)])
    spread = 5 / math.sqrt(len(draws))
    assert float(draws.mean(0).abs().max()) < spread / 2
    assert float((draws.square().mean(0) - 0.25).abs().max()) < spread / 2


def test_more_directions_than_dimensions_says_both_numbers():
    with pytest.raises(ValueError, match="n_directions must be at most the 12 input dimensions, got 13"):
        plr.random_frame((3, 4), 13)
    with pytest.raises(ValueError, match="n_directions must be at least 1, got 0"):
        plr.random_frame((3, 4), 0)
    with pytest.raises(TypeError, match="n_directions must be an integer, got float"):
        plr.random_frame((3, 4), 2.5)


@pytest.mark.parametrize(
    ("shape", "want"), [((1,), 1), ((2,), 2), ((2, 3), 6), ((24,), 24), ((25,), 25), ((28, 28), 25)]
)
def test_a_frame_has_25_directions_or_all_of_fewer(shape, want):
    assert torch.equal(plr.random_frame(shape, seed=3), plr.random_frame(shape, want, seed=3))


def test_points_without_numbers_have_no_frame():
    with pytest.raises(ValueError, match=r"input_shape must have at least one dimension of the input, got \[3, 0\]"):
        plr.random_frame((3, 0))
