import gzip
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from pylinregion.experiments import data
from pylinregion.experiments.config import Data

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, packed: bool) -> None:
    parts = {
        "train-images-idx3-ubyte": IMAGES[:8],
        "train-labels-idx1-ubyte": LABELS[:8],
        "t10k-images-idx3-ubyte": IMAGES[8:],
        "t10k-labels-idx1-ubyte": LABELS[8:],
    }
    for name, array in parts.items():
        content = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)


def write_cifar(folder: Path) -> np.ndarray:
    rows = np.random.default_rng(1).integers(0, 256, (18, 3073), dtype=np.uint8)
    rows[:, 0] %= 10
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(rows[3 * number : 3 * number + 3].tobytes())
    (folder / "test_batch.bin").write_bytes(rows[15:].tobytes())
    return rows


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_idx_files(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, packed=packed)
    found = data.load(Data("mnist", str(tmp_path), train_points=5, order="first"), 0)
    assert torch.equal(found.train_x[:, 0], torch.from_numpy(IMAGES[:5] / 255.0))
    assert found.train_y.tolist() == LABELS[:5].tolist() and found.train_y.dtype == torch.int64
    assert torch.equal(found.test_x[:, 0], torch.from_numpy(IMAGES[8:] / 255.0))  # not what is left of the first
    assert found.test_y.tolist() == LABELS[8:].tolist()
    assert (found.classes, found.low, found.high, found.input_shape) == (10, 0.0, 1.0, (1, 4, 4))


@pytest.mark.parametrize("as_folder", [False, True])
def test_mnist_from_an_archive_is_split(tmp_path: Path, as_folder: bool) -> None:
    np.savez(tmp_path / "some.npz", images=IMAGES, labels=LABELS)
    path = tmp_path if as_folder else tmp_path / "some.npz"
    found = data.load(Data("mnist", str(path), train_points=9, test_points=2, order="first"), 0)
    assert torch.equal(found.train_x[:, 0], torch.from_numpy(IMAGES[:9] / 255.0))
    assert torch.equal(found.test_x[:, 0], torch.from_numpy(IMAGES[9:11] / 255.0))


def test_random_points_are_split_by_the_seed_without_overlap(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=IMAGES, labels=LABELS)
    settings = Data("mnist", str(tmp_path), train_points=7)
    one, same, other = (data.load(settings, seed) for seed in (0, 0, 1))
    assert torch.equal(one.train_x, same.train_x) and not torch.equal(one.train_x, other.train_x)
    rows = torch.cat([one.train_x, one.test_x]).flatten(1)
    assert len(rows.unique(dim=0)) == 12
    labels = {tuple(image): label for image, label in zip((IMAGES / 255.0).reshape(12, -1), LABELS, strict=True)}
    assert all(labels[tuple(x.flatten().numpy())] == int(y) for x, y in zip(one.train_x, one.train_y, strict=True))


