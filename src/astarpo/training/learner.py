"""One update of the policy from one rollout: log-probs, loss, gradient, optimiser.

    rollout -> reference log-probs, critic -> for each mini-batch: loss -> gradient -> AdamW

Reference and policy see the very same tensors under the same dtype, so that rounding alone makes no
difference between them.

Shapes: _B sequences, _T response tokens.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from astarpo.algorithms.base import Algorithm, LossInputs, Rollout
from astarpo.config import TrainConfig
from astarpo.models.agreement import tolerance
from astarpo.models.batch import masked_sum
from astarpo.models.critic import critic_values
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.recomputing import Recomputing
from astarpo.runtime.stopping import check_stop
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.runtime.transfer import send
from astarpo.training.health import NOT_FINITE
from astarpo.training.metrics import standard_error, summarize_records
from astarpo.training.offload import ParkedWeights
from astarpo.training.optimizers import make_optimizer
from astarpo.training.running_values import RunningValues, Sighting, policy_logprobs
from astarpo.training.schedule import MicroBatch, plan_minibatches
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
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in policy.model.named_parameters() if p.requires_grad
        }
        groups = [{"params": list(self.parameters.values()), "peak_lr": config.lr}]
        if critic is not None:
            groups.append({"params": list(critic.parameters()), "peak_lr": config.critic_lr})
            self.parameters |= {f"critic.{name}": p for name, p in critic.named_parameters()}
        self.optimizer = make_optimizer(config.optimizer, groups, config.lr, config.weight_decay)
        trained = [policy.model] if critic is None else [policy.model, critic]
        self._recomputing = Recomputing(trained if config.gradient_checkpointing else [])
        self._parked = ParkedWeights(reference.model) if config.reference_offload else None
        self._warned = False
        # In bf16, or in kernels of its own, an engine rounds otherwise than the trainer: clipping
        # ratios to what it reports would act on rounding.
        engine_rounds = policy.autocast_dtype is not None or config.engine == "vllm"
        self._scores_sampled = algorithm.reads_sampled and engine_rounds

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
        rollout = self._score(answers, [m for part in minibatches for m in part], stopwatch)
        sighting = self._look(answers, stopwatch)
        records: dict[str, list[Tensor]] = defaultdict(list)
        norms: dict[str, list[float]] = defaultdict(list)
        for number, part in enumerate(minibatches):
            with stopwatch.phase("update"), self._recomputing.in_use():
                self._accumulate(part, rollout, records, first=number == 0)
                if not torch.cat(records["loss"]).isfinite().all():
                    raise TrainingStopped(NOT_FINITE.format("loss"))
                for name, norm in self._apply_gradient(critic_only=critic_only).items():
                    norms[name].append(norm)
                self.is_halfway = True
        self.is_halfway = False
        index_B = torch.cat([part.index_B for part in minibatches[0]])
        group_B = index_B // self.algorithm.samples_per_prompt
        summary = summarize_records(records)
        summary["kl_se"] = standard_error(torch.cat(records["kl"]), group_B)
        if not is_from_stage1(answers):
            self._warn_of_engine(summary, rollout.mean_length)
        if self.running and sighting:
            summary |= self.running.take(answers, sighting)
        return summary | {name: sum(each) / len(each) for name, each in norms.items()}

    @torch.no_grad()
    def _score(
        self, answers: Sequence[Answer], parts: Sequence[MicroBatch], stopwatch: Stopwatch
    ) -> Rollout:
        """Everything about a rollout that is computed once, before its first update."""
        lengths = [len(a.completion.token_ids) for a in answers]
        sampled_BT = torch.zeros(len(answers), max(lengths))
        for row, answer in enumerate(answers):
            if logprobs := answer.completion.logprobs:
                sampled_BT[row, : lengths[row]] = torch.tensor(logprobs)
        sampled_BT = send(sampled_BT, self.policy.device)
        engine_BT = None
        critic_BT = torch.zeros_like(sampled_BT) if self.critic is not None else None
        mask_BT = torch.zeros_like(sampled_BT, dtype=torch.bool)
        for part in parts:
            mask_BT[part.index_B, : part.tokens.mask_BT.shape[1]] = part.tokens.mask_BT
        at_hand = self._parked.in_use() if self._parked else nullcontext()
        with stopwatch.phase("reference"), at_hand:
            ref_BT = self._logprobs(self.reference, parts, sampled_BT)
        if is_from_stage1(answers):
            sampled_BT = ref_BT  # The reference it was that sampled.
        elif self._scores_sampled:
            with stopwatch.phase("update"):
                engine_BT, sampled_BT = sampled_BT, self._logprobs(self.policy, parts, sampled_BT)
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
                values_B=self._values(answers),
                critic_BT=critic_BT,
                engine_logprobs_BT=engine_BT,
                mean_length=sum(lengths) / len(lengths),
                is_reference=is_from_stage1(answers),
            )
        )

    def _logprobs(self, policy: Policy, parts: Sequence[MicroBatch], like_BT: Tensor) -> Tensor:
        """[B, T] a policy's log-probs of a whole rollout, without gradients."""
        logprobs_BT = torch.zeros_like(like_BT)
        with policy.autocast():
            for part in parts:
                check_stop()
                width = part.tokens.mask_BT.shape[1]
                logprobs_BT[part.index_B, :width], _ = token_logprobs(
                    policy.model, part.tokens, self._temperature
                )
        return logprobs_BT

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
            if rollout.is_reference:
                records["stage1_drift"].append(moved_B.abs())
                if first:
                    # Unbiased under the reference, and like a KL never negative.
                    ratio_B = (-moved_B).exp()
                    records["kl"].append(1 - ratio_B - ratio_B * moved_B)
                    records["engine_kl"].append(torch.zeros_like(moved_B))
            elif first:
                records["kl"].append(masked_sum(now_BT - rows.ref_logprobs_BT, mask_BT))
                reported_BT = rows.engine_logprobs_BT
                if reported_BT is None:
                    reported_BT = rows.sampled_logprobs_BT
                records["engine_kl"].append(masked_sum(reported_BT - now_BT, mask_BT))
            else:
                records["drift"].append(moved_B.abs())

    def _look(self, answers: Sequence[Answer], stopwatch: Stopwatch) -> Sighting | None:
        """What running values have to know of the policy before an update changes it."""
        if self.running is None:
            return None
        most = self._config.micro_batch_tokens
        with stopwatch.phase("reference"):
            return self.running.look(
                answers, lambda seqs: policy_logprobs(self.policy, seqs, self._temperature, most)
            )

    def _apply_gradient(self, *, critic_only: bool) -> dict[str, float]:
        models = {"grad_norm": self.policy.model}
        if self.critic is not None:
            models["critic_grad_norm"] = self.critic
        norms = {}
        for name, model in models.items():
            norm = nn.utils.clip_grad_norm_(model.parameters(), self._config.grad_clip).item()
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

    def _values(self, answers: Sequence[Answer]) -> Tensor | None:
        """[B] V* of each answer's prompt; None where the run has no value table."""
        values = [answer.prompt.value for answer in answers if answer.prompt.value is not None]
        assert len(values) in (0, len(answers))
        return self._floats(values) if values else None

    def _floats(self, values: Sequence[float]) -> Tensor:
        return send(torch.tensor(values, dtype=torch.float32), self.policy.device)
