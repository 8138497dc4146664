"""What changed from the reference to the trained policy: scores paired problem by problem."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from astarpo.evaluation.scores import majority_right, mean_change, pass_at_k

Answers = Sequence[tuple[float, str | None]]
"""Reward and extracted answer of each answer to one problem."""


def paired_changes(before: pa.Table, after: pa.Table) -> dict[str, dict[str, float]]:
    """Each score after minus before, over the problems that both tables answered.

    Returns:
        By the score's name: `value`, `low` and `high` of the mean difference (95%), and the numbers
        of problems that got `better` and `worse`.
    """
    scores = [scores_by_problem(table) for table in (before, after)]
    changes = {}
    for name in scores[0]:
        first, second = (found.get(name, {}) for found in scores)
        pairs = [(first[problem], second[problem]) for problem in sorted(first.keys() & second)]
        if pairs:
            changes[name] = {
                **mean_change(*zip(*pairs, strict=True))._asdict(),
                "better": sum(after > before for before, after in pairs),
                "worse": sum(after < before for before, after in pairs),
            }
    return changes


def verdict_of(change: Mapping[str, float] | None) -> str:
    """`better` or `worse` where a change's interval excludes zero, else nothing."""
    if not change:
        return ""
    return "better" if change["low"] > 0 else "worse" if change["high"] < 0 else ""


def scores_by_problem(answers: pa.Table) -> dict[str, dict[str, float]]:
    """Every score of `astarpo evaluate` of every problem: by the score's name, by problem.

    Args:
        answers: Columns `problem_id`, `mode`, `reward` and `answer` of an evaluation.
    """
    found: dict[str, dict[str, float]] = {}
    for mode, problems in _by_mode(answers).items():
        counts = {len(rows) for rows in problems.values()}
        if mode == "greedy":
            found["pass_at_1"] = {p: float(rows[0][0] >= 1) for p, rows in problems.items()}
            found["greedy_reward"] = {p: rows[0][0] for p, rows in problems.items()}
        elif mode == "sampled" and len(counts) == 1:  # An evaluation has as many for each problem.
            found |= _sampled_scores(problems, counts.pop())
        elif mode != "sampled":  # A choice, by the score that picked it.
            found[mode] = {p: rows[0][0] for p, rows in problems.items()}
    return found


def _by_mode(answers: pa.Table) -> dict[str, dict[str, list[tuple[float, str | None]]]]:
    rows: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    names = ("mode", "problem_id", "reward", "answer")
    columns = [answers[name].to_pylist() for name in names]
    for mode, problem, reward, answer in zip(*columns, strict=True):
        if mode is not None and reward is not None:
            rows[mode][problem].append((reward, answer))
    return {mode: dict(problems) for mode, problems in rows.items()}


def _sampled_scores(problems: Mapping[str, Answers], k: int) -> dict[str, dict[str, float]]:
    """`avg_at_k`, `maj_at_k` and `pass_at_j` of each problem with `k` sampled answers."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    draws = [2**i for i in range(1, k.bit_length()) if 2**i <= k]
    for problem, rows in problems.items():
        rewards, texts = [reward for reward, _ in rows], [answer for _, answer in rows]
        found[f"avg_at_{k}"][problem] = sum(rewards) / k
        found[f"maj_at_{k}"][problem] = majority_right(texts, rewards)
        num_right = sum(reward >= 1 for reward in rewards)
        for j in draws:
            found[f"pass_at_{j}"][problem] = pass_at_k(k, num_right, j)
    return dict(found)
