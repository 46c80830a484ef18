"""What a traced operator is: counted, run without being counted, or refused with its name, module and line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr
from cases.small_models import Do, branches, mlp
from pylinregion.graph.operators import TABLE, Kind

pytestmark = pytest.mark.usefixtures("doubles")


def test_the_table_names_operators_of_torch():
    for name, row in TABLE.items():
        base, _, overload = name.split(":")[0].partition(".")
        assert hasattr(torch.ops.aten, base) and (not overload or overload in getattr(torch.ops.aten, base).overloads())
        assert (row.kind is Kind.KINK) == bool(row.kink)
    softmax, layer_norm, product = (TABLE[name] for name in ("softmax", "layer_norm", "scaled_dot_product_attention"))
    assert softmax.kind is layer_norm.kind is product.kind is Kind.OTHER


def test_a_kink_counts_only_if_its_operand_depends_on_the_input():
    parts = {"w": nn.Parameter(torch.randn(8)), "mask": torch.randn(8)}

    def forward(self, x):
        rows = x.new_ones(x.size(0), 8).relu() + torch.arange(8.0).clamp(2, 5)
        return x.relu() + self.w.relu() * rows + self.mask.expand_as(x).tanh() + (self.mask > 0).double()

    assert plr.capture(mlp(Do(forward, **parts)), torch.randn(2, 6)).layer_names == ("1",)


def test_a_kink_that_no_output_depends_on_does_not_count():
    def forward(self, x):
        torch.cat([x, x]).sigmoid()
        return x.relu()

    assert plr.capture(mlp(Do(forward)), torch.randn(2, 6)).layer_names == ("1",)


# What is refused, and how.


def by_batch_size(self, x):
    if x.size(0) > 64:
        return x.relu()
    return x.abs()


def conditional(self, x):
    return torch.cond(self.flag, lambda z: z.relu(), lambda z: z.clone(), (x,))


def gradient(self, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(x.relu().sum(), x)[0]


def gradient_as_it_is(self, x):
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(x.relu().sum(), x)[0]


AT = r" in module '1' at (?:test_classify|small_models).py:\d+: .*"
MIXES = AT + "mixes the points of a batch"
REFUSED = {
    "data-dependent if": (branches, rf"control flow depends on the data{AT}x.abs\(\).max\(\) > 1"),
    "if on the batch size": (
        by_batch_size,
        r"control flow depends on the batch size at (?:test_classify|small_models).py:\d+: .*size",
    ),
    "cond": (conditional, rf"cond{AT}'cond' is control flow"),
    "item": (lambda s, x: x * x.max().item(), rf"max{AT}(mixes|not in the table)"),
    "item of an entry": (lambda s, x: x * x[0, 0].item(), rf"select{MIXES}"),
    "mask selection": (lambda s, x: x[x > 0].sum() * x, rf"index{AT}shape of its result depends on the data"),
    "fixed batch size": (lambda s, x: x.view(3, 8).relu(), rf"view{AT}fixes the batch size to 3"),
    "mean over the batch": (lambda s, x: (x - x.mean(0)).relu(), rf"mean{MIXES}"),
    "norm of the batch": (lambda s, x: (x - x.mean(0, keepdim=True)).relu(), rf"mean{MIXES}"),
    "softmax over the batch": (lambda s, x: (x.softmax(0) - 0.1).relu(), rf"relu{MIXES}"),
    "softmax over the batch at the end": (lambda s, x: x.relu().softmax(0), rf"output of softmax{MIXES}"),
    "flat batch": (lambda s, x: x.view(-1).cumsum(0).relu(), rf"relu{MIXES}"),
    "flat batch that loses its size": (lambda s, x: x.view(-1)[:4].relu(), rf"slice{MIXES}"),
    "flipped batch": (lambda s, x: x.flip(0).relu(), rf"relu{MIXES}"),
    "doubled batch": (lambda s, x: torch.cat([x, x]).relu(), rf"relu{MIXES}"),
    "sorted batch": (lambda s, x: x.sort(0)[0].relu(), rf"sort{AT}has kinks that are not counted"),
    "products of the batch": (lambda s, x: (x @ x.t()).relu() @ x, rf"matmul{MIXES}"),
    "place in the batch": (
        lambda s, x: (x + torch.arange(x.size(0)).view(-1, 1)).relu(),
        rf"relu{MIXES}, or depends on their",
    ),
    "divided by the batch size": (
        lambda s, x: (x / x.size(0)).clamp(-0.1, 0.1),
        rf"clamp{MIXES}, or depends on their num",
    ),
    "batch norm without statistics": (
        lambda s, x: F.batch_norm(x, None, None, training=True).relu(),
        rf"batch_norm{AT}depends on the batch",
    ),
    "forced dropout": (lambda s, x: F.dropout(x, training=True).relu(), rf"dropout{AT}depends on chance"),
    "forced alpha dropout": (lambda s, x: F.alpha_dropout(x, training=True).relu(), rf"alpha_dropout{AT}on chance"),
    "forced rrelu": (lambda s, x: F.rrelu(x, training=True), rf"rrelu{AT}depends on chance"),
    "attention dropout": (
        lambda s, x: F.scaled_dot_product_attention(*[x.view(-1, 2, 4)] * 3, dropout_p=0.1).relu(),
        rf"scaled_dot_product_attention{AT}depends on chance",
    ),
    "noise": (lambda s, x: (x + torch.randn_like(x)).relu(), rf"randn_like{AT}depends on chance"),
    "constant noise": (lambda s, x: (x + torch.rand(8)).relu(), rf"rand{AT}depends on chance"),
    "noise in place": (
        lambda s, x: (x + torch.zeros(8).normal_()).relu(),
        rf"normal_?(_functional)?{AT}depends on chance",
    ),
    "bernoulli": (lambda s, x: torch.bernoulli(x.sigmoid()), rf"bernoulli{AT}depends on chance"),
    "lstm": (
        lambda s, x: s.lstm(x.view(-1, 2, 4))[0],
        r"lstm in module '1.lstm' at (?:test_classify|small_models).py:\d+: .*aten.lstm.input'",
    ),
    "gru": (lambda s, x: s.gru(x.view(-1, 2, 4))[0], r"gru in module '1.gru'"),
    "sort": (lambda s, x: x.sort(1)[0], rf"sort{AT}has kinks that are not counted"),
    "topk": (lambda s, x: x.topk(2, 1)[0], rf"topk{AT}has kinks that are not counted"),
    "round": (lambda s, x: x.round(), rf"round{AT}a step that is not counted"),
    "floor division": (
        lambda s, x: torch.div(x, 2, rounding_mode="floor").relu(),
        rf"div{AT}a step that is not counted",
    ),
    "argmax": (lambda s, x: F.one_hot(x.argmax(1), 8).double(), rf"argmax{AT}a step that is not counted"),
    "to integers": (lambda s, x: x.long().double().relu(), rf"to{AT}a step that is not counted"),
    "to booleans": (lambda s, x: torch.where(x.bool(), 1.0, 0.0), rf"to{AT}a step that is not counted"),
    "logical not": (lambda s, x: torch.logical_not(x).double(), rf"logical_not{AT}a step that is not counted"),
    "equality": (lambda s, x: (x == x.amax(1, keepdim=True)).double(), rf"eq{AT}a step that is not counted"),
    "bits": (lambda s, x: x.view(torch.float32).relu(), rf"view{AT}reads the bits of numbers as torch.float32"),
    "relu of integers": (lambda s, x: ((x > 0).sum(1) - 3).relu().double(), rf"relu{AT}not counted on integers"),
    "norm of order 1": (lambda s, x: x.norm(p=1, dim=1), rf"norm{AT}has kinks that are not counted"),
    "unknown operator": (
        lambda s, x: torch.special.i0(x),
        rf"special_i0{AT}'aten.special_i0.default' is not in the table",
    ),
    "relu of complex numbers": (lambda s, x: torch.fft.rfft(x).abs(), rf"abs{AT}not counted on complex numbers"),
    "complex output": (lambda s, x: torch.fft.rfft(x.relu()), "output is complex: return its parts"),
    "a gradient": (gradient, rf"could not be traced{AT}"),
    "a gradient where the caller allows them": (gradient_as_it_is, rf"takes gradients in its forward pass{AT}"),
    "no dependence": (lambda s, x: 2 * s.w, "output does not depend on its input"),
}


@pytest.mark.part(3)
@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_operator_module_and_line(name):
    function, message = REFUSED[name]
    parts = {"w": nn.Parameter(torch.tensor(1.0)), "flag": torch.tensor(True)}
    if name in ("lstm", "gru"):
        parts[name] = getattr(nn, name.upper())(4, 4, batch_first=True)
    with pytest.raises(plr.UnsupportedModelError, match=message):
        plr.capture(mlp(Do(function, **parts)), torch.randn(3, 6))


def test_modules_that_depend_on_the_batch_are_refused():
    with pytest.raises(plr.UnsupportedModelError, match=r"batch_norm in module '1'.*without running statistics"):
        plr.capture(mlp(nn.BatchNorm1d(8, track_running_stats=False)), torch.randn(3, 6))
