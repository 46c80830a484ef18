import math

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion.experiments.config import Model
from pylinregion.experiments.models import TokenModel, embedding_and_body, make

IMAGE, PAIRS, TEXT = (3, 8, 8), (3, 8), (5, 7)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.part(2)
@pytest.mark.parametrize(
    ("model", "shape", "out", "kinks"),
    [
        (Model("mlp", width=20, depth=4), IMAGE, (2, 6), [20, 20, 20]),
        (Model("cnn", width=4), IMAGE, (2, 6), [256, 256, 128, 128, 64, 32]),
        (Model("cnn", width=4, batch_norm=True), IMAGE, (2, 6), [256, 256, 128, 128, 64, 32]),
        (Model("resnet18", width=4), IMAGE, (2, 6), [256] * 5 + [128] * 4 + [64] * 4 + [32] * 3),
        (Model("resnet18", width=4, batch_norm=True), IMAGE, (2, 6), [256] * 5 + [128] * 4 + [64] * 4 + [32] * 3),
        (Model("transformer", width=16, depth=1, heads=4), PAIRS, (2, 6), [64]),  # at the last position alone
        (Model("transformer", width=16, depth=2, heads=4), PAIRS, (2, 6), [192, 64]),
        (Model("gpt", width=12, depth=2, heads=3, activation="gelu"), TEXT, (2, 6, 5), [240, 240]),
    ],
)
def test_models_have_these_outputs_and_kinks(
    model: Model, shape: tuple[int, ...], out: tuple[int, ...], kinks: list[int]
) -> None:
    network = make(model, shape, 6).eval()
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    assert network(x).shape == out
    embed, body = embedding_and_body(network)
    layers = plr.capture(body, embed(x).detach()).layers
    assert [layer.units for layer in layers] == kinks
    assert plr.count_regions(body, embed(x).detach(), 0.1).total.shape == (2,)


def test_sizes_are_the_papers() -> None:
    assert parameters(make(Model("mlp", 200, 4), (1, 28, 28), 10)) == 784 * 200 + 200 + 2 * (200 * 201) + 2010
    # 8.38 million in an independent run of figure 9
    gpt = make(Model("gpt", 240, 12, 12, activation="gelu"), (64, 65), 65)
    assert round(parameters(gpt) / 1e6, 2) == 8.38
    # d = 128, 4 heads, MLP 512, no biases in attention, 114 tokens in, 113 out
    pairs = make(Model("transformer", 128, 1, 4), (3, 114), 113)
    assert parameters(pairs) == (114 + 3) * 128 + 4 * 128 * 128 + 2 * 128 * 512 + 512 + 128 + 128 * 113
    resnet = make(Model("resnet18", 16), (3, 32, 32), 10)
    convolutions = [module for module in resnet.modules() if isinstance(module, nn.Conv2d)]
    assert sum(module.kernel_size == (3, 3) for module in convolutions) == 17
    assert sum(module.kernel_size == (1, 1) for module in convolutions) == 3
    cnn = make(Model("cnn", 16), (3, 32, 32), 10)
    kinds = [sum(isinstance(module, kind) for module in cnn) for kind in (nn.Conv2d, nn.Linear)]
    assert kinds == [5, 2]


def test_resnet_adds_before_it_activates() -> None:
    """One block by hand, in NumPy: y = x + W2 relu(W1 relu(x)), 1 x 1 images, so that convolutions are products."""
    block = make(Model("resnet18", 4), (3, 1, 1), 6, torch.float64).blocks[0]
    x = torch.randn(5, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (block.residual[place].weight.detach().numpy()[:, :, 1, 1] for place in (0, 3))
    rows = x.numpy()[:, :, 0, 0]
    want = rows + np.maximum(np.maximum(rows, 0) @ first.T, 0) @ second.T
    np.testing.assert_allclose(block(x).detach().numpy()[:, :, 0, 0], want, rtol=1e-12)


def test_pair_transformer_is_attention_and_an_mlp_at_the_last_position() -> None:
    """Against NumPy, position by position."""
    network = make(Model("transformer", 8, 1, 2), (3, 6), 5, torch.float64)
    tokens = torch.tensor([[0, 3, 5], [4, 4, 5]])
    block, head = network.body[0], network.body[2]
    x = (network.tokens[tokens] + network.positions).detach().numpy()
    q, kv, out = (layer.weight.detach().numpy() for layer in (block.q, block.kv, block.out))
    first, second = (block.mlp[place] for place in (0, 2))
    k, v = (x @ kv.T)[..., :8], (x @ kv.T)[..., 8:]
    seen = np.zeros((2, 8))
    for h in (0, 4):
        scores = np.einsum("bd,btd->bt", (x[:, 2] @ q.T)[:, h : h + 4], k[..., h : h + 4]) / math.sqrt(4)
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        seen[:, h : h + 4] = np.einsum("bt,btd->bd", weights, v[..., h : h + 4])
    y = x[:, 2] + seen @ out.T
    hidden = np.maximum(y @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    y = y + hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    want = y @ head.weight.detach().numpy().T
    np.testing.assert_allclose(network(tokens).detach().numpy(), want, rtol=1e-10)


def test_tokens_and_their_one_hot_rows_are_the_same() -> None:
    for model, shape in ((Model("transformer", 8, 2, 2), PAIRS), (Model("gpt", 8, 2, 2), TEXT)):
        network = make(model, shape, 4, torch.float64)
        assert isinstance(network, TokenModel)
        tokens = torch.randint(shape[1], (6, shape[0]), generator=torch.Generator().manual_seed(0))
        rows = nn.functional.one_hot(tokens, shape[1]).double()
        torch.testing.assert_close(network(tokens), network(rows), rtol=1e-12, atol=1e-12)


def test_gpt_does_not_see_what_comes_later() -> None:
    network = make(Model("gpt", 12, 2, 3), TEXT, 7, torch.float64)
    tokens = torch.tensor([[0, 1, 2, 3, 4]])
    other = torch.tensor([[0, 1, 2, 6, 5]])
    one, two = network(tokens), network(other)
    assert torch.equal(one[..., :3], two[..., :3]) and not torch.allclose(one[..., 3:], two[..., 3:])


def test_initialisation_is_seeded_scaled_and_leaves_chance_alone() -> None:
    for name, shape in (("mlp", IMAGE), ("cnn", IMAGE), ("resnet18", IMAGE), ("transformer", PAIRS), ("gpt", TEXT)):
        state = torch.get_rng_state()
        plain, scaled, other = (
            make(Model(name, 8, 2, init_scale=scale), shape, 4, torch.float64, seed).state_dict()
            for scale, seed in ((1.0, 1), (8.0, 1), (1.0, 2))
        )
        assert all(torch.equal(8 * plain[key], scaled[key]) and plain[key].dtype == torch.float64 for key in plain)
        assert any(not torch.equal(plain[key], other[key]) for key in plain)
        assert torch.equal(state, torch.get_rng_state()) and torch.get_default_dtype() == torch.float32
