"""The monitor in a process that is killed and resumed; for those that train together see test_monitor_ranks.py."""

import signal

from cases.monitor import values
from cases.processes import run
from pylinregion.monitor.sinks import JSONLines

TRAIN = """
import os, signal, sys
from pathlib import Path
import torch
from cases.monitor import RADIUS, Run, probes
import pylinregion as plr
from pylinregion.monitor.sinks import CSV, JSONLines

folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
run, checkpoint = Run(), folder / "checkpoint.pt"
sinks = [JSONLines(folder / "records.jsonl"), CSV(folder / "records.csv")]
monitor = plr.Monitor(
    run.model, probes(), RADIUS, n_directions=4, every=[1, 2, 4, 6, 9, 10, 13, 14, 18], budget=None, sink=sinks
)
if checkpoint.exists():
    model, optimiser, chance, watched = torch.load(checkpoint)
    run.model.load_state_dict(model), run.optimiser.load_state_dict(optimiser)
    torch.set_rng_state(chance), monitor.load_state_dict(watched)
while monitor.steps < 20:
    run.step()
    monitor.step()
    if monitor.steps % 5 == 0:
        state = run.model.state_dict(), run.optimiser.state_dict(), torch.get_rng_state(), monitor.state_dict()
        torch.save(state, folder / "part")
        (folder / "part").replace(checkpoint)
    if monitor.steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_killed_and_resumed_gives_the_same_records(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    ended = run(TRAIN, whole, -1, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    expected = [values(record) for record in JSONLines.read(whole / "records.jsonl")]
    assert [record["step"] for record in expected] == [1, 2, 4, 6, 9, 10, 13, 14, 18]

    killed = run(TRAIN, parts, 14, cwd=tmp_path)  # between the checkpoint of step 10 and the next
    assert killed.returncode == -signal.SIGKILL
    assert [values(record) for record in JSONLines.read(parts / "records.jsonl")] == expected[:8]
    with (parts / "records.jsonl").open("a") as file:
        file.write('{"step": 14, "sec')  # it might have been killed here
    ended = run(TRAIN, parts, -1, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [values(record) for record in JSONLines.read(parts / "records.jsonl")] == expected
    tables = [(folder / "records.csv").read_text().splitlines() for folder in (whole, parts)]
    assert [row.split(",")[2:] for row in tables[0]] == [row.split(",")[2:] for row in tables[1]]
