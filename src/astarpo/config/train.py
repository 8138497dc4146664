"""Settings of training: the losses, and the loop around them."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator
from pydantic.fields import FieldInfo

from astarpo.config.base import (
    ComputeConfig,
    EstimatorName,
    FirstProblems,
    Model,
    OnStore,
    Problems,
    ValueConfig,
)
from astarpo.config.setting import (
    ALGORITHM_NAMES,
    AlgorithmName,
    Group,
    Setting,
    declare,
    setting_of,
)
from astarpo.runtime.plugins import plugin_names
from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError

_as_in_table = partial(declare, Group.SAMPLING, in_experiment="shared")


def _read_by(*algorithms: AlgorithmName, **more: Any) -> FieldInfo:
    return declare(Group.ALGORITHM, readers=algorithms, **more)


class AlgorithmConfig(ValueConfig):
    """Settings of the losses; each names the algorithms that read it."""

    beta1: Annotated[
        float,
        _read_by("astar_po", sweep_values="inf,2,1,0.5,0.25,0.125", ge=0, allow_inf_nan=True),
    ] = 0.5
    """Temperature of V*, in units of reward: inf makes V* the mean reward of a problem's samples, 0
    the largest."""
    estimator: Annotated[EstimatorName, _read_by("astar_po", sweep_values="plugin,shrunk")] = (
        "plugin"
    )
    """How V* is estimated: plugin is the paper's, from a problem's own samples; shrunk draws each
    problem towards the others, as far as its samples leave open, and does with fewer of them. zero
    and constant, one value for all problems, are controls: they show what an estimate is worth."""
    beta2: Annotated[float, _read_by("astar_po", sweep_values="1e-4,3e-4,1e-3,3e-3,1e-2", gt=0)] = (
        1e-3
    )
    """Weight of ln(pi / pi_ref) of a response, in units of reward a nat: the larger, the nearer the
    policy stays to the reference."""
    baseline_from: Annotated[
        Literal["v_star", "rollout"], _read_by("astar_po", sweep_values="v_star,rollout")
    ] = "v_star"
    """What is taken from a reward: the prompt's V*; or the mean reward of the step's other answers,
    where those that the policy was less sure of count for more, which needs no value table."""
    first_rollouts: Annotated[Literal["policy", "stage1"], _read_by("astar_po")] = "policy"
    """What the first steps learn from: new answers of the policy, or the value table's samples, for
    as long as the policy is near the reference that drew them."""
    stage1_drift: Annotated[float, _read_by("astar_po", gt=0)] = 0.5
    """How far from the reference, in nats of a response, the policy may be when it learns from the
    value table's samples."""
    group_size: Annotated[int, _read_by("grpo", "rloo", ge=2)] = 8
    """Responses sampled for each prompt in a step."""
    kl_coef: Annotated[float, _read_by("grpo", "ppo", "rebel", "rloo", ge=0)] = 1e-3
    """Weight of the KL divergence to the reference, in units of reward a nat; grpo adds it to the
    loss, the others take it off the reward."""
    clip: Annotated[float, _read_by("grpo", "ppo", "spo", gt=0)] = 0.2
    """How far from 1 a token's ratio of new to old probability is still rewarded for going."""
    clip_high: Annotated[float, _read_by("spo", gt=0)] = 0.28
    """How far above 1 that ratio is still rewarded for going; --clip is here how far below."""
    std_normalize: Annotated[bool, _read_by("grpo")] = True
    """Divide advantages by the standard deviation of the group's rewards; off in Dr. GRPO."""
    length_normalize: Annotated[bool, _read_by("grpo")] = True
    """Divide a response's loss by its own length in tokens; off, as in Dr. GRPO, by
    --max-new-tokens."""
    eta: Annotated[float, _read_by("rebel", gt=0)] = 1.0
    """Nats of log-ratio that a difference in reward of 1 is to make."""
    gae_gamma: Annotated[float, _read_by("ppo", gt=0, le=1)] = 1.0
    """Discount from one token to the next; 1 is none."""
    gae_lambda: Annotated[float, _read_by("ppo", ge=0, le=1)] = 1.0
    """Lambda of generalised advantage estimation: 1 goes by the rewards alone, 0 by the critic."""
    value_clip: Annotated[float, _read_by("ppo", gt=0)] = 0.5
    """How far the critic's value of a token may move in a step, in units of reward."""
    critic_lr: Annotated[float, _read_by("ppo", on_resume="steering", gt=0)] = 1e-5
    """Peak learning rate of the critic."""
    critic_warmup_steps: Annotated[int, _read_by("ppo", ge=0)] = 0
    """First steps, in which the critic alone is trained."""


