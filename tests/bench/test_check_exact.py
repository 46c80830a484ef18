"""The long run of ``bench/check_exact.py`` goes on where it stopped, and reports what differs."""

import importlib.util
import json
from pathlib import Path

from cases import engine as engine_cases


def test_the_long_run_continues_and_reports_what_differs(tmp_path, monkeypatch, capsys):
    bench = Path(__file__).resolve().parents[2] / "bench"
    monkeypatch.syspath_prepend(str(bench))
    spec = importlib.util.spec_from_file_location("long_run", bench / "check_exact.py")
    long_run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(long_run)
    arguments = ["--networks", "6", "--first", "40", "--out", str(tmp_path)]
    assert long_run.main([*arguments, "--minutes", "0"]) == 0
    saved = json.loads((tmp_path / "oracle-40-6.json").read_text())
    assert saved["done"] == 1 and saved["mismatches"] == []

    compare = long_run.one

    def wrong(seed, family):
        if seed == 43:
            raise engine_cases.Difference("regions", 1, 2)
        return compare(seed, family)

    monkeypatch.setattr(long_run, "one", wrong)
    assert long_run.main(arguments) == 1
    saved = json.loads((tmp_path / "oracle-40-6.json").read_text())
    assert saved["done"] == 6 and [mismatch["seed"] for mismatch in saved["mismatches"]] == [43]
    assert sum(group["networks"] for group in saved["sums"]["kind"].values()) == 6
    assert "python bench/check_exact.py --seed 43" in capsys.readouterr().out
    assert long_run.main([*arguments, "--maxima"]) == 1
    assert json.loads((tmp_path / "oracle-maxima-40-6.json").read_text())["mismatches"][0]["seed"] == 43
    assert "python bench/check_exact.py --maxima --seed 43" in capsys.readouterr().out
    assert long_run.main([*arguments[:3], "43", *arguments[4:], "--networks", "2", "--layers"]) == 1
    saved = json.loads((tmp_path / "oracle-layers-43-2.json").read_text())
    assert saved["done"] == 2 and saved["mismatches"][0]["seed"] == 43
    assert sum(group["networks"] for group in saved["sums"]["slice"].values()) == 2
    assert "python bench/check_exact.py --layers --seed 43" in capsys.readouterr().out
