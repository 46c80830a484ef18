"""What the operators of the table are, as layers of the exact reference. Nothing is tested here."""

from unittest import mock

import numpy as np
import torch

from cases.layered import affine, array
from cases.operator_calls import CALLS, COVERED, I8, W, stats
from pylinregion.graph.operators import TABLE, Kind
from pylinregion.reference import layers
from pylinregion.reference.rational import Pieces

BATCH_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm")
AFFINE = [name for name in COVERED if TABLE[name].kind is Kind.AFFINE and TABLE[name].combine != "logic"]


def affine_layers(net, source, name):
    """An operator that is affine in its operands; these are the eight values, and perhaps some of them rectified."""
    if name in BATCH_NORMS:
        weight, bias, mean, variance = stats(None)
        shift = torch.nn.functional.batch_norm(torch.zeros(1, 8).double(), mean, variance, weight, bias)[0]
        return [net.add(layers.Scale(array(weight) * (1 / np.sqrt(array(variance) + 1e-5)), array(shift)), source)]
    rectified = []  # the operands of its ReLUs, as torch makes them

    def outputs(z, given=None):
        """The outputs; its ReLUs give what is given, or else are noted."""
        left = iter(given or ())

        def relu(operand):
            rectified.append(operand)
            return next(left) if given else operand

        rectified.clear()
        with mock.patch.object(torch.Tensor, "relu", relu):
            found = CALLS[name](z)
        return [each.double() for each in (found if isinstance(found, (list, tuple)) else [found])]

    many = len(outputs(torch.zeros(1, 8).double()))
    sources = [source]
    for k in range(len(rectified)):

        def operand(z, k=k):
            outputs(z)
            return rectified[k]

        sources.append(net.add(layers.Kink(Pieces.relu()), affine(net, operand, source)))
    return [affine(net, lambda z, *given, k=k: outputs(z, given)[k], *sources) for k in range(many)]


def each_clamped(low, high):
    """Clamps to bounds of their own. In the wrong order they make it the upper one, and are the neuron's yet."""
    found = []
    for least, most in zip(low, high, strict=True):
        if least < most:
            found.append(Pieces.clamp(least, most))
        else:
            breaks = sorted({least, most})
            found.append(Pieces(tuple(breaks), (0,) * (len(breaks) + 1), (most,) * (len(breaks) + 1)))
    return found


def kinked(*pieces):
    """Activations of the same eight values, one layer behind the other; the first is what comes out."""

    def add(net, source):
        made = [net.add(layers.Kink(each), source) for each in pieces]
        return made[0]

    return add


