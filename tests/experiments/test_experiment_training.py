import io
from typing import Any

import numpy as np
import pytest
import torch

from pylinregion.experiments.config import Model, Training
from pylinregion.experiments.data import stream
from pylinregion.experiments.models import make
from pylinregion.experiments.training import Batches, Trainer

X = torch.randn(23, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (23,), generator=torch.Generator().manual_seed(1))


def trainer(seed: int = 0, **settings: Any) -> Trainer:
    model = make(Model("mlp", width=8, depth=3), (6,), 3, torch.float64, seed=5)
    return Trainer(model, X, Y, 3, Training(**{"batch": 5, **settings}), seed)


def pairs_trainer(**settings: Any) -> Trainer:
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    x = torch.cat([pairs, torch.full((25, 1), 5)], dim=1)[:11]
    model = make(Model("transformer", width=8, depth=1, heads=2), (3, 6), 5, torch.float64, seed=5)
    return Trainer(model, x, (x[:, 0] + x[:, 1]) % 5, 5, Training(batch=4, loss="cross_entropy", **settings), 0)


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in one.model.state_dict().items()}


def test_every_epoch_has_every_point_once_in_another_order() -> None:
    batches = Batches(23, 5, stream(0, 10))
    orders = []
    for _ in range(3):
        epoch = []
        while not epoch or not batches.ends_epoch:
            epoch.append(batches())
        assert [len(part) for part in epoch] == [5, 5, 5, 5, 3]
        orders.append(torch.cat(epoch))
        assert orders[-1].sort().values.tolist() == list(range(23))
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])


@pytest.mark.parametrize("size", [None, 23, 50])
def test_all_points_are_one_batch(size: int | None) -> None:
    batches = Batches(23, size, stream(0, 10))
    assert batches() is None and batches.ends_epoch


@pytest.mark.parametrize(("optimizer", "loss"), [("adamw", "mse"), ("adam", "mse"), ("adamw", "cross_entropy")])
def test_steps_are_those_of_the_optimiser(optimizer: str, loss: str) -> None:
    """Full batches, against Adam in NumPy with gradients of finite differences of a loss in NumPy."""
    one = trainer(batch=None, optimizer=optimizer, loss=loss, learning_rate=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    start = weights(one)
    sizes = {key: value.shape for key, value in start.items()}
    flat = np.concatenate([value.numpy().ravel() for value in start.values()])

    def value(parameters: np.ndarray) -> float:
        parts, place = [], 0
        for shape in sizes.values():
            parts.append(parameters[place : place + shape.numel()].reshape(shape))
            place += shape.numel()
        hidden = X.numpy()
        for number in range(3):
            hidden = hidden @ parts[2 * number].T + parts[2 * number + 1]
            hidden = np.maximum(hidden, 0) if number < 2 else hidden
        if loss == "mse":
            return float(((hidden - np.eye(3)[Y.numpy()]) ** 2).mean())
        shifted = hidden - hidden.max(axis=1, keepdims=True)
        return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(23), Y.numpy()]).mean())

    first, second = np.zeros_like(flat), np.zeros_like(flat)
    for step in (1, 2, 3):
        near = np.eye(len(flat)) * 1e-6
        gradient = np.array([(value(flat + row) - value(flat - row)) / 2e-6 for row in near])
        if optimizer == "adamw":
            flat = flat * (1 - 0.01 * 0.1)
        else:
            gradient = gradient + 0.1 * flat
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        flat = flat - 0.01 * (first / (1 - 0.8**step)) / (np.sqrt(second / (1 - 0.9**step)) + 1e-8)
        one.step()
    found = np.concatenate([value.numpy().ravel() for value in weights(one).values()])
    np.testing.assert_allclose(found, flat, atol=1e-5)  # differences are good to 1e-9; Adam divides small gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_is_taken_in_its_own_dtype(dtype: torch.dtype) -> None:
    """At a margin of 20 the gradient at the right class is -2 exp(-20); in float32 it is lost beside 1."""
    found = {}
    for loss_dtype in ("float32", "float64"):
        model = make(Model("mlp", width=8, depth=2), (6,), 3, dtype, seed=5)
        *_, last = model.children()
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.tensor([20.0, 0.0, 0.0]))
        settings = Training(batch=None, loss="cross_entropy", loss_dtype=loss_dtype)
        Trainer(model, X.to(dtype), torch.zeros(23, dtype=torch.int64), 3, settings, 0).step()
        found[loss_dtype] = last.bias.grad[0].item()
    assert found["float32"] == 0.0 and found["float64"] == pytest.approx(-2 * np.exp(-20.0), rel=1e-6)
    squared = {}
    for loss_dtype in ("float32", "float64"):
        one = trainer(batch=None, loss_dtype=loss_dtype)
        one.step()
        squared[loss_dtype] = torch.cat([parameter.grad.flatten() for parameter in one.model.parameters()])
    assert not torch.equal(*squared.values())
    torch.testing.assert_close(*squared.values(), rtol=1e-4, atol=1e-6)


