"""The suite of benchmarks as a user runs it: from local files, resumed, killed halfway."""

import json
import signal

import pyarrow.parquet as pq
import pytest

import astarpo
from astarpo.config import DataConfig, EvaluateConfig
from astarpo.evaluation.suite import SUITES, table
from astarpo.tasks import get_task
from astarpo.types import UserError
from tests.e2e.test_stages import command, kill_when

ROWS = {
    "math500": [{"problem": f"Q{i}", "answer": str(i)} for i in range(3)],
    "minerva_math": [{"question": "Q", "answer": "4.5e33"}],
    "olympiadbench": [{"question": "Q", "final_answer": ["$1$,$2$"], "is_multiple_answer": True}],
    "amc23": [{"question": f"Q{i}", "answer": 2.0} for i in range(2)],
    "aime24": [{"problem": "Q", "solution": r"\boxed{025}"}],
    "aime25": [{"problem": "Q", "answer": "70"}],
    "hmmt": [{"problem": "Q", "answer": r"\frac{1}{2}"}],
    "hellaswag": [
        {
            "activity_label": "Roof",
            "ctx_a": f"Text {i}.",
            "ctx_b": "he",
            "endings": ["a", "bb", "ccc", "dddd"],
            "label": str(i),
        }
        for i in range(4)
    ],
}


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def settings(policy_path, sources, tmp_path):
    return {
        "model": str(policy_path),
        "suite": "paper",
        "suite_sources": sources,
        "out": tmp_path / "scores.json",
        "max_new_tokens": 8,
        "device": "cpu",
        "grade_workers": 1,
    }


def run(settings, **changes):
    return astarpo.evaluate(EvaluateConfig(**(settings | changes))).details


def test_every_benchmark_by_its_protocol(settings, tmp_path):
    result = run(settings)
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(json.dumps(result))
    entries = result["benchmarks"]
    assert list(entries) == list(SUITES["paper"]) == list(ROWS)
    for name, entry in entries.items():
        assert entry["num_problems"] == len(ROWS[name])
        assert entry["verifier"] == get_task(name).version
        rows = pq.read_table(tmp_path / entry["answers"]).to_pylist()
        assert {row["problem_id"] for row in rows} == {
            f"{name}/test/{i}" for i in range(len(ROWS[name]))
        }
        for mode, score in (("greedy", "pass_at_1"), ("sampled", "avg_at_32"), ("acc", "acc")):
            rewards = [row["reward"] for row in rows if row["mode"] == mode]
            if rewards:
                assert entry["scores"][score]["value"] == sum(rewards) / len(rewards)
    assert set(entries["math500"]["scores"]) == {"pass_at_1"}
    assert {"pass_at_1", "avg_at_32", "maj_at_32", "pass_at_32"} <= set(entries["amc23"]["scores"])
    amc = pq.read_table(tmp_path / "scores/amc23.parquet").to_pylist()
    assert sum(row["mode"] == "sampled" for row in amc) == 2 * 32
    assert set(entries["hellaswag"]["scores"]) == {"acc", "acc_norm"}
    assert sum(entries["hellaswag"]["statuses"].values()) == 8

    lines = table(result).splitlines()
    assert len(lines) == 1 + 8
    assert lines[4].split() == ["amc23", "2", "avg@32,", "temperature", "1", *lines[4].split()[5:]]
    low, high = float(lines[4].split()[-3]), float(lines[4].split()[-1])
    score = entries["amc23"]["scores"]["avg_at_32"]
    assert (low, high) == pytest.approx((100 * score["low"], 100 * score["high"]), abs=0.006)


def test_finished_benchmarks_are_not_run_again(settings, tmp_path, monkeypatch):
    first = run(settings, benchmarks="aime24, math500")
    assert list(first["benchmarks"]) == ["math500", "aime24"]
    written = (tmp_path / "scores/math500.parquet").stat().st_mtime_ns

    second = run(settings, benchmarks="math500,hmmt,aime24")
    assert list(second["benchmarks"]) == ["math500", "aime24", "hmmt"]
    assert second["benchmarks"]["math500"] == first["benchmarks"]["math500"]
    assert (tmp_path / "scores/math500.parquet").stat().st_mtime_ns == written

    monkeypatch.setattr("astarpo.evaluation.suite.load_policy", None)  # nothing is left to do
    third = run(settings, benchmarks="aime24,hmmt")
    assert third == second


def test_other_settings_and_problems_do_not_mix(settings, sources):
    run(settings, benchmarks="aime25")
    for name, value in {"max_new_tokens": 9, "limit": 1, "seed": 1}.items():
        with pytest.raises(UserError, match=f"{name} differ"):
            run(settings, benchmarks="aime24", **{name: value})
    (sources / "aime25.jsonl").write_text('{"problem": "Q", "answer": "71"}')
    with pytest.raises(UserError, match="problems of aime25 differ"):
        run(settings, benchmarks="aime25")


def test_killed_halfway_only_the_benchmark_under_way_is_lost(settings, tmp_path):
    settings = settings | {"benchmarks": "math500,amc23,hellaswag"}
    words = ["evaluate"]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", value]
    scores = tmp_path / "scores.json"
    begun = lambda: scores.exists() and "math500" in scores.read_text()  # noqa: E731
    process = kill_when(command(*words), begun, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = json.loads((tmp_path / "scores.json").read_text())["benchmarks"]
    assert 1 <= len(before) < 3

    after = run(settings)["benchmarks"]
    assert list(after) == ["math500", "amc23", "hellaswag"]
    assert {name: after[name] for name in before} == before
    for entry in after.values():
        assert pq.read_table(tmp_path / entry["answers"]).num_rows >= entry["num_problems"]


def test_a_prompt_beyond_the_context_is_not_left_out(settings, sources):
    (sources / "hmmt.jsonl").write_text(json.dumps({"problem": "Q" * 5000, "answer": "1"}))
    with pytest.raises(
        UserError, match="hmmt: a prompt of 5070 tokens and max_new_tokens=8 do not"
    ):
        run(settings, benchmarks="math500,hmmt")
    assert not settings["out"].exists()


def test_long_prompts_are_not_set_aside(settings, sources):
    (sources / "hmmt.jsonl").write_text(json.dumps({"problem": "Q" * 1000, "answer": "1"}))
    assert run(settings, benchmarks="hmmt")["benchmarks"]["hmmt"]["num_problems"] == 1


def test_multiple_choice_from_a_problem_set(policy_path, sources, tmp_path):
    problems = tmp_path / "hellaswag.parquet"
    source = str(sources / "hellaswag.jsonl")
    astarpo.data(DataConfig(task="hellaswag", split="test", source=source, out=problems))
    result = astarpo.evaluate(
        EvaluateConfig(
            model=str(policy_path), problems=problems, out=tmp_path / "h.json", device="cpu"
        )
    )
    assert set(result) == {"acc", "acc_norm"}
    assert result.details["statuses"] == {"ok": 8}
