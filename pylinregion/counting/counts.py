"""The results of counting. Plain data: nothing here knows how it was made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from pylinregion._util.optional import optional

if TYPE_CHECKING:
    import pandas

# The 99.5 % quantile of the normal distribution: an interval of this many standard errors to both sides holds 99 %.
QUANTILE_99 = 2.5758293035489004


class Mean(NamedTuple):
    """A mean over points with its 99 % confidence interval (normal approximation, over points).

    Attributes:
        mean: NaN for no points.
        low, high: The interval; NaN for fewer than two points.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class RegionCounts:
    """What :func:`pylinregion.count_regions` found around ``B`` points.

    Attributes:
        changes: ``[B, L]`` int64: neurons of each layer that change their activation in the neighbourhood.
        regions: ``[B]`` int64: regions met: exact by the methods ``"axes"`` and ``"slice"``, by ``"vertices"`` the
            different activation patterns among the vertices.
        ambiguous: ``[B]`` int64: signs that rounding may have decided; an estimate. None if it was not asked for; 0 by
            the exact methods, which prove every sign.
        layers: The ``L`` layer names.
        definition: What is counted, in a sentence.
        method: The method.
        uncounted: The network's non-linear operators that are no neurons and not counted (softmax, sine, a product of
            two values ...), each with its module.
    """

    changes: Tensor
    regions: Tensor
    ambiguous: Tensor | None
    layers: tuple[str, ...]
    definition: str
    method: str
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> Tensor:
        """``[B]`` int64: neurons that change, all layers together. This is the papers' local complexity."""
        return self.changes.sum(dim=1)

    def mean(self, layer: str | None = None) -> Mean:
        """Local complexity averaged over the points, as the papers report it.

        Args:
            layer: One layer's, by name; None: all layers together.

        Raises:
            ValueError: There is no layer of that name.
        """
        if layer is None:
            values = self.total.double()
        elif layer in self.layers:
            values = self.changes[:, self.layers.index(layer)].double()
        else:
            raise ValueError(f"layer must be among {', '.join(map(repr, self.layers))}, got {layer!r}")
        count = len(values)
        if count == 0:
            return Mean(math.nan, math.nan, math.nan)
        mean = float(values.mean())
        if count == 1:
            return Mean(mean, math.nan, math.nan)
        reach = QUANTILE_99 * float(values.std()) / math.sqrt(count)
        return Mean(mean, mean - reach, mean + reach)

    def to_frame(self) -> pandas.DataFrame:
        """One row a point: a column a layer, ``total``, ``regions`` and, if estimated, ``ambiguous``.

        Raises:
            ModuleNotFoundError: pandas is not installed (``pip install "pylinregion[pandas]"``).
            ValueError: A layer has the name of one of these columns.
        """
        pd = optional("pandas", "to_frame()", "pandas")
        columns = {"total": self.total, "regions": self.regions}
        if self.ambiguous is not None:
            columns["ambiguous"] = self.ambiguous
        if taken := columns.keys() & set(self.layers):
            raise ValueError(
                f"to_frame() needs layers of other names than its columns {', '.join(map(repr, columns))}, got "
                f"{sorted(taken)[0]!r}: take changes, whose columns are those of layers"
            )
        every = {**dict(zip(self.layers, self.changes.T, strict=True)), **columns}
        frame: pandas.DataFrame = pd.DataFrame({name: values.cpu().numpy() for name, values in every.items()})
        return frame.rename_axis("point")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and strings, for JSON."""
        return {
            "method": self.method,
            "definition": self.definition,
            "layers": list(self.layers),
            "uncounted": list(self.uncounted),
            "changes": self.changes.tolist(),
            "total": self.total.tolist(),
            "regions": self.regions.tolist(),
            "ambiguous": None if self.ambiguous is None else self.ambiguous.tolist(),
            "mean": self.mean()._asdict(),
        }

    def __repr__(self) -> str:
        mean, low, high = self.mean()
        points = len(self.changes)
        lines = [
            f"RegionCounts of {points} point{'s' * (points != 1)}, method {self.method!r}",
            f"  local complexity {mean:.4g}, 99 % interval [{low:.4g}, {high:.4g}]",
            *(f"    {name}: {self.mean(name).mean:.4g}" for name in self.layers),
        ]
        if points:
            lines.append(f"  regions met: {float(self.regions.double().mean()):.4g} on average")
        if self.ambiguous is not None:
            how = "estimate" if self.method == "vertices" else "proven"
            lines.append(f"  signs that rounding may have decided: {int(self.ambiguous.sum())} ({how})")
        return "\n".join([*lines, f"  {self.definition}"])
