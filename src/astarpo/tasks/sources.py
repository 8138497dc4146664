"""Rows of data sets, from a file (see `rows.py`) or the hub. Every error names where it is."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astarpo.tasks.base import Task
from astarpo.tasks.problem_set import read_problems
from astarpo.tasks.rows import (
    CSV_ENDINGS,
    Refuse,
    Row,
    column_names,
    csv_rows,
    json_rows,
    numbered,
    parquet_rows,
    stop,
)
from astarpo.types import Problem, UserError

_FILE_ENDINGS = {".jsonl", ".json", ".parquet", ".txt", ".gz", ".zst", ".arrow", *CSV_ENDINGS}


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
    if path is not None and path.suffix == ".parquet" and "reward_model" in column_names(path):
        yield from _verl_problems(task, path, {split, copy.split}, split)
        return
    if path is None:
        name = source or copy.name
        rows = _hub_rows(name, copy.config if name == copy.name else None, copy.split or split)
    else:
        rows = parquet_rows(path) if path.suffix == ".parquet" else json_rows(path)
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


def read_rows(
    source: str | Iterable[Mapping[str, Any]], split: str, refuse: Refuse = stop
) -> Iterator[Row]:
    """Yields the rows of any source.

    Args:
        source: A file (JSON lines or a JSON array, CSV, Parquet), a folder that
            `Dataset.save_to_disk` wrote, or a hub data set's name, with its configuration after a
            colon where it has several; or rows in memory.
        split: Of a hub data set.
        refuse: Called with what is wrong with a row; it goes on after the row if this returns.

    Raises:
        UserError: It cannot be read.
    """
    if not isinstance(source, str):
        rows = (dict(row) if isinstance(row, Mapping) else row for row in source)
        return numbered("problems,", rows, refuse)
    if (folder := Path(source).expanduser()).is_dir():
        return _saved_rows(folder, split)
    if (path := _local_file(source)) is None:
        name, _, config = source.partition(":")
        return _hub_rows(name, config or None, split)
    if path.suffix == ".parquet":
        column_names(path)
        return parquet_rows(path)
    return csv_rows(path, refuse) if path.suffix in CSV_ENDINGS else json_rows(path, refuse)


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
    yield from numbered(f"{name}, {split}", map(dict, rows))


def _saved_rows(folder: Path, split: str) -> Iterator[Row]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
        rows = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
    except (FileNotFoundError, KeyError) as error:
        raise UserError(
            f"{folder}: no data set that save_to_disk wrote, or it has no split {split!r}"
        ) from error
    yield from numbered(f"{folder},", map(dict, rows))


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
