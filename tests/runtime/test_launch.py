import pytest

from astarpo.cli import main
from astarpo.runtime.launch import Launch, is_first_rank, rank_timeout, read_launch
from astarpo.types import UserError

RANK_1_OF_4 = {
    "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


def test_one_process_is_the_first_whatever_else_is_set():
    for env in ({}, {"WORLD_SIZE": "1"}, {"RANK": "3"}, {"WORLD_SIZE": "1", "RANK": "x"}):
        assert read_launch(env) == Launch(rank=0, size=1, local_rank=0, local_size=1)
        assert is_first_rank(env)


def test_what_torchrun_sets():
    assert read_launch(RANK_1_OF_4) == Launch(rank=1, size=4, local_rank=1, local_size=2)
    assert not is_first_rank(RANK_1_OF_4)
    assert is_first_rank(RANK_1_OF_4 | {"RANK": "0"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"RANK": ""}, "RANK is not set: start with torchrun"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
        ({"RANK": "4"}, "RANK is 4 and WORLD_SIZE 4"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
    ],
)
def test_what_does_not_fit(change, says):
    with pytest.raises(UserError, match=says):
        read_launch(RANK_1_OF_4 | change)


def test_a_world_size_alone_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (["train", "--out", "x"], ["runs", "."]):
        assert main(words) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1
        assert told[0].startswith("astarpo: WORLD_SIZE is 2 and RANK is not set")
    monkeypatch.delenv("WORLD_SIZE")  # what the line says to do
    assert main(["--version"]) == 0


def test_a_rank_timeout_of_ones_own():
    assert rank_timeout({}) == 1800
    assert rank_timeout({"ASTARPO_RANK_TIMEOUT": "2.5"}) == 2.5
    for text in ("soon", "0", "-1", "inf"):
        with pytest.raises(UserError, match="ASTARPO_RANK_TIMEOUT is"):
            rank_timeout({"ASTARPO_RANK_TIMEOUT": text})
