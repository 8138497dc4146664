"""Starts torchrun with ranks that are real processes on CPUs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

LIMIT_S = 240


def start(size: int, *words: object, env: Mapping[str, str] = os.environ) -> subprocess.Popen:
    """Starts a module (`-m NAME`) or file with its arguments as so many ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(size), *map(str, words)]
    pipe = subprocess.PIPE
    settings = {**env, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=settings, cwd=Path(__file__).parents[2]
    )


def torchrun(size: int, *words: object, env: Mapping[str, str] = os.environ) -> "Ended":
    """Runs it to its end."""
    return end_of(start(size, *words, env=env))


class Ended:
    """What is left of a job.

    Attributes:
        status: That of torchrun.
        stdout: Of all ranks.
        told: What this package says on standard error, line by line.
        stderr: All of it, torchrun's own report included.
    """

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr
        self.told = [line for line in stderr.splitlines() if line.startswith("astarpo: ")]


def end_of(job: subprocess.Popen) -> Ended:
    """Waits for the end of a job."""
    try:
        stdout, stderr = job.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        kill(job)
        stdout, stderr = job.communicate()
        raise AssertionError(f"the job hangs:\n{stderr}") from None
    return Ended(job.returncode, stdout, stderr)


def rank_pid(job: subprocess.Popen, rank: int) -> int:
    """The process of a rank."""
    return next(pid for pid in _children(job) if f"RANK={rank}".encode() in _environment(pid))


def kill(job: subprocess.Popen) -> None:
    """Ends a job with its ranks, whatever they are at."""
    ranks = _children(job)
    job.kill()
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)


def _children(job: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


def _environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def wait_for(is_so: Callable[[], bool], job: subprocess.Popen) -> None:
    """Waits until something is so, while a job runs."""
    for _ in range(LIMIT_S * 20):
        if is_so():
            return
        assert job.poll() is None, end_of(job).stderr
        time.sleep(0.05)
    kill(job)
    raise AssertionError(f"has not come about:\n{end_of(job).stderr}")
