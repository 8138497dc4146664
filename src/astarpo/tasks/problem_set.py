"""Problem sets as Parquet in verl's schema, so that files made for verl or A-PO serve here as well.

Columns: `data_source`, `prompt` (list of {role, content}), `ability`, `reward_model` {style,
ground_truth}, `extra_info` {id, split, index, ...}.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astarpo.runtime.files import disk_errors
from astarpo.runtime.parquet import open_parquet, write_parquet
from astarpo.tasks.problem_table import ProblemTable
from astarpo.types import Message, Problem, UserError

VERL_COLUMNS = {"data_source", "prompt", "reward_model"}
"""The columns without which a file is not in verl's schema."""

_OPTIONAL = {"ability", "extra_info"}
_BATCH_ROWS = 1 << 16
_CHUNK_ROWS = 1 << 14
_UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Writes a problem set, whole or not at all. Folders that are missing are made.

    Raises:
        UserError: There are no problems, two share an id, or the file cannot be written.
    """
    ids: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        for problem in problems:
            ids.append(problem.id)
            yield to_row(problem)
        if not ids:
            raise UserError(f"no problems to write to {path}")
        _refuse_repeated_ids(ids, path)

    write_rows(path, rows())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as Parquet, whole or not at all. Folders that are missing are made.

    Args:
        path: The file.
        rows: One or more, with the columns of the first. They are taken some at a time, so that a
            great many need not be objects at once.

    Raises:
        UserError: A column's values cannot be written, or the file cannot.
    """
    rows = iter(rows)
    names = list(first := next(rows))
    rows = chain([first], rows)
    tables = []
    try:
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            tables.append(pa.table({name: [row.get(name) for row in chunk] for name in names}))
        write_parquet(path, pa.concat_tables(tables, promote_options="permissive"))
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: a problem has text that is not Unicode ({error})") from error
    except (*_UNFIT, OverflowError) as error:
        raise UserError(f"{path}: a column's values do not fit one type ({error})") from error


def read_problems(path: Path, limit: int | None = None) -> ProblemTable:
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
    with disk_errors(path, "read"):
        is_there = path.is_file()
    if not is_there:
        raise UserError(f"no such file: {path}")
    batches = list(_batches(path, limit))
    if not batches:
        raise UserError(f"{path}: holds no problems")
    if all(map(_is_as_written_here, batches)):
        ids = pa.concat_arrays([batch["extra_info"].field("id") for batch in batches])
    else:
        ids = pa.array(_read_ids(batches, path), pa.string())
    if len(ids.unique()) < len(ids):
        _refuse_repeated_ids(ids.to_pylist(), path)
    return ProblemTable(batches, ids, _problem)


def to_row(problem: Problem) -> dict[str, Any]:
    """A problem in verl's schema."""
    return {
        "data_source": problem.data_source,
        "prompt": list(problem.prompt),
        "ability": problem.ability,
        "reward_model": {"style": "rule", "ground_truth": problem.ground_truth},
        "extra_info": {**problem.extra, "id": problem.id},
    }


def count_problems(path: Path) -> int:
    """How many problems a file of them has; errors as in `read_problems`."""
    with open_parquet(path) as file:
        return file.metadata.num_rows


def _batches(path: Path, limit: int | None) -> Iterator[pa.RecordBatch]:
    """The columns that problems are made of, some rows at a time."""
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        if missing := sorted(VERL_COLUMNS - {*names}):
            raise UserError(
                f"{path}: missing column {', '.join(missing)}; found {', '.join(names)}"
            )
        # A-PO's files carry each sample of stage 1 as a column: read only what is needed.
        columns = [name for name in names if name in VERL_COLUMNS | _OPTIONAL]
        left = file.metadata.num_rows if limit is None else limit
        for batch in file.iter_batches(batch_size=max(1, min(_BATCH_ROWS, left)), columns=columns):
            batch.validate(full=True)  # Text is UTF-8: here, and not where it is first looked at.
            yield batch.slice(0, left)
            left -= len(batch)
            if left <= 0:
                return


def _is_as_written_here(batch: pa.RecordBatch) -> bool:
    """Whether every row has an id and is a problem by the types of its columns alone."""
    fields = [("data_source",), ("prompt",), ("reward_model",), ("reward_model", "ground_truth")]
    columns = [_field(batch, *path) for path in (*fields, ("extra_info",), ("extra_info", "id"))]
    source, prompt, _, truth, _, identifier = columns
    if not all(column is not None and column.null_count == 0 for column in columns):
        return False
    if not all(pa.types.is_string(column.type) for column in (source, truth, identifier)):
        return False
    if not (pa.types.is_list(prompt.type) and pa.types.is_struct(prompt.type.value_type)):
        return False
    messages = prompt.flatten()
    texts = [_field(messages, "role"), _field(messages, "content")]
    return (
        pc.call_function("min", [pc.call_function("list_value_length", [prompt])]).as_py() > 0
        and messages.null_count == 0
        and all(t is not None and pa.types.is_string(t.type) and t.null_count == 0 for t in texts)
    )


def _field(batch: Any, *path: str) -> Any:
    """A column of a batch, or a field of a struct; None where there is none."""
    for name in path:
        kind = batch.schema if isinstance(batch, pa.RecordBatch) else batch.type
        if not (isinstance(kind, pa.Schema) or pa.types.is_struct(kind)):
            return None
        if name not in kind.names:
            return None
        batch = batch[name] if isinstance(batch, pa.RecordBatch) else batch.field(name)
    return batch


def _read_ids(batches: Sequence[pa.RecordBatch], path: Path) -> Iterator[str]:
    """The ids of problems of any origin, each of which is found to be one."""
    used: set[str] = set()
    rows = (row for batch in batches for row in _in_parts(batch))
    for number, row in enumerate(rows):
        identifier = read_row(row, used, f"{path}, row {number}", number).id
        used.add(identifier)
        yield identifier


def _in_parts(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    for first in range(0, len(batch), 1024):
        yield from batch.slice(first, 1024).to_pylist()


def read_row(row: Mapping[str, Any], used: set[str], where: str, number: int) -> Problem:
    """Makes a problem of a row in verl's schema; see `read_problems`.

    Args:
        row: Its columns.
        used: Ids of the rows before.
        where: For messages.
        number: Of the row.
    """
    extra = row.get("extra_info") or {}
    source = row["data_source"]
    if not isinstance(source, str):
        raise UserError(f"{where}: data_source is not text")
    identifier = extra.get("id")
    if identifier is None:
        group = f"{source}/{extra.get('split') or 'unknown'}"
        index = extra.get("index")
        identifier = None if index is None else f"{group}/{index}"
        if identifier is None or identifier in used:
            identifier = f"{group}/row-{number}"
    return _problem(row, str(identifier), where)


def _problem(row: Mapping[str, Any], identifier: str, where: str = "") -> Problem:
    """Makes a problem of a row whose id is known."""
    extra = dict(row.get("extra_info") or {})
    extra.pop("id", None)
    # A-PO's multiple-choice files keep the choices beside the ground truth.
    if isinstance(row["reward_model"], dict) and row["reward_model"].get("choices"):
        extra["choices"] = row["reward_model"]["choices"]
    return Problem(
        id=identifier,
        data_source=row["data_source"],
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
