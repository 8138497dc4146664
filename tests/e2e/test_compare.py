"""Comparisons and sweeps on a policy that knows nothing: stopped, gone on with, extended."""

import json
import logging
import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

from astarpo.cli import main
from astarpo.config import CompareConfig, SweepConfig
from astarpo.types import UserError
from astarpo.verbs.compare import compare
from astarpo.verbs.sweep import sweep

RECIPE = """
max_new_tokens = 8
device = "cpu"
[data]
task = "gsm8k"
source = "{source}"
limit = 8
[test]
limit = 4
[ood.other]
task = "multiply"
size = 1
limit = 2
[estimate]
samples = 2
allow_truncated = true
[train]
steps = 2
prompts_per_step = 4
minibatches = 1
eval_every = 1
lr = 1e-3
[rebel]
lr = 2e-3
[evaluate]
samples = 2
"""


@pytest.fixture
def recipe(tmp_path):
    source = tmp_path / "digits.jsonl"
    rows = [{"question": f"Item {i}", "answer": f"#### {i % 3}"} for i in range(64)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(source=source))
    return path


@pytest.fixture
def in_this_process(monkeypatch):
    in_process(monkeypatch)


def in_process(monkeypatch) -> None:
    """Stages run here from now on: for what an experiment finds, not for its processes."""

    class Here(SimpleNamespace):
        def __init__(self, words: list[str], **_: object) -> None:
            super().__init__(status=main(words[words.index("astarpo") + 1 :]))

        def wait(self, timeout: float = 0.0) -> int:
            return self.status

        def kill(self) -> None:
            """It has ended."""

    instead = SimpleNamespace(**vars(subprocess) | {"Popen": Here})
    monkeypatch.setattr("astarpo.experiments.stages.subprocess", instead)


def test_a_comparison_stopped_gone_on_with_and_extended(
    recipe, policy_path, tmp_path, caplog, monkeypatch
):
    out = tmp_path / "out"

    def request(**changed) -> CompareConfig:
        settings = {
            "recipe": str(recipe), "model": str(policy_path), "out": out, "seeds": "0",
            "algorithms": "astar_po,rebel", "target": 2.0,
        }  # fmt: skip
        return CompareConfig(**(settings | changed))

    def stop_when_training_begins() -> None:
        while not (out / "settings" / "runs-astar_po-seed-0.json").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_training_begins)
    stopper.start()
    assert compare(request())["rows"] == []
    stopper.join()
    assert "stopped; the same call goes on" in caplog.text

    table = out / "values" / "seed-0" / "manifest.json"
    stage1_written = table.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, logger="astarpo"):
        results = compare(request())
    assert table.stat().st_mtime_ns == stage1_written
    ours, rival = results["rows"]
    assert (ours["variant"], rival["variant"]) == ("astar_po", "rebel")
    assert {row["state"] for row in results["rows"]} == {"done"}
    assert (ours["samples_per_prompt"], rival["samples_per_prompt"]) == (1, 2)
    assert (ours["steps"], ours["settings"]["lr"], rival["settings"]["lr"]) == (2, 1e-3, 2e-3)
    # Stage 1 counts in full, for whom it is.
    assert 8 * 2 < ours["tokens"]["estimate"] <= 8 * 2 * 8
    assert ours["seconds"]["estimate"] > 0
    assert (rival["seconds"]["estimate"], rival["tokens"]["estimate"]) == (0, 0)
    assert ours["curve"]["seconds"][0] == ours["seconds"]["estimate"]
    assert ours["curve"]["step"] == [0, *ours["training"]["step"]] == [0, 1, 2]
    assert ours["curve"]["tokens"][-1] == sum(ours["tokens"].values())
    assert ours["training"]["seconds"][-1] == pytest.approx(sum(ours["seconds"].values()))
    assert set(ours["scores"]) == set(results["reference"]) == {"test", "other"}
    assert ours["kl"] == ours["scores"]["test"]["kl"]["value"]
    assert (results["target"], ours["to_target"]) == (2.0, None)
    assert json.loads((out / "results.json").read_text()) == results
    assert (out / "table.md").read_text() in caplog.text
    assert (out / "report.html").exists()

    # With another seed: nothing that was finished is done again, also if it was stopped early.
    summary = out / "runs" / "rebel" / "seed-0" / "summary.json"
    stopped = json.loads(summary.read_text()) | {"completed": False, "reason": "unhealthy"}
    summary.write_text(json.dumps(stopped))
    done = [out / "runs" / name / "seed-0" for name in ("astar_po", "rebel")]
    files = [f for path in done for f in path.rglob("*") if f.is_file()]
    written = {file: file.stat().st_mtime_ns for file in files}
    in_process(monkeypatch)
    extended = compare(request(seeds="1,0", algorithms="rebel"))
    assert {file: file.stat().st_mtime_ns for file in files} == written
    assert [(row["variant"], row["seed"]) for row in extended["rows"]] == [
        ("astar_po", 0), ("rebel", 0), ("rebel", 1),
    ]  # fmt: skip
    assert extended["rows"][0] == ours
    collapsed = {"state": "collapsed", "reason": "unhealthy", "scores": {}, "kl": None}
    assert extended["rows"][1] == rival | collapsed
    with pytest.raises(UserError, match="equal was 'prompts' and is 'samples'"):
        compare(request(equal="samples"))


