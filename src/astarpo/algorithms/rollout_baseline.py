r"""A*-PO without stage 1: the baseline is of the step's own answers, and leaves little noise.

    loss = mean_B ( beta_2 sum_t [ln pi(y_t) - ln pi_ref(y_t)] + b - r(x, y) )^2
    b_i  = sum_{j != i} w_j r_j / sum_{j != i} w_j,   w = sum_t (1 - pi(y_t))^2

Exactly on-policy V^* is only a baseline in A*-PO's loss: any number that does not depend on the
answer gives the same expected gradient, and another noise. Where KL weighs little, the noise is

    E (r - b)^2 |grad ln pi(y)|^2,   least for b = E[w r] / E[w] with w = |grad ln pi(y)|^2

of all b that are the same for every prompt (Weaver and Tao, UAI 2001; Greensmith, Bartlett and
Baxter, JMLR 2004). Wrong answers are the surprising ones, whose gradients are large, so that this
lies well below the chance of success: `python benchmarks/baselines.py`. An answer's own reward is
left out of its b, so that b does not depend on it. The w above stands for the squared norm: it is
between 1/2 and 1 times that of the gradient with respect to the logits, and needs no backward pass.

Source: the loss is that of A*-PO (arXiv 2505.20686); b in the place of V^* is this package's own.

Shapes: _B sequences, _T response tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.base import Rollout
from astarpo.models.batch import masked_sum

_NOTHING = 1e-6


@dataclass(frozen=True)
class AStarPOByRollout(AStarPO):
    """The paper's loss with another baseline than V^*."""

    needs_values = False

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the advantages r - b, [B], which the log-ratio is regressed onto."""
        return replace(rollout, advantages=rollout.rewards_B - rollout_baseline(rollout))


def rollout_baseline(rollout: Rollout) -> Tensor:
    """The baseline of each answer.

    Returns:
        [B] weighted mean reward of the others; 0 where they weigh nothing: where there are none, or
        the policy could not have answered otherwise.
    """
    unsure_BT = (1 - rollout.sampled_logprobs_BT.exp()).square()
    weight_B = masked_sum(unsure_BT, rollout.mask_BT)
    reward_B = weight_B * rollout.rewards_B
    others_B = weight_B.sum() - weight_B
    mean_B = (reward_B.sum() - reward_B) / others_B.clamp(min=_NOTHING)
    return torch.where(others_B > _NOTHING, mean_B, 0.0)
