"""Norms, commutativity and nearest neighbours, against NumPy and closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

from cases.measures import points, relu_net, weights
from pylinregion import capture
from pylinregion.measures import commutativity, last_layer_norm, logit_commutativity, neighbour_function, weight_norm


def test_weight_norm_is_that_of_all_parameters():
    model = relu_net([6, 5, 4, 3], seed=1)
    want = np.sqrt(sum((w**2).sum() + (b**2).sum() for w, b in weights(model)))
    assert weight_norm(model) == pytest.approx(want, rel=1e-14)
    assert weight_norm(nn.Sequential(model, nn.BatchNorm1d(3))) == pytest.approx(np.sqrt(want**2 + 3), rel=1e-14)
    assert weight_norm(nn.Sequential(model, model)) == weight_norm(model)
    assert weight_norm(torch.compile(model, backend="eager")) == weight_norm(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    assert weight_norm(model) == pytest.approx(8 * want, rel=1e-14)


def test_weight_norm_is_added_up_in_float64():
    model = nn.Linear(4000, 1000, bias=False, dtype=torch.float16)
    nn.init.constant_(model.weight, 2.0**-7)  # the squares alone would vanish or lose digits in float16
    assert weight_norm(model) == 2.0**-7 * np.sqrt(4_000_000)


def test_last_layer_norm():
    model = relu_net([6, 5, 3], seed=1)
    weight, bias = weights(model)[-1]
    want = np.sqrt((weight**2).sum() + (bias**2).sum())
    x = points(2, 6)
    assert last_layer_norm(model, x) == pytest.approx(want, rel=1e-14)
    assert last_layer_norm(capture(model, x), x) == pytest.approx(want, rel=1e-14)

    class Reordered(nn.Module):
        """What is registered last is read first."""

        def __init__(self):
            super().__init__()
            self.head, self.body = model[2], model[0]

        def forward(self, x):
            return (torch.relu(self.body(x)) @ self.head.weight.T + self.head.bias) / 2

    assert last_layer_norm(Reordered(), x) == pytest.approx(want, rel=1e-14)

    class Transposed(nn.Module):
        """A constant is made of the head's weight before the body's is read, and used after it."""

        def __init__(self):
            super().__init__()
            self.body, self.head = model[0], nn.Linear(5, 3, bias=False, dtype=torch.float64)

        def forward(self, x):
            weight = 2 * self.head.weight.T
            return torch.relu(self.body(x)) @ weight

    transposed = Transposed()
    want = float(transposed.head.weight.detach().norm())
    assert last_layer_norm(transposed, x) == pytest.approx(want, rel=1e-14)
    with torch.no_grad():
        model[2].weight.zero_()
    assert last_layer_norm(model, x) == pytest.approx(np.linalg.norm(bias), rel=1e-14)


def test_norms_refuse_what_has_none():
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got list"):
        weight_norm([])
    with pytest.raises(ValueError, match=r"model must have parameters, this one has none"):
        weight_norm(nn.ReLU())
    with pytest.raises(ValueError, match=r"model must read parameters in its forward pass"):
        last_layer_norm(nn.ReLU(), points(2, 3))
    with pytest.raises(TypeError, match=r"parameters of real floating dtypes, got torch.complex64"):
        weight_norm(nn.Linear(2, 2, dtype=torch.complex64))


class Table(nn.Module):
    """Logits by a table of all pairs."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, pairs):
        return self.table[pairs[:, 0], pairs[:, 1]]


def all_pairs(p):
    return torch.cartesian_prod(torch.arange(p), torch.arange(p))


def test_commutativity_is_that_of_loops():
    table = points(5, 5, 4)
    pairs = all_pairs(5)
    logits = table.numpy()
    same = [logits[a, b].argmax() == logits[b, a].argmax() for a, b in pairs.tolist()]
    apart = [((logits[a, b] - logits[b, a]) ** 2).mean() for a, b in pairs.tolist()]
    assert 0.2 < np.mean(same) < 0.8
    for size in (3, 1024):
        assert commutativity(Table(table), pairs, batch_size=size) == pytest.approx(np.mean(same), rel=1e-14)
        assert logit_commutativity(Table(table), pairs, batch_size=size) == pytest.approx(np.mean(apart), rel=1e-12)
    with_equals = torch.cat([pairs, torch.full((25, 1), 5)], dim=1)
    assert commutativity(Table(table), with_equals) == pytest.approx(np.mean(same), rel=1e-14)
    symmetric = Table(table + table.transpose(0, 1))
    assert commutativity(symmetric, pairs) == 1.0 and logit_commutativity(symmetric, pairs) == 0.0


