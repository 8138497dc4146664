"""Every algorithm through the real loop, engine and verifier, on a tiny policy."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from astarpo.cli import main
from astarpo.config import TrainConfig
from astarpo.config.train import readers
from astarpo.stages.train import train
from astarpo.tasks.problem_set import write_problems
from astarpo.types import UserError
from tests.conftest import digit_problems


@pytest.fixture
def settings(policy_path, problems_path, tmp_path):
    return {
        "model": str(policy_path), "problems": problems_path, "out": tmp_path / "run",
        "steps": 2, "prompts_per_step": 8, "minibatches": 2, "lr": 1e-3, "critic_lr": 1e-2,
        "group_size": 4, "max_new_tokens": 24, "device": "cpu",
    }  # fmt: skip


def config(algorithm="astar_po", **settings) -> TrainConfig:
    """What an algorithm reads of some settings."""
    own = {name: value for name, value in settings.items() if algorithm in readers(name)}
    return TrainConfig(algorithm=algorithm, **own)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("algorithm", "samples"), [("grpo", 4), ("ppo", 1), ("rebel", 2), ("rloo", 4)]
)
def test_samples_of_a_prompt_stand_together_and_the_policy_moves(settings, algorithm, samples):
    summary = train(config(**settings, algorithm=algorithm))
    assert summary["completed"]
    written = pq.read_table(settings["out"] / "samples" / "step-000001.parquet").to_pydict()
    names = written["problem_id"]
    assert len(names) == 8 * samples
    groups = [set(names[i : i + samples]) for i in range(0, len(names), samples)]
    assert all(len(group) == 1 for group in groups)
    assert len(set(names)) == 8
    assert written["v_star"] == [None] * len(names)
    first, second = rows(settings["out"] / "metrics.jsonl")
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert second["kl"] != first["kl"]
    assert first["grad_norm"] > 0


def test_a_resumed_run_with_a_critic_ends_with_the_same_bits(settings, tmp_path):
    ppo = settings | {"algorithm": "ppo", "steps": 4}
    train(config(**ppo))
    halves = ppo | {"out": tmp_path / "halves"}
    train(config(**halves | {"steps": 2}))
    train(config(**halves, resume=True))
    whole, parts = weights(settings["out"]), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    critics = [run / "checkpoints" / "step-000004" for run in (ppo["out"], halves["out"])]
    one, other = (load_file(path / "critic.safetensors") for path in critics)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_astar_po_without_stage_1(settings, tmp_path):
    """It needs no table, has a report, and goes on to the same bits."""
    settings |= {"baseline_from": "rollout", "steps": 3}
    whole = train(config(**settings))
    assert whole["completed"]
    written = pq.read_table(settings["out"] / "samples" / "step-000001.parquet").to_pydict()
    assert written["v_star"] == [None] * 8
    assert len(set(written["problem_id"])) == 8
    assert main(["report", str(settings["out"])]) == 0
    assert (settings["out"] / "report.html").exists()
    part = settings | {"out": tmp_path / "part", "checkpoint_every": 1}
    train(config(**part | {"steps": 2}))
    train(config(**part | {"resume": True}))
    for name, values in weights(part["out"]).items():
        assert torch.equal(values, weights(settings["out"])[name]), name


def test_the_critics_warm_up_leaves_the_policy_alone(settings, policy_path):
    train(config(**settings, algorithm="ppo", critic_warmup_steps=2))
    before = load_file(policy_path / "model.safetensors")
    assert all(torch.equal(before[name], w) for name, w in weights(settings["out"]).items())
    checkpoint = settings["out"] / "checkpoints" / "step-000002" / "critic.safetensors"
    assert load_file(checkpoint)["score.weight"].abs().max() > 0


def test_held_out_problems_are_answered_outside_the_time_of_training(settings, tmp_path):
    write_problems(tmp_path / "held-out.parquet", digit_problems(40)[24:])
    eval_settings = {"eval_problems": tmp_path / "held-out.parquet", "eval_every": 2}
    eval_settings["eval_samples"] = 2
    train(config(**settings | {"steps": 3}, algorithm="rebel", **eval_settings))
    evaluations = rows(settings["out"] / "evaluations.jsonl")
    metrics = rows(settings["out"] / "metrics.jsonl")
    assert [row["step"] for row in evaluations] == [0, 2, 3]
    assert evaluations[0]["seconds"] == evaluations[0]["tokens"] == 0
    assert evaluations[1]["tokens"] == metrics[0]["tokens"] + metrics[1]["tokens"]
    assert evaluations[2]["seconds"] == pytest.approx(sum(row["seconds"] for row in metrics))
    for row in evaluations:
        assert row["low"] <= row["reward"] <= row["high"]


def test_training_ends_when_its_time_is_up(settings):
    timed = settings | {"steps": 1000, "max_seconds": 0.5, "algorithm": "rebel"}
    summary = train(config(**timed))
    assert summary["completed"]
    metrics = rows(settings["out"] / "metrics.jsonl")
    seconds = [row["seconds"] for row in metrics]
    assert sum(seconds) >= 0.5 > sum(seconds[:-1])
    assert (settings["out"] / "model" / "model.safetensors").exists()


def test_what_needs_stage_1_says_so(settings):
    needed = r"astar_po needs V.*give --values.*, or --baseline-from rollout$"
    with pytest.raises(UserError, match=needed):
        train(config(**settings))
    with pytest.raises(UserError, match="filter all_wrong"):
        train(config(**settings, algorithm="grpo", filter="all_wrong"))
    assert train(config(**settings, baseline_from="rollout"))["completed"]


def test_other_sampling_than_the_tables_is_refused(settings, table_path):
    with pytest.raises(UserError, match=r"temperature is 0\.5 here and 1"):
        train(config(**settings, values=table_path, temperature=0.5))
