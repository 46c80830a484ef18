import numpy as np
import pytest
import torch
from torch import nn

from pylinregion.experiments import GaussianNoise, commutative_penalty, swapped


@pytest.mark.parametrize(("accuracy", "want"), [(0.0, 0.06), (0.25, 0.045), (0.5, 0.03), (0.75, 0.03), (1.0, 0.03)])
def test_noise_gets_less_as_the_training_set_is_learned(accuracy: float, want: float) -> None:
    assert GaussianNoise(0.06, 0.03).sigma(accuracy) == pytest.approx(want)


def test_noise_is_gaussian_with_that_deviation() -> None:
    x = torch.full((200, 500), 7.0, dtype=torch.float64)
    added = (GaussianNoise(0.5, 0.4)(x, 0.1, torch.Generator().manual_seed(0)) - x).numpy().ravel() / 0.45
    assert abs(added.mean()) < 0.01 and abs(added.std() - 1) < 0.01
    for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):  # of a normal distribution
        assert abs((np.abs(added) < bound).mean() - share) < 0.005


def test_noise_follows_its_generator_and_leaves_the_points_alone() -> None:
    x = torch.zeros(4, 3)
    noise = GaussianNoise(1.0, 0.5)
    one, same, other = (noise(x, 0.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and not x.any()
    torch.manual_seed(3)
    free = noise(x, 0.0)
    torch.manual_seed(3)
    assert torch.equal(free, torch.randn(4, 3))


def test_gradients_pass_the_noise() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    GaussianNoise(1.0, 1.0)(x, 0.0).sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("l1", "l2", "error"), [(-1, 0, ValueError), (0, float("nan"), ValueError), ("a", 0, TypeError)]
)
def test_wrong_noise_is_named(l1: object, l2: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"l[12] must be"):
        GaussianNoise(l1, l2)


@pytest.mark.parametrize("accuracy", [-0.1, 1.1, float("nan")])
def test_accuracy_is_a_share(accuracy: float) -> None:
    with pytest.raises(ValueError, match="train_accuracy must be between 0 and 1"):
        GaussianNoise(1, 1).sigma(accuracy)


def test_pairs_are_swapped() -> None:
    tokens = torch.tensor([[1, 2, 9], [3, 4, 9]])
    rows = nn.functional.one_hot(tokens, 10)
    assert torch.equal(swapped(rows), nn.functional.one_hot(torch.tensor([[2, 1, 9], [4, 3, 9]]), 10))
    assert torch.equal(swapped(swapped(tokens)), tokens)
    with pytest.raises(ValueError, match=r"pairs must be \[n, at least 2, ...\], got \[3\]"):
        swapped(torch.zeros(3))


def test_penalty_is_the_papers() -> None:
    one, other = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = 100 * ((one.numpy() - other.numpy()) ** 2).mean()
    assert float(commutative_penalty(one, other)) == pytest.approx(want, rel=1e-12)
    assert float(commutative_penalty(one, other, 2.0)) == pytest.approx(want / 50, rel=1e-12)
    assert float(commutative_penalty(one, one)) == 0
    with pytest.raises(ValueError, match=r"swapped_logits must have the shape of logits, \[6, 5\], got \[5\]"):
        commutative_penalty(one, other[0])


def test_penalty_teaches_to_commute() -> None:
    torch.manual_seed(0)
    model, pairs = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), torch.randn(20, 2, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        commutative_penalty(model(pairs), model(swapped(pairs))).backward()
        optimizer.step()
    assert torch.allclose(model[1].weight[:, :4], model[1].weight[:, 4:], atol=1e-2)
