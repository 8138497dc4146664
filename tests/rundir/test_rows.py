import json
import string

import pytest

from astarpo.rundir.rows import append_row, read_rows, write_rows

ROWS = [{"step": i, "reward": 0.1 * i, "name": "é", "nothing": None} for i in range(1, 4)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rows(path, ROWS[:2])
    append_row(path, ROWS[2])
    return path


def test_rows_come_back_as_they_were(path):
    assert read_rows(path) == (ROWS, [])
    assert [set(json.loads(line)) - set(ROWS[0]) for line in path.read_text().splitlines()] == [
        {"check"}
    ] * 3
    assert read_rows(path.with_name("none.jsonl")) == ([], [])


def test_no_flipped_byte_passes_unseen(path):
    data = path.read_bytes()
    for place in range(len(data)):
        for flip in (0x01, 0x20, 0xFF):
            path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
            rows = read_rows(path)
            # Harmless only where values are as they were: another kind of space, the word `check`.
            same = [{k: row.get(k) for k in ROWS[0]} for row in rows.whole] == ROWS
            assert rows.damaged or same, (place, flip)
            assert all({k: row.get(k) for k in ROWS[0]} in ROWS for row in rows.whole)


def test_half_a_line_is_damage_and_costs_no_other(path):
    path.write_bytes(path.read_bytes()[:-30])
    assert read_rows(path) == (ROWS[:2], [3])


def test_rows_of_other_origin_need_no_checksum(path):
    path.write_text('{"step": 1}\n' + string.punctuation + "\n[1]\n")
    assert read_rows(path) == ([{"step": 1}], [2, 3])
