"""What ``count_regions`` is asked for: all its arguments, checked before anything is counted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pylinregion._util import checks
from pylinregion.capturing.capture import capture
from pylinregion.capturing.guards import unseen
from pylinregion.geometry.frames import check_frame, random_frame
from pylinregion.graph.network import OUTPUT, Network

EXACT_METHODS = ("axes", "slice")
METHODS = ("vertices", *EXACT_METHODS)


@dataclass(frozen=True)
class CountOptions:
    """Arguments of :func:`pylinregion.count_regions` that say how to count, as they are given."""

    include_output: bool
    estimate_ambiguous: bool
    dtype: torch.dtype | None
    batch_size: int | None
    memory_budget: int | None
    progress: bool
    displacement: bool | None

    def check(self, method: str) -> None:
        """Refuse switches that are none, and what has no meaning for a method.

        Raises:
            ValueError, TypeError: See :func:`pylinregion.count_regions`.
        """
        checks.switches(
            include_output=self.include_output, estimate_ambiguous=self.estimate_ambiguous, progress=self.progress
        )
        checks.optional_switch("displacement", self.displacement)
        if method not in EXACT_METHODS:
            return
        reasons = {
            "include_output": (self.include_output, "it counts where neurons bend, and the output does not"),
            "estimate_ambiguous": (
                self.estimate_ambiguous,
                "all its signs are proven, and its counts say 0 are ambiguous",
            ),
            "dtype": (
                self.dtype is not None,
                "it counts the real function of the parameters, whatever their dtype",
            ),
            "batch_size": (self.batch_size is not None, "it has no batches"),
            "displacement": (self.displacement is not None, "it has no vertices"),
        }
        for name, (given, why) in reasons.items():
            if given:
                raise ValueError(f"{name} must not be given for method {method!r}: {why}")

    def check_sizes(self) -> None:
        """Refuse sizes that are none.

        Raises:
            ValueError, TypeError: See :func:`pylinregion.count_regions`.
        """
        for name, number in (("batch_size", self.batch_size), ("memory_budget", self.memory_budget)):
            if number is not None:
                checks.positive_integer(name, number)


@dataclass(frozen=True)
class CountRequest:
    """A count whose arguments are right.

    Attributes:
        network: Of the model.
        method: How it is counted.
        x: ``[B, *input_shape]``, in the dtype to compute in.
        radii: ``[B]`` float64.
        frame: ``[P, *input_shape]``, or ``[B, P, *input_shape]`` if points have their own.
        own_frames: Whether they have.
        counted: The numbers of the layers to report.
        options: The rest.
    """

    network: Network
    method: str
    x: Tensor
    radii: Tensor
    frame: Tensor
    own_frames: bool
    counted: tuple[int, ...]
    options: CountOptions

    @property
    def pairs(self) -> int:
        """``P``."""
        return self.frame.shape[1 if self.own_frames else 0]

    @property
    def vertices(self) -> int:
        """Of a point's neighbourhood: ``2 P``."""
        return 2 * self.pairs

    @functools.cached_property
    def layer_names(self) -> tuple[str, ...]:
        """Of the layers to report, and of the output if it is one."""
        names = self.network.layer_names
        return (*(names[number] for number in self.counted), *[OUTPUT] * self.options.include_output)

    @functools.cached_property
    def unseen(self) -> dict[int, str]:
        """Values that the model looks at for NaN and infinity, and no counted layer does, with where it does."""
        return unseen(self.network, self.counted, self.options.include_output)

    def part(self, rows: slice) -> CountRequest:
        """The same of some of the points."""
        frame = self.frame[rows] if self.own_frames else self.frame
        return replace(self, x=self.x[rows], radii=self.radii[rows], frame=frame)


def checked_request(
    model: nn.Module | torch.export.ExportedProgram | Network,
    x: Tensor,
    radius: float | Tensor,
    method: str,
    *,
    n_directions: int | None,
    frame: Tensor | None,
    seed: int,
    layers: Sequence[str] | None,
    options: CountOptions,
) -> CountRequest:
    """The request that the arguments of :func:`pylinregion.count_regions` make.

    Raises:
        ValueError, TypeError, UnsupportedModelError: They are not as they must be.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    options.check(method)
    example = checks.points("x", x, model, options.dtype)
    if 0 in x.shape[1:]:
        raise ValueError(f"x must have points of at least one number, got {list(x.shape)}")
    x = x.detach()
    radii = checks.radii(radius, len(x), x.device)
    options.check_sizes()
    network = capture(model, example)
    network.check_takes("x", x, "B", any_dtype=options.dtype is not None, hint="; or pass dtype=")
    counted = checks.chosen_layers(layers, network.layer_names)
    if options.include_output and len(network.outputs) != 1:
        raise ValueError(
            f"include_output needs a model with one output tensor, this one has {len(network.outputs)}: plr.select "
            "takes one"
        )
    directions, own_frames = _directions(frame, network, len(x), method, n_directions, seed)
    network = network.at_one_time()
    x = x.to(options.dtype or x.dtype)
    return CountRequest(network, method, x, radii, directions.to(x.device), own_frames, counted, options)


def _directions(
    frame: Tensor | None, network: Network, points: int, method: str, n_directions: int | None, seed: int
) -> tuple[Tensor, bool]:
    """The frame, and whether each point has its own."""
    if frame is None:
        if method == "slice":
            if n_directions not in (None, 2):
                raise ValueError(f"n_directions must be 2 for method 'slice', got {n_directions}")
            n_directions = 2
        return random_frame(network.input_shape, n_directions, seed=seed), False
    own = check_frame(frame, network.input_shape, points)
    if method == "slice" and frame.shape[1 if own else 0] != 2:
        raise ValueError(f"frame must have 2 directions for method 'slice', got {frame.shape[1 if own else 0]}")
    return frame.detach(), own
