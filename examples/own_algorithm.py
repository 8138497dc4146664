"""An own algorithm on the loop of A*-PO: python examples/own_algorithm.py MODEL OUT."""

import sys
from dataclasses import dataclass
from pathlib import Path

import astarpo
from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput
from astarpo.models.batch import masked_sum


@dataclass(frozen=True)
class Reinforce(Algorithm):
    """REINFORCE with V* as the baseline, and a KL penalty: kl_coef is the setting of this name."""

    kl_coef: float
    needs_values = True

    def loss(self, inputs: LossInputs) -> LossOutput:
        """mean_B( -(r - kl_coef ln(pi / pi_ref) - V*) ln pi ); see `Algorithm.loss`."""
        rollout = inputs.rollout
        logprob_B = masked_sum(inputs.logprobs_BT, rollout.mask_BT)
        log_ratio_B = logprob_B.detach() - masked_sum(rollout.ref_logprobs_BT, rollout.mask_BT)
        advantage_B = rollout.rewards_B - self.kl_coef * log_ratio_B - rollout.values_B
        return LossOutput(-advantage_B * logprob_B, {"advantage": advantage_B})


if __name__ == "__main__":
    model, out = sys.argv[1], Path(sys.argv[2])
    problems = astarpo.load_problems("arithmetic", limit=64)
    shared = {"model": model, "problems": problems, "device": "cpu"}
    limits = {"max_new_tokens": 64, "allow_truncated": True}
    table = astarpo.estimate(**shared, **limits, samples=4, out=out / "values")
    steps = {"steps": 3, "prompts_per_step": 32, "lr": 1e-4, "kl_coef": 0.01}
    run = astarpo.train(**shared, values=table, algorithm=Reinforce, **steps, out=out / "run")
    print(run, run.metrics[-1]["advantage"])
