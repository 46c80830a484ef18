"""Partitions and traces beside the module itself: are the patterns of cells and the changes what the module does?

Nothing of the package's capture is used: the module runs in float64, and what its kinks are given there is read off.
Left out are points at which a neuron is **doubtful**: its distance to a breakpoint, or between the two largest of a
maximum, is above 0 and at most 1e-11 of the largest number in its layer there. Exact zeros are no doubt: a neuron that
is 0 on a whole region is off there, and of candidates that are equal on it the first wins.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from cases.witness import breakpoints

ROUNDING = 1e-11


class Disagreement(AssertionError):
    """No cell holds a sampled point, or one that has another pattern."""


@dataclass(frozen=True)
class Sampled:
    """What was compared.

    Attributes:
        points: How many were drawn.
        doubtful: How many of them were left out.
        cells: How many cells held the others.
    """

    points: int
    doubtful: int
    cells: int


class Pieces(TorchDispatchMode):
    """Keeps of every kink that runs ``[points, neurons]`` pieces, and ``[points]`` whether one of them is doubtful."""

    def __init__(self):
        super().__init__()
        self.layers, self.doubtful = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function._schema.name.split("::")[1], kwargs or {}
        if bends := breakpoints(name, args, kwargs):
            self._scalar(args[0], bends)
        elif name in ("maximum", "minimum"):
            self._scalar(args[0] - args[1], [0.0])  # the piece is 1 where the first is above the second
        elif candidates := CANDIDATES.get(name):
            self._maximum(*candidates(*args, **kwargs))
        return function(*args, **kwargs)

    def _scalar(self, z, bends):
        far = torch.stack([(z - bend).abs() for bend in bends]).amin(dim=0)
        self._keep(sum((z > bend).byte() for bend in bends), far, z)

    def _maximum(self, values, place):
        """Of values ``[points, ..., candidates]``, and their numbers in the window, of the same shape but for ones."""
        best = values.argmax(dim=-1, keepdim=True)  # the first of the largest
        first, second = values.topk(2, dim=-1).values.unbind(-1)
        self._keep(place.expand_as(values).gather(-1, best), first - second, first)

    def _keep(self, pieces, far, z):
        limit = ROUNDING * z.reshape(len(z), -1).abs().amax(dim=1, keepdim=True)
        far = far.reshape(len(z), -1)
        self.layers.append(pieces.reshape(len(z), -1))
        self.doubtful.append(((far > 0) & (far <= limit)).any(dim=1))


def _windows(x, kernel, stride=(), padding=(0, 0), dilation=(1, 1), ceil_mode=False):
    """A max-pool's windows ``[points, channels, windows, size]``, infinitely low outside, which has no numbers."""
    sides = []
    for side, size, step, pad, gap in zip(x.shape[2:], kernel, stride or kernel, padding, dilation, strict=True):
        span = gap * (size - 1) + 1
        windows, rest = divmod(side + 2 * pad - span, step)
        # Where it rounds up, the last window is left out if it would begin behind the image.
        windows += 1 + (ceil_mode and rest > 0 and (windows + 1) * step < side + pad)
        sides = [pad, (windows - 1) * step + span - side - pad, *sides]  # the last side first; below 0, it is cut
    padded = functional.pad(x, sides, value=-np.inf).flatten(0, 1)[:, None]
    values = functional.unfold(padded, kernel, dilation, stride=stride or kernel)
    values = values.unflatten(0, x.shape[:2]).transpose(2, 3)
    return values, (values[:1, :1] > -np.inf).cumsum(dim=-1) - 1


def _along(x, dim, keepdim=False):
    """The entries along these dimensions, ``[points, ..., size]``."""
    dims = dim if isinstance(dim, (list, tuple)) else [dim]
    values = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    return values, torch.arange(values.shape[-1])


CANDIDATES = {"max_pool2d_with_indices": _windows, "amax": _along, "max": _along}


def sample(part, points, seed):
    """``[points, 2]``: uniform on the slice, by triangles."""
    draws = np.random.default_rng(seed)
    corner, *others = part.slice.polygon
    one, other = np.array(others[:-1]) - corner, np.array(others[1:]) - corner
    area = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])
    triangle = draws.choice(len(area), points, p=area / area.sum())
    a, b = draws.random((2, points))
    outside = a + b > 1
    a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
    return corner + a[:, None] * one[triangle] + b[:, None] * other[triangle]


