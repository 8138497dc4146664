"""Rows of a run: a JSON object a line, each with a checksum, so that damage is seen and named.

    {"step": 1, "reward": 0.25, "check": "1c291ca3"}

`check` is the CRC-32 of the rest of the line's object as `json.dumps` writes it. Rows without one,
which another program wrote, are taken as they are.
"""

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.runtime.files import disk_errors, write_atomic


class Rows(NamedTuple):
    """What a file of rows holds.

    Attributes:
        whole: The undamaged rows, without their checksums.
        damaged: Numbers of the damaged lines, from 1. The last one may still be in writing.
    """

    whole: list[dict[str, Any]]
    damaged: list[int]


def read_rows(path: Path) -> Rows:
    """Reads a file of rows. A missing file has none."""
    if not path.exists() or path.stat().st_size == 0:
        return Rows([], [])
    with disk_errors(path, "read"):
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    rows = Rows([], [])
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is None:
            rows.damaged.append(number)
        else:
            rows.whole.append(row)
    return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a row, which is on disk when this returns."""
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a file of rows, atomically."""
    text = "".join(map(_line, rows))
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({**row, "check": _checksum(row)}) + "\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    if isinstance(row, dict) and row.pop("check", None) in (None, _checksum(row)):
        return row
    return None


def _checksum(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(dict(row)).encode()):08x}"
