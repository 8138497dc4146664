"""Tables that only the page of an experiment has: every run, and the settings."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from astarpo.config.train import TRAIN_SETTINGS
from astarpo.experiments.records import Experiment, Run

RunRow = tuple[str, str | None, list[str | float | None]]

# Settings that differ between any two runs: each has its own folder, value table and seed.
_OF_A_RUN = {name for name, setting in TRAIN_SETTINGS.items() if setting.in_experiment == "run"}


def run_table(experiment: Experiment, out: Path) -> tuple[list[str], list[RunRow]]:
    """Heads and, for every run, its name, the address of its own report, its cost and scores."""
    names = [name for name in experiment.score_names("test") if name != "kl"]
    words = ["pass@1, greedy" if n == "pass_at_1" else n.replace("_at_", "@") for n in names]
    heads = ["run", "state", "steps", "seconds", "tokens", "GiB", "KL", *words]
    rows = []
    for run in experiment.rows:
        scores = [run.score("test", name) for name in names]
        spent = [run.steps, run.seconds.total, run.tokens.total, run.peak_memory_gib, run.kl]
        rows.append((run.name, _address(run, out), [run.state, *spent, *scores]))
    return heads, rows


def settings_tables(experiment: Experiment) -> tuple[list[list[str]], list[list[str]]]:
    """The settings that differ between variants, with a value for each; then the shared ones."""
    found = {name: _settings(runs[0]) for name, runs in experiment.variants.items()}
    names = dict.fromkeys(name for settings in found.values() for name in settings)
    columns = {name: [settings.get(name, "-") for settings in found.values()] for name in names}
    differing = [[name, *cells] for name, cells in columns.items() if len(set(cells)) > 1]
    shared = [[name, cells[0]] for name, cells in columns.items() if len(set(cells)) == 1]
    return differing, shared


def _address(run: Run, out: Path) -> str | None:
    """Path of a run's own report, or else of its folder, relative to the page; None without."""
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
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return str(value)
