"""Capturing models: what is counted, what is refused, and that counts follow the live model."""

import contextlib
import dataclasses
import functools
import gc
import importlib
import itertools
import math
import types
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import pylinregion as plr
from pylinregion.ops import TABLE, Kind, Op

capture_module = importlib.import_module("pylinregion.capture")
selfcheck_module = importlib.import_module("pylinregion.selfcheck")


@pytest.fixture(autouse=True)
def doubles():
    """Models and points of float64 from a fixed seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def traces(monkeypatch):
    """A list that grows by one whenever a module is traced."""
    seen = []
    trace = capture_module._from_module
    monkeypatch.setattr(capture_module, "_from_module", lambda *args: seen.append(args) or trace(*args))
    return seen


class Do(nn.Module):
    """``function(self, x)`` as the forward pass, with parts to use in it."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def mlp(*parts):
    return nn.Sequential(nn.Linear(6, 8), *(parts or [nn.ReLU()]))


# The oracle: a forward pass for each vertex alone, and the pieces of the kinks that torch runs.


def below(*points):
    return lambda z, *_: sum((z > point).long() for point in points)


def bounds(z, low=None, high=None, **named):
    return below(*(bound for bound in (named.get("min", low), named.get("max", high)) if bound is not None))(z)


PIECES = {
    **dict.fromkeys(["relu", "leaky_relu", "_prelu_kernel", "abs", "gelu", "tanh", "sigmoid"], below(0.0)),
    "hardtanh": lambda z, low=-1.0, high=1.0: below(low, high)(z),
    "clamp": bounds,
    "clamp_min": bounds,
    "gt": torch.gt,
    "lt": torch.lt,
}


class Witness(TorchDispatchMode):
    """Keeps the pieces of every kink that runs."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        if piece := PIECES.get(name) or PIECES.get(name.removesuffix("_")):
            self.pieces.append(piece(*args, **(kwargs or {})).flatten())
        result = function(*args, **(kwargs or {}))
        if name.startswith("max_pool"):
            self.pieces.append(result[1].flatten())
        return result


def vertices(x, radius, frame):
    """``[B, 2P, *shape]``."""
    return torch.stack([x + sign * radius * v.to(x.dtype) for sign in (1, -1) for v in frame], dim=1)


def local_complexity(model, x, radius, frame):
    """Changes ``[B, L]`` and distinct patterns ``[B]``, for a model in eval mode."""
    changes, regions = [], []
    for point in vertices(x, radius, frame):
        patterns = []
        for vertex in point:
            with torch.no_grad(), Witness() as witness:
                model(vertex[None].clone())
            patterns.append(witness.pieces)
        layers = [torch.stack(layer) for layer in zip(*patterns, strict=True)]
        changes.append(torch.stack([(layer != layer[0]).any(0).sum() for layer in layers]))
        regions.append(len(torch.cat(layers, dim=1).long().unique(dim=0)))
    return torch.stack(changes), torch.tensor(regions)


@contextlib.contextmanager
def readable():
    """Eval mode without the fused attention path, which hides a ReLU from the witness."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def check(model, x=None, radius=4.0, names=None, trivial=False):
    """Count, and compare with the oracle."""
    x = torch.randn(3, 6) if x is None else x
    frame = plr.random_frame(x.shape[1:], 6)
    counts = plr.count_regions(model, x, radius, frame=frame)
    flags = [(part, part.training) for part in model.modules()]
    with readable():
        changes, regions = local_complexity(model.eval(), x, radius, frame)
    for part, training in flags:
        part.training = training
    assert torch.equal(counts.changes, changes)
    assert torch.equal(counts.regions, regions)
    assert trivial or (changes.sum(0) > 0).all(), "the case proves little"
    assert names is None or counts.layers == tuple(names)
    return counts


# Models that work.


def warmed_up(model, *shape):
    """Batch norms with statistics and weights that are not those they start with."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    model.train()
    for _ in range(3):
        model(2 * torch.randn(16, *shape) + 1)
    return model


class Residual(nn.Module):
    """A residual block; ``h += x`` and the ReLU are in place."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.norm1(self.conv1(x)))
        h = self.norm2(self.conv2(h))
        h += x
        return self.relu(h)


class PreActivation(Residual):
    """Batch norm and ReLU come first: the norms cannot be folded into the convolutions before them."""

    def forward(self, x):
        h = self.conv1(self.relu(self.norm1(x)))
        return x + self.conv2(self.relu(self.norm2(h)))


