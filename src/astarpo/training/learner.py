"""One update of the policy from one rollout: log-probs, loss, gradient, optimiser.

    rollout -> reference log-probs, critic -> for each mini-batch: loss -> gradient -> AdamW

Reference and policy see the very same tensors under the same dtype, so that rounding alone makes no
difference between them. Where several processes share an update, each computes some of the
micro-batches (`scoring.py`), and all end with the same numbers and weights.

Shapes: _B sequences, _T response tokens.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from astarpo.algorithms.base import Algorithm, LossInputs, Rollout
from astarpo.config import TrainConfig
from astarpo.models.agreement import tolerance
from astarpo.models.critic import critic_values
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.recomputing import Recomputing
from astarpo.models.sharded import add_over_copies, is_sharded, settle, whole
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.health import NOT_FINITE
from astarpo.training.metrics import standard_error, summarize_records
from astarpo.training.offload import ParkedWeights
from astarpo.training.optimizers import make_optimizer
from astarpo.training.records import Records, add_records, record
from astarpo.training.running_values import RunningValues, Sighting
from astarpo.training.schedule import MicroBatch, plan_minibatches
from astarpo.training.scoring import Scorer, check_stop_together, policy_logprobs, turns
from astarpo.training.stage1 import is_from_stage1
from astarpo.types import Answer, TrainingStopped

logger = logging.getLogger("astarpo")

# How long an update whose first mini-batch is applied may take to end after a signal to stop:
# given up, it costs the steps since the last checkpoint.
_GRACE_S = 5.0


class Learner:
    """Holds the optimiser and applies the algorithm's loss.

    Attributes:
        policy: Trained in place: all parameters that take gradients, which are in fp32.
        reference: Frozen; may be the policy's model without its adapter.
        algorithm: The loss.
        critic: Trained beside the policy, where the algorithm needs one.
        running: The values of prompts that run along with it, where the algorithm has those.
        parameters: All that is trained, by name; the critic's begin with `critic.`.
        optimizer: AdamW over them (`optimizers.py`).
        is_halfway: Whether an update was given up after some of its mini-batches were applied.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        algorithm: Algorithm,
        config: TrainConfig,
        temperature: float,
        critic: Any = None,
        running: RunningValues | None = None,
        where: OneProcess | None = None,
    ) -> None:
        assert (critic is not None) == algorithm.needs_critic
        assert (running is not None) == (algorithm.running is not None)
        self.policy = policy
        self.reference = reference
        self.algorithm = algorithm
        self.critic = critic
        self.running = running
        self.is_halfway = False
        self._config = config
        self._temperature = temperature
        self._where = where or OneProcess(policy.device)
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in policy.model.named_parameters() if p.requires_grad
        }
        groups = [{"params": list(self.parameters.values()), "peak_lr": config.lr}]
        if critic is not None:
            groups.append({"params": list(critic.parameters()), "peak_lr": config.critic_lr})
            self.parameters |= {f"critic.{name}": p for name, p in critic.named_parameters()}
        self.optimizer = make_optimizer(config.optimizer, groups, config.lr, config.weight_decay)
        self._trained = [policy.model] if critic is None else [policy.model, critic]
        for model in self._trained:
            settle(model)
        self._recomputing = Recomputing(self._trained if config.gradient_checkpointing else [])
        self._warned = False
        # In bf16, or in kernels of its own, an engine rounds otherwise than the trainer: clipping
        # ratios to what it reports would act on rounding.
        engine_rounds = policy.autocast_dtype is not None or config.engine == "vllm"
        parks = config.reference_offload and not is_sharded(reference.model)
        self._scorer = Scorer(
            policy, reference, critic, temperature,
            scores_sampled=algorithm.reads_sampled and engine_rounds,
            parked=ParkedWeights(reference.model) if parks else None,
            where=self._where,
        )  # fmt: skip

    def update(
        self,
        answers: Sequence[Answer],
        lr_scale: float,
        stopwatch: Stopwatch,
        *,
        critic_only: bool = False,
    ) -> dict[str, float]:
        """Takes one optimiser step for each mini-batch of a rollout.

        Args:
            answers: The rollout, the samples of one prompt side by side.
            lr_scale: This step's share of the peak learning rates.
            stopwatch: Gets the phases `reference` and `update`.
            critic_only: Whether to train the critic alone.

        Returns:
            Means over the rollout's sequences. `kl` is that of its first mini-batch, which alone
            is exactly on-policy; `drift` is how far, in nats of a response, the policy has moved
            from the one that sampled when the later ones are learnt from. Of a rollout of stage 1
            `stage1_drift` is how far it is from the reference.

        Raises:
            TrainingStopped: The loss or the gradient is not finite; the weights are untouched.
            StopRequested: A signal asks to stop.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_scale
        minibatches = plan_minibatches(answers, self.algorithm, self._config, self.policy)
        parts = [part for minibatch in minibatches for part in minibatch]
        with torch.no_grad():
            rollout = self.algorithm.prepare(self._scorer.rollout(answers, parts, stopwatch))
        sighting = self._look(answers, stopwatch)
        records: dict[str, list[Tensor]] = defaultdict(list)
        norms: dict[str, list[float]] = defaultdict(list)
        for number, part in enumerate(minibatches):
            with stopwatch.phase("update"), self._recomputing.in_use():
                found = self._accumulate(part, rollout, first=number == 0)
                add_records(records, found, self._where)
                if not torch.cat(records["loss"]).isfinite().all():
                    raise TrainingStopped(NOT_FINITE.format("loss"))
                for name, norm in self._apply_gradient(critic_only=critic_only).items():
                    norms[name].append(norm)
                self.is_halfway = True
        self.is_halfway = False
        index_B = torch.cat([part.index_B for part in minibatches[0]]).cpu()
        group_B = index_B // self.algorithm.samples_per_prompt
        summary = summarize_records(records)
        summary["kl_se"] = standard_error(torch.cat(records["kl"]), group_B)
        if not is_from_stage1(answers):
            self._warn_of_engine(summary, rollout.mean_length)
        if self.running and sighting:
            summary |= self.running.take(answers, sighting)
        return summary | {name: sum(each) / len(each) for name, each in norms.items()}

    def _accumulate(
        self, parts: Sequence[MicroBatch], rollout: Rollout, *, first: bool
    ) -> list[tuple[int, Records]]:
        """Adds up the gradient of a mini-batch's mean loss, never waiting for a GPU.

        Returns:
            What is recorded of this process's micro-batches, each with its number.
        """
        num_sequences = sum(len(part.index_B) for part in parts)
        found = []
        for number, part, weight, is_last in turns(parts, self._where):
            check_stop_together(self._where, _GRACE_S if self.is_halfway else 0.0)
            mask_BT = part.tokens.mask_BT
            rows = rollout.rows(part.index_B, mask_BT.shape[1])
            with self.policy.autocast():
                logprobs_BT, entropy_BT = token_logprobs(
                    self.policy.model, part.tokens, self._temperature, entropy=True
                )
                critic_BT = critic_values(self.critic, part.tokens) if self.critic else None
            output = self.algorithm.loss(LossInputs(logprobs_BT, rows, critic_BT))
            # Over processes FSDP2 takes the mean of gradients, not their sum.
            share = weight * self._where.size
            for model in self._trained:
                add_over_copies(model, now=is_last)
            (share * (output.loss_B.sum() / num_sequences)).backward()
            if weight:
                assert entropy_BT is not None
                noted = record(output, logprobs_BT.detach(), entropy_BT, rows, first=first)
                found.append((number, noted))
        return found

    def _look(self, answers: Sequence[Answer], stopwatch: Stopwatch) -> Sighting | None:
        """What running values have to know of the policy before an update changes it."""
        if self.running is None:
            return None
        most = self._config.micro_batch_tokens
        with stopwatch.phase("reference"):
            return self.running.look(
                answers,
                lambda seqs: policy_logprobs(
                    self.policy, seqs, self._temperature, most, self._where
                ),
            )

    def _apply_gradient(self, *, critic_only: bool) -> dict[str, float]:
        models = {"grad_norm": self.policy.model}
        if self.critic is not None:
            models["critic_grad_norm"] = self.critic
        norms = {}
        for name, model in models.items():
            norm = nn.utils.clip_grad_norm_(model.parameters(), self._config.grad_clip)
            norm = whole(norm).item()
            if not math.isfinite(norm):
                raise TrainingStopped(NOT_FINITE.format("gradient"))
            norms[name] = norm
        if critic_only:
            for parameter in self.policy.model.parameters():
                parameter.grad = None  # which AdamW takes as: leave it alone
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # while sampling, their memory is the cache's
        return norms

    def _warn_of_engine(self, summary: dict[str, float], mean_length: float) -> None:
        """Warns, once, if the policy that was sampled is not the one that is trained."""
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
