"""The numbers that pictures of stage 1 show: solve rates, V* with its error, lengths."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from astarpo.config import TrainConfig
from astarpo.values.advice import advise
from astarpo.values.choice import estimator_of
from astarpo.values.estimators import ProblemValues, problem_values
from astarpo.values.rewards import reward_matrix
from astarpo.values.summary import summarize_values

_MAX_POINTS = 400
_LENGTH_BINS = 24


def summarize_stage1(samples: pa.Table, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page draws of stage 1.

    Args:
        samples: Every sample of the value table, which may be unfinished.
        settings: Those of training, of which `beta1` and `values_samples` are read if given.

    Returns:
        None where there is no sample. `advice` is lines of text, `solve_rates` and `lengths` are
        histograms, `points` the distinct [mean reward, V*, standard error, problems].
    """
    ids, rewards_PN, found = _values(samples, settings)
    if not ids:
        return None
    summary = summarize_values(found)
    rates, counts = summary.solve_rates
    beta1 = _known(settings)["beta1"]
    return vars(summary) | {
        "beta1": "inf" if np.isinf(beta1) else beta1,
        "advice": advise(rewards_PN, found.estimator).lines(),
        "solve_rates": {"x": rates.round(4).tolist(), "count": counts.tolist()},
        "points": _distinct(_points(found)),
        "lengths": _lengths(samples),
    }


def values_by_problem(samples: pa.Table, settings: Mapping[str, Any]) -> dict[str, list[float]]:
    """[mean reward, V*, standard error] of each problem; arguments as in `summarize_stage1`."""
    ids, _, found = _values(samples, settings)
    return dict(zip(ids, _points(found).tolist(), strict=True))


def _values(
    samples: pa.Table, settings: Mapping[str, Any]
) -> tuple[list[str], np.ndarray, ProblemValues]:
    """The problems that have samples, their rewards [P, N], and their values."""
    samples = samples.select(["problem_id", "sample", "reward"]).drop_null()
    ids = samples["problem_id"].unique().to_pylist()
    rewards_PN = reward_matrix(samples, ids, settings.get("values_samples"))
    sampled = np.flatnonzero(np.isfinite(rewards_PN).any(axis=1))
    rewards_PN = rewards_PN[sampled]
    found = problem_values(rewards_PN, estimator_of(_known(settings)))
    return [ids[i] for i in sampled], rewards_PN, found


def _points(found: ProblemValues) -> np.ndarray:
    """[P, 3]: mean reward, V*, standard error, which is 0 where it is not known."""
    columns = [found.mean_P, found.v_star_P, np.nan_to_num(found.standard_error_P)]
    return np.stack(columns, axis=1).round(6)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not None, with the default `beta1` if there is none."""
    known = {"beta1": TrainConfig.model_fields["beta1"].default}
    known |= {name: value for name, value in settings.items() if value is not None}
    return known | {"beta1": float(known["beta1"])}


def _distinct(points_P3: np.ndarray) -> list[list[float]]:
    points, counts = np.unique(points_P3, axis=0, return_counts=True)
    chosen = np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).round().astype(int)
    return [[*points[i].tolist(), int(counts[i])] for i in chosen]


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
