"""Reads what a run left behind, whole or not, for reports and listings.

A run is the directory of `astarpo train` (see `writer.py`) or the folder of `astarpo run`, which
has the former as its part `train/`. Any part may be missing or half written: the run may still be
going, or have been killed.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astarpo.config.documents import ENVIRONMENT
from astarpo.rundir.rows import read_rows
from astarpo.runtime.files import disk_errors
from astarpo.runtime.locks import Holder, read_holder
from astarpo.runtime.remote import as_path
from astarpo.types import UserError

logger = logging.getLogger("astarpo")

STAGES = (
    "test_data", "train_data", "warm_data", "warm_start",
    "evaluate_reference", "estimate", "train", "evaluate_trained",
)  # fmt: skip
_WARM_STAGES = {"warm_data", "warm_start"}

# A run on another machine that has shown no work for this long, or for three of its longest steps,
# is called silent.
_QUIET_S = 300.0
_QUIET_STEPS = 3


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk. Nothing is read before it is asked for.

    Attributes:
        path: As given.
        training: What `astarpo train` wrote, or would write: `path` itself or its part `train`.
        is_recipe: Whether `path` is the folder of `astarpo run`.
    """

    path: Path
    training: Path
    is_recipe: bool

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the training stage; empty where it has not begun."""
        return read_settings(self.training)

    @property
    def environment(self) -> dict[str, Any]:
        """Where it was trained: `python`, `torch`, `transformers`, `device`, `commit` and so on.

        Empty where that is not known, as of version 0.1.0.
        """
        found = read_json(self.training / "config.json").get(ENVIRONMENT)
        return found if isinstance(found, dict) else {}

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of all stages; empty for a training run on its own."""
        return read_json(self.path / "recipe.json") if self.is_recipe else {}

    @property
    def values(self) -> Path | None:
        """The value table's folder, None where there is none or it is no longer to be found."""
        if self.trains_without_values:
            return None  # Whatever is called `values` here is another run's.
        return self._input("values", "values")

    @property
    def trains_without_values(self) -> bool:
        """Whether it is known to have no value table; where training has not begun it is not."""
        config = self.config
        return bool(config) and not config.get("values")

    @property
    def evaluations(self) -> dict[str, Path]:
        """Where the scores of a recipe's `reference` and `trained` policy are, or will be."""
        if not self.is_recipe:
            return {}
        return {"reference": self.path / "base.json", "trained": self.path / "trained.json"}

    def problems(self, split: str) -> Path | None:
        """The problem set of a split, `train` or `test`, None where it is not to be found."""
        return self._input("problems" if split == "train" else "", f"{split}.parquet")

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every step so far, without lines that are not whole."""
        return whole_rows(self.training / "metrics.jsonl")

    def held_out(self) -> list[dict[str, Any]]:
        """The evaluations on held-out problems while training, without lines that are not whole."""
        return whole_rows(self.training / "evaluations.jsonl")

    def _input(self, setting: str, name: str) -> Path | None:
        given = as_path(str(self.config.get(setting) or name))
        # A run may have been moved, or the working directory may differ: look beside the run too.
        near = self.path if self.is_recipe else self.training.parent
        for path in (near / name, given, near / given.name):
            with disk_errors(path, "read"):
                if path.exists() and (self.is_recipe or setting):
                    return path
        return None


@dataclass(frozen=True, slots=True)
class State:
    """How far a run has come.

    Attributes:
        word: `finished`; `running`, a process is at work; `stopped` by a signal or for its health;
            `killed`, its process is gone; `silent`, its process was on another machine and has
            shown no work for a while; `unfinished`, none of these: an error ended it.
        detail: The stage it is in, for how long it has been silent, why it was stopped.
    """

    word: str
    detail: str

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


def open_run(path: Path) -> RunDirectory:
    """The run at a path; `UserError` if there is none."""
    if (path / "recipe.json").is_file():
        return RunDirectory(path, path / "train", is_recipe=True)
    config = read_settings(path)
    if {"algorithm", "values"} <= config.keys():
        return RunDirectory(path, path, is_recipe=False)
    if not path.exists():
        raise UserError(f"{path}: no such folder")
    raise UserError(
        f"{path}: not a run (no config.json of astarpo train, no recipe.json of astarpo run)"
    )


def has_run(path: Path) -> bool:
    """Whether `astarpo train` has begun in a folder: `--resume` then goes on."""
    return os.path.isfile(path / "config.json")  # False for a name too long, and raises nothing


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a training run, from record.json where its config.json is damaged."""
    config = read_json(path / "config.json")
    config.pop(ENVIRONMENT, None)
    return config or read_json(path / "record.json").get("settings", {})


