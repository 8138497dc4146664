"""Reference answers that no response could match are found before any work."""

import json
import time

import pytest

from astarpo.config import DataConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.stages.data import data
from astarpo.tasks import TASKS, get_task
from astarpo.types import Message, Problem, UserError


def problem(task: str, gold: str, name: str = "p") -> Problem:
    return Problem(name, task, (Message(role="user", content="?"),), gold)


@pytest.mark.parametrize(
    ("task", "gold"),
    [
        ("gsm8k", "18 dollars"),
        ("gsm8k", ""),
        ("arithmetic", "four"),
        ("multiply", "47 * 86"),
        ("countdown", "24"),
        ("countdown", "[24]"),
        ("countdown", "24 = 3*8"),
        ("countdown", '{"target": 24}'),
        ("countdown", '{"target": "24", "numbers": [3, 8]}'),
        ("countdown", '{"target": 24, "numbers": 3}'),
        ("countdown", "[" * 100_000),
        ("math", " "),
        ("math500", r"\frac{1}{2"),
        ("aime24", "1000"),
        ("hellaswag", "4"),
    ],
)
def test_an_answer_that_cannot_be_judged_is_named(task, gold):
    right = {"countdown": '{"target": 24, "numbers": [3, 8]}', "hellaswag": "3"}.get(task, "18")
    problems = [problem(task, right), problem(task, gold, "bad"), problem(task, gold, "worse")]
    with pytest.raises(UserError, match="cannot judge against 2 of 3 reference answers") as caught:
        verifier_fingerprint(problems)
    message = str(caught.value)
    assert f"{task} cannot" in message
    assert f"{gold!r:.80} of bad: it wants {get_task(task).gold_form}" in message
    assert "\n" not in message
    assert verifier_fingerprint(problems[:1])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_is_wanted_is_an_example_that_can_be_judged(task):
    verifier = get_task(task)
    example = verifier.gold_form.rpartition("such as ")[2]
    if example != verifier.gold_form and task != "math500":
        assert verifier.can_judge(example)


def test_data_refuses_own_rows_of_another_form(tmp_path):
    source = tmp_path / "mine.jsonl"
    source.write_text(json.dumps({"prompt": "How many?", "answer": "18 dollars"}) + "\n")
    config = DataConfig(task="own", source=str(source), reward="gsm8k", out=tmp_path / "o.parquet")
    with pytest.raises(UserError, match=r"the first '18 dollars' of mine/train/0: it wants"):
        data(config)
    assert not config.out.exists()


def test_checking_costs_little_for_many():
    problems = [problem("gsm8k", "18")] * 100_000
    start = time.process_time()
    verifier_fingerprint(problems)
    assert time.process_time() - start < 5
