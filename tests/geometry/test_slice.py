"""Slices: what they hold, what they refuse, and that it is decided exactly."""

import math
from fractions import Fraction as F

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pylinregion as plr
from pylinregion.reference import rational

PLANE = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
NAN, INF = float("nan"), float("inf")
quick = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def star(n, step, radius=1.0):
    angle = 2 * np.pi * step * np.arange(n) / n
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


# ---- what it holds


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_of_every_dtype_are_taken_exactly(dtype):
    origin, u, v = (torch.arange(6).reshape(2, 3) * k % 7 for k in (2, 3, 5))
    made = plr.Slice(*(part.to(dtype) for part in (origin, u, v)))
    for got, given_ in zip((made.origin, made.u, made.v), (origin, u, v), strict=True):
        assert got.dtype == torch.float64 and torch.equal(got, given_.double())
    assert made.input_shape == (2, 3)
    assert made.polygon.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_numbers_are_copied():
    origin, u, polygon = torch.zeros(2, dtype=torch.float64), np.array([1.0, 0.0]), np.array([[0, 0], [1, 0], [0, 1.0]])
    made = plr.Slice(origin, u, torch.tensor([0.0, 1.0], requires_grad=True), polygon)
    origin += 1
    u += 1
    polygon += 1
    assert made.origin.tolist() == [0, 0] and made.u.tolist() == [1, 0] and made.polygon[0].tolist() == [0, 0]
    assert not made.v.requires_grad
    with pytest.raises(ValueError, match="read-only"):
        made.polygon[0] = 1
    with pytest.raises(AttributeError):
        made.origin = torch.zeros(2)


@pytest.mark.parametrize("shape", [(2,), (5,), (3, 4, 4)])
def test_points_and_coordinates_are_inverse(shape):
    generator = torch.Generator().manual_seed(0)
    origin, u, v = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    made = plr.Slice(origin, u, v)
    st_ = np.random.default_rng(0).standard_normal((4, 3, 2))
    points = made.points(st_)
    assert points.shape == (4, 3, *shape) and points.dtype == torch.float64
    want = origin + st_[2, 1, 0] * u + st_[2, 1, 1] * v
    assert torch.allclose(points[2, 1], want, rtol=1e-14, atol=1e-14)
    back = made.coordinates(points)
    assert np.allclose(back.st, st_, atol=1e-12) and back.residual.shape == (4, 3) and back.residual.max() < 1e-12
    one = made.coordinates(points[0, 0].float())
    assert one.st.shape == (2,) and one.residual.shape == () and one.residual < 1e-5


def test_coordinates_are_those_of_the_nearest_point():
    made = plr.Slice([1.0, 0, 0], [1.0, 0, 0], [1.0, 1.0, 0])
    st_, residual = made.coordinates([3.0, 1.0, -2.5])
    assert np.allclose(st_, [1, 1]) and residual == pytest.approx(2.5)


def test_isometry_gives_lengths_of_the_input_space():
    u, v = torch.tensor([3.0, 0.0, 4.0]), torch.tensor([1.0, 2.0, 2.0])
    made = plr.Slice(torch.zeros(3), u, v)
    assert np.allclose(made.isometry.T @ made.isometry, [[25, 11], [11, 9]])
    assert np.allclose(np.linalg.norm(made.isometry @ [2, -1]), float((2 * u - v).norm()))
    assert made.isometry[1, 0] == 0 and (np.diagonal(made.isometry) > 0).all()


def test_contains_is_exact_on_the_border():
    made = plr.Slice(*PLANE, [[0, 0], [0.5, 0], [0, 0.5]])
    inside = [[0, 0], [0.25, 0.25], [0.5, 0], [0.125, 0.375], [0.1, 0.2]]
    outside = [[-1e-300, 0.1], [0.25, math.nextafter(0.25, 1)], [0.6, 0], [0, math.nextafter(0.5, 1)]]
    assert made.contains(inside).all() and not made.contains(outside).any()
    assert made.contains([inside]).shape == (1, 5)
    slanted = plr.Slice(*PLANE, [[0, 0], [3, 1], [0, 2]])
    assert F(0.3) < 3 * F(0.1)  # by less than float64 tells in products
    assert slanted.contains([0.3, 0.1]) and not slanted.contains([0.3, math.nextafter(0.1, 0)])


# ---- what makes one


