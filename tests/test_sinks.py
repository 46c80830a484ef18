"""Each sink with its real library: what was given to it is read back."""

import csv
import json
import math
import struct

import pytest

from pylinregion.sinks import CSV, JSONLines, TensorBoard, WandB

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
