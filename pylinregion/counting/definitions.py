"""What is counted, in words."""

from __future__ import annotations

from collections.abc import Sequence

from pylinregion.graph.network import Network
from pylinregion.graph.operators import Kind

_NAMED = 5  # operators in a definition


def definition_at_vertices(network: Network, counted: Sequence[int], vertices: int) -> str:
    """What method ``"vertices"`` counts."""
    text = (
        f"neurons whose activation differs among the {vertices} vertices x ± r v_p; "
        "regions: distinct activation patterns among these vertices"
    )
    text += smooth_by_sign(network, counted)
    return f"{text}; {words}" if (words := nothing_or_part(network)) else text


def smooth_by_sign(network: Network, counted: Sequence[int]) -> str:
    """What is to be said of smooth activations among the counted layers."""
    smooth = sorted({network.layers[n].op_name for n in counted if network.layers[n].kind is Kind.SMOOTH})
    if not smooth:
        return ""
    return f"; {', '.join(smooth)} by the sign of the pre-activation, since smooth activations have no regions"


def nothing_or_part(network: Network) -> str:
    """What is to be said where not all of a network's non-linear operators are counted."""
    operators = network.uncounted
    if not operators:
        return "" if network.layers else "the network is affine: it has no neurons"
    named = ", ".join(operators[:_NAMED]) + f" and {len(operators) - _NAMED} more" * (len(operators) > _NAMED)
    if network.layers:
        return f"not counted: {named}"
    return f"nothing of this network is counted: it has no neurons, its non-linear operators are {named}"