class TrainConfig(ComputeConfig, AlgorithmConfig):
    """Stage 2: train the policy, by A*-PO from the value table or by another algorithm."""

    model: Annotated[Model, declare(Group.FILES, on_resume="free", in_experiment="shared")]
    """Policy to train, and its reference: a folder or a hub name."""
    problems: Problems
    """Parquet file of problems (made by astarpo data)."""
    values: Annotated[
        Path | None, OnStore(), declare(Group.FILES, on_resume="free", in_experiment="run")
    ] = None
    """Value table of the same model (made by astarpo estimate); astar_po, spo and --filter need
    one."""
    out: Annotated[Path, declare(Group.FILES, on_resume="free", in_experiment="run")]
    """Folder for the run: metrics, samples, checkpoints and the trained model."""
    resume: Annotated[bool, declare(Group.FILES, on_resume="free", in_experiment="run")] = False
    """Go on with the run in --out, from its last checkpoint."""
    limit: FirstProblems = None
    """Use this many problems, the first of the file; else all."""
    algorithm: Annotated[AlgorithmName | str, declare(Group.ALGORITHM, in_experiment="variant")] = (
        "astar_po"
    )
    """The loss to train by; installed packages may add others."""
    values_samples: Annotated[
        int | None, declare(Group.VALUES, on_resume="free", in_experiment="shared", ge=1)
    ] = None
    """Use the first so many samples of each problem in the value table; else all."""
    filter: Annotated[
        Literal["none", "all_wrong", "all_wrong_and_right"],
        declare(Group.VALUES, sweep_values="none,all_wrong,all_wrong_and_right"),
    ] = "none"
    """Leave out problems whose samples in the value table are all wrong, or all right too."""

    prompt_format: Annotated[Literal["raw", "chat"] | None, _as_in_table()] = None
    """What is put to the model: plain text, or its tokenizer's chat template; else as in the value
    table, or raw."""
    max_prompt_tokens: Annotated[int | None, _as_in_table(ge=1)] = None
    """Longest prompt, in tokens; problems with longer ones are left out and counted; else as in the
    value table, or 256."""
    max_new_tokens: Annotated[int | None, _as_in_table(ge=1)] = None
    """Longest response, in tokens; it is cut there; else as in the value table, or 1024."""
    temperature: Annotated[float | None, _as_in_table(gt=0)] = None
    """Sampling temperature; else as in the value table, or 1."""
    seed: Annotated[int, declare(Group.SAMPLING, in_experiment="run", ge=0)] = 0
    """Seed of the data order and of the sampled responses."""

    steps: Annotated[int | None, declare(Group.SCHEDULE, on_resume="length", ge=1)] = None
    """Steps of training, each on --prompts-per-step prompts; instead of --epochs."""
    epochs: Annotated[float, declare(Group.SCHEDULE, on_resume="length", gt=0)] = 25
    """Passes over the problems."""
    max_seconds: Annotated[float | None, declare(Group.SCHEDULE, on_resume="free", gt=0)] = None
    """End after the step in which training has taken so many seconds; else no limit."""
    lr: Annotated[float, declare(Group.SCHEDULE, on_resume="steering", gt=0)] = 1e-6
    """Peak learning rate."""
    schedule: Annotated[Literal["constant", "linear", "cosine"], declare(Group.SCHEDULE)] = (
        "constant"
    )
    """Course of the learning rate after the warm-up; linear and cosine end at 0."""
    warmup_steps: Annotated[int, declare(Group.SCHEDULE, on_resume="steering", ge=0)] = 0
    """Steps in which the learning rate rises from 0 to its peak."""
    optimizer: Annotated[Literal["adamw", "adamw_8bit"], declare(Group.SCHEDULE)] = "adamw"
    """The optimiser; adamw_8bit (of bitsandbytes) keeps 2 bytes of state a weight instead of 8."""
    weight_decay: Annotated[float, declare(Group.SCHEDULE, ge=0)] = 0.01
    """Weight decay of AdamW."""
    grad_clip: Annotated[float, declare(Group.SCHEDULE, gt=0)] = 1.0
    """Gradients of a larger norm are scaled down to it."""

    prompts_per_step: Annotated[int, declare(Group.BATCHES, ge=1)] = 256
    """Prompts that are answered in one step."""
    minibatches: Annotated[int, declare(Group.BATCHES, on_resume="steering", ge=1)] = 2
    """Updates of the weights in a step, each from its share of the step's responses."""
    micro_batch_tokens: Annotated[int, declare(Group.BATCHES, ge=1)] = 8192
    """Tokens in one forward pass, padding included; fewer need less memory."""
    gradient_checkpointing: Annotated[bool, declare(Group.BATCHES)] = False
    """Compute activations a second time instead of keeping them: less memory, more time."""
    reference_offload: Annotated[bool, declare(Group.BATCHES, on_resume="free")] = False
    """Keep the reference's weights in the host's memory while the GPU does not need them."""
    fp32_head: Annotated[bool, declare(Group.BATCHES)] = False
    """Compute the logits in float32 where all else is computed in bfloat16, in the trainer and in
    the engine alike: their log-probs then differ less, at some time and memory."""
    lora_rank: Annotated[int | None, declare(Group.BATCHES, ge=1)] = None
    """Train a LoRA adapter of this rank; else all weights."""
    lora_alpha: Annotated[int | None, declare(Group.BATCHES, ge=1)] = None
    """The adapter is multiplied by lora_alpha / lora_rank; else by 2."""
    shard_size: Annotated[int | None, declare(Group.RANKS, on_resume="free", ge=1)] = None
    """How many of the processes that torchrun has started hold one copy of the weights, gradients
    and optimiser together; else all of them. 1 gives each a whole copy: more memory, less to
    send."""
    policy_offload: Annotated[bool, declare(Group.RANKS, on_resume="free")] = False
    """Keep the policy's weights, gradients and optimiser in the host's memory, but for the layer
    that the GPU works on; it needs torchrun."""

    eval_problems: Annotated[
        Path | None, OnStore(), declare(Group.EVALUATION, on_resume="free", in_experiment="variant")
    ] = None
    """Parquet file of held-out problems to answer while training, outside the measured time."""
    eval_every: Annotated[int, declare(Group.EVALUATION, ge=1)] = 10
    """Steps between evaluations."""
    eval_samples: Annotated[int, declare(Group.EVALUATION, ge=1)] = 1
    """Responses sampled for each held-out problem."""

    health: Annotated[Literal["stop", "warn", "off"], declare(Group.LOGS, on_resume="free")] = (
        "stop"
    )
    """What is done where the reward collapses: the run is stopped, a warning is logged, or
    nothing."""
    checkpoint_every: Annotated[int, declare(Group.LOGS, on_resume="free", ge=1)] = 50
    """Steps between checkpoints."""
    checkpoint_minutes: Annotated[float, declare(Group.LOGS, on_resume="free", gt=0)] = 5.0
    """Save a checkpoint at least every so many minutes, unless saving takes too long."""
    keep_checkpoints: Annotated[int, declare(Group.LOGS, on_resume="free", ge=1)] = 2
    """Checkpoints that are kept, the latest ones."""
    log_to: Annotated[
        Literal["none", "tensorboard", "wandb", "trackio"],
        declare(Group.LOGS, on_resume="free", in_experiment="shared"),
    ] = "none"
    """Send metrics and samples to this tracker as well."""
    profile: Annotated[bool, declare(Group.LOGS, on_resume="free")] = False
    """Measure where the time of two steps goes: profile/trace.json.gz and profile/table.txt in
    --out."""

    @model_validator(mode="after")
    def _without_contradictions(self) -> Self:
        """Refuses what would be ignored. The resolved config of a run, in full, passes."""
        changed = self.model_dump(exclude_defaults=True).keys() & self.model_fields_set
        is_own = _is_own_algorithm(self.algorithm)  # says itself what it reads, once it is loaded
        for name in sorted(changed):
            if not is_own and self.algorithm not in readers(name):
                raise UserError(
                    f"{name}: {self.algorithm} does not read it, but {', '.join(readers(name))}; "
                    "leave it out, or in a file put it into that algorithm's table "
                    f"([{readers(name)[0]}])"
                )
        if "stage1_drift" in changed and self.first_rollouts != "stage1":
            raise UserError("stage1_drift says when first_rollouts stage1 ends: give that too")
        if self.baseline_from == "rollout":
            self._refuse_unread_values(changed)
        if self.steps is not None and "epochs" in changed:
            raise UserError("steps and epochs both say how long to train: give one of them")
        return self

    def _refuse_unread_values(self, changed: set[str]) -> None:
        """Refuses what tells how V* is estimated where V* is read by nothing."""
        if self.first_rollouts == "stage1":
            raise UserError(
                "first_rollouts stage1 goes with V*, which baseline_from rollout does not read: "
                "leave one of them out"
            )
        unread = sorted(changed & {"beta1", "estimator", "values_samples"})
        if unread and self.values is None:
            raise UserError(
                f"{unread[0]} tells how V* is estimated, which baseline_from rollout does not "
                "read: leave it out, or give --values for a filter"
            )


ALGORITHM_PLUGINS = "astarpo.algorithms"
"""The group of entry points by which other packages add algorithms."""


def known_algorithms() -> tuple[str, ...]:
    """The algorithms that go by a name: those that ship, then those of installed packages."""
    return (*ALGORITHM_NAMES, *plugin_names(ALGORITHM_PLUGINS))


def _is_own_algorithm(name: str) -> bool:
    """Whether it is none that ships; raises UserError where it is none at all.

    A name with a colon is that of a class which a call in Python was given.
    """
    known = known_algorithms()
    if name not in known and ":" not in name:
        hint = did_you_mean(name, known)
        raise UserError(f"algorithm: there is no {name!r}; choose from {', '.join(known)}{hint}")
    return name not in ALGORITHM_NAMES


TRAIN_SETTINGS: dict[str, Setting] = {
    name: setting_of(field) for name, field in TrainConfig.model_fields.items()
}
"""How each setting of training is declared."""


def readers(name: str) -> tuple[AlgorithmName, ...]:
    """The algorithms that read a setting; all where none of the losses' has that name."""
    return TRAIN_SETTINGS[name].readers if name in TRAIN_SETTINGS else ALGORITHM_NAMES
