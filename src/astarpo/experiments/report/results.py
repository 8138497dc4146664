"""An experiment's `results.json` as records: what is missing or null takes its default."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from astarpo.reports.collect import clean
from astarpo.reports.curves import points
from astarpo.types import UserError


def _fill_gaps(values: Any) -> Any:
    return [math.nan if v is None else v for v in values] if isinstance(values, list) else values


Column = Annotated[list[float], BeforeValidator(_fill_gaps)]
"""A column of numbers, nan where the file has null."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if item is not None}
        return value


class Score(_Record):
    """A score with its 95% interval over problems."""

    value: float
    low: float | None = None
    high: float | None = None


class ToTarget(_Record):
    """What a run had spent when its held-out reward reached the target."""

    steps: float
    seconds: float
    tokens: float


class Seconds(_Record):
    """Of each phase."""

    estimate: float = 0.0
    generate: float = 0.0
    verify: float = 0.0
    reference: float = 0.0
    update: float = 0.0

    @property
    def total(self) -> float:
        """Of all phases, stage 1 included."""
        return sum(dict(self).values())


class Tokens(_Record):
    """Generated in stage 1 and in training."""

    estimate: float = 0.0
    train: float = 0.0

    @property
    def total(self) -> float:
        """Of both stages."""
        return self.estimate + self.train


class Curves(_Record):
    """Columns over a run: held-out evaluations, or training steps."""

    step: Column = []
    seconds: Column = []
    tokens: Column = []
    reward: Column = []
    kl: Column = []
    loss: Column = []

    def against(self, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
        """Two columns as far as both go, without points where either is missing."""
        return points(dict(self), x, y)


class Run(_Record):
    """One run of an experiment: a variant under a seed."""

    variant: str
    algorithm: str = ""
    value: Any = None
    seed: int = 0
    settings: dict[str, Any] = {}
    state: str = ""
    reason: str = ""
    steps: int = 0
    samples_per_prompt: int | None = None
    seconds: Seconds = Seconds()
    tokens: Tokens = Tokens()
    peak_memory_gib: float | None = None
    kl: float | None = None
    reference: dict[str, dict[str, Score]] = {}
    scores: dict[str, dict[str, Score]] = {}
    curve: Curves = Curves()
    training: Curves = Curves()
    to_target: ToTarget | None = None

    @property
    def collapsed(self) -> bool:
        """Whether it was ended for its health."""
        return self.state == "collapsed"

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.variant}, seed {self.seed}"

    def score(self, split: str, name: str) -> float | None:
        """A score's value, None where the run has none.

        As in `table.md`, a collapsed run counts with its last held-out reward in avg@k of `test`.
        """
        if self.collapsed and split == "test" and name.startswith("avg_at_"):
            return self.last_reward
        return _value(self.scores, split, name)

    @property
    def last_reward(self) -> float | None:
        """The last held-out reward of training."""
        rewards = self.curve.against("step", "reward")[1]
        return float(rewards[-1]) if len(rewards) else None

    def reference_score(self, split: str, name: str) -> float | None:
        """What the reference policy scores on the problems of this run."""
        return _value(self.reference, split, name)


class ErrorOfValues(_Record):
    """Error of V^* from n samples against many, over problems."""

    beta1: Any = None
    n: Column = []
    bias: Column = []
    sd: Column = []
    num_problems: int | None = None
    num_samples: int | None = None


class Experiment(_Record):
    """All that `results.json` says."""

    kind: Literal["compare", "sweep"]
    setting: str = ""
    equal: str = ""
    target: float | None = None
    seeds: list[int] = []
    reference: dict[str, dict[str, Score]] = {}
    rows: list[Run] = []
    value_error: ErrorOfValues | None = None
    package_version: str = ""

    @property
    def variants(self) -> dict[str, list[Run]]:
        """Runs by variant, in the file's order."""
        return _group(self.rows, "variant")

    @property
    def algorithms(self) -> dict[str, list[Run]]:
        """Runs by algorithm, in the file's order."""
        return _group(self.rows, "algorithm")

    @property
    def splits(self) -> list[str]:
        """Problem sets with scores: the test set first."""
        scores = [self.reference, *(run.scores for run in self.rows)]
        names = dict.fromkeys(name for found in scores for name in found)
        return sorted(names, key=lambda name: name != "test")

    def score_names(self, split: str) -> list[str]:
        """Names of the scores of a split, in the file's order."""
        scores = [*(run.scores for run in self.rows), self.reference]
        return list(dict.fromkeys(name for found in scores for name in found.get(split, {})))


def read_results(out: Path) -> Experiment:
    """Reads an experiment's results.

    Raises:
        UserError: They are missing, not readable or no experiment's.
    """
    path = out / "results.json"
    try:
        document = clean(json.loads(path.read_text(encoding="utf-8")))
        return Experiment.model_validate(document)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: not an experiment's results ({place}: {first['msg']})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _value(scores: Mapping[str, Mapping[str, Score]], split: str, name: str) -> float | None:
    found = scores.get(split, {}).get(name)
    return found.value if found else None


def _group(runs: Sequence[Run], by: str) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(getattr(run, by), []).append(run)
    return groups