def test_cifar10_from_its_binary_version(tmp_path: Path) -> None:
    rows = write_cifar(tmp_path)
    found = data.load(Data("cifar10", str(tmp_path), train_points=None, order="first"), 0)
    mean, deviation = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    pixels = rows[:, 1:].reshape(-1, 3, 32, 32) / 255.0
    want = (pixels - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(found.train_x.double(), torch.from_numpy(want[:15]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.test_x.double(), torch.from_numpy(want[15:]), atol=1e-6, rtol=0)
    assert found.train_y.tolist() == rows[:15, 0].tolist() and found.test_y.tolist() == rows[15:, 0].tolist()
    assert found.low == pytest.approx(-2.4291, abs=1e-4) and found.high == pytest.approx(2.7537, abs=1e-4)  # paper A's
    assert found.low <= float(found.train_x.min()) and float(found.train_x.max()) <= found.high


def test_modular_addition_has_all_pairs_once() -> None:
    found = data.load(Data("modular", modulus=7, train_share=0.3), 0)
    assert len(found.train_x) == 15 and (found.classes, found.vocabulary, found.input_shape) == (7, 8, (3, 8))
    x, y = torch.cat([found.train_x, found.test_x]), torch.cat([found.train_y, found.test_y])
    assert {tuple(row) for row in x.tolist()} == {(a, b, 7) for a in range(7) for b in range(7)}
    assert all((a + b) % 7 == c for (a, b, _), c in zip(x.tolist(), y.tolist(), strict=True))
    with pytest.raises(ValueError, match=r"data.train_share must leave points"):
        data.load(Data("modular", modulus=7, train_share=1.0), 0)


def test_characters_are_followed_by_the_next(tmp_path: Path) -> None:
    text = "".join(chr(97 + number * number % 11) for number in range(300))
    (tmp_path / "text.txt").write_text(text)
    found = data.load(Data("characters", str(tmp_path / "text.txt"), train_points=50, test_points=5, context=6), 0)
    letters = sorted(set(text))
    assert found.train_x.shape == (50, 6) and found.test_x.shape == (5, 6) and found.vocabulary == len(letters)
    for x, y, part in ((found.train_x, found.train_y, text[:270]), (found.test_x, found.test_y, text[270:])):
        for row, following in zip(x.tolist(), y.tolist(), strict=True):
            assert row[1:] == following[:-1]
            assert "".join(letters[token] for token in [*row, following[-1]]) in part
    with pytest.raises(ValueError, match=r"must have more than 2000 characters, got 300"):
        data.load(Data("characters", str(tmp_path / "text.txt"), context=199), 0)


def test_generated_text_is_right() -> None:
    lines = data.additions(seed=3).splitlines()
    assert len(lines) == 20_000 and data.additions(3) != data.additions(4)
    for line in lines[:200]:
        terms, _, result = line.partition("=")
        assert sum(map(int, terms.split("+"))) == int(result)


def test_label_noise_replaces_a_share_of_the_training_labels_alone() -> None:
    pytest.importorskip("sklearn")
    clean, noisy = (data.load(Data("digits", label_noise=noise), 0) for noise in (0.0, 0.5))
    assert torch.equal(clean.train_x, noisy.train_x) and torch.equal(clean.test_y, noisy.test_y)
    differing = float((clean.train_y != noisy.train_y).double().mean())
    assert abs(differing - 0.5 * 0.9) < 0.06  # of 1000; a tenth of random labels is right by chance


def test_random_points_are_uniform() -> None:
    points = data.random_points((4000, 2), -1.0, 3.0, seed=0)
    assert -1 <= float(points.min()) < -0.99 and 2.99 < float(points.max()) <= 3
    assert abs(float(points.mean()) - 1) < 0.05
    assert torch.equal(points, data.random_points((4000, 2), -1.0, 3.0, seed=0))


def test_one_hot_rows_of_tokens() -> None:
    found = data.load(Data("modular", modulus=5), 0)
    rows = found.points(found.train_x, torch.float32)
    assert rows.shape == (len(found.train_x), 3, 6) and torch.equal(rows.argmax(2), found.train_x)
    assert torch.equal(rows.sum(2), torch.ones(len(rows), 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GIF89a", "must be an IDX file of bytes, which starts with 00 00 08, got 47 49 46 38"),
        (b"", "must be an IDX file"),
        (idx(IMAGES[:8])[:-1], "must have 128 bytes of data, as its head says, got 127"),
        (b"\x00\x00\x08\x03\x00\x00", "must have a head of 16 bytes, got 6 bytes"),
    ],
)
def test_broken_idx_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    write_mnist(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte {words}"):
        data.load(Data("mnist", str(tmp_path)), 0)


def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*nowhere"):
        data.load(Data("mnist", str(tmp_path / "nowhere")), 0)
    with pytest.raises(FileNotFoundError, match=r"must hold train-images-idx3-ubyte\[.gz\] and so on, or one .npz"):
        data.load(Data("mnist", str(tmp_path)), 0)
    with pytest.raises(FileNotFoundError, match=r"no file .*data_batch_1.bin \(the binary version of CIFAR-10\)"):
        data.load(Data("cifar10", str(tmp_path)), 0)
    write_mnist(tmp_path, packed=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*t10k-labels-idx1-ubyte and no t10k-labels-idx1-ubyte.gz"):
        data.load(Data("mnist", str(tmp_path)), 0)
    np.savez(tmp_path / "a.npz", x=IMAGES)
    with pytest.raises(ValueError, match=r"a.npz must have images and labels, got x"):
        data.load(Data("mnist", str(tmp_path / "a.npz")), 0)
    np.savez(tmp_path / "b.npz", images=IMAGES / 255, labels=LABELS)
    with pytest.raises(ValueError, match=r"uint8 \[N, H, W\] and labels \[N\], got float64 \[12, 4, 4\] and \[12\]"):
        data.load(Data("mnist", str(tmp_path / "b.npz")), 0)
    np.savez(tmp_path / "c.npz", images=IMAGES, labels=LABELS + 1)
    with pytest.raises(ValueError, match=r"labels from 0 to 9"):
        data.load(Data("mnist", str(tmp_path / "c.npz"), train_points=3), 0)
    write_cifar(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x01" * 3074)
    with pytest.raises(ValueError, match=r"data_batch_2.bin must have rows of 3073 bytes, got 3074 bytes"):
        data.load(Data("cifar10", str(tmp_path)), 0)
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x0b" * 3073)
    with pytest.raises(ValueError, match=r"must have labels from 0 to 9, got 11"):
        data.load(Data("cifar10", str(tmp_path)), 0)


def test_files_that_are_none_or_unpack_to_more_than_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"a.npz cannot be read: BadZipFile"):
        data.load(Data("mnist", str(tmp_path / "a.npz")), 0)
    np.savez_compressed(tmp_path / "b.npz", images=np.zeros((1000, 28, 28), np.uint8), labels=np.zeros(1000, int))
    packed = gzip.compress(b"\x00\x00\x08\x01\x00\x01\x00\x00" + bytes(65536))
    for name, content, why in (
        ("cut.gz", packed[:25], "must be a gzip file"),
        ("odd.gz", packed[:30] + b"\xff" * 30, "must be a gzip file"),
        ("none.gz", b"no gzip", "must be a gzip file"),
        ("large.gz", packed, "must unpack to at most 6250 bytes"),
    ):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "100000")
        with pytest.raises(ValueError, match=f"{name} {why}"):
            data.read_idx(tmp_path / name.removesuffix(".gz"))
    with pytest.raises(ValueError, match=r"b.npz arrays must fit into the memory budget of 6250 bytes"):
        data.load(Data("mnist", str(tmp_path / "b.npz")), 0)


def test_more_points_than_there_are_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=IMAGES, labels=LABELS)
    for count in (12, 13):  # one must be left to test on
        with pytest.raises(ValueError, match=f"data.train_points must be at most 11 for this data, got {count}"):
            data.load(Data("mnist", str(tmp_path), train_points=count), 0)


def test_loaders_are_used_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    pixels = np.tile(np.arange(784.0) % 256, (70_000, 1)).astype(np.uint8)
    labels = np.array([str(number % 10) for number in range(70_000)])
    monkeypatch.setattr(datasets, "fetch_openml", lambda *args, **kwargs: (pixels, labels))
    found = data.load(Data("mnist", order="first", test_points=3), 0)
    assert found.train_x.shape == (1000, 1, 28, 28) and found.train_y[:3].tolist() == [0, 1, 2]
    assert float(found.train_x[0, 0, 9, 3]) == 255 / 255 and found.test_y.tolist() == [0, 1, 2]

    rows = [np.full((4, 32, 32, 3), (255, 0, 51), dtype=np.uint8), [0, 1, 2, 3]]
    vision = types.ModuleType("torchvision.datasets")
    vision.CIFAR10 = lambda root, train, download: types.SimpleNamespace(data=rows[0], targets=rows[1])
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", vision)
    found = data.load(Data("cifar10", train_points=2, order="first"), 0)
    assert found.train_x.shape == (2, 3, 32, 32) and len(found.test_x) == 4
    want = [
        (value - mean) / deviation
        for value, mean, deviation in zip((1, 0, 0.2), data._MEAN, data._DEVIATION, strict=True)
    ]
    assert found.train_x[0, :, 5, 5].tolist() == pytest.approx(want, abs=1e-5)


def test_no_network_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("sklearn.datasets")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "fetch_openml", fail)
    words = r"MNIST could not be fetched \(no route to host\): give a folder with its IDX files, .* by --data"
    with pytest.raises(OSError, match=words):
        data.load(Data("mnist"), 0)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"the data 'cifar10' without --data needs torchvision: pip install"):
        data.load(Data("cifar10"), 0)
