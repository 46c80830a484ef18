"""The examples of docs/monitor.md, run in order; what they print is what the page says."""

import contextlib
import io
import re
from pathlib import Path

import pylinregion as plr
from pylinregion.monitor.metrics import NAMED

PAGE = (Path(__file__).parents[2] / "docs" / "monitor.md").read_text(encoding="utf-8")


def test_examples_print_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", PAGE, flags=re.DOTALL)
    assert len(blocks) == 5
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/monitor.md", "exec"), names)
        assert printed.getvalue() == expected


def test_the_page_has_every_measure_and_sink():
    for name in (*NAMED, "JSONLines", "CSV", "TensorBoard", "WandB"):
        assert name in PAGE
        if name not in NAMED:
            assert issubclass(getattr(plr.sinks, name), plr.sinks.Sink)
