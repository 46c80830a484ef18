"""A captured network as a differentiable function in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.caller.torch_settings import full_precision, quiet
from pylinregion.graph.network import Network
from pylinregion.measures._forward import pushed_forward
from pylinregion.measures._points import batches_of
from pylinregion.runtime.program import Program

_DIRECTION_ROWS = 1024  # of a pass that carries derivatives


class NetworkFunction:
    """Some values of a network as a function of its input and of its tensors, in float64.

    Unlike a :class:`pylinregion.runtime.evaluator.Evaluator` it fuses and packs nothing, so that torch differentiates
    it, forwards and backwards, by the input and by the tensors.

    Args:
        network: The network, in eval mode as it was captured.
        wanted: Nodes.
    """

    def __init__(self, network: Network, wanted: Sequence[int]) -> None:
        self.network, self.wanted = network, tuple(wanted)
        nodes = network.nodes
        states = [index for index, node in enumerate(nodes) if node.role == "state"]
        self._input = next(index for index, node in enumerate(nodes) if node.role == "input")
        retype = {network.dtype: torch.float64}
        self._program = Program(network, self.wanted, [self._input, *states], retype=retype)
        doubles: dict[int, Tensor] = {}  # by the tensor that it is made of: tied weights stay one
        self.state: dict[str, Tensor] = {}
        with undifferentiated():
            for index in states:
                tensor = network.state[nodes[index].state]
                if id(tensor) not in doubles:
                    retyped = tensor.dtype == network.dtype
                    doubles[id(tensor)] = tensor.detach().to(torch.float64 if retyped else tensor.dtype, copy=True)
                self.state[nodes[index].state] = doubles[id(tensor)]
        self._states = states

    def parameters(self) -> list[str]:
        """The names of the parameters in :attr:`state`, each tensor once."""
        seen: dict[int, str] = {}
        for name, tensor in self.state.items():
            if name in self.network.parameters and tensor.is_floating_point():
                seen.setdefault(id(tensor), name)
        return list(seen.values())

    def __call__(self, x: Tensor, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """The wanted values.

        Args:
            x: ``[b, *input_shape]`` float64.
            parameters: Tensors to take in place of those of :attr:`state`.

        Returns:
            A ``[b, units]`` for each wanted node.
        """
        values = self.values(x, parameters)
        nodes = self.network.nodes
        rows = [value.movedim(nodes[i].batch_dim, 0) for i, value in zip(self.wanted, values, strict=True)]
        return [value.reshape(len(x), -1).to(torch.float64) for value in rows]

    def values(self, x: Tensor, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """The same in the shapes of their nodes: the very tensors that what comes after is computed from.

        Raises:
            ValueError: A value is NaN or infinite.
        """
        state = self.state
        if parameters:
            by_id = {id(self.state[name]): tensor for name, tensor in parameters.items()}
            state = {name: by_id.get(id(tensor), tensor) for name, tensor in self.state.items()}
        given: dict[int, Any] = {index: state[self.network.nodes[index].state] for index in self._states}
        given[self._input] = x
        values = self._program.run(given, len(x))
        for index, value in zip(self.wanted, values, strict=True):
            inside_vmap = torch._C._functorch.is_functorch_wrapped_tensor(value)  # where nothing can be asked
            if not inside_vmap and not bool(torch.isfinite(value).all()):
                raise ValueError(f"{self.network.nodes[index].where} is NaN or infinite at some point of x")
        return values

    def batches(self, x: Tensor, batch_size: int) -> Iterator[list[Tensor]]:
        """The wanted values, a batch of points after the other, without gradients."""
        for points in batches_of(x, batch_size):
            with undifferentiated():
                values = self(points.to(torch.float64))
            yield values

    def gradient_norms(
        self, points: Tensor, parameters: dict[str, Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The wanted values ``[b, units]``, and the 2-norm of each one's gradient by the input, ``[b, units]``.

        Args:
            points: ``[b, *input_shape]``.
            parameters: Tensors to take in place of those of :attr:`state`.
        """
        squares: list[Tensor] = []
        for values, derivatives in self._by_directions(points, parameters):
            with undifferentiated():
                parts = [derivative.square().sum(dim=1) for derivative in derivatives]
                squares = [a + b for a, b in zip(squares, parts, strict=True)] if squares else parts
                found = values, [square.sqrt() for square in squares]
        return found

    def jacobians(self, points: Tensor) -> list[Tensor]:
        """The Jacobians of the wanted values by the input, transposed: ``[b, inputs, units]`` each."""
        columns = [derivatives for _, derivatives in self._by_directions(points)]
        return [torch.cat(parts, dim=1) for parts in zip(*columns, strict=True)]

    def _by_directions(
        self, points: Tensor, parameters: dict[str, Tensor] | None = None
    ) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """By forward differentiation, some directions of the standard basis of the input at a time.

        Yields:
            The wanted values, ``[b, units]``, and their derivatives, ``[b, directions, units]``.

        Raises:
            UnsupportedModelError: The model detaches a value.
        """
        hidden = next((node for node in self.network.nodes if node.role == "value" and node.op_name == "detach"), None)
        if hidden is not None:
            raise UnsupportedModelError(f"{hidden.where} hides its derivative by the input")
        count, dimensions = len(points), points[0].numel()
        step = max(1, _DIRECTION_ROWS // count)
        for first in range(0, dimensions, step):
            number = min(step, dimensions - first)
            # The first use compiles derivative rules, which warn of what they use.
            with quiet(), undifferentiated():
                rows = points.to(torch.float64).repeat_interleave(number, dim=0)
                basis = torch.zeros(number, dimensions, dtype=torch.float64, device=points.device)
                basis[:, first : first + number].fill_diagonal_(1.0)
                tangents = basis.view(number, *points.shape[1:]).repeat(count, *[1] * (points.dim() - 1))
                pairs = pushed_forward(lambda dual: self(dual, parameters), rows, tangents)
                values = [value.view(count, number, -1)[:, 0] for value, _ in pairs]
                derivatives = [derivative.view(count, number, -1) for _, derivative in pairs]
            yield values, derivatives


@contextlib.contextmanager
def undifferentiated() -> Iterator[None]:
    """Without gradients, in full precision; also inside ``torch.inference_mode``."""
    with torch.inference_mode(False), torch.no_grad(), full_precision():
        yield


@contextlib.contextmanager
def differentiated() -> Iterator[None]:
    """With gradients, in full precision; also inside ``torch.no_grad`` and ``torch.inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad(), full_precision():
        yield
