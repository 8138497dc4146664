"""Rows of local files: JSON lines, a JSON array, CSV, Parquet. Every error names file and line."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.runtime.parquet import open_parquet
from astarpo.types import UserError

CSV_ENDINGS = (".csv", ".tsv")

_DELIMITERS = ",;\t"
_LARGEST_CELL = 2**31 - 1
"""Characters. The csv module's own limit of 131,072 is less than a long document."""

Refuse = Callable[[UserError], object]
"""What is called with an error in one row: it raises it, or counts it and returns."""


def stop(error: UserError) -> NoReturn:
    """Refuses a whole source for one row."""
    raise error


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


def json_rows(path: Path, refuse: Refuse = stop) -> Iterator[Row]:
    """Rows of JSON lines, or of one JSON array; see `read_rows`."""
    with path.open("rb") as file:
        is_array = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    if is_array:
        try:
            rows = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not JSON ({error})") from error
        yield from numbered(f"{path},", rows, refuse)
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
                hint = "" if index else "; one row a line is wanted, or one array of all rows"
                refuse(UserError(f"{where}: not JSON ({error}){hint}"))
                continue
            if isinstance(fields, dict):
                yield Row(where, index, fields)
                index += 1
            else:
                refuse(UserError(f"{where}: expected one JSON object a line"))


def csv_rows(path: Path, refuse: Refuse = stop) -> Iterator[Row]:
    """Rows of a CSV file in UTF-8, its cells parted by commas, semicolons or tabs."""
    csv.field_size_limit(_LARGEST_CELL)
    index = 0
    # Bytes that are not UTF-8 are kept as surrogates, so that they spoil no row but their own.
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as lines:
        reader = csv.DictReader(lines, delimiter=_delimiter(path), strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                refuse(UserError(f"{path}, line {reader.line_num}: not CSV ({error})"))
                continue
            if fields is None:
                return
            where = f"{path}, line {reader.line_num}"
            if None in fields or None in fields.values():
                refuse(UserError(f"{where}: has another number of cells than the first line"))
            elif not _is_text([*fields, *fields.values()]):
                refuse(UserError(f"{where}: not UTF-8; save the file as CSV in UTF-8"))
            else:
                yield Row(where, index, fields)
                index += 1


def _delimiter(path: Path) -> str:
    """What parts the cells: that by which the first line has most of them."""
    counts = {}
    for delimiter in _DELIMITERS:
        with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as lines:
            try:
                counts[delimiter] = len(next(csv.reader(lines, delimiter=delimiter), []))
            except csv.Error:
                counts[delimiter] = 0
    return max(counts, key=lambda delimiter: counts[delimiter])  # the first of equals


def _is_text(cells: Iterable[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file; UserError where it is none."""
    try:
        return pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file") from error


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file."""
    with open_parquet(path) as file:
        rows = (fields for batch in file.iter_batches() for fields in batch.to_pylist())
        yield from numbered(f"{path},", rows)


def numbered(where: str, rows: Iterable[Any], refuse: Refuse = stop) -> Iterator[Row]:
    """Rows that are objects in memory, named by their numbers."""
    index = 0
    for number, fields in enumerate(rows):
        if isinstance(fields, dict):
            yield Row(f"{where} row {number}", index, fields)
            index += 1
        else:
            refuse(UserError(f"{where} row {number}: expected a JSON object"))