def pieces_of(model, x):
    """``[points, neurons]`` of each layer that runs, and ``[points]`` whether none of them is doubtful."""
    with torch.no_grad(), Pieces() as seen:
        model(x)
    return [layer.numpy() for layer in seen.layers], ~torch.stack(seen.doubtful).any(dim=0).numpy()


def check_samples(part, model, points, seed=0, at_a_time=500):
    """Compare the patterns of points drawn uniformly on the slice with those of the cells that hold them.

    Args:
        part: A partition with cells, of the whole model.
        model: The module; a copy in float64 and in eval mode is run.
        points: How many.
        seed: Of the points.
        at_a_time: So many run as a batch.

    Returns:
        What was compared.

    Raises:
        Disagreement: They are not the same; the message names point, cell, layer and neuron.
    """
    st = sample(part, points, seed)
    regions = part.locate(st)
    if (regions < 0).any():
        raise Disagreement(f"no cell holds the point {st[regions.argmin()].tolist()}")
    order = np.argsort(regions, kind="stable")  # so that few patterns are unpacked at a time
    st, regions = st[order], regions[order]
    model = copy.deepcopy(model).double().eval()
    sure = np.zeros(points, dtype=bool)
    for begin in range(0, points, at_a_time):
        some = slice(begin, begin + at_a_time)
        layers, sure[some] = pieces_of(model, part.slice.points(st[some]))
        region = -1
        for place in np.flatnonzero(sure[some]):
            if regions[begin + place] != region:
                region = int(regions[begin + place])
                pattern = part.pattern(region)
            _compare([layer[place] for layer in layers], pattern, f"at {st[begin + place].tolist()} in cell {region}")
    return Sampled(points, int((~sure).sum()), len(np.unique(regions[sure])))


def _compare(found, pattern, where):
    sizes = [len(layer) for layer in found], [len(layer) for layer in pattern.values()]
    if sizes[0] != sizes[1]:
        raise Disagreement(f"the module has layers of {sizes[0]} neurons, the partition of {sizes[1]}")
    for layer, (name, pieces) in zip(found, pattern.items(), strict=True):
        differ = np.flatnonzero(layer != pieces)
        if len(differ):
            neuron = int(differ[0])
            raise Disagreement(
                f"{where}, neuron {neuron} of layer {name} is on piece {layer[neuron]}, not {pieces[neuron]} "
                f"({len(differ)} neurons of the layer differ)"
            )


def check_trace(line, model, start, end):
    """Compare which neurons change at the breakpoints of segments with the module between them.

    Args:
        line: The trace.
        model: The module; a copy in float64 and in eval mode is run.
        start, end: ``[B, *input_shape]``.

    Returns:
        How many breakpoints were compared: those with no doubtful middle of a region on either side.

    Raises:
        Disagreement: Others change; the message names segment and breakpoint.
    """
    model, compared = copy.deepcopy(model).double().eval(), 0
    for segment, (first, last) in enumerate(zip(start.double(), end.double(), strict=True)):
        own = slice(line.offsets[segment], line.offsets[segment + 1])
        ends = np.concatenate([[0], line.t[own], [1]])
        t = torch.tensor((ends[1:] + ends[:-1]) / 2).reshape(-1, *[1] * first.dim())
        layers, sure = pieces_of(model, (1 - t) * first + t * last)
        pieces = np.concatenate(layers, axis=1)
        changes = pieces[1:] != pieces[:-1]
        for place in np.flatnonzero(sure[1:] & sure[:-1]):
            low, high = line.neuron_offsets[own.start + place :][:2]
            told = line.neurons[low:high]
            found = np.flatnonzero(changes[place])
            if not np.array_equal(np.sort(told), found):
                raise Disagreement(
                    f"at breakpoint {place} of segment {segment}, t = {ends[place + 1]}, neurons {found.tolist()} "
                    f"change, not {told.tolist()}"
                )
            compared += 1
    return compared
