"""Training whose first steps learn from the value table's samples, through the real loop."""

import json
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from astarpo.tasks.problem_set import read_problems
from astarpo.values.estimators import optimal_values
from astarpo.values.table import ValueTable
from tests.conftest import command, run_here
from tests.e2e.test_stages import kill_when, weights, without_costs


@pytest.fixture(scope="module")
def words(train_words):
    return [
        *train_words, "--first-rollouts", "stage1", "--stage1-drift", 0.02, "--warmup-steps", 1,
        "--minibatches", 1,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, words) -> Path:
    out = tmp_path_factory.mktemp("stage1") / "run"
    done = run_here(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def samples(run: Path, step: int) -> list[dict]:
    return pq.read_table(run / "samples" / f"step-{step:06d}.parquet").to_pylist()


def test_the_first_steps_are_stage_1_s_and_then_the_policy_s(whole, table_path, problems_path):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    sources = [row["rollout"] for row in rows]
    first = sources.count("stage1")
    assert 1 <= first < 8
    assert sources == ["stage1"] * first + ["policy"] * (8 - first)
    assert rows[0]["stage1_drift"] == pytest.approx(0, abs=1e-5)
    # The first one beyond the bound is the last.
    beyond = [row["stage1_drift"] > 0.02 for row in rows[:first]]
    assert beyond == [False] * (first - 1) + [True]
    for row in rows:
        generated = row["rollout"] == "policy"
        assert (row["tokens"] > 0) == (row["seconds_generate"] > 0) == generated
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["tokens"] == sum(row["tokens"] for row in rows)

    problems = read_problems(problems_path)
    rewards_PN = ValueTable(table_path).rewards(problems)
    others = {p.id: r[1:] for p, r in zip(problems, rewards_PN, strict=True)}
    held = {
        row["problem_id"]: row["text"]
        for row in ValueTable(table_path).samples().to_pylist()
        if row["sample"] == 0
    }
    for row in samples(whole, 1):
        assert row["text"] == held[row["problem_id"]]
        assert row["v_star"] == pytest.approx(float(optimal_values(others[row["problem_id"]], 0.5)))
    # Afterwards V* is that of all samples again.
    whole_value = {
        p.id: float(optimal_values(np.array(r), 0.5))
        for p, r in zip(problems, rewards_PN, strict=True)
    }
    for row in samples(whole, 8):
        assert row["v_star"] == pytest.approx(whole_value[row["problem_id"]])


def test_killed_and_gone_on_with_it_ends_with_the_same_bits(whole, words, tmp_path):
    out = tmp_path / "run"
    saved = out / "checkpoints" / "step-000001"
    often = [*words, "--checkpoint-every", 1, "--out", out]
    kill_when(command(*often), saved.exists, signal.SIGKILL)
    assert not (out / "model").exists()
    done = run_here(*often, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(whole)
    assert without_costs(out) == without_costs(whole)
    assert [samples(out, step) for step in range(1, 9)] == [
        samples(whole, step) for step in range(1, 9)
    ]
