"""What a report says of a run, from its files alone: state, scores, curves, verdicts."""

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa

from astarpo.reports.answers import Source, read_sources, verdict_counts
from astarpo.reports.changes import paired_changes
from astarpo.reports.facts import environment_of, facts_of
from astarpo.reports.learning import summarize_learning
from astarpo.reports.plots import columns_of, held_out_columns
from astarpo.reports.stage1 import summarize_stage1
from astarpo.reports.suites import read_suites
from astarpo.rundir.reader import RunDirectory, read_json
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, UserError
from astarpo.values.known import places

Document = Mapping[str, Any]
"""A JSON object."""

_PLAIN = {int, bool, type(None)}


def collect_runs(
    runs: Sequence[RunDirectory], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[list[Source]]]:
    """Each run as `collect_run` gives it, and its answers by origin."""
    notes: list[list[str]] = [[] for _ in runs]
    sources = [read_sources(run, i, notes[i]) for i, run in enumerate(runs)]
    return list(map(collect_run, runs, names, sources, notes)), sources


def collect_run(
    run: RunDirectory, name: str, sources: Sequence[Source], notes: list[str]
) -> dict[str, Any]:
    """What a report shows of a run, without the texts of its answers.

    To the notes so far it adds what is missing.
    """
    tables = {source.kind: source.table for source in sources}
    rows, config = run.metrics(), run.config
    manifest = read_json(run.values / "manifest.json") if run.values else {}
    scores = {kind: read_json(path) for kind, path in run.evaluations.items()}
    notes += _missing(run, rows, tables, manifest, scores)
    both = [tables[kind] for kind in ("reference", "trained") if kind in tables]
    return clean(
        {
            "name": name,
            "path": str(run.path),
            "seed": config.get("seed"),
            "algorithm": config.get("algorithm"),
            "notes": notes,
            "facts": facts_of(run, rows, manifest, scores),
            "scores": {kind: found["scores"] for kind, found in scores.items() if _scored(found)},
            "changes": paired_changes(*both) if len(both) == 2 else {},
            "suites": read_suites(run, manifest, notes),
            "curves": columns_of(rows),
            "held_out": held_out_columns(run.held_out()),
            "stage1": summarize_stage1(tables["stage1"], config) if "stage1" in tables else None,
            "learning": summarize_learning(tables, config),
            "verdicts": {kind: verdict_counts(table) for kind, table in tables.items()},
            "settings": _settings(run, manifest, scores),
        }
    )


def read_questions(runs: Sequence[RunDirectory], kept: set[str]) -> dict[str, Problem]:
    """The kept problems by id, from the problem sets that still exist."""
    found: dict[str, Problem] = {}
    paths = {path.resolve() for run in runs for s in ("train", "test") if (path := run.problems(s))}
    for path in sorted(paths):
        try:
            problems = read_problems(path)
        except UserError:
            continue  # The answers are shown without their questions.
        place_P = places(pa.chunked_array([problems.ids]), pa.array(sorted(kept), pa.string()))
        found |= {problem.id: problem for problem in problems.take(place_P >= 0)}
    return found


def clean(value: Any) -> Any:
    """A copy for JSON: floats to six digits, None for nan and infinity, no lone surrogates."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        # Columns of answers are long, and most need nothing.
        kinds = set(map(type, value))
        if kinds <= _PLAIN or (kinds == {str} and all(map(str.isascii, value))):
            return list(value)
        return [clean(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    text = str(value)
    if text.isascii():
        return text
    # JSON files can hold lone surrogates, which no browser can show or save.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _missing(
    run: RunDirectory,
    rows: Sequence[Document],
    tables: Mapping[str, pa.Table],
    manifest: Document,
    scores: Mapping[str, Document],
) -> list[str]:
    notes = []
    if not rows:
        notes.append("No training step yet: no curves.")
    elif "training" not in tables:
        notes.append("No samples/step-*.parquet: answers of training are not shown.")
    if run.trains_without_values:
        notes.append("Trained without a value table: there is no stage 1 to show.")
    elif "stage1" not in tables:
        notes.append("No value table to be found: stage 1 is not shown.")
    elif "num_problems" not in manifest:
        notes.append("The value table is unfinished: stage 1 is shown as far as it has come.")
    if not run.is_recipe:
        notes.append("A training run on its own: scores come with astarpo run.")
    for kind, found in scores.items():
        if not _scored(found):
            notes.append(f"No {run.evaluations[kind].name}: no score of the {kind} policy yet.")
    return notes


def _scored(found: Document) -> bool:
    return isinstance(found.get("scores"), dict)


def _settings(
    run: RunDirectory, manifest: Document, scores: Mapping[str, Document]
) -> dict[str, dict[str, str]]:
    """The settings of each part of the run, by name, as text."""
    tables = {k: v for k, v in run.recipe.items() if isinstance(v, dict)}
    data = {k: tables[k] for k in ("data", "test", "warm-data", "warm-start") if k in tables}
    evaluated = next((found for found in scores.values() if found), {})
    results = ("scores", "statuses", "seconds", "truncated_share", "mean_tokens", "model")
    beside = ("fingerprint", "seconds", "format", "plans", "shard_engines")
    stage1 = {k: v for k, v in manifest.items() if k not in beside}
    config = run.config
    environment = environment_of(run)
    parts = {
        "Training": {name: v for name, v in config.items() if name != "environment"},
        "Environment": environment,
        "Data": data,
        "Stage 1": stage1,
        "Fingerprint of the value table": manifest.get("fingerprint", {}),
        "Evaluation": {k: v for k, v in evaluated.items() if k not in results},
    }
    return {
        title: {name: str(value) for name, value in flatten(part).items()}
        for title, part in parts.items()
        if part
    }


def flatten(value: Document, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names; without what is None."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        elif item is not None:
            flat[f"{prefix}{key}"] = item
    return flat


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of the runs' folders, with parent folders where the names alone are equal."""
    parts = [path.resolve().parts for path in paths]
    if len({p[-1] for p in parts}) == len(parts):
        return [p[-1] for p in parts]
    levels = zip(*(p[:-1] for p in parts), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    return ["/".join(p[shared:]) for p in parts]
