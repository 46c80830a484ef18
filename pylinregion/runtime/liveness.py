"""Which values a program needs, who takes each, until when, and which may share memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pylinregion.graph.network import Network, Node, Ref
from pylinregion.graph.operators import ALWAYS_NEW, Kind


def needed(network: Network, roots: Iterable[int], given: frozenset[int]) -> list[int]:
    """What the roots need and is not given, in the network's order."""
    found: set[int] = set()
    stack = [index for index in roots if index not in given]
    while stack:
        index = stack.pop()
        if index in found:
            continue
        node = network.nodes[index]
        if node.role in ("input", "state"):
            raise AssertionError(f"node {node.name} must be given")
        found.add(index)
        if node.role != "size" or node.op_name != "sym_size":
            stack.extend(operand for operand in node.operands if operand not in given)
    return sorted(found)


class Liveness:
    """Who takes the values of a program.

    Args:
        network: The network.
        order: The nodes that are computed, in order.
        given: Values that the caller has.
        wanted: Values that the caller wants: they outlive the program.

    Attributes:
        users: The nodes that take each value, in order.
    """

    def __init__(self, network: Network, order: list[int], given: frozenset[int], wanted: tuple[int, ...]) -> None:
        self._network, self._given, self._wanted = network, given, frozenset(wanted)
        self.users: dict[int, list[int]] = {}
        for index in order:
            node = network.nodes[index]
            if node.op_name == "sym_size":
                continue
            for operand in set(node.operands):
                self.users.setdefault(operand, []).append(index)

    def freed(self) -> dict[int, tuple[int, ...]]:
        """By node: the values that nobody needs once it is computed."""
        found: dict[int, tuple[int, ...]] = {}
        for index, users in self.users.items():
            if index not in self._wanted:
                found[users[-1]] = (*found.get(users[-1], ()), index)
        return found

    def is_unused(self, index: int) -> bool:
        """Whether nobody takes a value."""
        return not self.users.get(index) and index not in self._wanted

    def may_overwrite(self, index: int) -> bool:
        """Whether the operand of a kink is memory of its own that nobody reads afterwards; nor is the result wanted."""
        if index in self._wanted:
            return False
        operand = self._network.nodes[index].args[0]
        while isinstance(operand, Ref) and len(self.users.get(operand.index, ())) == 1:
            node = self._network.nodes[operand.index]
            if operand.index in self._wanted or operand.index in self._given or node.role != "value":
                return False
            if node.op_name in ALWAYS_NEW:
                return True
            if node.op is None or not node.op.alias:
                return False
            operand = node.args[0]
        return False

    def slots(self, written: Iterable[int], same: frozenset[int]) -> dict[int, int]:
        """Memory slots for values that we write ourselves.

        Two values share a slot if the first, and every value that is a view of it or overwrites it in place, has had
        its last use before the second is written.

        Args:
            written: The values, in order.
            same: Nodes that overwrite their operand, or are fused into it.
        """
        slots: dict[int, int] = {}
        ends: list[float] = []
        for index in written:
            free = next((slot for slot, end in enumerate(ends) if end < index), None)
            slot = len(ends) if free is None else free
            ends[slot : slot + 1] = [self._end_of(index, same)]
            slots[index] = slot
        return slots

    def _end_of(self, index: int, same: frozenset[int]) -> float:
        """The last node that reads the memory of a value."""
        if index in self._wanted:
            return math.inf
        last = float(index)
        for user in self.users.get(index, ()):
            shares = user in same or _may_be_a_view(self._network.nodes[user])
            last = max(last, self._end_of(user, same) if shares else user)
        return last


def _may_be_a_view(node: Node) -> bool:
    """Whether a value may be a view of its operand: an affine operator that is not known to write new memory."""
    return node.op is None or (node.op.kind is Kind.AFFINE and node.op_name not in ALWAYS_NEW)
