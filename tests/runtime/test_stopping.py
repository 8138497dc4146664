import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from astarpo.engines.base import Sampling
from astarpo.grading.grader import Grader
from astarpo.rollout import roll_out
from astarpo.runtime.stopping import StopRequested, StopSignal, check_stop
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.checkpoint import CheckpointClock
from astarpo.types import Completion, Prompt
from tests.conftest import digit_problems


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


def test_a_signal_ends_the_judging_of_answers(policy, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\ndef reward(response, answer):\n    time.sleep(60)\n    return 1.0\n"
    )
    reward = f"{tmp_path / 'slow.py'}:reward"
    problem = replace(digit_problems(1)[0], data_source=f"reward:{reward}")

    class Engine:
        def generate(self, requests, sampling, on_progress=None):
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            return [Completion((3,), (-0.5,), "stop")]

    started = time.monotonic()
    with (
        StopSignal() as stop,
        Grader(1, 100.0, reward) as grader,
        pytest.raises(StopRequested),
    ):
        roll_out(
            policy.vocabulary,
            Engine(),
            grader,
            [Prompt(problem, (1,))],
            [0],
            Sampling(4),
            Stopwatch(),
        )
    assert stop.requested
    assert time.monotonic() - started < 50


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