def test_a_sweep_over_samples_draws_from_one_table(recipe, policy_path, tmp_path, in_this_process):
    out = tmp_path / "out"
    config = SweepConfig(
        setting="samples", over="1,4", recipe=str(recipe), model=str(policy_path), out=out,
        seeds="5", steps=1,
    )  # fmt: skip
    results = sweep(config)
    one, four = results["rows"]
    assert (one["value"], four["value"], one["steps"]) == (1, 4, 1)
    assert [path.name for path in (out / "values").iterdir()] == ["seed-5"]
    assert one["settings"]["values"] == four["settings"]["values"]
    share = one["tokens"]["estimate"] / four["tokens"]["estimate"]
    assert share == pytest.approx(1 / 4, abs=0.05)
    assert one["seconds"]["estimate"] == pytest.approx(four["seconds"]["estimate"] * share)
    error = results["value_error"]
    assert (error["n"], error["num_samples"], error["num_problems"]) == ([1, 4], 4, 8)
    assert (error["bias"][1], error["sd"][1]) == (0, 0)
    assert (out / "value-error.png").exists()


def test_a_training_that_goes_wrong_at_once_is_a_row(
    recipe, policy_path, tmp_path, in_this_process
):
    recipe.write_text(recipe.read_text().replace("minibatches = 1", "minibatches = 2"))
    config = SweepConfig(
        setting="lr", over="1e30,1e-3", recipe=str(recipe), model=str(policy_path),
        out=tmp_path / "out", seeds="0", algorithms="rloo", steps=1,
    )  # fmt: skip
    results = sweep(config)
    assert [row["state"] for row in results["rows"]] == ["collapsed", "done"]
    assert results["rows"][0]["steps"] == 0
    assert "is not finite" in results["rows"][0]["reason"]
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare --algorithms dqn", "no such algorithm: dqn"),
        ("compare --algorithms grpo,grpo", "algorithms: grpo given more than once"),
        ("compare --seeds a", "seeds: whole numbers"),
        ("compare --seeds 1,1", "seeds: 1 given more than once"),
        ("compare --equal samples --steps 0", "steps"),
        ("compare --equal seconds", "--seconds"),
        ("compare --seconds 5", "--seconds"),
        ("compare nothing", "no such recipe"),
        ("compare gsm8k-small", "give it as --model"),
        ("compare ood.toml", "[ood.test]: the name is taken"),
        ("compare lr.toml", "lrr: no such setting; did you mean lr?"),
        ("compare --out taken", "is not an experiment"),
        ("sweep", "missing: SETTING"),
        ("sweep model", "cannot sweep 'model'"),
        ("sweep lr", "give the values of lr"),
        ("sweep beta1 --over -1", "beta1: "),
    ],
)
def test_wrong_inputs(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "ood.toml").write_text("[data]\ntask = 'multiply'\n[ood.test]\nsize = 3\n")
    (tmp_path / "lr.toml").write_text("[data]\ntask = 'multiply'\n[grpo]\nlrr = 3\n")
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_stage_that_fails_is_named(recipe, policy_path, tmp_path, capfd):
    recipe.write_text(recipe.read_text().replace("allow_truncated = true", "shard_problems = 1"))
    recipe.write_text(recipe.read_text().replace("samples = 2\nshard", "samples = 16\nshard"))
    words = ["compare", recipe, "--model", policy_path, "--algorithms", "astar_po", "--seeds", 0]
    assert main([*map(str, words), "--out", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert "were cut at max_new_tokens=8" in error
    assert "values/seed-0: astarpo estimate" in error


def test_dry_run_counts_and_writes_nothing(recipe, policy_path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    words = [str(recipe), "--model", str(policy_path), "--dry-run"]
    assert main(["compare", *words, "--algorithms", "astar_po,rebel"]) == 0
    text = capsys.readouterr().out
    assert "6 runs: each variant with the seeds 0, 1, 2" in text
    assert "stage 1, each seed: 16 samples" in text
    assert "astar_po: 2 steps of 4 prompts x 1: 8 samples; lr 0.001" in text
    assert "rebel: 2 steps of 4 prompts x 2: 16 samples; lr 0.002" in text
    assert "scores on test, other: 18 answers for each policy" in text
    assert main(["sweep", "samples", *words, "--over", "1,4"]) == 0
    text = capsys.readouterr().out
    assert "stage 1, each seed: 32 samples" in text
    assert "astar_po-samples=4: 2 steps of 4 prompts x 1: 8 samples; values_samples 4" in text
    assert sorted(tmp_path.rglob("*")) == before
