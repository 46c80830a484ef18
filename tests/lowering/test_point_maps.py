"""Which map every affine operator is at a point, against the matrix of its linear part at unit vectors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr
from cases.operator_calls import CALLS, COVERED
from cases.small_models import Do, warmed_up
from pylinregion.caller.torch_settings import full_precision
from pylinregion.graph.operators import TABLE, Kind
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, Terms
from pylinregion.lowering.lower import stages_of
from pylinregion.lowering.point import Point

AFFINE = [name for name in COVERED if TABLE[name].kind is Kind.AFFINE and TABLE[name].combine != "logic"]
# Of these a matrix is formed, or may be.
AS_MATRICES = frozenset(
    "addmm addmv baddbmm bmm einsum matmul mm mv outer cumsum diff _upsample_bicubic2d_aa _upsample_bilinear2d_aa "  # noqa: SIM905
    "scatter_add scatter_reduce view_as_real _fft_c2r fft_hfft fft_irfft fft_irfft2 fft_irfftn numpy_T t "
    "real imag".split()
)


def maps_of(network):
    """Of each affine value and each operand: the operator's name, its map if there is one, and its matrix."""
    point = Point(network)
    with torch.no_grad(), full_precision():
        for index, node in enumerate(network.nodes):
            if node.role != "value" or node.op is None or node.op.kind is not Kind.AFFINE or point.carries(index):
                continue
            for operand in point.operands(index):
                make = point.affine_map(index, operand)
                yield node.op_name, None if make is None else make(), point.matrix(index, operand)


class Called(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.function = CALLS[name]

    def forward(self, z):
        found = self.function(z)
        outputs = found if isinstance(found, (list, tuple)) else [found]
        return torch.cat([each.double().reshape(z.shape[0], -1) for each in outputs], 1)


def check(network):
    """All maps are equal to the matrices; which kinds those of each operator are."""
    kinds = {}
    for name, made, (matrix, offset) in maps_of(network):
        if made is not None:
            found, added = made
            assert found.shape == matrix.shape, name
            assert np.array_equal(found.dense(), matrix.dense()), name
            assert np.array_equal(added, offset), name
        kinds.setdefault(name, set()).add(None if made is None else type(made[0]))
    return kinds


@pytest.mark.part(40)
@pytest.mark.parametrize("name", AFFINE)
def test_maps_of_operators_are_their_matrices(name):
    for each, kinds in check(plr.capture(Called(name), torch.linspace(-1, 1.5, 24).double().view(3, 8))).items():
        if each == "linear":
            assert kinds == {Dense}
        elif "conv" in each:
            assert kinds == {Convolution}
        else:
            assert kinds == {Terms} or (kinds <= {Terms, None} and each in AS_MATRICES), each


def test_parts_that_cancel_for_every_bit_of_the_places():
    """1, -1, -1, 1: a vector of ones gives 0, and so does every bit."""
    model = Do(lambda self, z: torch.fft.fft2(z.view(-1, 2, 2))[:, 1, 1].real[:, None])
    assert check(plr.capture(model, torch.zeros(2, 4).double()))["real"] == {None}


IMAGES = {
    "pools": lambda x: torch.cat(
        [
            F.avg_pool2d(x, 2, ceil_mode=True).flatten(1),
            F.avg_pool2d(x, 3, 2, 1).flatten(1),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False).flatten(1),
            F.avg_pool2d(x, (2, 3), (1, 2), (1, 0), ceil_mode=True, divisor_override=5).flatten(1),
            F.adaptive_avg_pool2d(x, (2, 3)).flatten(1),
            F.adaptive_avg_pool2d(x, 1).flatten(1),
        ],
        1,
    ),
    "larger images": lambda x: torch.cat(
        [
            F.interpolate(x, scale_factor=2).flatten(1),
            F.interpolate(x, size=(7, 3), mode="nearest-exact").flatten(1),
            F.interpolate(x, size=(7, 9), mode="bilinear").flatten(1),
            F.interpolate(x, size=(7, 9), mode="bilinear", align_corners=True).flatten(1),
            F.interpolate(x, scale_factor=1.5, mode="bicubic").flatten(1),
            F.pixel_shuffle(x, 2).flatten(1),
        ],
        1,
    ),
    "sums": lambda x: torch.cat([x.mean((2, 3)), x.sum(1).flatten(1), x.sum((1, 2)), x.mean(3).flatten(1)], 1),
    "moves": lambda x: torch.cat(
        [
            F.pad(x, (1, 2, 0, 1)).permute(0, 2, 3, 1).flatten(1),
            x.flip(3)[:, ::2, 1:].flatten(1),
            torch.stack([x[:, 0], -x[:, 1], x[:, 2] / 3 - 1], 1).flatten(1),
            x.transpose(1, 3).reshape(x.shape[0], -1),
            F.pad(x, (1, 1, 1, 1), mode="circular").flatten(1),
            F.pad(x, (1, 1, 1, 1), mode="reflect").flatten(1),
        ],
        1,
    ),
    "arithmetic": lambda x: (
        (3 - 2 * x * torch.arange(1.0, 6.0).double() + x.mean(1, keepdim=True)).sub(x, alpha=0.5) / 7
    ),
}


@pytest.mark.part(4)
@pytest.mark.parametrize("name", IMAGES)
def test_images_take_no_matrix(name):
    network = plr.capture(Do(lambda self, x: IMAGES[name](x)), torch.zeros(2, 4, 5, 5).double())
    for each, kinds in check(network).items():
        assert kinds == {Terms}, each


def test_networks_of_images_take_no_matrix(monkeypatch):
    """Convolutions, batch norms, residual sums, pools, layers on tokens."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Do(lambda self, x: x + self.a(x), a=nn.Conv2d(4, 4, 3, padding="same", groups=2)),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(3, 4, 2, 2, dilation=1),
        Do(lambda self, x: self.a(x.flatten(2).transpose(1, 2)), a=nn.Linear(4, 3)),
        nn.Hardtanh(),
        Do(lambda self, x: self.a(x.mean(1)), a=nn.Linear(3, 2)),
    )
    model = warmed_up(model, 2, 6, 6).double().eval()
    network = plr.capture(model, torch.zeros(2, 2, 6, 6).double())

    def refuse(*_):
        raise AssertionError("a matrix")

    monkeypatch.setattr(Point, "matrix", refuse)
    stages = stages_of(network)
    blocks = [block for stage in stages.stages for block in stage.blocks.values()]
    assert sum(isinstance(block, Convolution) for block in blocks) == 4
    assert [block.places for block in blocks if isinstance(block, Dense)] == [9, 1]
    x = 2 * torch.randn(20, 2, 6, 6).double()
    values = {-1: x.flatten(1)}
    for number, stage in enumerate(stages.stages):
        z = torch.from_numpy(stage.bias) + sum(block.times(values[at]) for at, block in stage.blocks.items())
        units = stage.units
        begin = units.line_begin
        piece = np.stack(
            [(z.numpy()[:, [r]] > units.kinks[begin[r] : begin[r + 1]]).sum(1) for r in range(stage.rows)], 1
        )
        at = begin[:-1] + np.arange(stage.rows) + piece
        values[number] = (
            torch.from_numpy(units.slopes[at]) * z + torch.from_numpy(units.intercepts[at])
        ) / units.denominator
    with torch.no_grad():
        assert torch.allclose(values[len(stages.stages) - 1], model(x), rtol=1e-12, atol=1e-12)
