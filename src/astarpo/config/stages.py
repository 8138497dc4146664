"""Settings of the stages around training: problems, a first policy, the value table, scores."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from astarpo.config.base import OWN_REWARD, ComputeConfig, Config, PromptConfig, RewardReference


class DataConfig(Config):
    """Write a task's problems as a Parquet file in verl's schema."""

    task: str = Field(
        description="arithmetic, multiply, countdown, gsm8k, math, a benchmark, "
        "reasoning_gym:NAME, or own for your own --source"
    )
    out: Path = Field(description="Parquet file to write")
    source: str | None = Field(
        None, description="local JSONL, CSV or Parquet file, or a hub data set's name"
    )
    reward: RewardReference = Field(
        None, description="what judges answers: a task's name, or your FILE.py:NAME or MODULE:NAME"
    )
    prompt_column: str | None = Field(
        None, description="of own rows: text or list of messages, if not in the column prompt"
    )
    answer_column: str | None = Field(
        None, description="of own rows: the reference answer, if not in the column answer"
    )
    instruction: str | None = Field(None, description="put after the question of own rows")
    split: str = Field("train", description="train or test")
    test_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of a source without a split of its own for tests: this share of it, chosen by "
        "what is asked, is test and the rest train",
    )
    without: Path | None = Field(
        None, description="problem file (of held-out ones): what it asks is left out"
    )
    limit: int | None = Field(
        None, ge=1, description="at most this many problems (made ones: 1000)"
    )
    size: int | None = Field(
        None, ge=1, description="difficulty of made problems: digits, terms or numbers given"
    )
    seed: int = Field(0, ge=0, description="which made problems come, and in what order")
    overwrite: bool = Field(False, description="replace what is at --out already")


class WarmStartConfig(Config):
    """Train a small policy from scratch on the worked solutions of problems."""

    problems: Path = Field(description="Parquet file of problems with worked solutions")
    out: Path = Field(description="folder for the policy (Hugging Face layout)")
    hidden_size: int = Field(128, ge=8, description="width of the model")
    layers: int = Field(4, ge=1, description="depth of the model")
    heads: int = Field(4, ge=1, description="attention heads")
    steps: int = Field(1000, ge=1, description="updates")
    batch_size: int = Field(64, ge=1, description="solutions an update")
    max_tokens: int = Field(512, ge=8, description="longer solutions are left out and counted")
    lr: float = Field(2e-3, gt=0, description="peak learning rate of AdamW")
    seed: int = Field(0, ge=0, description="of the initial weights and the data order")


class EstimateConfig(PromptConfig, ComputeConfig):
    """Stage 1: sample the reference policy and write the value table."""

    model: str = Field(description="reference policy: a folder or a hub name")
    problems: Path = Field(description="Parquet file of problems (astarpo data)")
    out: Path = Field(description="value table: a folder, resumed where it stands")
    samples: int = Field(8, ge=1, description="N, samples of each problem")
    beta1: float = Field(
        0.5, ge=0, allow_inf_nan=True, description="of values.parquet; inf is the mean, 0 the max"
    )
    temperature: float = Field(1.0, gt=0, description="sampling temperature")
    limit: int | None = Field(None, ge=1, description="only the first problems of the file")
    shard_problems: int = Field(256, ge=1, description="problems in one shard, lost at most")
    allow_truncated: bool = Field(
        False, description="go on though more than half of the samples are truncated"
    )
    rejudge: bool = Field(
        False,
        description="judge the table's samples anew, as after a change of the reward function",
    )
    profile: bool = Field(
        False, description="trace two shards into --out: profile/trace.json.gz and table.txt"
    )
    seed: int = Field(0, ge=0, description="of the samples")


class ImportValuesConfig(PromptConfig):
    """Make a value table of published stage-1 samples (A-PO's layout), judged anew."""

    source: str = Field(description="Parquet file or hub data set with response_0, response_1, ...")
    model: str = Field(description="the model that wrote them: a folder or a hub name")
    out: Path = Field(description="value table: a folder, resumed where it stands")
    split: str = Field("train", description="of a hub data set")
    beta1: float = Field(
        0.5, ge=0, allow_inf_nan=True, description="of values.parquet; inf is the mean, 0 the max"
    )
    temperature: float = Field(1.0, gt=0, description="that they were sampled at")
    limit: int | None = Field(None, ge=1, description="only the first problems")
    grade_workers: int = Field(2, ge=1, description="processes that judge answers")
    grade_timeout: float = Field(5.0, gt=0, description="CPU seconds to judge one answer")
    reward: RewardReference = Field(None, description=OWN_REWARD)


class ExportConfig(Config):
    """Write a value table's V* (and samples) as one Parquet file for another trainer."""

    table: Path = Field(description="value table (astarpo estimate)")
    problems: Path = Field(description="Parquet file of the problems it was made from")
    out: Path = Field(description="Parquet file to write")
    format: Literal["verl", "trl", "compose-rl", "apo"] = Field("verl", description="layout")
    beta1: float = Field(
        0.5, ge=0, allow_inf_nan=True, description="temperature of V*; inf is the mean, 0 the max"
    )
    overwrite: bool = Field(False, description="replace what is at --out already")


class EvaluateConfig(PromptConfig, ComputeConfig):
    """Score a policy on problems, greedily and with k samples, or on a suite of benchmarks."""

    model: str = Field(description="policy: a folder or a hub name")
    problems: Path | None = Field(None, description="Parquet file of problems (astarpo data)")
    suite: Literal["paper"] | None = Field(
        None, description="benchmarks instead of --problems, each by the suite's own protocol"
    )
    benchmarks: str | None = Field(None, description="only these of the suite: math500,aime24")
    suite_sources: Path | None = Field(
        None, description="folder with the suite's files, named after tasks (aime24.jsonl)"
    )
    out: Path = Field(description="JSON file to write; answers go beside it as Parquet")
    samples: int = Field(4, ge=0, description="k, samples of each problem; 0 is greedy only")
    temperature: float = Field(1.0, gt=0, description="of the k samples")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the k samples")
    reference: str | None = Field(None, description="policy to measure the KL to")
    overwrite: bool = Field(False, description="replace what is at --out already")
    limit: int | None = Field(None, ge=1, description="only the first problems of the file")
    seed: int = Field(0, ge=0, description="of the samples")
