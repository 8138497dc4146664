"""What a report says of a run, from its files alone: state, scores, curves, verdicts."""

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astarpo.evaluation.scores import mean_change
from astarpo.reports.answers import Source, read_sources, verdict_counts
from astarpo.reports.plots import columns_of
from astarpo.reports.stage1 import summarize_stage1
from astarpo.rundir.reader import RunDirectory, read_json, state_of
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, UserError

Document = Mapping[str, Any]
"""A JSON object."""


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
    rows = run.metrics()
    manifest = read_json(run.values / "manifest.json") if run.values else {}
    scores = {kind: read_json(path) for kind, path in run.evaluations.items()}
    notes += _missing(run, rows, tables, manifest, scores)
    stage1 = summarize_stage1(tables["stage1"], run.config) if "stage1" in tables else None
    return clean(
        {
            "name": name,
            "path": str(run.path),
            "notes": notes,
            "facts": _facts(run, rows, manifest, scores),
            "scores": {kind: found["scores"] for kind, found in scores.items() if _scored(found)},
            "changes": _changes(tables),
            "curves": columns_of(rows),
            "stage1": stage1,
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
        found |= {problem.id: problem for problem in problems if problem.id in kept}
    return found


def clean(value: Any) -> Any:
    """A copy for JSON: floats to six digits, None for nan and infinity, no lone surrogates."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple):
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
    if "stage1" not in tables:
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


def _facts(
    run: RunDirectory, rows: Sequence[Document], manifest: Document, scores: Mapping[str, Document]
) -> list[tuple[str, Any]]:
    """Labels and values in the order shown; None where a value is not known."""
    config = run.config
    total_steps = config.get("steps")
    last = rows[-1] if rows else {}
    memory = [row["peak_memory_gib"] for row in rows if "peak_memory_gib" in row]
    tested = next((s for s in scores.values() if s), {}).get("num_problems")
    phases = manifest.get("seconds", {}).values()
    return [
        ("State", str(state_of(run, rows))),
        ("Model", config.get("model") or manifest.get("model")),
        ("Algorithm", config.get("algorithm")),
        ("Steps", f"{last.get('step', 0)} of {total_steps}" if total_steps else last.get("step")),
        ("Problems, train", manifest.get("num_problems")),
        ("Problems, test", tested),
        ("Last reward", last.get("reward")),
        ("Last KL (nats)", last.get("kl")),
        ("Tokens, stage 1", manifest.get("tokens")),
        ("Tokens, training", sum(row.get("tokens", 0) for row in rows)),
        ("Seconds, stage 1", round(sum(phases), 1) if phases else None),
        ("Seconds, training", round(sum(row.get("seconds", 0.0) for row in rows), 1)),
        ("Peak memory (GiB)", max(memory, default=None)),
        ("astarpo", manifest.get("package_version")),
    ]


def _changes(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, float]]:
    """Trained minus reference, paired by problem, with 95% intervals of the mean difference."""
    if not {"reference", "trained"} <= tables.keys():
        return {}
    changes = {}
    for name, mode in (("pass_at_1", "greedy"), ("avg_at", "sampled")):
        before, after = (_mean_rewards(tables[kind], mode) for kind in ("reference", "trained"))
        shared = sorted(before.keys() & after.keys())
        if shared:
            pairs = [(before[problem], after[problem]) for problem in shared]
            changes[name] = {
                **mean_change(*zip(*pairs, strict=True))._asdict(),
                "better": sum(after > before for before, after in pairs),
                "worse": sum(after < before for before, after in pairs),
            }
    return changes


def _mean_rewards(table: pa.Table, mode: str) -> dict[str, float]:
    """The mean reward of each problem over its answers of one mode."""
    answers = table.filter(pc.field("mode") == mode)
    means = answers.group_by("problem_id").aggregate([("reward", "mean")])
    return dict(zip(means["problem_id"].to_pylist(), means["reward_mean"].to_pylist(), strict=True))


def _settings(
    run: RunDirectory, manifest: Document, scores: Mapping[str, Document]
) -> dict[str, dict[str, str]]:
    """The settings of each part of the run, by name, as text."""
    tables = {k: v for k, v in run.recipe.items() if isinstance(v, dict)}
    data = {k: tables[k] for k in ("data", "test", "warm-data", "warm-start") if k in tables}
    evaluated = next((found for found in scores.values() if found), {})
    results = ("scores", "statuses", "seconds", "truncated_share", "mean_tokens", "model")
    stage1 = {k: v for k, v in manifest.items() if k not in ("fingerprint", "seconds", "format")}
    parts = {
        "Training": run.config,
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
