import torch

from astarpo.training.sharding import OneProcess


def test_one_process_has_all_of_the_work():
    where = OneProcess(torch.device("cpu"))
    items = ["a", "b", "c"]
    mine = where.share([5, 1, 3])
    assert where.gather([items[i] for i in mine]) == items
    assert where.agree(0.5) == 0.5
    assert [where.any(flag) for flag in (True, False)] == [True, False]
    assert (where.rank, where.size, where.is_first) == (0, 1, True)
