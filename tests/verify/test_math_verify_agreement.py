"""Verdicts against math-verify as its authors use it: `verify(parse(gold), parse(response))`.

That is also the `math_verify` score of EleutherAI's `minerva_math`. Answers here are real golds of
MATH and rewritings of them, so reading them in this process, as the reference does, is safe.
"""

import random

import pytest
from math_verify import parse, verify

from astarpo.grading.pool import GradingPool
from astarpo.tasks import get_task
from tests.tasks.test_math import DATA

REWRITINGS = {
    "as it is": lambda gold: gold,
    "dfrac": lambda gold: gold.replace(r"\frac", r"\dfrac"),
    "spaced": lambda gold: gold.replace(",", ", ").replace("+", " + "),
    "sized": lambda gold: gold.replace("(", r"\left(").replace(")", r"\right)"),
    "named": lambda gold: f"x = {gold}",
    "dollars": lambda gold: f"${gold}$",
    "decimal": lambda gold: f"{gold}.0" if gold.isdigit() else gold,
    "thousands": lambda gold: f"{int(gold):,}" if gold.isdigit() else gold,
    "unit": lambda gold: rf"{gold}\text{{ cm}}",
    "degree": lambda gold: rf"{gold}^\circ",
    "percent": lambda gold: rf"{gold}\%",
    "reversed": lambda gold: ",".join(reversed(gold.split(","))),
    "one more": lambda gold: f"{gold}+1",
    "negated": lambda gold: f"-{gold}",
    "halved": lambda gold: rf"\frac{{{gold}}}{{2}}",
}


def reference(response: str, gold: str) -> float:
    return float(verify(parse(rf"$\boxed{{{gold}}}$"), parse(response)))


@pytest.fixture(scope="module")
def published():
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}")
    source = str(DATA / "math" / "test.jsonl")
    problems = list(get_task("math").problems(source=source, split="test", size=None, seed=0))
    return random.Random(3).sample(problems, 60)


@pytest.fixture(scope="module")
def pool():
    with GradingPool(num_workers=1, timeout_s=10.0) as shared:
        yield shared


def differences(
    pool: GradingPool, pairs: list[tuple[str, str]]
) -> tuple[list[tuple[str, str]], float]:
    """The pairs that are judged otherwise than by the reference, and the share that is right."""
    verdicts = pool.grade([("math500", response, gold) for response, gold in pairs])
    rewards = [verdict.reward for verdict in verdicts]
    differing = [
        pair for pair, reward in zip(pairs, rewards, strict=True) if reward != reference(*pair)
    ]
    return differing, sum(rewards) / len(rewards)


def test_published_solutions_of_their_own_and_of_other_problems(pool, published):
    golds = [problem.ground_truth for problem in published]
    solutions = [problem.extra["solution"] for problem in published]
    differing, right = differences(pool, list(zip(solutions, golds, strict=True)))
    assert (differing, right) == ([], 1.0)
    others = golds[1:] + golds[:1]
    differing, right = differences(pool, list(zip(solutions, others, strict=True)))
    assert differing == []
    assert right < 0.05


def test_rewritings_of_the_answers(pool, published):
    golds = [problem.ground_truth for problem in published[:16]]
    pairs = [
        (rf"So $\boxed{{{rewrite(gold)}}}$.", gold)
        for rewrite in REWRITINGS.values()
        for gold in golds
    ]
    differing, right = differences(pool, pairs)
    assert differing == []
    assert 0.5 < right < 0.9


# Where the two part, and why ours is what it is: (response, gold, ours, reference).
APART = [
    # An approximation is not the answer that was asked for.
    (r"$\boxed{\approx 2}$", "2", 0.0, 1.0),
    # The reference reads the last formula of any text; here a response has to say that it answers.
    ("First $x=2$, then I got lost.", "2", 0.0, 1.0),
    # A cut-off response: its last number is a step.
    ("We get 2 and then 7", "7", 0.0, 1.0),
    # A formula of the question is no answer to it: something is left to do.
    (r"$\boxed{2\cdot\frac{7}{2}}$", "7", 0.0, 1.0),
    (r"$\boxed{\sqrt[3]{13}^6}$", "169", 0.0, 1.0),
    (r"$\boxed{\frac{6}{36}}$", r"\frac{1}{6}", 0.0, 1.0),
    (r"$\boxed{\sqrt{8}}$", r"2\sqrt{2}", 0.0, 1.0),
    (r"$\boxed{x^2-9}$", "(x-3)(x+3)", 0.0, 1.0),
    # Only `name = value` states a value.
    (r"$\boxed{x^2-2x-3=0}$", "0", 0.0, 1.0),
    # Numbers are exact; the reference rounds to six places after the point.
    (r"$\boxed{0.333333}$", r"\frac{1}{3}", 0.0, 1.0),
    (r"$\boxed{e^{-50}}$", "e^{-60}", 0.0, 1.0),
    # Letters keep their case.
    (r"$\boxed{N=n+1}$", "N=n", 0.0, 1.0),
    # What the reference cannot read.
    (r"$\boxed{x \ge 0}$", r"[0,\infty)", 1.0, 0.0),
    (r"$\boxed{1/3}$", r"0.\overline{3}", 1.0, 0.0),
]


@pytest.mark.parametrize(("response", "gold", "ours", "theirs"), APART)
def test_known_differences(pool, response, gold, ours, theirs):
    assert pool.grade([("math500", response, gold)])[0].reward == ours
    assert reference(response, gold) == theirs
