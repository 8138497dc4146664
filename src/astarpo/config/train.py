"""Settings of training: the losses, and the loop around them."""

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from astarpo.config.base import ComputeConfig, Config
from astarpo.types import UserError

AlgorithmName = Literal["astar_po", "grpo", "ppo", "rebel", "rloo"]


def _read_by(*algorithms: AlgorithmName, default: Any, says: str, **bounds: Any) -> Any:
    """A setting of some algorithms; given to another one it is refused."""
    return Field(
        default,
        description=f"{', '.join(algorithms)}: {says}",
        json_schema_extra={"algorithms": list(algorithms)},
        **bounds,
    )


class AlgorithmConfig(Config):
    """What the losses can be told; each setting names the algorithms that read it."""

    beta1: float = _read_by(
        "astar_po",
        default=0.5,
        says="temperature of V*; inf is the mean, 0 the max",
        ge=0,
        allow_inf_nan=True,
    )
    beta2: float = _read_by("astar_po", default=1e-3, says="weight of ln(pi/pi_ref)", gt=0)
    policy_scale: bool = _read_by(
        "astar_po",
        default=False,
        says="divide the loss by 2 beta2, to a policy gradient's size",
    )
    center: bool = _read_by("astar_po", default=False, says="take the rollout's mean residual out")
    residual_clip: float | None = _read_by(
        "astar_po", default=None, says="residuals beyond this (in reward) weigh no more", gt=0
    )
    group_size: int = _read_by(
        "grpo", "rloo", default=8, says="samples of each prompt in a step", ge=2
    )
    kl_coef: float = _read_by(
        *("grpo", "ppo", "rebel", "rloo"),
        default=1e-3,
        says="weight of the KL; grpo has it in its loss, the others in the reward",
        ge=0,
    )
    clip: float = _read_by(
        "grpo", "ppo", default=0.2, says="how far a token's ratio may leave 1", gt=0
    )
    std_normalize: bool = _read_by(
        "grpo", default=True, says="divide advantages by the group's deviation (Dr. GRPO does not)"
    )
    length_normalize: bool = _read_by(
        "grpo", default=True, says="mean over a response's tokens (Dr. GRPO does not)"
    )
    eta: float = _read_by("rebel", default=1.0, says="nats of log-ratio to a unit of reward", gt=0)
    gae_gamma: float = _read_by("ppo", default=1.0, says="discount of a token", gt=0, le=1)
    gae_lambda: float = _read_by(
        "ppo", default=1.0, says="1 trusts rewards, 0 the critic", ge=0, le=1
    )
    value_clip: float = _read_by(
        "ppo", default=0.5, says="how far the critic moves in a step", gt=0
    )
    critic_lr: float = _read_by("ppo", default=1e-5, says="peak learning rate of the critic", gt=0)
    critic_warmup_steps: int = _read_by(
        "ppo", default=0, says="first steps, in which the critic alone is trained", ge=0
    )


def readers(setting: str) -> tuple[str, ...]:
    """The algorithms that read a setting of training; all where it is none of the losses'."""
    field = AlgorithmConfig.model_fields.get(setting)
    if field is None:
        return get_args(AlgorithmName)
    extra: Any = field.json_schema_extra  # Declared with `_read_by`.
    return tuple(extra["algorithms"])


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
    algorithm: AlgorithmName = Field("astar_po", description="the loss")
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
    health: Literal["stop", "warn", "off"] = Field(
        "stop",
        description="what a collapse of the reward does: ends the run, is only said, nothing",
    )
    checkpoint_every: int = Field(50, ge=1, description="steps between checkpoints")
    checkpoint_minutes: float = Field(
        5.0, gt=0, description="minutes between checkpoints at most, unless saving takes too long"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the latest to keep")
    log_to: Literal["none", "tensorboard", "wandb", "trackio"] = Field(
        "none", description="show metrics and samples in a tracker as well"
    )
    profile: bool = Field(
        False, description="trace two steps into --out: profile/trace.json.gz and table.txt"
    )
    seed: int = Field(0, ge=0, description="of data order and samples")

    @model_validator(mode="after")
    def _without_contradictions(self) -> Self:
        """Refuses what would be ignored. The resolved config of a run, in full, passes."""
        changed = self.model_dump(exclude_defaults=True).keys() & self.model_fields_set
        for name in sorted(changed):
            if self.algorithm not in readers(name):
                raise UserError(
                    f"{name}: {self.algorithm} does not read it, but {', '.join(readers(name))}; "
                    "leave it out, or in a file put it into that algorithm's table "
                    f"([{readers(name)[0]}])"
                )
        if self.steps is not None and "epochs" in changed:
            raise UserError("steps and epochs both say how long to train: give one of them")
        return self