@pytest.mark.parametrize("margin", [0, 0.1, 2.5])
@pytest.mark.parametrize("shape", [(2,), (7,), (1, 8, 8)])
def test_through_three_points(shape, margin):
    a, b, c = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    made = plr.Slice.through(a, b, c, margin=margin)
    assert np.allclose(made.isometry, np.eye(2), atol=1e-12)
    st_, residual = made.coordinates(torch.stack([a, b, c]))
    assert residual.max() < 1e-12 and made.contains(st_ * (1 - 1e-9) + 1e-9 * made.polygon.mean(axis=0)).all()
    assert np.allclose(st_[0], 0) and np.allclose(st_[1], [float((b.double() - a.double()).norm()), 0])
    first, second = st_[1], st_[2]
    low, high = -margin, 1 + margin
    corners = [p * first + q * second for p, q in ((low, low), (high, low), (high, high), (low, high))]
    assert np.allclose(made.polygon, corners)


def test_through_points_on_one_line_is_refused_exactly():
    message = "a, b and c must not lie on one line"
    for points in (
        ([0, 0, 0], [1, 1, 1], [3, 3, 3]),
        ([1, 0], [1, 0], [0, 1]),
        ([1, 0], [2, 0], [1, 0]),
        ([0.25, 0.5], [0.5, 0.75], [1, 1.25]),
        ([1e9, 1], [1e9 + 1, 2], [1e9 + 3, 4]),
    ):
        with pytest.raises(ValueError, match=message):
            plr.Slice.through(*points)
    nearly = plr.Slice.through([0.0, 0.0], [1.0, 1.0], [3.0, math.nextafter(3.0, 4)])
    assert nearly.coordinates([3.0, 3.0]).residual < 1e-12
    tenths = [[0.1 * k, 0.3 * k] for k in (0, 1, 3)]  # on a line if they were tenths
    assert F(tenths[1][0]) * F(tenths[2][1]) != F(tenths[1][1]) * F(tenths[2][0])
    plr.Slice.through(*tenths)


def test_around_one_point_is_the_cross_polytope_of_the_frame():
    x = torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    made = plr.Slice.around(x, 0.25, seed=7)
    frame = plr.random_frame((3, 5), 2, seed=7)
    corners = made.points(made.polygon)
    want = torch.stack([x + 0.25 * frame[0], x + 0.25 * frame[1], x - 0.25 * frame[0], x - 0.25 * frame[1]])
    assert torch.allclose(corners, want.double(), atol=1e-12)
    assert not torch.equal(made.u, plr.Slice.around(x, 0.25, seed=8).u)


def test_box_is_a_rectangle_of_the_inputs():
    made = plr.Slice.box([-1, 2], [3, 2.5])
    assert made.polygon.tolist() == [[-1, 2], [3, 2], [3, 2.5], [-1, 2.5]]
    assert made.points([0.5, 0.25]).tolist() == [0.5, 0.25]
    assert plr.Slice.box(0, 1).polygon.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert repr(made) == "Slice of inputs [2] with 4 corners"


# ---- polygons


@pytest.mark.parametrize("turn", [1, -1])
def test_corners_are_put_in_order(turn):
    """Either orientation; repeated corners and those on straight lines are dropped."""
    corners = [[0, 0], [1, 0], [1, 0], [3, 0], [3, 1], [3, 2], [0, 2], [0, 0]]
    polygon = plr.Slice(*PLANE, corners[::turn]).polygon
    assert sorted(polygon.tolist()) == [[0, 0], [0, 2], [3, 0], [3, 2]]
    x, y = polygon.T
    assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() == 12


