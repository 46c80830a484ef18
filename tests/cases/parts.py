"""Of tests with very many cases a run takes a part, drawn anew each time; a long run takes all.

``@pytest.mark.part(k)`` is for tests with parameters: about one of k of their cases is run. The number of the draw is
printed; ``PYLINREGION_TEST_DRAW`` set to it draws the same again. ``PYLINREGION_TEST_LONG=1`` takes all cases; where
cases are named on the command line, none is left out. ``PYLINREGION_TEST_SCALE=10`` makes ten times as many of the
random ones.
"""

import os
import random

import pytest

LONG = os.environ.get("PYLINREGION_TEST_LONG") == "1"
SCALE = int(os.environ.get("PYLINREGION_TEST_SCALE", "1"))
DRAW = os.environ.setdefault("PYLINREGION_TEST_DRAW", str(random.SystemRandom().randrange(10**6)))  # also of workers


def examples(count: int, share: int = 1) -> int:
    """Of hypothesis: so many in a long run, one of ``share`` else."""
    return count * SCALE if LONG else -(-count * SCALE // share)


def drawn(case: str, share: int) -> bool:
    """Whether this run takes the case; it does about one of ``share``."""
    return LONG or random.Random(f"{DRAW} {case}").random() < 1 / share


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not drawn."""
    if any("[" in argument for argument in config.args):
        return
    taken: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("part")
        (taken if mark is None or drawn(item.nodeid, *mark.args) else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = taken


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how to draw the same again."""
    if not LONG:
        terminalreporter.write_line(f"cases were drawn by PYLINREGION_TEST_DRAW={DRAW}; PYLINREGION_TEST_LONG=1: all")
