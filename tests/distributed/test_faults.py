"""Ranks that are killed, told to stop, raise or hang; disks that are full; wrong calls."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from astarpo.cli import main
from tests.support.torchrun import end_of, rank_pid, start, torchrun, wait_for

FAULTY = ("-m", "tests.distributed.faulty")


@pytest.fixture
def words(folder, tmp_path):
    return [
        "train", "--model", folder / "model", "--problems", folder / "p.parquet", "--out",
        tmp_path / "run", "--algorithm", "rloo", "--group-size", 2, "--prompts-per-step", 8,
        "--max-new-tokens", 24, "--steps", 2000, "--lr", "1e-3", "--checkpoint-every", 2,
        "--keep-checkpoints", 1000, "--health", "off", "--device", "cpu",
    ]  # fmt: skip


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-*"))


def steps(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_killed_rank_is_named_and_fewer_ranks_go_on(words, tmp_path, capfd):
    job = start(3, "-m", "astarpo", *words)
    wait_for(lambda: checkpoints(tmp_path / "run"), job)
    os.kill(rank_pid(job, 1), signal.SIGKILL)
    started = time.monotonic()
    ended = end_of(job)
    assert time.monotonic() - started < 30
    assert ended.status == 1
    assert "exitcode  : -9" in ended.stderr
    assert "rank      : 1" in ended.stderr
    last = steps(tmp_path / "run")[-1]
    words = [str(last + 2 if word == 2000 else word) for word in words]
    ended = torchrun(2, "-m", "astarpo", *words, "--resume")
    assert ended.status == 0, ended.stderr
    assert steps(tmp_path / "run") == list(range(1, last + 3))
    words[words.index(str(last + 2))] = str(last + 3)
    assert main([*words, "--resume"]) == 0
    assert steps(tmp_path / "run")[-1] == last + 3


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(words, tmp_path):
    job = start(2, "-m", "astarpo", *words)
    wait_for(lambda: checkpoints(tmp_path / "run"), job)
    os.kill(rank_pid(job, 1), signal.SIGTERM)
    ended = end_of(job)
    assert ended.stderr.count("exitcode  : 3") >= 1, ended.stderr
    assert ended.stderr.count("steps; --resume goes on") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["completed"] is False
    assert summary["steps"] == steps(tmp_path / "run")[-1]
    assert checkpoints(tmp_path / "run")[-1].name == f"step-{summary['steps']:06d}"


def test_an_error_of_one_rank_is_told_once(words, tmp_path):
    ended = torchrun(3, *FAULTY, "raises", 1, *words)
    assert ended.status == 1
    assert ended.stderr.count("RuntimeError: the device is on fire") == 1, ended.stderr
    assert [line.startswith("astarpo: rank 1: Traceback") for line in ended.told] == [True]


def test_a_rank_that_hangs_is_named(words, tmp_path):
    env = os.environ | {"ASTARPO_RANK_TIMEOUT": "4"}
    ended = torchrun(2, "--shutdown-timeout", 3, *FAULTY, "hangs", 1, *words, env=env)
    assert ended.status == 1
    assert len(ended.told) == 1, ended.stderr
    assert "rank 1 hangs" in ended.told[0]
    assert "ASTARPO_RANK_TIMEOUT" in ended.told[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_a_full_disk_of_the_first_rank_ends_all(words, tmp_path):
    (tmp_path / "run").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(tmp_path / "run")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        ended = torchrun(2, "-m", "astarpo", *words)
    finally:
        subprocess.run(["umount", str(tmp_path / "run")], check=True)
    assert len(ended.told) == 1, ended.stderr
    assert "No space left on device; make room" in ended.told[0]
    assert ended.stderr.count("exitcode  : 2") >= 1


def test_two_jobs_on_one_folder(words, tmp_path):
    from astarpo.runtime.locks import folder_lock

    with folder_lock(tmp_path / "run"):
        ended = torchrun(2, "-m", "astarpo", *words)
    assert len(ended.told) == 1, ended.stderr
    assert "is writing here; wait for it or end it" in ended.told[0]
    assert ended.stderr.count("exitcode  : 2") >= 1


def test_ranks_of_unlike_settings(words, tmp_path):
    ended = torchrun(3, *FAULTY, "other-settings", 2, *words)
    assert len(ended.told) == 1, ended.stderr
    assert "setting lr is 0.001 on rank 0 and 0.5 on rank 2" in ended.told[0]
    assert not shutil.os.path.exists(tmp_path / "run")


def test_more_ranks_than_prompts_in_a_step(words, tmp_path):
    words[words.index("--prompts-per-step") + 1] = 1
    ended = torchrun(2, "-m", "astarpo", *words)
    assert ended.told == [
        "astarpo: 2 ranks and 1 prompts in a step (--prompts-per-step): start at most 1, by "
        "torchrun --nproc-per-node 1"
    ]
    assert ended.stderr.count("exitcode  : 2") >= 1


def test_a_verb_for_one_process():
    ended = torchrun(2, "-m", "astarpo", "runs", ".")
    assert len(ended.told) == 1, ended.stderr
    assert "runs: one process does this: leave torchrun out" in ended.told[0]
