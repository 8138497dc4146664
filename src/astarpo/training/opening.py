"""What a run needs beside its inputs; its models and optimiser, new or from a checkpoint."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astarpo.config import TrainConfig
from astarpo.engines import require_engine
from astarpo.models.critic import empty_critic, fill_critic, load_critic
from astarpo.models.lora import adapt, require_lora
from astarpo.models.policy import Policy, empty_policy, fill_policy, load_policy
from astarpo.models.sharded import shard
from astarpo.models.vocabulary import Vocabulary
from astarpo.rundir.trackers import require_tracker
from astarpo.rundir.writer import RunLog
from astarpo.runtime.devices import pick_device
from astarpo.runtime.launch import read_launch
from astarpo.runtime.one_process import OneProcess
from astarpo.training.checkpoint import latest_checkpoint, restore
from astarpo.training.inputs import Inputs
from astarpo.training.learner import Learner
from astarpo.training.optimizers import require_optimizer
from astarpo.training.running_values import RunningValues
from astarpo.types import UserError

logger = logging.getLogger("astarpo")


def require_parts(config: TrainConfig) -> None:
    """Checks that what training needs beside its inputs is there.

    Raises:
        UserError: A library or a device is missing, or settings of the adapter do not fit.
    """
    require_tracker(config.log_to)
    require_processes(config, read_launch().size)
    require_optimizer(config.optimizer)
    require_lora(config)
    require_engine(config)
    pick_device(config.device)


def require_processes(config: TrainConfig, count: int) -> None:
    """Checks that a model can be shared out as the settings say.

    Args:
        config: The settings.
        count: How many processes there are.

    Raises:
        UserError: It cannot.
    """
    if count == 1 and (config.policy_offload or config.shard_size not in (None, 1)):
        name = "policy_offload" if config.policy_offload else "shard_size"
        raise UserError(
            f"{name}: a single process keeps all of its weights where it computes; start several "
            "with torchrun, or leave it out"
        )
    if count > 1 and config.optimizer == "adamw_8bit":
        raise UserError(
            "optimizer adamw_8bit: its state cannot be shared among processes; take --optimizer "
            f"adamw, of whose state each of the {count} keeps a part"
        )
    if config.shard_size is not None and count % config.shard_size:
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise UserError(
            f"shard_size {config.shard_size}: of {count} processes so many cannot share a copy of "
            f"the weights; choose from {divisors}, or leave it out"
        )


def open_learner(
    config: TrainConfig, inputs: Inputs, run: RunLog, where: OneProcess
) -> tuple[Learner, int]:
    """Loads what is trained, and says how many steps it has behind it.

    Several processes share all models out; each reads no more than its own parts.

    Raises:
        UserError: There were checkpoints, and none is left.
    """
    checkpoint, steps_done = _find_checkpoint(run, where)
    opener = _Opener(where, where.mesh(config.shard_size), inputs.vocabulary, config)
    policy, reference = _open_policies(config, checkpoint, opener)
    critic = opener.critic(config.model) if inputs.algorithm.needs_critic else None
    rule = inputs.algorithm.running
    learner = Learner(
        policy, reference, inputs.algorithm, config, inputs.text.temperature, critic,
        running=RunningValues(rule, inputs.prompts) if rule else None,
        where=where,
    )  # fmt: skip
    if checkpoint:
        restore(checkpoint, learner)
    return learner, steps_done


def _find_checkpoint(run: RunLog, where: OneProcess) -> tuple[Path | None, int]:
    """The checkpoint to go on from and its step; None and 0 for a run that begins.

    The last one before any step whose metrics are lost, since that step is then made again.
    """
    missing = where.first(run.first_missing_step)
    found = latest_checkpoint(run.path, missing, where) or latest_checkpoint(run.path, where=where)
    if not found:
        where.first(lambda: _require_no_checkpoint(run))
    return found or (None, 0)


def _require_no_checkpoint(run: RunLog) -> None:
    if run.has_checkpoint:
        raise UserError(
            f"{run.path}: cannot resume: no whole checkpoint is left; put the checkpoints back, or "
            "begin anew with another --out"
        )
    if run.metrics():
        logger.warning(f"{run.path}: has no checkpoint yet; begins again at step 1")


@dataclass(frozen=True)
class _Opener:
    """Loads models, in one process whole, in several each its parts.

    Attributes:
        where: The processes.
        mesh: How they share models out; None for one process.
        vocabulary: The models'.
        config: Says how they compute, and which are kept in the host's memory.
    """

    where: OneProcess
    mesh: Any
    vocabulary: Vocabulary
    config: TrainConfig

    def policy(self, name: str, *, trainable: bool = False) -> Policy:
        """A policy from a folder or the hub; in several processes without its weights."""
        load = load_policy if self.mesh is None else empty_policy
        return load(
            name, self.where.device, self.vocabulary,
            trainable=trainable, fp32_head=self.config.fp32_head,
        )  # fmt: skip

    def share(self, policy: Policy, name: str, *, offload: bool) -> None:
        """Shares out what `policy` gave, where processes share, and reads its weights."""
        if self.mesh is not None:
            shard(policy.model, self.mesh, policy.autocast_dtype, offload=offload)
            fill_policy(policy, name, self.where, offload=offload)

    def critic(self, name: str) -> Any:
        """A critic that starts from a model."""
        if self.mesh is None:
            return load_critic(name, self.where.device)
        critic = empty_critic(name)
        dtype = torch.bfloat16 if self.where.device.type == "cuda" else None
        offload = self.config.policy_offload
        shard(critic, self.mesh, dtype, offload=offload)
        fill_critic(critic, name, self.where, offload=offload)
        return critic


def _open_policies(
    config: TrainConfig, checkpoint: Path | None, opener: _Opener
) -> tuple[Policy, Policy]:
    """The policy, new or from a checkpoint, and its reference."""
    if config.lora_rank is not None:
        base = opener.policy(config.model)
        adapter = checkpoint / "adapter" if checkpoint else None
        policy, reference = adapt(base, config, adapter)
        opener.share(policy, config.model, offload=config.policy_offload)
        return policy, reference
    reference = opener.policy(config.model)
    opener.share(reference, config.model, offload=config.reference_offload)
    start_from = str(checkpoint / "model") if checkpoint else config.model
    # Both have the reference's vocabulary, so that a resumed run saves the same bytes: a tokenizer
    # that was saved and loaded is not saved as the original was.
    policy = opener.policy(start_from, trainable=True)
    opener.share(policy, start_from, offload=config.policy_offload)
    return policy, reference
