import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from astarpo.types import UserError, Verdict
from astarpo.verify import pool as pool_module
from astarpo.verify.pool import GradingPool

HANG = ("math", r"\boxed{9^{9^{9^9}}}", "7")
RIGHT = ("math", r"\boxed{x/2}", r"\frac{x}{2}")
WRONG = ("math", r"\boxed{x/3}", r"\frac{x}{2}")


@pytest.fixture(scope="module")
def pool():
    with GradingPool(num_workers=2, timeout_s=1.0) as shared:
        yield shared


@pytest.fixture(scope="module")
def patient():
    """A pool of one worker that only its own tests use."""
    with GradingPool(num_workers=1, timeout_s=20.0) as shared:
        yield shared


def worker_pid(pool: GradingPool) -> int:
    assert pool.grade([RIGHT])[0].status == "ok"
    (worker,) = pool._workers
    return worker._process.pid


def worker_pids() -> set[int]:
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for listed in children for pid in listed.read_text().split()}
    return {pid for pid in pids if "astarpo.verify.worker" in _command(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_answers_keep_their_order(pool):
    golds = [str(n) for n in range(40)]
    requests = [("gsm8k", f"#### {n}", gold) for n, gold in enumerate(golds)]
    requests[7] = ("gsm8k", "#### 8", "7")
    verdicts = pool.grade(requests)
    assert [v.answer for v in verdicts[8:]] == golds[8:]
    assert [v.reward for v in verdicts] == [0.0 if n == 7 else 1.0 for n in range(40)]


def test_a_hang_costs_its_own_answer_only(pool):
    start = time.monotonic()
    verdicts = pool.grade([RIGHT, HANG, RIGHT, WRONG, HANG, RIGHT])
    assert time.monotonic() - start < 15
    assert [v.status for v in verdicts] == ["ok", "timeout", "ok", "ok", "timeout", "ok"]
    assert [v.reward for v in verdicts] == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert verdicts[1] == Verdict(reward=0.0, answer=None, status="timeout")


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


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_ctrl_c_belongs_to_the_parent(patient):
    pid = worker_pid(patient)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert worker_pid(patient) == pid
    assert pid in worker_pids()


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_workers_killed_from_outside(patient):
    before = worker_pids()
    pid = worker_pid(patient)
    os.kill(pid, signal.SIGKILL)  # while idle: noticed and replaced
    time.sleep(0.2)
    replaced = worker_pid(patient)
    assert replaced != pid
    threading.Timer(0.3, os.kill, (replaced, signal.SIGKILL)).start()  # while it judges
    verdicts = patient.grade([HANG, RIGHT])
    assert [v.status for v in verdicts] == ["error", "ok"]
    patient.close()
    assert worker_pids() <= before - {pid}


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    script = f"""
        import os
        from astarpo.verify.pool import GradingPool
        pool = GradingPool(num_workers=1, timeout_s=60)
        pool.grade([{RIGHT!r}])
        print(pool._workers[0]._process.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while "astarpo.verify.worker" in _command(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "astarpo.verify.worker" not in _command(pid)


def test_a_worker_that_cannot_start_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(pool_module, "_BOOTSTRAP", "import no_such_module_anywhere")
    with (
        GradingPool(num_workers=2, timeout_s=1.0) as broken,
        pytest.raises(UserError, match=r"does not start.*no_such_module_anywhere"),
    ):
        broken.grade([RIGHT, RIGHT])


def test_a_worker_that_is_never_ready_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(pool_module, "_BOOTSTRAP", "import time; time.sleep(60)")
    monkeypatch.setattr(pool_module, "START_LIMIT_S", 0.5)
    with (
        GradingPool(num_workers=1, timeout_s=1.0) as broken,
        pytest.raises(UserError, match="not ready after"),
    ):
        broken.grade([RIGHT])


def test_a_hoarder_meets_the_memory_limit(pool):
    start = time.monotonic()
    (verdict,) = pool.grade([("math", r"\boxed{10^{10^{10}}}", "7")])
    assert verdict.reward == 0.0
    assert time.monotonic() - start < 10


# These two come last of those that share the pool: they end its workers.
def test_a_verifier_that_does_not_load_is_one_clear_error(pool):
    with pytest.raises(UserError, match=r"no such task cannot be loaded.*unknown task"):
        pool.grade([("no such task", "5", "5")])


def test_a_pool_runs_no_reward_function_unless_it_is_made_to(pool):
    with pytest.raises(UserError, match="unknown task"):
        pool.grade([("reward:textwrap:dedent", "", "{}")])


EXPLOIT = r"""
import sys
if sys.argv[1] == "guarded":
    from astarpo.verify.latex import warm_up
    from astarpo.verify.worker import _refuse_code_from_text
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
