"""The papers' data: from files, from a loader where there is a network, bundled, or generated."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pylinregion._util import memory, npz
from pylinregion._util.optional import optional
from pylinregion.experiments.config import Data

_SPLIT, _NOISE, _RANDOM, _TEXT = range(4)  # streams of random numbers, so that one does not move another
_ADDITIONS = 20_000  # sums in the generated text
_MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's training images, channel by channel
_DEVIATION = (0.2023, 0.1994, 0.2010)  # as paper A's domain, -2.4291 to 2.7537, has them: means of images' deviations


@dataclass(frozen=True)
class Dataset:
    """Points, tokens or images, split.

    Attributes:
        train_x, test_x: Images ``[N, C, H, W]``, or tokens ``[N, T]`` int64.
        train_y, test_y: ``[N]`` int64 classes; of texts ``[N, T]``, the character after each.
        classes: How many.
        vocabulary: Different tokens; None for images.
        low, high: The domain of images.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    vocabulary: int | None = None
    low: float | None = None
    high: float | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a point: ``[C, H, W]``, or ``[T, V]``."""
        shape = tuple(self.train_x.shape[1:])
        return shape if self.vocabulary is None else (*shape, self.vocabulary)

    def points(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Images as they are; tokens as one-hot rows ``[B, T, V]``."""
        return x if self.vocabulary is None else nn.functional.one_hot(x, self.vocabulary).to(dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> Dataset:
        """On a device, images in a dtype."""
        train_x, test_x = (
            x.to(device, dtype if x.is_floating_point() else x.dtype) for x in (self.train_x, self.test_x)
        )
        labels = self.train_y.to(device), self.test_y.to(device)
        return Dataset(train_x, labels[0], test_x, labels[1], self.classes, self.vocabulary, self.low, self.high)


def load(data: Data, seed: int) -> Dataset:
    """The data of an experiment.

    Args:
        data: Which.
        seed: Of the split, of random labels, and of generated data.

    Raises:
        FileNotFoundError: There is no file where ``data.path`` says.
        ValueError: A file is not what it should be, or has fewer points than are asked for.
        OSError: A loader could not get the data; the message says what to do.
        ModuleNotFoundError: The loader is not installed.
    """
    dataset = _LOADERS[data.name](data, seed)
    if data.label_noise:
        generator = stream(seed, _NOISE)
        replaced = torch.rand(dataset.train_y.shape, generator=generator) < data.label_noise
        random = torch.randint(dataset.classes, dataset.train_y.shape, generator=generator)
        labels = torch.where(replaced, random, dataset.train_y)
        dataset = Dataset(**{**vars(dataset), "train_y": labels})
    return dataset


def random_points(shape: tuple[int, ...], low: float, high: float, seed: int) -> Tensor:
    """``[n, ...]`` float64, uniform between ``low`` and ``high``."""
    return low + (high - low) * torch.rand(shape, generator=stream(seed, _RANDOM), dtype=torch.float64)


def stream(seed: int, number: int) -> torch.Generator:
    """One of several independent generators of a seed."""
    words = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> 1))


# Images


def _mnist(data: Data, seed: int) -> Dataset:
    images = _mnist_loader() if data.path is None else read_mnist(Path(data.path))
    return _images(data, seed, *images, low=0.0, high=1.0)


def _digits(data: Data, seed: int) -> Dataset:
    """scikit-learn's 1797 digits of 8 x 8 pixels, between 0 and 1."""
    images, labels = optional("sklearn.datasets", "the data 'digits'", "demo").load_digits(return_X_y=True)
    x = torch.from_numpy(images).view(-1, 1, 8, 8) / 16
    return _images(data, seed, x, torch.from_numpy(labels).to(torch.int64), None, low=0.0, high=1.0)


def _cifar10(data: Data, seed: int) -> Dataset:
    """Normalised channel by channel; the domain is between the least and the greatest number that a pixel can be."""
    x, y, test = _cifar10_loader() if data.path is None else read_cifar10(Path(data.path))
    mean, deviation = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_DEVIATION).view(3, 1, 1)
    low, high = float(((0 - mean) / deviation).min()), float(((1 - mean) / deviation).max())
    scaled = None if test is None else ((test[0] - mean) / deviation, test[1])
    return _images(data, seed, (x - mean) / deviation, y, scaled, low=low, high=high)


Images = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]


