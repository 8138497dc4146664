"""Experiment trackers: the numbers of `metrics.jsonl` and some samples, shown elsewhere as well.

A tracker is a view. The run directory stays the record, and nothing is ever read back from one.
"""

import hashlib
import html
import importlib
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from astarpo.types import Answer, UserError

TrackerName = Literal["none", "tensorboard", "wandb", "trackio"]

NUM_SAMPLES = 8
"""Answers in one table of samples."""

PROJECT = "astarpo"

_COLUMNS = ["problem", "text", "answer", "ground_truth", "reward", "status"]


class Tracker:
    """Where a run can be watched. This one shows nothing; others replace its methods."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Shows the numbers of one step."""

    def log_samples(self, step: int, answers: Sequence[Answer]) -> None:
        """Shows the first `NUM_SAMPLES` answers of a step as a table."""

    def close(self) -> None:
        """Ends the tracker's own processes, once what is pending is written."""


class TensorBoard(Tracker):
    """Event files in the run directory's `tensorboard/`."""

    def __init__(self, run_path: Path, settings: Mapping[str, Any], steps_done: int) -> None:
        writer_class = _import("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer_class(str(run_path / "tensorboard"), purge_step=steps_done + 1)
        text = "\n".join(f"    {name}: {value}" for name, value in settings.items())
        self._writer.add_text("settings", text)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes a scalar for each number."""
        for name, value in metrics.items():
            if isinstance(value, numbers.Real):
                self._writer.add_scalar(name, value, step)

    def log_samples(self, step: int, answers: Sequence[Answer]) -> None:
        """Writes a Markdown text in which what the policy wrote is escaped."""
        parts = []
        for row in _rows(answers):
            facts = ", ".join(f"{k} {v}" for k, v in zip(_COLUMNS, row, strict=True) if k != "text")
            parts.append(f"<p>{html.escape(facts)}</p><pre>{html.escape(row[1])}</pre>")
        self._writer.add_text("samples", "\n".join(parts), step)

    def close(self) -> None:
        """Writes what is pending."""
        self._writer.close()


class WandbLike(Tracker):
    """Weights & Biases, or trackio, which has the same interface."""

    def __init__(
        self, library: Literal["wandb", "trackio"], run_path: Path, settings: Mapping[str, Any]
    ) -> None:
        self._library = _import(library, library)
        name = run_path.resolve().name
        if library == "wandb":
            # One id for one directory, so that a resumed run goes on in the same curves.
            identity = hashlib.blake2b(str(run_path.resolve()).encode(), digest_size=6).hexdigest()
            own = {"id": identity, "dir": str(run_path)}
        else:
            own = {"embed": False}
        self._library.init(project=PROJECT, name=name, config=dict(settings), resume="allow", **own)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Logs one step."""
        named = {name: value for name, value in metrics.items() if name != "step"}
        self._library.log(named, step=step)

    def log_samples(self, step: int, answers: Sequence[Answer]) -> None:
        """Logs a table."""
        table = self._library.Table(columns=_COLUMNS, data=_rows(answers))
        self._library.log({"samples": table}, step=step)

    def close(self) -> None:
        """Ends the run."""
        self._library.finish()


def open_tracker(
    name: TrackerName, run_path: Path, settings: Mapping[str, Any], steps_done: int
) -> Tracker:
    """Starts a tracker of a run, of which `steps_done` steps were made before it is resumed."""
    match name:
        case "none":
            return Tracker()
        case "tensorboard":
            return TensorBoard(run_path, settings, steps_done)
        case _:
            return WandbLike(name, run_path, settings)


def require_tracker(name: TrackerName) -> None:
    """Checks that a tracker's library is installed, before anything long begins."""
    if name != "none":
        _import({"tensorboard": "torch.utils.tensorboard"}.get(name, name), name)


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"log_to {extra}: it is not installed; pip install {extra}") from error


def _rows(answers: Sequence[Answer]) -> list[list[Any]]:
    return [
        [
            answer.prompt.problem.id,
            answer.text,
            answer.verdict.answer or "",
            answer.prompt.problem.ground_truth,
            answer.verdict.reward,
            answer.verdict.status,
        ]
        for answer in answers[:NUM_SAMPLES]
    ]
