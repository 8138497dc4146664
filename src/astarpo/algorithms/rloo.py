r"""RLOO: REINFORCE on whole responses, each with the mean of its prompt's others as baseline.

    R_i  = r_i - kl_coef sum_t [ln pi_old(y_t) - ln pi_ref(y_t)]
    A_i  = R_i - mean_{j != i} R_j
    loss = mean_B( -A sum_t ln pi(y_t) )

with pi_old the policy that sampled; R carries no gradient.

Source: arXiv 2402.14740, with 2 and 4 samples a prompt there. Deviations: none in the equation.
There is no ratio and no clip, so a second mini-batch of the same rollout is slightly off-policy
and its gradient slightly biased; one mini-batch a rollout is exact.

On-policy the expected gradient is exactly -grad( E r - kl_coef KL(pi || pi_ref) ). The loss's own
value means nothing.

Shapes: _B sequences, _G samples of one prompt, _T response tokens.
"""

from dataclasses import dataclass, replace

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.models.batch import masked_sum


@dataclass(frozen=True)
class RLOO(Algorithm):
    """REINFORCE with the leave-one-out baseline.

    Attributes:
        group_size: Samples of a prompt, at least 2.
        kl_coef: Reward lost for a nat of departure from the reference.
    """

    group_size: int
    kl_coef: float

    @property
    def samples_per_prompt(self) -> int:
        """The group."""
        return self.group_size

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the advantages, [B]."""
        log_ratio_BT = rollout.sampled_logprobs_BT - rollout.ref_logprobs_BT
        rewards_B = rollout.rewards_B - self.kl_coef * masked_sum(log_ratio_BT, rollout.mask_BT)
        rewards_BG = rewards_B.view(-1, self.group_size)
        others_BG = rewards_BG.sum(dim=1, keepdim=True) - rewards_BG
        advantages_BG = rewards_BG - others_BG / (self.group_size - 1)
        return replace(rollout, advantages=advantages_BG.flatten())

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Weighs each response's log-prob by its advantage.

        Returns:
            Each sequence's loss, and the metric `advantage_size` (its absolute value, in reward).
        """
        advantages_B = inputs.rollout.advantages
        assert advantages_B is not None
        logprob_B = masked_sum(inputs.logprobs_BT, inputs.rollout.mask_BT)
        return LossOutput(-advantages_B * logprob_B, {"advantage_size": advantages_B.abs()})
