"""What a user is told of answers that say little of the policy, by each verb that judges."""

import json

from astarpo.cli import main
from astarpo.tasks.problem_set import write_problems
from astarpo.types import Message, Problem


def test_evaluate_tells_of_answers_that_were_cut(policy_path, problems_path, tmp_path, capsys):
    words = ["evaluate", "--model", policy_path, "--problems", problems_path, "--limit", 6]
    words += ["--samples", 1, "--max-new-tokens", 1, "--device", "cpu"]
    assert main([*map(str, words), "--out", str(tmp_path / "e.json")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "evaluate: verdicts of 12 answers: " in told
    assert "answers were cut at the token limit" in told
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["scores"]["pass_at_1"]["low"] < result["scores"]["pass_at_1"]["high"]


def test_golds_that_no_answer_could_match_stop_each_verb_at_its_start(
    policy_path, tmp_path, capsys
):
    prompt = (Message(role="user", content="Reach 24 with 3, 8."),)
    write_problems(tmp_path / "p.parquet", [Problem("one", "countdown", prompt, "24")])
    words = ["--model", str(policy_path), "--problems", str(tmp_path / "p.parquet")]
    train = ["train", "--algorithm", "grpo", "--steps", "1"]
    for verb in (["estimate"], train, ["evaluate"]):
        out = tmp_path / f"{verb[0]}.json"
        assert main([*verb, *words, "--device", "cpu", "--out", str(out)]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "countdown cannot judge against 1 of 1 reference answers, the first '24'" in told
        assert not out.exists()
