"""Every answer of a run as one table: those of stage 1, of training and of evaluations.

A page can hold only so many answers. Beyond that, whole problems are left out. A hash of a
problem's id decides which, so that a problem in the page has all of its answers, and runs over the
same problems show the same ones.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astarpo.grading.columns import ANSWER_SCHEMA, answer_schema
from astarpo.rundir.reader import RunDirectory
from astarpo.runtime.parquet import open_parquet
from astarpo.types import STATUSES
from astarpo.values.shards import shard_paths

_SCHEMA = answer_schema(set(ANSWER_SCHEMA.names) - {"problem_digest", "token_ids"})
_NEEDED = {"problem_id", "text", "reward", "status"}

# Browsers refuse strings of 0.5 GB.
_MAX_TEXT_BYTES = 128 * 2**20
_MAX_CHARACTERS = 200_000
_MAX_EXTRACT = 1000


@dataclass(frozen=True)
class Source:
    """Answers of one origin.

    Attributes:
        run: The number of their run in the report.
        kind: `stage1`, `training`, `reference` or `trained`.
        table: The answers, columns as in `_SCHEMA`.
    """

    run: int
    kind: str
    table: pa.Table


def read_sources(run: RunDirectory, number: int, notes: list[str]) -> list[Source]:
    """The answers of the run with this number in the report, by origin.

    A file that cannot be read is left out, and a line about it is added to `notes`.
    """
    shards = shard_paths(run.values) if run.values else []
    steps = sorted((run.training / "samples").glob("step-*.parquet"))
    files = {"stage1": shards, "training": steps}
    files |= {kind: [scores.with_suffix(".parquet")] for kind, scores in run.evaluations.items()}
    sources = []
    for kind, paths in files.items():
        tables = [t for t in (read_answers(p, notes) for p in paths if p.exists()) if t is not None]
        if tables:
            sources.append(Source(number, kind, pa.concat_tables(tables)))
    return sources


def read_answers(path: Path, notes: list[str]) -> pa.Table | None:
    """A file of answers with every column of this page; None, and a line, where it is damaged."""
    try:
        with open_parquet(path) as file:
            found = set(file.schema_arrow.names)
            if missing := _NEEDED - found:
                raise ValueError(f"no column {', '.join(sorted(missing))}")
            table = file.read([name for name in _SCHEMA.names if name in found])
        columns = [
            table[f.name].cast(f.type) if f.name in found else pa.nulls(len(table), f.type)
            for f in _SCHEMA
        ]
        return pa.table(columns, schema=_SCHEMA)
    except (OSError, ValueError, pa.ArrowException) as error:
        notes.append(f"{path}: not readable ({str(error).splitlines()[0]}); left out")
        return None


def verdict_counts(table: pa.Table) -> dict[str, int]:
    """Counts verdicts: right or wrong where the status is `ok`, else the status itself."""
    columns = (table[name].to_pylist() for name in ("status", "reward", "finish_reason"))
    counts = dict.fromkeys(["right", "wrong", *STATUSES[1:], "cut"], 0)
    for status, reward, reason in zip(*columns, strict=True):
        kind = status if status in STATUSES[1:] else "right" if (reward or 0) >= 1 else "wrong"
        counts[kind] += 1
        counts["cut"] += reason == "length"
    return counts


def choose_problems(sources: Sequence[Source], max_answers: int) -> set[str]:
    """The problems to show: as many as the page has room for with all of their answers."""
    sizes: dict[str, tuple[int, int]] = {}
    for source in sources:
        bytes_long = pc.call_function("binary_length", [source.table["text"]]).to_pylist()
        for name, size in zip(source.table["problem_id"].to_pylist(), bytes_long, strict=True):
            count, total = sizes.get(name, (0, 0))
            sizes[name] = count + 1, total + min(size or 0, _MAX_CHARACTERS)
    kept: set[str] = set()
    num_answers = num_bytes = 0
    for name in sorted(sizes, key=_rank):
        count, size = sizes[name]
        if num_answers + count > max_answers or num_bytes + size > _MAX_TEXT_BYTES:
            break
        kept.add(name)
        num_answers, num_bytes = num_answers + count, num_bytes + size
    return kept


def columns(sources: Sequence[Source], kept: set[str]) -> dict[str, Any]:
    """Answers of the kept problems, column by column, for the page.

    Returns:
        `problems` (ids), their `truths`, `sources`, and columns of one length: `problem` and
        `source` are indices into those lists, `cut` is 1 where the token limit ended an answer,
        `greedy` where it was not sampled.
    """
    problems = sorted(kept)
    place = {name: i for i, name in enumerate(problems)}
    result: dict[str, Any] = {
        "problems": problems,
        "truths": [None] * len(problems),
        "sources": [{"run": source.run, "kind": source.kind} for source in sources],
    }
    plain = ("step", "sample", "answer", "reward", "status", "v_star", "num_tokens")
    result |= {name: [] for name in ("source", "problem", "text", "greedy", "cut", *plain)}
    for number, source in enumerate(sources):
        wanted = [name in kept for name in source.table["problem_id"].to_pylist()]
        table = source.table.filter(pa.array(wanted, pa.bool_()))
        rows = {name: table[name].to_pylist() for name in table.column_names}
        where = [place[name] for name in rows["problem_id"]]
        for i, truth in zip(where, rows["ground_truth"], strict=True):
            if truth is not None:
                result["truths"][i] = shorten(truth, _MAX_EXTRACT)
        result["source"] += [number] * len(where)
        result["problem"] += where
        result["text"] += map(shorten, rows["text"])
        result["cut"] += [int(reason == "length") for reason in rows["finish_reason"]]
        result["greedy"] += [int(mode == "greedy") for mode in rows["mode"]]
        rows["answer"] = [a if a is None else shorten(a, _MAX_EXTRACT) for a in rows["answer"]]
        for name in plain:
            result[name] += rows[name]
    return result


def shorten(text: str | None, limit: int = _MAX_CHARACTERS) -> str:
    """A text cut to a number of characters, with a note of how many more there were."""
    text = text or ""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[… {len(text) - limit:,} more characters]"


def _rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