def state_of(run: RunDirectory, rows: Sequence[Mapping[str, Any]]) -> State:
    """How far a run has come, by its lock file, its metrics and what else it has written."""
    stage = _stage(run)
    if run.is_recipe and stage is None:
        return State("finished", "")  # The run's own report, which is made last, says so too.
    words = (stage or "").replace("_", " ")
    holder = read_holder(run.path)
    if holder and holder.is_alive:
        return State("running", words)
    found = _training_state(run, rows) if stage in (None, "train") else None
    # If a lock file lies beside the summary of a stop, the run was resumed and then killed.
    if found and (not run.is_recipe if found.word == "finished" else holder is None):
        return found
    return _left_state(holder, words, rows)


def started_at(run: RunDirectory) -> float:
    """When the oldest file of a run was last written, in seconds since 1970."""
    # Hidden files come and go while others are written.
    files = [file for pattern in ("[!.]*", "samples/[!.]*") for file in run.path.glob(pattern)]
    times_s = [file.stat().st_mtime for file in files if file.is_file()]
    return min(times_s, default=run.path.stat().st_mtime)


def format_duration(seconds: float) -> str:
    """A duration in its largest fitting unit: `42 s`, `17 min`, `3.2 h`, `4.0 d`."""
    if seconds >= 86400:
        return f"{seconds / 86400:.1f} d"
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _training_state(run: RunDirectory, rows: Sequence[Mapping[str, Any]]) -> State | None:
    summary = read_json(run.training / "summary.json")
    # A resumed run keeps its old summary for a while, whose number of steps is then too small.
    if not summary or summary.get("steps") != (rows[-1]["step"] if rows else 0):
        return None
    if summary.get("completed"):
        return State("finished", "")
    return State("stopped", "unhealthy, see summary.json" if "reason" in summary else "")


def _stage(run: RunDirectory) -> str | None:
    """The first stage of a recipe that is not done; None if all are, or for a training run."""
    if not run.is_recipe:
        return None
    done = read_json(run.path / "stages.json")
    wanted = [name for name in STAGES if name not in _WARM_STAGES or "warm-start" in run.recipe]
    return next((name for name in wanted if name not in done), None)


def _left_state(holder: Holder | None, stage: str, rows: Sequence[Mapping[str, Any]]) -> State:
    """The state of a run that is not done and that no process is seen to work on."""
    if holder is None:
        return State("unfinished", stage)
    silence = format_duration(holder.silent_s)
    if holder.is_alive is False:
        return State("killed", f"{stage}, last seen {silence} ago".removeprefix(", "))
    longest_s = max((row.get("seconds", 0.0) for row in rows), default=0.0)
    if holder.silent_s < max(_QUIET_S, _QUIET_STEPS * longest_s):
        return State("running", f"{stage}, {holder.name}".removeprefix(", "))
    return State("silent", f"{stage}, for {silence}, {holder.name}".removeprefix(", "))


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that have a step; damaged lines are named in the log."""
    try:
        rows = read_rows(path)
    except UserError as error:
        logger.warning(f"{error}; left out")
        return []
    for number in rows.damaged:
        logger.warning(f"{path}: line {number} is damaged or still being written, left out")
    return [row for row in rows.whole if isinstance(row.get("step"), int)]