def _images(
    data: Data, seed: int, x: Tensor, y: Tensor, test: tuple[Tensor, Tensor] | None, *, low: float, high: float
) -> Dataset:
    """The training points that are asked for; test points from their own files, or what is left."""
    count = data.train_points if data.train_points is not None else len(x)
    if count > len(x) or (test is None and count == len(x)):
        raise ValueError(f"data.train_points must be at most {len(x) - (test is None)} for this data, got {count}")
    order = torch.arange(len(x))
    if data.order == "random":
        order = torch.randperm(len(x), generator=stream(seed, _SPLIT))
    chosen, rest = order[:count], order[count:]
    test_x, test_y = (x[rest], y[rest]) if test is None else test
    end = data.test_points
    return Dataset(x[chosen], y[chosen], test_x[:end], test_y[:end], 10, low=low, high=high)


def read_mnist(path: Path) -> Images:
    """MNIST from files.

    Args:
        path: An ``.npz`` with ``images`` ``[N, 28, 28]`` uint8 and ``labels`` ``[N]``; or a folder with the four IDX
            files, ``train-images-idx3-ubyte`` and so on, as they are or ``.gz``, or with one ``.npz``.

    Returns:
        Images ``[N, 1, 28, 28]`` between 0 and 1, labels, and the same of the test files, if there are any.

    Raises:
        FileNotFoundError: There are no such files.
        ValueError: A file is not what it should be.
    """
    if path.is_dir():
        archives = sorted(path.glob("*.npz"))
        if not (path / "train-images-idx3-ubyte").exists() and not (path / "train-images-idx3-ubyte.gz").exists():
            if len(archives) != 1:
                raise FileNotFoundError(f"{path} must hold train-images-idx3-ubyte[.gz] and so on, or one .npz")
            return read_mnist(archives[0])
        x, y, test_x, test_y = (
            read_idx(path / name)
            for name in (
                "train-images-idx3-ubyte",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte",
            )
        )
        return _pixels(path, x, y), _labels(path, x, y), (_pixels(path, test_x, test_y), _labels(path, test_x, test_y))
    if not path.exists():
        raise FileNotFoundError(f"data.path: there is no file or folder {path}")
    try:
        with npz.opened(path, _budget()) as archive:
            if not {"images", "labels"} <= set(archive.headers):
                raise ValueError(f"must have images and labels, got {', '.join(archive.headers) or 'nothing'}")
            x, y = archive.read("images"), archive.read("labels")
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    return _pixels(path, x, y), _labels(path, x, y), None


