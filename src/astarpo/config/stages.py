"""Settings of the stages around training: problems, a first policy, the value table, scores."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from astarpo.config.base import (
    ComputeConfig,
    Config,
    FirstProblems,
    GradeTimeout,
    GradeWorkers,
    Model,
    OnStore,
    Overwrite,
    Problems,
    PromptConfig,
    RewardReference,
    SampleSeed,
    TrustReward,
    ValueConfig,
)
from astarpo.config.setting import Group, declare
from astarpo.types import UserError

_LIMITS = ("budget_samples", "budget_tokens", "target_error")
_FIRST_SAMPLES = 2  # The fewest that show how problems differ.
_PART = re.compile(r"[0-9]{1,6}/[1-9][0-9]{0,5}")
_OF_THE_WHOLE = {
    **dict.fromkeys(_LIMITS, "a round needs all samples of the rounds before it"),
    "rejudge": "samples are judged anew by one process",
    "profile": "profile/ in --out is of one process",
}
"""Settings that a part of a table cannot have, and why."""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class DataConfig(Config):
    """Write a task's problems as a Parquet file in verl's schema."""

    task: Annotated[str, declare(Group.FILES, positional=True)]
    """A task: arithmetic, multiply, countdown, gsm8k, math, the name of a benchmark,
    reasoning_gym:NAME, or own for the problems in your own --source."""
    out: Annotated[Path, declare(Group.FILES)]
    """Parquet file to write."""
    source: Annotated[str | None, declare(Group.FILES)] = None
    """Where published or own problems come from: a file (JSON lines, a JSON array, CSV or Parquet),
    or a data set's name on the Hugging Face hub."""
    reward: Annotated[RewardReference, declare(Group.GRADING)] = None
    """What judges the responses to these problems: a task's name, or a function of yours as
    FILE.py:NAME or MODULE:NAME; else the task itself."""
    prompt_column: Annotated[str | None, declare(Group.OWN)] = None
    """Column that holds the prompt, as text or as a list of messages; else the column prompt."""
    prompt_template: Annotated[str | None, declare(Group.OWN)] = None
    """The prompt, made of several columns: '{Body} {Question}'; instead of --prompt-column."""
    answer_column: Annotated[str | None, declare(Group.OWN)] = None
    """Column that holds the reference answer; else the column answer."""
    instruction: Annotated[str | None, declare(Group.OWN)] = None
    """Text to put after each question."""
    skip_unreadable: Annotated[bool, declare(Group.OWN)] = False
    """Leave out rows that cannot be read or judged, and say how many and why, instead of refusing
    the source."""
    split: Annotated[str, declare(Group.PROBLEMS)] = "train"
    """Which part of the problems: train or test."""
    test_share: Annotated[float | None, declare(Group.PROBLEMS, gt=0, lt=1)] = None
    """Share of the training problems, between 0 and 1, that is split off as test; a hash of the
    question decides. For sources without a test split, and to choose settings on."""
    without: Annotated[Path | None, declare(Group.PROBLEMS)] = None
    """Parquet file of held-out problems: problems that ask the same are left out."""
    limit: Annotated[int | None, declare(Group.PROBLEMS, ge=1)] = None
    """At most this many problems; else all, or 1000 of a task that makes its own."""
    size: Annotated[int | None, declare(Group.PROBLEMS, ge=1)] = None
    """Difficulty of made problems: how many digits, terms or numbers they have."""
    seed: Annotated[int, declare(Group.PROBLEMS, ge=0)] = 0
    """Decides which made problems come, and the order."""
    overwrite: Overwrite = False
    """Replace the file at --out if there is one."""


class WarmStartConfig(Config):
    """Train a small policy from scratch on the worked solutions of problems."""

    problems: Annotated[Path, declare(Group.FILES)]
    """Parquet file of problems that have worked solutions."""
    out: Annotated[Path, declare(Group.FILES)]
    """Folder for the policy (Hugging Face layout)."""
    hidden_size: Annotated[int, declare(Group.SHAPE, ge=8)] = 128
    """Width of the hidden states."""
    layers: Annotated[int, declare(Group.SHAPE, ge=1)] = 4
    """Layers of the model."""
    heads: Annotated[int, declare(Group.SHAPE, ge=1)] = 4
    """Attention heads of a layer."""
    steps: Annotated[int, declare(Group.SCHEDULE, ge=1)] = 1000
    """Updates of the weights."""
    batch_size: Annotated[int, declare(Group.BATCHES, ge=1)] = 64
    """Solutions in one update."""
    max_tokens: Annotated[int, declare(Group.BATCHES, ge=8)] = 512
    """Longest problem with its solution, in tokens; longer ones are left out and counted."""
    lr: Annotated[float, declare(Group.SCHEDULE, gt=0)] = 2e-3
    """Peak learning rate of AdamW."""
    seed: Annotated[int, declare(Group.SCHEDULE, ge=0)] = 0
    """Seed of the first weights and of the data order."""


