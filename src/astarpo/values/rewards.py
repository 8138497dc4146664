"""The rewards of a value table's samples as a matrix, in one pass over Arrow columns.

Imports no torch: reports read them.

Shapes: _P problems, _N samples of one problem, _R rows: samples as they stand in the shards.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astarpo.values.known import Sampled


def reward_matrix(
    samples: pa.Table, problem_ids: Sequence[str], num_samples: int | None = None
) -> NDArray[np.float64]:
    """Rewards by problem and number of the sample.

    A sample that stands there twice counts once; what is not asked for is left out.

    Args:
        samples: Columns `problem_id`, `sample` and `reward`.
        problem_ids: Of the problems, in the order wanted.
        num_samples: N; None for as many as any of these problems has.

    Returns:
        [P, N], NaN where there is no such sample.
    """
    place_R = _places(samples["problem_id"], problem_ids)
    number_R = samples["sample"].to_numpy()
    chosen_R = place_R >= 0
    if num_samples is None:
        num_samples = int(number_R[chosen_R].max(initial=-1)) + 1
    else:
        chosen_R &= number_R < num_samples
    rewards_PN = np.full((len(problem_ids), num_samples), np.nan)
    rewards_PN[place_R[chosen_R], number_R[chosen_R]] = samples["reward"].to_numpy()[chosen_R]
    return rewards_PN


def find_changed(samples: pa.Table, problems: Sequence[Sampled]) -> Sampled | None:
    """The first problem, if any, whose samples are of another problem of the same id.

    Args:
        samples: Columns `problem_id` and `problem_digest`.
        problems: As they are now.
    """
    digests = [problem.digest for problem in problems]
    place_R = _places(samples["problem_id"], [problem.id for problem in problems])
    digest_R = _places(samples["problem_digest"], digests)
    # Problems of one text share a place, so the place of a digest need not be the problem's own.
    place_of = {digest: i for i, digest in enumerate(digests)}
    expected_P = np.array([place_of[digest] for digest in digests], np.int64)
    known_R = place_R >= 0
    changed = place_R[known_R][digest_R[known_R] != expected_P[place_R[known_R]]]
    return problems[changed[0]] if len(changed) else None


def _places(column: pa.ChunkedArray, names: Sequence[str]) -> NDArray[np.int64]:
    """The place in `names` of each entry of a column; -1 where it is not among them."""
    place = {name: i for i, name in enumerate(names)}
    coded = column.combine_chunks().dictionary_encode()
    known = np.array([place.get(name, -1) for name in coded.dictionary.to_pylist()], np.int64)
    return known[coded.indices.to_numpy()]
