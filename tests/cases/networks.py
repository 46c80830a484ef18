"""Random networks and slices of many kinds, most of them degenerate on purpose, and strategies for small ones.

Nothing is tested here. Everything is a float64 array whose entries are meant exactly as they are.
"""

import numpy as np
from hypothesis import strategies as st

NETWORK_KINDS = (
    "generic",  # normal / sqrt(fan_in)
    "float32",  # the same, rounded
    "float16",
    "bfloat16",
    "small_int",  # -3 to 3
    "small_int_nobias",
    "grid",  # multiples of 1/4
    "zero_bias",
    "duplicated",  # rows repeated, negated, doubled: exactly dependent
    "scaled",  # rows times 3 and 0.1: dependent up to rounding
    "int8",  # integers times one scale
    "three_level",  # -1, 0, 1
    "dead",  # some neurons never on
    "wild",  # rows times powers of two up to 2^60 and 2^-60
    "spike",  # a large matrix of rank one added to each layer
)
SLICE_KINDS = (
    "generic",
    "grid",  # integers
    "through_origin",
    "corner",  # integers; lines through corners are likely
    "edge",  # integers; neurons that are 0 along an edge are likely
)


def random_network(kind, shape, seed):
    """Weights ``[shape[i + 1], shape[i]]`` and biases ``[shape[i + 1]]`` of each layer."""
    rng = np.random.default_rng([NETWORK_KINDS.index(kind), seed, *shape])
    layers = [_layer(kind, rng, *widths) for widths in zip(shape[1:], shape[:-1], strict=True)]
    return [weight for weight, _ in layers], [bias for _, bias in layers]


def _layer(kind, rng, rows, columns):
    weight = rng.standard_normal((rows, columns)) / np.sqrt(columns)
    bias = rng.standard_normal(rows) / 2
    if kind == "zero_bias":
        bias = np.zeros(rows)
    elif kind in ("float32", "float16"):
        weight, bias = (array.astype(kind).astype(np.float64) for array in (weight, bias))
    elif kind == "bfloat16":
        weight, bias = _eight_bits(weight), _eight_bits(bias)
    elif kind in ("small_int", "small_int_nobias"):
        weight = rng.integers(-3, 4, weight.shape).astype(np.float64)
        bias = rng.integers(-3, 4, rows) * float(kind == "small_int")
    elif kind == "three_level":
        weight, bias = (
            rng.integers(-1, 2, weight.shape).astype(np.float64),
            rng.integers(-1, 2, rows).astype(np.float64),
        )
    elif kind == "grid":
        weight, bias = rng.integers(-6, 7, weight.shape) / 4, rng.integers(-6, 7, rows) / 4
    elif kind == "int8":
        scale = float(np.float32(rng.uniform(0.5, 2) / 127 / np.sqrt(columns)))  # 24 bits times 7 bits: exact
        weight, bias = rng.integers(-127, 128, weight.shape) * scale, rng.integers(-127, 128, rows) * scale
    elif kind in ("duplicated", "scaled"):
        factors = [1.0, -1.0, 2.0, -0.5] if kind == "duplicated" else [3.0, 0.1, -3.0, -0.1]
        for row in range(1, rows):
            if rng.random() < 0.5:
                source, factor = rng.integers(row), rng.choice(factors)
                weight[row], bias[row] = weight[source] * factor, bias[source] * factor
    elif kind == "dead":
        bias = np.where(rng.random(rows) < 0.4, -100.0, bias)
    elif kind == "wild":
        powers = rng.integers(-60, 61, rows)
        weight, bias = np.ldexp(weight, powers[:, None]), np.ldexp(bias, powers)
    elif kind == "spike":
        left, right = rng.standard_normal(rows), rng.standard_normal(columns)
        spike = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
        weight = weight + rng.choice([5.0, 10.0, 20.0]) * spike
    return weight, bias


def _eight_bits(array):
    """Rounded to 8 significant bits, ties to even, as bfloat16 has them."""
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def random_slice(kind, dim, seed):
    """Origin, u and v ``[dim]`` and the corners ``[n, 2]`` of a convex polygon, counter-clockwise; dim > 1."""
    rng = np.random.default_rng([SLICE_KINDS.index(kind), dim, seed])
    if kind in ("generic", "through_origin"):
        u, v = rng.standard_normal((2, dim))
        origin = rng.standard_normal(dim) * (0.3 if kind == "generic" else 0.0)
        corners = int(rng.integers(3, 8))
        angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
        return origin, u, v, rng.uniform(2, 6) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind == "grid":
        origin = rng.integers(-2, 3, dim)
        u, v = _independent(rng, dim, 2)
        low, high = np.sort(rng.integers(1, 4, 2)) * [-1, 1]
        polygon = [[low, low], [high, low], [high, high], [low, high]]
    elif kind == "corner":
        origin = rng.integers(-1, 2, dim) * rng.integers(2)
        u, v = _independent(rng, dim, 1)
        size = rng.integers(1, 4)
        polygon = [[0, 0], [size, 0], [size, size], [0, size]]
    else:
        origin = np.zeros(dim)
        u, v = np.eye(dim)[rng.permutation(dim)[:2]]
        # Edges along s = 0, t = 0, s = t, s = -t, s + t = 1, s = 1.
        polygon = [
            [[0, 0], [1, 0], [1, 1], [0, 1]],
            [[0, 0], [2, 0], [2, 2]],
            [[0, 0], [1, 0], [0, 1]],
            [[0, 0], [1, -1], [2, 0], [1, 1]],
            [[-1, 0], [0, -1], [1, 0], [0, 1]],
        ][rng.integers(5)]
    return tuple(np.asarray(array, dtype=np.float64) for array in (origin, u, v, polygon))


def _independent(rng, dim, size):
    """Two vectors of integers up to a size, not parallel."""
    while True:
        u, v = rng.integers(-size, size + 1, (2, dim))
        if np.any(np.outer(u, v) != np.outer(v, u)):
            return u, v


@st.composite
def integer_networks(draw, inputs=2, max_depth=2, max_width=3, size=2):
    """Weights and biases of a small network of integers, with one or two outputs."""
    widths = [
        inputs,
        *draw(st.lists(st.integers(1, max_width), min_size=1, max_size=max_depth)),
        draw(st.integers(1, 2)),
    ]
    numbers = st.integers(-size, size)

    def array(*shape):
        entries = draw(st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return np.array(entries, dtype=np.float64).reshape(shape)

    layers = list(zip(widths[1:], widths[:-1], strict=True))
    return [array(*layer) for layer in layers], [array(rows) for rows, _ in layers]


@st.composite
def polygons(draw):
    """Corners ``[n, 2]`` of one of a few convex polygons of integers, counter-clockwise, some around the origin."""
    shapes = [
        [[-2, -2], [2, -2], [2, 2], [-2, 2]],
        [[0, 0], [3, 0], [3, 3], [0, 3]],
        [[-1, 0], [0, -1], [1, 0], [0, 1]],
        [[-3, -2], [3, -1], [1, 3]],
        [[0, 0], [2, -1], [3, 1], [2, 3], [-1, 2]],
    ]
    return np.array(draw(st.sampled_from(shapes)), dtype=np.float64)
