"""Recipes from data to the evaluated policy: on real problems, stopped and gone on with."""

import json
import logging
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from astarpo.rundir.reader import open_run, state_of
from astarpo.types import UserError
from astarpo.verbs.run import prepare_document, run_document

DATA = Path(os.environ.get("ASTARPO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def small_recipe(task: str, source: Path, test_source: Path) -> dict:
    """All stages on a handful of problems with a policy that has hardly been trained."""
    return {
        "max_prompt_tokens": 1200,
        "max_new_tokens": 48,
        "limit": 16,
        "device": "cpu",
        "data": {"task": task, "source": str(source), "limit": 16},
        "test": {"source": str(test_source), "limit": 12},
        "warm-data": {"limit": 64},
        "warm-start": {"steps": 10, "batch_size": 4, "hidden_size": 32, "layers": 2, "heads": 2,
                       "max_tokens": 1500},
        "estimate": {"samples": 4, "allow_truncated": True},
        "train": {"steps": 2, "prompts_per_step": 8, "lr": 1e-4},
        "evaluate": {"samples": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "train_file", "test_file"),
    [
        ("gsm8k", "gsm8k/train.jsonl", "gsm8k/test.jsonl"),
        ("math", "math/test.jsonl", "math/test.jsonl"),
    ],
)
def test_every_stage_on_real_problems(task, train_file, test_file, tmp_path, caplog):
    if not (DATA / train_file).exists():
        pytest.skip(f"no {train_file} under {DATA} (set ASTARPO_TEST_DATA)")
    recipe = small_recipe(task, DATA / train_file, DATA / test_file)
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO, logger="astarpo"):
        summary = run_document(recipe, out, "recipe")
    assert summary["steps"] == 2
    assert {"pass_at_1", "avg_at_2", "maj_at_2"} <= summary["reference"].keys()
    assert summary["tokens"]["estimate"] > 16 * 4
    assert set(summary["seconds"]) == {"warm_start", "estimate", "train", "evaluate", "total"}
    assert json.loads((out / "summary.json").read_text()) == summary
    assert "reference" in caplog.text
    (shard,) = (out / "values").glob("samples-*.parquet")
    samples = pq.read_table(shard).to_pylist()
    assert len(samples) == 16 * 4
    assert all(row["status"] in ("ok", "no_answer", "unparsable") for row in samples)
    weights = load_file(out / "train" / "model" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())

    # Again: nothing is done anew, and the summary is the same.
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    assert run_document(recipe, out, "recipe") == summary
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == before
    with pytest.raises(UserError, match="another recipe or seed"):
        run_document(recipe | {"seed": 1}, out, "recipe")


def test_a_mistake_in_a_late_stage_is_found_before_the_first(tmp_path):
    recipe = small_recipe("gsm8k", tmp_path / "none.jsonl", tmp_path / "none.jsonl")
    recipe["train"]["lr"] = -1
    with pytest.raises(UserError, match="lr"):
        run_document(recipe, tmp_path / "out", "recipe")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def digits(tmp_path, policy_path):
    """A recipe on problems of one file, from a policy that is there."""
    rows = [{"question": f"Item {i}", "answer": f"#### {i % 3}"} for i in range(32)]
    source = tmp_path / "digits.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = small_recipe("gsm8k", source, source) | {"model": str(policy_path)}
    for table in ("warm-start", "warm-data"):
        del recipe[table]
    recipe["max_new_tokens"] = 8
    recipe["data"] = {"task": "gsm8k", "source": str(source)}
    recipe["test"] = {}
    return recipe


def test_the_mean_as_value_and_no_samples_at_the_end(digits, tmp_path, caplog):
    """beta1 = inf, no KL, and one file for training and tests: nothing fails on the way."""
    digits["beta1"] = float("inf")
    digits["evaluate"]["samples"] = 0
    summary = run_document(digits, tmp_path / "out", "recipe")
    assert summary["kl"] is None
    assert "12.5% of it is held out" in caplog.text
    asked = [
        {row["prompt"][0]["content"] for row in pq.read_table(tmp_path / "out" / name).to_pylist()}
        for name in ("train.parquet", "test.parquet")
    ]
    assert asked[1]
    assert not asked[0] & asked[1]
    assert run_document(digits, tmp_path / "out", "recipe") == summary
    # Where it runs is no part of what was asked for.
    assert run_document(digits | {"device": "auto"}, tmp_path / "out", "recipe") == summary
    card = (tmp_path / "out" / "train" / "model" / "README.md").read_text()
    assert "| pass_at_1 |" in card


@pytest.mark.parametrize(
    ("train", "called"),
    [
        ({"algorithm": "grpo"}, "grpo"),
        ({"baseline_from": "rollout"}, "astar_po with baseline_from rollout"),
    ],
)
def test_no_stage_1_where_nothing_reads_it(train, called, digits, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "values").mkdir()  # of somebody else
    digits["train"] |= train
    digits["estimate"] |= {"temperature": 0.9}
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO, logger="astarpo"):
        summary = run_document(digits, out, "recipe")
    assert f"no stage 1: {called} reads no value table" in caplog.text
    assert "value table: " not in caplog.text
    assert not (out / "values").exists()
    assert (summary["seconds"]["estimate"], summary["tokens"]["estimate"]) == (0, 0)
    rows = pq.read_metadata(out / "train.parquet").num_rows
    assert summary["num_problems"]["train"] == rows
    config = json.loads((out / "train" / "config.json").read_text())
    assert config["values"] is None
    assert (config["temperature"], config["max_new_tokens"]) == (0.9, 8)
    run = open_run(out)
    assert run.values is None
    assert str(state_of(run, run.metrics())) == "finished"
    page = (out / "report.html").read_text()
    assert "Trained without a value table" in page
    assert run_document(digits, out, "recipe") == summary


