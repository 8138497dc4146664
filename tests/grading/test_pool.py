import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from astarpo.grading import pool as pool_module
from astarpo.grading import processes
from astarpo.grading.pool import GradingPool, GradingStopped
from astarpo.grading.processes import Worker
from astarpo.types import UserError, Verdict

SLOW = """
import os, signal, time

def judge(completions, log):
    kind, amount = completions[0].split()[:2]
    with open(log[0], "a") as file:
        file.write(kind[0])
    if kind == "sleep":
        time.sleep(float(amount))
    if kind == "await":
        end = time.monotonic() + 60
        while amount not in open(log[0]).read():
            assert time.monotonic() < end
            time.sleep(0.01)
    if kind == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    end = time.process_time() + (float(amount) if kind in ("pause", "work") else 0)
    while time.process_time() < end:
        pass
    with open(log[0], "a") as file:
        file.write(kind[0].upper())
    return [1.0]
"""

needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")

RIGHT = ("math", r"\boxed{x/2}", r"\frac{x}{2}")
WRONG = ("math", r"\boxed{x/3}", r"\frac{x}{2}")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(SLOW)
    return folder / "log"


@pytest.fixture
def slow(log):
    """Makes requests of some kinds, which write the kind's first letter into the log, then act:

    work N      uses N seconds of CPU time
    sleep N     sleeps for N seconds
    await TEXT  sleeps until the log holds a text
    pause N     stops its own process; once continued, uses N seconds of CPU time

    At the end they write the letter as a capital. A further word makes requests different.
    """
    log.write_text("")

    def request(what):
        asked = json.dumps({"prompt": "Q", "columns": {"log": str(log)}})
        return (f"reward:{log.parent / 'slow.py'}:judge", what, asked)

    return request


@pytest.fixture(scope="module")
def pool():
    with GradingPool(num_workers=2, timeout_s=0.6, own_rewards=True) as shared:
        yield shared


@pytest.fixture(scope="module")
def patient():
    """A pool of one worker that only its own tests use."""
    with GradingPool(num_workers=1, timeout_s=20.0, own_rewards=True) as shared:
        yield shared


def worker_pid(pool: GradingPool) -> int:
    assert pool.grade([RIGHT])[0].status == "ok"
    (worker,) = pool._workers
    return worker.pid


