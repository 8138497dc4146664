"""Own problems and rewards through the stages, value tables from and for other trainers."""

import json
import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

import astarpo
from astarpo.config import (
    DataConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    ImportValuesConfig,
    TrainConfig,
)
from astarpo.stages.data import data
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import UserError
from astarpo.values.estimators import Plugin
from astarpo.values.shards import Sample
from astarpo.values.table import ValueTable
from tests.conftest import digit_problems

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["own_reward", "reasoning_gym_task"])
def test_examples_run_and_are_short(name, policy_path, tmp_path, monkeypatch):
    script = EXAMPLES / f"{name}.py"
    assert len(script.read_text().splitlines()) < 30
    monkeypatch.setattr(sys, "argv", [str(script), str(policy_path), str(tmp_path / "out")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(script), run_name="__main__")
    assert json.loads((tmp_path / "out" / "run" / "summary.json").read_text())["completed"]
    shards = (tmp_path / "out" / "values").glob("samples-*.parquet")
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert {row["status"] for row in rows} <= {"ok", "no_answer"}


def test_negative_rewards_pass_through_every_stage(policy_path, tmp_path, monkeypatch):
    """Right is -0.5 and wrong is -2.5: shifted rewards shift V*, and evaluation says so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.py").write_text(
        "def f(completions, **columns):\n"
        "    return [-2.5 + 2 * ('a' in c[0]['content']) for c in completions]\n"
    )
    write_problems(tmp_path / "digits.parquet", digit_problems(4))
    data(DataConfig(task="own", source="digits.parquet", out="p.parquet", reward="r.py:f"))
    judged = {"trust_reward": "r.py:f", "grade_workers": 1}
    shared = {"model": str(policy_path), "problems": "p.parquet", **judged}
    limits = {"max_new_tokens": 24, "allow_truncated": True}
    table = astarpo.estimate(EstimateConfig(**shared, **limits, out="v"))
    rewards = table.rewards(read_problems(tmp_path / "p.parquet"))
    assert set(np.unique(rewards)) == {-2.5, -0.5}
    values = pq.read_table(tmp_path / "v" / "values.parquet")["v_star"].to_numpy()
    shifted = astarpo.optimal_values(rewards + 2.5, 0.5) - 2.5
    assert values == pytest.approx(shifted)
    steps = {"steps": 4, "prompts_per_step": 4, "minibatches": 1}
    summary = astarpo.train(TrainConfig(**shared, **steps, values="v", out="run")).summary
    assert summary["completed"]
    assert -2.5 <= summary["reward"] <= -0.5
    with pytest.raises(UserError, match="drops every one"):
        astarpo.train(TrainConfig(**shared, **steps, values="v", out="r2", filter="all_wrong"))
    scores = astarpo.evaluate(EvaluateConfig(**shared, samples=2, max_new_tokens=24, out="e.json"))
    assert set(scores) == {"pass_at_1", "greedy_reward", "avg_at_2", "pass_at_2"}
    assert scores["pass_at_1"].value == scores["pass_at_2"].value == 0
    assert -2.5 <= scores["avg_at_2"].value <= -0.5
    (tmp_path / "r.py").write_text("def f(completions, **c): return [0]\n")
    with pytest.raises(UserError, match=r"verifier of reward:r\.py:f is"):
        astarpo.train(TrainConfig(**shared, **steps, values="v", out="r3"))


@pytest.fixture
def table(tmp_path) -> ValueTable:
    """Two samples of each of three problems, the fourth has none; answers are 0, 1, 2."""
    problems = digit_problems(4)
    table = ValueTable.start(tmp_path / "values", {"seed": 0}, {})
    rows = []
    for problem, answers in zip(problems, ["00", "01", "11"], strict=False):
        for n, answer in enumerate(answers):
            right = float(answer == problem.ground_truth)
            text = f"#### {answer}"
            row = (problem.id, problem.digest, n, (1,), text, answer, right, "ok", 1, "stop")
            rows.append(Sample(*row))
    table.append(rows)
    table.write_values(problems[:3], table.values(problems[:3], Plugin(0.5), 2))
    write_problems(tmp_path / "problems.parquet", problems)
    return table


V_STAR = [1.0, 0.5 * np.log((1 + np.e**2) / 2), 0.0]


def exported(table, layout, **settings):
    folder = table.path.parent
    out = folder / f"{layout}.parquet"
    astarpo.export(
        ExportConfig(
            table=table.path, problems=folder / "problems.parquet", out=out, format=layout,
            overwrite=True, **settings,
        )
    )  # fmt: skip
    return out


def test_export_for_verl(table):
    out = exported(table, "verl")
    rows = pq.read_table(out).to_pylist()
    assert [row["v_star"] for row in rows] == pytest.approx(V_STAR)
    assert [row["extra_info"]["v_star"] for row in rows] == pytest.approx(V_STAR)
    again = read_problems(out)
    assert [p.digest for p in again] == [p.digest for p in digit_problems(3)]
    assert [p.id for p in again] == [p.id for p in digit_problems(3)]
    mean = [
        row["v_star"] for row in pq.read_table(exported(table, "verl", beta1="inf")).to_pylist()
    ]
    assert mean == [1.0, 0.5, 0.0]


def test_export_for_trl_comes_back_as_own_problems(table, tmp_path):
    out = exported(table, "trl")
    rows = list(datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache")))
    assert rows[1]["prompt"] == [{"role": "user", "content": "Name a number. Item 1:"}]
    assert [row["v_star"] for row in rows] == pytest.approx(V_STAR)
    assert [row["ground_truth"] for row in rows] == ["0", "1", "2"]
    settings = {"answer_column": "ground_truth", "reward": "gsm8k", "out": tmp_path / "o.parquet"}
    data(DataConfig(task="own", source=str(out), **settings))
    again = read_problems(tmp_path / "o.parquet")
    assert [p.digest for p in again] == [p.digest for p in digit_problems(3)]


def test_text_prompts_are_exported_as_text(table, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Q", "answer": "1"}\n')
    problems = tmp_path / "problems.parquet"
    data(
        DataConfig(
            task="own",
            source=str(tmp_path / "a.jsonl"),
            reward="gsm8k",
            out=problems,
            overwrite=True,
        )
    )
    (problem,) = read_problems(problems)
    text = ("#### 1", "1", 1.0, "ok", 1, "stop")
    table.append([Sample(problem.id, problem.digest, n, (1,), *text) for n in range(2)])
    (row,) = pq.read_table(exported(table, "trl")).to_pylist()
    assert (row["prompt"], row["answer"], row["v_star"]) == ("Q", "1", 1.0)


def test_export_for_compose_rl(table):
    rows = pq.read_table(exported(table, "compose-rl")).to_pylist()
    assert rows[2] == {
        "messages": [{"role": "user", "content": "Name a number. Name a number. Item 2:"}],
        "verified_answer": "2",
        "vstar": 0.0,
    }


def importing(source, policy_path, out, **settings):
    shared = {"source": str(source), "model": str(policy_path), "out": out, "max_new_tokens": 24}
    return astarpo.import_values(ImportValuesConfig(**shared, grade_workers=1, **settings))


def test_apo_layout_there_and_back(table, policy_path, tmp_path, caplog):
    source = exported(table, "apo")
    first = pq.read_table(source).to_pylist()[1]
    assert (first["response_0"], first["eval_0"]) == ("#### 0", 0.0)
    assert (first["response_1"], first["eval_1"]) == ("#### 1", 1.0)

    back = importing(source, policy_path, tmp_path / "back")
    assert (back.rewards(digit_problems(3)) == table.rewards(digit_problems(3))).all()
    assert back.manifest["imported"]["agreement"] == 1.0
    rows = back.samples(["num_tokens", "finish_reason", "text"]).to_pylist()
    assert rows[0] == {"num_tokens": 7, "finish_reason": "stop", "text": "#### 0"}

    train = {"model": str(policy_path), "problems": source, "values": back.path}
    short = {"steps": 1, "prompts_per_step": 3, "minibatches": 1}
    assert astarpo.train(TrainConfig(**train, **short, out=tmp_path / "run")).summary["completed"]
    assert "nothing but your word" in caplog.text
    sampling = {"max_new_tokens": 24, "out": back.path, "samples": 3}
    with pytest.raises(UserError, match="seed is None in the table and 0 here"):
        astarpo.estimate(EstimateConfig(model=str(policy_path), problems=source, **sampling))


def test_published_rewards_of_another_verifier_are_not_used(table, policy_path, tmp_path):
    """A-PO's first stage and ours may differ: the texts are judged again."""
    rows = pq.read_table(exported(table, "apo")).to_pylist()
    for row in rows:
        row["eval_0"], row["eval_1"] = 1.0, 1.0
        del row["extra_info"]["id"]
    source = tmp_path / "published.parquet"
    pq.write_table(_arrow(rows), source)
    back = importing(source, policy_path, tmp_path / "back")
    problems = read_problems(source)
    assert [p.id for p in problems] == [f"gsm8k/train/{i}" for i in range(3)]
    assert (back.rewards(problems) == table.rewards(digit_problems(3))).all()
    assert back.manifest["imported"]["agreement"] == 0.5
    assert importing(source, policy_path, tmp_path / "back").samples().equals(back.samples())


def _arrow(rows):
    return datasets.Dataset.from_list(rows).data.table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("response_0"), "missing column response_0"),
        (lambda row: row.pop("reward_model"), "missing column reward_model"),
        (lambda row: row.update(response_1=None), "a response is missing"),
        (lambda row: row.update(data_source="nobody/knows"), "nobody/knows"),
    ],
)
def test_unfit_published_files(table, policy_path, tmp_path, change, message):
    rows = pq.read_table(exported(table, "apo")).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(_arrow(rows), tmp_path / "unfit.parquet")
    with pytest.raises(UserError, match=message):
        importing(tmp_path / "unfit.parquet", policy_path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_rows_with_unequally_many_responses_are_refused(table, policy_path, tmp_path):
    rows = pq.read_table(exported(table, "apo")).to_pylist()
    del rows[1]["response_1"]
    source = tmp_path / "unequal.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"line 2: has 1 responses and the first row 2"):
        importing(source, policy_path, tmp_path / "back")