def resnet(block):
    parts = nn.Conv2d(2, 4, 3), block(4), block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9), nn.ReLU()
    return warmed_up(nn.Sequential(*parts), 2, 6, 6)


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.cls, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.drop = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        batch = x.shape[0]
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(batch, -1, -1), tokens], dim=1) + self.drop(self.position)
        return self.head(self.encoder(tokens)[:, 0]).tanh()


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class TimesTwo(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def relu_on_a_view(self, x):
    h = self.linear(x)
    h.view(-1, 2, 4).relu_()  # changes h
    return self.head(h).relu()


def relu_on_a_slice(self, x):
    h = self.linear(x)
    h[:, :4].relu_()
    return self.head(h).relu()


def assigned_slices(self, x):
    h = torch.zeros(x.size(0), 8, dtype=x.dtype)
    h[:, 2:] = self.linear(x)[:, :6]
    h[:, 0] = h[:, 3].abs()
    return self.head(h).relu()


def skip_sees_relu(self, x):
    h = self.linear(x)
    y = self.head(self.relu(h))  # in place
    return self.relu(y + h)


def skip_through_an_older_view(self, x):
    h = self.linear(x)
    view = h.flatten()
    self.relu(h)
    return (self.head(h) + view.view_as(h)).relu()


def size_arithmetic(self, x):
    twice = self.linear(x).view(x.size(0) * 2, 4).relu()
    return self.head(twice.view(x.shape[0], 2 * 4)).relu()


def constants_in_forward(self, x):
    h = self.linear(x) * torch.linspace(-1, 1, 8) + torch.tensor([1.0, 2.0] * 4) + torch.eye(8)[3] * x.shape[1]
    return torch.cat([h, torch.zeros_like(x), x.new_ones(x.size(0), 2), torch.ones(x.shape[0], 1)], 1).abs()


def under_autocast(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = self.linear(x).relu()
    return self.head(h.float()).relu()


def under_no_grad(self, x):
    with torch.no_grad():
        h = self.linear(x).relu()
    return self.head(h).relu()


def checkpointed(self, x):
    return checkpoint(lambda h: self.head(self.linear(h).relu()).relu(), x, use_reentrant=False)


def remembers(self, x):
    self.hidden = self.linear(x)
    self.seen = [*getattr(self, "seen", []), self.hidden]
    return self.hidden.relu()


def pair(function):
    return Do(function, linear=nn.Linear(6, 8), head=nn.Linear(8, 8), relu=nn.ReLU(inplace=True))


def encoder(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, **options)


def attention(x, self):
    return self.attend(x, x, x, need_weights=self.weights, attn_mask=self.mask)[0].relu()


def attend(**options):
    parts = {"weights": False, "mask": None, **options}
    return Do(lambda self, x: attention(x, self), attend=nn.MultiheadAttention(8, 2, batch_first=True), **parts)


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    model[2].weight = model[0].weight
    return model


def norms_to_fold():
    parts = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8)
    return warmed_up(nn.Sequential(*parts, nn.BatchNorm1d(8, affine=False), nn.ReLU()), 2, 6, 6)


def norms_not_to_fold():
    parts = nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2)
    return warmed_up(nn.Sequential(*parts, nn.ReLU()), 2, 4, 4)


def fan_out():
    """A convolution with a batch norm and another reader: folding would change what that one reads."""
    conv, norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
    return warmed_up(Do(lambda s, x: s.norm(h := s.conv(x)).relu() + h.tanh(), conv=conv, norm=norm), 2, 5, 5)


def convolutions(dimensions):
    conv, back = getattr(nn, f"Conv{dimensions}d"), getattr(nn, f"ConvTranspose{dimensions}d")
    norm, pool = getattr(nn, f"BatchNorm{dimensions}d"), getattr(nn, f"AvgPool{dimensions}d")
    adaptive = getattr(nn, f"AdaptiveAvgPool{dimensions}d")
    parts = conv(2, 4, 3, stride=2, padding=1, groups=2), norm(4), nn.ReLU(), back(4, 2, 3, stride=2), nn.PReLU()
    return warmed_up(nn.Sequential(*parts, adaptive(5), nn.Hardtanh(-0.1, 0.1), pool(2)), 2, *[6] * dimensions)