def test_further_entries_stay_where_they_are():
    """The third entry chooses the table: exchanged with another it would choose another."""

    class Choose(nn.Module):
        def forward(self, triples):
            a, b, c = triples.double().T
            return torch.stack([a + b + 10 * c, a - b + 20 * c], dim=1)

    triples = torch.tensor([[1, 4, 1], [3, 3, 0]])
    assert logit_commutativity(Choose(), triples) == ((0 + 36) / 2 + 0) / 2


def test_pairs_that_are_swapped_by_the_caller():
    """One-hot vectors side by side."""
    pairs = all_pairs(3)
    flat = nn.functional.one_hot(pairs, 3).double().flatten(1)
    swapped = nn.functional.one_hot(pairs.flip(1), 3).double().flatten(1)
    model = nn.Linear(6, 4, dtype=torch.float64)
    left, right = (part.detach().T for part in model.weight.split(3, dim=1))
    table = left[:, None] + right[None] + model.bias.detach()
    assert logit_commutativity(model, flat, swapped) == pytest.approx(logit_commutativity(Table(table), pairs))
    assert logit_commutativity(model, flat, flat.clone()) == 0.0


def test_bad_pairs_are_named():
    model, pairs = Table(points(3, 3, 2)), all_pairs(3)
    with pytest.raises(TypeError, match=r"pairs must be a torch.Tensor, got list"):
        commutativity(model, [[0, 1]])
    with pytest.raises(ValueError, match=r"pairs must be \[n, at least 2, ...\] with at least 1 pair, got \[9\]"):
        commutativity(model, pairs[:, 0])
    with pytest.raises(ValueError, match=r"pairs must be \[n, at least 2, ...\] with at least 1 pair, got \[0, 2\]"):
        logit_commutativity(model, pairs[:0])
    with pytest.raises(ValueError, match=r"swapped must be like pairs, \[9, 2\] torch.int64 on cpu, got \[8, 2\]"):
        commutativity(model, pairs, pairs[:8])
    with pytest.raises(TypeError, match=r"swapped must be a torch.Tensor, got str"):
        commutativity(model, pairs, "both")
    with pytest.raises(ValueError, match=r"model must return \[9, classes\]"):
        commutativity(Table(points(3, 3, 2, 2)), pairs)
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got function"):
        commutativity(lambda pairs: pairs, pairs)


def test_neighbour_function_is_that_of_loops():
    x, train = points(40, 2, 3, seed=1), points(15, 2, 3, seed=2)
    train[3] = x[7] + 1e-9
    distances = np.linalg.norm(x.numpy()[:, None] - train.numpy()[None], axis=(2, 3)).min(axis=1)
    radii = [0.0, 1e-10, 1e-8, 1.0, 1.5, 2.0, 100.0]
    want = [(distances <= radius).mean() for radius in radii]
    assert want[2] == 1 / 40 and 0.1 < want[4] < 0.9 and want[-1] == 1
    assert neighbour_function(x, train, radii).tolist() == want
    assert neighbour_function(x, train, torch.tensor(radii), batch_size=7).tolist() == want
    assert neighbour_function(train, train, 0).tolist() == [1.0]
    assert neighbour_function(x.float(), train, 1.5).dtype == torch.float64
    on_the_edge = neighbour_function(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), [4.999, 5.0])
    assert on_the_edge.tolist() == [0.0, 1.0]


def test_bad_neighbours_are_named():
    x = points(4, 3)
    with pytest.raises(ValueError, match=r"train must be \[m, 3\], as x is, got \[4, 2\]"):
        neighbour_function(x, x[:, :2], 1.0)
    with pytest.raises(ValueError, match=r"radii must be at least 0, got -1"):
        neighbour_function(x, x, [1.0, -1.0])
    with pytest.raises(TypeError, match=r"radii must be a number, got str"):
        neighbour_function(x, x, "1")
    with pytest.raises(TypeError, match=r"x must be float32"):
        neighbour_function(x.long(), x, 1.0)
    with pytest.raises(ValueError, match=r"train must be \[n, \*input_shape\] with at least 1 point"):
        neighbour_function(x, x[:0], 1.0)
