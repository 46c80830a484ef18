"""Arrays in .npy and .npz files: what was written, read back, and files that nobody should trust."""

import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from pylinregion._util import npz

ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "transposed": np.arange(6).reshape(2, 3).T,
    "nothing": np.zeros((0, 3), np.uint8),
    "number": np.float64(2.5),
    "text": np.array("über"),
    "other order": np.arange(3, dtype=">i4"),
    "switches": np.array([True, False]),
}
BUDGET = 1 << 20


@pytest.mark.parametrize("compress", [False, True])
def test_what_is_written_is_read(tmp_path, compress):
    path = tmp_path / "file"
    with path.open("wb") as file:
        npz.write(file, ARRAYS, {"of": "a test"}, compress=compress)
    with npz.opened(path, BUDGET) as archive:
        archive.check_seal()
        assert archive.headers.keys() == ARRAYS.keys() | {"header"}
        found = {name: archive.read(name) for name in ARRAYS}
    with np.load(path) as archive:
        for name, array in ARRAYS.items():
            for other in (found[name], archive[name]):
                assert other.dtype == np.asarray(array).dtype and np.array_equal(other, array), name
    again = io.BytesIO()
    npz.write(again, ARRAYS, {"of": "a test"}, compress=compress)
    assert again.getvalue() == path.read_bytes()


def npy(header=None, data=b"", version=b"\x01\x00", **changes):
    """The bytes of a .npy file with any header."""
    values = {"descr": "<f8", "fortran_order": False, "shape": (3,)} | changes
    text = (repr(values) if header is None else header).encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version[:1] == b"\x01" else "<I", len(text)) + text + data


