"""The figures, drawn from the records alone: one of a run, and one of a sweep.

As in paper A: accuracies above, local complexity with its 99 % band below, over steps on a common logarithmic axis.
There are more panels where a run has measured more. Step 0 has no place on that axis and is left out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pylinregion._util.optional import optional
from pylinregion.monitor.sinks import Record

_COLOURS = {"train": "#2ca02c", "test": "#d95f02", "random": "#1f77b4"}
_STYLE: Any = {  # Any: matplotlib types the keys one by one
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
Panel = Callable[[Any, Sequence[Record]], None]


def draw_run(records: Sequence[Record], title: str) -> bytes:
    """The figure of a run.

    Args:
        records: In the order of their steps; at least one past step 0.
        title: Above it.

    Returns:
        A PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: There is no record past step 0.
    """
    shown = [record for record in records if record["step"] > 0]
    if not shown:
        raise ValueError("records must have one past step 0, got none")
    panels = [draw for present, draw in _PANELS if any(key.startswith(present) for key in shown[-1])]
    return _figure(len(panels), title, lambda axes: [draw(a, shown) for draw, a in zip(panels, axes, strict=True)])


def draw_sweep(runs: Mapping[str, Sequence[Record]], key: str, title: str) -> bytes:
    """Test accuracy above, and local complexity at training points below, a curve for each run.

    Args:
        runs: The records, by the value that was swept.
        key: What was swept.
        title: Above it.

    Returns:
        A PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    curves = {value: [record for record in records if record["step"] > 0] for value, records in runs.items()}
    optional("matplotlib", "drawing figures", "demo")
    import matplotlib as mpl

    colours = [mpl.colormaps["viridis"](0.9 * place / max(1, len(curves) - 1)) for place in range(len(curves))]

    def draw(axes: Sequence[Any]) -> None:
        for (value, records), colour in zip(curves.items(), colours, strict=True):
            steps = [record["step"] for record in records]
            axes[0].plot(steps, _percent(records, "test/accuracy"), color=colour, label=value)
            axes[0].plot(steps, _percent(records, "train/accuracy"), color=colour, ls=":", lw=1.2)
            if "train/lc" in records[-1]:
                _band(axes[1], records, "train/lc", colour, value)
        axes[0].set_ylabel("Accuracy (%): test, train dotted")
        axes[0].set_ylim(0, 103)
        axes[0].legend(title=key, alignment="left")
        axes[1].set_ylabel("Local complexity, train points")
        _from_zero(axes[1])

    return _figure(2, title, draw)


def _figure(panels: int, title: str, draw: Callable[[Sequence[Any]], object]) -> bytes:
    optional("matplotlib", "drawing figures", "demo")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 if panels <= 3 else 2
    rows = -(-panels // columns)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(7.0 if columns == 1 else 12.0, 0.7 + 2.75 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        places = list(grid.T.flat)  # down the first column: accuracies stay above local complexity
        places[0].set_xscale("log")
        draw(places[:panels])
        for empty in places[panels:]:
            empty.remove()
        for column in range(columns):
            below = [place for place in grid[:, column] if place.figure is not None]
            below[-1].set_xlabel("Optimization steps")
            below[-1].tick_params(labelbottom=True)
        figure.suptitle(title, fontsize=11)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _percent(records: Sequence[Record], key: str) -> list[float]:
    return [100 * record[key] for record in records]


def _steps(records: Sequence[Record]) -> list[float]:
    return [record["step"] for record in records]


def _from_zero(axes: Any) -> None:
    """A vertical axis from 0, with some air above the curves."""
    top = float(axes.dataLim.y1)
    axes.set_ylim(0, 1.06 * top if top > 0 else 1)


def _legend_above(axes: Any) -> None:
    """In rows over the panel: inside, it would lie on curves."""
    entries = len(axes.get_lines())
    columns = entries if entries <= 5 else 4
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def _band(axes: Any, records: Sequence[Record], key: str, colour: Any, label: str) -> None:
    steps = _steps(records)
    axes.plot(steps, [record[key] for record in records], color=colour, label=label)
    low, high = ([record[f"{key}/{end}"] for record in records] for end in ("low", "high"))
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)


def _accuracies(axes: Any, records: Sequence[Record]) -> None:
    steps = _steps(records)
    axes.plot(steps, _percent(records, "train/accuracy"), color=_COLOURS["train"], label="train")
    axes.plot(steps, _percent(records, "test/accuracy"), color=_COLOURS["test"], label="test")
    robust = [key for key in records[-1] if key.startswith("test/robust/") and not key.endswith("zero_gradients")]
    if robust:
        import matplotlib as mpl

        for place, key in enumerate(robust):
            colour = mpl.colormaps["Oranges"](0.62 - 0.37 * place / max(1, len(robust) - 1))
            axes.plot(steps, _percent(records, key), color=colour, lw=1.3, label=f"adv. {key.rpartition('/')[2]}")
    axes.set_ylabel("Accuracy (%)")
    axes.set_ylim(0, 103)
    _legend_above(axes)


