"""Patterns by the lines that change, against the rows of all bits."""

import numpy as np
import pytest

from pylinregion.exact.pattern_table import PatternTable, bits_at, changing_lines, names_of_rows, states


def both(lines, own, regions, seed=0):
    """A table and the bits ``[regions, lines]`` that it stands for."""
    rng = np.random.default_rng([lines, own, regions, seed])
    bits = np.tile(rng.integers(0, 2, lines), (regions, 1)).astype(np.uint8)
    changing = np.sort(rng.choice(lines, own, replace=False))
    bits[:, changing] = rng.integers(0, 2, (regions, own))
    everywhere = rng.integers(0, 2, lines) if not regions else bits[0].copy()
    everywhere[changing] = 0
    pack = lambda rows: np.packbits(rows.astype(np.uint8), axis=-1, bitorder="little")  # noqa: E731
    return PatternTable(pack(everywhere), changing, pack(bits[:, changing])), bits


@pytest.fixture(params=[(1, 1, 3), (8, 0, 4), (8, 8, 5), (9, 3, 6), (70, 17, 40), (64, 64, 9), (33, 9, 1), (20, 5, 0)])
def case(request):
    return both(*request.param)


def test_rows(case):
    table, bits = case
    packed = np.packbits(bits, axis=1, bitorder="little")
    assert table.shape == packed.shape and len(table) == len(packed) and table.dtype == packed.dtype
    assert np.array_equal(table[:], packed) and np.array_equal(np.asarray(table), packed)
    assert np.array_equal(np.asarray(table, dtype=np.int64), packed)
    rows = list(table)
    assert len(rows) == len(packed) and all(np.array_equal(a, b) for a, b in zip(rows, packed, strict=True))
    for which in (slice(1, 3), slice(None, None, -2), np.arange(len(packed))[::-1], np.arange(len(packed)) % 2 == 0):
        assert np.array_equal(table[which], packed[which])
    for region in range(-len(packed), len(packed)):
        assert np.array_equal(table[region], packed[region])
    with pytest.raises(IndexError):
        table[len(packed)]


def test_rows_in_steps(case, monkeypatch):
    monkeypatch.setattr("pylinregion.exact.pattern_table._BYTES_AT_ONCE", 1)
    table, bits = case
    assert np.array_equal(np.array(list(table), np.uint8).reshape(table.shape), table[:])
    assert len(list(table)) == len(bits)


def test_bits_of_lines(case):
    table, bits = case
    packed = np.packbits(bits, axis=1, bitorder="little")
    lines = bits.shape[1]
    rng = np.random.default_rng(0)
    for some in (np.arange(lines), rng.integers(0, lines, 30), np.zeros(0, np.int64), table.lines):
        for patterns in (table, packed):
            assert np.array_equal(bits_at(patterns, some), bits[:, some])
    if len(bits):
        regions, some = rng.integers(0, len(bits), 50), rng.integers(0, lines, 50)
        for patterns in (table, packed):
            assert np.array_equal(states(patterns, regions, some), bits[regions, some])


def test_lines_that_change(case):
    table, bits = case
    packed = np.packbits(bits, axis=1, bitorder="little")
    expected = np.flatnonzero((bits != bits[:1]).any(axis=0))
    assert np.array_equal(changing_lines(table, bits.shape[1]), expected)
    if len(bits):
        assert np.array_equal(changing_lines(packed, bits.shape[1]), expected)


def test_names_are_equal_where_patterns_are(case):
    table, bits = case
    packed = np.packbits(bits, axis=1, bitorder="little")
    ours, theirs = names_of_rows(table), names_of_rows(packed)
    assert len(ours) == len(bits)
    assert [[a == b for b in ours] for a in ours] == [[a == b for b in theirs] for a in theirs]


def test_a_table_is_not_changed(case):
    for array in (case[0].everywhere, case[0].lines, case[0].bits):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