def archive_of(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


THREE = np.zeros(3).tobytes()
HEADERS = [
    (npy(descr="|O", data=THREE), "must hold numbers, got Python objects"),
    (npy(descr=[("a", "<f8")], data=THREE), "must hold numbers or text, got "),
    (npy(descr="<M8[s]", data=THREE), "must hold numbers or text, got datetime64"),
    (npy(shape=(-3,), data=THREE), r"must have a shape of up to 32 sizes from 0 up, got \[-3\]"),
    (npy(shape=(True, 3), data=THREE), "must have a shape of up to 32 sizes from 0 up"),
    (npy(shape=(1 << 62, 0), data=b""), "must have a shape that memory could hold"),
    (npy(shape=(1 << 40, 1 << 40), data=THREE), "must have a shape that memory could hold"),
    (npy(shape=(1,) * 33, data=THREE[:8]), "must have a shape of up to 32 sizes"),
    (npy(shape=[3], data=THREE), "must have a header that can be read"),
    (npy("(" * 9000), "must have a header that can be read"),
    (npy("__import__('os').abort()"), "must have a header that can be read"),
    (npy(version=b"\x02\x00")[:8] + struct.pack("<I", 1 << 31), "must have a header of at most 10000 bytes"),
    (npy(data=THREE)[:9], "must have a header of at most 10000 bytes"),
    (npy(version=b"\x03\x00", data=THREE), "must be an array as numpy.save writes it"),
    (b"text", "must be an array as numpy.save writes it"),
    (b"", "must be an array as numpy.save writes it"),
    (npy(data=THREE[:-1]), "must have 24 bytes of data.*, got 23"),
    (npy(data=THREE + b"0"), "must have 24 bytes of data.*, got 25"),
]


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@pytest.mark.parametrize("content, message", HEADERS, ids=[str(number) for number in range(len(HEADERS))])
def test_arrays_that_are_none_are_refused(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.npy .*{message}"):
        npz.map_npy(path)
    archive_of(tmp_path / "a.npz", [("good.npy", npy(data=THREE)), ("bad.npy", content)])
    with pytest.raises(ValueError, match=f"bad .*{message}"), npz.opened(tmp_path / "a.npz", BUDGET):
        pass


@pytest.mark.parametrize(
    "array", [np.arange(6).reshape(2, 3), np.zeros((2, 3), order="F"), np.zeros((0, 4)), np.int8(1)]
)
def test_an_npy_file_is_mapped(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = npz.map_npy(tmp_path / "a.npy")
    assert found.dtype == array.dtype and np.array_equal(found, array)
    assert isinstance(found, np.memmap) == (array.size > 0)


def encrypted(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def overlapping(path):
    """Both names are of one member's bytes, as in archives that grow without end."""
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[second + 42 : second + 46] = struct.pack("<I", 0)
    content[second + 20 : second + 24] = struct.pack("<I", len(content))
    path.write_bytes(content)


def test_archives_that_are_none_are_refused(tmp_path):
    good = [("a.npy", npy(data=THREE)), ("b.npy", npy(data=THREE))]
    path = archive_of(tmp_path / "not arrays", [*good, ("text.txt", "text")])
    with pytest.raises(ValueError, match=r"text\.txt must be an array"), npz.opened(path, BUDGET):
        pass
    with pytest.warns(UserWarning, match="Duplicate"):
        archive_of(tmp_path / "twice", [*good, good[0]])
    with pytest.raises(ValueError, match="a must be there once, got it twice"), npz.opened(tmp_path / "twice", BUDGET):
        pass
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = archive_of(tmp_path / "method", good, method)
        with pytest.raises(ValueError, match="a must be stored or deflated"), npz.opened(path, BUDGET):
            pass
    for change, message in (
        (encrypted, "a must be stored or deflated, and not encrypted"),
        (overlapping, "arrays must"),
    ):
        path = archive_of(tmp_path / change.__name__, good)
        change(path)
        with pytest.raises(ValueError, match=message), npz.opened(path, BUDGET):
            pass


def test_nothing_is_unpacked_before_it_is_known_to_fit(tmp_path):
    """Four megabytes that were gigabytes took gigabytes before they were refused."""
    size = 1 << 26
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.npy", npy(data=THREE))
        with archive.open("large.npy", "w") as file:
            file.write(npy(shape=(size,), descr="|u1"))
            for _ in range(size >> 24):
                file.write(bytes(1 << 24))
    assert path.stat().st_size < 1 << 17
    tracemalloc.start()
    try:
        with (
            pytest.raises(ValueError, match=f"memory budget of {size} bytes, got {size + 24}"),
            npz.opened(path, size),
        ):
            pass
        with npz.opened(path, size + 24) as archive:
            assert archive.headers["large"] == (np.uint8, (size,), False)
            assert np.array_equal(archive.read("small"), np.zeros(3))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_sizes_that_the_archive_lies_about_are_refused(tmp_path):
    """The directory promises what the compressed data does not have."""
    path = archive_of(tmp_path / "a.npz", [("a.npy", npy(data=THREE, shape=(300,)))], zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(mark) + place
        content = content[:at] + struct.pack("<I", len(npy(shape=(300,))) + 2400) + content[at + 4 :]
    path.write_bytes(content)
    with (
        npz.opened(path, BUDGET) as archive,
        pytest.raises(ValueError, match=r"a must have 2400 bytes of data, got 24"),
    ):
        archive.read("a")


def rewritten(path, arrays):
    np.savez(path, **arrays)
    return path


def test_a_seal_tells_what_was_changed(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        npz.write(file, {"a": np.arange(3), "b": np.arange(4.0)}, {"of": "a test"})
    with np.load(path) as file:
        arrays = dict(file)

    def refused(message, changes):
        kept = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
        with pytest.raises(ValueError, match=message), npz.opened(rewritten(path, kept), BUDGET) as archive:
            archive.check_seal()

    refused("a must be as it was written, got another checksum", {"a": np.array([0, 1, 3])})
    refused("a must be as it was written", {"a": np.arange(3, dtype=np.uint64)})
    refused("b must be there, got nothing", {"b": None})
    refused("c must be as it was written", {"c": np.arange(3)})
    refused("header must be there, got nothing", {"header": None})
    refused("header must be a text, got int64", {"header": np.int64(3)})
    for text in ("no JSON", "[" * 100_000):
        refused("header must be JSON, got ", {"header": np.array(text)})
    refused("header must be an object, got list", {"header": np.array("[]")})
    for about in ({}, {"checksums": None}, {"checksums": []}):
        refused("header must be one with checksums, got none", {"header": np.array(json.dumps(about))})
    about = json.loads(str(arrays["header"]))
    assert about["of"] == "a test"
    for name, other in (("of", "another"), ("seal", None), ("more", 1)):
        refused("header must be as it was written", {"header": np.array(json.dumps({**about, name: other}))})
    refused("a must be as it was", {"header": np.array(json.dumps({**about, "checksums": {}}))})
    with npz.opened(rewritten(path, arrays), BUDGET) as archive:  # by whomever: it is the same
        archive.check_seal()


@pytest.mark.parametrize("compress", [False, True])
def test_changed_bytes_are_noticed(tmp_path, compress):
    """Each byte of a small archive, one after the other: refused, or the same arrays."""
    path, arrays = tmp_path / "a.npz", {"a": np.arange(3), "b": np.array("text")}
    with path.open("wb") as file:
        npz.write(file, arrays, {"of": "a test"}, compress=compress)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 + place * 7 % 255)]) + whole[place + 1 :])
        try:
            with npz.opened(path, BUDGET) as archive:
                archive.check_seal()
                assert archive.headers.keys() == arrays.keys() | {"header"}
                for name, array in arrays.items():
                    found = archive.read(name)
                    assert found.dtype == array.dtype and np.array_equal(found, array)
        except ValueError:
            refused += 1
    assert refused > len(whole) / 6
    for end in range(0, len(whole), 5):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError), npz.opened(path, BUDGET):
            pass


@pytest.mark.parametrize(
    "name, dtypes, shape, message",
    [
        ("a", [np.float64], (None, 3), r"a must be \[n, 3\], got \[2, 2\]"),
        ("a", [np.float64], (None,), r"a must be \[n\], got \[2, 2\]"),
        ("a", [np.float32, np.int8], (2, 2), "a must be float32 or int8, got float64"),
        ("infinite", [np.float64], (2,), "infinite must be finite, got NaN or infinite entries"),
        ("swapped", [np.int32], (2,), "swapped must be int32, got >i4"),
        ("b", [np.float64], (), "b must be there, got nothing"),
    ],
)
def test_what_is_taken_is_checked(tmp_path, name, dtypes, shape, message):
    path = tmp_path / "a.npz"
    arrays = {"a": np.eye(2).T, "infinite": np.array([1, np.inf]), "swapped": np.zeros(2, ">i4"), "text": np.array("t")}
    np.savez(path, **arrays)
    with npz.opened(path, BUDGET) as archive:
        with pytest.raises(ValueError, match=message):
            archive.take(name, dtypes, shape)
        with pytest.raises(ValueError, match=r"a must be a text, got float64 \[2, 2\]"):
            archive.text("a")
        assert archive.take("a", [np.float64], (None, 2)).flags.c_contiguous and archive.text("text") == "t"
        with pytest.raises(ValueError, match=r"arrays must be known ones, got also .*swapped"):
            archive.check_all_taken()
