"""Files of partitions of networks whose stages take convolutions and terms; those that were changed by hand."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.parts import some
from cases.small_models import warmed_up
from pylinregion.lowering.convolution_map import Convolution
from pylinregion.lowering.linear_maps import Dense, Terms
from pylinregion.regions.storage_of_maps import arrays_of, described, read_map


def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.ConvTranspose2d(3, 2, 2, stride=2),
        nn.ReLU(),
        nn.Conv2d(2, 2, 2, padding="same", groups=2),
        nn.MaxPool2d(2),
        nn.Flatten(2),
        nn.Linear(4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    with warnings.catch_warnings():  # "same" of even kernels takes a copy; torch says so once in a process
        warnings.simplefilter("ignore", UserWarning)
        return warmed_up(net, 1, 4, 4).double().eval()


@pytest.fixture(scope="module")
def part():
    net = model()
    points = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    return plr.partition(net, plr.Slice.through(*points))


def same_maps(a, b):
    assert type(a) is type(b) and a.shape == b.shape
    assert described(a) == described(b)
    for name, array in arrays_of(a, "x").items():
        other = arrays_of(b, "x")[name]
        assert array.dtype == other.dtype and np.array_equal(array, other)


def test_maps_are_kept(part, tmp_path):
    part.save(tmp_path / "part.npz")
    again = plr.load(tmp_path / "part.npz")
    kinds = set()
    for stage, other in zip(part.stages.stages, again.stages.stages, strict=True):
        assert list(stage.blocks) == list(other.blocks)
        for source in stage.blocks:
            same_maps(stage.blocks[source], other.blocks[source])
            kinds.add(type(stage.blocks[source]))
    assert kinds == {Convolution, Dense, Terms}
    assert again.n_regions == part.n_regions > 10
    assert np.array_equal(np.asarray(again.patterns), np.asarray(part.patterns))
    assert np.array_equal(again.affine_maps(), part.affine_maps())
    assert again.verify() == part.verify()


# ---- changed by hand


def reading(block, told=None, arrays=None):
    """A map as a file gives it, from a header and arrays that may be others."""
    arrays = arrays_of(block, "map") if arrays is None else arrays

    def take(name, dtypes, shape):
        array = arrays[name]
        fits = array.dtype in dtypes and array.ndim == len(shape)
        if not fits or any(n is not None and n != own for n, own in zip(shape, array.shape, strict=True)):
            raise ValueError(f"{name} must be {shape}, got {array.shape}")
        return array

    return read_map(described(block) if told is None else told, take, "map", *block.shape)


def plain(**changed):
    """Of 2 x 5 x 6 to 4 x 3 x 2."""
    sizes = {"stride": (2, 3), "padding": (1, 1), "dilation": (1, 2), "groups": 2, "transposed": False} | changed
    return Convolution(np.arange(4.0 * 1 * 3 * 2).reshape(4, 1, 3, 2), (2, 5, 6), (4, 3, 2), **sizes)


MAPS = {
    "convolution": plain,
    "transposed": lambda: plain(transposed=True),
    "terms": lambda: Terms(np.array([[0, 2], [1, 1], [2, 0]]), np.array([[1.0, 2], [3, 0], [0, 4]]), 3),
    "matrix": lambda: Dense(np.arange(6.0).reshape(2, 3)),
    "matrix at places": lambda: Dense(np.arange(6.0).reshape(2, 3), 4),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_read_as_they_were(name):
    same_maps(MAPS[name](), reading(MAPS[name]()))


OTHERS = (None, -1, 0, 7, 1.5, True, "2", [], [1], [1, 1], [0, 1], [True, 1], [1, 1, 1], [1 << 31, 1], [10**30, 1], {})


@pytest.mark.parametrize("name", MAPS)
def test_headers_that_do_not_fit_are_value_errors(name):
    block = MAPS[name]()
    for key in described(block):
        for other in OTHERS:
            told = described(block) | {key: other}
            if told == described(block) and type(other) is type(described(block)[key]):
                continue
            try:
                found = reading(block, told)
            except ValueError:
                continue
            assert isinstance(found, Convolution) and key == "transposed" and block.rows == block.width


@pytest.mark.parametrize("transposed", [False, True])
def test_sizes_of_convolutions_are_those_of_torch(transposed):
    """Each number of the header one more or less, and 100: refused, or what torch makes of these sizes."""
    block = plain(transposed=transposed)
    taken = 0
    for key in ("source", "target", "stride", "padding", "dilation"):
        for place in range(len(described(block)[key])):
            for change in (-3, -2, -1, 1, 2, 3, 100, 1 << 30):
                told = copy.deepcopy(described(block))
                told[key][place] += change
                try:
                    found = reading(block, told)
                except ValueError:
                    continue
                taken += 1
                x = torch.eye(found.width).double()
                weight = torch.from_numpy(found.weight)
                if transposed:
                    rest = [front - behind for front, behind in zip(found.padding, found.behind, strict=True)]
                    images = torch.nn.functional.conv_transpose2d(
                        x.reshape(-1, *found.target), weight, None, found.stride, found.padding, rest, 2, found.dilation
                    )
                else:
                    images = torch.nn.functional.conv2d(
                        x.reshape(-1, *found.source), weight, None, found.stride, found.padding, found.dilation, 2
                    )
                assert np.array_equal(images.flatten(1).T.numpy(), found.dense())
    assert 0 < taken < 20


def test_padding_that_keeps_the_size_may_be_one_more_behind():
    same_size = Convolution(np.ones((1, 1, 4)), (1, 6), (1, 6), (1,), (1,), (1,))
    same_maps(same_size, reading(same_size))
    for target, padding in ((7, 1), (6, 0), (5, 0), (8, 2)):
        block = Convolution(np.ones((1, 1, 4)), (1, 6), (1, target), (1,), (padding,), (1,))
        with pytest.raises(ValueError, match=r"map\.target must be as many windows as padding and stride give"):
            reading(block)


def test_arrays_that_do_not_fit_are_value_errors():
    block = plain()
    for weight in (block.weight[:2], block.weight[:, :, :0], block.weight[0], block.weight.astype(np.float32)):
        with pytest.raises(ValueError, match="map"):
            reading(block, None, {"map": weight})
    terms = MAPS["terms"]()
    for place in (terms.place - 1, terms.place + 1, terms.place[:, :1], terms.place.astype(np.int32)):
        with pytest.raises(ValueError, match=r"map\.place"):
            reading(terms, None, {"map": terms.factor, "map.place": place})
    with pytest.raises(ValueError, match="map"):
        reading(terms, None, {"map": terms.factor[:, :0], "map.place": terms.place[:, :0]})


def test_files_with_other_sizes_are_refused_by_name(part, tmp_path):
    path = tmp_path / "part.npz"
    part.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header")))
    places = [
        (s, m, key)
        for s, stage in enumerate(header["stages"])
        for m, each in enumerate(stage["maps"])
        for key in each
        if key != "kind"
    ]
    for s, m, key in some(places, 3, "maps"):
        for other in (None, 0, "2", -1):
            changed = copy.deepcopy(header)
            changed["stages"][s]["maps"][m][key] = other
            np.savez(path, **arrays, header=np.array(json.dumps(changed)))
            with pytest.raises(ValueError, match=rf"part.npz is damaged: stage{s}\.block.*\.{key} must be"):
                plr.load(path)
