"""Every answer of a run as one table: those of stage 1, of training and of evaluations.

A page can hold only so many answers. Beyond that, whole problems are left out. A hash of a
problem's id decides which, so that a problem in the page has all of its answers, and runs over the
same problems show the same ones.

Texts are by far the most of what a table holds: they are read of those problems alone.
"""

import hashlib
from collections import Counter
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
from astarpo.values.known import coded, places
from astarpo.values.shards import shard_paths
from astarpo.values.summary import column_counts

_SCHEMA = answer_schema(set(ANSWER_SCHEMA.names) - {"problem_digest", "token_ids"})
_WITHOUT_TEXT = answer_schema(set(_SCHEMA.names) - {"text"})
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
        table: The answers, columns as in `_SCHEMA`, maybe without `text`.
        files: Where they were read from, each with how many of them it holds.
    """

    run: int
    kind: str
    table: pa.Table
    files: Sequence[tuple[Path, int]] = ()


def read_sources(run: RunDirectory, number: int, notes: list[str]) -> list[Source]:
    """The answers of the run with this number in the report, by origin, without their texts.

    A file that cannot be read is left out, and a line about it is added to `notes`.
    """
    shards = shard_paths(run.values) if run.values else []
    steps = sorted((run.training / "samples").glob("step-*.parquet"))
    files = {"stage1": shards, "training": steps}
    files |= {kind: [scores.with_suffix(".parquet")] for kind, scores in run.evaluations.items()}
    sources = []
    for kind, paths in files.items():
        found = ((path, read_answers(path, notes)) for path in paths if path.exists())
        tables = {path: table for path, table in found if table is not None}
        if tables:
            files = [(path, len(table)) for path, table in tables.items()]
            sources.append(Source(number, kind, pa.concat_tables(tables.values()), files))
    return sources


def read_answers(path: Path, notes: list[str]) -> pa.Table | None:
    """A file of answers with every column of this page but `text`, texts as codes.

    None, and a line in `notes`, where it is damaged.
    """
    try:
        with open_parquet(path) as file:
            found = set(file.schema_arrow.names)
            if missing := _NEEDED - found:
                raise ValueError(f"no column {', '.join(sorted(missing))}")
            table = file.read([name for name in _WITHOUT_TEXT.names if name in found])
        columns = [
            table[f.name].cast(f.type) if f.name in found else pa.nulls(len(table), f.type)
            for f in _WITHOUT_TEXT
        ]
        return coded(pa.table(columns, schema=_WITHOUT_TEXT))
    except (OSError, ValueError, pa.ArrowException) as error:
        notes.append(f"{path}: not readable ({str(error).splitlines()[0]}); left out")
        return None


def with_texts(sources: Sequence[Source], names: set[str]) -> list[Source]:
    """The answers to some problems, with their texts."""
    wanted = pa.array(sorted(names), pa.string())
    kept = []
    for source in sources:
        is_wanted = places(source.table["problem_id"], wanted) >= 0
        first, texts = 0, [pa.array([], pa.string())]
        for path, count in source.files:
            mine = is_wanted[first : first + count]
            first += count
            if mine.any():
                with open_parquet(path, is_checked=True) as file:
                    column = file.read(["text"])["text"].cast(pa.string())
                texts += column.filter(pa.array(mine)).chunks
        table = source.table.filter(pa.array(is_wanted))
        table = table.append_column("text", pa.chunked_array(texts))
        kept.append(Source(source.run, source.kind, table))
    return kept


def verdict_counts(table: pa.Table) -> dict[str, int]:
    """Counts verdicts: right or wrong where the status is `ok`, else the status itself."""
    status_A = places(table["status"], pa.array(STATUSES, pa.string()))
    is_right_A = table["reward"].fill_null(0).to_numpy() >= 1
    counts = {status: int((status_A == i).sum()) for i, status in enumerate(STATUSES) if i}
    is_judged_A = status_A <= 0
    right = int((is_judged_A & is_right_A).sum())
    cut = int((places(table["finish_reason"], pa.array(["length"])) == 0).sum())
    return {"right": right, "wrong": int(is_judged_A.sum()) - right, **counts, "cut": cut}


def first_problems(sources: Sequence[Source], max_answers: int) -> set[str]:
    """The problems that a page has room for if their texts are short."""
    counts: Counter[str] = Counter()
    for source in sources:
        counts.update(column_counts(source.table["problem_id"]))
    kept: set[str] = set()
    num_answers = 0
    for name in sorted(counts, key=_rank):
        num_answers += counts[name]
        if num_answers > max_answers:
            break
        kept.add(name)
    return kept


def choose_problems(sources: Sequence[Source], max_answers: int) -> set[str]:
    """The problems to show: as many as the page has room for with all of their answers.

    Args:
        sources: Of `with_texts`.
        max_answers: That the page has room for.
    """
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
