"""Files that are replaced: whole, in their place, with their permissions, and whatever stands there."""

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pylinregion._util import npz
from pylinregion._util.whole_files import check_replaceable, create_file, is_part, replace_file

# Processes of their own import these two modules and nothing else of the package: that takes a moment, not seconds.
MODULES = f"""
import importlib.util, os, signal, sys
from pathlib import Path
def module(name):
    spec = importlib.util.spec_from_file_location(name, {str(Path(npz.__file__).parent)!r} + f"/{{name}}.py")
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
replace_file, create_file = module("whole_files").replace_file, module("whole_files").create_file
"""


def run(code, **options):
    return subprocess.run([sys.executable, "-c", MODULES + code], text=True, **{"check": True} | options)


def put(content):
    return lambda file: file.write(content)


def test_a_file_is_made_and_replaced_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "a"
    replace_file(path, put(b"old"))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    for mode in (0o600, 0o644, 0o664, 0o755):
        path.chmod(mode)
        replace_file(str(path), put(b"new"))
        assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.getuid() != 0, reason="only root writes files of others")
def test_a_file_keeps_its_owner(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    replace_file(path, put(b"new"))
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_what_a_link_names_is_replaced(tmp_path):
    """Once the link itself was replaced, and the file that it named was not written."""
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    (tmp_path / "link").symlink_to(Path("folder") / "target")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "link")
    for content in (b"made", b"replaced"):  # first it names nothing
        replace_file(tmp_path / "folder" / "link", put(content))
        assert target.read_bytes() == content and not target.is_symlink()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "link").is_symlink()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop") as caught:
        replace_file(tmp_path / "loop", put(b""))
    assert caught.value.errno == errno.ELOOP


def test_a_pipe_is_written_to(tmp_path):
    """Archives and figures, too, which are gone back to in a file."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    arrays = {"a": np.arange(3000), "b": np.array("text")}
    replace_file(path, lambda file: npz.write(file, arrays, {}))
    reader.join()
    with np.load(io.BytesIO(found[0])) as file:
        assert np.array_equal(file["a"], arrays["a"]) and file["b"] == "text"
    assert stat.S_ISFIFO(path.stat().st_mode) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"some text", b"x" * 100_000])
def test_a_device_stays_one(tmp_path, content):
    """``--out /dev/full`` once made a file of a device, and was done."""
    link = tmp_path / "device"
    link.symlink_to("/dev/null")
    replace_file(link, put(content))
    link.unlink()
    link.symlink_to("/dev/full")
    for path in (link, Path("/dev/full")):
        if content:
            with pytest.raises(OSError, match=str(path)) as caught:
                replace_file(path, put(content))
            assert caught.value.errno == errno.ENOSPC
        assert stat.S_ISCHR(Path("/dev/full").stat().st_mode) and stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert list(tmp_path.iterdir()) == [link]


@pytest.mark.parametrize("to_file", [False, True])
def test_standard_output_is_written_to(tmp_path, to_file):
    code = "print('one', flush=True); replace_file('/dev/stdout', lambda file: file.write(b'two'))"
    path = tmp_path / "file"
    with path.open("wb") as file:
        ran = run(code, stdout=file if to_file else subprocess.PIPE)
    assert (path.read_text() if to_file else ran.stdout) == "one\ntwo"
    assert list(tmp_path.iterdir()) == [path]


def refused(path, number, content=b"new"):
    """It fails with that number, names the path, and leaves everything as it was."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else None
    for write in (lambda: replace_file(path, put(content)), lambda: check_replaceable(path)):
        with pytest.raises(OSError, match=path.name) as caught:
            write()
        assert caught.value.errno == number and caught.value.filename == str(path)
    assert before is None or sorted(path.parent.iterdir()) == before


def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path):
    refused(tmp_path / "missing" / "a", errno.ENOENT)
    (tmp_path / "file").write_bytes(b"old")
    refused(tmp_path / "file" / "a", errno.ENOTDIR)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", errno.EISDIR)
    (tmp_path / "link").symlink_to("folder")
    refused(tmp_path / "link", errno.EISDIR)


def test_what_may_not_be_written_is_not(tmp_path):
    """By a process that is not root's, in a folder of its own."""
    code = """
check_replaceable = module("whole_files").check_replaceable
if os.getuid() == 0:
    os.chown(".", 65534, 65534)
    os.setgid(65534), os.setuid(65534)
def refused(path):
    for write in (lambda: replace_file(path, lambda file: file.write(b"new")), lambda: check_replaceable(path)):
        try:
            write()
        except PermissionError as error:
            assert error.filename == str(path), error
        else:
            raise AssertionError(path)
path = Path("a")
path.write_bytes(b"old")
path.chmod(0o400)
refused(path)
path.chmod(0o600)
os.chmod(".", 0o500)
refused(path)
refused(Path("b"))
os.chmod(".", 0o700)
assert path.read_bytes() == b"old" and os.listdir() == ["a"]
"""
    run(code, cwd=tmp_path)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = f"""
import resource
import numpy as np
npz = module("npz")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda file: file.write(bytes(100_000)), lambda file: npz.write(file, {{"a": np.zeros(9999)}}, {{}})):
    for function, path in ((replace_file, {str(path)!r}), (create_file, {str(tmp_path / "b")!r})):
        try:
            function(Path(path), write)
        except OSError as error:
            assert error.filename == path, error
            print(error.errno)
"""
    ran = run(code, capture_output=True)
    assert ran.stdout.split() == [str(errno.EFBIG)] * 4
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_and_a_kill_leave_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, interrupted)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    code = f"""
def killed(file):
    file.write(b"new" * 100_000)
    os.kill(os.getpid(), signal.SIGKILL)
replace_file(Path({str(path)!r}), killed)
"""
    assert run(code, check=False).returncode == -signal.SIGKILL
    left = [other.name for other in tmp_path.iterdir() if other != path]
    assert path.read_bytes() == b"old" and len(left) == 1 and is_part(left[0])


def test_a_long_name_is_as_good(tmp_path):
    path = tmp_path / ("a" * 255)
    replace_file(path, put(b"new"))
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_makes_a_file(tmp_path, monkeypatch, links):
    path = tmp_path / "a"

    def no_link(part, path):
        raise PermissionError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
        create_file(path, put(b"0"))
    makers, start, made = 8, threading.Barrier(8), []

    def make(number):
        start.wait()
        try:
            create_file(path, put(str(number).encode() * 1000))
            made.append(number)
        except FileExistsError as error:
            assert error.filename == str(path)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(makers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == links and path.read_bytes() == (str(made[0]).encode() * 1000 if links else b"0")
    assert list(tmp_path.iterdir()) == [path]
