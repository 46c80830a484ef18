"""Chains of dense layers, counted by how far the vertices are from the points (``csrc/displacement``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pylinregion._util.rounding import spectral_norm
from pylinregion.graph.kinks import scalar_kink
from pylinregion.graph.network import Ref
from pylinregion.native.dense_chain import ChainCounts, ChainLayer, ChainPoints, DenseChain, count_chain
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.native.simd import simd

if TYPE_CHECKING:
    from pylinregion.runtime.program import Program, Split

OUTPUT = -1
FEWEST_PAIRS = 4  # with fewer, vectors stay empty
_VECTOR_BYTES = {"avx512": 64, "avx2": 32, "neon": 16, "portable": 8}
_UP = 1 + 1e-9  # the rounding of norms


@dataclass(frozen=True)
class Link:
    """One layer of a chain.

    Attributes:
        number: Of the layer that is counted; -1: the output.
        weight: ``[neurons, inputs]``, None in the first layer of a split.
        bias: ``[neurons]`` or None.
        slope: What a neuron is times its pre-activation below 0: a number, or ``[neurons]``. Above 0 it is that itself.
    """

    number: int
    weight: Tensor | None
    bias: Tensor | None
    slope: float | Tensor


class Found(NamedTuple):
    """Where a chain is in a program.

    Attributes:
        start: The node that it takes: pre-activations if it is split, else the value in front of its first layer.
        split: Whether it starts at a split.
        steps: The nodes of the steps that it stands for.
        links: Its layers.
    """

    start: int
    split: bool
    steps: frozenset[int]
    links: tuple[Link, ...]


def find(program: Program) -> Found | None:
    """The chain that a bound program ends in: linear layers and kinks at 0, each read by the next alone; or None."""
    nodes, constants = program.network.nodes, program.constants
    steps = {step.node: step for step in program.steps}
    operands = {step.node: _values(step.args, constants) for step in program.steps}
    uses: dict[int, int] = {}
    for index in [index for values in operands.values() for index in set(values)]:
        uses[index] = uses.get(index, 0) + 1

    def dense(index: int) -> bool:
        node = nodes[index]
        flat = node.shape is not None and len(node.shape) == 2 and node.batch_dim == 0 and node.batch_factor == 1
        return index in steps and steps[index].dense and flat

    def weights(index: int) -> tuple[Tensor, Tensor | None]:
        weight, bias = (*steps[index].args[1:3], None)[:2]
        return constants[weight.index], None if bias is None else constants[bias.index]

    if not program.steps:
        return None
    at = program.steps[-1].node
    links: list[Link] = []
    taken: list[int] = []
    split = False
    if program.wanted:
        if program.wanted != (at,) or not dense(at):
            return None
        links.append(Link(OUTPUT, *weights(at), 0.0))
        taken.append(at)
        (at,) = operands[at]
    while at in steps and len(operands[at]) == 1 and uses.get(at, 0) == bool(taken):
        if nodes[at].op_name == "dropout":  # not while a network is in eval mode
            taken.append(at)
            (at,) = operands[at]
            continue
        slope = _slope_below(steps[at], program)
        (before,) = operands[at]
        if steps[at].layer < 0 or slope is None or uses[before] != 1:
            break
        split = before in program.given
        if not split and not dense(before):
            break
        weight, bias = (None, None) if split else weights(before)
        links.append(Link(steps[at].layer, weight, bias, slope))
        taken += [at] if split else [at, before]
        at = before if split else operands[before][0]
        if split:
            break
    numbers = [link.number for link in reversed(links) if link.number != OUTPUT]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    return Found(at, split, frozenset(taken), tuple(reversed(links)))


def _values(args: tuple[Any, ...], constants: dict[int, Any]) -> list[int]:
    """The values among a step's arguments, if the first is one and the others are no others; else all, twice."""
    found = [argument.index for argument in args if isinstance(argument, Ref) and argument.index not in constants]
    return found if found and args[0] == Ref(found[0]) else found * 2


def _slope_below(step: Any, program: Program) -> float | Tensor | None:
    """What a kink at 0 multiplies by below 0, if it is the identity above; else None."""
    node = program.network.nodes[step.node]
    form = node.op.kink if node.op is not None else None
    if form == "relu":
        return 0.0
    if form == "abs":
        return -1.0
    if form == "leaky_relu":
        kink = scalar_kink(node)
        assert kink is not None
        return kink.slope
    if form == "prelu" and node.shape is not None and len(node.shape) == 2:
        slope = program.constants[step.args[1].index]
        assert isinstance(slope, Tensor)
        return slope
    return None


