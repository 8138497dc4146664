"""Problem sets as Parquet in verl's schema, so that files made for verl or A-PO serve here as well.

Columns: `data_source`, `prompt` (list of {role, content}), `ability`, `reward_model` {style,
ground_truth}, `extra_info` {id, split, index, ...}.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from astarpo.runtime.parquet import open_parquet, write_parquet
from astarpo.types import Message, Problem, UserError

VERL_COLUMNS = {"data_source", "prompt", "reward_model"}
"""The columns without which a file is not in verl's schema."""

_OPTIONAL = {"ability", "extra_info"}
_BATCH_ROWS = 1024
_UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Writes a problem set, whole or not at all. Folders that are missing are made.

    Raises:
        UserError: There are no problems, two share an id, or the file cannot be written.
    """
    rows = [to_row(problem) for problem in problems]
    if not rows:
        raise UserError(f"no problems to write to {path}")
    _refuse_repeated_ids([row["extra_info"]["id"] for row in rows], path)
    write_rows(path, rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as Parquet, whole or not at all. Folders that are missing are made.

    Raises:
        UserError: A column's values cannot be written, or the file cannot.
    """
    try:
        write_parquet(path, pa.Table.from_pylist(list(rows)))
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: a problem has text that is not Unicode ({error})") from error
    except (*_UNFIT, OverflowError) as error:
        raise UserError(f"{path}: a column's values do not fit one type ({error})") from error


def read_problems(path: Path, limit: int | None = None) -> list[Problem]:
    """Reads a problem set, ours or one made for verl or A-PO.

    A problem without an id is named `data_source/split/index`, or by its row where its index is
    missing or came before. A ground truth that is a number or a struct becomes text or JSON.

    Args:
        path: The Parquet file.
        limit: Read at most this many problems, from the first.

    Raises:
        UserError: There is no such file, it is not a problem set, it is empty, or two problems have
            the same id.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    problems: list[Problem] = []
    used: set[str] = set()
    for number, row in enumerate(islice(_rows(path), limit)):
        problem = read_row(row, used, f"{path}, row {number}", number)
        used.add(problem.id)
        problems.append(problem)
    if not problems:
        raise UserError(f"{path}: holds no problems")
    _refuse_repeated_ids([problem.id for problem in problems], path)
    return problems


def to_row(problem: Problem) -> dict[str, Any]:
    """A problem in verl's schema."""
    return {
        "data_source": problem.data_source,
        "prompt": list(problem.prompt),
        "ability": problem.ability,
        "reward_model": {"style": "rule", "ground_truth": problem.ground_truth},
        "extra_info": {**problem.extra, "id": problem.id},
    }


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        if missing := sorted(VERL_COLUMNS - {*names}):
            raise UserError(
                f"{path}: missing column {', '.join(missing)}; found {', '.join(names)}"
            )
        # A-PO's files carry each sample of stage 1 as a column: read only what is needed.
        columns = [name for name in names if name in VERL_COLUMNS | _OPTIONAL]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()


def read_row(row: Mapping[str, Any], used: set[str], where: str, number: int) -> Problem:
    """Makes a problem of a row in verl's schema; see `read_problems`.

    Args:
        row: Its columns.
        used: Ids of the rows before.
        where: For messages.
        number: Of the row.
    """
    extra = dict(row.get("extra_info") or {})
    source = row["data_source"]
    if not isinstance(source, str):
        raise UserError(f"{where}: data_source is not text")
    identifier = extra.pop("id", None)
    if identifier is None:
        group = f"{source}/{extra.get('split') or 'unknown'}"
        index = extra.get("index")
        identifier = None if index is None else f"{group}/{index}"
        if identifier is None or identifier in used:
            identifier = f"{group}/row-{number}"
    # A-PO's multiple-choice files keep the choices beside the ground truth.
    if isinstance(row["reward_model"], dict) and row["reward_model"].get("choices"):
        extra["choices"] = row["reward_model"]["choices"]
    return Problem(
        id=str(identifier),
        data_source=source,
        prompt=read_messages(row["prompt"], where),
        ground_truth=_ground_truth(row["reward_model"], where),
        ability=row.get("ability") or "math",
        extra=extra,
    )


def read_messages(prompt: Any, where: str) -> tuple[Message, ...]:
    """Takes a value as a list of chat messages; raises UserError where it is none."""
    try:
        messages = tuple(Message(role=part["role"], content=part["content"]) for part in prompt)
    except (TypeError, KeyError):
        messages = ()
    texts = [text for message in messages for text in message.values()]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: prompt is not a list of messages with role and content")
    return messages


def _ground_truth(reward_model: Any, where: str) -> str:
    value = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    if value is None:
        raise UserError(f"{where}: reward_model has no ground_truth")
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _refuse_repeated_ids(ids: list[str], path: Path) -> None:
    seen: set[str] = set()
    for identifier in ids:
        if identifier in seen:
            raise UserError(f"{path}: two problems have the id {identifier!r}; ids must differ")
        seen.add(identifier)
