r"""SPO, single-stream policy optimisation: PPO's clipped loss with a running value as the baseline.

    A    = (r - v - mean_B(r - v)) / std_B(r - v)
    loss = sum over all tokens of the step of
           -min(rho_t A, clamp(rho_t, 1 - clip, 1 + clip_high) A) / their number

with rho_t = pi(y_t) / pi_old(y_t), pi_old the policy that sampled, one answer a prompt, and v what
its prompt's tracker said before that answer (`running_value.py`). Prompts are drawn by weights that
follow from the trackers too, without replacement where a step has no more than there are.

Source: arXiv 2509.13232 and the code published with it: clip 0.2, clip_high 0.28, no KL to the
reference. Deviations, beside those of the tracker:

- std_B divides by B - 1 and 1e-8 is added to it, as in the published code; one answer alone teaches
  nothing. That code also bounds the loss of unlikely tokens of wrong answers (dual clip, 10).
- The mean over tokens divides by the mean length of the step's responses, not of the mini-batch's,
  so that the result does not depend on how a step is cut.

Shapes: _B sequences, _T response tokens.
"""

from dataclasses import dataclass, replace

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.algorithms.ppo import clip_loss, response_mean
from astarpo.algorithms.running_value import RunningValue
from astarpo.models.batch import masked_sum

_EPSILON = 1e-8


@dataclass(frozen=True)
class SPO(Algorithm):
    """The clipped loss, its baseline a running value.

    Attributes:
        clip: How far below 1 a token's ratio may fall and still be rewarded for it.
        clip_high: How far above 1 it may rise.
    """

    clip: float
    clip_high: float

    needs_values = True
    running = RunningValue()

    def prepare(self, rollout: Rollout) -> Rollout:
        """Adds the advantages, [B], of mean 0 and deviation 1 over the step."""
        assert rollout.values_B is not None
        advantages_B = rollout.rewards_B - rollout.values_B
        advantages_B = advantages_B - advantages_B.mean()
        if len(advantages_B) > 1:
            advantages_B = advantages_B / (advantages_B.std() + _EPSILON)
        return replace(rollout, advantages=advantages_B)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Clips the ratios.

        Returns:
            Each sequence's sum over tokens by the step's mean length, and the metric `clipped`
            (share of a response's tokens whose gradient the clip stops).
        """
        rollout, mask_BT = inputs.rollout, inputs.rollout.mask_BT
        loss_BT, clipped_BT = clip_loss(inputs, self.clip, self.clip_high)
        metrics = {"clipped": response_mean(clipped_BT.to(loss_BT.dtype), mask_BT)}
        return LossOutput(masked_sum(loss_BT, mask_BT) / rollout.mean_length, metrics)
