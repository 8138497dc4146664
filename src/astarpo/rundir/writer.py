"""A run's directory: what was asked, what happened at each step, what the policy wrote.

config.json          resolved settings; `astarpo train --config config.json` repeats the run;
                     `environment`, which is no setting, says where it ran
record.json          settings and environment again, digests of the inputs, which resuming checks
metrics.jsonl        one line a step
evaluations.jsonl    one line for each evaluation on held-out problems, if there are any
samples/step-*.parquet   every answer of a step with its verdict
checkpoints/step-*/  see `checkpoint.py`
adapter/             the trained LoRA adapter, where there is one, peft's layout
model/               the trained policy, Hugging Face layout; an adapter is merged into it
summary.json         the run in a few numbers
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from astarpo.config import TrainConfig
from astarpo.config.documents import ENVIRONMENT, upgrade
from astarpo.config.train import TRAIN_SETTINGS
from astarpo.grading.columns import answer_row, answer_schema
from astarpo.rundir.rows import append_row, read_rows, write_rows
from astarpo.runtime.environment import environment
from astarpo.runtime.files import (
    DamagedFileError,
    disk_errors,
    read_json_object,
    read_sealed_json,
    write_json,
    write_sealed_json,
)
from astarpo.runtime.parquet import write_parquet
from astarpo.types import Answer, UserError

logger = logging.getLogger("astarpo")


class RunLog:
    """Writes a run directory.

    Attributes:
        path: The directory.
        settings: The config as JSON has it.
        seconds: Seconds of training so far, without evaluations.
        tokens: Tokens generated in training so far.
    """

    def __init__(self, path: Path, config: TrainConfig, *, resume: bool) -> None:
        """Checks a run directory, new or to be resumed; nothing is written yet.

        Raises:
            UserError: There is a run already and `resume` is off, or there is none and it is on,
                or it has other settings.
        """
        self.path = path
        self.seconds = 0.0
        self.tokens = 0.0
        self.settings = json.loads(config.model_dump_json()) | {"resume": False}
        self._asked = config.model_dump(exclude_defaults=True).keys()
        self._record: dict[str, Any] = {"inputs": {}, "has_checkpoint": False, "changes": []}
        self._changed: dict[str, Any] = {}
        exists = (path / "config.json").exists()
        if resume and not exists:
            raise UserError(
                f"{path}: there is no run to go on with; leave --resume out to begin one here"
            )
        if exists and not resume:
            raise UserError(f"{path}: has a run already; go on with --resume or change --out")
        if resume:
            self._compare(self._settings_before())
        elif path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
            raise UserError(f"{path}: exists and is not a run directory; give another --out")

    @property
    def has_checkpoint(self) -> bool:
        """Whether a checkpoint was ever saved, even if it is gone."""
        return bool(self._record["has_checkpoint"])

    def require_inputs(self, inputs: Mapping[str, str]) -> None:
        """Checks that inputs hold what they held when the run began.

        Args:
            inputs: Digests by the inputs' names. A name on one side only is not compared.

        Raises:
            UserError: They do not; each is named.
        """
        before = self._record["inputs"]
        if others := [name for name in inputs if before.get(name, inputs[name]) != inputs[name]]:
            hint = "; of a value table that has grown take --values-samples as many as it had, or "
            hint += "run astarpo estimate again with the budget or target error that it had"
            hint *= any(name.startswith("V*") for name in others)
            raise UserError(
                f"{self.path}: cannot resume: not what the run began with: {', '.join(others)}; "
                f"give the same, or another --out without --resume{hint}"
            )
        self._record["inputs"] = before | inputs

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every step so far."""
        return read_rows(self.path / "metrics.jsonl").whole

    def evaluations(self) -> list[dict[str, Any]]:
        """The held-out evaluations so far."""
        return read_rows(self.path / "evaluations.jsonl").whole

    def first_missing_step(self) -> int:
        """The first step that has no metrics: one not yet made, or one whose line is damaged."""
        steps = {row["step"] for row in self.metrics()}
        return next(step for step in range(1, len(steps) + 2) if step not in steps)

    def require_steps(self, num_steps: int) -> None:
        """Refuses to resume a run for fewer steps than it has made, which would lose training."""
        done = max((row["step"] for row in self.metrics()), default=0)
        if done > num_steps:
            raise UserError(
                f"{self.path}: has come to step {done} already, beyond --steps {num_steps}; go on "
                f"with --steps {done} or more, or give another --out without --resume"
            )

    def begin(self, step: int) -> list[dict[str, Any]]:
        """Writes the config and forgets everything after a step; returns the metrics up to it."""
        here = environment(self.settings["device"])
        was = here | self._record.get(ENVIRONMENT, {})
        self._changed |= {n: [was[n], here[n]] for n in here if was[n] != here[n]}
        self._record[ENVIRONMENT] = here
        self._note_changes(step)
        write_json(self.path / "config.json", self.settings | {ENVIRONMENT: here})
        self._write_record()
        self._warn_of_damage(step)
        for name in ("metrics.jsonl", "evaluations.jsonl"):
            rows = read_rows(self.path / name).whole
            write_rows(self.path / name, [row for row in rows if row["step"] <= step])
        for file in (self.path / "samples").glob("step-*.parquet"):
            number = re.fullmatch(r"step-(\d+)", file.stem)
            if number and int(number[1]) > step:
                with disk_errors(file):
                    file.unlink()
        rows = self.metrics()
        self.seconds = sum(row["seconds"] for row in rows)
        self.tokens = sum(row["tokens"] for row in rows)
        return rows

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Appends one step's metrics; they are on disk when this returns."""
        append_row(self.path / "metrics.jsonl", row)
        self.seconds += row["seconds"]
        self.tokens += row["tokens"]

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Appends a held-out evaluation, with what training had cost by then."""
        costs = {"step": step, "seconds": self.seconds, "tokens": self.tokens}
        append_row(self.path / "evaluations.jsonl", {**costs, **scores})

    def log_samples(self, step: int, answers: Sequence[Answer]) -> None:
        """Writes what the policy wrote in one step, with each prompt's V* where it is known."""
        rows = [answer_row(a, step=step, v_star=a.prompt.value) for a in answers]
        table = pa.Table.from_pylist(rows, schema=answer_schema(rows[0]))
        write_parquet(self.path / "samples" / f"step-{step:06d}.parquet", table)

    def log_checkpoint(self) -> None:
        """Records that there is a checkpoint now, so that its loss would be noticed."""
        if not self.has_checkpoint:
            self._record["has_checkpoint"] = True
            self._write_record()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        write_json(self.path / "summary.json", dict(summary))

    def _settings_before(self) -> dict[str, Any]:
        """The settings of the run to be resumed, from whichever of its files is undamaged."""
        record_path = self.path / "record.json"
        try:
            self._record |= read_sealed_json(record_path)
        except UserError as error:
            logger.warning(
                f"{error}; that the inputs are those that the run began with cannot be checked"
            )
            self._record["has_checkpoint"] = bool(self.metrics())  # as far as is known
        settings = self._record.get("settings")
        try:
            config = read_json_object(self.path / "config.json")
        except DamagedFileError:
            config = None
        environment = (config or {}).pop(ENVIRONMENT, None)
        if config is None and settings is None:
            raise UserError(
                f"{self.path}: config.json and record.json are damaged; begin anew with another "
                "--out"
            )
        is_same = config == settings and environment in (None, self._record.get(ENVIRONMENT))
        if settings is not None and not is_same:
            logger.warning(
                f"{self.path / 'config.json'}: is not as the run wrote it; its settings are those "
                "of record.json, by which it is written anew"
            )
        return upgrade(settings or config or {}, str(self.path / "config.json"), "train")

    def _compare(self, before: dict[str, Any]) -> None:
        now = self.settings
        # A setting that is newer than the run takes its default, as if the run had had it.
        before = {name: now[name] for name in now.keys() - self._asked} | before
        differences = {
            name: [before.get(name), now.get(name)]
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        }
        rules = {
            name: TRAIN_SETTINGS[name].on_resume if name in TRAIN_SETTINGS else "fixed"
            for name in differences
        }
        # The paths of inputs may change: their contents are compared by `require_inputs`.
        if refused := [
            f"{name} was {differences[name][0]!r} and is {differences[name][1]!r}"
            for name, rule in rules.items()
            if rule == "fixed"
        ]:
            raise UserError(f"{self.path}: cannot resume: {'; '.join(refused)}")
        told = {"steering"} if now["schedule"] == "constant" else {"steering", "length"}
        self._changed = {name: differences[name] for name, rule in rules.items() if rule in told}

    def _note_changes(self, step: int) -> None:
        """Logs and records which settings take another value after a step."""
        for name, (before, now) in self._changed.items():
            effect = f", which changes every later learning rate ({self.settings['schedule']})"
            effect *= name in TRAIN_SETTINGS and TRAIN_SETTINGS[name].on_resume == "length"
            logger.warning(f"{name} was {before} and is {now} from step {step + 1} on{effect}")
        if self._changed:
            self._record["changes"].append({"after_step": step, **self._changed})

    def _warn_of_damage(self, step: int) -> None:
        steps = {row["step"] for row in self.metrics()}
        if lost := sorted(set(range(1, step + 1)) - steps):
            logger.warning(
                f"{self.path / 'metrics.jsonl'}: damaged: without the metrics of step "
                f"{', '.join(map(str, lost))}, which no checkpoint lies before; going on"
            )
        for number in read_rows(self.path / "evaluations.jsonl").damaged:
            logger.warning(f"{self.path / 'evaluations.jsonl'}: line {number} is damaged, left out")

    def _write_record(self) -> None:
        self._record["settings"] = self.settings
        write_sealed_json(self.path / "record.json", self._record)