MODELS = {
    "residual": (lambda: resnet(Residual), (2, 6, 6), ["1.relu#1", "1.relu#2", "2.relu#1", "2.relu#2", "6"]),
    "pre-activation": (lambda: resnet(PreActivation), (2, 6, 6)),
    "norms to fold": (norms_to_fold, (2, 6, 6)),
    "norms not to fold": (norms_not_to_fold, (2, 4, 4)),
    "norm with fan-out": (fan_out, (2, 5, 5)),
    **{f"conv{d}d": (functools.partial(convolutions, d), (2, *[6] * d)) for d in (1, 2, 3)},
    "group and layer norm": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.LayerNorm(64)),
            *(nn.GELU(), nn.Unflatten(1, (4, 16)), nn.InstanceNorm1d(4), nn.ReLU()),
        ),
        (2, 6, 6),
    ),
    "encoder": (lambda: encoder(batch_first=True), (5, 8), ["relu"]),
    "encoder, norm first, gelu": (lambda: encoder(batch_first=True, norm_first=True, activation="gelu"), (5, 8)),
    "encoder, sequence first": (
        lambda: Do(lambda s, x: s.layer(x.transpose(0, 1)).transpose(0, 1), layer=encoder()),
        (5, 8),
        ["layer"],
    ),
    "encoder stack": (
        lambda: nn.TransformerEncoder(encoder(batch_first=True), 2, enable_nested_tensor=False),
        (5, 8),
        ["layers.0", "layers.1"],
    ),
    "attention": (attend, (5, 8)),
    "attention with weights": (lambda: attend(weights=True), (5, 8)),
    "attention with a mask": (lambda: attend(mask=torch.full((5, 5), -torch.inf).triu(1)), (5, 8)),
    "vit": (ViT, (1, 4, 4), ["encoder.layers.0", "encoder.layers.1", "tanh"]),
    "module used twice": (
        lambda: Do(lambda s, x: s.act(s.linear(s.act(s.linear(x)))), linear=nn.Linear(6, 6), act=nn.ReLU()),
        (6,),
        ["act#1", "act#2"],
    ),
    "same module twice": (
        lambda: (lambda linear: nn.Sequential(linear, nn.ReLU(), linear, nn.ReLU()))(nn.Linear(6, 6)),
        (6,),
        ["1", "3"],
    ),
    "tied parameters": (tied, (6,)),
    "weight norm": (lambda: mlp(nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 4)), nn.ReLU()), (6,)),
    "spectral norm": (lambda: mlp(nn.ReLU(), parametrizations.spectral_norm(nn.Linear(8, 4)), nn.ReLU()), (6,)),
    "orthogonal": (lambda: mlp(nn.ReLU(), parametrizations.orthogonal(nn.Linear(8, 4)), nn.ReLU()), (6,)),
    "pruned": (lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(6, 8), "weight", 0.5), nn.ReLU()), (6,)),
    "relu on a view": (lambda: pair(relu_on_a_view), (6,), ["relu#1", "relu#2"]),
    "relu on a slice": (lambda: pair(relu_on_a_slice), (6,)),
    "assigned slices": (lambda: pair(assigned_slices), (6,), ["abs", "relu"]),
    "skip sees relu": (lambda: pair(skip_sees_relu), (6,)),
    "older view": (lambda: pair(skip_through_an_older_view), (6,)),
    "relu on the input": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 8), nn.ReLU()), (6,), ["0", "2"]),
    "view by size": (
        lambda: Do(lambda s, x: s.head(x.relu().view(x.size(0), -1)).relu(), head=nn.Linear(6, 8)),
        (2, 3),
    ),
    "size arithmetic": (lambda: pair(size_arithmetic), (6,)),
    "batch in the middle": (lambda: mlp(Do(lambda s, x: x.t().relu().unsqueeze(1).permute(2, 0, 1).abs())), (6,)),
    "flat batch": (lambda: mlp(Do(lambda s, x: x.reshape(-1).relu().view(-1, 8).abs())), (6,)),
    "constants": (lambda: pair(constants_in_forward), (6,), ["abs"]),
    "chunk": (lambda: mlp(Do(lambda s, x: (lambda a, b: a.relu() * b.sigmoid())(*x.chunk(2, 1)))), (6,)),
    "split": (
        lambda: mlp(Do(lambda s, x: (lambda a, b: torch.cat([a.relu(), b], 1))(*x.split([3, 5], 1)).abs())),
        (6,),
    ),
    "unbind": (lambda: mlp(Do(lambda s, x: torch.stack([h.relu() for h in x.view(-1, 2, 4).unbind(1)]).tanh())), (6,)),
    "lists of modules": (
        lambda: Do(
            lambda s, x: sum(act(layer(x)) for layer, act in zip(s.layers, s.acts.values(), strict=True)),
            layers=nn.ModuleList([nn.Linear(6, 8), nn.Linear(6, 8)]),
            acts=nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()}),
        ),
        (6,),
        ["acts.a", "acts.b"],
    ),
    "embedding of constants": (
        lambda: Do(
            lambda s, x: (s.linear(x) + s.table(torch.arange(3)).sum(0) + s.table(s.number)).relu(),
            linear=nn.Linear(6, 8),
            table=nn.Embedding(5, 8),
            number=torch.tensor(1),
        ),
        (6,),
    ),
    "buffers": (
        lambda: Do(
            lambda s, x: ((s.linear(x) - s.mean) / s.std).relu(),
            linear=nn.Linear(6, 8),
            mean=torch.randn(8),
            std=torch.rand(8),
        ),
        (6,),
    ),
    "dictionary": (lambda: mlp(Do(lambda s, x: {"a": x.relu(), "n": None, "k": [1, (x.tanh(),)]})), (6,)),
    "dataclass": (lambda: mlp(Do(lambda s, x: Output(x.relu()))), (6,)),
    "tuple with a parameter": (
        lambda: Do(lambda s, x: (s.w, (x * s.w).relu(), None), w=nn.Parameter(torch.rand(6))),
        (6,),
    ),
    "indices beside values": (lambda: mlp(Do(lambda s, x: (x.abs(), x.abs() > 0.5))), (6,)),
    "dropout": (lambda: mlp(nn.Dropout(), nn.ReLU(), nn.AlphaDropout(), nn.Dropout1d()), (6,), ["2"]),
    "no_grad inside": (lambda: pair(under_no_grad), (6,), ["relu#1", "relu#2"]),
    "detached": (lambda: pair(lambda s, x: s.head(s.linear(x).detach().relu()).relu()), (6,)),
    "checkpoint": (lambda: pair(checkpointed), (6,)),
    "autograd function": (lambda: mlp(Do(lambda s, x: TimesTwo.apply(x))), (6,), ["1"]),
    "keeps its hidden layer": (lambda: pair(remembers), (6,)),
    "item of a parameter": (
        lambda: mlp(Do(lambda s, x: (x * s.scale.item()).clamp(-0.5, 0.5), scale=nn.Parameter(torch.tensor(1.5)))),
        (6,),
    ),
    "mask assignment": (lambda: mlp(Do(lambda s, x: x.index_put((x < 0,), torch.tensor(0.25)))), (6,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    make, shape, *names = MODELS[name]
    check(make(), torch.randn(3, *shape), names=names[0] if names else None)


# One model with every affine operator that may come before the first kink; the vertices of those are formed from the
# operator's value at the points and its derivative.

W = torch.randn(8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
PLACES = torch.tensor([2, 0, 1])


def images(x):
    return x.unsqueeze(1)


def volumes(x):
    return x.view(-1, 1, 2, 3, 4)


def everywhere(x):
    return PLACES.view(1, 3, 1).expand(x.size(0), -1, 8)


AFFINE = [
    *(lambda x: x.flatten(1).unflatten(1, (4, 6)), lambda x: x.mT, lambda x: x.permute(0, 2, 1), lambda x: x.adjoint()),
    *(lambda x: images(x).squeeze(1), lambda x: images(x).expand(-1, 2, -1, -1), lambda x: x.select(1, 1)),
    *(
        lambda x: x[:, ::2, 1:],
        lambda x: x.narrow(1, 0, 2),
        lambda x: x.unbind(1)[1],
        lambda x: x.tensor_split(2, 2)[1],
    ),
    *(lambda x: x.movedim(1, 2), lambda x: x.swapaxes(1, 2), lambda x: x.swapdims(1, 2), lambda x: x.detach() * 2),
    *(lambda x: x.mT.contiguous(), lambda x: x.diagonal(0, 1, 2), lambda x: x.unfold(2, 3, 1), lambda x: +x),
    *(lambda x: x.clone(), lambda x: -x, lambda x: x.sum(1), lambda x: x.mean((1, 2)), lambda x: x.cumsum(2)),
    *(lambda x: x.flip(2), lambda x: x.roll(1, 2), lambda x: x.rot90(1, (1, 2)), lambda x: x.diff(dim=2)),
    *(lambda x: F.pixel_shuffle(x.view(-1, 4, 2, 3), 2), lambda x: F.pixel_unshuffle(x.view(-1, 1, 4, 6), 2)),
    *(lambda x: F.channel_shuffle(x.view(-1, 4, 2, 3), 2), lambda x: x.repeat(1, 2, 1), lambda x: x.tile(1, 1, 2)),
    *(lambda x: x.repeat_interleave(2, 1), lambda x: x.tril(), lambda x: x.triu(), lambda x: x.index_select(1, PLACES)),
    *(
        lambda x: F.unfold(x.view(-1, 1, 4, 6), 2),
        lambda x: F.fold(x.view(-1, 4, 6), (3, 4), 2),
        lambda x: x[:, PLACES],
    ),
    *(
        lambda x: x.gather(1, everywhere(x)),
        lambda x: x.type_as(W),
        lambda x: x.float().double(),
        lambda x: x.to(x.dtype),
    ),
    *(lambda x: F.avg_pool1d(x, 2), lambda x: F.avg_pool2d(x, 2), lambda x: F.avg_pool3d(volumes(x), 2)),
    *(lambda x: F.adaptive_avg_pool1d(x, 3), lambda x: F.adaptive_avg_pool2d(x, 2)),
    *(lambda x: F.adaptive_avg_pool3d(volumes(x), 2), lambda x: F.interpolate(images(x), size=(2, 3), mode="area")),
    *(lambda x: F.interpolate(x, scale_factor=2), lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact")),
    *(lambda x: F.interpolate(images(x), scale_factor=2), lambda x: F.interpolate(volumes(x), scale_factor=2)),
    *(lambda x: F.interpolate(x, scale_factor=2, mode="linear"), lambda x: F.pad(x, (1, 2), value=0.3)),
    lambda x: F.interpolate(images(x), scale_factor=2, mode="bilinear"),
    lambda x: F.interpolate(volumes(x), scale_factor=2, mode="trilinear"),
    lambda x: F.interpolate(images(x), scale_factor=2, mode="bicubic"),
    lambda x: F.interpolate(images(x), scale_factor=0.7, mode="bilinear", antialias=True),
    *(lambda x: F.pad(x, (1, 2), mode="reflect"), lambda x: F.pad(images(x), (1, 2, 1, 1), mode="reflect")),
    lambda x: F.pad(volumes(x), (1, 1, 1, 1, 1, 1), mode="reflect"),
    *(lambda x: F.pad(x, (1, 2), mode="replicate"), lambda x: F.pad(images(x), (1, 2, 1, 1), mode="replicate")),
    *(lambda x: F.pad(x, (1, 2), mode="circular"), lambda x: x + W[:3], lambda x: W[0] - x, lambda x: 1 - x),
    *(lambda x: torch.cat([x, 2 * x, W[:3].expand(x.size(0), -1, -1)], 1), lambda x: torch.stack([x, -x], 1)),
    *(lambda x: torch.hstack([x, x]), lambda x: torch.dstack([x, x]), lambda x: torch.where(W[:3] > 0, x, -2 * x)),
    *(lambda x: x.masked_fill(W[:3] > 0, 0.5), lambda x: x.select_scatter(2 * x[:, 0], 1, 1)),
    *(lambda x: x.slice_scatter(2 * x[:, :1], 1, 0, 1), lambda x: x.index_put((everywhere(x) > 1,), W[0, 0])),
    *(lambda x: torch.zeros_like(x).scatter(1, everywhere(x), x), lambda x: x.scatter_add(1, everywhere(x), x)),
    *(
        lambda x: x.index_add(1, PLACES, x),
        lambda x: x.index_copy(1, PLACES, x),
        lambda x: x.index_fill(1, PLACES[:1], 1),
    ),
    *(lambda x: x * W[:3], lambda x: F.linear(x, W), lambda x: torch.addmm(W[0], x[:, 0], W), lambda x: x[:, 0].mm(W)),
    *(lambda x: x.bmm(W.expand(x.size(0), -1, -1)), lambda x: W[:3, :3] @ x, lambda x: x[:, 0].mv(W[0])),
    *(lambda x: torch.einsum("bij,jk->bik", x, W), lambda x: x / W[:3], lambda x: torch.lerp(x, W[:3], 0.3)),
    *(lambda x: F.conv1d(x, W[:6].view(2, 3, 8)[:, :, :3]), lambda x: F.conv2d(images(x), W[:2, :4].view(2, 1, 2, 2))),
    *(
        lambda x: F.conv3d(volumes(x), W[:2].view(2, 1, 2, 2, 2)),
        lambda x: F.conv1d(x, W[:3, :3, None], padding="same"),
    ),
    *(lambda x: F.conv_transpose1d(x, W[:3, :6].reshape(3, 2, 3)), lambda x: x - x.sum(2, keepdim=True)),
    lambda x: F.conv_transpose2d(images(x), W[:2, :4].reshape(1, 2, 2, 2)),
    lambda x: F.conv_transpose3d(volumes(x), W[:2].view(1, 2, 2, 2, 2)),
    *(lambda x: F.batch_norm(x, W[0, :3], W[1, :3].exp(), W[2, :3], W[3, :3]), lambda x: F.dropout(x, 0.5, False)),
    *(lambda x: x[:, :1].expand_as(x), lambda x: x.view_as(x), lambda x: x.mT.reshape_as(x), lambda x: x / W.norm()),
]


def test_affine_operators_before_the_first_kink():
    x = torch.randn(2, 3, 8)
    frame = plr.random_frame((3, 8), 4)
    counts = plr.count_regions(Do(lambda s, x: [f(x).relu() for f in AFFINE]), x, 0.5, frame=frame)
    for number, function in enumerate(AFFINE):
        on = (function(vertices(x, 0.5, frame).flatten(0, 1)) > 0).reshape(2, 8, -1)
        assert torch.equal(counts.changes[:, number], (on != on[:, :1]).any(1).sum(1)), number


def test_the_table_names_operators_of_torch():
    for name, row in TABLE.items():
        base, _, overload = name.partition(".")
        assert hasattr(torch.ops.aten, base) and (not overload or overload in getattr(torch.ops.aten, base).overloads())
        assert (row.kind is Kind.KINK) == bool(row.kink)
    softmax, layer_norm, product = (TABLE[name] for name in ("softmax", "layer_norm", "scaled_dot_product_attention"))
    assert softmax.kind is layer_norm.kind is product.kind is Kind.OTHER


def exact(model, dtype, *shape):
    """Small integers as weights and points, so that every dtype computes exactly; counts against the oracle."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape))
    model.to(dtype).eval()
    x, frame = torch.randint(-2, 3, (3, *shape)).to(dtype), torch.eye(x_size := math.prod(shape))[: x_size // 2]
    frame = frame.view(-1, *shape)
    counts = plr.count_regions(model, x, 1.0, frame=frame)
    changes, regions = local_complexity(model, x, 1.0, frame)
    assert torch.equal(counts.changes, changes) and torch.equal(counts.regions, regions)
    assert (changes.sum(0) > 0).all()
    return plr.capture(model, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype):
    norm = nn.BatchNorm2d(4, eps=0)
    norm.running_mean.copy_(torch.tensor([0.0, 0.5, 1.0, -0.5]))
    norm.running_var.copy_(torch.tensor([4.0, 1.0, 0.25, 1.0]))
    exact(nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 9), nn.ReLU()), dtype, 1, 4, 4)


def test_autocast_inside_the_forward_pass():
    network = exact(pair(under_autocast), torch.float32, 6)
    assert network.nodes[network.layers[0].node].dtype == torch.bfloat16


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


@pytest.mark.parametrize("mechanism", ["torch.export", "make_fx", "torch.export, strict"])
def test_every_mechanism_names_paths_and_lines(mechanism, monkeypatch):
    """The fallbacks are tried where the mechanisms before them fail."""

    def fails(*args):
        raise RuntimeError("not today")

    export = capture_module._export
    if mechanism != "torch.export":
        monkeypatch.setattr(
            capture_module, "_export", lambda *args, strict: (export if strict else fails)(*args, strict)
        )
    if mechanism == "torch.export, strict":
        monkeypatch.setattr(capture_module, "_make_fx", fails)
    parts = {"first": nn.Linear(6, 6), "act": nn.ReLU(), "block": pair(relu_on_a_slice)}
    model = Do(lambda s, x: s.block(s.act(s.first(s.act(x)))).relu(), **parts)
    check(model, torch.randn(3, 6), names=["act#1", "act#2", "block#1", "block#2", "relu"])
    network = plr.capture(model, torch.randn(3, 6))
    assert network.method == mechanism
    assert all(layer.line.startswith("test_capture.py:") for layer in network.layers)
    with torch.no_grad():
        model.first.weight.neg_()
    check(model, torch.randn(3, 6))


# Wrappers and exported programs.


def test_compiled_models_are_unwrapped_and_not_run():
    def backend(graph, example):
        raise AssertionError("compiled")

    model = mlp()
    counts = check(model)
    inside = mlp()
    inside[1] = torch.compile(inside[1], backend=backend)
    own = mlp()
    own.compile(backend=backend)
    torch.manual_seed(0)
    model, x = mlp(), torch.randn(3, 6)
    assert plr.capture(torch.compile(model, backend=backend), x) is plr.capture(model, x)
    assert plr.capture(inside, x).layer_names == plr.capture(own, x).layer_names == counts.layers == ("1",)


def test_data_parallel_is_unwrapped():
    model, x = mlp(), torch.randn(3, 6)
    assert plr.capture(nn.DataParallel(model), x) is plr.capture(model, x)


def test_exported_programs_are_read_and_left_as_they_are():
    model, x = mlp(nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ReLU()).eval(), torch.randn(3, 6)
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},), strict=False)
    before = str(program.graph)
    counts = plr.count_regions(program, x, 0.5, n_directions=4)
    assert torch.equal(counts.changes, plr.count_regions(model, x, 0.5, n_directions=4).changes)
    assert counts.layers == ("1", "3") and str(program.graph) == before
    static = torch.export.export(model, (x,), strict=False)
    with pytest.raises(plr.UnsupportedModelError, match="fixes its batch size to 3"):
        plr.capture(static, x)
    with pytest.raises(ValueError, match=r"x must be \[B, 6\], as the program was exported, got \[B, 5\]"):
        plr.count_regions(program, x[:, :5], 0.5, n_directions=4)
    with pytest.raises(TypeError, match=r"x must be torch\.float64, as the program was exported, got torch\.float32"):
        plr.explain(program, x.float())


# Capturing leaves no trace of its own.


def test_the_model_and_torch_are_left_as_they_were(capfd):
    def forward(self, x):
        self.hidden, self.log[:] = self.linear(x), [1]
        self.calls += 1
        return self.norm(self.hidden).relu() * self.scale

    model = Do(forward, linear=nn.Linear(6, 8), norm=nn.BatchNorm1d(8), scale=torch.ones(8))
    model.hidden, model.log, model.calls = None, [], 0
    model.train()
    model.norm.eval()
    random, before = torch.get_rng_state(), dict(vars(model))
    state = {
        name: (tensor, tensor.clone(), tensor._version) for name, tensor in model.state_dict(keep_vars=True).items()
    }
    x = torch.randn(2, 6, requires_grad=True)
    random = torch.get_rng_state()
    counts = plr.count_regions(model, x, 0.5, n_directions=3)
    assert not counts.changes.requires_grad
    assert torch.equal(random, torch.get_rng_state())
    assert [part.training for part in model.modules()] == [True, True, False]
    assert vars(model) == before and model.hidden is None and model.log == [] and model.calls == 0
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is state[name][0] and torch.equal(tensor, state[name][1]) and tensor._version == state[name][2]
    assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()
    assert capfd.readouterr() == ("", "")


def test_a_refusal_leaves_everything_too(capfd):
    model = Do(lambda s, x: s.steps.add_(1) * x.relu(), steps=torch.zeros(()))
    with pytest.raises(plr.UnsupportedModelError, match="the forward pass changes 'steps' of the model"):
        plr.capture(model, torch.randn(2, 6))
    with pytest.raises(plr.UnsupportedModelError, match="control flow depends on the data"):
        plr.capture(mlp(Do(branches)), torch.randn(2, 6))
    assert model.steps == 0 and model.training and torch.backends.mha.get_fastpath_enabled()
    assert capfd.readouterr() == ("", "")


def test_points_are_not_overwritten_by_models_that_work_in_place():
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 8)), torch.randn(4, 6)
    before = x.clone()
    plr.count_regions(model, x, 0.5, n_directions=3)
    assert torch.equal(x, before)


def test_capture_under_inference_mode():
    model, x = mlp(), torch.randn(3, 6)
    with torch.inference_mode():
        network = plr.capture(model, 2 * x)
    assert torch.equal(
        plr.count_regions(network, x, 0.5, n_directions=4).changes,
        plr.count_regions(model, x, 0.5, n_directions=4).changes,
    )


# Counts follow the live model.


def test_counts_follow_the_weights_without_a_new_capture(traces):
    model, x = mlp(nn.ReLU(), nn.Linear(8, 8), nn.Tanh()), torch.randn(3, 6)
    network = plr.capture(model, x)
    assert network.state["0.weight"] is model[0].weight
    before = check(model, x)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
    model(x).square().sum().backward()
    optimiser.step()
    after = check(model, x)
    assert not torch.equal(before.changes, after.changes)
    with torch.no_grad():
        model[0].bias.add_(1.0)
    check(model, x)
    model[0].weight.data = torch.randn(8, 6)
    check(model, x)
    model.load_state_dict({name: torch.randn_like(value) for name, value in model.state_dict().items()})
    check(model, x)
    model.load_state_dict({name: torch.randn_like(value) for name, value in model.state_dict().items()}, assign=True)
    check(model, x)
    model[2].weight = nn.Parameter(torch.randn(8, 8))
    counts = plr.count_regions(network, x, 4.0, frame=plr.random_frame((6,), 6))  # a network of one's own follows too
    assert torch.equal(counts.changes, check(model, x).changes)
    assert len(traces) == 1


class Settings(nn.Module):
    """Reads about everything that an attribute can be."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(6, 8)])
        self.active = self.layers[0]
        self.alpha, self._beta, self.bounds, self.table = 0.2, 1.0, [0.4], {"low": {"at": 0.3}}
        self.config = types.SimpleNamespace(shift=0.0)
        self.act = F.leaky_relu
        self.offset = torch.randn(8)
        self.register_buffer("mean", torch.randn(8))

    def forward(self, x):
        h = self.active(x) * self._beta + self.offset + self.config.shift - self.mean
        return self.act(h.clamp(-self.table["low"]["at"], self.bounds[0]), self.alpha).abs()


CHANGES = {
    "number": lambda m: setattr(m, "alpha", -1.0),
    "private number": lambda m: setattr(m, "_beta", -2.0),
    "item of a list": lambda m: m.bounds.__setitem__(0, 1.5),
    "item of a dictionary": lambda m: m.table["low"].update(at=1.5),
    "field of an object": lambda m: setattr(m.config, "shift", 0.7),
    "function": lambda m: setattr(m, "act", lambda z, alpha: z.clamp(max=0.0).abs()),
    "other of two layers": lambda m: setattr(m, "active", m.layers[1]),
    "new layer": lambda m: setattr(m, "active", nn.Linear(6, 8)),
    "tensor": lambda m: setattr(m, "offset", torch.randn(8)),
    "tensor in place": lambda m: m.offset.neg_(),
    "buffer": lambda m: setattr(m, "mean", torch.randn(8)),
    "buffer of another shape": lambda m: setattr(m, "mean", torch.randn(1)),
    "hook": lambda m: m.active.register_forward_hook(lambda module, args, output: 2 * output),
    "weight decay": lambda m: [p.data.mul_(0.5) for p in m.parameters()],
}


def test_counts_follow_attributes(traces):
    """Each change on top of the others; equal captures are reused in between."""
    model, x = Settings(), torch.randn(3, 6)
    check(model, x, trivial=True)
    for change in CHANGES.values():
        before = len(traces)
        change(model)
        check(model, x, trivial=True)
        check(model, x, trivial=True)
        assert len(traces) <= before + 1


def test_a_hook_that_takes_anothers_place_is_noticed():
    model, x = mlp(), torch.randn(3, 6)
    for factor in (1.0, -1.0):
        handle = model[0].register_forward_hook(lambda module, args, output, factor=factor: factor * output + 0.3)
        check(model, x)
        handle.remove()


def test_parameters_that_are_no_longer_shared_are_noticed(traces):
    model, x = tied(), torch.randn(3, 6)
    check(model, x)
    model[2].weight = nn.Parameter(torch.randn(6, 6))
    check(model, x)
    assert len(traces) == 2


def test_new_modules_are_noticed():
    model, x = mlp(), torch.randn(3, 6)
    check(model, x)
    for threshold in (0.1, 0.4):
        model[1] = Do(lambda s, z, threshold=threshold: z.clamp(-threshold, threshold))
        check(model, x)


def test_another_dtype_or_shape_is_another_capture(traces):
    model, x = mlp(nn.ReLU(), Do(lambda s, z: z.mean(-1))), torch.randn(3, 6)
    network = plr.capture(model, x)
    plr.capture(model, torch.randn(2, 5, 6))
    assert plr.capture(model, x) is network and len(traces) == 2
    model.float()
    assert plr.capture(model, x.float()).dtype == torch.float32 and len(traces) == 3
    with pytest.raises(
        plr.UnsupportedModelError, match=r"0.weight was \[8, 6\] torch.float64 on cpu .* is now \[8, 6\] torch.fl"
    ):
        plr.count_regions(network, x, 0.5, n_directions=2)


def test_weight_norm_by_hooks_is_not_captured_each_time(traces):
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 8)), nn.ReLU())
    x = torch.randn(3, 6)
    for _ in range(2):
        check(model, x)
        with torch.no_grad():
            model[0].weight_g.mul_(-1.0)
    assert len(traces) == 1 and type(model[0].weight) is torch.Tensor


@pytest.mark.parametrize(
    "make",
    [
        mlp,
        lambda: mlp(nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 4)), nn.ReLU()),
        lambda: mlp(Do(lambda s, x: torch.subtract(x, 0.5).relu())),
    ],
    ids=["plain", "parametrized", "make_fx"],
)
def test_the_cache_does_not_keep_a_model_alive(make):
    model, x = make(), torch.randn(3, 6)
    network = plr.capture(model, x)
    gone, size = weakref.ref(model), len(capture_module._cache)
    del model
    gc.collect()
    assert gone() is None and len(capture_module._cache) < size
    assert plr.count_regions(network, x, 0.5, n_directions=3).changes.shape == (3, len(network.layers))


