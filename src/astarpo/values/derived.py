"""The file values.parquet of a value table: V* of each problem, and how many samples it is from.

Imports no torch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from astarpo.runtime.files import DamagedFileError
from astarpo.runtime.parquet import open_parquet, write_parquet
from astarpo.types import Problem
from astarpo.values.estimators import ProblemValues
from astarpo.values.known import ids_of, places

_NAME = "values.parquet"
_RENDERED_BY = b"astarpo.rendered_by"


class PromptLengths(NamedTuple):
    """How long the prompts of problems are.

    Attributes:
        tokens_P: [P] tokens of each.
        rendered_by: What decides that: the digest of the tokenizer, and the prompt format.
    """

    tokens_P: NDArray[np.int64]
    rendered_by: Mapping[str, str]


def write_values(
    folder: Path,
    problems: Sequence[Problem],
    found: ProblemValues,
    lengths: PromptLengths | None = None,
) -> None:
    """Writes what was found of problems, a row each, into a table's folder."""
    columns = {
        "problem_id": ids_of(problems),
        "n": pa.array(found.num_samples_P, pa.int32()),
        "mean_reward": found.mean_P,
        "v_star": found.v_star_P,
        "v_star_se": found.standard_error_P,
        "estimator": pa.repeat(str(found.estimator), len(problems)),
    }
    if lengths is None:
        write_parquet(folder / _NAME, pa.table(columns))
        return
    columns["prompt_tokens"] = pa.array(lengths.tokens_P, pa.int32())
    table = pa.table(columns).replace_schema_metadata(
        {_RENDERED_BY: json.dumps(lengths.rendered_by)}
    )
    write_parquet(folder / _NAME, table)


def read_lengths(
    folder: Path, ids: pa.StringArray, rendered_by: Mapping[str, str]
) -> NDArray[np.int64]:
    """[P] tokens of the prompts of problems, 0 where that is not known.

    A finished table knows it, so that a million prompts need not be tokenised again only to tell
    which of them are too long.

    Args:
        folder: The table's.
        ids: [P] of the problems, which are as they were when they were sampled.
        rendered_by: As in `PromptLengths`; lengths by anything else are none.
    """
    unknown_P = np.zeros(len(ids), np.int64)
    try:
        with _opened(folder) as file:
            mark = (file.schema_arrow.metadata or {}).get(_RENDERED_BY)
            if mark is None or json.loads(mark) != rendered_by:
                return unknown_P
            written = file.read(["problem_id", "prompt_tokens"])
    except DamagedFileError:  # A file that is made anew: this is not what it is needed for.
        return unknown_P
    place_P = places(pa.chunked_array([ids]), pa.concat_arrays(written["problem_id"].chunks))
    return np.where(place_P >= 0, written["prompt_tokens"].to_numpy()[place_P], 0)


def read_counts(folder: Path, ids: pa.StringArray) -> NDArray[np.int64]:
    """[P] how many samples the V* of each problem is from; 0 where there is none.

    Raises:
        DamagedFileError: The file is damaged or lost.
    """
    with _opened(folder) as file:
        written = file.read(["problem_id", "n"])
    place_P = places(pa.chunked_array([ids]), pa.concat_arrays(written["problem_id"].chunks))
    return np.where(place_P >= 0, written["n"].to_numpy()[place_P], 0)


def written_values(folder: Path) -> tuple[pa.StringArray, str]:
    """The ids of the problems that V* was written of, and what it says V* is from.

    Raises:
        DamagedFileError: The file is damaged or lost.
    """
    with _opened(folder) as file:
        ids = file.read(["problem_id"])["problem_id"]
        first = next(file.iter_batches(batch_size=1, columns=["estimator"]))
    return pa.concat_arrays(ids.chunks), first["estimator"][0].as_py()


def written_estimator(folder: Path) -> str | None:
    """What V* in the file is from; None where a table is unfinished, or version 0.1.0 wrote it.

    Raises:
        DamagedFileError: The file is damaged.
    """
    if not (folder / _NAME).exists():
        return None
    with _opened(folder) as file:
        if "estimator" not in file.schema_arrow.names:
            return None
        for batch in file.iter_batches(1, columns=["estimator"]):
            return batch["estimator"][0].as_py()
    return None


@contextmanager
def _opened(folder: Path) -> Iterator[pq.ParquetFile]:
    """The file of a table's folder; where it is damaged or lost, the message tells the remedy."""
    try:
        if not (folder / _NAME).exists():
            raise DamagedFileError(f"{folder / _NAME}: lost")
        with open_parquet(folder / _NAME) as file:
            yield file
    except DamagedFileError as error:
        again = "run the same astarpo estimate again: it makes this file anew"
        raise DamagedFileError(f"{error}; {again}") from error
