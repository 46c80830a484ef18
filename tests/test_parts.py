"""That what is drawn is a part, the same for the same draw, and that nothing is left out of a long run."""

import itertools
from types import SimpleNamespace

import pytest

from cases import parts

KINDS = {"kind": range(20), "size": range(3), "seed": range(5), "device": ["cpu"]}  # 300 cases


def case(number, mark, **indices):
    """A test's item: one of its cases."""
    callspec = SimpleNamespace(indices=indices | {"size_too": indices["size"]})
    return SimpleNamespace(nodeid=f"test[{number}]", get_closest_marker={"part": mark}.get, callspec=callspec)


def taken(monkeypatch, draw, share=4, long=False, arguments=("tests",)):
    """The numbers of the cases that a run takes; the others are those that it says it leaves out."""
    monkeypatch.setattr(parts, "DRAW", draw)
    monkeypatch.setattr(parts, "LONG", long)
    indices = itertools.product(*(range(len(values)) for values in KINDS.values()))
    mark = pytest.mark.part(share).mark
    items = [case(n, mark, **dict(zip(KINDS, each, strict=True))) for n, each in enumerate(indices)]
    items.append(SimpleNamespace(nodeid="not marked", get_closest_marker={}.get))
    left_out = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    parts.pytest_collection_modifyitems(SimpleNamespace(args=arguments, hook=hook), items)
    assert items.pop().nodeid == "not marked"
    found = [int(item.nodeid[5:-1]) for item in items]
    assert sorted(found + [int(item.nodeid[5:-1]) for item in left_out]) == list(range(300))
    return found


def test_a_run_takes_a_part_and_a_long_run_all(monkeypatch):
    one, other = taken(monkeypatch, "1"), taken(monkeypatch, "2")
    assert len(one) == len(other) == 75 and one != other and one == taken(monkeypatch, "1")
    assert taken(monkeypatch, "1", long=True) == list(range(300))
    assert taken(monkeypatch, "1", arguments=("tests/test_a.py::test_b[3]",)) == list(range(300))
    seen = set()
    for draw in range(40):
        seen.update(taken(monkeypatch, str(draw)))
    assert seen == set(range(300))


def test_every_value_of_a_parameter_comes(monkeypatch):
    """But not every seed."""
    for draw in range(20):
        found = taken(monkeypatch, str(draw), share=300)
        assert {number // 15 for number in found} == set(range(20))
        assert {number // 5 % 3 for number in found} == set(range(3))
        assert len(found) <= 20


def test_every_value_of_a_parameter_that_is_named_comes(monkeypatch):
    monkeypatch.setattr(parts, "LONG", False)
    family = [SimpleNamespace(callspec=SimpleNamespace(params={"name": n // 3, "form": n})) for n in range(30)]
    for draw in range(20):
        monkeypatch.setattr(parts, "DRAW", str(draw))
        places = parts.covering(parts.kinds(family, of="name"), 2, "test")
        assert len(places) == 15 and {place // 3 for place in places} == set(range(10))


def test_of_one_parameter_some_are_taken(monkeypatch):
    monkeypatch.setattr(parts, "LONG", False)
    drawn = [parts.some("abcdefg", 3, str(name)) for name in range(40)]
    assert all(len(each) == 3 and each == sorted(each) for each in drawn)
    assert {value for each in drawn for value in each} == set("abcdefg")
    monkeypatch.setattr(parts, "LONG", True)
    assert parts.some("abcdefg", 3, "") == list("abcdefg")


def test_examples_are_fewer_in_a_short_run(monkeypatch):
    monkeypatch.setattr(parts, "SCALE", 10)
    for long, want in ((False, 14), (True, 40)):
        monkeypatch.setattr(parts, "LONG", long)
        assert [parts.examples(4), parts.examples(4, 3)] == [40, want]


def test_tests_take_turns_by_file_and_a_named_one_is_run(monkeypatch):
    marks = {"turns": pytest.mark.turns(3).mark}
    costly = [f"{file}.py::test_{n}[{case}]" for file in "ab" for n in range(6) for case in range(2)]
    tests = [*costly, "a.py::test_cheap"]

    def run(draw, *arguments, long=False):
        monkeypatch.setattr(parts, "DRAW", str(draw))
        monkeypatch.setattr(parts, "LONG", long)
        items = [SimpleNamespace(nodeid=name, get_closest_marker=(marks if "[" in name else {}).get) for name in tests]
        hook = SimpleNamespace(pytest_deselected=lambda items: None)
        parts.pytest_collection_modifyitems(SimpleNamespace(args=arguments, hook=hook), items)
        return [item.nodeid for item in items]

    for draw in range(20):
        found = run(draw)
        assert found == run(draw) and found[-1] == "a.py::test_cheap"
        assert [sum(name.startswith(file) for name in found[:-1]) for file in "ab"] == [4, 4]
        assert all(name.replace("[0]", "[1]") in found for name in found)  # with all its cases
    assert {name for draw in range(40) for name in run(draw)} == set(tests)
    assert run(0, "tests", long=True) == run(0, "a.py::test_1") == tests
    assert len(run(0, "a.py")) == 9
