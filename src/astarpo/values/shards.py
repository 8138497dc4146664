"""Shards: the files that hold a value table's samples. Imports no torch: reports read them.

    samples-<16 hexadecimal digits>.parquet

A shard is named by which samples it holds, so that several writers never take the same name for
different samples, and a shard that is lost or damaged comes back under its own name. It carries the
fingerprint of its samples, by which one that belongs to another table is recognised, and a lost
manifest is made again; and the engine that sampled them. The numbered shards of version 0.1.0,
`samples-00000.parquet`, are read too.
"""

import hashlib
import json
import logging
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from astarpo.grading.columns import answer_row, answer_schema
from astarpo.runtime.files import DamagedFileError, disk_errors, move
from astarpo.runtime.parquet import open_parquet, seal_of, write_parquet
from astarpo.types import Answer

_NAME = re.compile(r"samples-(?:[0-9a-f]{16}|(\d{5}))\.parquet")
_FINGERPRINT = b"astarpo.fingerprint"
_ENGINE = b"astarpo.engine"

logger = logging.getLogger("astarpo")


@dataclass(frozen=True, slots=True)
class Sample:
    """One judged sample of the reference policy: a row of a shard."""

    problem_id: str
    problem_digest: str
    sample: int
    token_ids: tuple[int, ...]
    text: str
    answer: str | None
    reward: float
    status: str
    num_tokens: int
    finish_reason: str

    @classmethod
    def of(cls, answer: Answer, number: int) -> "Sample":
        """An answer as the sample of that number of its problem."""
        digest, token_ids = answer.prompt.problem.digest, answer.completion.token_ids
        row = answer_row(answer, problem_digest=digest, sample=number, token_ids=token_ids)
        return cls(**{name: row[name] for name in SCHEMA.names})


SCHEMA = answer_schema({field.name for field in fields(Sample)})


def sample_rows(samples: Sequence[Sample]) -> pa.Table:
    """Samples as rows in `SCHEMA`."""
    return pa.Table.from_pylist([asdict(sample) for sample in samples], schema=SCHEMA)


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder, sorted by name; files of other names do not belong to the table."""
    with disk_errors(folder, "read"):
        found = list(folder.glob("samples-*.parquet"))
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def shard_name(problem_ids: Sequence[str], numbers: Sequence[int]) -> str:
    """The name of a shard, which follows from the samples that it holds and their order."""
    content = json.dumps([list(problem_ids), list(numbers)])
    return f"samples-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}.parquet"


def write_shard(
    folder: Path, table: pa.Table, fingerprint: Mapping[str, Any], engine: str | None = None
) -> Path:
    """Writes rows in `SCHEMA` as one shard, and returns its path; `engine` is what sampled them."""
    name = shard_name(table["problem_id"].to_pylist(), table["sample"].to_pylist())
    mark = {_FINGERPRINT: json.dumps(fingerprint, sort_keys=True).encode()}
    if engine is not None:
        mark[_ENGINE] = engine.encode()
    write_parquet(folder / name, table.replace_schema_metadata(mark))
    return folder / name


def check_shard(path: Path) -> dict[str, Any] | None:
    """The fingerprint of a shard, which has to be whole; None where version 0.1.0 wrote it."""
    match = _NAME.fullmatch(path.name)
    assert match
    if match[1]:  # It has no checksums: all that can be done is to read it.
        with open_parquet(path) as file:
            file.read()
        return None
    if seal_of(path) is None:
        raise DamagedFileError(f"{path}: damaged: it has lost its digest")
    with open_parquet(path, is_checked=True) as file:
        return json.loads(file.schema_arrow.metadata[_FINGERPRINT])


def engine_of(path: Path) -> str | None:
    """What sampled a whole shard, such as "vllm (vllm 0.32.0, bfloat16)"; None if it says none."""
    with open_parquet(path, is_checked=True) as file:
        engine = (file.schema_arrow.metadata or {}).get(_ENGINE)
    return None if engine is None else engine.decode()


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a shard that `check_shard` has found whole."""
    with open_parquet(path, is_checked=True) as file:
        table = file.read(columns=columns)
    return table if columns is None else table.select(columns)  # Arrow reads in the file's order.


class Shards:
    """The shards in a folder, each checked to be whole when it is first asked about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fingerprints: dict[Path, dict[str, Any] | None] = {}

    def __iter__(self) -> Iterator[Path]:
        return iter(shard_paths(self.folder))

    def fingerprint_of(self, shard: Path) -> dict[str, Any] | None:
        """What a shard says of its samples, as `check_shard` gives it."""
        if shard not in self._fingerprints:
            self._fingerprints[shard] = check_shard(shard)
        return self._fingerprints[shard]

    def write(self, rows: pa.Table, fingerprint: dict[str, Any], engine: str | None = None) -> Path:
        """Writes rows in `SCHEMA` as one more shard, and returns its path."""
        shard = write_shard(self.folder, rows, fingerprint, engine)
        self._fingerprints[shard] = fingerprint
        return shard

    def set_damaged_aside(self, names: Container[str] | None = None) -> None:
        """Renames shards that are damaged, with a warning, so that they are none any more.

        Args:
            names: Look at these alone; None for all.
        """
        for shard in self:
            if names is not None and shard.name not in names:
                continue
            try:
                self.fingerprint_of(shard)
            except DamagedFileError as error:
                name = f"damaged-{shard.name}"
                # Another part of the same table may have done so in this moment.
                with disk_errors(shard), suppress(FileNotFoundError):
                    move(shard, name)
                logger.warning(f"{error}; set aside as {name}, its samples come anew")
