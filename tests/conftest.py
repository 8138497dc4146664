"""Small real parts that tests share: an untrained policy over bytes and problems it can get right.

An untrained policy ends some responses with the right digit by chance, so rewards vary and every
stage has something to do.
"""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads only get in each other's way

from pathlib import Path

import pytest
import torch

from astarpo.cli import main
from astarpo.models.policy import Policy, save_model
from astarpo.stages.warm_start import build_policy
from astarpo.tasks.problem_set import write_problems
from astarpo.types import Problem

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy() -> Policy:
    return build_policy(hidden_size=32, layers=2, heads=2, seed=0)


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory, policy) -> Path:
    path = tmp_path_factory.mktemp("policy") / "model"
    save_model(path, policy)
    return path


def digit_problems(count: int) -> list[Problem]:
    """Problems of the gsm8k task whose answer is one digit."""
    return [
        Problem(
            id=f"digits/train/{i}",
            data_source="gsm8k",
            prompt=({"role": "user", "content": "Name a number. " * (i % 3) + f"Item {i}:"},),
            ground_truth=str(i % 3),
            extra={"split": "train", "index": i, "solution": f"#### {i % 3}"},
        )
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return digit_problems(24)


@pytest.fixture(scope="session")
def problems_path(tmp_path_factory, problems) -> Path:
    path = tmp_path_factory.mktemp("problems") / "digits.parquet"
    write_problems(path, problems)
    return path


def flipped(content: bytes, place: int) -> bytes:
    """A file's content with one bit of one byte turned, another bit at each place."""
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "astarpo", *map(str, words)]


def run_command(*words: object) -> subprocess.CompletedProcess:
    """Runs a command in a process of its own, whose imports alone take seconds."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=300, check=False)


def run_here(*words: object) -> subprocess.CompletedProcess:
    """Runs a command in this process: what comes out is the same, and it is sooner there."""
    given, out, err = list(map(str, words)), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(given)
    return subprocess.CompletedProcess(given, status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def estimate_words(policy_path, problems_path):
    return [
        "estimate", "--model", policy_path, "--problems", problems_path, "--samples", 8,
        "--max-new-tokens", 24, "--shard-problems", 4, "--allow-truncated", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def table_path(tmp_path_factory, estimate_words) -> Path:
    out = tmp_path_factory.mktemp("table") / "values"
    done = run_here(*estimate_words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "solve rate of 24 problems over 8 samples" in done.stderr
    return out


@pytest.fixture(scope="session")
def train_words(policy_path, problems_path, table_path):
    return [
        "train", "--model", policy_path, "--problems", problems_path, "--values", table_path,
        "--steps", 8, "--prompts-per-step", 16, "--lr", "1e-3", "--checkpoint-every", 3,
        "--schedule", "linear", "--warmup-steps", 2, "--device", "cpu",
    ]  # fmt: skip