@dataclass(frozen=True)
class Costs:
    """What it takes to count a chain around a point, in bytes of numbers that are multiplied: 3 to 5 ps each.

    What other work is worth in these was measured.

    Attributes:
        pairs: ``P``.
        itemsize: Bytes of a number.
        products: Multiplications at a vertex, behind the first layer of a split.
        first: Of the first layer of a split; 0 of another chain.
        inputs: What the first layer takes.
        neurons: Of all layers.
        layers: How many layers there are.
    """

    pairs: int
    itemsize: int
    products: int
    first: int
    inputs: int
    neurons: int
    layers: int

    @classmethod
    def of(cls, found: Found, dtype: torch.dtype, pairs: int, prefix: Tensor | None) -> Costs:
        """Those of a chain; ``prefix`` is the weight of the linear layer in front of a split."""
        weights = [link.weight for link in found.links if link.weight is not None]
        products, neurons = sum(weight.numel() for weight in weights), sum(len(weight) for weight in weights)
        if prefix is None:
            return cls(pairs, dtype.itemsize, products, 0, weights[0].shape[1], neurons, len(weights))
        inputs, first = prefix.shape[1], prefix.numel()
        return cls(pairs, dtype.itemsize, products, first, inputs, neurons + len(prefix), len(weights) + 1)

    @property
    def every_vertex(self) -> float:
        """Evaluating all vertices."""
        each = self.itemsize * (self.products + 20 * self.neurons) + 16_000 * self.layers
        return 2 * self.pairs * each + self.itemsize * self.first

    def displacements(self, share: float) -> float:
        """Counting by displacements that multiply this share of the products at all vertices."""
        vertices = 2 * self.pairs * self.itemsize
        given = 0 if self.first else 2 * vertices * self.inputs
        return 1.3 * share * vertices * self.products + 8 * (self.products + self.first) + 5500 * self.neurons + given

    @property
    def setting_up(self) -> float:
        """The weights once more in float64, for all points together."""
        return 2e8 + 2000 * (self.products + self.first)

    def share(self, changing: float) -> float:
        """The share that is to be expected where this share of the first layer's neurons change.

        Panels have the columns of the neurons that are on, in whole vectors, and rows are as good as all looked at long
        before all neurons change, for they are judged by their norms. Fitted to 55 counts of random and trained
        networks, widths 50 and 200, P = 8 and 25.
        """
        lanes = max(1, _VECTOR_BYTES[simd()] // self.itemsize)
        padding = -(-self.pairs // lanes) * lanes / self.pairs
        width = self.neurons / self.layers
        return padding * (0.5 + 0.5 * changing) * min(1.0, 0.1 + 0.4 * changing * math.sqrt(width))

    def promise(self, changing: float, points: int) -> bool:
        """Whether displacements are to be expected to take less, around so many points, setting up included."""
        if self.pairs < FEWEST_PAIRS or points == 0:
            return False
        return self.displacements(self.share(changing)) + self.setting_up / points < self.every_vertex


class Chain:
    """A chain with its weights, ready to count.

    Args:
        found: The chain.
        dtype: Of the displacements: float32 or float64.
        points: How many there will be, about: bounds are made tighter for many.
        prefix: Of a split: the weight and bias of the linear layer that its first pre-activations come from.
    """

    def __init__(
        self, found: Found, dtype: torch.dtype, points: int, prefix: tuple[Tensor, Tensor | None] | None = None
    ) -> None:
        self.start, self.split, self.dtype = found.start, found.split, dtype
        self._found, self._prefix = found, None if prefix is None else prefix[0]
        self.numbers = tuple(link.number for link in found.links)
        self._layers = [
            _Layer(link, dtype, prefix if k == 0 and found.split else None, self._worth_norms(k, found.links, points))
            for k, link in enumerate(found.links)
        ]
        self._packed = [
            PackedLinear(layer.exact, layer.bias)
            if layer.exact is not None and PackedLinear.takes(torch.float64, layer.exact.device)
            else None
            for layer in self._layers
        ]
        self._chain: DenseChain | None = None
        self._work = torch.zeros(0, dtype=torch.int64, device="cpu")  # of the last count, as what follows
        self._unproven = torch.zeros(0, dtype=torch.int64, device="cpu")

    def _worth_norms(self, k: int, links: tuple[Link, ...], points: int) -> bool:
        """Whether a layer's spectral norm, some products of matrices, costs little beside the points and is needed.

        Float64 needs none, and no error goes on behind the last layer.
        """
        weight = links[k].weight
        return self.dtype == torch.float32 and weight is not None and len(weight) <= points and k + 1 < len(links)

    def prepare(self, pairs: int, directions: Tensor | None) -> None:
        """Fix the frame.

        Args:
            pairs: ``P``.
            directions: Of a split: ``[P, neurons]`` float64, what the first layer makes of the frame.
        """
        self.pairs = pairs
        layers = [layer.numbers for layer in self._layers]
        if directions is None:
            self._chain = DenseChain(self.dtype, layers, pairs, None, None, 0.0)
            return
        rows = functional.pad(directions.T, (0, -pairs % 16)).contiguous()
        largest = float(rows.norm(dim=0).amax()) * _UP
        self._chain = DenseChain(self.dtype, layers, pairs, rows, rows.abs().amax(dim=1), largest)

    def count(
        self,
        value: Split | Tensor,
        changes: Tensor,
        ambiguous: Tensor,
        nonfinite: Tensor,
        classes: Tensor,
        threads: int,
    ) -> None:
        """Count around ``b`` points.

        Args:
            value: A split in float64, or ``[b * 2P, inputs]`` vertices, all plus, then all minus for each point.
            changes: ``[b, layers]`` int64, rows of any stride: overwritten.
            ambiguous: ``[b]`` int64: overwritten by the signs within the proven bound of float64.
            nonfinite: ``[layers, b]`` uint8, set to 1 where a pre-activation is NaN or infinite.
            classes: ``[b, 2P]`` int64 of any stride by vertex: vertices of a point have one number, from 0 on, if all
                neurons of the chain are on the same sides there.
            threads: CPU threads.

        """
        radius = vertices = base = None
        if isinstance(value, Tensor):
            vertices = value.contiguous()
            points = len(vertices) // (2 * self.pairs)
            base = before = vertices.view(points, 2 * self.pairs, -1).mean(dim=1, dtype=torch.float64)
            z = self._apply(0, before, threads)
            norm = before.norm(dim=1) * _UP
        else:
            points = len(value.centre)
            z, radius = value.centre.contiguous(), value.radius.contiguous()
            assert value.norm is not None
            norm = value.norm * _UP
        centres, norms = [z], [norm]
        work = torch.zeros(points, dtype=torch.int64, device=z.device)
        for k in range(1, len(self._layers)):
            before = self._layers[k - 1].activate(z)
            norms.append(before.norm(dim=1) * _UP)
            z = self._apply(k, before, threads)
            centres.append(z)
        assert self._chain is not None
        count_chain(
            self._chain,
            ChainPoints(centres, norms, radius, vertices, base),
            ChainCounts(changes, ambiguous, classes, work, nonfinite),
            threads,
        )
        self._work, self._unproven = work, ambiguous

    @property
    def share(self) -> float:
        """What the last count multiplied, as a share of the multiplications at all vertices."""
        products = self._costs.products * self.dtype.itemsize
        return float(self._work.sum()) / max(1, len(self._work) * 2 * self.pairs * products)

    @property
    def _costs(self) -> Costs:
        return Costs.of(self._found, self.dtype, self.pairs, self._prefix)

    def pays(self) -> bool:
        """Whether going on takes less than evaluating vertices, if all points are like the last ones."""
        costs = self._costs
        again = costs.every_vertex * float((self._unproven > 0).double().mean()) if len(self._unproven) else 0.0
        return self.pairs >= FEWEST_PAIRS and costs.displacements(self.share) + again < costs.every_vertex

    def _apply(self, k: int, x: Tensor, threads: int) -> Tensor:
        packed, layer = self._packed[k], self._layers[k]
        if packed is not None:
            return packed(x, None, threads)
        assert layer.exact is not None
        return functional.linear(x, layer.exact, layer.bias)


class _Layer:
    """A link in the form of the kernel."""

    def __init__(
        self, link: Link, dtype: torch.dtype, prefix: tuple[Tensor, Tensor | None] | None, tight: bool
    ) -> None:
        self.exact = None if link.weight is None else link.weight.double().contiguous()
        self.bias = None if link.bias is None else link.bias.double().contiguous()
        matrix, bias = (self.exact, self.bias) if prefix is None else prefix
        if matrix is None:
            raise ValueError("prefix must be given for a chain that starts at a split")
        neurons, inputs = matrix.shape
        matrix = matrix.double()
        self.weight = None if self.exact is None else self.exact.to(dtype)
        self.row_norm = matrix.norm(dim=1) * _UP
        lost = self.row_norm > 0  # squares that underflow; nothing in a row of zeros alone
        if not bool(lost.all()):
            lost = (matrix != 0).any(dim=1)
        self.row_norm += 1e-150 * lost.double()
        self.bias_size = matrix.new_zeros(neurons) if bias is None else bias.double().abs()
        self.column_square = matrix.square().sum(dim=0) * _UP + 1e-300
        frobenius = float(matrix.norm()) * _UP + 1e-150
        self.slope: Tensor | None = None
        if isinstance(link.slope, Tensor) or link.slope != 0:
            slope = torch.as_tensor(link.slope, dtype=torch.float64, device=matrix.device)
            slope = slope.reshape(-1).to(dtype).double()
            self.slope = slope.expand(neurons).contiguous()
        steepest = max(1.0, 0.0 if self.slope is None else float(self.slope.abs().max()))
        self.numbers = ChainLayer(
            inputs,
            neurons,
            self.weight,
            self.exact,
            self.bias_size,
            self.row_norm,
            self.slope,
            self.column_square,
            frobenius,
            spectral_norm(matrix.cpu().numpy(), dtype=torch.float32) if tight else frobenius,
            float(self.bias_size.norm()) * _UP,
            steepest,
        )

    def activate(self, z: Tensor) -> Tensor:
        """``[b, neurons]`` float64: the neurons' values."""
        if self.slope is None:
            return functional.relu(z)
        return torch.where(z > 0, z, z * self.slope)
