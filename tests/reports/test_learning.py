"""What training did by problem, scores by problem, and the headline: numbers worked out by hand."""

import math

import pyarrow as pa
import pytest

from astarpo.evaluation.measure import score_answers
from astarpo.reports.changes import scores_by_problem, verdict_of
from astarpo.reports.collect import clean
from astarpo.reports.headline import caution, headline
from astarpo.reports.learning import summarize_learning
from astarpo.reports.learning_plots import learning_pictures
from astarpo.types import Answer, Completion, Problem, Prompt, Verdict

EMPTY = {
    "name": "a", "seed": 0, "algorithm": "astar_po", "scores": {}, "changes": {}, "suites": [],
    "held_out": {"step": []}, "curves": {"step": [], "reward": []}, "stage1": None,
}  # fmt: skip


def answers(rows: list[tuple], *names: str) -> pa.Table:
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def evaluation(rows: list[tuple]) -> pa.Table:
    return answers(rows, "problem_id", "mode", "reward", "answer")


def stage1(rewards: dict[str, list[float]]) -> pa.Table:
    rows = [(p, i, r, 10) for p, found in rewards.items() for i, r in enumerate(found)]
    return answers(rows, "problem_id", "sample", "reward", "num_tokens")


def training(rows: list[tuple]) -> pa.Table:
    return answers(rows, "step", "problem_id", "reward", "v_star")


def test_every_score_of_an_evaluation_by_problem():
    greedy = [("a", "greedy", 0.5, "1"), ("b", "greedy", 1.0, "2")]
    sampled = [("a", "sampled", reward, text) for reward, text in
               ((1.0, "1"), (0.0, "3"), (0.0, "3"), (1.0, "1"))]  # fmt: skip
    found = scores_by_problem(evaluation(greedy + sampled))
    assert found == {
        "pass_at_1": {"a": 0, "b": 1},
        "greedy_reward": {"a": 0.5, "b": 1},
        "avg_at_4": {"a": 0.5},
        "maj_at_4": {"a": 0.5},  # 1 and 3 tie
        "pass_at_2": {"a": pytest.approx(1 - 1 / 6)},  # both wrong: 1 of 6 pairs
        "pass_at_4": {"a": 1},
    }
    choices = [("a", "acc", 1.0, "x"), ("a", "acc_norm", 0.0, "y")]
    assert scores_by_problem(evaluation(choices)) == {"acc": {"a": 1}, "acc_norm": {"a": 0}}


def test_the_same_scores_as_the_evaluation_wrote():
    """Averaged over problems they are those of `evaluation.measure`, which is another program."""

    def answer(problem: str, reward: float, text: str) -> Answer:
        prompt = Prompt(Problem(problem, "t", (), "1"), (1,))
        return Answer(prompt, Completion((1,), (0.0,), "stop"), text, Verdict(reward, text, "ok"))

    rewards = {"a": [1.0, 0.0, 0.0, 1.0], "b": [0.0] * 4, "c": [1.0, 1.0, 0.0, 1.0]}
    every = {p: [answer(p, r, f"{r}") for r in found] for p, found in rewards.items()}
    expected = score_answers([row[0] for row in every.values()], list(every.values()))
    rows = [(p, "greedy", found[0], f"{found[0]}") for p, found in rewards.items()]
    rows += [(p, "sampled", r, f"{r}") for p, found in rewards.items() for r in found]
    found = scores_by_problem(evaluation(rows))
    assert expected.keys() == found.keys() - {"greedy_reward"}
    for name, score in expected.items():
        assert sum(found[name].values()) / 3 == pytest.approx(score.value)


def test_before_against_after():
    before = [(p, "sampled", r, "x") for p, r in (("a", 0.0), ("a", 1.0), ("b", 0.0), ("b", 0.0))]
    after = [(p, "sampled", r, "x") for p, r in (("a", 1.0), ("a", 1.0), ("b", 0.0), ("b", 0.0))]
    tables = {"reference": evaluation(before), "trained": evaluation(after)}
    found = summarize_learning(tables, {})["before_after"]
    assert found["points"] == [[0, 0, 1], [0.5, 1, 1]]
    assert (found["better"], found["same"], found["worse"]) == (1, 1, 0)


def test_reward_against_v_star_and_by_difficulty():
    table = stage1({"hard": [0, 0], "half": [0, 1], "easy": [1, 1], "unused": [0, 1]})
    rows = []
    for step in range(1, 10):
        late = step > 6
        rows += [(step, "hard", float(late), 0.0), (step, "half", float(step % 2), 0.6)]
        rows += [(step, "easy", 1.0, 1.0)]
    tables = {"stage1": table, "training": training(rows)}
    found = summarize_learning(tables, {"beta1": math.inf})
    # Steps 7, 8 and 9 are the last third: 1, 2/3 (of 1, 0, 1), 1 at V* = 0, 0.5, 1.
    assert [[row[0], round(row[1], 6), row[4]] for row in found["reached"]] == [
        [0, 1, 1], [0.5, pytest.approx(2 / 3, abs=1e-6), 1], [1, 1, 1],
    ]  # fmt: skip
    names = [(third["name"], third["solve_rates"], third["problems"]) for third in found["thirds"]]
    assert names == [("hard", [0, 0], 1), ("middle", [0.5, 0.5], 1), ("easy", [1, 1], 1)]
    assert found["thirds"][0]["reward"] == [0] * 6 + [1] * 3
    assert found["thirds"][1]["step"] == list(range(1, 10))
    # Reward - V*: early 0, then 0.4 or -0.6 (in 3 steps 2 and 1), 0; late 1, the same, 0.
    early, late = found["residuals"]["means"]
    assert early == pytest.approx((2 * 0.4 - 0.6) / 9)
    assert late == pytest.approx((3 + 2 * 0.4 - 0.6) / 9)
    assert sum(found["residuals"]["late"]) == pytest.approx(1)


