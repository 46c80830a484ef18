"""From a model and points, checked, to a network and the nodes of it that a measure looks at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pylinregion._util.checks import chosen_layers
from pylinregion.capturing.capture import capture
from pylinregion.graph.kinks import scalar_kink
from pylinregion.graph.network import Network, Ref
from pylinregion.graph.operators import Kind
from pylinregion.measures import _arguments

AnyModel = nn.Module | torch.export.ExportedProgram | Network


def captured(model: AnyModel, x: Tensor, name: str = "x", at_least: int = 1) -> Network:
    """The network of a model, for points that are checked first.

    Raises:
        TypeError: The points are no floating point tensor, or not of the model's dtype.
        ValueError: Their shape or device is not the model's, there are too few, or one is not finite.
        UnsupportedModelError: The model cannot be captured.
    """
    _arguments.points(name, x, at_least)
    _arguments.fits(name, x, model)
    network = capture(model, x)
    network.check_takes(name, x, "n")
    network.check_parameters()
    return network


def elementwise_layers(network: Network, layers: Sequence[str] | None = None) -> dict[str, int]:
    """The counted layers that have pre-activations, and the node of these: all, or those named.

    Max-pools, comparisons and ``maximum`` have several operands and no pre-activation.

    Raises:
        ValueError: A name is not among them, or there is no such layer.
    """
    found = {
        layer.name: node.args[0].index
        for layer in network.layers
        if isinstance((node := network.nodes[layer.node]).args[0], Ref)
        and (layer.kind is Kind.SMOOTH or scalar_kink(node) is not None)
    }
    if not found:
        raise ValueError("model must have an elementwise activation (ReLU or the like), this one has none")
    names = list(found)
    return {names[number]: found[names[number]] for number in chosen_layers(layers, names)}


def output_node(network: Network) -> int:
    """The node of the output.

    Raises:
        ValueError: There are several output tensors, or no numbers in it.
    """
    if len(network.outputs) != 1:
        returned = len(network.outputs)
        raise ValueError(f"model must return one tensor, this one returns {returned}: plr.select takes one")
    if network.nodes[network.outputs[0]].units == 0:
        raise ValueError("model must return at least one number for a point, this one returns none")
    return network.outputs[0]
