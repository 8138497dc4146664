"""What a step on CPU takes by phase, beside what its matrix products alone would take.

    python benchmarks/floor.py [REPEATS]

The shipped policy, 128 prompts of 40 tokens with one response of 31 tokens each, as in the
comparison. The floor of a phase is its products with the weights, at the rate of one large product
on this machine: reading every prompt once and every response token once to sample, forward over
prompts and responses for the reference, three times that for the update. Attention, norms,
activations, the softmax and Python come on top.
"""

import statistics
import sys

import torch
from workload import endless, frozen_copy, make_learner, make_prompts, step, timed

from astarpo.config.base import find_shipped
from astarpo.models.policy import load_policy

SEQUENCES, PROMPT, RESPONSE = 128, 40, 31


def product_rate(size: int = 2048) -> float:
    """Flops a second of a large fp32 product."""
    left, right = torch.randn(2, size, size)
    return 2 * size**3 / min(timed(lambda: left @ right) for _ in range(3))


def main(repeats: int) -> None:
    """Prints a line for each phase."""
    policy = load_policy(find_shipped("shipped:sums"), torch.device("cpu"), trainable=True)
    policy = endless(policy)
    settings = {"minibatches": 1, "micro_batch_tokens": 2048}
    learner = make_learner(policy, frozen_copy(policy), "astar_po", **settings)
    prompts = make_prompts(SEQUENCES, PROMPT, policy.model.config.vocab_size)
    step(learner, prompts, RESPONSE, SEQUENCES)  # the first is slow
    rates, times = [], []
    for _ in range(repeats):
        rates.append(product_rate())
        times.append(step(learner, prompts, RESPONSE, SEQUENCES))
    rate = statistics.median(rates)

    head = policy.model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in policy.model.parameters() if p.dim() == 2) - head
    forward = 2 * SEQUENCES * ((PROMPT + RESPONSE) * body + RESPONSE * head)
    work = {"generate": forward, "reference": forward, "update": 3 * forward}
    print(f"{torch.get_num_threads()} threads, {rate / 1e9:.0f} Gflop/s in one large product")
    print(f"{'':10}{'seconds':>10}{'floor':>10}{'times':>8}")
    for phase, flops in work.items():
        seconds = statistics.median(each[phase] for each in times)
        floor = flops / rate
        print(f"{phase:10}{seconds:10.3f}{floor:10.3f}{seconds / floor:8.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
