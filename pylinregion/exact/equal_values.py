"""Names of values in the course of a fold: those with one name are the same function all over a slice.

Pools that overlap pick the same number more than once, so that the candidates of the next pool are equal: no bound
settles them, and no arithmetic need be done (docs/exactness.md, 5.2).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util.arrays import Array, Int64s
from pylinregion.lowering.linear_maps import LinearMap, Terms
from pylinregion.lowering.units import Units

ZERO = 0  # the name of what is 0 all over the slice
_MOST_TERMS = 1 << 24  # that are looked at: of more, each row gets a name of its own


class Names:
    """Gives names, none of them twice.

    Args:
        count: Slices.
    """

    def __init__(self, count: int) -> None:
        self._count, self._next = count, ZERO + 1

    def new(self, n: int) -> Tensor:
        """``[count, n]``: names that nothing has; what is on different slices is not compared."""
        first = self._next
        self._next += n
        return torch.arange(first, self._next).expand(self._count, n)

    def of_rows(
        self, blocks: Mapping[int, LinearMap], bias: Array, some: Tensor, names: Mapping[int, Tensor]
    ) -> Tensor:
        """Those of rows: one without bias, all of whose terms but one are 0, is that one's unit if the factor is 1.

        Args:
            blocks, bias: What makes them of units.
            some: ``[count, rows]``: 0 where rows are 0 all over the slice.
            names: ``[count, units]`` of each source.
        """
        found = self.new(len(bias)).clone()
        numbers = sum(block.numbers.size for block in blocks.values())
        if numbers * self._count <= _MOST_TERMS and all(isinstance(block, Terms) for block in blocks.values()):
            terms, name = torch.zeros_like(found), torch.zeros_like(found)
            for source, block in blocks.items():
                assert isinstance(block, Terms)
                of_terms = names[source][:, torch.from_numpy(block.place)]
                factor = torch.from_numpy(block.factor)
                taken = (factor != 0) & (of_terms != ZERO)
                terms += (taken & (factor == 1)).sum(dim=2) + 2 * (taken & (factor != 1)).sum(dim=2)
                name += (of_terms * taken).sum(dim=2)
            alone = (terms == 1) & torch.from_numpy(bias == 0)
            found[alone] = name[alone]
        found[some == 0] = ZERO
        return found

    def of_units(
        self, rows: Tensor, slope: Tensor, constant: Tensor, some: Tensor, born: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Those of units, of which some are not settled.

        Args:
            rows: ``[count, n]``: names of their rows.
            slope, constant: ``[count or 1, n]``: of the pieces that they are settled on.
            some: ``[count, n]``: 0 where they are 0 all over the slice.
            born: The slices and the numbers of those that are not settled.
        """
        own = self.new(rows.shape[1])
        found = torch.where((slope == 1) & (constant == 0), rows, own)
        found[born] = own[born]
        found[some == 0] = ZERO
        return found


def later_equals(units: Units, names: Tensor, off: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which candidates that are left are equal to one before them that is left in the same maximum.

    Args:
        units: Of the candidates.
        names: ``[B, candidates]``.
        off: ``[B, candidates]``: those that are not left.
    """
    owner, line = np.nonzero(~off)
    group, name = units.neuron_of_line[line], names.numpy()[owner, line]
    order = np.lexsort((name, group, owner))  # which leaves equal ones in their order
    keys: list[Int64s] = [each[order] for each in (owner, group, name)]
    again = np.zeros(len(order), dtype=bool)
    again[1:] = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    found = np.zeros_like(off)
    found[owner[order[again]], line[order[again]]] = True
    return found