def per_channel(pieces):
    return lambda net, source: net.add(layers.Kink([each for each in pieces for _ in range(8 // len(pieces))]), source)


def largest(windows, sign=1):
    """The largest, or smallest, of windows over the eight values and, behind them, the constants ``W``."""

    def add(net, source):
        constants = net.add(layers.Matrix(np.zeros((8, 8)), sign * array(W[:8]), (8,)), source)
        signed = net.add(layers.Scale(sign), source)
        made = net.add(
            layers.Largest([list(map(int, window)) for window in windows], (len(windows),)), signed, constants
        )
        return net.add(layers.Scale(sign), made)

    return add


def negated(slopes):
    """What bends at 0, of ``-z``: the lower piece of ``z >= 0`` and of ``z < 0`` is where it is false, 0 included."""
    pieces = Pieces((0,), slopes, (0, 0))
    return lambda net, source: net.add(layers.Kink(pieces), net.add(layers.Scale(-1), source))


def pooled(shape, *size):
    return largest([window.places for window in layers.windows(shape, *size)[0]])


def adaptive(shape, out):
    return largest([window.places for window in layers.adaptive_windows(shape, out)[0]])


def scattered(own, sign=1):
    """Of the first four values each, and what is scattered to it."""
    windows = [[k] * own + [place for place, to in enumerate(I8.tolist()) if to == k] for k in range(4)]
    return largest([window or [k] for k, window in enumerate(windows)], sign)


def straight(at):
    """A neuron that is counted at a number, though its function does not bend there."""
    return Pieces((at,), (1, 1), (0, 0))


w = W.tolist()
RELU, ABS, MINIMUM = Pieces.relu(), Pieces.abs(), Pieces((0,), (1, 0), (0, 0))
SHARES = kinked([MINIMUM if bound > 0 else RELU for bound in w[:8]])
LEAKY = [Pieces.leaky_relu(slope) for slope in w[:2]]
ROWS = np.arange(8).reshape(2, 4)
PAIRS = [(k + 4, k) for k in range(4)]
OR_CONSTANTS = [(k + 8, k) for k in range(8)]
AND_CONSTANTS = [(k, k + 8) for k in range(8)]
SEEN = {"1": ((2, 4), 2), "2": ((2, 2, 2), (2, 1), (1, 1)), "3": ((1, 2, 2, 2), (2, 1, 1), (1, 1, 1))}

# What each kink of the table is: a function that appends it to a network's eight values.
KINKS = {
    "relu": kinked(RELU),
    "leaky_relu": kinked(Pieces.leaky_relu(0.1)),
    "rrelu": kinked(Pieces.leaky_relu((0.1 + 0.3) / 2)),
    "prelu": per_channel(LEAKY),
    "_prelu_kernel": per_channel(LEAKY),
    "relu6": kinked(Pieces.clamp(0, 6)),
    "hardtanh": kinked(Pieces.clamp(-0.5, 1.5)),
    "clamp": kinked(each_clamped(w[:8], w[8:16])),
    "clip": kinked(Pieces.clamp(-0.5, 0.5)),
    "clamp_min": largest(PAIRS),
    "clamp_max": kinked([Pieces((bound,), (1, 0), (0, bound)) for bound in w[:8]]),
    "abs": kinked(ABS),
    "absolute": kinked(ABS),
    "threshold": kinked(Pieces((0.5,), (0, 1), (0.5, 0))),
    "hardsigmoid": kinked(Pieces.hardsigmoid()),
    "softshrink": kinked(Pieces((-0.25, 0.25), (1, 0, 1), (0.25, 0, -0.25))),
    "maximum": largest(PAIRS),
    "minimum": largest(AND_CONSTANTS, -1),
    "max.other": largest(OR_CONSTANTS),
    "min.other": largest(AND_CONSTANTS, -1),
    "fmax": largest(OR_CONSTANTS),
    "fmin": largest(AND_CONSTANTS, -1),
    **{f"max_pool{d}d{both}": pooled(*seen) for d, seen in SEEN.items() for both in ("", "_with_indices")},
    "adaptive_max_pool1d": adaptive((2, 4), 3),
    "adaptive_max_pool2d": adaptive((2, 2, 2), (1, 2)),
    "adaptive_max_pool3d": adaptive((1, 2, 2, 2), (1, 2, 2)),
    "amax": largest(ROWS),
    "amin": largest(ROWS, -1),
    "max.dim": largest(ROWS),
    "min.dim": largest(ROWS, -1),
    "scatter_reduce:amax": scattered(own=0),
    "scatter_reduce:amin": scattered(own=1, sign=-1),
    "index_reduce:amax": scattered(own=1),
    "index_reduce:amin": scattered(own=0, sign=-1),
    "sign": kinked(ABS),
    "sgn": kinked(ABS),
    **dict.fromkeys(("gt", "greater"), kinked(RELU)),
    **dict.fromkeys(("ge", "greater_equal"), negated((-1, 0))),
    **dict.fromkeys(("lt", "less"), negated((0, -1))),
    **dict.fromkeys(("le", "less_equal"), kinked(MINIMUM)),
    # logic
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), kinked(RELU, straight(-1))),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), kinked(RELU, RELU)),
    **dict.fromkeys(("logical_not", "bitwise_not"), kinked(MINIMUM)),
    **dict.fromkeys(("logical_xor", "bitwise_xor"), SHARES),
}