def test_a_corner_by_one_bit_is_a_corner():
    middle = [0.5, math.nextafter(0.0, -1)]
    assert len(plr.Slice(*PLANE, [[0, 0], middle, [1, 0], [0, 1]]).polygon) == 4
    with pytest.raises(ValueError, match=r"polygon must be convex, and it is not at corner 1, \(0.5, 5e-324\)"):
        plr.Slice(*PLANE, [[0, 0], [0.5, 5e-324], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    "polygon, message",
    [
        ([[0, 0], [1, 1], [1, 0], [0, 1]], "polygon must be convex"),
        ([[0, 0], [4, 0], [1, 1], [0, 4]], r"polygon must be convex, and it is not at corner 2, \(1.0, 1.0\)"),
        ([[0, 0], [2, 0], [1, 0], [1, 1]], r"polygon must be convex, and it is not at corner 1"),  # a spike
        (star(5, 2), "polygon must not cross itself, and it goes around 2 times"),
        (star(7, 3), "polygon must not cross itself, and it goes around 3 times"),
        ([*star(4, 1), *star(4, 1)], "polygon must not cross itself, and it goes around 2 times"),
        ([[0, 0], [1, 1], [2, 2]], "polygon must have interior, and its corners lie on one line"),
        ([[0, 0], [0, 0], [0, 0]], "polygon must have interior"),
        ([[0, 0], [1, 0]], "polygon must have at least 3 corners, got 2"),
        (np.zeros((0, 2)), "polygon must have at least 3 corners, got 0"),
        ([[0, 0, 0]] * 4, r"polygon must be \[n, 2\], got \[4, 3\]"),
        ([0, 1], r"polygon must be \[n, 2\], got \[2\]"),
        ([[0, 0], [1, 0], [NAN, 1]], r"polygon must be finite, got nan at \[2, 0\]"),
        ([[0, 0], [1, 0], [0, INF]], r"polygon must be finite, got inf at \[2, 1\]"),
    ],
)
def test_wrong_polygons_are_refused(polygon, message):
    with pytest.raises(ValueError, match=message):
        plr.Slice(*PLANE, polygon)


@quick
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=7))
def test_polygons_are_those_of_the_oracle(points):
    """The oracle takes counter-clockwise polygons only."""

    def oracle(corners):
        try:
            return set(rational._convex(corners))
        except ValueError:
            return None

    wanted = oracle(points) or oracle(points[::-1])
    try:
        polygon = plr.Slice(*PLANE, [list(map(float, point)) for point in points]).polygon
    except ValueError:
        assert wanted is None
    else:
        assert {(F(s), F(t)) for s, t in polygon.tolist()} == wanted
        assert oracle(polygon) == wanted


# ---- planes


@pytest.mark.parametrize(
    "u, v",
    [
        ([1, 2], [2, 4]),
        ([1, 2], [-0.5, -1]),
        ([0, 0, 3], [0, 0, 1e-300]),
        ([5e-324, 0], [1, 0]),
        ([1e308, 0], [1e308, 0]),
        ([7], [3]),
        ([3 * 2.0**-1000, 9 * 2.0**-1000], [2.0**-1060, 3 * 2.0**-1060]),
    ],
)
def test_parallel_directions_are_refused(u, v):
    with pytest.raises(ValueError, match="u and v must be linearly independent"):
        plr.Slice(np.zeros(len(u)), np.array(u, dtype=float), np.array(v, dtype=float))


@pytest.mark.parametrize(
    "u, v",
    [
        ([1, 1], [1, math.nextafter(1.0, 2)]),
        ([0.1, 0.2, 0.3], [0.3, 0.6, 0.9]),  # rounded: not parallel
        ([1, 0], [0, 5e-324]),
        ([1e308, 1e308], [1e308, -1e308]),
        ([1, 1e-200], [1, 2e-200]),
        ([2.0**-540, 3 * 2.0**-540], [2.0**-540, math.nextafter(3.0, 4) * 2.0**-540]),
    ],
)
def test_directions_that_hardly_differ_are_taken(u, v):
    taken = plr.Slice(np.zeros(len(u)), np.array(u, dtype=float), np.array(v, dtype=float))
    assert taken.plane.tolist() == [[a, b, 0.0] for a, b in zip(u, v, strict=True)]
    assert taken.points([[1.0, 0.0], [0.0, 1.0]]).tolist() == [u, v]


def test_zero_directions_are_refused_by_name():
    for k, name in ((1, "u"), (2, "v")):
        parts = [np.array(part) for part in PLANE]
        parts[k] = np.zeros(2)
        with pytest.raises(ValueError, match=f"^{name} must not be zero"):
            plr.Slice(*parts)