class EstimateConfig(ValueConfig, PromptConfig, ComputeConfig):
    """Stage 1: sample the reference policy and write the value table."""

    model: Annotated[Model, declare(Group.FILES)]
    """Reference policy: a folder or a hub name."""
    problems: Problems
    """Parquet file of problems (made by astarpo data)."""
    out: Annotated[Path, OnStore(), declare(Group.FILES)]
    """Folder for the value table; what is there is continued."""
    samples: Annotated[int, declare(Group.VALUES, ge=1, sweep_values="1,2,4,8,16,32")] = 8
    """Number N of responses sampled for each problem; with a budget or a target error, those of the
    first round, 2 unless given."""
    budget_samples: Annotated[int | None, declare(Group.VALUES, ge=1)] = None
    """Sample this many responses in all, in rounds, each given to the problems whose V* it tells
    most of; needs --estimator shrunk."""
    budget_tokens: Annotated[int | None, declare(Group.VALUES, ge=1)] = None
    """As --budget-samples, with about this many generated tokens in all."""
    target_error: Annotated[float | None, declare(Group.VALUES, gt=0)] = None
    """As --budget-samples, until the root mean square error of V* is this, in units of reward."""
    temperature: Annotated[float, declare(Group.SAMPLING, gt=0)] = 1.0
    """Sampling temperature."""
    limit: FirstProblems = None
    """Use this many problems, the first of the file; else all."""
    shard_problems: Annotated[int, declare(Group.VALUES, ge=1)] = 256
    """Problems whose samples are written at a time, so that a kill loses no more."""
    allow_truncated: Annotated[bool, declare(Group.VALUES)] = False
    """Go on though over half of the responses are cut at --max-new-tokens."""
    rejudge: Annotated[bool, declare(Group.VALUES)] = False
    """Judge the responses in the table again, as after a change of the reward function."""
    part: Annotated[str | None, declare(Group.VALUES)] = None
    """Sample only this part of the table, as I/N: 3/8 is the third of eight. The parts may run at
    the same time, on any machines that see --out; the last to finish completes the table."""
    ray: Annotated[str | None, declare(Group.BATCHES)] = None
    """Sample on a Ray cluster: its HOST:PORT; auto for the one that RAY_ADDRESS names or that runs
    on this machine; local to start one on this machine, for as long as the call lasts."""
    ray_actors: Annotated[int | None, declare(Group.BATCHES, ge=1)] = None
    """Engines on the Ray cluster, each with a GPU; else as many as there are GPUs, or CPUs where
    there are none, also as machines come."""
    profile: Annotated[bool, declare(Group.LOGS)] = False
    """Measure where the time of two shards goes: profile/trace.json.gz and profile/table.txt in
    --out."""
    seed: SampleSeed = 0
    """Seed of the sampled responses."""

    @property
    def in_rounds(self) -> bool:
        """Whether samples are shared out in rounds, each by what those before it tell."""
        return any(getattr(self, name) is not None for name in _LIMITS)

    @property
    def share(self) -> tuple[int, int]:
        """Which part of the shards is to be sampled, from 0, and of how many parts."""
        number, _, parts = (self.part or "1/1").partition("/")
        return int(number) - 1, int(parts)

    @model_validator(mode="after")
    def _part_can_be(self) -> Self:
        if self.part is None:
            return self
        if not _PART.fullmatch(self.part):
            raise UserError(
                f"--part {self.part}: give it as I/N, such as 1/8 for the first of eight parts"
            )
        number, parts = self.share
        if not 0 <= number < parts:
            raise UserError(
                f"--part {self.part}: there is no such part; of {parts} give 1/{parts} to "
                f"{parts}/{parts}"
            )
        for name in _OF_THE_WHOLE:
            if getattr(self, name):
                raise UserError(
                    f"--part and {_flag(name)} do not go together, since {_OF_THE_WHOLE[name]}: "
                    "leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _ray_can_be(self) -> Self:
        if self.ray is None and self.ray_actors is not None:
            raise UserError("--ray-actors is of a Ray cluster: give --ray too, such as --ray auto")
        if self.ray is not None and self.profile:
            raise UserError("--ray and --profile do not go together: leave one of them out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _few_samples_first(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping) and any(settings.get(name) for name in _LIMITS):
            return {"samples": _FIRST_SAMPLES, **settings}
        return settings

    @model_validator(mode="after")
    def _rounds_can_be(self) -> Self:
        given = [_flag(name) for name in _LIMITS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)}: give one of them, which says where to end")
        if given and self.estimator != "shrunk":
            raise UserError(
                f"{given[0]} shares samples out by how surely V* is known, which estimator "
                f"{self.estimator} does not say of a problem: give --estimator shrunk too"
            )
        return self


class ImportValuesConfig(ValueConfig, PromptConfig):
    """Make a value table of published stage-1 samples (A-PO's layout), judged again."""

    source: Annotated[str, declare(Group.FILES)]
    """Parquet file or hub data set with the columns response_0, response_1 and so on."""
    model: Annotated[Model, declare(Group.FILES)]
    """The model that wrote the responses: a folder or a hub name."""
    out: Annotated[Path, OnStore(), declare(Group.FILES)]
    """Folder for the value table; what is there is continued."""
    split: Annotated[str, declare(Group.FILES)] = "train"
    """Split of a hub data set."""
    temperature: Annotated[float, declare(Group.SAMPLING, gt=0)] = 1.0
    """Temperature at which the responses were sampled."""
    limit: FirstProblems = None
    """Use this many problems, the first of the file; else all."""
    grade_workers: GradeWorkers = 2
    """Processes that judge responses."""
    grade_timeout: GradeTimeout = 5.0
    """Seconds of CPU time to judge one response; after them its verdict is timeout."""
    trust_reward: TrustReward = None
    """Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the problem file names as its
    judge: it runs only if you name it here."""


class ExportConfig(ValueConfig):
    """Write a value table's V* (and samples) as one Parquet file for another trainer."""

    table: Annotated[Path, OnStore(), declare(Group.FILES, positional=True)]
    """Value table (made by astarpo estimate)."""
    problems: Annotated[Path, OnStore(), declare(Group.FILES)]
    """Parquet file of the problems that the table was made from."""
    out: Annotated[Path, OnStore(), declare(Group.FILES)]
    """Parquet file to write."""
    format: Annotated[Literal["verl", "trl", "compose-rl", "apo"], declare(Group.FILES)] = "verl"
    """The trainer whose columns are written."""
    overwrite: Overwrite = False
    """Replace the file at --out if there is one."""


class EvaluateConfig(PromptConfig, ComputeConfig):
    """Score a policy on problems, greedily and with k samples, or on a suite of benchmarks."""

    model: Annotated[Model, declare(Group.FILES)]
    """Policy to score: a folder or a hub name."""
    problems: Annotated[Path | None, OnStore(), declare(Group.FILES)] = None
    """Parquet file of problems (made by astarpo data)."""
    suite: Annotated[Literal["paper"] | None, declare(Group.SUITE)] = None
    """Score on a suite of benchmarks instead of --problems, each by its own protocol."""
    benchmarks: Annotated[str | None, declare(Group.SUITE)] = None
    """Only these benchmarks of the suite, such as math500,aime24."""
    suite_sources: Annotated[Path | None, declare(Group.SUITE)] = None
    """Folder with the benchmarks' files, named after them (aime24.jsonl); else the hub's."""
    out: Annotated[Path, declare(Group.FILES)]
    """JSON file to write; the answers go beside it as Parquet."""
    samples: Annotated[int, declare(Group.SAMPLING, ge=0)] = 4
    """Number k of responses sampled for each problem, beside the greedy one; 0 samples none."""
    temperature: Annotated[float, declare(Group.SAMPLING, gt=0)] = 1.0
    """Temperature of the k samples."""
    top_p: Annotated[float, declare(Group.SAMPLING, gt=0, le=1)] = 1.0
    """The k samples are drawn from the likeliest tokens of this total probability."""
    reference: Annotated[Model | None, declare(Group.FILES)] = None
    """Policy to measure the KL divergence to: a folder or a hub name."""
    overwrite: Overwrite = False
    """Replace the file at --out if there is one."""
    limit: FirstProblems = None
    """Use this many problems, the first of the file; else all."""
    seed: SampleSeed = 0
    """Seed of the sampled responses."""
