"""Log-probs and values of a whole rollout, without gradients: what is computed before its updates.

Every process plans the same micro-batches and computes its share of them; what they found is added
up, so that each has it of the whole rollout. A model that is held in parts has to be called equally
often by all, so that a process with fewer micro-batches computes one more, for nothing.

Shapes: _B sequences, _T response tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from astarpo.algorithms.base import Rollout
from astarpo.models.batch import TokenBatch, micro_batches
from astarpo.models.critic import critic_values, fit_critic
from astarpo.models.logprobs import fit_logprobs, token_logprobs
from astarpo.models.policy import Policy
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopping import StopRequested, stop_due
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.runtime.transfer import send
from astarpo.training.offload import ParkedWeights
from astarpo.training.schedule import MicroBatch
from astarpo.training.stage1 import is_from_stage1
from astarpo.types import Answer

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids of prompts and responses."""


class Turn(NamedTuple):
    """A micro-batch that this process computes.

    Attributes:
        number: Its place among those of all processes.
        part: What is computed.
        weight: 1; or 0 where it is another process's, and computed for nothing.
        is_last: Whether none comes after it, on any process.
    """

    number: int
    part: MicroBatch
    weight: float
    is_last: bool


def turns(parts: Sequence[MicroBatch], where: OneProcess) -> Iterator[Turn]:
    """This process's micro-batches, equally many on each: of K processes each takes every K-th."""
    for first in range(0, len(parts), where.size):
        number = first + where.rank
        is_mine = number < len(parts)
        is_last = first + where.size >= len(parts)
        yield Turn(number, parts[number if is_mine else first], float(is_mine), is_last)


def check_stop_together(where: OneProcess, grace_s: float = 0.0) -> None:
    """Gives up what is going on, on all processes, if a signal has asked any of them for it.

    Args:
        where: All call this at the same point.
        grace_s: See `check_stop`.

    Raises:
        StopRequested: On all processes.
    """
    if where.any(stop_due(grace_s)):
        raise StopRequested


@dataclass(frozen=True)
class Scorer:
    """Computes all about a rollout that its updates start from.

    Attributes:
        policy: As it is before the updates.
        reference: Frozen.
        critic: The critic, where there is one.
        temperature: What responses are sampled at.
        scores_sampled: Whether what the engine reports is not to be relied on, so that the policy's
            log-probs are computed too.
        parked: The reference's weights, where they stay in the host's memory.
        where: Whose share is computed here.
    """

    policy: Policy
    reference: Policy
    critic: Any
    temperature: float
    scores_sampled: bool
    parked: ParkedWeights | None
    where: OneProcess

    @torch.no_grad()
    def rollout(
        self, answers: Sequence[Answer], parts: Sequence[MicroBatch], stopwatch: Stopwatch
    ) -> Rollout:
        """The rollout as an algorithm gets it, on every process the whole of it.

        Args:
            answers: The samples of one prompt side by side.
            parts: All micro-batches, the same on every process.
            stopwatch: Gets the phases `reference` and `update`.
        """
        lengths = [len(a.completion.token_ids) for a in answers]
        sampled_BT = torch.zeros(len(answers), max(lengths))
        for row, answer in enumerate(answers):
            if logprobs := answer.completion.logprobs:
                sampled_BT[row, : lengths[row]] = torch.tensor(logprobs)
        sampled_BT = send(sampled_BT, self.policy.device)
        engine_BT = critic_BT = None
        mask_BT = torch.zeros_like(sampled_BT, dtype=torch.bool)
        for part in parts:
            mask_BT[part.index_B, : part.tokens.mask_BT.shape[1]] = part.tokens.mask_BT
        at_hand = self.parked.in_use() if self.parked else nullcontext()
        with stopwatch.phase("reference"), at_hand:
            ref_BT = self._logprobs(self.reference, parts, sampled_BT)
        with stopwatch.phase("update"):
            if is_from_stage1(answers):
                sampled_BT = ref_BT  # The reference it was that sampled.
            elif self.scores_sampled:
                engine_BT, sampled_BT = sampled_BT, self._logprobs(self.policy, parts, sampled_BT)
            if self.critic is not None:
                critic_BT = self._critic_values(parts, sampled_BT)
            with self.policy.autocast():
                for part in parts:  # which the updates then share
                    fit_logprobs(self.policy.model, part.tokens)
        return Rollout(
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

    def _logprobs(self, policy: Policy, parts: Sequence[MicroBatch], like_BT: Tensor) -> Tensor:
        return _logprobs(policy, parts, like_BT, self.temperature, self.where)

    def _critic_values(self, parts: Sequence[MicroBatch], like_BT: Tensor) -> Tensor:
        """[B, T] the critic's values of a whole rollout."""
        return _compute_shared(
            parts,
            like_BT,
            self.policy,
            self.where,
            fit=lambda tokens: fit_critic(self.critic, tokens),
            compute=lambda tokens: critic_values(self.critic, tokens),
        )

    def _values(self, answers: Sequence[Answer]) -> Tensor | None:
        """[B] V* of each answer's prompt; None where the run has no value table."""
        values = [answer.prompt.value for answer in answers if answer.prompt.value is not None]
        assert len(values) in (0, len(answers))
        return self._floats(values) if values else None

    def _floats(self, values: Sequence[float]) -> Tensor:
        return send(torch.tensor(values, dtype=torch.float32), self.policy.device)


@torch.no_grad()
def policy_logprobs(
    policy: Policy, sequences: Sequences, temperature: float, max_tokens: int, where: OneProcess
) -> list[Tensor]:
    """Log-probs of the tokens of each response, [T] each on the CPU, in nats.

    Args:
        policy: Scores.
        sequences: Prompts and responses, the same on every process.
        temperature: What the responses were sampled at.
        max_tokens: In one forward pass, padding included.
        where: Whose share is computed here.

    Raises:
        StopRequested: A signal asks to stop.
    """
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    widths = [len(response) for _, response in sequences]
    parts = []
    for rows in micro_batches(lengths, max_tokens):
        tokens = policy.collate([sequences[i] for i in rows])
        parts.append(MicroBatch(send(torch.tensor(rows), policy.device), tokens))
    like_BT = torch.zeros(len(sequences), max(widths), device=policy.device)
    found_BT = _logprobs(policy, parts, like_BT, temperature, where).cpu()
    return [row_T[:width].clone() for row_T, width in zip(found_BT, widths, strict=True)]


def _logprobs(
    policy: Policy,
    parts: Sequence[MicroBatch],
    like_BT: Tensor,
    temperature: float,
    where: OneProcess,
) -> Tensor:
    """[B, T] a policy's log-probs of a whole rollout."""
    return _compute_shared(
        parts,
        like_BT,
        policy,
        where,
        fit=lambda tokens: fit_logprobs(policy.model, tokens),
        compute=lambda tokens: token_logprobs(policy.model, tokens, temperature)[0],
    )


def _compute_shared(
    parts: Sequence[MicroBatch],
    like_BT: Tensor,
    policy: Policy,
    where: OneProcess,
    fit: Callable[[TokenBatch], object],
    compute: Callable[[TokenBatch], Tensor],
) -> Tensor:
    """[B, T] what is computed of all micro-batches, each on one process."""
    found_BT = torch.zeros_like(like_BT)
    with policy.autocast():
        for part in parts:
            fit(part.tokens)
        for _, part, weight, _ in turns(parts, where):
            check_stop_together(where)
            values_BT = compute(part.tokens)
            if weight:
                found_BT[part.index_B, : values_BT.shape[1]] = values_BT
    return where.sum(found_BT)
