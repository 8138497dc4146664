"""Ranks that wait for each other, here as threads of one process over a store in its memory."""

import threading
import time

import pytest
from torch.distributed import HashStore

from astarpo.runtime import peers as module
from astarpo.runtime.peers import PeerLate, PeerLost, Peers


@pytest.fixture
def pair(monkeypatch):
    monkeypatch.setattr(module, "_PERIOD_S", 0.05)
    store = HashStore()
    both = [Peers(store.clone(), rank, 2, timeout_s=0.6) for rank in (0, 1)]
    yield both
    for each in both:
        each.close()


def test_a_meeting_begins_once_all_have_come(pair):
    came = []

    def come_late() -> None:
        for number in range(3):
            time.sleep(0.1)
            came.append(number)
            pair[1].meet()

    late = threading.Thread(target=come_late)
    late.start()
    for number in range(3):
        pair[0].meet()
        assert number in came
    late.join()


def test_patience_ends_and_the_meeting_is_still_the_same(pair):
    with pytest.raises(PeerLate):
        pair[0].meet(patience_s=0.1)
    pair[1].meet()  # Both have come.
    pair[0].meet(patience_s=0.1)


def test_a_rank_without_a_sign_of_life_is_dead(pair):
    pair[1]._closed.set()  # as a killed process shows nothing
    with pytest.raises(PeerLost, match="rank 1 is dead"):
        pair[0].meet()


def test_a_rank_that_lives_and_does_nothing_hangs(pair, monkeypatch):
    # Signs of life belong to the process, which both share: what rank 1 shows is held still here.
    monkeypatch.setattr(module.stopping, "signs_of_life", lambda: 7)
    with pytest.raises(PeerLost, match=r"rank 1 hangs.*ASTARPO_RANK_TIMEOUT"):
        pair[0].meet()


def test_one_rank_alone_claims_what_is_to_be_done_once(pair):
    assert [each.is_first_to("tell") for each in pair] == [True, False]
    assert pair[1].is_first_to("something else")
