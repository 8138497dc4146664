"""A run's directory: what was asked, what happened at each step, what the policy wrote.

config.json          resolved settings; `astarpo train --config config.json` repeats the run
metrics.jsonl        one line a step
evaluations.jsonl    one line an evaluation on held-out problems, where the run makes them
samples/step-*.parquet   every answer of a step with its verdict
checkpoints/step-*/  see `checkpoint.py`
adapter/             the trained LoRA adapter, where there is one, peft's layout
model/               the trained policy, Hugging Face layout; an adapter is merged into it
summary.json         the run in a few numbers
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.answer_schema import answer_row, answer_schema
from astarpo.config import Config
from astarpo.files import write_atomic, write_json
from astarpo.rollout import Answer
from astarpo.types import UserError

# What may differ when a run is resumed: it changes how far or how fast, not what is computed.
_FREE_ON_RESUME = {
    "resume", "steps", "epochs", "log_to", "checkpoint_every", "keep_checkpoints", "device",
    "grade_workers", "grade_timeout", "reward", "out", "values", "problems", "max_seconds",
    "eval_problems", "profile", "reference_offload", "health",
}  # fmt: skip


class RunLog:
    """Writes a run directory.

    Attributes:
        path: The directory.
        settings: The config as JSON has it.
        seconds: Of training so far, evaluations not counted.
        tokens: Generated in training so far.
    """

    def __init__(self, path: Path, config: Config, *, resume: bool) -> None:
        """Checks a run directory, new or to be resumed; nothing is written yet.

        Raises:
            UserError: There is a run already and `resume` is off, or it has other settings.
        """
        self.path = path
        self.seconds = 0.0
        self.tokens = 0.0
        self.settings = json.loads(config.model_dump_json()) | {"resume": False}
        self._changed = config.model_dump(exclude_defaults=True).keys()
        config_path = path / "config.json"
        if config_path.exists():
            if not resume:
                raise UserError(f"{path}: has a run already; go on with --resume or change --out")
            self._require_same(json.loads(config_path.read_text(encoding="utf-8")))
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path}: exists and is not a run directory; give another --out")

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every step so far."""
        return self._rows("metrics.jsonl")

    def evaluations(self) -> list[dict[str, Any]]:
        """The held-out evaluations so far."""
        return self._rows("evaluations.jsonl")

    def begin(self, step: int) -> list[dict[str, Any]]:
        """Writes the config and forgets everything after a step; returns the metrics up to it."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "config.json", self.settings)
        for name in ("metrics.jsonl", "evaluations.jsonl"):
            kept = [row for row in self._rows(name) if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            write_atomic(
                self.path / name, lambda file, t=text: file.write_text(t, encoding="utf-8")
            )
        for file in (self.path / "samples").glob("step-*.parquet"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()
        rows = self.metrics()
        self.seconds = sum(row["seconds"] for row in rows)
        self.tokens = sum(row["tokens"] for row in rows)
        return rows

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Appends one step's metrics; they are on disk when this returns."""
        self._append("metrics.jsonl", row)
        self.seconds += row["seconds"]
        self.tokens += row["tokens"]

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Appends a held-out evaluation, with what training had cost by then."""
        costs = {"step": step, "seconds": self.seconds, "tokens": self.tokens}
        self._append("evaluations.jsonl", {**costs, **scores})

    def log_samples(
        self, step: int, answers: Sequence[Answer], values: Sequence[float] | None
    ) -> None:
        """Writes what the policy wrote in one step, with each prompt's V* where it is known."""
        rows = [
            answer_row(answer, step=step, v_star=value)
            for answer, value in zip(answers, values or [None] * len(answers), strict=True)
        ]
        table = pa.Table.from_pylist(rows, schema=answer_schema(rows[0]))
        path = self.path / "samples" / f"step-{step:06d}.parquet"
        write_atomic(path, lambda file: pq.write_table(table, file))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        write_json(self.path / "summary.json", dict(summary))

    def _rows(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _require_same(self, before: dict[str, Any]) -> None:
        now = self.settings
        # A setting that is newer than the run is, by default, as if there were none.
        before = {name: now[name] for name in now.keys() - self._changed} | before
        if differences := [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in sorted((before.keys() | now.keys()) - _FREE_ON_RESUME)
            if before.get(name) != now.get(name)
        ]:
            raise UserError(f"{self.path}: cannot resume: {'; '.join(differences)}")
