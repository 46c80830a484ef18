"""Of tests with very many cases a run takes a part, drawn anew each time; a long run takes all.

``@pytest.mark.part(k)`` is for tests with parameters: about one of k of their cases is run, and every value of each
parameter in one of them (of one parameter alone, and of one called ``seed``, any); with ``of="name"``, every value of
that parameter. ``@pytest.mark.turns(k)`` is for tests that start whole programs, say: of those in a file about one of k
is run, with all its cases. The number of the draw is printed; ``PYLINREGION_TEST_DRAW`` set to it draws the same again.
``PYLINREGION_TEST_LONG=1`` takes all; what is named on the command line is not left out.
``PYLINREGION_TEST_SCALE=10`` makes ten times as many of the random ones.
"""

import os
import random
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

import pytest

LONG = os.environ.get("PYLINREGION_TEST_LONG") == "1"
SCALE = int(os.environ.get("PYLINREGION_TEST_SCALE", "1"))
DRAW = os.environ.setdefault("PYLINREGION_TEST_DRAW", str(random.SystemRandom().randrange(10**6)))  # also of workers

T = TypeVar("T")


def examples(count: int, share: int = 1) -> int:
    """Of hypothesis: so many in a long run, one of ``share`` else."""
    return count * SCALE if LONG else -(-count * SCALE // share)


def some(values: Sequence[T], share: int, name: str) -> list[T]:
    """All of them in a long run; else one of ``share``, rounded up, in their order. ``name`` tells draws apart."""
    places = covering([()] * len(values), share, name)
    return [value for place, value in enumerate(values) if place in places]


def covering(cases: Sequence[Sequence[Hashable]], share: int, name: str) -> set[int]:
    """The places of about one of ``share`` cases, among them one of each value at each place of a case."""
    if LONG:
        return set(range(len(cases)))
    order = random.Random(f"{DRAW} {name}").sample(range(len(cases)), len(cases))
    taken: set[int] = set()
    seen: set[tuple[int, Hashable]] = set()
    for enough in (all, any):  # first the cases all of whose values are new
        for place in order:
            values = set(enumerate(cases[place]))
            if enough(value not in seen for value in values) and values - seen:
                taken.add(place)
                seen |= values
    left = [place for place in order if place not in taken]
    return taken | set(left[: max(0, -(-len(cases) // share) - len(taken))])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not drawn."""
    if any("[" in argument for argument in config.args):
        return
    families = {test: list(each) for test, each in groupby(items, lambda item: item.nodeid.partition("[")[0])}
    named = any("::" in argument for argument in config.args)
    waiting = set() if named else waiting_for_a_turn({test: family[0] for test, family in families.items()})
    taken: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for test, family in families.items():
        mark = family[0].get_closest_marker("part")
        places = set(range(len(family))) if mark is None else covering(kinds(family, **mark.kwargs), *mark.args, test)
        for place, item in enumerate(family):
            (taken if place in places and test not in waiting else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = taken


def waiting_for_a_turn(tests: Mapping[str, pytest.Item]) -> set[str]:
    """Those, by name, that this run leaves out."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, item in tests.items():
        if (mark := item.get_closest_marker("turns")) is not None:
            groups.setdefault((name.partition("::")[0], *mark.args), []).append(name)
    run = {name for (file, share), names in groups.items() for name in some(names, share, file)}
    return {name for names in groups.values() for name in names} - run


def kinds(family: list[pytest.Item], of: str | None = None) -> list[tuple[Hashable, ...]]:
    """Which values of its parameters each case has, of all that must come."""
    if of is not None:
        return [(item.callspec.params[of],) for item in family]
    names = [name for name in family[0].callspec.indices if name != "seed"]
    columns = {tuple(item.callspec.indices[name] for item in family) for name in names}  # of names together, one
    columns = sorted(column for column in columns if len(set(column)) > 1)
    return list(zip(*columns, strict=True)) if len(columns) > 1 else [()] * len(family)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how to draw the same again."""
    if not LONG:
        terminalreporter.write_line(f"cases were drawn by PYLINREGION_TEST_DRAW={DRAW}; PYLINREGION_TEST_LONG=1: all")
