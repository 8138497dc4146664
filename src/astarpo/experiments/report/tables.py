"""An experiment in tables: those of `table.md`, every run, settings."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from astarpo.config.train import TRAIN_SETTINGS
from astarpo.experiments.records import Experiment, Run
from astarpo.experiments.report.markup import note, row, show, table, text
from astarpo.experiments.table import make_tables

# What differs between runs because each has its own folder, table and seed.
_OF_A_RUN = {name for name, setting in TRAIN_SETTINGS.items() if setting.in_experiment == "run"}


def headline_tables(experiment: Experiment) -> str:
    """The tables of `table.md`: to the target, costs, scores; a line for each variant."""
    if not experiment.rows:
        return note("No run is finished yet.")
    parts = []
    for heading, lines in make_tables(experiment):
        parts.append(f'<p class="muted">{text(heading)}</p>')
        if lines:
            heads, *others = lines
            parts.append(table(heads, [row(line[0], line[1:]) for line in others]))
    return "".join(parts)


def run_table(experiment: Experiment, out: Path) -> str:
    """Every run with its cost and result, and a link to its own report where there is one."""
    names = [name for name in experiment.score_names("test") if name != "kl"]
    heads = ["run", "state", "steps", "seconds", "tokens", "GiB", "KL", *map(_score_words, names)]
    rows = []
    for run in experiment.rows:
        cells = [run.state, *map(show, (
            run.steps, run.seconds.total, run.tokens.total, run.peak_memory_gib, run.kl,
            *(run.score("test", name) for name in names),
        ))]  # fmt: skip
        rows.append(row(run.name, cells, link=_address(run, out)))
    return table(heads, rows)


def settings_tables(experiment: Experiment) -> str:
    """Settings that differ between variants, then those that all share."""
    found = {name: _settings(runs[0]) for name, runs in experiment.variants.items()}
    names = dict.fromkeys(name for settings in found.values() for name in settings)
    if not names:
        return note("No settings are known yet.")
    columns = {name: [settings.get(name, "-") for settings in found.values()] for name in names}
    differing = [row(n, cells) for n, cells in columns.items() if len(set(cells)) > 1]
    shared = [row(n, cells[:1]) for n, cells in columns.items() if len(set(cells)) == 1]
    return (
        (table(["differs", *found], differing) if differing else "")
        + "<details><summary>The same in all variants</summary>"
        + f"{table(['setting', 'value'], shared)}</details>"
    )


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
