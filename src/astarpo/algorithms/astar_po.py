r"""A*-PO, stage 2: regress beta_2 ln(pi / pi_ref) onto the optimal advantage r - V*.

    loss = mean_B ( beta_2 sum_t [ln pi(y_t) - ln pi_ref(y_t)] + V^*(x) - r(x, y) )^2

with y sampled from the current policy, one for each prompt x, and the sum over the response's own
tokens, its terminal stop id included. No clipping, critic, length or reward normalisation.

Source: arXiv 2505.20686, equation of stage 2; beta_2 = 1e-3 by default. Deviations: none (the
published code adds an entropy bonus of 1e-3 that the paper's loss does not have; it is left out).

Exactly on-policy the expected gradient is -2 beta_2 grad( E r - beta_2 KL(pi || pi_ref) ): V^* then
is only a baseline. In a second mini-batch of the same rollout it no longer is.

Three options, all off by default, keep a large learning rate from wrecking the policy
(docs/experiments.md has what each is worth):

- `policy_scale` divides the loss by 2 beta_2: its gradient then has the size of a policy gradient,
  so that the clip on the gradient's norm can act and Adam's epsilon cannot.
- `center` takes the rollout's mean residual out of V^*. V^* lies above the success rate, so early
  on most residuals push down what the policy samples; on-policy this scales the expected gradient
  by 1 - 1/B and changes nothing else of it.
- `residual_clip` bounds how much one residual can weigh (Huber's loss).

Shapes: _B sequences, _T response tokens.
"""

from dataclasses import dataclass, replace

import torch

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.models.batch import masked_sum


@dataclass(frozen=True)
class AStarPO(Algorithm):
    """The paper's loss.

    Attributes:
        beta: The paper's beta_2: how dear it is to leave the reference, in reward per nat.
        policy_scale: Whether the loss is divided by 2 beta.
        center: Whether the rollout's mean residual is subtracted.
        residual_clip: Size, in reward, beyond which a residual weighs no more; None for no limit.
    """

    beta: float
    policy_scale: bool = False
    center: bool = False
    residual_clip: float | None = None

    needs_values = True

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the advantages r - V^*, [B], which the log-ratio is regressed onto."""
        assert rollout.values_B is not None
        advantages_B = rollout.rewards_B - rollout.values_B
        if self.center:
            log_ratio_BT = rollout.sampled_logprobs_BT - rollout.ref_logprobs_BT
            residual_B = self.beta * masked_sum(log_ratio_BT, rollout.mask_BT) - advantages_B
            advantages_B = advantages_B + residual_B.mean()
        return replace(rollout, advantages=advantages_B)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Squares the residual of each sequence.

        Returns:
            The squared residuals, and the metric `residual` (in units of reward).
        """
        rollout = inputs.rollout
        assert rollout.advantages is not None
        log_ratio_B = masked_sum(inputs.logprobs_BT - rollout.ref_logprobs_BT, rollout.mask_BT)
        residual_B = self.beta * log_ratio_B - rollout.advantages
        loss_B = residual_B.square()
        if self.residual_clip is not None:
            bound = self.residual_clip
            loss_B = torch.where(
                residual_B.abs() <= bound, loss_B, bound * (2 * residual_B.abs() - bound)
            )
        if self.policy_scale:
            loss_B = loss_B / (2 * self.beta)
        return LossOutput(loss_B, {"residual": residual_B.detach()})
