"""The columns of judged answers: value tables, runs and evaluations have some of them.

It imports no torch, since reports read these columns too.
"""

from collections.abc import Container
from typing import Any

import pyarrow as pa

from astarpo.types import Answer

ANSWER_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("problem_id", pa.string()),
        ("problem_digest", pa.string()),
        ("mode", pa.string()),
        ("sample", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("ground_truth", pa.string()),
        ("reward", pa.float64()),
        ("status", pa.string()),
        ("v_star", pa.float64()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
    ]
)


def answer_schema(names: Container[str]) -> pa.Schema:
    """The schema of a file that has these columns."""
    return pa.schema([field for field in ANSWER_SCHEMA if field.name in names])


def answer_row(answer: Answer, **more: Any) -> dict[str, Any]:
    """A judged answer as a row, in the order of the schema; `more` are columns it does not know."""
    problem, completion, verdict = answer.prompt.problem, answer.completion, answer.verdict
    row = more | {
        "problem_id": problem.id,
        "text": answer.text,
        "answer": verdict.answer,
        "ground_truth": problem.ground_truth,
        "reward": verdict.reward,
        "status": verdict.status,
        "num_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }
    return {name: row[name] for name in ANSWER_SCHEMA.names if name in row}
