r"""A*-PO, stage 2: regress beta_2 ln(pi / pi_ref) onto the optimal advantage r - V*.

    loss = mean_B ( beta_2 sum_t [ln pi(y_t) - ln pi_ref(y_t)] + V^*(x) - r(x, y) )^2

with y sampled from the current policy, one for each prompt x, and the sum over the response's own
tokens, its terminal stop id included. No clipping, critic, length or reward normalisation.

Source: arXiv 2505.20686, equation of stage 2; beta_2 = 1e-3 by default. Deviations: none (the
published code adds an entropy bonus of 1e-3 that the paper's loss does not have; it is left out).

Exactly on-policy the expected gradient is -2 beta_2 grad( E r - beta_2 KL(pi || pi_ref) ): V^* then
is only a baseline. In a second mini-batch of the same rollout it no longer is.

Shapes: _B sequences, _T response tokens.
"""

from dataclasses import dataclass, replace

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.models.batch import masked_sum


@dataclass(frozen=True)
class AStarPO(Algorithm):
    """The paper's loss.

    Attributes:
        beta: The paper's beta_2: what leaving the reference costs, in units of reward a nat.
    """

    beta: float

    needs_values = True
    reads_sampled = False

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the advantages r - V^*, [B], which the log-ratio is regressed onto."""
        assert rollout.values_B is not None
        return replace(rollout, advantages=rollout.rewards_B - rollout.values_B)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Squares the residual of each sequence.

        Returns:
            The squared residuals, and the metric `residual` (in units of reward).
        """
        rollout = inputs.rollout
        assert rollout.advantages is not None
        log_ratio_B = masked_sum(inputs.logprobs_BT - rollout.ref_logprobs_BT, rollout.mask_BT)
        residual_B = self.beta * log_ratio_B - rollout.advantages
        return LossOutput(residual_B.square(), {"residual": residual_B.detach()})
