"""Settings of every verb: frozen, bounded, nothing unknown accepted. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from astarpo.types import UserError


class Config(BaseModel):
    """Base of all settings: frozen, unknown names refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings"
    )


def function_reference(reward: Any) -> Any:
    """Names a Python function as `MODULE:NAME`, so that other processes can import it.

    Raises:
        UserError: It cannot be imported: a lambda, a function inside another, or one of the script
            or notebook that runs.
    """
    if not callable(reward):
        return reward
    module, name = getattr(reward, "__module__", None), getattr(reward, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise UserError(
            f"{reward!r} cannot be imported by the processes that judge answers: define it at the "
            "top level of a file of its own, or give 'FILE.py:NAME'"
        )
    return f"{module}:{name}"


RewardReference = Annotated[str | None, BeforeValidator(function_reference)]
"""What judges answers, by name: a task, or a function, which may be given as such in Python."""

OWN_REWARD = "your FILE.py:NAME or MODULE:NAME, where the problem file names it as its judge"


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
    limit: int | None = Field(
        None, ge=1, description="at most this many problems (made ones: 1000)"
    )
    size: int | None = Field(
        None, ge=1, description="difficulty of made problems: digits, terms or numbers given"
    )
    seed: int = Field(0, ge=0, description="which made problems come, and in what order")


class PromptConfig(Config):
    """How a problem becomes a prompt, shared by every stage."""

    prompt_format: Literal["raw", "chat"] = Field(
        "raw", description="raw text, or the tokenizer's chat template"
    )
    max_prompt_tokens: int = Field(
        256, ge=1, description="longer prompts are set aside and counted, never cut"
    )
    max_new_tokens: int = Field(1024, ge=1, description="limit of a response")


class ComputeConfig(Config):
    """Where and how fast things run; results do not depend on it beyond rounding."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA if present")
    engine: Literal["hf", "generate"] = Field(
        "hf", description="what samples; generate is transformers' own: slower, for any model"
    )
    max_sequences: int = Field(256, ge=1, description="completions decoded at once")
    grade_workers: int = Field(2, ge=1, description="processes that judge answers")
    grade_timeout: float = Field(5.0, gt=0, description="seconds to judge one answer")
    reward: RewardReference = Field(None, description=OWN_REWARD)


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
    profile: bool = Field(
        False, description="trace two shards into --out: profile/trace.json.gz and table.txt"
    )
    seed: int = Field(0, ge=0, description="of the samples")


class AlgorithmConfig(Config):
    """What the losses can be told; each setting names the algorithms that read it."""

    beta1: float = Field(
        0.5,
        ge=0,
        allow_inf_nan=True,
        description="astar_po: temperature of V*; inf is the mean, 0 the max",
    )
    beta2: float = Field(1e-3, gt=0, description="astar_po: weight of ln(pi/pi_ref)")
    policy_scale: bool = Field(
        False, description="astar_po: divide the loss by 2 beta2, to a policy gradient's size"
    )
    center: bool = Field(False, description="astar_po: take the rollout's mean residual out")
    residual_clip: float | None = Field(
        None, gt=0, description="astar_po: residuals beyond this (in reward) weigh no more"
    )
    group_size: int = Field(8, ge=2, description="grpo, rloo: samples of each prompt in a step")
    kl_coef: float = Field(
        1e-3,
        ge=0,
        description="weight of the KL: grpo in its loss, ppo, rebel, rloo in the reward",
    )
    clip: float = Field(0.2, gt=0, description="grpo, ppo: how far a token's ratio may leave 1")
    std_normalize: bool = Field(
        True, description="grpo: divide advantages by the group's deviation (Dr. GRPO does not)"
    )
    length_normalize: bool = Field(
        True, description="grpo: mean over a response's tokens (Dr. GRPO does not)"
    )
    eta: float = Field(1.0, gt=0, description="rebel: nats of log-ratio to a unit of reward")
    gae_gamma: float = Field(1.0, gt=0, le=1, description="ppo: discount of a token")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="ppo: 1 trusts rewards, 0 the critic")
    value_clip: float = Field(0.5, gt=0, description="ppo: how far the critic moves in a step")
    critic_lr: float = Field(1e-5, gt=0, description="ppo: peak learning rate of the critic")
    critic_warmup_steps: int = Field(
        0, ge=0, description="ppo: first steps, in which the critic alone is trained"
    )


class TrainConfig(ComputeConfig, AlgorithmConfig):
    """Train on-policy: stage 2 of A*-PO from the value table, or one of its rivals."""

    model: str = Field(description="policy to train, and its reference: a folder or a hub name")
    problems: Path = Field(description="Parquet file of problems (astarpo data)")
    values: Path | None = Field(
        None, description="value table (astarpo estimate) of the same model: for astar_po, --filter"
    )
    out: Path = Field(description="run directory")
    resume: bool = Field(False, description="go on from the last checkpoint in --out")
    limit: int | None = Field(None, ge=1, description="only the first problems of the file")
    algorithm: Literal["astar_po", "grpo", "ppo", "rebel", "rloo"] = Field(
        "astar_po", description="the loss"
    )
    values_samples: int | None = Field(
        None, ge=1, description="use the first n samples of the table only"
    )
    filter: Literal["none", "all_wrong", "all_wrong_and_right"] = Field(
        "none", description="problems to drop by their stage-1 samples"
    )

    prompt_format: Literal["raw", "chat"] | None = Field(
        None, description="as the value table's; without one, raw"
    )
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="as the value table's; without one, 256"
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="as the value table's; without one, 1024"
    )
    temperature: float | None = Field(
        None, gt=0, description="as the value table's; without one, 1"
    )

    steps: int | None = Field(None, ge=1, description="rollouts; instead of --epochs")
    epochs: float = Field(25, gt=0, description="passes over the problems")
    max_seconds: float | None = Field(
        None, gt=0, description="end after the step that reaches this training time"
    )
    prompts_per_step: int = Field(256, ge=1, description="prompts of one rollout")
    minibatches: int = Field(2, ge=1, description="updates from one rollout")
    micro_batch_tokens: int = Field(
        8192, ge=1, description="tokens in one forward pass, padding included"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, more time")
    reference_offload: bool = Field(
        False, description="keep the reference in the host's memory, not the GPU's, until it scores"
    )
    lora_rank: int | None = Field(
        None, ge=1, description="train a LoRA adapter of this rank instead of all weights"
    )
    lora_alpha: int | None = Field(
        None, ge=1, description="weight of the adapter, times its rank; without it 2 x rank"
    )

    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit: bitsandbytes', 2 bytes of moments a parameter, not 8"
    )
    lr: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the learning rate after warm-up; linear and cosine end at 0"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    grad_clip: float = Field(1.0, gt=0, description="largest gradient norm")

    eval_problems: Path | None = Field(
        None, description="held-out problems to answer while training, outside its time"
    )
    eval_every: int = Field(10, ge=1, description="steps between such evaluations")
    eval_samples: int = Field(1, ge=1, description="sampled answers of each held-out problem")
    checkpoint_every: int = Field(50, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="how many of the latest to keep")
    log_to: Literal["none", "tensorboard", "wandb", "trackio"] = Field(
        "none", description="show metrics and samples in a tracker as well"
    )
    profile: bool = Field(
        False, description="trace two steps into --out: profile/trace.json.gz and table.txt"
    )
    seed: int = Field(0, ge=0, description="of data order and samples")


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
    limit: int | None = Field(None, ge=1, description="only the first problems of the file")
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
    grade_timeout: float = Field(5.0, gt=0, description="seconds to judge one answer")
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


class RunConfig(Config):
    """All stages of a recipe: data, estimate, train, evaluate before and after."""

    recipe: str = Field(description="a TOML file, or the name of a shipped recipe")
    out: Path = Field(description="folder for everything; run again to go on where it stopped")
    model: str | None = Field(None, description="instead of the recipe's")
    source: str | None = Field(None, description="training problems, instead of the recipe's")
    test_source: str | None = Field(None, description="test problems, instead of the recipe's")
    seed: int = Field(0, ge=0, description="of data, samples and order")


class ExperimentConfig(Config):
    """What comparisons and sweeps share."""

    recipe: str = Field("compare", description="a TOML file, or the name of a shipped recipe")
    model: str | None = Field(
        None, description="instead of the recipe's; without either, the demo's policy"
    )
    seeds: str = Field("0,1,2", description="of stage 1, data order and samples: one run for each")
    steps: int | None = Field(None, ge=1, description="of every run, instead of the recipe's")
    target: float | None = Field(
        None,
        description="held-out reward that time and tokens are measured to; without it the largest "
        "multiple of 0.05 that every run reaches which did not collapse",
    )


class CompareConfig(ExperimentConfig):
    """Algorithms against each other over seeds, on equal terms; goes on where it stopped."""

    out: Path = Field(Path("runs/compare"), description="folder for everything")
    algorithms: str = Field(
        "astar_po,grpo,ppo,rebel,rloo",
        description="which, in the order of the table: names, or variants of the recipe",
    )
    equal: Literal["prompts", "samples", "seconds"] = Field(
        "prompts",
        description="what all have the same of: prompts a step, samples a step, or seconds in all, "
        "stage 1 included",
    )
    seconds: float | None = Field(
        None, gt=0, description="of each run with --equal seconds, stage 1 included"
    )


class SweepConfig(ExperimentConfig):
    """One setting over its values and seeds; goes on where it stopped."""

    setting: str = Field(
        description="samples (N, all from one value table), beta1, beta2, filter, any other "
        "setting of train, or size (difficulty of made problems)"
    )
    over: str | None = Field(
        None, description="its values, 1,2,4 say; samples, beta1, beta2 and filter have their own"
    )
    out: Path | None = Field(None, description="folder for everything; else runs/sweep-SETTING")
    algorithms: str = Field("astar_po", description="which: one or several, or recipe's variants")
    equal: Literal["prompts", "samples"] = Field(
        "prompts", description="what several have the same of in a step"
    )


class DemoConfig(Config):
    """Both stages on a small model of its own, in minutes on a laptop."""

    out: Path = Field(Path("runs/demo"), description="folder for everything")
    seed: int = Field(0, ge=0, description="of the model, the data and the samples")


class ReportConfig(Config):
    """Show runs as one page that works offline: scores, curves, stage 1, sampled answers."""

    runs: list[Path] = Field(
        min_length=1,
        description="run directories of astarpo train, folders of astarpo run; or one folder of "
        "astarpo compare or sweep",
    )
    out: Path | None = Field(
        None, description="HTML file to write; without it report.html in the first run"
    )
    max_answers: int = Field(
        50_000, ge=0, description="answers in the page; beyond it whole problems are left out"
    )
    markdown: bool = Field(False, description="write report.md and PNG pictures beside it too")


class RunsConfig(Config):
    """List the runs below a folder: state, step, reward, time."""

    dir: Path = Field(Path("runs"), description="directory to look through")
