"""Settings of training: the losses, and the loop around them."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from astarpo.config.base import ComputeConfig, Config


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
