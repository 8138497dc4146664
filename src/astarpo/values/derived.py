"""The file values.parquet of a value table: V* of each problem, and how many samples it is from.

Imports no torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.runtime.files import DamagedFileError
from astarpo.runtime.parquet import open_parquet, write_parquet
from astarpo.types import Problem
from astarpo.values.estimators import ProblemValues

_NAME = "values.parquet"


def write_values(folder: Path, problems: Sequence[Problem], found: ProblemValues) -> None:
    """Writes what was found of problems, a row each, into a table's folder."""
    columns = {
        "problem_id": [problem.id for problem in problems],
        "n": pa.array(found.num_samples_P, pa.int32()),
        "mean_reward": found.mean_P,
        "v_star": found.v_star_P,
        "v_star_se": found.standard_error_P,
        "estimator": [str(found.estimator)] * len(problems),
    }
    write_parquet(folder / _NAME, pa.table(columns))


def read_counts(folder: Path) -> dict[str, int]:
    """How many samples the V* of each problem is from, by the problem's id.

    Raises:
        DamagedFileError: The file is damaged or lost.
    """
    with _opened(folder) as file:
        columns = file.read(["problem_id", "n"])
    ids, counts = (columns[name].to_pylist() for name in ("problem_id", "n"))
    return dict(zip(ids, counts, strict=True))


def written_values(folder: Path) -> tuple[list[str], str]:
    """The ids of the problems that V* was written of, and what it says V* is from.

    Raises:
        DamagedFileError: The file is damaged or lost.
    """
    with _opened(folder) as file:
        written = file.read(["problem_id", "estimator"]).to_pydict()
    return written["problem_id"], written["estimator"][0]


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
