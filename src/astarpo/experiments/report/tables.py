"""An experiment in tables: those of `table.md`, every run, settings."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from astarpo.config.train import TRAIN_SETTINGS
from astarpo.experiments.records import Experiment, Run
from astarpo.experiments.table import Table, make_tables

RunRow = tuple[str, str | None, list[str | float | None]]

# What differs between runs because each has its own folder, table and seed.
_OF_A_RUN = {name for name, setting in TRAIN_SETTINGS.items() if setting.in_experiment == "run"}


def headline_tables(experiment: Experiment) -> list[Table]:
    """The tables of `table.md`: to the target, costs, scores; a line for each variant."""
    return make_tables(experiment) if experiment.rows else []


def run_table(experiment: Experiment, out: Path) -> tuple[list[str], list[RunRow]]:
    """Heads and, for every run, its name, its own report's address if any, cost and result."""
    names = [name for name in experiment.score_names("test") if name != "kl"]
    heads = ["run", "state", "steps", "seconds", "tokens", "GiB", "KL", *map(_score_words, names)]
    rows = []
    for run in experiment.rows:
        scores = [run.score("test", name) for name in names]
        spent = [run.steps, run.seconds.total, run.tokens.total, run.peak_memory_gib, run.kl]
        rows.append((run.name, _address(run, out), [run.state, *spent, *scores]))
    return heads, rows


def settings_tables(experiment: Experiment) -> tuple[list[list[str]], list[list[str]]]:
    """Settings that differ between variants, each with a value a variant; then those all share."""
    found = {name: _settings(runs[0]) for name, runs in experiment.variants.items()}
    names = dict.fromkeys(name for settings in found.values() for name in settings)
    columns = {name: [settings.get(name, "-") for settings in found.values()] for name in names}
    differing = [[name, *cells] for name, cells in columns.items() if len(set(cells)) > 1]
    shared = [[name, cells[0]] for name, cells in columns.items() if len(set(cells)) == 1]
    return differing, shared


def _score_words(name: str) -> str:
    return "pass@1, greedy" if name == "pass_at_1" else name.replace("_at_", "@")


def _address(run: Run, out: Path) -> str | None:
    """Where a run's own report, or else its folder, is from the page's folder; None without."""
    place = PurePosixPath("runs") / run.variant / f"seed-{run.seed}"
    if ".." in place.parts or run.variant.startswith("/"):
        return None
    for path in (place / "report.html", place):
        if (out / path).exists():
            return quote(str(path))
    return None


def _settings(run: Run) -> dict[str, str]:
    return {k: _plain(v) for k, v in run.settings.items() if k not in _OF_A_RUN and v is not None}


def _plain(value: Any) -> str:
    return (
        ", ".join(f"{k}={v}" for k, v in value.items())
        if isinstance(value, Mapping)
        else str(value)
    )
