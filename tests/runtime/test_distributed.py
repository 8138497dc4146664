import torch

from astarpo.runtime.distributed import OneProcess
from astarpo.runtime.shares import shares


def test_one_process_has_all_of_the_work():
    where = OneProcess(torch.device("cpu"))
    items = ["a", "b", "c"]
    mine = where.share([5, 1, 3])
    assert where.gather([items[i] for i in mine]) == items
    assert where.agree(0.5) == 0.5
    assert [where.any(flag) for flag in (True, False)] == [True, False]
    assert (where.rank, where.size, where.is_first) == (0, 1, True)


def test_shares_are_neighbours_that_cover_all_items_and_weigh_about_the_same():
    for lengths in ([5] * 10, [1, 1, 1, 1, 20], [20, 1, 1], [0, 0, 0], [], [3]):
        for size in (1, 2, 3, 7):
            parts = shares(lengths, size)
            assert len(parts) == size
            assert [i for part in parts for i in part] == list(range(len(lengths)))
            most = max(sum(lengths[i] for i in part) for part in parts)
            assert most <= sum(lengths) / size + max(lengths, default=0)
    assert sorted(len(part) for part in shares([7] * 10, 4)) == [2, 2, 3, 3]