def worker_pids(parent: int | None = None) -> set[int]:
    """The servers that this process started, and the workers that they did."""
    children = Path(f"/proc/{parent or os.getpid()}/task").glob("*/children")
    pids = {int(pid) for listed in children for pid in listed.read_text().split()}
    ours = {pid for pid in pids if "astarpo.grading.worker" in _command(pid)}
    return ours.union(*map(worker_pids, ours))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def state(pid: int) -> str:
    """The letter by which the kernel tells a process's state; `Z` too where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "Z"


def is_paused(worker: Worker) -> bool:
    return state(worker.pid) == "T"


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def once_begun(log: Path, act: Callable[[], object]) -> Callable[[], bool]:
    """A `should_stop` that never asks to stop, but acts once the log says an answer is begun."""
    acted = []

    def should_stop() -> bool:
        if not acted and log.read_text():
            acted.append(act())
        return False

    return should_stop


def test_answers_keep_their_order(pool):
    golds = [str(n) for n in range(40)]
    requests = [("gsm8k", f"#### {n}", gold) for n, gold in enumerate(golds)]
    requests[7] = ("gsm8k", "#### 8", "7")
    verdicts = pool.grade(requests)
    assert [v.answer for v in verdicts[8:]] == golds[8:]
    assert [v.reward for v in verdicts] == [0.0 if n == 7 else 1.0 for n in range(40)]


def test_a_hang_costs_its_own_answer_only(pool, slow):
    hangs = [slow("work 60 a"), slow("work 60 b")]
    verdicts = pool.grade([RIGHT, hangs[0], RIGHT, WRONG, hangs[1], RIGHT])
    assert [v.status for v in verdicts] == ["ok", "timeout", "ok", "ok", "timeout", "ok"]
    assert [v.reward for v in verdicts] == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert verdicts[1] == Verdict(reward=0.0, answer=None, status="timeout")


def test_equal_answers_are_judged_once_and_those_that_hang_are_remembered(pool, slow, log):
    requests = [slow("work 0 c"), slow("work 60 c"), slow("work 0 c"), slow("work 60 c")]
    expected = ["ok", "timeout", "ok", "timeout"]
    assert [v.status for v in pool.grade(requests)] == expected
    assert sorted(log.read_text()) == ["W", "w", "w"]
    assert [v.status for v in pool.grade(requests)] == expected
    assert sorted(log.read_text()) == ["W", "W", "w", "w", "w"]


@needs_proc
def test_a_right_answer_does_not_time_out_on_a_busy_machine(pool, slow):
    """Its CPU time is within the limit, its time by the clock is not.

    That is what a busy machine does to a process. Here the worker stops itself, so that the clock
    passes the limit for certain, however fast or busy this machine is.
    """

    def go_on_after_the_limit() -> None:
        wait_until(lambda: any(map(is_paused, pool._workers)))
        time.sleep(1.0)
        for worker in filter(is_paused, pool._workers):
            os.kill(worker.pid, signal.SIGCONT)

    helper = threading.Thread(target=go_on_after_the_limit)
    helper.start()
    start = time.monotonic()
    assert pool.grade([slow("pause 0.3 d")])[0].status == "ok"
    assert time.monotonic() - start > 0.6
    helper.join()


def test_others_pass_an_answer_that_takes_long(patient, slow, log):
    """Two answers wait for what the third one writes, and there is one worker in its place."""
    requests = [slow("await W e"), slow("await W f"), slow("work 0 e")]
    assert [v.status for v in patient.grade(requests)] == ["ok"] * 3
    written = log.read_text()
    assert sorted(written) == sorted("aawWAA")
    assert written.index("W") < written.index("A")
    assert len(patient._workers) == 1


def test_what_sleeps_for_ever_meets_a_limit_by_the_clock(slow, monkeypatch):
    monkeypatch.setattr(pool_module, "WALL_LIMIT_S", 0.5)
    with GradingPool(num_workers=1, timeout_s=0.1, own_rewards=True) as strict:
        (verdict,) = strict.grade([slow("sleep 60 g")])
    assert verdict.status == "timeout"


def test_a_worker_that_is_stuck_is_replaced_without_another_start(pool, slow):
    pool.load("math")
    server = pool._server
    verdicts = pool.grade([slow(f"work 60 h{n}") for n in range(3)])
    assert [v.status for v in verdicts] == ["timeout"] * 3
    assert pool._server is server


def test_a_call_can_be_given_up(pool, slow):
    until = time.monotonic() + 0.5
    with pytest.raises(GradingStopped, match="1 answers are not judged yet"):
        pool.grade([slow("sleep 60 i")], lambda: time.monotonic() > until)
    assert time.monotonic() - until < 20
    assert pool.grade([RIGHT])[0].reward == 1.0


def test_no_requests_start_nothing():
    before = worker_pids()
    with GradingPool(num_workers=2, timeout_s=1.0) as idle:
        assert idle.grade([]) == []
        assert worker_pids() <= before  # those of other pools may end meanwhile


def test_an_error_in_the_verifier_is_counted_and_told_once(pool, caplog):
    broken = ("countdown", "#### 5", "not JSON")
    verdicts = pool.grade([broken, RIGHT, broken])
    assert [v.status for v in verdicts] == ["error", "ok", "error"]
    assert [record.message.count("JSONDecodeError") for record in caplog.records] == [1]


@needs_proc
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_are_the_parents_business(patient, slow, log, sent):
    """An answer under way is judged to its end; the parent decides when to stop."""
    pid = worker_pid(patient)
    family = worker_pids()
    assert pid in family

    def send() -> None:
        for member in family:
            os.kill(member, sent)
        log.write_text("sent")

    assert patient.grade([slow("await sent")], once_begun(log, send))[0].status == "ok"
    assert log.read_text() == "sentA"
    assert worker_pid(patient) == pid


@needs_proc
def test_workers_killed_from_outside(patient, slow, log):
    before = worker_pids()
    pid = worker_pid(patient)
    os.kill(pid, signal.SIGKILL)  # while idle: noticed and replaced
    wait_until(lambda: state(pid) == "Z")
    replaced = worker_pid(patient)
    assert replaced != pid
    kill = once_begun(log, lambda: os.kill(replaced, signal.SIGKILL))  # while it judges
    verdicts = patient.grade([slow("sleep 60 j"), RIGHT], kill)
    assert [v.status for v in verdicts] == ["error", "ok"]
    patient.close()
    assert worker_pids() <= before - {pid}


@needs_proc
def test_workers_end_with_a_killed_parent(tmp_path):
    script = f"""
        import os
        from astarpo.grading.pool import GradingPool
        pool = GradingPool(num_workers=1, timeout_s=60)
        pool.grade([{RIGHT!r}])
        print(pool._workers[0].pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    wait_until(lambda: "astarpo.grading.worker" not in _command(pid))


def test_a_worker_that_cannot_start_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(processes, "_BOOTSTRAP", "import no_such_module_anywhere")
    with (
        GradingPool(num_workers=2, timeout_s=1.0) as broken,
        pytest.raises(UserError, match=r"does not start.*no_such_module_anywhere"),
    ):
        broken.grade([RIGHT, RIGHT])


def test_a_worker_that_is_never_ready_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(processes, "_BOOTSTRAP", "import time; time.sleep(60)")
    monkeypatch.setattr(processes, "START_LIMIT_S", 0.5)
    with (
        GradingPool(num_workers=1, timeout_s=1.0) as broken,
        pytest.raises(UserError, match="not ready after"),
    ):
        broken.grade([RIGHT])


def test_a_hoarder_meets_the_memory_limit(pool):
    pool.load("math")  # starting a process is not what is measured
    start = time.monotonic()
    (verdict,) = pool.grade([("math", r"\boxed{10^{10^{10}}}", "7")])
    assert verdict.reward == 0.0
    assert time.monotonic() - start < 10


def test_workers_may_parse_text_that_they_do_not_run(pool):
    """`verify.expressions` reads arithmetic by `ast.parse`, which makes a tree and no code."""
    gold = '{"target": 24, "numbers": [3, 8, 1]}'
    responses = ["#### 3*8/1", "#### 3*8+1", "#### __import__('os')"]
    verdicts = pool.grade([("countdown", response, gold) for response in responses])
    assert [(v.reward, v.status) for v in verdicts] == [
        *((1.0, "ok"), (0.0, "ok"), (0.0, "unparsable")),
    ]


# This comes last of those that share the pool: it ends its workers.
def test_a_verifier_that_does_not_load_is_one_clear_error(pool):
    with pytest.raises(UserError, match=r"no such task cannot be loaded.*unknown task"):
        pool.grade([("no such task", "5", "5")])


def test_a_pool_runs_no_reward_function_unless_it_is_made_to():
    with (
        GradingPool(num_workers=1, timeout_s=1.0) as careful,
        pytest.raises(UserError, match="unknown task"),
    ):
        careful.grade([("reward:textwrap:dedent", "", "{}")])


EXPLOIT = r"""
import sys
if sys.argv[1] == "guarded":
    from astarpo.verify.latex import warm_up
    from astarpo.grading.worker import _refuse_code_from_text
    warm_up()
    sys.addaudithook(_refuse_code_from_text)
from math_verify import parse, verify
code = "[exit.__class__[7]for[exit.__class__.__class_getitem__]in[[print]]][0]"
body = r"\sum_{n=0}^{\infty} \frac{1+n\text{" + code + "}}{n!}+1"
verify(parse(r"$\sqrt{2}$"), parse(f"The answer is ${body}$"))
"""


def test_workers_refuse_code_made_from_text():
    """What gets past our own LaTeX checks in math-verify and sympy still does not run."""
    started = {
        mode: subprocess.Popen(
            [sys.executable, "-c", EXPLOIT, mode], stdout=subprocess.PIPE, text=True
        )
        for mode in ("guarded", "bare")
    }
    printed = {mode: process.communicate()[0] for mode, process in started.items()}
    assert [process.returncode for process in started.values()] == [0, 0]
    assert printed["guarded"] == ""
    # Should this fail, a release of math-verify or sympy has closed the hole itself.
    assert printed["bare"].strip() == "7"


SWALLOWED = """
import sys
import astarpo.tasks  # before the guard, as in a worker
from astarpo.types import Verdict
from astarpo.grading import worker

class Scorer:
    def grade(self, response, ground_truth):
        try:
            return Verdict(float(eval(response)), response, "ok")
        except Exception:
            return Verdict(0.01, response, "ok")

sys.addaudithook(worker._refuse_code_from_text)
request = {"verifier": "scorer", "response": "1", "ground_truth": ""}
print(worker._judge({"scorer": Scorer()}, request))
"""


def test_a_refusal_is_an_error_though_the_scorer_swallows_it():
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], capture_output=True, text=True, check=True
    )
    assert "'reward': 0.0, 'answer': None, 'status': 'error'" in done.stdout
    assert "does not run code made from text" in done.stdout
