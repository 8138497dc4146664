"""Stage 1 in numbers for pictures: solve rates, V* with its error, lengths."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from astarpo.config import TrainConfig
from astarpo.values.estimators import problem_values

_MAX_LEVELS = 33
_MAX_POINTS = 400
_LENGTH_BINS = 24


def summarize_stage1(samples: pa.Table, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page draws of stage 1.

    Args:
        samples: Every sample of the value table.
        settings: Of the training stage: `beta1` and `values_samples` count where they are given.

    Returns:
        None where there is no sample. `solve_rates` and `lengths` are histograms, `points` the
        distinct [mean reward, V*, standard error, problems].
    """
    beta = _beta(settings)
    rewards_by_problem = _rewards(samples, settings.get("values_samples"))
    if not rewards_by_problem:
        return None
    points_P3 = np.array(list(_points(rewards_by_problem, beta).values()))
    rewards = np.concatenate([np.array(r) for r in rewards_by_problem.values()])
    return {
        "beta1": "inf" if np.isinf(beta) else beta,
        "num_problems": len(rewards_by_problem),
        "num_samples": sorted({len(r) for r in rewards_by_problem.values()}),
        "mean_reward": float(rewards.mean()),
        "all_wrong": float(np.mean([max(r) <= 0 for r in rewards_by_problem.values()])),
        "all_right": float(np.mean([min(r) >= 1 for r in rewards_by_problem.values()])),
        "solve_rates": _histogram_of_levels(points_P3[:, 0]),
        "points": _distinct(points_P3),
        "lengths": _lengths(samples),
    }


def values_by_problem(samples: pa.Table, settings: Mapping[str, Any]) -> dict[str, list[float]]:
    """[mean reward, V*, standard error] of each problem; arguments as in `summarize_stage1`."""
    return _points(_rewards(samples, settings.get("values_samples")), _beta(settings))


def _rewards(samples: pa.Table, limit: int | None) -> dict[str, list[float]]:
    rewards: dict[str, list[float]] = defaultdict(list)
    columns = (samples[name].to_pylist() for name in ("problem_id", "sample", "reward"))
    for name, number, reward in zip(*columns, strict=True):
        if (limit is None or number is None or number < limit) and reward is not None:
            rewards[name].append(reward)
    return {name: r for name, r in rewards.items() if np.isfinite(r).all()}


def _points(rewards: Mapping[str, list[float]], beta: float) -> dict[str, list[float]]:
    # A table that is being extended has problems with more samples than others.
    most = max(map(len, rewards.values()), default=0)
    rewards_PN = np.full((len(rewards), most), np.nan)
    for row, values in zip(rewards_PN, rewards.values(), strict=True):
        row[: len(values)] = values
    found = problem_values(rewards_PN, beta)
    columns = [found.mean_P, found.v_star_P, np.nan_to_num(found.standard_error_P)]
    points_P3 = np.stack(columns, axis=1)
    return dict(zip(rewards, points_P3.round(6).tolist(), strict=True))


def _beta(settings: Mapping[str, Any]) -> float:
    given = settings.get("beta1")
    return float(TrainConfig.model_fields["beta1"].default if given is None else given)


def _distinct(points_P3: np.ndarray) -> list[list[float]]:
    points, counts = np.unique(points_P3, axis=0, return_counts=True)
    chosen = np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).round().astype(int)
    return [[*points[i].tolist(), int(counts[i])] for i in chosen]


def _histogram_of_levels(values_P: np.ndarray) -> dict[str, list[float]]:
    levels, counts = np.unique(values_P, return_counts=True)
    if len(levels) > _MAX_LEVELS:
        counts, edges = np.histogram(values_P, bins=_MAX_LEVELS - 1)
        levels = (edges[:-1] + edges[1:]) / 2
    return {"x": levels.round(4).tolist(), "count": counts.tolist()}


def _lengths(samples: pa.Table) -> dict[str, list[float]] | None:
    lengths = np.array(samples["num_tokens"].to_pylist(), dtype=float)
    right = np.array(samples["reward"].to_pylist(), dtype=float) >= 1
    known = np.isfinite(lengths)
    if not known.any():
        return None
    low, high = lengths[known].min(), lengths[known].max()
    width = max(1.0, np.ceil((high - low + 1) / _LENGTH_BINS))
    edges = np.arange(low, high + width + 1, width)
    return {
        "edges": edges.tolist(),
        "right": np.histogram(lengths[known & right], edges)[0].tolist(),
        "not_right": np.histogram(lengths[known & ~right], edges)[0].tolist(),
    }
