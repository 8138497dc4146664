import json
import os
import random
from pathlib import Path

import pytest

from astarpo.grading.grade import grade
from astarpo.grading.pool import GradingPool
from astarpo.tasks import get_task
from astarpo.tasks.math import announced_answer
from astarpo.types import UserError

DATA = Path(os.environ.get("ASTARPO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
TASK = get_task("math")


@pytest.mark.parametrize(
    ("response", "gold", "reward", "answer", "status"),
    [
        (r"Thus $\boxed{\frac{1}{2}}$.", "0.5", 1.0, r"\frac{1}{2}", "ok"),
        (r"\boxed{3}, no: \boxed{4}", "4", 1.0, "4", "ok"),
        (r"\boxed{4}, no: \boxed{3}", "4", 0.0, "3", "ok"),
        (r"$\boxed{1}$ and $\boxed{-2}$", "-2,1", 1.0, "1, -2", "ok"),
        (r"$\boxed{1}$ and $\boxed{-2}$", "1", 0.0, "1, -2", "ok"),
        (r"\boxed{4} or \boxed{4.0}", "4", 1.0, "4, 4.0", "ok"),
        (r"\boxed{3}, \boxed{4} or \boxed{5}", "4", 0.0, "3, 4, 5", "ok"),
        (r"\boxed{9^{9^{9^9}}}", "4", 0.0, "9^{9^{9^9}}", "unparsable"),
        (r"\boxed{}", "4", 0.0, None, "no_answer"),
        (r"\boxed{4} \boxed{}", "4", 0.0, None, "no_answer"),
        (r"the answer is \boxed{4", "4", 0.0, r"\boxed{4", "unparsable"),
        (r"\boxed{\frac{}", "4", 0.0, None, "no_answer"),
        (r"\boxed{\frac{1}}", "4", 0.0, r"\frac{1}", "unparsable"),
        (r"The answer is $\frac{1}{2}$.", r"\frac{1}{2}", 1.0, r"\frac{1}{2}", "ok"),
        ("Final answer: 4", "4", 1.0, "4", "ok"),
        ("it may be 4", "4", 0.0, None, "no_answer"),
        ("", "4", 0.0, None, "no_answer"),
    ],
)
def test_judges_responses(response, gold, reward, answer, status):
    verdict = TASK.grade(response, gold)
    assert (verdict.reward, verdict.answer, verdict.status) == (reward, answer, status)


@pytest.mark.parametrize(
    ("tail", "answer"),
    [
        ("The answer is 5.", "5"),
        ("the answer is $5$.", "5"),
        ("the answer is $5.", "5"),
        ("The answer is: **7**", "7"),
        (r"Answer: \(x^2\), since", "x^2"),
        (r"answer is \[ x+1 \]", "x+1"),
        ("the final answer to the question is -3, as shown", "-3"),
        ("the answer is 5 apples.", "5"),
        ("the answer is 3 + x", "3 + x"),
        ("the answer is (3,4). So", "(3,4)"),
        ("the answer is x = $4$", "4"),
        ("answer is 1. No, the answer is 2", "2"),
        ("the answer is 5 or 6", "5 or 6"),
        ("the answer is $5 or 6", "$5 or 6"),
        ("the answer is $5$ or $6$.", "$5$ or $6$"),
        ("the answer is $5$, and $6$. So", "$5$, and $6$"),
        ("the answer is 5 and I am sure", "5"),
        ("the answer is", None),
        ("answers vary: 5", None),
        ("5", None),
    ],
)
def test_announced_answers(tail, answer):
    assert announced_answer(tail) == answer


def test_an_announcement_far_from_the_end_does_not_count():
    assert grade("math", "The answer is 4. " + "x" * 600, "4").status == "no_answer"


def test_the_prompts_own_empty_box_never_counts():
    """The prompt is not judged; a response that repeats it still states no answer."""
    prompt = r"output the final answer within \boxed{}."
    verdict = grade("math", prompt, "")
    assert (verdict.reward, verdict.status) == (0.0, "no_answer")


def test_reads_the_authors_file(tmp_path):
    row = {
        "problem": "What?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": r"It is $\boxed{\frac{1}{2}}$.",
    }
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row))
    (problem,) = TASK.problems(source=str(path), split="test", size=None, seed=0)
    assert problem.prompt[0]["content"] == (
        "What? Let's think step by step and output the final answer within \\boxed{}."
    )
    assert problem.ground_truth == r"\frac{1}{2}"
    assert problem.id == "math/test/0"
    assert problem.extra["level"] == "Level 1"
    assert get_task(problem.data_source) is TASK


def test_a_solution_without_a_box_is_refused(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"problem": "What?", "solution": "5"}')
    with pytest.raises(UserError, match=r"line 1: no answer in \\boxed"):
        list(TASK.problems(source=str(path), split="test", size=None, seed=0))


def test_the_version_names_math_verify():
    assert "math-verify 0." in TASK.version


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}")
def test_published_solutions_are_judged_right_and_shuffled_golds_mostly_wrong():
    source = str(DATA / "math" / "test.jsonl")
    published = list(TASK.problems(source=source, split="test", size=None, seed=0))
    assert len(published) == 5000
    sample = random.Random(0).sample(published, 40)
    golds = [problem.ground_truth for problem in sample]
    solutions = [problem.extra["solution"] for problem in sample]
    with GradingPool(num_workers=1, timeout_s=5.0) as pool:
        right = pool.grade([("math", s, g) for s, g in zip(solutions, golds, strict=True)])
        assert [verdict.reward for verdict in right] == [1.0] * 40
        rotated = golds[1:] + golds[:1]
        wrong = pool.grade([("math", s, g) for s, g in zip(solutions, rotated, strict=True)])
    assert sum(verdict.reward for verdict in wrong) < 4
    assert {verdict.status for verdict in wrong} <= {"ok"}
