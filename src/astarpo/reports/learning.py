"""What training did by problem: before against after, V* against reward, by difficulty.

Shapes: _P problems, _A answers of training.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from astarpo.evaluation.scores import mean_score
from astarpo.reports.changes import scores_by_problem
from astarpo.reports.stage1 import value_points
from astarpo.values.known import places

_MAX_LEVELS = 16
_RESIDUAL_BINS = 41
THIRDS = ("hard", "middle", "easy")
"""Names of the thirds of problems by their solve rate in stage 1."""


class _Trained(NamedTuple):
    """Answers of training to problems of stage 1.

    Attributes:
        step_A: The step of each answer.
        problem_A: Its problem's place among those of stage 1.
        reward_A: Its reward.
    """

    step_A: np.ndarray
    problem_A: np.ndarray
    reward_A: np.ndarray


def summarize_learning(
    tables: Mapping[str, pa.Table], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page draws of problems; parts that the tables do not allow are left out.

    Args:
        tables: Answers by origin: `reference`, `trained`, `stage1`, `training`.
        settings: Those of training; see `stage1.summarize_stage1`.

    Returns:
        `before_after`: `points`, the distinct [mean reward of the reference, of the trained policy,
        problems], and numbers of problems `better`, `same` and `worse`. `reached`: rows of
        [V*, mean reward, low, high, problems] over the last third of the steps. `thirds`: for each
        third its solve rates, its number of problems, and its mean reward by step. `residuals`: a
        histogram of reward minus V* in the first and in the last third of the steps.
    """
    found: dict[str, Any] = {}
    if {"reference", "trained"} <= tables.keys():
        found["before_after"] = _before_after(tables["reference"], tables["trained"])
    if {"stage1", "training"} <= tables.keys():
        ids, points_P3 = value_points(tables["stage1"], settings)
        solve_rate_P, v_star_P, _ = points_P3.T
        trained = _trained(tables["training"], ids)
        if len(trained.step_A):
            found["reached"] = _reached(trained, v_star_P)
            found["thirds"] = _thirds(trained, solve_rate_P)
    if "training" in tables:
        found["residuals"] = _residuals(tables["training"])
    return {name: part for name, part in found.items() if part}


def _before_after(reference: pa.Table, trained: pa.Table) -> dict[str, Any] | None:
    """Mean rewards of sampled answers, or of greedy ones where none were sampled."""
    before, after = scores_by_problem(reference), scores_by_problem(trained)
    shared = [name for name in before if name in after]
    name = next((n for n in shared if n.startswith("avg_at_")), None)
    name = name or next((n for n in ("greedy_reward", "acc_norm") if n in shared), None)
    if name is None:
        return None
    problems = sorted(before[name].keys() & after[name])
    pairs_P2 = np.array([(before[name][p], after[name][p]) for p in problems]).reshape(-1, 2)
    points, counts = np.unique(pairs_P2.round(6), axis=0, return_counts=True)
    change_P = np.diff(pairs_P2, axis=1)
    return {
        "score": name,
        "points": [[*point, int(n)] for point, n in zip(points.tolist(), counts, strict=True)],
        "better": int((change_P > 0).sum()),
        "same": int((change_P == 0).sum()),
        "worse": int((change_P < 0).sum()),
    }


def _trained(training: pa.Table, problems: pa.StringArray) -> _Trained:
    training = training.select(["problem_id", "step", "reward"]).drop_null()
    problem_A = places(training["problem_id"], problems)
    known_A = problem_A >= 0
    step_A, reward_A = (training[name].to_numpy() for name in ("step", "reward"))
    return _Trained(step_A[known_A], problem_A[known_A], reward_A[known_A])


def _late(step_A: np.ndarray) -> np.ndarray:
    """Which answers are of the last third of the steps."""
    return step_A > step_A.min() + (step_A.max() - step_A.min() + 1) * 2 / 3 - 1


def _reached(trained: _Trained, v_star_P: np.ndarray) -> list[list[float]]:
    late = _late(trained.step_A)
    counts_P = np.bincount(trained.problem_A[late], minlength=len(v_star_P))
    sums_P = np.bincount(trained.problem_A[late], trained.reward_A[late], len(v_star_P))
    seen = counts_P > 0
    rewards, values = sums_P[seen] / counts_P[seen], v_star_P[seen]
    rows = []
    for group in _groups(values):
        score = mean_score(rewards[group])
        rows.append([float(values[group].mean()), *score, len(group)])
    return rows


def _groups(values: np.ndarray) -> list[np.ndarray]:
    """Places of equal values; of neighbouring values in groups of equal size where many differ."""
    order = np.argsort(values, kind="stable")
    levels = np.unique(values[order].round(6), return_index=True)[1]
    if len(levels) > _MAX_LEVELS:
        return [group for group in np.array_split(order, _MAX_LEVELS) if len(group)]
    return np.split(order, levels[1:])


def _thirds(trained: _Trained, solve_rate_P: np.ndarray) -> list[dict[str, Any]]:
    """The problems trained on by their solve rate; those of equal rates stay in one third."""
    rates, counts = np.unique(solve_rate_P[np.unique(trained.problem_A)], return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    third_by_rate = np.minimum((3 * middle).astype(int), 2)
    third_A = third_by_rate[np.searchsorted(rates, solve_rate_P[trained.problem_A])]
    steps, place_A = np.unique(trained.step_A, return_inverse=True)
    found = []
    for third, name in enumerate(THIRDS):
        own, mine = third_A == third, third_by_rate == third
        if not own.any():
            continue
        sums = np.bincount(place_A[own], trained.reward_A[own], len(steps))
        num = np.bincount(place_A[own], minlength=len(steps))
        rewards = np.divide(sums, num, out=np.full(len(steps), np.nan), where=num > 0)
        found.append(
            {
                "name": name,
                "solve_rates": [float(rates[mine].min()), float(rates[mine].max())],
                "problems": int(counts[mine].sum()),
                "step": steps.tolist(),
                "reward": rewards.tolist(),
            }
        )
    return found


def _residuals(training: pa.Table) -> dict[str, Any] | None:
    table = training.select(["step", "reward", "v_star"]).drop_null()
    if not len(table):
        return None
    step_A, reward_A, v_star_A = (table[n].to_numpy() for n in ("step", "reward", "v_star"))
    residual_A = reward_A - v_star_A
    widest = max(1.0, float(np.abs(residual_A).max()))
    edges = np.linspace(-widest, widest, _RESIDUAL_BINS + 1)
    parts = [residual_A[_late(-step_A)], residual_A[_late(step_A)]]
    early, late = ((np.histogram(part, edges)[0] / len(part)).tolist() for part in parts)
    means = [float(part.mean()) for part in parts]
    return {"edges": edges.tolist(), "early": early, "late": late, "means": means}
