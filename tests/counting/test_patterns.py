"""Activation patterns of given inputs, against forward passes in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.small_models import Do, mlp
from pylinregion.counting import activation_patterns, different_rows
from pylinregion.counting.activation_patterns import Coding
from pylinregion.counting.different_rows import hashed

pytestmark = pytest.mark.usefixtures("doubles")


def hand_made(x, weights, below):
    """The pieces ``[B, N]`` of an MLP's neurons, by its weights, one layer beside the other."""
    pieces = []
    for weight, bias, activation, points in weights:
        z = x @ weight.T + bias
        pieces.append(sum((z > point).astype(np.int64) for point in points))
        x = activation(z)
    return pieces


def network_and_pieces(x):
    """ReLU, ReLU6 and tanh: neurons of 2 and of 3 pieces, and more of them than a word has bits."""
    model = nn.Sequential(nn.Linear(6, 70), nn.ReLU(), nn.Linear(70, 130), nn.ReLU6(), nn.Linear(130, 3), nn.Tanh())
    with torch.no_grad():
        model[2].weight.mul_(20.0)
    w = [p.detach().numpy() for p in model.parameters()]
    steps = [
        (w[0], w[1], lambda z: np.maximum(z, 0), (0.0,)),
        (w[2], w[3], lambda z: np.clip(z, 0, 6), (0.0, 6.0)),
        (w[4], w[5], np.tanh, (0.0,)),
    ]
    return model, hand_made(x.numpy(), steps, None)


def groups(pieces):
    """Which different row each row is, numbered as they come up."""
    numbers = {}
    return [numbers.setdefault(row.tobytes(), len(numbers)) for row in pieces]


@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_patterns_are_those_of_a_forward_pass(batch_size):
    x = torch.randn(40, 6)
    x = torch.cat([x, x[torch.arange(39, -1, -2)], 1e-6 * x[:5]])[torch.randperm(65)]
    model, pieces = network_and_pieces(x)
    found = plr.patterns(model, x, batch_size=batch_size)
    together = np.concatenate(pieces, axis=1)
    index = groups(together)
    assert found.index.tolist() == index and 1 < found.n_patterns == max(index) + 1 < 45
    assert found.counts.tolist() == np.bincount(index).tolist() and found.layers == ("1", "3", "5")
    for name, expected in zip(found.layers, pieces, strict=True):
        assert np.array_equal(found.pieces(name)[found.index].numpy(), expected)
    bits = [pieces[0] > 0, pieces[1] > 0, pieces[1] > 1, pieces[2] > 0]
    assert np.array_equal(found.to_bits()[found.index].numpy(), np.concatenate(bits, axis=1))
    apart = (together[:, None] != together[None]).sum(axis=2)
    assert np.array_equal(found.hamming()[found.index][:, found.index].numpy(), apart)
    part = plr.patterns(model, x, layers=["3"], batch_size=batch_size)
    assert part.index.tolist() == groups(pieces[1]) and part.layers == ("3",)


