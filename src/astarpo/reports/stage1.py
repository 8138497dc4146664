"""The numbers that pictures of stage 1 show: solve rates, V* with its error, lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from astarpo.config import TrainConfig
from astarpo.values.advice import advise
from astarpo.values.choice import estimator_of
from astarpo.values.estimators import ProblemValues, problem_values
from astarpo.values.known import different, places
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
    if not len(ids):
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


def value_points(
    samples: pa.Table, settings: Mapping[str, Any]
) -> tuple[pa.StringArray, np.ndarray]:
    """The ids of problems, and [P, 3] mean reward, V* and standard error of each.

    Arguments as in `summarize_stage1`.
    """
    ids, _, found = _values(samples, settings)
    return ids, _points(found)


def values_by_problem(
    samples: pa.Table, settings: Mapping[str, Any], names: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """The same by the problem's id, of some problems; None for all."""
    ids, points_P3 = value_points(samples, settings)
    if names is not None:
        wanted_P = places(pa.chunked_array([ids]), pa.array(names, pa.string())) >= 0
        ids, points_P3 = ids.filter(pa.array(wanted_P)), points_P3[wanted_P]
    return dict(zip(ids.to_pylist(), points_P3.tolist(), strict=True))


def _values(
    samples: pa.Table, settings: Mapping[str, Any]
) -> tuple[pa.StringArray, np.ndarray, ProblemValues]:
    """The problems that have samples, their rewards [P, N], and their values."""
    samples = samples.select(["problem_id", "sample", "reward"]).drop_null()
    ids = different(samples["problem_id"])
    rewards_PN = reward_matrix(samples, ids, settings.get("values_samples"))
    sampled_P = np.isfinite(rewards_PN).any(axis=1)
    found = problem_values(rewards_PN[sampled_P], estimator_of(_known(settings)))
    return ids.filter(pa.array(sampled_P)), rewards_PN[sampled_P], found


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
    lengths = samples["num_tokens"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    right = samples["reward"].cast(pa.float64()).fill_null(np.nan).to_numpy() >= 1
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