def _pixels(path: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Tensor:
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != (len(images),):
        found = f"{images.dtype} {list(images.shape)} and {list(labels.shape)}"
        raise ValueError(f"{path} must have images uint8 [N, H, W] and labels [N], got {found}")
    return torch.from_numpy(images.astype(np.float64) / 255).unsqueeze(1)


def _labels(path: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Tensor:
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{path} must have labels from 0 to 9, got {labels.dtype} of {labels.size}")
    return torch.from_numpy(labels.astype(np.int64))


def _budget() -> int:
    """Bytes of an array that becomes numbers of eight bytes."""
    return memory.budget(None) // 16


def read_idx(path: Path) -> np.ndarray[Any, Any]:
    """An array of bytes in the IDX format of MNIST.

    Args:
        path: The file, or the file without its ``.gz``.

    Raises:
        FileNotFoundError: There is neither.
        ValueError: It is no such file.
    """
    packed = path.with_name(path.name + ".gz")
    if path.exists():
        content = path.read_bytes()
    elif packed.exists():
        most = _budget()
        try:
            with gzip.open(packed) as file:
                content = file.read(most + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{packed} must be a gzip file: {error}") from error
        if len(content) > most:
            raise ValueError(f"{packed} must unpack to at most {most} bytes, as memory is, got more")
    else:
        raise FileNotFoundError(f"data.path: there is no file {path} and no {packed.name}")
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} must be an IDX file of bytes, which starts with 00 00 08, got {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{path} must have a head of {start} bytes, got {len(content)} bytes")
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} must have {math.prod(shape)} bytes of data, as its head says, got {len(content) - start}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_cifar10(folder: Path) -> Images:
    """CIFAR-10 from the folder of its binary version, ``data_batch_1.bin`` to ``data_batch_5.bin``, ``test_batch.bin``.

    Returns:
        Images ``[N, 3, 32, 32]`` between 0 and 1, labels, and the same of the test file.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is not what it should be.
    """
    parts = [_cifar_file(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    x, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return x, y, _cifar_file(folder / "test_batch.bin")


def _cifar_file(path: Path) -> tuple[Tensor, Tensor]:
    if not path.exists():
        raise FileNotFoundError(f"data.path: there is no file {path} (the binary version of CIFAR-10)")
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if content.size == 0 or content.size % 3073:
        raise ValueError(f"{path} must have rows of 3073 bytes, got {content.size} bytes")
    rows = torch.from_numpy(content.reshape(-1, 3073).copy())
    if int(rows[:, 0].max()) > 9:
        raise ValueError(f"{path} must have labels from 0 to 9, got {int(rows[:, 0].max())}")
    return rows[:, 1:].view(-1, 3, 32, 32).float() / 255, rows[:, 0].long()


def _mnist_loader() -> Images:
    datasets = optional("sklearn.datasets", "the data 'mnist' without --data", "demo")
    pixels, labels = _fetched(
        lambda: datasets.fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False),
        "MNIST",
        "its IDX files, or an .npz with images [N, 28, 28] and labels",
    )
    x = torch.from_numpy(np.asarray(pixels, dtype=np.float64) / 255).view(-1, 1, 28, 28)
    y = torch.from_numpy(np.asarray(labels).astype(np.int64))
    return x[:60_000], y[:60_000], (x[60_000:], y[60_000:])


def _cifar10_loader() -> Images:
    datasets = optional("torchvision.datasets", "the data 'cifar10' without --data", "vision")
    root = Path.home() / ".cache" / "pylinregion"
    train, test = _fetched(
        lambda: [datasets.CIFAR10(root, train=train, download=True) for train in (True, False)],
        "CIFAR-10",
        "the files of its binary version (data_batch_1.bin, ...)",
    )
    (x, y), held_out = ((_channels_first(part.data), torch.tensor(part.targets)) for part in (train, test))
    return x, y, held_out


def _channels_first(images: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _fetched(fetch: Callable[[], Any], name: str, files: str) -> Any:
    try:
        return fetch()
    except (OSError, RuntimeError, ValueError) as error:  # what loaders raise where there is no network
        reason = " ".join(str(error).split())
        raise OSError(f"{name} could not be fetched ({reason}): give a folder with {files} by --data") from error


# Tokens


def _modular(data: Data, seed: int) -> Dataset:
    """All pairs: tokens ``a, b, =``, and ``(a + b) mod p``."""
    p = data.modulus
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).T
    x, y = torch.stack([a, b, torch.full_like(a, p)], dim=1), (a + b) % p
    count = round(data.train_share * len(x))
    if not 0 < count < len(x):
        raise ValueError(f"data.train_share must leave points to train and to test on, got {data.train_share}")
    order = torch.randperm(len(x), generator=stream(seed, _SPLIT))
    train, test = order[:count], order[count:][: data.test_points]
    return Dataset(x[train], y[train], x[test], y[test], classes=p, vocabulary=p + 1)


def _characters(data: Data, seed: int) -> Dataset:
    """Pieces of a text; the last tenth of it is for testing."""
    text = additions(seed) if data.path is None else Path(data.path).read_text(encoding="utf-8")
    letters = sorted(set(text))
    number = {letter: index for index, letter in enumerate(letters)}
    tokens = torch.tensor([number[letter] for letter in text])
    end = len(tokens) * 9 // 10
    if len(tokens) - end < data.context + 1 or len(letters) < 2:
        raise ValueError(f"the text must have more than {10 * (data.context + 1)} characters, got {len(tokens)}")
    pieces: list[tuple[Tensor, Tensor]] = []
    for part, at_most in ((tokens[:end], data.train_points), (tokens[end:], data.test_points)):
        starts = torch.randperm(len(part) - data.context, generator=stream(seed, _SPLIT))[:at_most]
        places = starts[:, None] + torch.arange(data.context + 1)
        rows = part[places]
        pieces.append((rows[:, :-1].contiguous(), rows[:, 1:].contiguous()))
    return Dataset(*pieces[0], *pieces[1], classes=len(letters), vocabulary=len(letters))


def additions(seed: int) -> str:
    """A text to learn: lines such as ``17+25=42``."""
    a, b = torch.randint(100, (2, _ADDITIONS), generator=stream(seed, _TEXT)).tolist()
    return "".join(f"{first}+{second}={first + second}\n" for first, second in zip(a, b, strict=True))


_LOADERS: dict[str, Callable[[Data, int], Dataset]] = {
    "mnist": _mnist,
    "cifar10": _cifar10,
    "digits": _digits,
    "modular": _modular,
    "characters": _characters,
}