def test_problems_of_equal_solve_rate_stay_in_one_third():
    table = stage1({"a": [0, 0], "b": [0, 0], "c": [0, 0], "d": [1, 1]})
    rows = [(1, name, 0.0, None) for name in "abcd"]
    found = summarize_learning({"stage1": table, "training": training(rows)}, {})
    assert [(t["name"], t["problems"]) for t in found["thirds"]] == [("middle", 3), ("easy", 1)]
    assert "residuals" not in found


def test_many_values_of_v_star_stand_in_groups():
    table = stage1({str(i): [i / 100] for i in range(100)})
    rows = [(1, str(i), i / 100, None) for i in range(100)]
    found = summarize_learning({"stage1": table, "training": training(rows)}, {})
    assert len(found["reached"]) == 16
    assert sum(row[4] for row in found["reached"]) == 100
    assert all(row[1] == pytest.approx(row[0]) for row in found["reached"])
    assert summarize_learning({"training": training([(1, "a", 1.0, None)])}, {}) == {}


def test_pictures_come_with_their_numbers_in_words():
    before = [("a", "sampled", 0.0, "x"), ("b", "sampled", 1.0, "x")]
    after = [("a", "sampled", 1.0, "x"), ("b", "sampled", 1.0, "x")]
    tables = {
        "reference": evaluation(before), "trained": evaluation(after),
        "stage1": stage1({"a": [0, 1], "b": [1, 1]}),
        "training": training([(s, p, 1.0, 0.5) for s in (1, 2, 3) for p in "ab"]),
    }  # fmt: skip
    pictures = learning_pictures(clean(summarize_learning(tables, {"beta1": 0.5})))
    assert [source.partition(";")[0] for source, _ in pictures.values()] == [
        "data:image/svg+xml"
    ] * 4
    words = " ".join(text for _, text in pictures.values())
    assert "better: 1; on it the same: 1; below it worse: 0" in words
    assert "+0.500 on average" in words
    assert learning_pictures({}) == {}


def score(value: float, half: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def test_a_headline_says_the_change_and_every_loss():
    run = EMPTY | {
        "scores": {
            "reference": {"pass_at_1": score(0.994), "avg_at_4": score(0.433),
                          "maj_at_4": score(0.9), "pass_at_2": score(0.9)},
            "trained": {"pass_at_1": score(0.979), "avg_at_4": score(0.906),
                        "maj_at_4": score(0.5), "pass_at_2": score(0.91)},
        },
        "changes": {"pass_at_1": score(-0.015, 0.012), "avg_at_4": score(0.474, 0.024),
                    "maj_at_4": score(-0.4, 0.1), "pass_at_2": score(0.01, 0.02)},
        "suites": [{"suite": "paper", "rows": [{"name": "aime24", "change": score(-0.2, 0.1)},
                                               {"name": "amc23", "change": score(0.2, 0.1)},
                                               {"name": "hmmt", "change": score(-0.2, 0.3)}]}],
    }  # fmt: skip
    assert headline(run) == [
        ("avg@4 0.433 → 0.906 (+0.474 ± 0.024)", "better"),
        ("pass@1, greedy 0.994 → 0.979 (-0.015 ± 0.012)", "worse"),
        ("maj@4 0.900 → 0.500 (-0.400 ± 0.100)", "worse"),
        ("suite paper: amc23", "better"),
        ("suite paper: aime24", "worse"),
    ]
    assert verdict_of(score(0.0, 0.1)) == verdict_of(None) == ""


def test_a_headline_without_scores_says_what_there_is():
    assert headline(EMPTY) == [("nothing is measured yet", "")]
    found = {"mean_reward": 0.4331, "num_problems": 2048}
    (words, _), (rest, _) = headline(EMPTY | {"stage1": found})
    assert words == "mean reward of the reference 0.433 on 2,048 problems"
    assert rest == "no training step yet"
    one = {"step": [1], "reward": [0.25]}
    assert headline(EMPTY | {"curves": one})[0].words == (
        "training reward 0.250 at the only step so far"
    )
    curves = {"step": list(range(1, 5)), "reward": [0.1, 0.3, None, 0.7, 0.9][:5]}
    (words, verdict), (rest, _) = headline(EMPTY | {"curves": curves})
    assert words == "training reward 0.200 → 0.800 (the first 2 steps against the last)"
    assert verdict == ""
    assert "held-out" in rest
    held_out = {"step": [0, 20], "reward": [0.4, 0.6], "reward_low": [0.35, 0.5],
                "reward_high": [0.45, 0.7]}  # fmt: skip
    assert headline(EMPTY | {"held_out": held_out}) == [
        ("held-out reward 0.400 → 0.600 (step 0 to 20)", "better")
    ]
    close = held_out | {"reward_low": [0.35, 0.44]}
    assert headline(EMPTY | {"held_out": close})[0].verdict == ""


def test_single_seeds_are_cautioned_against():
    one = EMPTY | {"curves": {"step": [1], "reward": [0.5]}}
    assert (caution([one]) or "").startswith("One run, seed 0: ")
    grpo = one | {"algorithm": "grpo"}
    assert (caution([one, grpo]) or "").startswith("All runs have seed 0: ")
    second = one | {"seed": 1}
    assert (caution([one, second, grpo]) or "").startswith("One seed only of grpo: ")
    assert caution([one, second, grpo, grpo | {"seed": 1}]) is None
    assert caution([one | {"seed": None}]) is None
    assert caution([EMPTY]) is None
