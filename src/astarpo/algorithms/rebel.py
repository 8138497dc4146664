r"""REBEL: regress the difference of two responses' log-ratios onto that of their rewards.

    loss = mean over pairs ( (1/eta) [D(y) - D(y')] - [R(y) - R(y')] )^2
    D(y) = sum_t [ln pi(y_t) - ln pi_old(y_t)]
    R(y) = r(y) - kl_coef sum_t [ln pi_old(y_t) - ln pi_ref(y_t)]

with y and y' two responses to one prompt and pi_old the policy that sampled both; R carries no
gradient.

Source: arXiv 2404.16767. With kl_coef 0, R = r and this is the published equation, whose solution
is pi ~ pi_old exp(eta r): nothing holds the policy to the reference, and each step sharpens it
further. With kl_coef > 0 the steps settle at pi_ref exp(r / kl_coef); the published code for
summaries has eta 1 and kl_coef 0.05. Deviations: none.

At the first update D = 0, and the expected gradient is -(4/eta) grad( E r - kl_coef KL ), the KL
from the policy to the reference.

Shapes: _B sequences, the two of a pair side by side, _P pairs, _T response tokens.
"""

from dataclasses import dataclass

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput
from astarpo.models.batch import masked_sum


@dataclass(frozen=True)
class REBEL(Algorithm):
    """The paper's loss.

    Attributes:
        eta: Nats of log-ratio to a unit of reward: the size of a step.
        kl_coef: Reward lost for a nat of departure from the reference.
    """

    eta: float
    kl_coef: float

    samples_per_prompt = 2
    coupled = 2

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Squares the residual of each pair.

        Returns:
            The square, for both of a pair's sequences, so that the mean over sequences is the mean
            over pairs; and the metric `residual` (its absolute value, in units of reward).
        """
        rollout, mask_BT = inputs.rollout, inputs.rollout.mask_BT
        step_B = masked_sum(inputs.logprobs_BT - rollout.sampled_logprobs_BT, mask_BT)
        distance_B = masked_sum(rollout.sampled_logprobs_BT - rollout.ref_logprobs_BT, mask_BT)
        error_B = step_B / self.eta - (rollout.rewards_B - self.kl_coef * distance_B)
        first_P, second_P = error_B.view(-1, 2).unbind(dim=1)
        residual_B = (first_P - second_P).repeat_interleave(2)
        return LossOutput(residual_B.square(), {"residual": residual_B.detach().abs()})
