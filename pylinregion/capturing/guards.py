"""What a captured network takes for granted of its model: branches on constants, and values that are finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pylinregion._util.errors import UnsupportedModelError
from pylinregion.graph.kinks import scalar_kink
from pylinregion.graph.network import Guard, Network, Ref, refs
from pylinregion.graph.operators import Kind
from pylinregion.runtime.program import Program

_NO_LARGER = ("relu", "relu6", "leaky_relu", "hardtanh", "abs")  # forms whose result is finite if the operand is


def broken(network: Network) -> Guard | None:
    """The first guard that does not hold with the tensors of today; None if all do."""
    if not network.guards:
        return None
    program = network.plans.get("guards")
    if program is None:
        states = [index for index, node in enumerate(network.nodes) if node.role == "state"]
        program = network.plans["guards"] = Program(network, [guard.node for guard in network.guards], states)
    used = program.read & program.given
    with torch.no_grad():
        values = program.run({index: network.state[network.nodes[index].state].detach() for index in used}, 0)
    pairs = zip(network.guards, values, strict=True)
    return next((guard for guard, value in pairs if not _same(value, guard.seen)), None)


def check(network: Network) -> None:
    """No guard is broken.

    Raises:
        UnsupportedModelError: One is; the message says where.
    """
    guard = broken(network)
    if guard is not None:
        raise UnsupportedModelError(
            f"the model's control flow{guard.place} depends on values that have changed since it was captured: capture "
            "the model again"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.device != other.device:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def unseen(network: Network, counted: Sequence[int], output: bool = False) -> dict[int, str]:
    """Values that the model checks for NaN and infinity before it comes to a counted layer, and the count does not.

    Args:
        network: The network.
        counted: The numbers of the layers, whose pre-activations are checked where they are counted by signs.
        output: Whether the output is counted too.

    Returns:
        Nodes, with where the model checks them.
    """
    if not network.finite:
        return {}
    nodes, layers = network.nodes, [network.layers[number] for number in counted]
    by_sign = {layer.node for layer in layers if nodes[layer.node].op.kink == "pair" or scalar_kink(nodes[layer.node])}  # type: ignore[union-attr]
    operands = {ref.index for index in by_sign for ref in refs(nodes[index].args[:1])}
    operands |= set(network.outputs if output else ())

    def seen(index: int) -> bool:
        node = nodes[index]
        if node.role != "value" or index in operands:
            return True
        if node.op is None or not isinstance(node.args[0], Ref):
            return False
        kink = scalar_kink(node) if index in by_sign else None
        bounded = node.op.kind is Kind.SMOOTH or node.op.kink in _NO_LARGER
        if kink is not None and bounded and abs(kink.slope) <= 1:
            return seen(node.args[0].index)
        return node.op.alias and seen(node.args[0].index)

    last = len(nodes) if output else max((layer.node for layer in layers), default=-1)
    return {index: place for index, place in network.finite.items() if index < last and not seen(index)}
