"""The file values.parquet of a value table: V* of each problem, and how many samples it is from.

Imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

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
    path = folder / _NAME
    if not path.exists():
        raise DamagedFileError(f"{path}: lost")
    with open_parquet(path) as file:
        columns = file.read(["problem_id", "n"])
    ids, counts = (columns[name].to_pylist() for name in ("problem_id", "n"))
    return dict(zip(ids, counts, strict=True))
