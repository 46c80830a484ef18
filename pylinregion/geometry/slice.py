"""Slices: convex polygons in a plane of the input space, checked exactly.

Tensors live in the input space and arrays of NumPy on the slice; both are float64, whatever they were made from.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylinregion._util import checks
from pylinregion._util.arrays import Array
from pylinregion._util.rounding import UNIT
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.geometry.frames import random_frame

_NO_UNDERFLOW = 1e-280
_LARGEST_INPUT, _LEAST_DISTANCE = 1e150, 1e-150  # of `through`: their squares are in float64's range


class Coordinates(NamedTuple):
    """Where inputs are on a slice.

    Attributes:
        st: ``[..., 2]``: of the nearest points of the slice's plane.
        residual: ``[...]``: their distance to the inputs.
    """

    st: Array
    residual: Array


@dataclass(frozen=True, eq=False, init=False)
class Slice:
    """The inputs ``origin + s u + t v`` for ``(s, t)`` in a convex polygon.

    Args:
        origin, u, v: Tensors or arrays of the model's input shape, of any floating dtype (integers that are floats,
            too); they are converted to float64 exactly. ``u`` and ``v`` need not be orthonormal.
        polygon: ``[n, 2]``: the corners (s, t) of a convex polygon, in either orientation; those on straight lines are
            dropped. None: the unit square.

    Attributes:
        origin, u, v: ``[*input_shape]`` float64 on the CPU, copies. Tensors cannot be made read-only: do not write into
            them, since what is known of the slice goes by them.
        polygon: ``[n, 2]`` float64, counter-clockwise, strictly convex, read-only.

    Raises:
        ValueError: A shape does not fit, a number is not finite, ``u`` and ``v`` are linearly dependent, or the polygon
            is not convex or has no interior. Whether they are is decided exactly, not by a tolerance.
        TypeError: An argument holds no real numbers.

    >>> square = Slice([0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    >>> square.points([0.25, 0.5])
    tensor([0.2500, 0.5000, 1.0000], dtype=torch.float64)
    """

    origin: Tensor
    u: Tensor
    v: Tensor
    polygon: Array

    @plain_torch()
    def __init__(self, origin: Any, u: Any, v: Any, polygon: Any = None) -> None:
        parts = {name: checks.exact_doubles(name, value) for name, value in (("origin", origin), ("u", u), ("v", v))}
        for name, given in parts.items():
            if given.shape != parts["origin"].shape:
                raise ValueError(
                    f"{name} must have the shape of origin, {list(parts['origin'].shape)}, got {list(given.shape)}"
                )
            object.__setattr__(self, name, given)
        a, b = (parts[name].numpy().reshape(-1) for name in ("u", "v"))
        for name, part in (("u", a), ("v", b)):
            if not part.any():
                raise ValueError(f"{name} must not be zero: u and v span the slice")
        if _parallel(a, b, 4, lambda: (_fractions(a), _fractions(b))):
            raise ValueError("u and v must be linearly independent, and they are parallel")
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) if polygon is None else polygon
        object.__setattr__(self, "polygon", _convex(checks.exact_doubles("polygon", corners)))

    @classmethod
    @plain_torch()
    def through(cls, a: Any, b: Any, c: Any, margin: float = 0.1) -> Slice:
        """The parallelogram around three inputs.

        Its plane has the origin ``a`` and an orthonormal ``u`` (towards ``b``) and ``v``, so lengths on the slice are
        those in the input space; the three points lie on it up to the rounding of ``u`` and ``v``.

        Args:
            a, b, c: Tensors or arrays of the input shape, not on one line (decided exactly).
            margin: How far the sides are moved outwards, as a part of the parallelogram: with 0 its corners are
                ``a``, ``b``, ``b + c - a`` and ``c``.

        Returns:
            The slice.

        Raises:
            ValueError, TypeError: As for :class:`Slice`, and if the margin is negative.
        """
        parts = {name: checks.exact_doubles(name, value) for name, value in (("a", a), ("b", b), ("c", c))}
        for name, part in parts.items():
            if part.shape != parts["a"].shape:
                raise ValueError(f"{name} must have the shape of a, {list(parts['a'].shape)}, got {list(part.shape)}")
        if isinstance(margin, bool) or not isinstance(margin, numbers.Real):
            raise TypeError(f"margin must be a number, got {type(margin).__name__}")
        if not (math.isfinite(margin) and margin >= 0):
            raise ValueError(f"margin must be finite and not negative, got {margin}")
        start, first, second = (part.numpy().reshape(-1) for part in parts.values())

        def exactly() -> tuple[list[Fraction], list[Fraction]]:
            corner = _fractions(start)
            along, other = ([p - q for p, q in zip(_fractions(end), corner, strict=True)] for end in (first, second))
            return along, other

        largest = max(float(part.abs().max()) if part.numel() else 0.0 for part in parts.values())
        if largest > _LARGEST_INPUT:
            raise ValueError(f"a, b and c must have entries up to {_LARGEST_INPUT:g} in size, got {largest:g}")
        along, other = first - start, second - start
        if _parallel(along, other, 16, exactly):
            raise ValueError("a, b and c must not lie on one line: they would span no plane")
        length = float(np.linalg.norm(along))
        if length < _LEAST_DISTANCE:
            raise ValueError(f"a and b must be at least {_LEAST_DISTANCE:g} apart, got {length:g}")
        u = along / length
        v = other - (other @ u) * u
        v = v - (v @ u) * u
        across = float(np.linalg.norm(v))
        if across < _LEAST_DISTANCE:
            raise ValueError(f"c must be at least {_LEAST_DISTANCE:g} from the line through a and b, got {across:g}")
        v = v / across
        third = np.array([other @ u, other @ v])
        low, high = -float(margin), 1 + float(margin)
        corners = [
            p * np.array([length, 0.0]) + q * third for p, q in ((low, low), (high, low), (high, high), (low, high))
        ]
        shape = parts["a"].shape
        return cls(parts["a"], u.reshape(shape), v.reshape(shape), np.stack(corners))

    @classmethod
    @plain_torch()
    def around(cls, x: Any, radius: float, seed: int = 0) -> Slice:
        """The 2-D cross-polytope around one input: the convex hull of ``x ± r v_1`` and ``x ± r v_2``.

        Args:
            x: A tensor or array of the input shape: one point, without a batch dimension.
            radius: ``r``, above 0.
            seed: Of ``v_1`` and ``v_2``, see :func:`pylinregion.random_frame`.

        Returns:
            The slice; ``u`` is ``v_1``, ``v`` is ``v_2`` and the origin is ``x``.

        Raises:
            ValueError, TypeError: As for :class:`Slice`; fewer than two input dimensions; a radius that is not
                positive.
        """
        centre = checks.exact_doubles("x", x)
        if centre.numel() < 2:
            raise ValueError(f"x must have at least 2 input dimensions, got shape {list(centre.shape)}")
        if not isinstance(radius, numbers.Real) or isinstance(radius, bool):
            raise TypeError(f"radius must be a number, got {type(radius).__name__}")
        seed = checks.integer("seed", seed)
        r = float(checks.radii(radius, 1, torch.device("cpu"))[0])
        u, v = random_frame(centre.shape, 2, seed=seed)
        return cls(centre, u, v, np.array([[r, 0], [0, r], [-r, 0], [0, -r]]))

    @classmethod
    @plain_torch()
    def box(cls, low: Any, high: Any) -> Slice:
        """A rectangle of a two-dimensional input space; s and t are the two inputs.

        Args:
            low, high: The lower and the upper corner: ``[2]`` numbers, or one number for both.

        Returns:
            The slice.

        Raises:
            ValueError, TypeError: Not that, or ``low`` is not below ``high``.
        """
        ends = []
        for name, value in (("low", low), ("high", high)):
            end = checks.exact_doubles(name, value)
            if tuple(end.shape) not in ((), (2,)):
                raise ValueError(f"{name} must be a number or have shape [2], got {list(end.shape)}")
            ends.append(end.expand(2).tolist())
        (x, y), (right, top) = ends
        if not (x < right and y < top):
            raise ValueError(f"low must be below high, got {ends[0]} and {ends[1]}")
        zero, one, two = np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1.0])
        return cls(zero, one, two, np.array([[x, y], [right, y], [right, top], [x, top]]))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an input."""
        return tuple(self.origin.shape)

    @property
    @plain_torch()
    def plane(self) -> Array:
        """``[D, 3]``: u, v and the origin as columns; D is the number of input dimensions."""
        return np.stack([part.numpy().reshape(-1) for part in (self.u, self.v, self.origin)], axis=1)

    @cached_property
    def isometry(self) -> Array:
        """``[2, 2]`` upper triangular: ``isometry @ (s, t)`` are coordinates in which lengths are those of inputs."""
        return self._basis[1]

    @cached_property
    def _basis(self) -> tuple[Array, Array]:
        """``[D, 2]`` orthonormal and ``[2, 2]`` upper triangular with positive diagonal: the plane is their product."""
        q, r = np.linalg.qr(self.plane[:, :2])
        signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return q * signs, r * signs[:, None]

    @plain_torch()
    def points(self, st: Any) -> Tensor:
        """The inputs at points of the plane.

        Args:
            st: ``[..., 2]``: coordinates (s, t); they need not be in the polygon.

        Returns:
            ``[..., *input_shape]`` float64 on the CPU.

        Raises:
            ValueError, TypeError: ``st`` is not that.
        """
        at = coordinates_of("st", st)
        flat = at.reshape(-1, 2) @ self.plane[:, :2].T + self.plane[:, 2]
        return torch.from_numpy(flat.reshape(*at.shape[:-1], *self.input_shape))

    @plain_torch()
    def coordinates(self, x: Any) -> Coordinates:
        """Where inputs are on the slice, by least squares.

        Args:
            x: ``[..., *input_shape]``, a tensor or an array.

        Returns:
            The coordinates of the nearest points of the plane, and how far the inputs are from it.

        Raises:
            ValueError, TypeError: ``x`` is not that.
        """
        inputs = checks.exact_doubles("x", x)
        shape, lead = self.input_shape, inputs.dim() - self.origin.dim()
        if lead < 0 or tuple(inputs.shape[lead:]) != shape:
            raise ValueError(f"x must be [{', '.join(['...', *map(str, shape)])}], got {list(inputs.shape)}")
        q, r = self._basis
        offset = inputs.numpy().reshape(-1, len(q)) - self.plane[:, 2]
        along = offset @ q
        residual: Array = np.linalg.norm(offset - along @ q.T, axis=1)
        st: Array = np.asarray(np.linalg.solve(r, along.T).T, dtype=np.float64)
        return Coordinates(st.reshape(*inputs.shape[:lead], 2), residual.reshape(tuple(inputs.shape[:lead])))

    @plain_torch()
    def contains(self, st: Any) -> NDArray[np.bool_]:
        """Which points lie in the polygon or on its border, decided exactly.

        Args:
            st: ``[..., 2]``.

        Returns:
            ``[...]``.

        Raises:
            ValueError, TypeError: ``st`` is not that.
        """
        at = coordinates_of("st", st)
        flat = at.reshape(-1, 2)
        inside = np.ones(len(flat), dtype=bool)
        for p, q in zip(self.polygon, np.roll(self.polygon, -1, axis=0), strict=True):
            inside &= _left_of(p, q, flat)
        return inside.reshape(at.shape[:-1])

    def __repr__(self) -> str:
        return f"Slice of inputs {list(self.input_shape)} with {len(self.polygon)} corners"


def coordinates_of(name: str, value: Any) -> Array:
    """A caller's ``[..., 2]`` coordinates on a slice."""
    st = checks.exact_doubles(name, value).numpy()
    if st.ndim < 1 or st.shape[-1] != 2:
        raise ValueError(f"{name} must be [..., 2], got {list(st.shape)}")
    return st


def _fractions(values: Array) -> list[Fraction]:
    return [Fraction(value) for value in values.tolist()]


def _parallel(u: Array, v: Array, roundings: int, exactly: Callable[[], tuple[list[Fraction], list[Fraction]]]) -> bool:
    """Whether two vectors are linearly dependent: by float64 where that proves they are not, else by fractions.

    Args:
        u, v: ``[D]``, as computed.
        roundings: How many units in the last place the products of their entries may be off, generously.
        exactly: The two as fractions.
    """
    pivot = int(np.abs(u).argmax())
    with np.errstate(over="ignore", invalid="ignore"):
        left, right = u[pivot] * v, u * v[pivot]
        size = np.abs(left) + np.abs(right)
        proven = (np.abs(left - right) > roundings * UNIT * size) & (size > _NO_UNDERFLOW) & np.isfinite(size)
    if proven.any():
        return False
    a, b = exactly()
    place = next((i for i, value in enumerate(a) if value), None)
    return place is None or all(a[place] * q == p * b[place] for p, q in zip(a, b, strict=True))


def _left_of(p: Array, q: Array, points: Array) -> NDArray[np.bool_]:
    """Whether points are on the left of the line from p to q, or on it; in float64, in fractions where that is near."""
    with np.errstate(over="ignore", invalid="ignore"):
        left, right = (q[0] - p[0]) * (points[:, 1] - p[1]), (q[1] - p[1]) * (points[:, 0] - p[0])
        size = np.abs(left) + np.abs(right)
        sign = left - right
        certain = (np.abs(sign) > 16 * UNIT * size) & (size > _NO_UNDERFLOW) & np.isfinite(size)
    result = sign > 0
    (a, b), (c, d) = _fractions(p), _fractions(q)
    for place in np.flatnonzero(~certain):
        x, y = _fractions(points[place])
        result[place] = (c - a) * (y - b) - (d - b) * (x - a) >= 0
    return np.asarray(result, dtype=np.bool_)


def _convex(polygon: Tensor) -> Array:
    """The corners, counter-clockwise, without repeated ones and those on straight lines; all decided in fractions."""
    if polygon.dim() != 2 or polygon.shape[1] != 2:
        raise ValueError(f"polygon must be [n, 2], got {list(polygon.shape)}")
    if len(polygon) < 3:
        raise ValueError(f"polygon must have at least 3 corners, got {len(polygon)}")
    array = polygon.numpy()
    points = [(Fraction(s), Fraction(t)) for s, t in array.tolist()]
    kept = [k for k, point in enumerate(points) if point != points[k - 1]]
    turns, straight = [], []
    for place, k in enumerate(kept):
        (a, b), (c, d), (e, f) = points[kept[place - 1]], points[k], points[kept[(place + 1) % len(kept)]]
        turns.append((c - a) * (f - d) - (d - b) * (e - c))
        straight.append((c - a) * (e - c) + (d - b) * (f - d) > 0)
    if not any(turns):
        raise ValueError("polygon must have interior, and its corners lie on one line")
    orientation = 1 if sum(turns) > 0 else -1
    for k, turn, ahead in zip(kept, turns, straight, strict=True):
        if turn * orientation < 0 or (turn == 0 and not ahead):
            raise ValueError(f"polygon must be convex, and it is not at corner {k}, {tuple(array[k].tolist())}")
    corners = [k for k, turn in zip(kept, turns, strict=True) if turn]
    steps = [points[k] > points[corners[place - 1]] for place, k in enumerate(corners)]
    around = sum(step != steps[place - 1] for place, step in enumerate(steps)) // 2
    if around != 1:
        raise ValueError(f"polygon must not cross itself, and it goes around {around} times")
    result = np.ascontiguousarray(array[corners][::orientation])
    result.setflags(write=False)
    return result
