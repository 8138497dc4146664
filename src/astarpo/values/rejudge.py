"""Judge the samples of a value table again, when their verifier has changed since."""

import logging
from collections.abc import Sequence

import pyarrow as pa

from astarpo.grading.grader import Grader
from astarpo.types import Problem, UserError
from astarpo.values.shards import SCHEMA, read_shard
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


def rejudge(table: ValueTable, problems: Sequence[Problem], grader: Grader) -> None:
    """Writes new verdicts into every shard that was judged by other verifiers, one after another.

    Each shard records what judged it, so that the next call finishes what a killed one began.

    Args:
        table: Opened with `any_verifier`.
        problems: All that the table has samples of.
        grader: Judges the samples.
    """
    known = {problem.id: problem for problem in problems}
    num_samples = num_changed = 0
    for shard in table.stale_shards():
        rows = read_shard(shard).select(SCHEMA.names).cast(SCHEMA)
        ids, digests = (rows[name].to_pylist() for name in ("problem_id", "problem_digest"))
        for name, digest in zip(ids, digests, strict=True):
            if name not in known or known[name].digest != digest:
                raise UserError(
                    f"{table.path}: has samples of {name}, which is not so in the problem file: to "
                    "judge them anew, give the file that they were sampled from, without --limit"
                )
        verdicts = grader.grade([known[name] for name in ids], rows["text"].to_pylist())
        before = rows["reward"].to_numpy()
        for column in ("answer", "reward", "status"):
            place, field = SCHEMA.get_field_index(column), SCHEMA.field(column)
            values = pa.array([getattr(v, column) for v in verdicts], field.type)
            rows = rows.set_column(place, field, values)
        table.replace(shard, rows)
        num_samples += len(rows)
        num_changed += int((before != rows["reward"].to_numpy()).sum())
    logger.info(f"judged {num_samples} stored samples anew: {num_changed} rewards have changed")
