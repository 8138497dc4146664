"""Both stages as a user runs them: from files, in processes of their own, killed halfway."""

import gzip
import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import astarpo
from astarpo.cli import main
from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.models.policy import save_model
from astarpo.models.prompts import fit_prompts
from astarpo.runtime.locks import folder_lock
from astarpo.stages.warm_start import build_policy
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.training.inputs import valued_prompts
from astarpo.types import UserError
from astarpo.values.shards import read_shard
from tests.conftest import command, digit_problems, run_command, run_here


def kill_when(words: list[str], happened, number: int, within_s: float = 120) -> subprocess.Popen:
    """Starts a command and signals it as soon as something has happened."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + within_s
    while not happened() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    process.wait(timeout=120)
    return process


def test_estimate_writes_the_whole_table(table_path):
    manifest = json.loads((table_path / "manifest.json").read_text())
    assert manifest["samples"] == 8
    assert manifest["num_problems"] == 24
    shards = sorted(table_path.glob("samples-*.parquet"))
    assert len(shards) == 6
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == 24 * 8
    assert manifest["tokens"] == sum(len(row["token_ids"]) for row in rows)
    assert all(row["num_tokens"] == len(row["token_ids"]) for row in rows)
    assert 0 < sum(row["reward"] for row in rows) < 24 * 8
    assert (table_path / "values.png").stat().st_size > 1000
    values = pq.read_table(table_path / "values.parquet").to_pylist()
    for row in values:
        rewards = [r["reward"] for r in rows if r["problem_id"] == row["problem_id"]]
        assert row["v_star"] == pytest.approx(float(astarpo.optimal_values(rewards, 0.5)))


def contents(table: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in table.glob("*.parquet")}


def test_estimate_killed_halfway_ends_with_the_same_bytes(estimate_words, table_path, tmp_path):
    out = tmp_path / "values"
    words = command(*estimate_words, "--out", out)
    kill_when(words, lambda: len(list(out.glob("samples-*.parquet"))) > 1, signal.SIGKILL)
    assert not (out / "values.parquet").exists()
    kept = {f: f.read_bytes() for f in out.glob("samples-*.parquet")}
    assert 2 <= len(kept) < 6
    assert run_here(*estimate_words, "--out", out).returncode == 0
    assert all(f.read_bytes() == content for f, content in kept.items())
    assert contents(out) == contents(table_path)
    assert (out / "values.parquet").read_bytes() == (table_path / "values.parquet").read_bytes()


def test_stage_1_reads_each_shard_as_often_whatever_their_number(
    policy_path, problems_path, tmp_path, monkeypatch
):
    reads = Counter()

    def counted(path, *columns):
        reads[path.name] += 1
        return read_shard(path, *columns)

    monkeypatch.setattr("astarpo.values.table.read_shard", counted)
    for shard_problems in (12, 2):
        out = tmp_path / f"{shard_problems}"
        astarpo.estimate(
            EstimateConfig(
                model=str(policy_path), problems=problems_path, out=out, samples=2, device="cpu",
                max_new_tokens=4, allow_truncated=True, shard_problems=shard_problems,
            )
        )  # fmt: skip
        assert len(reads) == 24 // shard_problems
        assert set(reads.values()) == {2}  # for V*, and for what the log says
        reads.clear()


def test_one_process_writes_a_table(estimate_words, table_path, capsys):
    with folder_lock(table_path):
        assert main([*map(str, estimate_words), "--out", str(table_path)]) == 2
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    assert not (table_path / ".lock").exists()


def test_more_samples_extend_a_table(policy_path, problems_path, table_path, tmp_path):
    settings = {
        "model": str(policy_path), "problems": problems_path, "out": tmp_path / "v",
        "max_new_tokens": 24, "allow_truncated": True, "device": "cpu",
    }  # fmt: skip
    astarpo.estimate(EstimateConfig(**settings, samples=3))
    table = astarpo.estimate(EstimateConfig(**settings, samples=8))
    assert len(table.samples(["sample"])) == 24 * 8
    mine = pq.read_table(tmp_path / "v" / "values.parquet")
    assert mine.equals(pq.read_table(table_path / "values.parquet"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--temperature", 0.5], "temperature"),
        (["--max-new-tokens", 25], "max_new_tokens"),
        (["--prompt-format", "chat"], "prompt_format"),
        (["--seed", 1], "seed"),
    ],
)
def test_estimate_refuses_other_sampling(estimate_words, table_path, change, named, capsys):
    assert main([*map(str, estimate_words), "--out", str(table_path), *map(str, change)]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_estimate_stops_when_most_samples_are_truncated(policy_path, problems_path, tmp_path):
    config = EstimateConfig(
        model=str(policy_path), problems=problems_path, out=tmp_path / "v", max_new_tokens=2
    )
    with pytest.raises(UserError, match=r"cut at max_new_tokens=2.*--allow-truncated"):
        astarpo.estimate(config)


@pytest.fixture(scope="session")
def run_path(tmp_path_factory, train_words) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    done = run_command(*train_words, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def without_costs(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    costs = (
        "seconds",
        "sync_seconds",
        "tokens_per_second",
        "peak_memory",
        "device_memory",
        "check",
    )
    return [{k: v for k, v in row.items() if not k.startswith(costs)} for row in rows]


def test_train_writes_its_run_directory(run_path, policy_path):
    rows = [json.loads(line) for line in (run_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    wanted = {
        "reward", "loss", "residual", "residual_std", "kl", "entropy", "length_mean",
        "truncated_share", "status_ok", "grad_norm", "lr", "tokens_per_second",
        "seconds_generate", "seconds_verify", "seconds_reference", "seconds_update",
        "peak_memory_gib",
    }  # fmt: skip
    assert all(wanted <= row.keys() for row in rows)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert len(list((run_path / "samples").glob("step-*.parquet"))) == 8
    names = sorted(p.name for p in (run_path / "checkpoints").iterdir())
    assert names == ["step-000006", "step-000008"]
    assert weights(run_path) != (policy_path / "model.safetensors").read_bytes()
    assert (run_path / "curves.png").stat().st_size > 1000
    summary = json.loads((run_path / "summary.json").read_text())
    assert summary["completed"]
    assert summary["tokens"] == sum(row["tokens"] for row in rows)


def test_train_from_its_own_config_repeats_the_run(run_path, tmp_path):
    done = run_here("train", "--config", run_path / "config.json", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "again") == weights(run_path)
    assert without_costs(tmp_path / "again") == without_costs(run_path)


def profiled_ranges(out: Path) -> Counter:
    """How often each range is in a trace that is neither torch's own nor a step as a whole."""
    with gzip.open(out / "profile" / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert any(event["name"] == "aten::mm" for event in events)
    named = (event["name"] for event in events if event.get("cat") == "user_annotation")
    return Counter(name for name in named if "#" not in name)


def test_profiling_changes_nothing_but_the_time(run_path, train_words, tmp_path):
    out = tmp_path / "run"
    done = run_here(*train_words, "--out", out, "--profile")
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(run_path)
    assert without_costs(out) == without_costs(run_path)
    ranges = profiled_ranges(out)
    assert (ranges["generate"], ranges["verify"]) == (2, 2)  # a phase a step
    assert min(ranges["reference"], ranges["update"]) >= 2
    table = (out / "profile" / "table.txt").read_text()
    for name in ("for it: 2", "generate", "verify", "reference", "update", "aten::mm"):
        assert name in table
    assert not (run_path / "profile").exists()


def test_profile_of_stage_1(policy_path, problems_path, table_path, tmp_path):
    config = EstimateConfig(
        model=str(policy_path), problems=problems_path, out=tmp_path / "v", max_new_tokens=24,
        allow_truncated=True, device="cpu", profile=True,
    )  # fmt: skip
    astarpo.estimate(config)  # in one shard, so that this one is profiled
    values = (tmp_path / "v" / "values.parquet").read_bytes()
    assert values == (table_path / "values.parquet").read_bytes()
    assert profiled_ranges(tmp_path / "v") == {"generate": 1, "verify": 1}
    assert "for it: 1" in (tmp_path / "v" / "profile" / "table.txt").read_text()


def test_train_killed_and_resumed_ends_with_the_same_bytes(run_path, train_words, tmp_path):
    out = tmp_path / "run"
    log = out / "metrics.jsonl"

    def five_steps() -> bool:
        return log.exists() and log.read_text().count("\n") >= 5

    kill_when(command(*train_words, "--out", out), five_steps, signal.SIGKILL)
    assert not (out / "model").exists()
    assert run_here(*train_words, "--out", out).returncode == 2  # refuses without --resume
    done = run_command(*train_words, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(run_path)
    settings = [run / "model" / "tokenizer_config.json" for run in (out, run_path)]
    assert settings[0].read_bytes() == settings[1].read_bytes()
    assert without_costs(out) == without_costs(run_path)


def test_sigterm_saves_and_exits_cleanly(run_path, train_words, tmp_path):
    out = tmp_path / "run"
    log = out / "metrics.jsonl"

    def one_step() -> bool:
        return log.exists() and log.read_text().count("\n") >= 1

    process = kill_when(command(*train_words, "--out", out), one_step, signal.SIGTERM)
    assert process.returncode == 3
    steps = json.loads((out / "summary.json").read_text())["steps"]
    assert not json.loads((out / "summary.json").read_text())["completed"]
    assert 1 <= steps < 8
    assert (out / "checkpoints" / f"step-{steps:06d}" / "state.json").exists()
    assert run_here(*train_words, "--out", out, "--resume").returncode == 0
    assert weights(out) == weights(run_path)


def test_resume_refuses_other_settings(run_path, train_words, capsys):
    words = [*map(str, train_words), "--out", str(run_path), "--resume", "--beta2", "0.5"]
    assert main(words) == 2
    assert "beta2 was 0.001 and is 0.5" in capsys.readouterr().err


def test_train_refuses_a_table_of_another_model(train_words, tmp_path, capsys):
    save_model(tmp_path / "other", build_policy(32, 2, 2, seed=1))
    words = [*map(str, train_words), "--out", str(tmp_path / "o"), "--model"]
    assert main([*words, str(tmp_path / "other")]) == 2
    assert "weights is" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_reward_rises(policy_path, tmp_path):
    """An untrained policy learns to answer 1: rewards, values, loss and optimiser all agree."""
    problems = [p for p in digit_problems(60) if p.ground_truth == "1"]
    write_problems(tmp_path / "p.parquet", problems)
    shared = {"model": str(policy_path), "problems": tmp_path / "p.parquet", "device": "cpu"}
    astarpo.estimate(
        EstimateConfig(**shared, out=tmp_path / "v", max_new_tokens=8, allow_truncated=True)
    )
    astarpo.train(
        TrainConfig(
            **shared, values=tmp_path / "v", out=tmp_path / "run", steps=90, minibatches=1,
            prompts_per_step=64, lr=3e-3, warmup_steps=3,
        )
    )  # fmt: skip
    rows = without_costs(tmp_path / "run")
    before = sum(row["reward"] for row in rows[:3]) / 3
    after = sum(row["reward"] for row in rows[-3:]) / 3
    assert before < 0.15
    assert after > 0.6
    assert rows[-1]["kl"] > 0
    scores = astarpo.evaluate(
        EvaluateConfig(
            **shared | {"model": str(tmp_path / "run" / "model")}, out=tmp_path / "e.json",
            samples=8, max_new_tokens=8, reference=str(policy_path),
        )
    )  # fmt: skip
    assert scores["avg_at_8"].value == pytest.approx(after, abs=0.25)
    assert scores["kl"].low > 0
    assert scores["pass_at_8"].value >= scores["pass_at_2"].value >= scores["avg_at_8"].low
    assert json.loads((tmp_path / "e.json").read_text()) == json.loads(json.dumps(scores.details))
    answers = pq.read_table(tmp_path / "e.parquet")
    assert len(answers) == 20 * 9


def test_filter_drops_what_it_says(policy, problems_path, table_path):
    table = astarpo.ValueTable(table_path)
    prompts = fit_prompts(read_problems(problems_path), policy.vocabulary, "raw", 99)
    rewards = table.rewards([p.problem for p in prompts])
    base = {"model": "m", "problems": "p", "values": "v", "out": "o"}
    kept = valued_prompts(prompts, table, TrainConfig(**base, filter="all_wrong"))
    expected = [p.problem for p, r in zip(prompts, rewards, strict=True) if r.max() > 0]
    assert [p.problem for p in kept] == expected
    assert 0 < len(kept) < 24
    assert min(p.value for p in kept) > 0
    everything = valued_prompts(prompts, table, TrainConfig(**base))
    assert [p.problem for p in everything] == [p.problem for p in prompts]
    values = astarpo.optimal_values(rewards, 0.5).tolist()
    assert [p.value for p in everything] == values  # the filter changes no value
    assert all(prompt in everything for prompt in kept)
