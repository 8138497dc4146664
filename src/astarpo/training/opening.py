"""What a run needs beside its inputs; its models and optimiser, new or from a checkpoint."""

import logging
from pathlib import Path

import torch

from astarpo.config import TrainConfig
from astarpo.engines import require_engine
from astarpo.models.critic import load_critic
from astarpo.models.lora import adapt, require_lora
from astarpo.models.policy import Policy, load_policy
from astarpo.models.vocabulary import Vocabulary
from astarpo.rundir.trackers import require_tracker
from astarpo.rundir.writer import RunLog
from astarpo.runtime.devices import pick_device
from astarpo.runtime.distributed import OneProcess
from astarpo.runtime.launch import read_launch
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

    Raises:
        UserError: There were checkpoints, and none is left.
    """
    checkpoint, steps_done = where.first(lambda: _find_checkpoint(run))
    with where.together():
        policy, reference = _open_policies(config, checkpoint, where.device, inputs.vocabulary)
        critic = load_critic(config.model, where.device) if inputs.algorithm.needs_critic else None
        rule = inputs.algorithm.running
        learner = Learner(
            policy, reference, inputs.algorithm, config, inputs.text.temperature, critic,
            running=RunningValues(rule, inputs.prompts) if rule else None,
        )  # fmt: skip
        if checkpoint:
            restore(checkpoint, learner)
    return learner, steps_done


def _find_checkpoint(run: RunLog) -> tuple[Path | None, int]:
    """The checkpoint to go on from and its step; None and 0 for a run that begins.

    The last one before any step whose metrics are lost, since that step is then made again.
    """
    missing = run.first_missing_step()
    found = latest_checkpoint(run.path, before=missing) or latest_checkpoint(run.path)
    if found:
        return found
    if run.has_checkpoint:
        raise UserError(
            f"{run.path}: cannot resume: no whole checkpoint is left; put the checkpoints back, or "
            "begin anew with another --out"
        )
    if run.metrics():
        logger.warning(f"{run.path}: has no checkpoint yet; begins again at step 1")
    return None, 0


def _open_policies(
    config: TrainConfig, checkpoint: Path | None, device: torch.device, vocabulary: Vocabulary
) -> tuple[Policy, Policy]:
    """The policy, new or from a checkpoint, and its reference."""
    fp32 = config.fp32_head
    if config.lora_rank is not None:
        base = load_policy(config.model, device, vocabulary, fp32_head=fp32)
        return adapt(base, config, checkpoint / "adapter" if checkpoint else None)
    reference = load_policy(config.model, device, vocabulary, fp32_head=fp32)
    start_from = str(checkpoint / "model") if checkpoint else config.model
    # Both have the reference's vocabulary, so that a resumed run saves the same bytes: a tokenizer
    # that was saved and loaded is not saved as the original was.
    policy = load_policy(start_from, device, vocabulary, trainable=True, fp32_head=fp32)
    return policy, reference