def test_the_bits_are_where_they_are_said_to_be():
    model, x = nn.Sequential(nn.Linear(6, 70), nn.ReLU()), torch.randn(5, 6)
    found = plr.patterns(model, x)
    on = (x.numpy() @ model[0].weight.detach().numpy().T + model[0].bias.detach().numpy()) > 0
    assert found.words.shape == (5, 2) and found.words.dtype == torch.int64
    for row, words in zip(on, found.words.tolist(), strict=True):
        assert [bool(words[n // 64] >> (n % 64) & 1) for n in range(70)] == row.tolist()
        assert words[1] >> 6 == 0
    assert found.codings == (Coding("1", 70, 0, 1),)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_max_pools_and_comparisons(layout):
    """Neurons are in the order of the output, however it lies in memory."""

    def forward(s, x):
        h = s.pool(s.conv(x).relu()).flatten(1)
        return torch.where(h > 0.25, h, 0.5 * h)

    model = Do(forward, conv=nn.Conv2d(1, 3, 2), pool=nn.MaxPool2d(2)).to(memory_format=layout)
    x = torch.randn(9, 1, 5, 5).repeat(2, 1, 1, 1)
    found = plr.patterns(model, x)
    image, weight, bias = x.numpy()[:, 0], model.conv.weight.detach().numpy()[:, 0], model.conv.bias.detach().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(image, (2, 2), axis=(1, 2))
    z = np.einsum("bijkl,ckl->bcij", windows, weight) + bias[:, None, None]
    relu = np.maximum(z, 0)
    blocks = relu.reshape(18, 3, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(18, 3, 2, 2, 4)
    first = blocks.argmax(axis=-1)
    rows, columns = np.arange(2)[:, None] * 2 + first // 2, np.arange(2)[None] * 2 + first % 2
    expected = {
        "relu": (z > 0).reshape(18, -1),
        "pool": (rows * 4 + columns).reshape(18, -1),
        "gt": (blocks.max(axis=-1) > 0.25).reshape(18, -1),
    }
    assert found.layers == tuple(expected)
    for name, pieces in expected.items():
        assert np.array_equal(found.pieces(name)[found.index].numpy(), pieces), name
    together = np.concatenate(list(expected.values()), axis=1).astype(np.int64)
    assert found.index.tolist() == groups(together)
    assert np.array_equal(
        found.hamming()[found.index][:, found.index].numpy(), (together[:, None] != together[None]).sum(axis=2)
    )
    assert found.to_bits().shape == (found.n_patterns, 48)


def test_hashes_decide_nothing(monkeypatch):
    """Rows of one hash are compared bit by bit."""
    x = torch.randn(30, 6).repeat(2, 1)
    model, _ = network_and_pieces(x)
    right = plr.patterns(model, x)
    assert right.n_patterns > 20
    monkeypatch.setattr(different_rows, "hashed", lambda words: torch.zeros(len(words), dtype=torch.int64))
    for pool in (1, 1 << 26):
        monkeypatch.setattr(different_rows, "_POOL", pool)
        wrong_hash = plr.patterns(model, x, batch_size=4)
        assert torch.equal(wrong_hash.index, right.index) and torch.equal(wrong_hash.words, right.words)


def test_hashes_tell_rows_apart():
    """Also such as differ in the highest bits of several words, or in their order."""
    rows = torch.zeros(7, 3, dtype=torch.int64)
    rows[1, 0], rows[2, 1], rows[3, :2], rows[4, 1:], rows[5], rows[6, 2] = -(2**63), -(2**63), -(2**63), -(2**63), 1, 1
    assert len(hashed(rows).unique()) == 7


def test_blocks_of_neurons_add_up(monkeypatch):
    model = nn.Sequential(nn.Linear(6, 300), nn.ReLU6(), nn.MaxPool1d(3))
    x = torch.randn(6, 6)
    whole = plr.patterns(model, x).hamming()
    monkeypatch.setattr(activation_patterns, "_BLOCK", 64)
    assert torch.equal(plr.patterns(model, x).hamming(), whole) and whole.sum() > 0


def test_other_dtypes_modes_and_networks():
    model, x = mlp(nn.Dropout(0.5), nn.ReLU()), torch.randn(20, 6)
    found = plr.patterns(model, x)
    assert model.training and torch.equal(found.index, plr.patterns(plr.capture(model, x), x).index)
    assert torch.equal(plr.patterns(model, x.float(), dtype=torch.float64).index, found.index)
    assert "20 inputs, 8 neurons in 1 layers" in repr(found)
    smooth = plr.patterns(mlp(nn.GELU()), x)
    assert "gelu by the sign of the pre-activation" in smooth.definition


def test_no_inputs_and_no_neurons():
    none = plr.patterns(mlp(), torch.zeros(0, 6))
    assert (none.n_patterns, none.index.shape, none.words.shape) == (0, (0,), (0, 1))
    assert none.to_bits().shape == (0, 8) and none.hamming().shape == (0, 0) and none.counts.shape == (0,)
    said = "the network is affine: it has no neurons: all inputs have the same pattern"
    with pytest.warns(UserWarning, match=said) as caught:
        one = plr.patterns(nn.Linear(6, 2), torch.randn(5, 6))
    assert caught[0].filename == __file__
    assert one.n_patterns == 1 and one.index.tolist() == [0] * 5 and one.hamming().tolist() == [[0]]


def test_bad_arguments_are_named():
    model, x = mlp(), torch.randn(3, 6)
    large = Do(lambda s, x: x * 1e20)
    for error, match, call in (
        (TypeError, "x must be a torch.Tensor, got list", lambda: plr.patterns(model, [1.0])),
        (ValueError, r"x must be \[B, ", lambda: plr.patterns(model, torch.tensor(1.0))),
        (ValueError, "x must be finite, got nan", lambda: plr.patterns(model, x * torch.nan)),
        (TypeError, "dtype must be float32", lambda: plr.patterns(model, x, dtype=torch.int64)),
        (ValueError, "batch_size must be at least 1, got 0", lambda: plr.patterns(model, x, batch_size=0)),
        (ValueError, "layers must be among '1', got '2'", lambda: plr.patterns(model, x, layers=["2"])),
        (ValueError, "layer must be among '1', got '2'", lambda: plr.patterns(model, x).pieces("2")),
        (
            ValueError,
            "pre-activations of layer '2' are NaN or infinite at input 2 of x",
            lambda: plr.patterns(mlp(large, nn.ReLU()), torch.cat([x[:2], x[:1] * 1e300]), batch_size=1),
        ),
        (plr.UnsupportedModelError, "sort", lambda: plr.patterns(Do(lambda s, x: x.sort(1)[0]), x)),
    ):
        with pytest.raises(error, match=match):
            call()
