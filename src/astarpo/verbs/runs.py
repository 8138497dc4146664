"""The runs below a folder as a table: state, progress, last reward, time."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astarpo.config import RunsConfig
from astarpo.rundir.reader import RunDirectory, open_run, started_at, state_of
from astarpo.runtime.tables import text_table
from astarpo.runtime.words import printable
from astarpo.types import UserError

_COLUMNS = ("run", "state", "step", "reward", "KL", "seconds", "started")
_RIGHT = {i for i, name in enumerate(_COLUMNS) if name in ("step", "reward", "KL", "seconds")}
# Parts of a run that hold no runs but may hold very many files.
_PARTS = {"samples", "checkpoints", "model", "values", "reference"}
_NOTE = (
    "killed: its process is gone; unfinished: an error ended it; silent: another machine's, which "
    "has shown no work for a while"
)


def runs(config: RunsConfig) -> str:
    """Lists the runs below a folder, oldest first.

    Returns:
        The table. Reward and KL are the last step's, seconds the training's so far.

    Raises:
        UserError: There is no such folder, or no run in it.
    """
    rows = [_row(run, config.dir) for run in prepare(config)]
    lines = text_table([_COLUMNS, *rows], _RIGHT)
    if any(row[1].startswith(("killed", "unfinished", "silent")) for row in rows):
        lines += ["", _NOTE]
    return "\n".join(lines)


def prepare(config: RunsConfig) -> list[RunDirectory]:
    """The runs to list, oldest first."""
    if not config.dir.is_dir():
        raise UserError(f"{config.dir}: no such folder")
    found = sorted(find_runs(config.dir), key=started_at)
    if not found:
        raise UserError(f"{config.dir}: no run of astarpo train or astarpo run in it")
    return found


def find_runs(folder: Path) -> Iterator[RunDirectory]:
    """The runs in a folder and below it. The parts of a run are not searched."""
    for path, names, files in os.walk(folder):
        if {"recipe.json", "config.json"} & set(files):
            try:
                yield open_run(Path(path))
            except UserError:
                continue  # A model's config.json, say.
            names.clear()
        names[:] = sorted(name for name in names if name not in _PARTS and name[0] != ".")


def _row(run: RunDirectory, folder: Path) -> tuple[str, ...]:
    rows = run.metrics()
    last = rows[-1] if rows else {}
    step = last.get("step", 0)
    name = str(run.path.relative_to(folder)) if run.path != folder else str(folder)
    return (
        printable(name, kept=""),
        str(state_of(run, rows)),
        f"{step} of {steps}" if (steps := run.config.get("steps")) else str(step),
        _number(last.get("reward")),
        _number(last.get("kl")),
        f"{sum(row.get('seconds', 0.0) for row in rows):.0f}",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(started_at(run))),
    )


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def preview(config: RunsConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return [f"{len(prepare(config))} runs"]