# What is refused, and how.


def branches(self, x):
    if x.abs().max() > 1:
        return x.relu()
    return x


def by_batch_size(self, x):
    if x.size(0) > 64:
        return x.relu()
    return x.abs()


def conditional(self, x):
    return torch.cond(self.flag, lambda z: z.relu(), lambda z: z.clone(), (x,))


AT = r" in module '1' at test_capture.py:\d+: .*"
MIXES = AT + "mixes the points of a batch"
REFUSED = {
    "data-dependent if": (branches, rf"control flow depends on the data{AT}x.abs\(\).max\(\) > 1"),
    "if on a parameter": (lambda s, x: x.relu() if s.w > 0 else x, rf"control flow depends on the data{AT}"),
    "if on the batch size": (by_batch_size, r"control flow depends on the batch size at test_capture.py:\d+: .*size"),
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
        r"lstm in module '1.lstm' at test_capture.py:\d+: .*aten.lstm.input'",
    ),
    "gru": (lambda s, x: s.gru(x.view(-1, 2, 4))[0], r"gru in module '1.gru'"),
    "sort": (lambda s, x: x.sort(1)[0], rf"sort{AT}has kinks that are not counted"),
    "topk": (lambda s, x: x.topk(2, 1)[0], rf"topk{AT}has kinks that are not counted"),
    "sign": (lambda s, x: x.sign(), rf"sign{AT}a step that is not counted"),
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
        lambda s, x: torch.fft.rfft(x).real,
        rf"fft_rfft{AT}'aten.fft_rfft.default' is not in the table",
    ),
    "no dependence": (lambda s, x: 2 * s.w, "output does not depend on its input"),
}


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


