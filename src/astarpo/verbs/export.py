"""Write a value table as one Parquet file that other trainers read.

verl        verl's columns; `v_star` on top and in `extra_info`, where reward functions see it
trl         `prompt` (text or messages, as it came), `ground_truth`, `v_star`, the problem's columns
compose-rl  `messages`, `verified_answer`, `vstar`
apo         verl's columns; `response_<i>` and `eval_<i>` of every sample, as A-PO publishes stage 1
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from astarpo.config import ExportConfig
from astarpo.runtime.outputs import check_file
from astarpo.tasks.own import PROMPT_IS_TEXT
from astarpo.tasks.problem_set import read_problems, to_row, write_rows
from astarpo.types import Problem, UserError
from astarpo.values.choice import estimator_of, tell_other_estimator
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


def export(config: ExportConfig) -> Path:
    """Writes the problems that a value table holds, with V* or with their samples.

    Returns:
        The file written.

    Raises:
        UserError: The table or the problems cannot be read, or have nothing in common.
    """
    table, problems, kept = prepare(config)
    if config.format != "apo":
        tell_other_estimator(config, table.path)
    values = table.values(kept, estimator_of(dict(config))).v_star_P.tolist()
    rows: Iterable[dict[str, Any]]
    if config.format == "apo":
        rows = _with_samples(kept, table)
    elif config.format == "trl":
        rows = _trl_rows(kept, values)
    elif config.format == "compose-rl":
        rows = (
            {"messages": list(p.prompt), "verified_answer": p.ground_truth, "vstar": value}
            for p, value in zip(kept, values, strict=True)
        )
    else:
        rows = (_verl_row(p, value) for p, value in zip(kept, values, strict=True))
    write_rows(config.out, rows)
    left_out = len(problems) - len(kept)
    logger.info(f"{config.out}: {len(kept)} problems ({config.format}); {left_out} have no samples")
    return config.out


def prepare(config: ExportConfig) -> tuple[ValueTable, Sequence[Problem], Sequence[Problem]]:
    """The table, the problems, and those of them that the table has samples of."""
    check_file(config.out, [config.table, config.problems], overwrite=config.overwrite)
    table = ValueTable(config.table)
    problems = read_problems(config.problems)
    kept = table.sampled(problems)
    if not kept:
        raise UserError(f"{config.table}: holds no sample of the problems in {config.problems}")
    if config.format == "apo" and len(set(table.counts(kept).tolist())) > 1:
        raise UserError(
            f"{config.table}: format apo needs equally many samples of each problem: give another "
            "--format, with V*, or sample what is missing with astarpo estimate --samples"
        )
    return table, problems, kept


def _verl_row(problem: Problem, value: float) -> dict[str, Any]:
    row = to_row(problem)
    row["extra_info"]["v_star"] = value
    return row | {"v_star": value}


def _with_samples(problems: Sequence[Problem], table: ValueTable) -> list[dict[str, Any]]:
    rows = {problem.id: to_row(problem) for problem in problems}
    found = table.samples(["problem_id", "sample", "text", "reward"]).to_pylist()
    for sample in sorted(found, key=lambda sample: sample["sample"]):
        if sample["problem_id"] in rows and sample["sample"] < table.num_samples:
            row = rows[sample["problem_id"]]
            row[f"response_{sample['sample']}"] = sample["text"]
            row[f"eval_{sample['sample']}"] = sample["reward"]
    return list(rows.values())


def _trl_rows(problems: Sequence[Problem], values: Sequence[float]) -> Iterator[dict[str, Any]]:
    as_text = all(problem.extra.get(PROMPT_IS_TEXT) for problem in problems)
    for problem, value in zip(problems, values, strict=True):
        columns = {k: v for k, v in problem.extra.items() if k != PROMPT_IS_TEXT}
        own = {
            "id": problem.id,
            "prompt": problem.prompt[-1]["content"] if as_text else list(problem.prompt),
            "ground_truth": problem.ground_truth,
            "v_star": value,
        }
        yield columns | own


def preview(config: ExportConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    _, problems, kept = prepare(config)
    return [f"{len(kept)} of {len(problems)} problems have samples"]
