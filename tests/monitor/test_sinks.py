"""Each sink with its real library: what was given to it is read back."""

import csv
import errno
import io
import json
import math
import os
import resource
import struct
import threading

import pytest

from pylinregion import sinks
from pylinregion._util import locks
from pylinregion._util.errors import PylinregionError
from pylinregion.monitor.sinks import CSV, JSONLines, TensorBoard, WandB

FIRST = {"step": 1, "seconds": 0.125, "train/lc": 1 / 3, "train/lc/layer/0,1": 1e-300}
SECOND = {"step": 12, "seconds": 2.5, "train/lc": math.nan, "train/lc/layer/0,1": 7.0}
THIRD = {"step": 13, "seconds": 3.5, "train/lc": -math.inf, "train/lc/layer/0,1": 8.0}


def same(one, other):
    return one.keys() == other.keys() and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_json_lines_are_read_back(tmp_path):
    path = tmp_path / "new" / "folder" / "records.jsonl"
    sink = JSONLines(path)
    sink(FIRST)
    assert JSONLines.read(path) == [FIRST]  # at once, while the sink lives
    sink(SECOND)
    sink(THIRD)
    sink.close()
    first, second, third = JSONLines.read(path)
    assert first == FIRST and same(second, SECOND) and same(third, THIRD | {"train/lc": math.nan})
    lines = path.read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["step"] for line in lines] == [1, 12, 13]  # strict JSON


def test_json_lines_go_on_after_a_kill(tmp_path):
    path = tmp_path / "records.jsonl"
    sink = JSONLines(path)
    for record in (FIRST, SECOND, THIRD):
        sink(record)
    with path.open("a") as file:
        file.write('{"step": 14, "seco')  # killed while writing
    with pytest.warns(UserWarning, match=r"records.jsonl: line 4, the last, was not finished: left it out"):
        assert [record["step"] for record in JSONLines.read(path)] == [1, 12, 13]
    sink = JSONLines(path)
    sink.rewind(12)
    assert [record["step"] for record in JSONLines.read(path)] == [1, 12]
    sink(THIRD)
    assert [record["step"] for record in JSONLines.read(path)] == [1, 12, 13]
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_files_of_another_run_are_not_touched(tmp_path):
    for kind in (JSONLines, CSV):
        path = tmp_path / kind.__name__
        kind(path)(FIRST)
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="has records of another run"):
            kind(path)(SECOND)
        assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [JSONLines, CSV])
