"""The papers' networks, as plain modules.

Those of tokens have an ``embed`` and a ``body``: papers look at neighbourhoods of embedded tokens, not of tokens. Their
input is tokens ``[B, T]`` int64, or one-hot rows ``[B, T, V]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pylinregion.experiments.config import Model

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def make(
    model: Model, input_shape: tuple[int, ...], classes: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> nn.Module:
    """A network with a seeded initialisation; torch's random state is left alone.

    Args:
        model: Which one.
        input_shape: Of a point: ``[C, H, W]``, or ``[T, V]`` for T tokens out of V.
        classes: Outputs.
        dtype: Of the parameters, which are drawn in it.
        seed: Of the initialisation.

    Returns:
        A module from ``[B, *input_shape]`` to ``[B, classes]``; a GPT gives ``[B, classes, T]``.
    """
    activation = _ACTIVATIONS[model.activation]
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            if model.name == "mlp":
                inputs = math.prod(input_shape)
                network: nn.Module = mlp([inputs, *[model.width] * (model.depth - 1), classes], activation)
            elif model.name == "cnn":
                network = cnn(input_shape, model.width, classes, activation, batch_norm=model.batch_norm)
            elif model.name == "resnet18":
                network = PreActResNet18(input_shape[0], model.width, classes, activation, batch_norm=model.batch_norm)
            else:
                length, vocabulary = input_shape
                kind = PairTransformer if model.name == "transformer" else GPT
                network = kind(length, vocabulary, model.width, model.depth, model.heads, classes, activation)
        finally:
            torch.set_default_dtype(default)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(model.init_scale)
    return network


def embedding_and_body(network: nn.Module) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """What makes points of the input, and the module that takes them: for images, nothing and the network itself."""
    if isinstance(network, TokenModel):
        return network.embed, network.body
    return lambda x: x, network


def mlp(sizes: list[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these sizes with activations between them; images are flattened first."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def cnn(
    input_shape: tuple[int, ...], width: int, classes: int, activation: Callable[[], nn.Module], *, batch_norm: bool
) -> nn.Sequential:
    """5 convolutions of 3 x 3 and 2 linear layers.

    The paper names no channels and no sizes. Here the convolutions have ``width`` times 1, 1, 2, 2, 4 channels, the
    third and the fifth have stride 2, and the hidden linear layer has ``8 width`` neurons. Strides rather than
    max-pools, so that all that is counted is activations, as in the paper.
    """
    channels, height, breadth = input_shape
    layers: list[nn.Module] = []
    for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2)):
        layers.append(nn.Conv2d(channels, factor * width, 3, stride, padding=1))
        channels, height, breadth = factor * width, -(-height // stride), -(-breadth // stride)
        layers += [nn.BatchNorm2d(channels)] * batch_norm + [activation()]
    layers += [nn.Flatten(), nn.Linear(channels * height * breadth, 8 * width), activation()]
    return nn.Sequential(*layers, nn.Linear(8 * width, classes))


class PreActResNet18(nn.Module):
    """A ResNet18 for small images whose blocks start with their activations (He et al., arXiv 1603.05027).

    4 stages of 2 blocks with ``width`` times 1, 2, 4, 8 channels; no activation after the last sum, like the network of
    the paper's code, whose batch norms are left out unless asked for.
    """

    def __init__(
        self, channels: int, width: int, classes: int, activation: Callable[[], nn.Module], *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks = []
        inputs = width
        for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
            blocks.append(_PreActBlock(inputs, factor * width, stride, activation, batch_norm=batch_norm))
            inputs = factor * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, classes]``."""
        out: Tensor = self.head(self.blocks(self.stem(x)))
        return out


class _PreActBlock(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Callable[[], nn.Module], *, batch_norm: bool
    ) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.before = nn.Sequential(norm(inputs), activation())
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            norm(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.before(x)
        around = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = around + self.residual(active)
        return out


class TokenModel(nn.Module):
    """Token and position embeddings, and a body that takes them."""

    body: nn.Module

    def __init__(self, length: int, vocabulary: int, width: int, deviation: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(deviation * torch.randn(vocabulary, width))
        self.positions = nn.Parameter(deviation * torch.randn(length, width))

    def embed(self, x: Tensor) -> Tensor:
        """Tokens ``[B, T]`` or one-hot rows ``[B, T, V]`` to ``[B, T, width]``."""
        rows = x @ self.tokens if x.is_floating_point() else nn.functional.embedding(x, self.tokens)
        return rows + self.positions

    def forward(self, x: Tensor) -> Tensor:
        """The body's outputs for tokens."""
        out: Tensor = self.body(self.embed(x))
        return out


class PairTransformer(TokenModel):
    """Tokens ``a, b, =``, and the answer read off the last position; no layer norm, no biases in attention.

    Entries are drawn with deviation ``1 / sqrt(width)``, those of the output with ``1 / sqrt(vocabulary)``, biases are
    0: the network of Nanda et al. (arXiv 2301.05217) and of their code.
    """

    def __init__(
        self,
        length: int,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__(length, vocabulary, width, 1 / math.sqrt(width))
        blocks = [_Block(width, heads, activation, norm=False, last=number == depth - 1) for number in range(depth)]
        head = nn.Linear(width, classes, bias=False)
        self.body = nn.Sequential(*blocks, nn.Flatten(), head)
        with torch.no_grad():
            for name, parameter in self.body.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.normal_(0, 1 / math.sqrt(vocabulary if parameter is head.weight else width))


class GPT(TokenModel):
    """A decoder with layer norms in front (Radford et al., 2019), which tells the next token at each position.

    Entries are drawn with deviation 0.02, those that write to the residual stream with ``0.02 / sqrt(2 depth)``.
    """

    def __init__(
        self,
        length: int,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__(length, vocabulary, width, 0.02)
        blocks = [_Block(width, heads, activation, norm=True) for _ in range(depth)]
        head = nn.Linear(width, classes, bias=False)
        self.body = nn.Sequential(*blocks, nn.LayerNorm(width), head, _ClassesSecond())
        with torch.no_grad():
            for name, parameter in self.body.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.dim() == 2:
                    writes = name.endswith(("out.weight", "mlp.2.weight"))
                    parameter.normal_(0, 0.02 / math.sqrt(2 * depth) if writes else 0.02)


class _Block(nn.Module):
    """Causal attention, then an MLP, each added to what comes in.

    With ``last``, only the last position comes out: a network that is read off there needs no others in its last block.
    """

    def __init__(
        self, width: int, heads: int, activation: Callable[[], nn.Module], *, norm: bool, last: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.last = heads, last
        self.before_attention = nn.LayerNorm(width) if norm else nn.Identity()
        self.before_mlp = nn.LayerNorm(width) if norm else nn.Identity()
        self.q = nn.Linear(width, width, bias=norm)
        self.kv = nn.Linear(width, 2 * width, bias=norm)
        self.out = nn.Linear(width, width, bias=norm)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        each = width // self.heads
        around = self.before_attention(x)
        if self.last:
            x = x[:, -1:]
        q = self.q(around[:, -1:] if self.last else around).view(batch, -1, self.heads, each).transpose(1, 2)
        k, v = self.kv(around).view(batch, length, 2, self.heads, each).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=not self.last)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out


class _ClassesSecond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, classes]`` to ``[B, classes, T]``, as torch's losses want it."""
        return x.transpose(1, 2)
