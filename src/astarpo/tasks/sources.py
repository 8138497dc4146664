"""Rows of data sets: JSON lines, CSV, Parquet or the hub. Every error names file and line."""

import csv
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.runtime.parquet import open_parquet
from astarpo.tasks.base import Task
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, UserError

_FILE_ENDINGS = {".jsonl", ".json", ".parquet", ".csv", ".txt", ".gz", ".zst", ".arrow"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        where: For messages: `train.jsonl, line 3`.
        index: Its number, from 0.
        fields: Its columns.
    """

    where: str
    index: int
    fields: Mapping[str, Any]

    @property
    def columns(self) -> str:
        """The names of its columns, for messages."""
        return ", ".join(map(str, self.fields)) or "nothing"

    def text(self, column: str) -> str:
        """Returns a column that must be text; raises UserError where it is not."""
        value = self.fields.get(column)
        if not isinstance(value, str):
            raise UserError(
                f"{self.where}: expected a text column {column!r}, found {self.columns}"
            )
        return value


@dataclass(frozen=True, slots=True)
class HubCopy:
    """A copy of a task's problems on the hub.

    Attributes:
        name: The data set.
        config: Its configuration.
        split: What it calls the split, where that is another name than ours.
    """

    name: str
    config: str | None = None
    split: str | None = None


def published_problems(
    task: Task,
    copy: HubCopy,
    convert: Callable[[Row, str], Problem],
    source: str | None,
    split: str,
    size: int | None,
) -> Iterator[Problem]:
    """Yields the problems of a local file or a hub data set, in its order.

    Args:
        task: Whose problems they are; rows in verl's layout carry its name or an alias.
        copy: What is read where no source is given.
        convert: Makes a problem of a row in the authors' layout and a split.
        source: See `Task.problems`.
        split: See `Task.problems`.
        size: None: published problems have no sizes.

    Raises:
        UserError: The source cannot be read, lacks a column, or has an unreadable reference answer;
            or a size is given.
    """
    if size is not None:
        raise UserError(f"{task.name} has no sizes: they belong to made problems")
    path = None if source is None else _local_file(source)
    if path is not None and path.suffix == ".parquet" and "reward_model" in _column_names(path):
        yield from _verl_problems(task, path, {split, copy.split}, split)
        return
    if path is None:
        name = source or copy.name
        rows = _hub_rows(name, copy.config if name == copy.name else None, copy.split or split)
    else:
        rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    yield from (convert(row, split) for row in rows)


def _verl_problems(
    task: Task, path: Path, wanted: Container[str | None], split: str
) -> Iterator[Problem]:
    problems = read_problems(path)
    splits = [problem.extra.get("split") or split for problem in problems]
    if not any(name in wanted for name in splits):
        raise UserError(f"{path}: holds split {', '.join(sorted({*splits}))}, not {split!r}")
    names = (task.name, *task.aliases)
    for problem, name in zip(problems, splits, strict=True):
        if name not in wanted:
            continue
        if problem.data_source not in names:
            raise UserError(
                f"{path}: {problem.id} is of data source {problem.data_source!r}, not of "
                f"{' or '.join(names)}"
            )
        if not task.can_judge(problem.ground_truth):
            raise UserError(
                f"{path}: the ground truth {problem.ground_truth!r} of {problem.id} cannot be read"
            )
        yield problem


def read_rows(source: str | Iterable[Mapping[str, Any]], split: str) -> Iterator[Row]:
    """Yields the rows of any source.

    Args:
        source: A file (JSON lines, CSV, Parquet), a folder that `Dataset.save_to_disk` wrote, or a
            hub data set's name, with its configuration after a colon where it has several; or rows
            in memory.
        split: Of a hub data set.

    Raises:
        UserError: It cannot be read.
    """
    if not isinstance(source, str):
        rows = (dict(row) if isinstance(row, Mapping) else row for row in source)
        return _numbered("problems,", rows)
    if (folder := Path(source).expanduser()).is_dir():
        return _saved_rows(folder, split)
    if (path := _local_file(source)) is None:
        name, _, config = source.partition(":")
        return _hub_rows(name, config or None, split)
    if path.suffix == ".parquet":
        _column_names(path)
        return _parquet_rows(path)
    return _csv_rows(path) if path.suffix == ".csv" else _json_rows(path)


def _hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        # Asked first, since without a network loading retries for half a minute.
        with suppress(OfflineModeIsEnabled):
            HfApi().dataset_info(name, timeout=20)
        rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of a dozen libraries' types: network, name, split, access
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"cannot load {name!r}, split {split!r}, from the hub "
            f"({type(error).__name__}: {reason}); check name, split and network, or give "
            "--source FILE (a copy in the cache is used with HF_HUB_OFFLINE=1)"
        ) from error
    assert isinstance(rows, datasets.Dataset)
    yield from _numbered(f"{name}, {split}", map(dict, rows))


def _saved_rows(folder: Path, split: str) -> Iterator[Row]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
        rows = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
    except (FileNotFoundError, KeyError) as error:
        raise UserError(
            f"{folder}: no data set that save_to_disk wrote, or it has no split {split!r}"
        ) from error
    yield from _numbered(f"{folder},", map(dict, rows))


def _local_file(source: str) -> Path | None:
    """Returns the path of a local source, None for a hub data set's name."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{source} is a folder; give one file of it")
    if path.suffix in _FILE_ENDINGS or source.startswith(("/", "./", "../", "~")):
        raise UserError(f"no such file: {source}")
    return None


def _json_rows(path: Path) -> Iterator[Row]:
    """Rows of JSON lines, or of one JSON array."""
    with path.open("rb") as file:
        is_array = file.read(4096).lstrip()[:1] == b"["
    if is_array:
        try:
            rows = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not JSON ({error})") from error
        yield from _numbered(f"{path},", rows)
        return
    index = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: not JSON ({error})") from error
            if not isinstance(fields, dict):
                raise UserError(f"{where}: expected one JSON object a line")
            yield Row(where, index, fields)
            index += 1


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for index, fields in enumerate(reader):
                where = f"{path}, line {reader.line_num}"
                if None in fields or None in fields.values():
                    raise UserError(f"{where}: has another number of cells than the first line")
                yield Row(where, index, fields)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _column_names(path: Path) -> list[str]:
    try:
        return pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    with open_parquet(path) as file:
        rows = (fields for batch in file.iter_batches() for fields in batch.to_pylist())
        yield from _numbered(f"{path},", rows)


def _numbered(where: str, rows: Iterable[Any]) -> Iterator[Row]:
    for index, fields in enumerate(rows):
        if not isinstance(fields, dict):
            raise UserError(f"{where} row {index}: expected a JSON object")
        yield Row(f"{where} row {index}", index, fields)
