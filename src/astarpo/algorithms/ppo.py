r"""PPO for language models: a token is an action, a learned critic is the baseline.

    r_t   = -kl_coef [ln pi_old(y_t) - ln pi_ref(y_t)],  and the verifier's reward on the last token
    d_t   = r_t + gamma V_old(s_{t+1}) - V_old(s_t),     V = 0 after the last token
    A_t   = sum_k (gamma lambda)^k d_{t+k},              R_t = A_t + V_old(s_t)
    loss  = mean_t( -min(rho_t A'_t, clamp(rho_t, 1 - clip, 1 + clip) A'_t)
                    + 1/2 max( (V(s_t) - R_t)^2, (V_clipped(s_t) - R_t)^2 ) )

with rho_t = pi(y_t) / pi_old(y_t), A' the advantages of the whole step whitened (mean 0, deviation
1), and V_clipped no further than `value_clip` from V_old. pi_old is the policy that sampled.

Sources: arXiv 1707.06347 (clip), 1506.02438 (GAE), 2203.02155 (the form for language models; no
discount, clip 0.2, KL 0.02 there). The A*-PO paper ran gamma = lambda = 1, clip 0.2, value clip
0.5. Deviations:

- The mean over tokens divides by the mean length of the step's responses, not of the mini-batch's,
  so that the result does not depend on how a step is cut.
- A response that reached the limit counts as ended: nothing is bootstrapped.
- Policy and critic are two models, so the 1/2 scales the critic's own gradient only.
- No entropy bonus, no adaptive KL, no mixing in of pretraining gradients.

Shapes: _B sequences, _T response tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.models.batch import masked_sum

_EPSILON = 1e-8


@dataclass(frozen=True)
class PPO(Algorithm):
    """The clipped loss of a policy and of its critic.

    Attributes:
        clip: How far a token's ratio may leave 1 and still be rewarded for it.
        kl_coef: Reward lost for a nat of departure from the reference.
        gae_gamma: Discount of a token.
        gae_lambda: 1 trusts the rewards, 0 the critic.
        value_clip: How far the critic may move from its values of the rollout, in reward.
    """

    clip: float
    kl_coef: float
    gae_gamma: float
    gae_lambda: float
    value_clip: float

    needs_critic = True

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the whitened advantages and the returns, both [B, T] and 0 outside the mask."""
        assert rollout.critic_BT is not None
        mask_BT = rollout.mask_BT
        values_BT = rollout.critic_BT.masked_fill(~mask_BT, 0.0)
        advantages_BT = gae(
            token_rewards(rollout, self.kl_coef), values_BT, self.gae_gamma, self.gae_lambda
        )
        return replace(
            rollout,
            advantages=whiten(advantages_BT, mask_BT),
            returns_BT=advantages_BT + values_BT,
        )

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Adds the policy's loss and half the critic's.

        Returns:
            Each sequence's sum over tokens by the step's mean length, and the metrics `clipped`
            (share of a response's tokens whose gradient the clip stops) and `critic_error` (mean
            squared distance to the returns).
        """
        rollout, mask_BT = inputs.rollout, inputs.rollout.mask_BT
        policy_loss_BT, clipped_BT = clip_loss(inputs, self.clip)
        critic_loss_BT, error_BT = self._critic_loss(inputs)
        loss_BT = policy_loss_BT + 0.5 * critic_loss_BT
        metrics = {
            "clipped": response_mean(clipped_BT.to(loss_BT.dtype), mask_BT),
            "critic_error": response_mean(error_BT.detach(), mask_BT),
        }
        return LossOutput(masked_sum(loss_BT, mask_BT) / rollout.mean_length, metrics)

    def _critic_loss(self, inputs: LossInputs) -> tuple[Tensor, Tensor]:
        rollout, outside_BT = inputs.rollout, ~inputs.rollout.mask_BT
        assert inputs.critic_BT is not None
        assert rollout.critic_BT is not None
        assert rollout.returns_BT is not None
        values_BT = inputs.critic_BT.masked_fill(outside_BT, 0.0)
        old_BT = rollout.critic_BT.masked_fill(outside_BT, 0.0)
        moved_BT = (values_BT - old_BT).clamp(-self.value_clip, self.value_clip)
        error_BT = (values_BT - rollout.returns_BT).square()
        clipped_error_BT = (old_BT + moved_BT - rollout.returns_BT).square()
        return torch.maximum(error_BT, clipped_error_BT), error_BT


def clip_loss(
    inputs: LossInputs, clip: float, clip_high: float | None = None
) -> tuple[Tensor, Tensor]:
    """PPO's loss of the policy, token by token.

    Args:
        inputs: With advantages, [B] or [B, T].
        clip: How far a ratio may leave 1.
        clip_high: How far it may rise above 1, where that differs.

    Returns:
        [B, T] the loss, and [B, T] whether the clip stops the token's gradient.
    """
    rollout = inputs.rollout
    high = clip if clip_high is None else clip_high
    assert rollout.advantages is not None
    advantages_BT = rollout.advantages
    if advantages_BT.ndim == 1:
        advantages_BT = advantages_BT[:, None]
    # Masked before the exponential, whose gradient would turn padding's nan or inf into nan.
    log_ratio_BT = inputs.logprobs_BT - rollout.sampled_logprobs_BT
    ratio_BT = log_ratio_BT.masked_fill(~rollout.mask_BT, 0.0).exp()
    gain_BT = ratio_BT * advantages_BT
    clipped_gain_BT = ratio_BT.clamp(1 - clip, 1 + high) * advantages_BT
    return -torch.minimum(gain_BT, clipped_gain_BT), gain_BT > clipped_gain_BT


def token_rewards(rollout: Rollout, kl_coef: float) -> Tensor:
    """[B, T]: the KL's price at each token, the verifier's reward at the last; 0 elsewhere."""
    mask_BT = rollout.mask_BT
    kl_BT = (rollout.sampled_logprobs_BT - rollout.ref_logprobs_BT).masked_fill(~mask_BT, 0.0)
    last_BT = mask_BT & ~torch.nn.functional.pad(mask_BT[:, 1:], (0, 1))
    return -kl_coef * kl_BT + last_BT * rollout.rewards_B[:, None]


def gae(rewards_BT: Tensor, values_BT: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates.

    Args:
        rewards_BT: [B, T], 0 on padding, which is on the right.
        values_BT: [B, T] of the state before each token, 0 on padding.
        gamma: Discount of a token.
        lam: Weight of later errors.

    Returns:
        [B, T] advantages, 0 on padding.
    """
    next_values_BT = torch.nn.functional.pad(values_BT[:, 1:], (0, 1))
    advantages_BT = rewards_BT + gamma * next_values_BT - values_BT
    # Token by token this would be a thousand small kernels. Instead each pass doubles the errors
    # that every token's sum covers: it adds the sum that begins where its own ends.
    reach, num_tokens = 1, advantages_BT.shape[1]
    while reach < num_tokens:
        advantages_BT[:, :-reach] += (gamma * lam) ** reach * advantages_BT[:, reach:]
        reach *= 2
    return advantages_BT


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Values of mean 0 and variance 1 over all tokens of the mask; 0 outside it."""
    inside = values_BT[mask_BT]
    scale = (inside.var(correction=0) + _EPSILON).rsqrt()
    return ((values_BT - inside.mean()) * scale).masked_fill(~mask_BT, 0.0)


def response_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """[B]: the mean over each response's own tokens."""
    return masked_sum(values_BT, mask_BT) / mask_BT.sum(dim=-1).clamp(min=1)
