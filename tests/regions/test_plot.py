"""Pictures of partitions: that what should be seen is seen, pixel by pixel."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import colors
from torch import nn

import pylinregion as plr
from cases.partitions import model_of
from pylinregion.regions.plot import BOUNDARY_COLOR, CLASS_COLORS

matplotlib.use("agg")
from matplotlib import pyplot


@pytest.fixture
def ax():
    _, ax = pyplot.subplots(figsize=(4, 4), dpi=100)
    ax.set_position((0, 0, 1, 1))
    yield ax
    pyplot.close("all")


@pytest.fixture(scope="module")
def quarters():
    """Four squares; the classes are s > 0 and not."""
    return plr.partition(model_of([np.eye(2), [[0, 0], [1, 0]]], [np.zeros(2), np.zeros(2)]), plr.Slice.box(-1, 1))


def pixels(ax):
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[:, :, :3].astype(int)


def at(ax, s, t):
    """The pixel at a point of the slice."""
    image = pixels(ax)
    x, y = ax.transData.transform((s, t))
    return image[image.shape[0] - 1 - int(y), int(x)]


def rgb(color):
    return np.array([round(255 * part) for part in colors.to_rgb(color)])


CORNERS = [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)]


def test_regions_have_the_colours_of_their_numbers(ax, quarters):
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert quarters.plot(ax, color=values, boundary=False) is ax
    viridis = matplotlib.colormaps["viridis"]
    for s, t in CORNERS:
        want = rgb(viridis((values[quarters.locate([s, t])] - 1) / 3))
        assert np.abs(at(ax, s, t) - want).max() <= 2


def test_regions_have_the_colours_of_their_classes(ax, quarters):
    quarters.plot(ax, color="class")
    for s, t in CORNERS:
        assert np.abs(at(ax, s, t) - rgb(CLASS_COLORS[int(s > 0)])).max() <= 2
    (legend,) = [child for child in ax.get_children() if isinstance(child, matplotlib.legend.Legend)]
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1"]


@pytest.mark.parametrize("color", ["slope", "area", "class", None])
def test_the_boundary_is_drawn_where_it_is(ax, quarters, color):
    quarters.plot(ax, color=color)
    assert np.abs(at(ax, 0.0, 0.4) - rgb(BOUNDARY_COLOR)).max() <= 60  # antialiased
    assert np.abs(at(ax, 0.4, 0.0) - rgb(BOUNDARY_COLOR)).max() > 60


def test_the_boundary_can_be_left_out(ax, quarters):
    quarters.plot(ax, color=None, boundary=False)
    image = pixels(ax)
    assert (np.abs(image - rgb(BOUNDARY_COLOR)).max(axis=2) > 30).all()
    assert (at(ax, 0.5, 0.5) == 255).all()


def test_edges_are_drawn(ax, quarters):
    quarters.plot(ax, color=None, boundary=False)
    for s, t in ((0.0, 0.4), (0.4, 0.0)):
        assert min(at(ax, s + a, t + b).max() for a in (-0.005, 0, 0.005) for b in (-0.005, 0, 0.005)) < 200


def test_points_are_marked_at_their_coordinates(ax):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.rand(3, 2, 2)
    part = plr.partition(model, plr.Slice.through(*x, margin=0.5))
    part.plot(ax, color="class", points=x)
    (marks,) = [child for child in ax.collections if len(child.get_offsets()) == 3]
    assert np.allclose(marks.get_offsets(), part.slice.coordinates(x).st)
    s, t = part.slice.coordinates(x[1]).st
    assert (at(ax, s, t) == 255).all()


def test_a_new_figure_is_made(quarters):
    ax = quarters.plot()
    assert ax.get_aspect() == 1 and (ax.get_xlabel(), ax.get_ylabel()) == ("s", "t")
    low, high = ax.get_xlim()
    assert low < -1 and high > 1
    file = io.BytesIO()
    ax.figure.savefig(file)
    assert len(file.getvalue()) > 5000
    assert [other.get_ylabel() for other in ax.figure.axes if other is not ax] == ["norm of the slope"]
    pyplot.close("all")


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_subplots_do_not_overlap(quarters, layout):
    """The label of a colour bar was once drawn over the next axes."""
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout=layout)
    quarters.plot(axes[0])
    quarters.plot(axes[1], color="area")
    figure.savefig(io.BytesIO())
    boxes = [each.get_tightbbox(figure.canvas.get_renderer()) for each in (axes[0], figure.axes[2], axes[1])]
    assert boxes[0].x1 <= boxes[1].x0 and boxes[1].x1 <= boxes[2].x0
    pyplot.close("all")


def test_right_angles_and_lengths_are_those_of_the_input_space(ax):
    part = plr.partition(nn.Linear(3, 2), plr.Slice(torch.zeros(3), [2.0, 0, 0], [0.0, 0, 6.0]))
    assert part.plot(ax).get_aspect() == 3


def test_many_regions_become_pixels_in_vector_formats(ax):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 80), nn.ReLU(), nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 2))
    part = plr.partition(model, plr.Slice.box(-3, 3))
    assert part.n_regions > 5000
    part.plot(ax, color="area")
    assert ax.collections[0].get_rasterized() and len(ax.collections[0].get_paths()) == part.n_regions
    file = io.BytesIO()
    ax.figure.savefig(file, format="pdf")
    assert len(file.getvalue()) < 1_000_000


@pytest.mark.parametrize(
    "color, message",
    [
        ("blue", "color must be 'slope', 'area', 'class', an array or None, got 'blue'"),
        (np.zeros(3), r"color must have one number for each of the 4 regions, got shape \[3\]"),
        (["a"] * 4, r"color must have one number for each of the 4 regions, got shape \[4\] of <U1"),
    ],
)
def test_wrong_colours_are_refused(ax, quarters, color, message):
    with pytest.raises(ValueError, match=message):
        quarters.plot(ax, color=color)


def test_a_partition_by_first_layers_has_no_boundary_to_draw(ax):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    part = plr.partition(model, plr.Slice.box(-1, 1), layers=["1"])
    assert len(part.plot(ax).collections) == 1
    with pytest.raises(ValueError, match="by its first layers only"):
        part.plot(ax, color="class")


def test_axes_that_are_none_are_named():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with pytest.raises(TypeError, match="ax must be matplotlib axes, got int"):
        plr.partition(net, plr.Slice.box(-1, 1)).plot(ax=3)
