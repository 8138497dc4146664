r"""How noisy A*-PO's gradient is, by what is taken for V*.

    python benchmarks/baselines.py shipped:beliefs
    python benchmarks/baselines.py shipped:beliefs --policy runs/x/model    # trained from it
    python benchmarks/baselines.py runs/x/policy --task countdown --size 3    # no sums

On-policy the gradient of A*-PO's loss is, where KL weighs little, the mean of (V - r) grad ln pi.
Its expectation does not depend on V, its noise does: E (r - V)^2 |grad ln pi(y)|^2 is least for

    V = E[w r] / E[w],   w = |grad ln pi(y)|^2

(Weaver and Tao 2001; Greensmith, Bartlett and Baxter 2004), not for the chance of success E r. The
script samples answers, takes each one's gradient, and prints that noise for: V* = 0, one V* for all
problems (their mean reward), V* of each (its mean reward in 64 samples; the paper's too, of beta1 =
.5) under the reference and under the policy; and the best of all constants, also with the weight
that `--baseline-from rollout` has in the place of w, and with it of each problem.
"""

import argparse
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

import astarpo
from astarpo.config.base import find_shipped
from astarpo.engines.base import Sampling
from astarpo.engines.hf import HFEngine
from astarpo.grading.grader import Grader
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy, load_policy
from astarpo.rollout import roll_out
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.types import Answer, Problem, Prompt

MEAN_SAMPLES = 64
Floats = NDArray[np.float64]


def answers_of(
    policy: Policy, problems: Sequence[Problem], count: int, seed: int
) -> tuple[list[Answer], Floats]:
    """`count` answers to each problem, those of one problem together, and their rewards, [P, N]."""
    each = [Prompt(p, tuple(policy.vocabulary.render(p, "raw"))) for p in problems]
    prompts = [prompt for prompt in each for _ in range(count)]
    seeds = range(seed, seed + len(prompts))
    engine, sampling = HFEngine(policy, 512), Sampling(max_new_tokens=64)
    with Grader(num_workers=1, timeout_s=5.0) as grader:
        answers = roll_out(policy.vocabulary, engine, grader, prompts, seeds, sampling, Stopwatch())
    return answers, np.array([a.verdict.reward for a in answers]).reshape(-1, count)


def chances(policy: Policy, problems: Sequence[Problem], seed: int) -> tuple[Floats, Floats]:
    """[P, 1] each: the mean reward of each problem, and the mean by the weight of `rollout`."""
    answers, reward_PN = answers_of(policy, problems, MEAN_SAMPLES, seed)
    weights = [np.square(1 - np.exp(a.completion.logprobs)).sum() for a in answers]
    weight_PN = np.reshape(weights, reward_PN.shape)
    weighted_P = (weight_PN * reward_PN).sum(axis=1) / weight_PN.sum(axis=1)
    return reward_PN.mean(axis=1, keepdims=True), weighted_P[:, None]


def squared_norms(policy: Policy, answers: Sequence[Answer], count: int) -> tuple[Floats, Floats]:
    """[P, N] |grad ln pi(y)|^2 by all weights, and what stands for it, sum_t (1 - pi(y_t))^2."""
    weights = list(policy.model.parameters())
    norms, stands = [], []
    for answer in answers:
        batch = policy.collate([(answer.prompt.token_ids, answer.completion.token_ids)])
        logprobs_BT = token_logprobs(policy.model, batch, 1.0).logprobs_BT
        gradients = torch.autograd.grad(logprobs_BT.sum(), weights)
        norms.append(sum(each.square().sum().item() for each in gradients))
        stands.append((1 - logprobs_BT.detach().exp()).square().sum().item())
    return np.array(norms).reshape(-1, count), np.array(stands).reshape(-1, count)


def main() -> None:
    """Prints a table of the noise of each choice of V*."""
    parser = argparse.ArgumentParser(description="How noisy A*-PO's gradient is, by V*.")
    parser.add_argument("reference", help="folder or shipped:NAME")
    parser.add_argument("--policy", help="the policy that samples, trained from it; else itself")
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--size", type=int, help="of the task's problems")
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--samples", type=int, default=8, help="answers to each, whose gradients")
    args = parser.parse_args()
    logging.getLogger("astarpo").setLevel(logging.WARNING)
    cpu = torch.device("cpu")
    problems = astarpo.load_problems(args.task, size=args.size, limit=args.problems)
    reference = load_policy(find_shipped(args.reference), cpu)
    policy = load_policy(find_shipped(args.policy or args.reference), cpu, trainable=True)

    answers, reward_PN = answers_of(policy, problems, args.samples, seed=1 << 40)
    norm_PN, stand_PN = squared_norms(policy, answers, args.samples)
    first_P1, weighted_P1 = chances(reference, problems, seed=1 << 41)
    now_P1, weighted_now_P1 = chances(policy, problems, seed=1 << 42)
    right = reward_PN > 0
    ratio = norm_PN[~right].mean() / norm_PN[right].mean()
    stand_in = (reward_PN * stand_PN).sum() / stand_PN.sum()
    published_P1 = 0.5 * np.log1p(first_P1 * np.expm1(1 / 0.5))
    best = (reward_PN * norm_PN).sum() / norm_PN.sum()
    found = {
        "best constant": best,
        "constant, by the weight of --baseline-from rollout": stand_in,
        "0": 0.0,
        "one for all, reference": first_P1.mean(),
        "of each problem, reference": first_P1,
        "of each problem, reference, by the weight of rollout": weighted_P1,
        "of each problem, reference, beta1 = .5": published_P1,
        "one for all, policy now": now_P1.mean(),
        "of each problem, policy now": now_P1,
        "of each problem, policy now, by the weight of rollout": weighted_now_P1,
    }
    noise = {name: float(((reward_PN - v) ** 2 * norm_PN).mean()) for name, v in found.items()}
    print(f"right {right.mean():.3f}; |grad|^2 of wrong over right answers: {ratio:.1f}\n")
    print("| V* | mean | noise |\n|-|-|-|")
    for name, value in found.items():
        print(f"| {name} | {np.mean(value):.3f} | {noise[name] / noise['best constant']:.2f} |")


if __name__ == "__main__":
    main()
