"""The script of stock networks, with networks that need no library but torch."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import pylinregion as plr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import stock_networks
from stock_networks import Stock


class Gated(nn.Module):
    def forward(self, x):
        return x * x.relu()


def dense(small):
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


STOCK = (
    Stock("torch", "dense", dense, (6,), (6,)),
    Stock("torch", "gated", lambda small: Gated(), (6,), (6,), "mul .*multiplies two values"),
    Stock("torch", "smooth", lambda small: nn.Sequential(nn.Linear(6, 2), nn.GELU()), (6,), (6,)),
    Stock("no such library", "anything", dense, (6,), (6,)),
)


@pytest.fixture
def here(monkeypatch):
    """These networks, in this process."""
    monkeypatch.setattr(stock_networks, "STOCK", STOCK)
    monkeypatch.setattr(
        stock_networks, "asked", lambda stock, chosen: [*stock_networks.measured(stock, True, 5.0, chosen.points)][-1]
    )


def test_networks_are_counted_and_refusals_compared(here, tmp_path, capsys):
    assert stock_networks.main(["--points", "100", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "| torch smooth" in said.out and "refused (!)" in said.out and "no such library is not installed" in said.err
    dense, gated, smooth = json.loads(next(tmp_path.glob("*.json")).read_text())["stock"]
    assert dense["right"] and dense["outcome"] == "counted" and dense["regions"] >= dense["cells"] > 3
    assert gated["right"] and gated["outcome"] == "refused" and "regions" not in gated
    assert not smooth["right"] and "gelu" in smooth["said"]
    assert stock_networks.main(["--only", "dense", "gated", "--points", "10", "--out", str(tmp_path)]) == 0


def test_an_interrupt_keeps_what_was_measured(here, tmp_path, monkeypatch):
    measure = stock_networks.asked

    def until_gated(stock, chosen):
        if stock.name == "gated":
            raise KeyboardInterrupt
        return measure(stock, chosen)

    monkeypatch.setattr(stock_networks, "asked", until_gated)
    assert stock_networks.main(["--points", "100", "--out", str(tmp_path)]) == 1
    (row,) = json.loads(next(tmp_path.glob("*.json")).read_text())["stock"]
    assert row["network"] == "torch dense" and row["right"]


def test_what_was_found_before_the_time_was_over_is_kept(monkeypatch, tmp_path, capsys):
    slow = (
        "import json, sys, time; print(json.dumps({'regions': 7, 'outcome': 'unfinished'}), flush=True); time.sleep(60)"
    )
    (tmp_path / "slow.py").write_text(slow)
    monkeypatch.setattr(stock_networks, "__file__", str(tmp_path / "slow.py"))
    monkeypatch.setattr(stock_networks, "STOCK", STOCK[:1])
    assert stock_networks.main(["--seconds", "2", "--out", str(tmp_path)]) == 1
    assert "| 7 " in (said := capsys.readouterr().out) and "torch dense: not done after 2 s" in said


def test_wrong_counts_are_failures(here, monkeypatch, tmp_path, capsys):
    counted = plr.partition

    def wrong(model, slice_, *, cells=True):
        part = counted(model, slice_, cells=cells)
        with torch.no_grad():
            model[0].bias += 3 * cells
        return part

    monkeypatch.setattr(plr, "partition", wrong)
    assert stock_networks.main(["--only", "dense", "--points", "100", "--out", str(tmp_path)]) == 1
    assert "torch dense: Disagreement: at [" in capsys.readouterr().out
