"""What an algorithm is to the trainer: how many samples of a prompt it needs, and a loss over them.

Pure: tensors in, tensors out. An algorithm knows no engine, no file and no process group; the
trainer knows no algorithm by name.

Shapes: _B sequences, _T response tokens, right-padded.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from astarpo.algorithms.running_value import RunningValue


@dataclass(frozen=True)
class Rollout:
    """Sequences sampled in one step, the samples of one prompt side by side. Carries no gradient.

    Log-probs are in nats, rewards in the task's units. Outside the mask nothing has a meaning.

    Attributes:
        mask_BT: [B, T], True on the response's own tokens, its terminal stop id included.
        rewards_B: [B] what the verifier gave.
        sampled_logprobs_BT: [B, T] of the policy that sampled: as its engine reported them, or
            computed by the trainer before its first update where the engine rounds otherwise.
        ref_logprobs_BT: [B, T] of the reference policy.
        engine_logprobs_BT: [B, T] what the engine reported, where the trainer computed those above.
        values_B: [B] V* of each sequence's prompt, where the run has a value table; its running
            value, where the algorithm has those.
        critic_BT: [B, T] the critic's value of the state before each token, before any update of
            this step, where the algorithm has a critic.
        advantages: [B] or [B, T], added by the algorithm's `prepare`.
        returns_BT: [B, T], likewise.
        is_reference: Whether the reference sampled, in stage 1, and not the policy.
        mean_length: Tokens of a response, averaged over the whole step: the scale that turns a
            sum over tokens into a mean over all tokens.
    """

    mask_BT: Tensor
    rewards_B: Tensor
    sampled_logprobs_BT: Tensor
    ref_logprobs_BT: Tensor
    values_B: Tensor | None = None
    critic_BT: Tensor | None = None
    engine_logprobs_BT: Tensor | None = None
    advantages: Tensor | None = None
    returns_BT: Tensor | None = None
    is_reference: bool = False
    mean_length: float = 1.0

    def rows(self, indices: Tensor | list[int], width: int) -> "Rollout":
        """Some of the sequences, in the order given, padded to `width` tokens."""
        cut: dict[str, Tensor] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                rows = value[indices]
                cut[each.name] = rows[:, :width] if rows.ndim == 2 else rows
        return replace(self, **cut)


@dataclass(frozen=True)
class LossInputs:
    """One micro-batch: what is being trained, and the rows of the rollout it is trained on.

    Attributes:
        logprobs_BT: [B, T] of the policy being trained; carries the gradient.
        rollout: The same sequences as they were sampled.
        critic_BT: [B, T] of the critic being trained; carries its gradient.
    """

    logprobs_BT: Tensor
    rollout: Rollout
    critic_BT: Tensor | None = None


@dataclass(frozen=True)
class LossOutput:
    """A loss for each sequence; the objective is its mean over the whole mini-batch.

    Because the trainer takes that mean, the result does not depend on how a mini-batch is cut into
    micro-batches.

    Attributes:
        loss_B: [B], carries the gradient.
        metrics: Name to a detached [B] tensor, averaged by the trainer over the step's sequences.
    """

    loss_B: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Algorithm(ABC):
    """A way to turn rewards into a loss.

    Attributes:
        coupled: Neighbouring sequences whose loss needs them all in one micro-batch.
        needs_values: Whether it reads `Rollout.values_B`, and so needs a value table.
        needs_critic: Whether it reads the critic's values.
        running: How the values it reads run along with the policy, and with them how often each
            prompt is drawn; None where they stay V*, and every prompt comes equally often.
        reads_sampled: Whether it takes ratios to `Rollout.sampled_logprobs_BT`, so that the trainer
            computes those where the engine rounds otherwise.
    """

    coupled: int = 1
    needs_values: bool = False
    needs_critic: bool = False
    running: RunningValue | None = None
    reads_sampled: bool = True

    @property
    def samples_per_prompt(self) -> int:
        """Completions of each prompt in a step. They stay in one mini-batch."""
        return 1

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds what follows from the whole rollout, before the first update (advantages)."""
        return rollout

    @abstractmethod
    def loss(self, inputs: LossInputs) -> LossOutput:
        """The loss of each sequence; see the algorithm's file for its equation."""
