import os
import signal
import threading

import pytest

from astarpo.checkpoint import CheckpointClock
from astarpo.stopping import StopRequested, StopSignal, check_stop


def test_a_signal_is_seen_where_work_looks_for_it():
    before = signal.getsignal(signal.SIGTERM)
    check_stop()
    with StopSignal() as stop:
        check_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        check_stop(grace_s=60.0)
        with pytest.raises(StopRequested):
            check_stop()
        assert signal.getsignal(signal.SIGTERM) is before  # a second one acts as it always does
    check_stop()
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_has_no_signals_to_handle():
    seen = []

    def work() -> None:
        with StopSignal() as stop:
            check_stop()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_checkpoints_are_due_by_steps_and_by_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = CheckpointClock(every_steps=50, every_minutes=5)
    assert [step for step in range(1, 101) if clock.is_due(step)] == [50, 100]
    now[0] = 299.0
    assert not clock.is_due(3)
    now[0] = 300.0
    assert clock.is_due(3)
    clock.saved(took_s=60.0)  # Of a large model: no more than a twentieth of the time goes there.
    now[0] += 1199.0
    assert not clock.is_due(4)
    now[0] += 1.0
    assert clock.is_due(4)
