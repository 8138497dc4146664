r"""GRPO: PPO's clipped loss with a group of samples of one prompt in the place of the critic.

    A_i  = (r_i - mean_G r) / (std_G r + 1e-4)
    loss = mean_B mean_t( -min(rho_t A, clamp(rho_t, 1 - clip, 1 + clip) A) + kl_coef k3_t )
    k3_t = pi_ref(y_t) / pi(y_t) - ln(pi_ref(y_t) / pi(y_t)) - 1

with rho_t = pi(y_t) / pi_old(y_t), pi_old the policy that sampled, and the inner mean over the
response's own tokens.

Source: arXiv 2402.03300 (DeepSeekMath), which ran groups of 64,
kl_coef 0.04 and one update a rollout, and names no clip. Variants: `std_normalize` off and
`length_scale` = the limit of a response give Dr. GRPO (arXiv 2503.20783). Deviations: none; where
the paper is silent, std_G divides by G - 1 and the 1e-4 keeps equal rewards finite, as in TRL.

k3 is an unbiased estimate of KL(pi || pi_ref), but its expected gradient on-policy is that of
KL(pi_ref || pi) at each token: the two agree to first order around pi = pi_ref. (TRL by default
multiplies k3 by rho, DeepSeek-V3.2's correction; the equation here does not.)

Shapes: _B sequences, _G samples of one prompt, _T response tokens.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.algorithms.ppo import clip_loss, response_mean
from astarpo.models.batch import masked_sum

_EPSILON = 1e-4


@dataclass(frozen=True)
class GRPO(Algorithm):
    """The clipped loss over a group.

    Attributes:
        group_size: The group, G.
        clip: How far a token's ratio may leave 1 and still be rewarded for it.
        kl_coef: Loss for a nat of departure from the reference.
        std_normalize: Whether the group's deviation divides its advantages.
        length_scale: Divides a response's sum over tokens; None for its own length.
    """

    group_size: int
    clip: float
    kl_coef: float
    std_normalize: bool
    length_scale: float | None

    @property
    def samples_per_prompt(self) -> int:
        """The group."""
        return self.group_size

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the advantages, [B]."""
        rewards_BG = rollout.rewards_B.view(-1, self.group_size)
        advantages_BG = rewards_BG - rewards_BG.mean(dim=1, keepdim=True)
        if self.std_normalize:
            advantages_BG = advantages_BG / (rewards_BG.std(dim=1, keepdim=True) + _EPSILON)
        return replace(rollout, advantages=advantages_BG.flatten())

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Adds the clipped loss and the price of the KL.

        Returns:
            Each sequence's loss, and the metrics `clipped` (share of a response's tokens whose
            gradient the clip stops) and `k3` (its mean over the tokens, in nats).
        """
        mask_BT = inputs.rollout.mask_BT
        loss_BT, clipped_BT = clip_loss(inputs, self.clip)
        k3_BT = k3(inputs)
        loss_BT = loss_BT + self.kl_coef * k3_BT
        if self.length_scale is None:
            loss_B = response_mean(loss_BT, mask_BT)
        else:
            loss_B = masked_sum(loss_BT, mask_BT) / self.length_scale
        metrics = {
            "clipped": response_mean(clipped_BT.to(loss_BT.dtype), mask_BT),
            "k3": response_mean(k3_BT.detach(), mask_BT),
        }
        return LossOutput(loss_B, metrics)


def k3(inputs: LossInputs) -> Tensor:
    """[B, T]: the estimate of the KL to the reference, never negative; 0 outside the mask."""
    log_ratio_BT = inputs.rollout.ref_logprobs_BT - inputs.logprobs_BT
    # Masked before the exponential, whose gradient would turn padding's nan or inf into nan.
    log_ratio_BT = log_ratio_BT.masked_fill(~inputs.rollout.mask_BT, 0.0)
    return log_ratio_BT.exp() - log_ratio_BT - 1
