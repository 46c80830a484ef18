"""Models that are covered, against the oracle."""

import dataclasses
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import pylinregion as plr
from cases.small_models import Do, mlp, pair, relu_on_a_slice, tied, warmed_up
from cases.witness import check, local_complexity, vertices

pytestmark = pytest.mark.usefixtures("doubles")


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
    """Batch norm and ReLU come first: the norms cannot be fused into the convolutions before them."""

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


def standardised_weights(self, x):
    weight = F.batch_norm(self.linear.weight[None], None, None, training=True)[0]  # of a constant, as timm does it
    weight = weight / torch.linalg.vector_norm(self.linear.weight, ord=1, dim=1, keepdim=True)
    return self.head(F.linear(x, weight, torch.div(self.linear.bias, 0.1, rounding_mode="floor")).relu()).abs()


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


def encoder(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, **options)


def attention(x, self):
    return self.attend(x, x, x, need_weights=self.weights, attn_mask=self.mask)[0].relu()


def attend(**options):
    parts = {"weights": False, "mask": None, **options}
    return Do(lambda self, x: attention(x, self), attend=nn.MultiheadAttention(8, 2, batch_first=True), **parts)


def norms_to_fuse():
    parts = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8)
    return warmed_up(nn.Sequential(*parts, nn.BatchNorm1d(8, affine=False), nn.ReLU()), 2, 6, 6)


def norms_not_to_fuse():
    parts = nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2)
    return warmed_up(nn.Sequential(*parts, nn.ReLU()), 2, 4, 4)


def fan_out():
    """A convolution with a batch norm and another reader: fusing would change what that one reads."""
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
    "norms to fuse": (norms_to_fuse, (2, 6, 6)),
    "norms not to fuse": (norms_not_to_fuse, (2, 4, 4)),
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
    "standardised weights": (lambda: pair(standardised_weights), (6,), ["relu", "abs"]),
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


@pytest.mark.part(4)
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
