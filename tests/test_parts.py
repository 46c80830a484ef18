"""That what is drawn is a part, the same for the same draw, and that nothing is left out of a long run."""

from types import SimpleNamespace

import pytest

from cases import parts


def taken(monkeypatch, draw, long=False, arguments=("tests",)):
    """The numbers of the cases, of 300, that a run takes, and those that it says it leaves out."""
    monkeypatch.setattr(parts, "DRAW", draw)
    monkeypatch.setattr(parts, "LONG", long)
    marks = {"part": pytest.mark.part(4).mark}
    items = [SimpleNamespace(nodeid=str(number), get_closest_marker=marks.get) for number in range(300)]
    items.append(SimpleNamespace(nodeid="not marked", get_closest_marker={}.get))
    left_out = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    parts.pytest_collection_modifyitems(SimpleNamespace(args=arguments, hook=hook), items)
    assert items[-1].nodeid == "not marked"
    found = [int(item.nodeid) for item in items[:-1]]
    assert sorted(found + [int(item.nodeid) for item in left_out]) == list(range(300))
    return found


def test_a_run_takes_a_part_and_a_long_run_all(monkeypatch):
    one, other = taken(monkeypatch, "1"), taken(monkeypatch, "2")
    assert 50 < len(one) < 100 and one != other and one == taken(monkeypatch, "1")
    assert taken(monkeypatch, "1", long=True) == list(range(300))
    assert taken(monkeypatch, "1", arguments=("tests/test_a.py::test_b[3]",)) == list(range(300))
    seen = set()
    for draw in range(40):
        seen.update(taken(monkeypatch, str(draw)))
    assert seen == set(range(300))


def test_examples_are_fewer_in_a_short_run(monkeypatch):
    monkeypatch.setattr(parts, "SCALE", 10)
    for long, want in ((False, 14), (True, 40)):
        monkeypatch.setattr(parts, "LONG", long)
        assert [parts.examples(4), parts.examples(4, 3)] == [40, want]