def test_batches_are_those_of_the_seed() -> None:
    one, same, other = trainer(), trainer(), trainer(seed=1)
    for each in (one, same, other):
        for _ in range(7):
            each.step()
    assert all(torch.equal(weights(one)[key], value) for key, value in weights(same).items())
    assert any(not torch.equal(weights(one)[key], value) for key, value in weights(other).items())


def test_a_batch_is_the_points_with_their_labels() -> None:
    """A step on one batch is a step on these points alone."""
    one = trainer()
    chosen = Batches(23, 5, stream(0, 10))()
    model = make(Model("mlp", width=8, depth=3), (6,), 3, torch.float64, seed=5)
    alone = Trainer(model, X[chosen], Y[chosen], 3, Training(batch=None), 0)
    one.step()
    alone.step()
    assert all(torch.equal(weights(one)[key], value) for key, value in weights(alone).items())


def test_noise_is_on_the_inputs_by_the_accuracy_of_the_last_epoch() -> None:
    one = trainer(noise=(0.5, 0.1))
    seen: list[torch.Tensor] = []
    one.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    right, expected, orders = 0, 0.0, Batches(23, 5, stream(0, 10))
    noise = stream(0, 11)
    for step in range(12):
        chosen = orders()
        sigma = max(0.5 * (1 - expected), 0.1)
        want = X[chosen] + sigma * torch.randn(len(chosen), 6, dtype=torch.float64, generator=noise)
        right += int((one.model(want).argmax(1) == Y[chosen]).sum())
        seen.clear()
        one.step()
        assert torch.allclose(seen[0], want, rtol=0, atol=1e-15)
        if step % 5 == 4:
            expected, right = right / 23, 0
        assert one.train_accuracy == expected


def test_noise_is_on_embeddings_of_tokens() -> None:
    one = pairs_trainer(noise=(0.5, 0.4))
    seen: list[torch.Tensor] = []
    one.model.body.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    chosen = Batches(11, 4, stream(0, 10))()
    with torch.no_grad():
        embedded = one.model.embed(one._x[chosen])
    one.step()
    noise = torch.randn(4, 3, 8, dtype=torch.float64, generator=stream(0, 11))
    assert torch.allclose(seen[0], embedded + 0.5 * noise, rtol=0, atol=1e-15)


def test_the_commutative_penalty_is_in_the_loss() -> None:
    """Its gradient is the difference that it makes."""
    plain, with_penalty = pairs_trainer(), pairs_trainer(commutative=100.0)
    x = plain._x[Batches(11, 4, stream(0, 10))()]
    model = make(Model("transformer", width=8, depth=1, heads=2), (3, 6), 5, torch.float64, seed=5)
    difference = model(x) - model(x[:, [1, 0, 2]])
    (100 * difference.square().mean()).backward()
    plain.step()
    with_penalty.step()
    for (name, one), two, three in zip(
        plain.model.named_parameters(), with_penalty.model.parameters(), model.parameters(), strict=True
    ):
        torch.testing.assert_close(two.grad - one.grad, three.grad, msg=name)


@pytest.mark.parametrize("make_trainer", [trainer, pairs_trainer])
@pytest.mark.parametrize("steps", [0, 3, 5, 6])  # in the middle of an epoch and at its end
def test_a_state_goes_on_to_the_bit(make_trainer: Any, steps: int) -> None:
    straight, other = make_trainer(noise=(0.5, 0.1)), make_trainer(noise=(0.5, 0.1))
    for _ in range(steps):
        straight.step()
    state = straight.state_dict()
    state["model"] = {key: value.clone() for key, value in state["model"].items()}
    other.step()  # a state of its own, to be forgotten
    other.load_state_dict(torch.load(_bytes(state), weights_only=True))
    for _ in range(8):
        straight.step()
        other.step()
    assert all(torch.equal(weights(straight)[key], value) for key, value in weights(other).items())
    assert straight.train_accuracy == other.train_accuracy


def _bytes(state: dict[str, Any]) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_texts_are_learned_at_every_position() -> None:
    tokens = torch.arange(7).repeat(9)
    x = torch.stack([tokens[start : start + 5] for start in range(40)])
    y = torch.stack([tokens[start + 1 : start + 6] for start in range(40)])
    model = make(Model("gpt", width=12, depth=1, heads=2, activation="gelu"), (5, 7), 7)
    one = Trainer(model, x, y, 7, Training(batch=20, loss="cross_entropy", learning_rate=0.01), 0)
    for _ in range(60):
        one.step()
    assert float((model(x).argmax(1) == y).float().mean()) == 1.0