@pytest.mark.parametrize("content", [None, b"", b'{"step": 1'])
def test_a_resume_where_nothing_was_written(tmp_path, kind, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    sink = kind(path)
    sink.rewind(5)
    sink(FIRST)
    assert path.read_bytes().startswith(b'{"step": 1, ' if kind is JSONLines else b"step,seconds,")


def test_csv_is_read_back(tmp_path):
    path = tmp_path / "records.csv"
    sink = CSV(path)
    for record in (FIRST, {"step": 2, "train/lc": 0.1}, SECOND):
        sink(record)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(FIRST) and rows[2] == ["2", "", "0.1", ""]
    assert [float(number) for number in rows[1]] == list(FIRST.values())
    assert same(dict(zip(rows[0], map(float, rows[3]), strict=True)), SECOND)
    with pytest.raises(ValueError, match="must have a column for each key, but 'test/lc' was not in its first record"):
        sink({"step": 3, "test/lc": 1.0})
    assert len(path.read_text().splitlines()) == 4


def test_csv_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "records.csv"
    sink = CSV(path)
    for record in (FIRST, SECOND, THIRD):
        sink(record)
    whole = path.read_bytes()
    path.write_bytes(whole + b"14,0.")
    sink = CSV(path)
    sink.rewind(12)
    sink({key: THIRD[key] for key in reversed(THIRD)})  # the columns are those of the file
    assert path.read_bytes() == whole


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard(tmp_path):
    sink = TensorBoard(tmp_path)
    sink(FIRST)
    sink({"step": 5, "train/lc": 0.25})
    found = scalars(tmp_path)  # flushed
    assert found.keys() == {"seconds", "train/lc", "train/lc/layer/0,1"}
    assert found["train/lc"] == [(1, pytest.approx(1 / 3)), (5, 0.25)] and found["seconds"] == [(1, 0.125)]
    sink({"step": 9, "train/lc": 0.5})
    sink.close()

    sink = TensorBoard(tmp_path)
    sink.rewind(5)
    sink({"step": 7, "train/lc": 0.75})
    sink.close()
    assert scalars(tmp_path)["train/lc"] == [(1, pytest.approx(1 / 3)), (5, 0.25), (7, 0.75)]
    sink({"step": 8, "train/lc": 1.0})
    sink.close()
    assert scalars(tmp_path)["train/lc"][-2:] == [(7, 0.75), (8, 1.0)]


KINDS = pytest.mark.parametrize("kind", [JSONLines, CSV])


def lines_of(kind, records, folder):
    """The bytes of a file of records."""
    path = folder / f"wanted-{kind.__name__}"
    path.unlink(missing_ok=True)
    sink = kind(path)
    for record in records:
        sink(record)
    return path.read_bytes()


@KINDS
def test_a_file_that_is_cut_off_anywhere_goes_on_as_a_whole(tmp_path, kind):
    whole = lines_of(kind, (FIRST, SECOND, THIRD), tmp_path)
    path = tmp_path / "records"
    for end in {*range(0, len(whole), 3), *range(len(whole) - 3, len(whole) + 1)}:
        path.write_bytes(whole[:end])
        finished = whole[:end].count(b"\n") - (kind is CSV)
        if kind is JSONLines:
            if whole[:end].endswith(b"\n") or not end:
                assert len(JSONLines.read(path)) == finished
            else:
                with pytest.warns(UserWarning, match=f"line {finished + 1}, the last, was not finished"):
                    assert len(JSONLines.read(path)) == finished
        sink = kind(path)
        sink.rewind(14)
        for record in (FIRST, SECOND, THIRD)[max(finished, 0) :]:
            sink(record)
        assert path.read_bytes() == whole, end


class Full(io.FileIO):
    """A file on a disk with so much room."""

    room = 0

    def write(self, content):
        if not Full.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(content[: Full.room])
        Full.room -= written
        return written


@KINDS
@pytest.mark.parametrize("room", [0, 1, 10, 25])
def test_a_full_disk_takes_whole_records_only(tmp_path, monkeypatch, kind, room):
    """Half a line stayed, the next record was glued to it, and no record of the file could be read any more."""
    path = tmp_path / "records"
    sink = kind(path)
    sink(FIRST)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", lambda self, mode, buffering: Full(self, mode))
        Full.room = room
        with pytest.raises(OSError, match=r"No space left on device.*records") as caught:
            for record in (SECOND, THIRD):  # the first may have room
                sink(record)
        assert caught.value.errno == errno.ENOSPC
    kept = path.read_bytes()
    assert kept in (before, lines_of(kind, (FIRST, SECOND), tmp_path))
    sink(THIRD)
    rows = path.read_bytes()[len(kept) :]
    assert rows.count(b"\n") == 1 and rows == lines_of(kind, (FIRST, THIRD), tmp_path)[len(before) :]


@KINDS
def test_a_limit_of_the_system_is_a_full_disk(tmp_path, kind):
    path = tmp_path / "records"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = kind(path)
    sink(FIRST)
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*records"):
            sink(SECOND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == size
    sink(SECOND)
    assert path.read_bytes() == lines_of(kind, (FIRST, SECOND), tmp_path)


@KINDS
def test_devices_and_pipes_are_written_to(tmp_path, kind):
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        kind("/dev/full")(FIRST)
    sink = kind("/dev/null")
    sink.rewind(3)
    sink(FIRST)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = kind(path)
    sink(FIRST)
    sink(SECOND)
    assert os.read(reader, 10_000) == lines_of(kind, (FIRST, SECOND), tmp_path)
    os.close(reader)


@KINDS
def test_one_of_two_sinks_of_a_file_goes_on(tmp_path, kind):
    path = tmp_path / "records"
    one, other = kind(path), kind(path)
    one(FIRST)
    with pytest.raises(FileExistsError, match="has records of another run"):
        other(FIRST)
    one(SECOND)
    other.rewind(12)  # a run that is resumed while the first one still goes on
    other(THIRD)
    before = path.read_bytes()
    with pytest.raises(PylinregionError, match=r"must end where this run's last record does, after .* another process"):
        one(THIRD)
    assert path.read_bytes() == before == lines_of(kind, (FIRST, SECOND, THIRD), tmp_path)
    path.unlink()
    with pytest.raises(PylinregionError, match="or it was changed or removed"):
        other({**THIRD, "step": 14})


def test_two_runs_do_not_look_at_once(tmp_path, monkeypatch):
    """A run that is just beginning waits for another's first record, and is told that it is there."""
    path, reached, told = tmp_path / "records.jsonl", threading.Event(), []

    def waiting(file):
        reached.set()
        locks.wait_for(file)

    def work():
        with pytest.raises(FileExistsError, match="has records of another run"):
            JSONLines(path)(FIRST)
        told.append(True)

    monkeypatch.setattr(sinks, "wait_for", waiting)
    with path.open("ab", buffering=0) as file:
        locks.wait_for(file)
        run = threading.Thread(target=work)
        run.start()
        assert reached.wait(60)
        file.write(b'{"step": 7}\n')
    run.join()
    assert told and JSONLines.read(path) == [{"step": 7}]


@pytest.mark.parametrize(
    "kind, content, message",
    [
        (JSONLines, b'{"step": 1}\n{"step": 2, "a{"step": 3, "a": 1.5}\n', "line 2 must be a record, got"),
        (JSONLines, b'{"step": 1}\n\n', "line 2 must be a record, got"),
        (JSONLines, b'{"step": 1}\n\xff\n', "line 2 must be a record, got"),
        (JSONLines, b"[" * 100_000 + b"\n", "line 1 must be a record, got"),
        (JSONLines, b"[1]\n", "line 1 must be an object of numbers, got"),
        (JSONLines, b'{"step": 1, "a": "text"}\n', "line 1 must be an object of numbers, got"),
        (CSV, b"step,a\n1,2.5\n2,0.53,1.5\n", "line 3 must be a row of 2 columns with a step, got 3 columns"),
        (CSV, b"step,a\n1,2.5\nx,0.5\n", "line 3 must be a row of 2 columns with a step, got could not"),
        (CSV, b"step,a\n1,2.5\n\n", "line 3 must be a row of 2 columns with a step, got 0 columns"),
        (CSV, b"time,a\n1,2.5\n", "line 1 must be a head with a step, got"),
        (CSV, b"\xff\xfe\n", "line 1 must be a head with a step, got"),
        (CSV, b'step,"a\n1,2.5\n', "line 1 must be a head with a step, got"),
    ],
)
def test_lines_that_are_no_records_are_refused_by_their_number(tmp_path, kind, content, message):
    path = tmp_path / "records"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"records: {message}"):
        kind(path).rewind(100)
    if kind is JSONLines:
        with pytest.raises(ValueError, match=f"records: {message}"):
            JSONLines.read(path)
    assert path.read_bytes() == content


def test_a_resume_may_have_no_step(tmp_path):
    path = tmp_path / "records"
    path.write_bytes(b'{"a": 1}\n')
    assert JSONLines.read(path) == [{"a": 1}]
    with pytest.raises(ValueError, match="records: line 1 must have a step, got none"):
        JSONLines(path).rewind(3)


def test_columns_that_come_with_a_resume(tmp_path):
    """They are refused while there are rows without them, and nothing is written; without rows they are taken."""
    path = tmp_path / "records.csv"
    CSV(path)(FIRST)
    before = path.read_bytes()
    sink = CSV(path)
    sink.rewind(1)
    with pytest.raises(ValueError, match="must have a column for each key, but 'test/lc' was not in its first record"):
        sink({**SECOND, "test/lc": 1.0})
    assert path.read_bytes() == before
    sink.rewind(0)
    sink({"step": 1, "test/lc": 0.5})
    assert path.read_bytes() == b"step,test/lc\n1,0.5\n"
    with pytest.raises(ValueError, match=r"must have keys of one line, got 'a\\nb'"):
        CSV(tmp_path / "other.csv")({"step": 1, "a\nb": 2.0})


def test_a_file_with_nothing_to_drop_is_not_written_again(tmp_path):
    path = tmp_path / "records"
    JSONLines(path)(FIRST)
    before = path.stat()
    JSONLines(path).rewind(1)
    assert path.stat() == before


def wandb_records(path):
    """The records of an offline run's file: LevelDB's log format, after 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:  # no header begins so near the end of a block
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            yield record
            part = b""


def test_weights_and_biases(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    sink = WandB()
    with pytest.raises(RuntimeError, match="the WandB sink needs a run"):
        sink(FIRST)
    run = wandb.init(mode="offline", dir=str(tmp_path), project="test")
    run.log({"own": 1.0})
    sink(FIRST)
    run.log({"own": 2.0})
    WandB(run)({"step": 5, "train/lc": 0.25})
    run.finish()
    wandb.teardown()  # the file is complete when its process has ended

    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    records = list(wandb_records(path))
    rows = [
        {i.nested_key[0]: json.loads(i.value_json) for i in r.history.item} for r in records if r.HasField("history")
    ]
    logged = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    assert logged == [{"own": 1.0}, FIRST, {"own": 2.0}, {"step": 5, "train/lc": 0.25}]
    metrics = {record.metric.name: record.metric.step_metric for record in records if record.HasField("metric")}
    assert metrics == {key: "step" for key in FIRST if key != "step"}
