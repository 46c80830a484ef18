"""Pictures of partitions, with matplotlib. Knows results only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pylinregion._util.optional import optional
from pylinregion.geometry.mesh import Mesh
from pylinregion.regions.affine_regions import AffineRegions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Paul Tol's "light" scheme and one more: told apart by all eyes, and so light that lines on them are seen.
CLASS_COLORS = (
    "#77AADD",
    "#EE8866",
    "#EEDD88",
    "#FFAABB",
    "#99DDFF",
    "#44BB99",
    "#BBCC33",
    "#AAAA00",
    "#DDDDDD",
    "#BB99CC",
)
BOUNDARY_COLOR = "#CC3311"
_LINE = (0.0, 0.0, 0.0, 0.6)
_MANY = 5000  # cells; more are drawn as pixels in vector formats


def check_format(path: Path) -> None:
    """Say before the work, not after, that a figure cannot be drawn, or not in the format of a file's name.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: It does not write this format.
    """
    optional("matplotlib", "plot()", "plot")
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise ValueError(f"{path} must end in the format of a figure, one of {', '.join(sorted(known))}")


def plot(part: AffineRegions, ax: Axes | None, color: Any, boundary: bool, points: Any) -> Axes:
    """See :meth:`pylinregion.Partition.plot`."""
    optional("matplotlib", "plot()", "plot")
    from matplotlib.axes import Axes

    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=(6.4, 5.6), layout="constrained")[1]
    elif not isinstance(ax, Axes):
        raise TypeError(f"ax must be matplotlib axes, got {type(ax).__name__}")
    if isinstance(color, str) and color == "class":
        _classes(part, ax)
    else:
        _values(part, ax, color)
    if boundary and part.whole:
        _boundary(part, ax)
    if points is not None:
        st = part.slice.coordinates(points).st.reshape(-1, 2)
        ax.scatter(st[:, 0], st[:, 1], s=170, marker="*", c="white", edgecolors="black", linewidths=1.0, zorder=5)
    _frame(part, ax)
    return ax


def _values(part: AffineRegions, ax: Axes, color: Any) -> None:
    """The cells coloured by a number each."""
    from matplotlib.colors import LogNorm

    cells = _polygons(part.mesh)
    cells.set_edgecolor(_LINE)
    if color is None:
        cells.set_facecolor("none")
        ax.add_collection(cells)
        return
    label: str | None = None
    if isinstance(color, str):
        if color not in ("slope", "area"):
            raise ValueError(f"color must be 'slope', 'area', 'class', an array or None, got {color!r}")
        values = part.slope_norms("input") if color == "slope" else part.areas()
        label = {"slope": "norm of the slope", "area": "area"}[color]
    else:
        values = np.asarray(color)
        if values.shape != (part.n_regions,) or values.dtype.kind not in "fiub":
            raise ValueError(
                f"color must have one number for each of the {part.n_regions} regions, got shape {list(values.shape)} "
                f"of {values.dtype}"
            )
    cells.set_array(values)
    cells.set_cmap("viridis")
    if isinstance(color, str) and color == "area" and values.min() > 0:
        cells.set_norm(LogNorm(*np.quantile(values, [0.01, 1])))
    elif isinstance(color, str):
        cells.set_clim(*np.quantile(values, [0.005, 0.995]))
    ax.add_collection(cells)
    ax.figure.colorbar(cells, ax=ax, fraction=0.19, pad=0.03, aspect=25, label=label or "")


def _classes(part: AffineRegions, ax: Axes) -> None:
    """The cells coloured by the class, cut where it changes."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Patch

    decision = part.decision()
    cells = _polygons(decision.mesh)
    colors = [CLASS_COLORS[k % len(CLASS_COLORS)] for k in decision.winner.tolist()]
    cells.set_facecolor(colors)
    cells.set_edgecolor(colors)  # no gaps between the parts of a region
    ax.add_collection(cells)
    edges = list(part.vertices[part.edges])
    ax.add_collection(LineCollection(edges, colors=[_LINE], linewidths=_width(part.mesh), rasterized=_many(part.mesh)))
    present = np.unique(decision.winner).tolist()
    if len(present) <= 2 * len(CLASS_COLORS):
        patches = [Patch(color=CLASS_COLORS[k % len(CLASS_COLORS)], label=str(k)) for k in present]
        ax.legend(handles=patches, title="class", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _polygons(mesh: Mesh) -> Any:
    from matplotlib.collections import PolyCollection

    corners = mesh.vertices[mesh.indices]
    cells = [corners[begin:end] for begin, end in zip(mesh.offsets[:-1], mesh.offsets[1:], strict=True)]
    return PolyCollection(cells, linewidths=_width(mesh), rasterized=_many(mesh), joinstyle="round")


def _width(mesh: Mesh) -> float:
    """Of the lines between cells: thinner, the more there are."""
    return float(np.clip(12 / np.sqrt(mesh.cells), 0.04, 0.6))


def _many(mesh: Mesh) -> bool:
    return mesh.cells > _MANY


def _boundary(part: AffineRegions, ax: Axes) -> None:
    from matplotlib.collections import LineCollection

    lines = list(part.decision_boundary().segments)
    for color, width, order in (("white", 3.4, 3), (BOUNDARY_COLOR, 1.7, 4)):
        ax.add_collection(LineCollection(lines, colors=color, linewidths=width, capstyle="round", zorder=order))


def _frame(part: AffineRegions, ax: Axes) -> None:
    corners = part.slice.polygon
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = 0.02 * (high - low)
    ax.set_xlim(low[0] - room[0], high[0] + room[0])
    ax.set_ylim(low[1] - room[1], high[1] + room[1])
    (length, _), (_, height) = part.slice.isometry  # of u, and of v across it
    ax.set_aspect(float(height / length))
    ax.set_xlabel("s")
    ax.set_ylabel("t")
    ax.spines[["top", "right"]].set_visible(False)