def test_a_global_that_changes_is_found_by_the_self_check():
    numbers = itertools.count(1)
    with pytest.raises(plr.UnsupportedModelError, match="does not reproduce the model on fresh inputs"):
        plr.capture(mlp(Do(lambda s, x: (x * next(numbers)).relu())), torch.randn(3, 6))


def test_the_self_check_finds_wrong_rows_of_the_table(monkeypatch):
    monkeypatch.setitem(TABLE, "sin", Op(Kind.AFFINE))
    with pytest.raises(plr.UnsupportedModelError, match=r"sin in module '1' at .* is not affine in the input"):
        plr.capture(mlp(Do(lambda s, x: x.sin().relu())), torch.randn(3, 6))


def test_the_self_check_compares_with_the_model(monkeypatch):
    """Also where the outputs are equal at the points of the capture."""
    build = capture_module._build

    def wrong(trace, example):
        network = build(trace, example)
        network.nodes[network.layers[0].node].target = torch.ops.aten.abs.default
        return network

    model, x = mlp(Do(lambda s, z: z.relu())), torch.randn(3, 6)
    with torch.no_grad():
        model[0].bias.fill_(10.0)
    monkeypatch.setattr(capture_module, "_build", wrong)
    monkeypatch.setattr(selfcheck_module, "fresh_inputs", lambda x, seed=0: 20 * torch.randn(5, *x.shape[1:]))
    with pytest.raises(plr.UnsupportedModelError, match="does not reproduce the model"):
        plr.capture(model, x)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_bad_parameters_are_found_when_counting(value):
    model, x = mlp(), torch.randn(3, 6)
    check(model, x)
    with torch.no_grad():
        model[0].bias[2] = value
    with pytest.raises(plr.UnsupportedModelError, match=r"the model's 0.bias has NaN or infinite entries"):
        plr.count_regions(model, x, 0.5, n_directions=2)


def test_bad_arguments_are_named():
    model, x = mlp(), torch.randn(3, 6)
    with pytest.raises(TypeError, match="model must return a tensor, got int without one"):
        plr.capture(mlp(Do(lambda s, x: 3)), x)
    with pytest.raises(
        ValueError, match=r"^x must be points the model takes, got \[B, 7\] torch.float64, .*RuntimeError"
    ):
        plr.capture(model, torch.randn(3, 7))
    with pytest.raises(ValueError, match=r"example must be \[B, \*input_shape\]"):
        plr.capture(model, torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"example must be a torch.Tensor, got list"):
        plr.capture(model, [1.0])
    with pytest.raises(TypeError, match=r"example must be float32, .* got torch.int64"):
        plr.capture(model, torch.zeros(3, 6, dtype=torch.long))
    with pytest.raises(TypeError, match=r"model must be an nn.Module, .* got function"):
        plr.capture(lambda x: x, x)


def test_no_points_are_enough_to_capture():
    model = mlp()
    assert plr.capture(model, torch.randn(0, 6)) is plr.capture(model, torch.randn(3, 6))