def _complexity(axes: Any, records: Sequence[Record]) -> None:
    for name, colour in _COLOURS.items():
        if f"{name}/lc" in records[-1]:
            _band(axes, records, f"{name}/lc", colour, f"{name} points")
    axes.set_ylabel("Local complexity\n(mean and 99 % band)")
    _from_zero(axes)
    _legend_above(axes)


def _slices(axes: Any, records: Sequence[Record]) -> None:
    axes.plot(_steps(records), [record["train/slice/regions"] for record in records], color=_COLOURS["train"])
    axes.set_ylabel("Exact regions of a slice\naround training points")
    _from_zero(axes)


def _norm(axes: Any, records: Sequence[Record]) -> None:
    axes.plot(_steps(records), [record["weight_norm"] for record in records], color="0.25", label="all layers")
    if "last_layer_norm" in records[-1]:
        last = [record["last_layer_norm"] for record in records]
        axes.plot(_steps(records), last, color="0.25", ls="--", lw=1.3, label="last layer")
        _legend_above(axes)
    axes.set_ylabel("Weight norm")
    _from_zero(axes)


def _feature_ranks(axes: Any, records: Sequence[Record]) -> None:
    _by_layer(axes, records, "test/rank/layer/", 1)
    axes.set_ylabel("Feature rank, test points")
    _from_zero(axes)


def _linear_probes(axes: Any, records: Sequence[Record]) -> None:
    """Linear probes, which are in some of the records."""
    _by_layer(axes, [record for record in records if records[-1].keys() <= record.keys()], "test/probe/layer/", 100)
    axes.set_ylabel("Linear probes,\ntest accuracy (%)")
    axes.set_ylim(0, 103)


def _by_layer(axes: Any, records: Sequence[Record], quantity: str, factor: float) -> None:
    """A curve for each layer, from the first, dark, to the last, light."""
    import matplotlib as mpl

    keys = [key for key in records[-1] if key.startswith(quantity)]
    for place, key in enumerate(keys):
        colour = mpl.colormaps["viridis"](0.9 * place / max(1, len(keys) - 1))
        values = [factor * record[key] for record in records]
        axes.plot(_steps(records), values, color=colour, lw=1.4, label=str(place + 1))
    axes.legend(title="layer", loc="center left", bbox_to_anchor=(1, 0.5), alignment="left")


def _abelian(axes: Any, records: Sequence[Record]) -> None:
    steps = _steps(records)
    axes.plot(steps, _percent(records, "train/commutativity"), color="#7b3294", label="equal answers (%)")
    axes.set_ylabel("Abelian test (%)")
    axes.set_ylim(0, 103)
    other = axes.twinx()
    other.plot(
        steps,
        [record["train/logit_commutativity"] for record in records],
        color="0.45",
        ls="--",
        lw=1.3,
        label="distance of logits (right)",
    )
    other.set_ylabel("Mean squared distance")
    _from_zero(other)
    other.grid(visible=False)
    other.spines["right"].set_visible(True)
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(handles=lines, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def _entropies(axes: Any, records: Sequence[Record]) -> None:
    for key, label, colour, style in (
        ("pmi", "PMI", "#1b6ca8", "-"),
        ("pe", "PE", "#c2185b", "-"),
        ("mid", "MID", "#1b6ca8", ":"),
        ("ed", "ED", "#c2185b", ":"),
    ):
        values = [record[f"train/entropies/{key}"] for record in records]
        axes.plot(_steps(records), values, color=colour, ls=style, label=label)
    axes.set_ylabel("Information (nats), train points")
    _legend_above(axes)


def _perturbation(axes: Any, records: Sequence[Record]) -> None:
    axes.plot(_steps(records), [record["train/perturbation_error"] for record in records], color="0.25")
    axes.set_ylabel("Perturbation error, train points")
    axes.set_yscale("log")


_PANELS: tuple[tuple[tuple[str, ...], Panel], ...] = (
    (("train/accuracy",), _accuracies),
    (("train/lc",), _complexity),
    (("train/slice/regions",), _slices),
    (("test/rank/tunnel",), _feature_ranks),
    (("test/probe/layer/",), _linear_probes),
    (("train/commutativity",), _abelian),
    (("train/entropies/pmi",), _entropies),
    (("train/perturbation_error",), _perturbation),
    (("weight_norm",), _norm),
)