def test_a_filter_still_has_its_stage_1(digits, tmp_path):
    digits["train"] |= {"baseline_from": "rollout", "filter": "all_wrong", "values_samples": 2}
    digits["estimate"]["samples"] = 2
    stages = prepare_document(digits, tmp_path / "out", "recipe")
    assert stages["train"].values == stages["estimate"].out


def test_mistakes_come_first_also_without_stage_1(digits, tmp_path):
    digits["train"] |= {"baseline_from": "rollout", "values_samples": 2}
    with pytest.raises(UserError, match="values_samples tells how V"):
        run_document(digits, tmp_path / "out", "recipe")
    del digits["train"]["values_samples"]
    with pytest.raises(UserError, match="do not fit the context"):
        run_document(digits | {"max_new_tokens": 4090}, tmp_path / "out", "recipe")
    assert not (tmp_path / "out").exists()


def test_damaged_records_of_a_run_are_named(digits, tmp_path, caplog):
    out = tmp_path / "out"
    summary = run_document(digits, out, "recipe")
    stages = json.loads((out / "stages.json").read_text())
    (out / "stages.json").write_text("[damaged")
    again = run_document(digits, out, "recipe")
    assert "stages.json: damaged" in caplog.text
    assert again["trained"] == summary["trained"]
    assert json.loads((out / "stages.json").read_text()).keys() == stages.keys()
    (out / "recipe.json").write_text("damaged}")
    with pytest.raises(UserError, match=r"recipe.json: damaged.*give another --out"):
        run_document(digits, out, "recipe")
    assert run_document(digits, tmp_path / "another", "recipe")["trained"] == summary["trained"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 4090}, "do not fit the context"),
        ({"train": {"temperature": 0.7}}, r"temperature is 0.7 here and 1.0 in \[estimate\]"),
        ({"train": {"lora_alpha": 3}}, "lora-rank"),
        ({"train": {"group_size": 3}}, "group_size: astar_po does not read it"),
        ({"test": {"source": "none.jsonl"}}, "none.jsonl"),
        ({"evaluate": {"reference": "none"}}, "none"),
        ({"evaluate": {"suite": "paper"}}, "suite"),
        ({"model": "none"}, "none: no such model folder"),
        ({"device": "cuda"}, "PyTorch sees no GPU"),
    ],
)
def test_mistakes_of_late_stages_come_before_the_first(change, message, digits, tmp_path):
    if change == {"device": "cuda"} and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        run_document(digits | change, tmp_path / "out", "recipe")
    assert not (tmp_path / "out").exists()