@pytest.mark.parametrize("name, place", [("origin", 0), ("u", 1), ("v", 2)])
def test_wrong_inputs_are_refused_by_name(name, place):
    def with_(value):
        parts = list(PLANE)
        parts[place] = value
        return plr.Slice(*parts)

    with pytest.raises(ValueError, match=rf"{name} must be finite, got nan at \[1\]"):
        with_([1.0, NAN])
    with pytest.raises(ValueError, match=rf"{name} must be finite, got -inf at \[0\]"):
        with_(torch.tensor([-INF, 1], dtype=torch.float16))
    with pytest.raises(ValueError, match=r"must have the shape of origin, \[\d\], got \[\d\]"):
        with_([1.0, 1.0, 1.0])
    with pytest.raises(TypeError, match=rf"{name} must be an array of real numbers, got list of <U1"):
        with_(["a", "b"])
    with pytest.raises(TypeError, match=rf"{name} must be an array of real numbers, got NoneType"):
        with_(None)
    with pytest.raises(TypeError, match=rf"{name} must be an array of real numbers, got list"):
        with_([[1.0], [1.0, 2.0]])
    with pytest.raises(TypeError, match=rf"{name} must be a tensor of real numbers, got torch.complex64"):
        with_(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match=rf"{name} must be a tensor of real numbers, got torch.bool"):
        with_(torch.zeros(2, dtype=torch.bool))
    with pytest.raises(TypeError, match=rf"{name} must be a dense tensor, got layout torch.sparse_coo"):
        with_(torch.ones(2).to_sparse())
    for large in (torch.tensor([2**53 + 1, 0]), np.array([2**64 - 1, 0], dtype=np.uint64)):
        with pytest.raises(ValueError, match=rf"{name} must hold numbers that float64 holds exactly"):
            with_(large)
    if np.finfo(np.longdouble).nmant > 52:
        with pytest.raises(ValueError, match=rf"{name} must hold numbers that float64 holds exactly"):
            with_(np.array([1, 1 + np.finfo(np.longdouble).eps], dtype=np.longdouble))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: plr.Slice.through([0, 0], [1, 0], [0, 1, 2]), ValueError, r"c must have the shape of a, \[2\], got"),
        (lambda: plr.Slice.through([0, NAN], [1, 0], [0, 1]), ValueError, "a must be finite"),
        (lambda: plr.Slice.through(*PLANE, margin=-0.1), ValueError, "margin must be finite and not negative, got"),
        (lambda: plr.Slice.through(*PLANE, margin=NAN), ValueError, "margin must be finite and not negative, got nan"),
        (lambda: plr.Slice.through(*PLANE, margin="1"), TypeError, "margin must be a number, got str"),
        (lambda: plr.Slice.around([1.0], 1), ValueError, r"x must have at least 2 input dimensions, got shape \[1\]"),
        (lambda: plr.Slice.around([1.0, 2.0], 0), ValueError, "radius must be finite and above 0, got 0"),
        (lambda: plr.Slice.around([1.0, 2.0], "1"), TypeError, "radius must be a number, got str"),
        (lambda: plr.Slice.around([1.0, INF], 1), ValueError, "x must be finite"),
        (lambda: plr.Slice.box(0, [1, -1]), ValueError, "low must be below high, got"),
        (lambda: plr.Slice.box(0, [1, 1, 1]), ValueError, r"high must be a number or have shape \[2\], got \[3\]"),
        (lambda: plr.Slice.box(NAN, 1), ValueError, "low must be finite"),
        (lambda: plr.Slice(*PLANE).points([1, 2, 3]), ValueError, r"st must be \[..., 2\], got \[3\]"),
        (lambda: plr.Slice(*PLANE).points([NAN, 2]), ValueError, "st must be finite"),
        (lambda: plr.Slice(*PLANE).contains(1.0), ValueError, r"st must be \[..., 2\], got \[\]"),
        (lambda: plr.Slice(*PLANE).coordinates([1, 2, 3]), ValueError, r"x must be \[..., 2\], got \[3\]"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("scale", [1e308, 1e-320])
def test_through_speaks_of_its_own_arguments(scale):
    with pytest.raises(ValueError, match=r"^a, b and c must have entries|^a and b must be at least 1e-150 apart"):
        plr.Slice.through([-scale, 0.0], [scale, 0.0], [0.0, scale])
    with pytest.raises(ValueError, match=r"^c must be at least 1e-150 from the line"):
        plr.Slice.through([0.0, 0.0], [1.0, 0.0], [0.5, 1e-200])


def test_around_with_a_seed_that_is_no_integer():
    with pytest.raises(TypeError, match="seed must be an integer, got float"):
        plr.Slice.around(torch.zeros(3), 1.0, seed=1.5)


def test_a_tensor_without_data_is_an_error_that_names_the_argument():
    with pytest.raises(TypeError, match="origin must be a tensor with data, got one on the meta device"):
        plr.Slice(torch.zeros(3, device="meta"), [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
