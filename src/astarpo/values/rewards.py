"""The rewards of a value table's samples as a matrix, in one pass over Arrow columns.

Imports no torch: reports read them.

Shapes: _P problems, _N samples of one problem, _R rows: samples as they stand in the shards.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astarpo.types import UserError
from astarpo.values.known import Sampled, digests_of, ids_of, places


def reward_matrix(
    samples: pa.Table,
    problem_ids: Sequence[str] | pa.StringArray,
    num_samples: int | None = None,
    column: str = "reward",
) -> NDArray[np.float64]:
    """Rewards by problem and number of the sample.

    A sample that stands there twice counts once; what is not asked for is left out.

    Args:
        samples: Columns `problem_id`, `sample` and `reward`.
        problem_ids: Of the problems, in the order wanted.
        num_samples: N; None for as many as any of these problems has.
        column: Of `samples`: what is wanted in place of the rewards, such as `num_tokens`.

    Returns:
        [P, N], NaN where there is no such sample.
    """
    return _column_matrix(samples, place_matrix(samples, problem_ids, num_samples), column)


def place_matrix(
    samples: pa.Table,
    problem_ids: Sequence[str] | pa.StringArray,
    num_samples: int | None = None,
) -> NDArray[np.int64]:
    """Where samples stand, by problem and number of the sample; arguments as in `reward_matrix`.

    Returns:
        [P, N] the row of each, the last one of a sample that stands there twice; -1 where there is
        no such sample.
    """
    if not isinstance(problem_ids, pa.Array):
        problem_ids = pa.array(problem_ids, pa.string())
    place_R = places(samples["problem_id"], problem_ids)
    number_R = samples["sample"].to_numpy()
    chosen_R = place_R >= 0
    if num_samples is None:
        num_samples = int(number_R[chosen_R].max(initial=-1)) + 1
    else:
        chosen_R &= number_R < num_samples
    row_PN = np.full((len(problem_ids), num_samples), -1)
    row_PN[place_R[chosen_R], number_R[chosen_R]] = np.flatnonzero(chosen_R)
    return row_PN


def sample_matrices(
    samples: pa.Table,
    problem_ids: Sequence[str] | pa.StringArray,
    counts_P: NDArray[np.int64],
    columns: Sequence[str],
) -> list[NDArray[np.float64]]:
    """What the first samples of each problem have in some columns.

    Args:
        samples: Columns `problem_id`, `sample` and those asked for.
        problem_ids: Of the problems, in the order wanted.
        counts_P: [P] how many samples of each.
        columns: Such as `reward` and `num_tokens`.

    Returns:
        [P, N] of each column, NaN where there is no such sample.
    """
    most = int(counts_P.max(initial=0))
    row_PN = place_matrix(samples, problem_ids, most)
    row_PN[np.arange(most) >= counts_P[:, None]] = -1
    return [_column_matrix(samples, row_PN, column) for column in columns]


def _column_matrix(
    samples: pa.Table, row_PN: NDArray[np.int64], column: str
) -> NDArray[np.float64]:
    """A column's values at some rows; NaN for row -1."""
    is_there_PN = row_PN >= 0
    values_PN = np.full(row_PN.shape, np.nan)
    values_PN[is_there_PN] = samples[column].to_numpy()[row_PN[is_there_PN]]
    return values_PN


def require_all(
    rewards_PN: NDArray[np.float64],
    counts_P: NDArray[np.int64],
    problems: Sequence[Sampled],
    path: Path,
    each_has: int | None,
) -> None:
    """Checks that every problem has as many samples as it should, and some.

    Args:
        rewards_PN: What is there, NaN where nothing is.
        counts_P: [P] how many there should be.
        problems: The problems.
        path: The table's folder, for the message.
        each_has: How many may be asked for instead; None for no such advice.

    Raises:
        UserError: Some lack samples; one is named.
    """
    there_P = (~np.isnan(rewards_PN)).sum(axis=1)
    lacking = np.flatnonzero((there_P < counts_P) | (counts_P == 0))
    if len(lacking):
        advice = "" if each_has is None else f", or take at most {each_has}, which each problem has"
        raise UserError(
            f"{path}: {len(lacking)} of {len(problems)} problems lack samples out of "
            f"{counts_P.max()} (such as {problems[lacking[0]].id}); finish it with astarpo "
            f"estimate{advice}"
        )


def find_changed(samples: pa.Table, problems: Sequence[Sampled]) -> Sampled | None:
    """The first problem, if any, whose samples are of another problem of the same id.

    Args:
        samples: Columns `problem_id` and `problem_digest`.
        problems: As they are now.
    """
    if not len(problems):
        return None
    digests = digests_of(problems)
    place_R = places(samples["problem_id"], ids_of(problems))
    digest_R = places(samples["problem_digest"], digests)
    # Problems of one text share a place, so the place of a digest need not be the problem's own.
    expected_P = places(pa.chunked_array([digests]), digests)
    changed = np.flatnonzero((place_R >= 0) & (digest_R != expected_P[place_R]))
    return problems[int(place_R[changed[0]])] if len(changed) else None
