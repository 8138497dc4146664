from dataclasses import dataclass

import pytest

from astarpo.training.scoring import turns


@dataclass
class Rank:
    rank: int
    size: int


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (1, 4), (5, 1)])
def test_processes_take_turns_equally_often_and_each_part_counts_once(count, size):
    parts = [f"part {i}" for i in range(count)]
    taken = [list(turns(parts, Rank(rank, size))) for rank in range(size)]
    assert {len(each) for each in taken} == {-(-count // size)}
    counted = sorted((turn.number, turn.part) for each in taken for turn in each if turn.weight)
    assert counted == list(enumerate(parts))
    for each in taken:
        assert [turn.is_last for turn in each] == [False] * (len(each) - 1) + [True]
