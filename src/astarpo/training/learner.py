"""One update of the policy from one rollout: mini-batches, micro-batches, log-probs, optimiser.

Reference and policy see the very same tensors under the same dtype, so their rounding errors do not
add up to a difference.

Shapes: _B sequences, _T response tokens.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from astarpo.algorithms.base import Algorithm, LossInputs, Rollout
from astarpo.config import TrainConfig
from astarpo.models.agreement import tolerance
from astarpo.models.attention import same_again
from astarpo.models.batch import TokenBatch, collate, masked_sum, micro_batches
from astarpo.models.critic import critic_values
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.runtime.stopping import check_stop
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.offload import ParkedWeights
from astarpo.training.optimizers import make_optimizer
from astarpo.types import Answer, TrainingStopped

logger = logging.getLogger("astarpo")

# How long an update whose first mini-batch is applied may take to end after a signal to stop:
# given up, it costs the steps since the last checkpoint.
_GRACE_S = 5.0


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through a model together.

    Attributes:
        index_B: [B] which of the rollout's.
        tokens: They as tensors; reference, critic and policy all see these very tensors.
    """

    index_B: Tensor
    tokens: TokenBatch


class Learner:
    """Holds the optimiser and applies the algorithm's loss.

    Attributes:
        policy: Trained in place: all parameters that take gradients, which are in fp32.
        reference: Frozen; may be the policy's model without its adapter.
        algorithm: The loss.
        critic: Trained beside the policy, where the algorithm needs one.
        parameters: All that is trained, by name; the critic's begin with `critic.`.
        optimizer: AdamW over them (`optimizers.py`).
        is_halfway: Whether an update was given up when a part of it had been applied already.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        algorithm: Algorithm,
        config: TrainConfig,
        temperature: float,
        critic: Any = None,
    ) -> None:
        assert (critic is not None) == algorithm.needs_critic
        self.policy = policy
        self.reference = reference
        self.algorithm = algorithm
        self.critic = critic
        self.is_halfway = False
        self._config = config
        self._temperature = temperature
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in policy.model.named_parameters() if p.requires_grad
        }
        groups = [{"params": list(self.parameters.values()), "peak_lr": config.lr}]
        if critic is not None:
            groups.append({"params": list(critic.parameters()), "peak_lr": config.critic_lr})
            self.parameters |= {f"critic.{name}": p for name, p in critic.named_parameters()}
        self.optimizer = make_optimizer(config.optimizer, groups, config.lr, config.weight_decay)
        self._parked = ParkedWeights(reference.model) if config.reference_offload else None
        self._warned = False
        self._recomputed = []  # layers whose activations are not kept but computed again
        if config.gradient_checkpointing:
            for model in (policy.model, critic) if critic is not None else (policy.model,):
                model.gradient_checkpointing_enable(
                    {
                        "use_reentrant": False,
                        "preserve_rng_state": False,  # a layer draws no random numbers
                        "context_fn": partial(same_again, model),
                    }
                )
                self._recomputed += [
                    layer for layer in model.modules() if isinstance(layer, _checkpointing_layer())
                ]

    def update(
        self,
        answers: Sequence[Answer],
        values: Sequence[float] | None,
        lr_scale: float,
        stopwatch: Stopwatch,
        *,
        critic_only: bool = False,
    ) -> dict[str, float]:
        """Takes one optimiser step for each mini-batch of a rollout.

        Args:
            answers: The rollout, the samples of one prompt side by side.
            values: V* of each answer's prompt, for algorithms that need it.
            lr_scale: This step's share of the peak learning rates.
            stopwatch: Gets the phases `reference` and `update`.
            critic_only: Leaves the policy as it is.

        Returns:
            Means over the rollout's sequences. `kl` is that of its first mini-batch, which alone
            is exactly on-policy; `drift` is how far, in nats of a response, the policy has moved
            from the one that sampled when the later ones are learnt from.

        Raises:
            TrainingStopped: The loss or the gradient is not finite; the weights are untouched.
            StopRequested: A signal asks to stop.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_scale
        minibatches = self._plan(answers)
        rollout = self._score(answers, values, [m for part in minibatches for m in part], stopwatch)
        records: dict[str, list[Tensor]] = defaultdict(list)
        norms: dict[str, list[float]] = defaultdict(list)
        for number, part in enumerate(minibatches):
            with stopwatch.phase("update"), self._checkpointing():
                self._accumulate(part, rollout, records, first=number == 0)
                if not torch.cat(records["loss"]).isfinite().all():
                    raise TrainingStopped(_NOT_FINITE.format("loss"))
                for name, norm in self._apply_gradient(critic_only=critic_only).items():
                    norms[name].append(norm)
                self.is_halfway = True
        self.is_halfway = False
        index_B = torch.cat([part.index_B for part in minibatches[0]])
        group_B = index_B // self.algorithm.samples_per_prompt
        summary = summarize(records)
        summary["kl_se"] = standard_error(torch.cat(records["kl"]), group_B)
        self._warn_of_engine(summary, rollout.mean_length)
        return summary | {name: sum(each) / len(each) for name, each in norms.items()}

    def _plan(self, answers: Sequence[Answer]) -> list[list[MicroBatch]]:
        """Cuts a rollout into mini-batches of whole groups, and those into micro-batches."""
        group, coupled = self.algorithm.samples_per_prompt, self.algorithm.coupled
        lengths = [len(a.prompt.token_ids) + len(a.completion.token_ids) for a in answers]
        minibatches = []
        for prompts in split(len(answers) // group, self._config.minibatches):
            starts = range(prompts.start * group, prompts.stop * group, coupled)
            longest = [max(lengths[start : start + coupled]) for start in starts]
            part = []
            for units in micro_batches(longest, self._config.micro_batch_tokens // coupled):
                indices = [starts[unit] + i for unit in units for i in range(coupled)]
                index_B = torch.tensor(indices, device=self.policy.device)
                part.append(MicroBatch(index_B, self._collate([answers[i] for i in indices])))
            minibatches.append(part)
        return minibatches

    @torch.no_grad()
    def _score(
        self,
        answers: Sequence[Answer],
        values: Sequence[float] | None,
        parts: Sequence[MicroBatch],
        stopwatch: Stopwatch,
    ) -> Rollout:
        """What is known of a rollout before the first update."""
        lengths = [len(a.completion.token_ids) for a in answers]
        sampled_BT = torch.zeros(len(answers), max(lengths))
        for row, answer in enumerate(answers):
            sampled_BT[row, : lengths[row]] = torch.tensor(answer.completion.logprobs)
        sampled_BT = sampled_BT.to(self.policy.device)
        ref_BT = torch.zeros_like(sampled_BT)
        critic_BT = torch.zeros_like(sampled_BT) if self.critic is not None else None
        mask_BT = torch.zeros_like(sampled_BT, dtype=torch.bool)
        with stopwatch.phase("reference"), self._reference_at_hand(), self.reference.autocast():
            for part in parts:
                check_stop()
                width = part.tokens.mask_BT.shape[1]
                mask_BT[part.index_B, :width] = part.tokens.mask_BT
                ref_BT[part.index_B, :width], _ = token_logprobs(
                    self.reference.model, part.tokens, self._temperature
                )
        if critic_BT is not None:
            with stopwatch.phase("update"):
                for part in parts:
                    check_stop()
                    width = part.tokens.mask_BT.shape[1]
                    with self.policy.autocast():
                        critic_BT[part.index_B, :width] = critic_values(self.critic, part.tokens)
        return self.algorithm.prepare(
            Rollout(
                mask_BT=mask_BT,
                rewards_B=self._floats([answer.verdict.reward for answer in answers]),
                sampled_logprobs_BT=sampled_BT,
                ref_logprobs_BT=ref_BT,
                values_B=None if values is None else self._floats(values),
                critic_BT=critic_BT,
                mean_length=sum(lengths) / len(lengths),
            )
        )

    def _accumulate(
        self,
        parts: Sequence[MicroBatch],
        rollout: Rollout,
        records: dict[str, list[Tensor]],
        *,
        first: bool,
    ) -> None:
        """Adds up the gradient of a mini-batch's mean loss, never waiting for a GPU."""
        num_sequences = sum(len(part.index_B) for part in parts)
        for part in parts:
            check_stop(_GRACE_S if self.is_halfway else 0.0)
            mask_BT = part.tokens.mask_BT
            rows = rollout.rows(part.index_B, mask_BT.shape[1])
            with self.policy.autocast():
                logprobs_BT, entropy_BT = token_logprobs(
                    self.policy.model, part.tokens, self._temperature, entropy=True
                )
                critic_BT = critic_values(self.critic, part.tokens) if self.critic else None
            output = self.algorithm.loss(LossInputs(logprobs_BT, rows, critic_BT))
            (output.loss_B.sum() / num_sequences).backward()
            assert entropy_BT is not None
            records["loss"].append(output.loss_B.detach())
            records["entropy"].append(masked_sum(entropy_BT, mask_BT) / mask_BT.sum(dim=-1))
            for name, value_B in output.metrics.items():
                records[name].append(value_B)
            now_BT = logprobs_BT.detach()
            moved_B = masked_sum(rows.sampled_logprobs_BT - now_BT, mask_BT)
            if first:
                records["kl"].append(masked_sum(now_BT - rows.ref_logprobs_BT, mask_BT))
                records["engine_kl"].append(moved_B)
            else:
                records["drift"].append(moved_B.abs())

    def _apply_gradient(self, *, critic_only: bool) -> dict[str, float]:
        models = {"grad_norm": self.policy.model}
        if self.critic is not None:
            models["critic_grad_norm"] = self.critic
        norms = {}
        for name, model in models.items():
            norm = nn.utils.clip_grad_norm_(model.parameters(), self._config.grad_clip).item()
            if not math.isfinite(norm):
                raise TrainingStopped(_NOT_FINITE.format("gradient"))
            norms[name] = norm
        if critic_only:
            for parameter in self.policy.model.parameters():
                parameter.grad = None  # which AdamW takes as: leave it alone
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # while sampling, their memory is the cache's
        return norms

    def _warn_of_engine(self, summary: dict[str, float], mean_length: float) -> None:
        """Says once that what was sampled from is not what is trained."""
        apart = math.hypot(summary["engine_kl"], summary["engine_kl_std"])
        with self.policy.autocast():
            explained = tolerance(self.policy.model) * mean_length
        if apart > explained and not self._warned:
            self._warned = True
            logger.warning(
                f"{type(self.policy.model).__name__}: log-probs of a response differ by "
                f"{apart:.2g} nats between sampling and training (engine_kl), where rounding "
                f"explains {explained:.2g}: what is learnt is not what was sampled"
            )

    def _reference_at_hand(self) -> AbstractContextManager[None]:
        return self._parked.in_use() if self._parked else nullcontext()

    @contextmanager
    def _checkpointing(self) -> Iterator[None]:
        # Layers keep their activations unless they themselves, not what is in them, are in
        # training mode, in which they could not use a cache to sample. Their parts stay in
        # evaluation mode, without dropout.
        for layer in self._recomputed:
            layer.training = True
        try:
            yield
        finally:
            for layer in self._recomputed:
                layer.training = False

    def _collate(self, answers: Sequence[Answer]) -> TokenBatch:
        return collate(
            [a.prompt.token_ids for a in answers],
            [a.completion.token_ids for a in answers],
            self.policy.vocabulary.pad_id,
            self.policy.device,
        )

    def _floats(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.policy.device)


_NOT_FINITE = (
    "the {} is not finite; the weights before this update are in the last checkpoint: lower lr or "
    "raise warmup_steps, then --resume or start anew"
)


def _checkpointing_layer() -> type[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return GradientCheckpointingLayer


def lr_scale(step: int, num_steps: int, config: TrainConfig) -> float:
    """Share of the peak learning rate in a step: linear warm-up, then the schedule.

    Args:
        step: From 1.
        num_steps: Steps of the whole run; linear and cosine come down to 0 just after the last.
        config: Gives warm-up and schedule.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    progress = (step - 1 - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))


def split(count: int, parts: int) -> list[range]:
    """Cuts `range(count)` into at most `parts` runs whose lengths differ by at most one."""
    parts = min(parts, count)
    edges = [count * i // parts for i in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(edges)]


def standard_error(values_B: Tensor, group_B: Tensor) -> float:
    """Standard error of a mean where values of one group, as of one prompt, depend on each other.

    Groups are independent of each other and of one size. With a single one there is nothing else to
    go by than the values, as if they were independent.

    Args:
        values_B: [B].
        group_B: [B] which group each belongs to.
    """
    values_B = values_B.double()
    _, group_B = group_B.unique(return_inverse=True)
    sizes_G = group_B.bincount()
    if len(sizes_G) > 1:
        values_B = values_B.new_zeros(len(sizes_G)).index_add_(0, group_B, values_B) / sizes_G
    if len(values_B) == 1:
        return 0.0
    return values_B.std().item() / math.sqrt(len(values_B))


def summarize(records: dict[str, list[Tensor]]) -> dict[str, float]:
    """Mean and standard deviation of each record over the sequences it has."""
    summary = {}
    for name, parts in records.items():
        values = torch.cat(parts).double()
        summary[name] = values.mean().item()
        summary[f"{name}_std"] = values.std(correction=0).item()
    return summary
